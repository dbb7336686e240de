//! What a run writes down while it goes, and where to.

mod append;
pub mod image_grid;
pub mod jsonl;
mod kept;
mod line_file;
pub(crate) mod replace_file;
pub(crate) mod reporter;
mod sinks;
pub mod tensorboard;
pub mod usage;
pub mod window;

use serde::{Deserialize, Serialize};

pub use self::append::Appended;
pub use self::line_file::LineFile;
pub(crate) use self::sinks::{Launcher, Sink, open, write_config};
use crate::error::TrainError;
use crate::evaluate::Evaluation;
use image_grid::EncodedPng;
use usage::Usage;

/// A row of `metrics.jsonl`: means over a logging interval. They are NaN, `null` in the file, where
/// every step of it was skipped.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricsRow {
    /// Optimiser steps done at the end of the interval.
    pub step: u64,
    /// Epoch of the last sample, from 0.
    pub epoch: u64,
    /// Samples trained on so far.
    pub samples_seen: u64,
    /// Reconstruction plus the quantiser's losses.
    pub loss: f64,
    /// Mean squared error, pixels in [0, 1].
    pub recon_mse: f64,
    /// The quantiser's losses, weighted: commitment, and what else it has.
    pub quantizer_loss: f64,
    /// How codes were taken in the whole interval, over all ranks.
    #[serde(flatten)]
    pub usage: Usage,
    /// Dead codes replaced in the whole interval.
    pub codes_replaced: u64,
    /// Samples that could not be read in the whole interval, over all ranks.
    pub samples_skipped: u64,
    /// Learning rate of the last step.
    pub learning_rate: f64,
    /// Norm of the whole gradient, before clipping.
    pub grad_norm: f64,
    /// Samples a second over all ranks; rows, pictures, evaluation and checkpoints not counted.
    pub samples_per_second: f64,
    /// Milliseconds a step.
    pub step_ms: f64,
    /// Milliseconds a step in the reduction over ranks.
    pub comm_ms: f64,
    /// Milliseconds a step waiting for data.
    pub data_wait_ms: f64,
    /// Number of ranks.
    pub world_size: usize,
}

/// Somewhere that rank 0 reports to. What it is given it takes as a whole or not at all, so that it can be
/// given again.
pub trait MetricSink: Send {
    /// A logging interval has ended.
    ///
    /// # Errors
    ///
    /// [`TrainError::File`] if it cannot be written down.
    fn row(&mut self, _row: &MetricsRow) -> Result<(), TrainError> {
        Ok(())
    }

    /// An evaluation has ended.
    ///
    /// # Errors
    ///
    /// [`TrainError::File`] if it cannot be written down.
    fn evaluation(&mut self, _evaluation: &Evaluation) -> Result<(), TrainError> {
        Ok(())
    }

    /// A picture of reconstructions was made after `step` steps.
    ///
    /// # Errors
    ///
    /// [`TrainError::File`] if it cannot be written down.
    fn picture(&mut self, _step: u64, _picture: &EncodedPng) -> Result<(), TrainError> {
        Ok(())
    }

    /// Sees to it that what was taken survives a loss of power.
    ///
    /// # Errors
    ///
    /// [`TrainError::File`] if that cannot be.
    fn sync(&mut self) -> Result<(), TrainError> {
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A row of a step.
    pub(crate) fn row(step: u64) -> MetricsRow {
        MetricsRow {
            step,
            epoch: 0,
            samples_seen: 0,
            loss: 0.5,
            recon_mse: 0.5,
            quantizer_loss: 0.0,
            usage: Usage::of(&[1.0, 1.0], &[2]),
            codes_replaced: 0,
            samples_skipped: 0,
            learning_rate: 0.1,
            grad_norm: 1.0,
            samples_per_second: 1.0,
            step_ms: 1.0,
            comm_ms: 0.0,
            data_wait_ms: 0.0,
            world_size: 1,
        }
    }
}
