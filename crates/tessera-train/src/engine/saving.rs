//! Checkpoints of a run, steps that are left out, and what it tells of itself.

use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;
use tch::Device;
use tessera_checkpoint::{CheckpointError, Storage};
use tessera_comm::all_gather_bytes;
use tessera_control::{Client, Message, Phase, Process, RunState, RunStatus};
use tessera_data::SampleShape;
use tessera_model::{CodesFile, ModelError, ModelPath, TOKENIZER, Which};

use super::agreement::agree_on;
use super::checkpoint::{self, saver::Saved};
use super::evaluate::check_finite;
use super::figures::Row;
use super::metrics::reporter::Reporter;
use super::run::Run;
use super::run_folder::{RunFolder, Tenure};
use super::scalars::{self, NotFinite};
use crate::error::TrainError;
use crate::task::{Sizes, TaskKind};

/// Seconds that a step may wait for the save before; after them the storage is slow, and a save is
/// left out.
const PATIENCE: u64 = 10;

/// Time between two tries of the last save.
const BETWEEN_TRIES: Duration = Duration::from_secs(1);
/// How long ranks wait for rank 0's storage before they tell one another again how far they are.
const ROUND: Duration = Duration::from_secs(1);

/// The key `model` of a manifest.
#[derive(Serialize)]
struct AboutModel<'a> {
    #[serde(flatten)]
    sizes: &'a Sizes,
    shape: SampleShape,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    classes: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    codes: Option<CodesFile>,
}

impl Run<'_> {
    /// Begins to save the state after this step; at the end of a run, sees it through.
    pub(super) fn save(&mut self, is_end: bool) -> Result<(), TrainError> {
        self.clock.enter(Phase::Checkpoint);
        // At the end there is as much time as ranks have for one another.
        let limit = self.config.comm.timeout_seconds.ceil() as u64;
        self.wait_for_save(if is_end { limit } else { PATIENCE.min(limit) })?;
        while !self.saver.is_busy() {
            let (step, world_size) = (self.step, self.comm.world_size());
            let mut draft = checkpoint::draft(step, world_size, self.config, &self.fingerprint);
            draft.evaluation = self
                .evaluated
                .as_ref()
                .filter(|figures| figures.step == step)
                .map(|figures| serde_json::to_value(figures).expect("figures are plain data"));
            draft.model = Some(self.about_model());
            let begun = Instant::now();
            self.saver.begin(&self.training, draft)?;
            let stall_ms = begun.elapsed().as_secs_f64() * 1e3;
            tracing::info!(step, stall_ms, "save begun");
            if !is_end || self.wait_for_save(limit)? {
                return Ok(());
            }
            std::thread::sleep(BETWEEN_TRIES);
        }
        let problem = format!("the save before that of step {} is still being written", self.step);
        if is_end {
            return Err(TrainError::Storage(format!(
                "{problem} after {limit} s: the storage hangs; the same command resumes from the \
                 newest checkpoint"
            )));
        }
        self.notice(format!("storage is slow: {problem}, so this one is left out"));
        Ok(())
    }

    /// What a manifest says of the model: how large it is, and what its samples are.
    fn about_model(&self) -> serde_json::Value {
        let about = AboutModel {
            sizes: &self.sizes,
            shape: self.shown.shape(),
            classes: self.shown.classes(),
            // What cannot be read now has been read at the start.
            codes: CodesFile::of(&*self.shown).unwrap_or_default(),
        };
        serde_json::to_value(about).expect("it is plain data")
    }

    /// Waits for the save on its way for at most so many seconds. Whether there is none left and
    /// the last one did not fail.
    fn wait_for_save(&mut self, seconds: u64) -> Result<bool, TrainError> {
        match self.saver.finish(self.comm, seconds)? {
            Some(saved) => self.saved(saved),
            None => Ok(!self.saver.is_busy()),
        }
    }

    /// Tells what became of a save; whether it is visible now. Every rank does so at the same
    /// place.
    pub(super) fn saved(&mut self, saved: Saved) -> Result<bool, TrainError> {
        let (step, error) = match saved {
            Saved::Done { step, committed } => {
                if let Some(committed) = committed {
                    let path = committed.path.display();
                    tracing::info!(step, %path, "checkpoint saved");
                    self.write_status(RunState::Running, step, "");
                }
                return Ok(true);
            }
            Saved::Failed { step, error } => (step, error),
        };
        // Who has lost the folder leaves at once; the others hear of it as of any rank that ends.
        if let Some(CheckpointError::Lost(lost)) = &error {
            return Err(TrainError::Lost(lost.clone()));
        }
        if let Some(error) = &error {
            let rank = self.comm.rank();
            let text = format!(
                "the checkpoint of step {step} could not be saved: {error}; older ones are \
                 untouched, and the training goes on"
            );
            tracing::error!(step, %error, "checkpoint not saved");
            if let Some(control) = &self.worker.control {
                control.send(Message::Notice { text: format!("rank {rank}: {text}") });
            }
        }
        if !self.saver.has_given_up() {
            return Ok(false);
        }
        let mine = error.map_or(Ok(()), |error| Err(TrainError::from(error).once_begun()));
        agree_on(self.comm, mine)?;
        unreachable!("a save fails on some rank")
    }

    /// Passes over a step whose numbers are not finite, if it may; every rank does so alike.
    pub(super) fn skip(&mut self, found: NotFinite) -> Result<(), TrainError> {
        self.skipped_in_row += 1;
        let error = found.in_step(self.step + 1);
        if self.skipped_in_row > self.config.train.max_skipped_steps {
            return Err(error);
        }
        self.notice(format!("step {} left out: {error}", self.step + 1));
        Ok(())
    }

    /// Ends the run where an evaluation's figures are not finite, unless such steps may be passed
    /// over: then its row says `null`. Every rank has the same figures.
    pub(super) fn look_at_figures(&self, figures: &Row) -> Result<(), TrainError> {
        match check_finite(&*self.training.task, figures) {
            Err(error) if self.config.train.max_skipped_steps > 0 => self.notice(error.to_string()),
            checked => checked?,
        }
        Ok(())
    }

    /// A mismatch with what this rank has, so that the odd one out can be seen among all.
    pub(super) fn with_state(&self, error: TrainError) -> TrainError {
        let TrainError::Mismatch(text) = error else { return error };
        let state = scalars::state_hash(&*self.training.task, self.training.average.as_ref());
        let (rank, step) = (self.comm.rank(), self.step);
        TrainError::Mismatch(format!(
            "{text}; rank {rank} is at step {step} with state {state:016x}"
        ))
    }

    /// Rank 0 writes down how the run stands, when the storage takes it.
    pub(super) fn write_status(&self, state: RunState, step: u64, message: &str) {
        if let Some(reporter) = &self.reporter {
            reporter.status(status_of(self.tenure, state, step, self.comm.world_size(), message));
        }
    }

    /// Waits until rank 0 has written all that was reported, as long as for a last save. Collective; after
    /// it nothing is left to be done.
    ///
    /// # Errors
    ///
    /// [`TrainError::Storage`] with what is missing.
    pub(super) fn see_reports_through(&self) -> Result<(), TrainError> {
        let rounds = self.config.comm.timeout_seconds.ceil() as u64;
        for _ in 0..rounds {
            let is_done = self.reporter.as_ref().is_none_or(|reporter| reporter.wait(ROUND));
            let all = all_gather_bytes(self.comm, &[u8::from(is_done)])?;
            if all.iter().all(|word| word == &[1]) {
                break;
            }
        }
        let missing = self.reporter.as_ref().and_then(Reporter::missing);
        let mine = missing.map_or(Ok(()), |missing| {
            Err(TrainError::Storage(format!(
                "all steps up to {} are done and saved, but not all of the run could be written down \
                 ({missing}): free some space",
                self.step
            )))
        });
        agree_on(self.comm, mine)
    }

    /// Lets rank 0 write the model folder of an autoencoder or a prior, when the storage takes it.
    pub(super) fn leave_model(&self) {
        if let Some(reporter) = &self.reporter
            && self.config.task != TaskKind::Probe
        {
            let (folder, task) = (self.tenure.folder.clone(), self.config.task);
            let tokenizer = self.config.data.path.join(TOKENIZER);
            let storage = self.tenure.guard(self.worker.faults.storage());
            reporter.parting(Box::new(move || {
                let written = match task {
                    TaskKind::Prior => write_prior(&folder, &tokenizer, &storage),
                    TaskKind::Autoencoder | TaskKind::Probe => write_model(&folder, &storage),
                };
                written.map_err(|error| {
                    let run = folder.root.display();
                    TrainError::Storage(format!(
                        "the model folder was not written ({error}); nothing else is lost, and `tessera export --run \
                         {run} --out DIR` writes one"
                    ))
                })
            }));
        }
    }

    pub(super) fn notice(&self, text: String) {
        if self.comm.rank() == 0 {
            tell(self.worker.control.as_deref(), text);
        }
    }
}

/// Writes the model of the newest checkpoint beside it.
fn write_model(folder: &RunFolder, storage: &Storage) -> Result<(), TrainError> {
    let model = tessera_model::open_run(&folder.root, Which::Latest, None, Device::Cpu)?;
    tessera_model::write(storage, &folder.model(), &model)?;
    tracing::info!(step = model.file.step, hash = model.file.hash, "model folder written");
    Ok(())
}

/// Writes the prior of the newest checkpoint beside it, with the autoencoder whose codes it is of, where the token set holds
/// that.
fn write_prior(folder: &RunFolder, tokenizer: &Path, storage: &Storage) -> Result<(), TrainError> {
    let latest =
        ModelPath::Run { folder: folder.root.clone(), which: Which::Latest, weights: None };
    let prior = latest.open_prior(Device::Cpu)?;
    tessera_model::write(storage, &folder.model(), &prior)?;
    let autoencoder = match tessera_model::open(tokenizer, Device::Cpu) {
        Ok(autoencoder) => autoencoder,
        Err(error @ ModelError::NotOne { .. }) => {
            tracing::info!(%error, "the model folder has no tokeniser of its own");
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    if autoencoder.file.hash == prior.codes().tokenizer {
        tessera_model::write(storage, &folder.model().join(TOKENIZER), &autoencoder)?;
    }
    Ok(())
}

/// Says a line to whoever watches: in the log, on stderr where there is no launcher, or through it.
pub(super) fn tell(control: Option<&Client>, text: String) {
    tracing::warn!("{text}");
    if let Some(control) = control {
        control.send(Message::Notice { text });
    }
}

/// How a run stands after `step` steps, as this process says it.
pub(super) fn status_of(
    tenure: &Tenure,
    state: RunState,
    step: u64,
    world_size: usize,
    message: &str,
) -> RunStatus {
    let (exit_code, process) = (state.exit_code(), Some(Process::own()));
    let (message, attempt) = (message.into(), Some(tenure.attempt.to_string()));
    RunStatus { state, exit_code, step, world_size, message, process, attempt }
}
