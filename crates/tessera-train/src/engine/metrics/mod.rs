//! What a run writes down while it goes, and where to.

mod append;
pub mod histogram;
pub mod jsonl;
mod kept;
mod line_file;
pub mod picture;
pub(crate) mod replace_file;
pub(crate) mod reporter;
mod sinks;
pub mod tensorboard;

pub use self::append::Appended;
use self::histogram::Histogram;
pub use self::line_file::LineFile;
use self::picture::Exhibit;
pub(crate) use self::sinks::{Launcher, Sink, open, write_config};
use super::figures::Row;
use crate::error::TrainError;

/// Somewhere that rank 0 reports to. What it is given it takes as a whole or not at all, so that it can be
/// given again.
pub trait MetricSink: Send {
    /// A logging interval has ended.
    ///
    /// # Errors
    ///
    /// [`TrainError::File`] if it cannot be written down.
    fn row(&mut self, _row: &Row) -> Result<(), TrainError> {
        Ok(())
    }

    /// An evaluation has ended.
    ///
    /// # Errors
    ///
    /// [`TrainError::File`] if it cannot be written down.
    fn evaluation(&mut self, _evaluation: &Row) -> Result<(), TrainError> {
        Ok(())
    }

    /// Something to look at or to listen to was made after `step` steps.
    ///
    /// # Errors
    ///
    /// [`TrainError::File`] if it cannot be written down.
    fn exhibit(&mut self, _step: u64, _exhibit: &Exhibit) -> Result<(), TrainError> {
        Ok(())
    }

    /// How numbers are spread after `step` steps.
    ///
    /// # Errors
    ///
    /// [`TrainError::File`] if it cannot be written down.
    fn histograms(&mut self, _step: u64, _histograms: &[Histogram]) -> Result<(), TrainError> {
        Ok(())
    }

    /// All steps of the run are done, `step` of them.
    ///
    /// # Errors
    ///
    /// [`TrainError::File`] if it cannot be written down.
    fn done(&mut self, _step: u64) -> Result<(), TrainError> {
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
    use crate::engine::figures::Figure;

    /// A row of a step.
    pub(crate) fn row(step: u64) -> Row {
        let figures = vec![Figure::number("loss", 0.5).charted("train").shown(5)];
        Row { step, figures }
    }
}
