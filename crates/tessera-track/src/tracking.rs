//! One run on its way to one tracker.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::TrackError;
use crate::cursor::{Cursor, CursorFile};
use crate::mlflow::{Login, Mlflow};
use crate::run::{Ending, Run};
use crate::source::{Entry, Limits, Position, Source};
use crate::times;
use crate::tracker::Tracker;
use crate::trackio::Trackio;
use crate::wandb::Wandb;

/// Entries that are sent together.
const BATCH: usize = 200;

/// A tracker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Weights & Biases: an offline run folder for `wandb sync`.
    Wandb,
    /// An MLflow server, by REST.
    Mlflow,
    /// Trackio: a table, and a program that logs it.
    Trackio,
}

impl Target {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Wandb, Self::Mlflow, Self::Trackio];

    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Wandb => "wandb",
            Self::Mlflow => "mlflow",
            Self::Trackio => "trackio",
        }
    }
}

/// What is sent where.
#[derive(Debug, Clone)]
pub struct Options {
    /// The tracker.
    pub target: Target,
    /// W&B's project, MLflow's experiment, the start of Trackio's project; empty: what the tracker's own variable
    /// says, or else `tessera`.
    pub project: String,
    /// MLflow's server; empty: what `MLFLOW_TRACKING_URI` says.
    pub uri: String,
    /// Whether rows go at once, although a resume may take them back.
    pub is_eager: bool,
    /// Folder for cursors and for what is written; `None`: `track` in the run folder.
    pub out: Option<PathBuf>,
    /// How long a request may take.
    pub timeout: Duration,
    /// Becomes true when somebody asks for the end.
    pub stop: Arc<AtomicBool>,
}

/// A run, a tracker, and what the one has of the other.
#[derive(Debug)]
pub struct Tracking {
    run: Run,
    tracker: Box<dyn Tracker>,
    file: CursorFile,
    is_eager: bool,
    stop: Arc<AtomicBool>,
    has_begun: bool,
    source: Option<Source>,
    /// Read, and not yet taken by the tracker.
    batch: Vec<Entry>,
}

impl std::fmt::Debug for dyn Tracker {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.name())
    }
}

impl Tracking {
    /// The run in `run_dir` on its way. Nothing is sent yet.
    ///
    /// # Errors
    ///
    /// [`TrackError`]: no run, another process at the same cursor, an address that is none.
    pub fn open(run_dir: &Path, options: &Options) -> Result<Self, TrackError> {
        let run = Run::open(run_dir)?;
        let out = options.out.clone().unwrap_or_else(|| run_dir.join("track"));
        let set = |value: &str, name: &str| match value {
            "" => std::env::var(name).ok().filter(|value| !value.is_empty()),
            value => Some(value.to_owned()),
        };
        let or_ours = |found: Option<String>| found.unwrap_or_else(|| "tessera".to_owned());
        let is_eager = options.is_eager;
        let (tracker, target): (Box<dyn Tracker>, String) = match options.target {
            Target::Wandb => {
                let project = or_ours(set(&options.project, "WANDB_PROJECT"));
                let entity = set("", "WANDB_ENTITY").unwrap_or_default();
                let target = format!("{entity}/{project}");
                (Box::new(Wandb { out: out.clone(), entity, project }), target)
            }
            Target::Mlflow => {
                let uri = set(&options.uri, "MLFLOW_TRACKING_URI").unwrap_or_default();
                let experiment = or_ours(set(&options.project, "MLFLOW_EXPERIMENT_NAME"));
                let (login, stop) = (Login::of_environment(), Arc::clone(&options.stop));
                let mut mlflow = Mlflow::new(&uri, &experiment, login, options.timeout, stop)?;
                mlflow.is_eager = is_eager;
                let target = mlflow.target();
                (Box::new(mlflow), target)
            }
            Target::Trackio => {
                let project = or_ours(set(&options.project, "TRACKIO_PROJECT"));
                let (target, written) = (project.clone(), None);
                (Box::new(Trackio { out: out.clone(), project, is_eager, written }), target)
            }
        };
        // In a folder of the user's choice several runs may have their cursors.
        let target = match options.out {
            Some(_) => {
                format!("{target}, {}", run.dir.canonicalize().unwrap_or_default().display())
            }
            None => target,
        };
        let started = times::started(run_dir);
        let file = CursorFile::open(&out, options.target.name(), &target, started)?;
        let stop = Arc::clone(&options.stop);
        let (has_begun, source, batch) = (false, None, Vec::new());
        Ok(Self { run, tracker, file, is_eager, stop, has_begun, source, batch })
    }

    /// The run folder.
    pub fn run_dir(&self) -> &Path {
        &self.run.dir
    }

    /// What was sent.
    pub fn cursor(&self) -> &Cursor {
        &self.file.cursor
    }

    /// Where a person finds it, and what is still to do.
    pub fn where_to(&self) -> String {
        self.tracker.where_to(&self.file.cursor)
    }

    /// Sends what may be sent by now: how many entries.
    ///
    /// # Errors
    ///
    /// [`TrackError`]; after one that [`TrackError::is_passing`] the same call goes on where it was.
    pub fn advance(&mut self) -> Result<usize, TrackError> {
        let limits = self.run.limits(self.is_eager)?;
        self.look_back(limits)?;
        if !self.has_begun {
            self.begin()?;
        }
        let cursor = &self.file.cursor;
        if self.source.is_none() {
            let opened = Source::open(&self.run.dir, &cursor.position, cursor.started)?;
            // Replaced within this moment: the next call sees it.
            let Some(opened) = opened else { return Ok(0) };
            self.source = Some(opened);
        }
        let source = self.source.as_mut().expect("opened above");
        source.look_for_exhibits(limits)?;
        let mut num_sent = 0;
        loop {
            while self.batch.len() < BATCH {
                let Some(entry) = source.next(limits)? else { break };
                self.batch.push(entry);
            }
            if self.batch.is_empty() {
                return Ok(num_sent);
            }
            if self.stop.load(Ordering::Acquire) {
                return Err(TrackError::Stopped);
            }
            self.tracker.send(&mut self.file.cursor, &self.batch)?;
            num_sent += std::mem::take(&mut self.batch).len();
            self.file.cursor.position = source.position().clone();
            self.file.cursor.final_step = limits.exhibits;
            self.file.save()?;
        }
    }

    /// Says what stands behind the last entry for now, and how the run has ended, if it has.
    ///
    /// # Errors
    ///
    /// As [`Tracking::advance`].
    pub fn close(&mut self, ending: Option<Ending>) -> Result<(), TrackError> {
        if !self.has_begun {
            self.begin()?;
        }
        self.tracker.close(&self.run, &mut self.file.cursor, ending)?;
        self.file.cursor.told_ending = ending.map(|ending| format!("{ending:?}").to_lowercase());
        self.file.save()
    }

    /// How many rows are there that may not be sent yet, and the last step that may.
    ///
    /// # Errors
    ///
    /// As [`Tracking::advance`].
    pub fn num_waiting(&self) -> Result<(usize, Option<u64>), TrackError> {
        let cursor = &self.file.cursor;
        let Some(mut source) = Source::open(&self.run.dir, &cursor.position, cursor.started)?
        else {
            return Ok((0, cursor.final_step));
        };
        let mut waiting = 0;
        while source.next(Limits { rows: Some(u64::MAX), exhibits: None })?.is_some() {
            waiting += 1;
        }
        Ok((waiting, cursor.final_step))
    }

    fn begin(&mut self) -> Result<(), TrackError> {
        let before = self.file.cursor.position.clone();
        self.tracker.begin(&self.run, &mut self.file.cursor)?;
        self.file.cursor.told_ending = None;
        self.file.save()?;
        if self.file.cursor.position != before {
            (self.source, self.batch) = (None, Vec::new());
        }
        self.has_begun = true;
        Ok(())
    }

    /// Sees whether the run went back to before what was sent: to a checkpoint that is older than the one that had
    /// made it final, or, with eager rows, to the newest one.
    fn look_back(&mut self, limits: Limits) -> Result<(), TrackError> {
        if let Some(source) = &self.source {
            if !source.is_replaced()? {
                return Ok(());
            }
            // What was read and not sent may be gone, and comes again if it is not.
            (self.source, self.batch) = (None, Vec::new());
        }
        let cursor = &mut self.file.cursor;
        self.source = Source::open(&self.run.dir, &cursor.position, cursor.started)?;
        if self.source.is_some() {
            return Ok(());
        }
        let (run, sent) = (self.run.dir.display(), cursor.position.last_step().unwrap_or(0));
        let kept = limits.exhibits.unwrap_or(0);
        if self.is_eager && limits.exhibits >= cursor.final_step {
            let position: Position = cursor.position.after(&self.run.dir, kept)?;
            tracing::warn!(
                "{run}: the run went back to step {kept}: rows of steps {} to {sent} are sent again, and may be there \
                 twice",
                kept + 1
            );
            cursor.position = position;
        } else {
            tracing::warn!(
                "{run}: the run went back to before step {sent}, up to which rows were sent: it goes on as another \
                 run of the tracker"
            );
            cursor.begin_anew()?;
            self.has_begun = false;
        }
        self.file.save()
    }
}

#[cfg(test)]
#[path = "tracking_tests.rs"]
mod tests;
