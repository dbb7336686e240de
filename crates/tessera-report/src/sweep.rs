//! A sweep as a report needs it: its table, and the run folders of the best trials.

use std::path::{Path, PathBuf};

use tessera_sweep::report::{Review, State, Table};

use crate::error::ReportError;
use crate::read::Run;

/// Trials whose curves and pictures are shown.
const BEST: usize = 4;

/// A sweep.
#[derive(Debug)]
pub(crate) struct SweepView {
    /// The name of its folder.
    pub(crate) name: String,
    pub(crate) review: Review,
    pub(crate) table: Table,
}

impl SweepView {
    /// Reads the sweep in `folder`.
    pub(crate) fn read(folder: &Path) -> Result<Self, ReportError> {
        let review = Review::read(folder)?;
        let table = Table::of(&review);
        Ok(Self { name: crate::name_of(folder), review, table })
    }

    /// Number and run folder of the best trials, the best first.
    pub(crate) fn best_runs(&self, folder: &Path) -> Vec<(usize, PathBuf)> {
        let folds = self.review.about.sweep.trials.folds > 0;
        let rows = self.table.rows.iter().filter(|row| row.state != State::Failed);
        let runs = rows
            .map(|row| (row.trial, tessera_sweep::run_dir(folder, row.trial, folds.then_some(0))));
        runs.filter(|(_, run)| Run::is_at(run)).take(BEST).collect()
    }
}
