//! Where what becomes of a run is told: to whoever asks over HTTP, reads the output, or looks into the
//! run folder.

use crate::display::Results;
use crate::prometheus::Exporter;
use crate::run_files::RunFiles;
use crate::trackers::Trackers;

/// Where what becomes of a run is told.
#[derive(Clone, Copy)]
pub(crate) struct Ways<'a> {
    /// Who asks over HTTP.
    pub(crate) exporter: Option<&'a Exporter>,
    /// Standard output.
    pub(crate) results: &'a Results,
    /// The run folder, for a training.
    pub(crate) files: Option<&'a RunFiles>,
    /// Trackers, of a training.
    pub(crate) trackers: Option<&'a Trackers>,
}
