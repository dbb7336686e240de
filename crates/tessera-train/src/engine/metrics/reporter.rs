//! Rank 0's rows, evaluations, pictures and status, written by a thread that no step waits for.
//!
//! Storage that is full, read-only or stands still ends no run: what it does not take is kept in order, tried
//! again every second, and told once. Past a bound on memory the oldest pictures are given up first, and counted.
//! A checkpoint asks by [`Durable`] whether everything before it is written and synced; the end of a run asks by
//! [`Reporter::wait`].

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tessera_checkpoint::CheckpointError;
use tessera_control::RunStatus;

use super::histogram::Histogram;
use super::kept::{Entry, Kept};
use super::picture::Exhibit;
use super::{Launcher, MetricSink, Sink};
use crate::engine::figures::Row;
use crate::error::TrainError;

/// Time between two tries.
const BETWEEN_TRIES: Duration = Duration::from_secs(1);
/// What may wait to be written.
const MOST_BYTES: usize = 64 << 20;
/// How long a run that fails waits for its last rows.
const AT_FAILURE: Duration = Duration::from_millis(300);

/// Says a line to whoever watches the run.
type Tell = dyn Fn(String) + Send + Sync;

/// What is written once, at the end of a run.
pub(crate) type Parting = Box<dyn FnOnce() -> Result<(), TrainError> + Send>;

/// Rank 0's reports on their way.
pub(crate) struct Reporter {
    shared: Arc<Shared>,
    launcher: Option<Launcher>,
    tell: Arc<Tell>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// What each sink holds.
    units: Vec<&'static str>,
    root: PathBuf,
}

struct State {
    kept: Kept,
    /// The newest status that is not written yet.
    status: Option<RunStatus>,
    /// What is to be written before that.
    parting: Option<Parting>,
    /// Who wants to know whether all is written and synced.
    asked: Option<Sender<Result<(), TrainError>>>,
    is_busy: bool,
    is_closed: bool,
    /// When what was refused is tried again.
    again: Option<Instant>,
    has_told_loss: bool,
    /// Another run has the folder, in these words: nothing more is written.
    lost: Option<String>,
}

impl State {
    fn has_work(&self) -> bool {
        self.status.is_some() || self.parting.is_some() || !self.kept.is_empty()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reporter {
    /// Starts the thread that writes to `sinks` and the status of the run in `root`, as long as `check` finds
    /// the folder to be this run's; `tell` says what people have to know.
    ///
    /// # Errors
    ///
    /// [`TrainError::File`] if there can be no thread.
    pub(crate) fn start(
        root: &Path,
        sinks: Vec<Sink>,
        launcher: Option<Launcher>,
        check: impl Fn() -> Result<(), TrainError> + Send + 'static,
        tell: impl Fn(String) + Send + Sync + 'static,
    ) -> Result<Self, TrainError> {
        let kept = Kept::new(sinks.iter().map(|sink| sink.takes).collect(), MOST_BYTES);
        let state = State {
            kept,
            status: None,
            parting: None,
            asked: None,
            is_busy: false,
            is_closed: false,
            again: None,
            has_told_loss: false,
            lost: None,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
            units: sinks.iter().map(|sink| sink.unit).collect(),
            root: root.to_owned(),
        });
        let tell: Arc<Tell> = Arc::new(tell);
        let (theirs, told) = (Arc::clone(&shared), Arc::clone(&tell));
        let targets = sinks.into_iter().map(|sink| sink.target).collect();
        std::thread::Builder::new()
            .name("reporter".into())
            .spawn(move || serve(&theirs, targets, &check, &*told))
            .map_err(TrainError::file("start a thread for", root))?;
        Ok(Self { shared, launcher, tell })
    }

    /// A logging interval has ended.
    pub(crate) fn row(&mut self, row: &Row) {
        let _ = self.launcher.as_mut().map(|launcher| launcher.row(row)); // it never fails
        self.keep(Entry::Row(Arc::new(row.clone())));
    }

    /// An evaluation has ended.
    pub(crate) fn evaluation(&mut self, figures: &Row) {
        let _ = self.launcher.as_mut().map(|launcher| launcher.evaluation(figures));
        self.keep(Entry::Evaluation(Arc::new(figures.clone())));
    }

    /// Something to look at or to listen to was made after `step` steps.
    pub(crate) fn exhibit(&mut self, step: u64, exhibit: Exhibit) {
        self.keep(Entry::Exhibit(step, Arc::new(exhibit)));
    }

    /// How numbers are spread after `step` steps.
    pub(crate) fn histograms(&mut self, step: u64, histograms: Vec<Histogram>) {
        self.keep(Entry::Histograms(step, Arc::new(histograms)));
    }

    /// All steps of the run are done, `step` of them.
    pub(crate) fn done(&mut self, step: u64) {
        self.keep(Entry::Done(step));
    }

    /// How the run stands now.
    pub(crate) fn status(&self, status: RunStatus) {
        self.shared.lock().status = Some(status);
        self.shared.changed.notify_all();
    }

    /// Lets `write` write what a run leaves at its end. That is tried once, and told where it fails.
    pub(crate) fn parting(&self, write: Parting) {
        self.shared.lock().parting = Some(write);
        self.shared.changed.notify_all();
    }

    fn keep(&self, entry: Entry) {
        let mut state = self.shared.lock();
        let is_first_loss = state.kept.push(&entry) && !state.has_told_loss;
        state.has_told_loss |= is_first_loss;
        drop(state);
        self.shared.changed.notify_all();
        if is_first_loss {
            let most = MOST_BYTES >> 20;
            (self.tell)(format!(
                "more than {most} MiB wait to be written: the oldest pictures are given up, then events and rows"
            ));
        }
    }

    /// Whether the run folder was the run's when the thread last wrote.
    ///
    /// # Errors
    ///
    /// [`TrainError::Lost`].
    pub(crate) fn still_ours(&self) -> Result<(), TrainError> {
        self.shared.lock().lost.clone().map_or(Ok(()), |lost| Err(TrainError::Lost(lost)))
    }

    /// What a checkpoint asks before it becomes visible.
    pub(crate) fn durable(&self) -> Durable {
        Durable(Arc::clone(&self.shared))
    }

    /// Waits until all is written, for so long at most; whether it is.
    pub(crate) fn wait(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut state = self.shared.lock();
        while state.has_work() || state.is_busy {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.shared.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// What is not written, and will not be when the run ends now; `None` where there is nothing.
    pub(crate) fn missing(&self) -> Option<String> {
        let state = self.shared.lock();
        let waiting = state.kept.waiting();
        let numbers = waiting.iter().zip(state.kept.lost()).map(|(waiting, lost)| waiting + lost);
        let named = numbers.zip(&self.shared.units).filter(|(number, _)| *number > 0);
        let mut missing: Vec<String> =
            named.map(|(number, unit)| format!("{unit}: {number}")).collect();
        if state.status.is_some() {
            missing.push("status.json".to_owned());
        }
        if missing.is_empty() && state.is_busy {
            missing.push("what is being written".to_owned());
        }
        (!missing.is_empty()).then(|| missing.join(", "))
    }
}

impl Drop for Reporter {
    /// A run that fails leaves its last rows where they belong, if that is a matter of a moment.
    fn drop(&mut self) {
        if self.shared.lock().again.is_none() {
            self.wait(AT_FAILURE);
        }
        self.shared.lock().is_closed = true;
        self.shared.changed.notify_all();
    }
}

/// Knows whether the rows of a run survive a loss of power.
#[derive(Clone)]
pub(crate) struct Durable(Arc<Shared>);

impl std::fmt::Debug for Durable {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Durable")
    }
}

impl Durable {
    /// Waits until everything that was reported so far is written and synced; tries once, if it was refused
    /// before.
    ///
    /// # Errors
    ///
    /// What the storage does not take.
    pub(crate) fn settle(&self) -> Result<(), CheckpointError> {
        let Self(shared) = self;
        let (answer, answered) = channel();
        let mut state = shared.lock();
        state.asked = (!state.is_closed).then_some(answer);
        drop(state);
        shared.changed.notify_all();
        let settled = answered.recv().unwrap_or_else(|_| {
            Err(TrainError::Storage("the thread that writes rows has ended".to_owned()))
        });
        settled.map_err(|error| match error {
            TrainError::File { action, path, source } => {
                CheckpointError::File { action, path, source }
            }
            TrainError::Lost(lost) => CheckpointError::Lost(lost),
            other => CheckpointError::File {
                action: "write the rows of",
                path: shared.root.clone(),
                source: std::io::Error::other(other.to_string()),
            },
        })
    }
}

fn serve(
    shared: &Shared,
    mut sinks: Vec<Box<dyn MetricSink>>,
    check: &dyn Fn() -> Result<(), TrainError>,
    tell: &Tell,
) {
    let mut is_in_trouble = false;
    while let Some(asked) = next(shared) {
        let refused = check().err().or_else(|| {
            let parting = shared.lock().parting.take();
            if let Some(error) = parting.and_then(|write| write().err()) {
                tell(error.to_string());
            }
            write_all(shared, &mut sinks)
        });
        match &refused {
            // The run ends for it.
            Some(TrainError::Lost(lost)) => shared.lock().lost = Some(lost.clone()),
            Some(error) if !is_in_trouble => tell(format!(
                "{error}; rows, events, pictures and status are kept and tried again, and the training goes on"
            )),
            None if is_in_trouble => {
                tell("the storage takes rows again: what was kept is written".to_owned());
            }
            _ => {}
        }
        is_in_trouble = refused.is_some();
        let mut state = shared.lock();
        state.is_busy = false;
        state.again = is_in_trouble.then(|| Instant::now() + BETWEEN_TRIES);
        drop(state);
        shared.changed.notify_all();
        if let Some(asked) = asked {
            let synced = || sinks.iter_mut().try_for_each(|sink| sink.sync());
            let _ = asked.send(refused.map_or_else(synced, Err)); // who has asked may have left
        }
    }
}

/// Waits for something to do, and answers with whoever has asked for it; `None` at the end.
fn next(shared: &Shared) -> Option<Option<Sender<Result<(), TrainError>>>> {
    let mut state = shared.lock();
    loop {
        let now = Instant::now();
        let may_try = state.again.is_none_or(|again| now >= again);
        if state.asked.is_some() || (state.has_work() && may_try && !state.is_closed) {
            state.is_busy = true;
            return Some(state.asked.take());
        }
        if state.is_closed {
            return None;
        }
        let left = match state.again {
            Some(again) if state.has_work() => again - now,
            _ => Duration::MAX,
        };
        let waited = shared.changed.wait_timeout(state, left.min(Duration::from_secs(3600)));
        state = waited.unwrap_or_else(PoisonError::into_inner).0;
    }
}

/// Gives each sink what it takes, and the first error.
fn write_all(shared: &Shared, sinks: &mut [Box<dyn MetricSink>]) -> Option<TrainError> {
    let mut first = None;
    for (number, sink) in sinks.iter_mut().enumerate() {
        loop {
            let Some(entry) = shared.lock().kept.pop(number) else { break };
            let written = match &entry {
                Entry::Row(row) => sink.row(row),
                Entry::Evaluation(figures) => sink.evaluation(figures),
                Entry::Exhibit(step, exhibit) => sink.exhibit(*step, exhibit),
                Entry::Histograms(step, histograms) => sink.histograms(*step, histograms),
                Entry::Done(step) => sink.done(*step),
            };
            if let Err(error) = written {
                shared.lock().kept.put_back(number, entry);
                first.get_or_insert(error);
                break;
            }
        }
    }
    let status = shared.lock().status.take();
    if let Some(status) = status
        && let Err(error) = status.write(&shared.root)
    {
        shared.lock().status.get_or_insert(status); // unless there is a newer one
        first.get_or_insert(TrainError::file("write the status of", &shared.root)(error));
    }
    first
}

#[cfg(test)]
#[path = "reporter_tests.rs"]
mod tests;
