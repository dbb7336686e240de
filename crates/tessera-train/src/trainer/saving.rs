//! Checkpoints of a run, steps that are left out, and what it tells of itself.

use std::time::{Duration, Instant};

use tessera_checkpoint::CheckpointError;
use tessera_control::{Message, Phase, Process, RunState, RunStatus};

use super::Run;
use crate::checkpoint::{self, saver::Saved};
use crate::coordinator::agree_on;
use crate::error::TrainError;
use crate::evaluate::Evaluation;
use crate::scalars::{self, NotFinite};

/// Seconds that a step may wait for the save before; after them the storage is slow, and a save is
/// left out.
const PATIENCE: u64 = 10;

/// Time between two tries of the last save.
const BETWEEN_TRIES: Duration = Duration::from_secs(1);

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
                    self.write_status(RunState::Running, step, "")?;
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
        agree_on(self.comm, error.map_or(Ok(()), |error| Err(TrainError::from(error))))?;
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
    pub(super) fn look_at_figures(&self, figures: &Evaluation) -> Result<(), TrainError> {
        match figures.check_finite() {
            Err(error) if self.config.train.max_skipped_steps > 0 => self.notice(error.to_string()),
            checked => checked?,
        }
        Ok(())
    }

    /// A mismatch with what this rank has, so that the odd one out can be seen among all.
    pub(super) fn with_state(&self, error: TrainError) -> TrainError {
        let TrainError::Mismatch(text) = error else { return error };
        let state = scalars::state_hash(&self.training.model);
        let (rank, step) = (self.comm.rank(), self.step);
        TrainError::Mismatch(format!(
            "{text}; rank {rank} is at step {step} with state {state:016x}"
        ))
    }

    pub(super) fn status(&self, state: RunState, message: &str) -> Result<(), TrainError> {
        self.write_status(state, self.step, message)
    }

    fn write_status(&self, state: RunState, step: u64, message: &str) -> Result<(), TrainError> {
        if self.comm.rank() != 0 {
            return Ok(());
        }
        self.tenure.check()?;
        let exit_code = state.exit_code();
        let world_size = self.comm.world_size();
        let process = Some(Process::own());
        let attempt = Some(self.tenure.attempt.to_string());
        let message = message.into();
        RunStatus { state, exit_code, step, world_size, message, process, attempt }
            .write(&self.folder.root)
            .map_err(TrainError::file("write the status of", &self.folder.root))
    }

    pub(super) fn notice(&self, text: String) {
        if self.comm.rank() == 0 {
            tracing::warn!("{text}"); // to the log, and to stderr where there is no launcher
            if let Some(control) = &self.worker.control {
                control.send(Message::Notice { text });
            }
        }
    }
}
