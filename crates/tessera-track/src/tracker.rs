//! What all trackers have in common.

use std::path::Path;

use crate::TrackError;
use crate::cursor::Cursor;
use crate::run::{Ending, Run};
use crate::source::Entry;

/// A place that rows of a run are sent to.
///
/// Each function changes the cursor only where it has succeeded; whoever calls it writes the cursor afterwards. After
/// a failure, and after a kill, the same entries come again.
pub(crate) trait Tracker {
    /// As on the command line.
    fn name(&self) -> &'static str;

    /// Makes the run where it is not there yet, and brings its configuration up to date.
    fn begin(&mut self, run: &Run, cursor: &mut Cursor) -> Result<(), TrackError>;

    /// Sends entries, in the order of their steps.
    fn send(&mut self, cursor: &mut Cursor, entries: &[Entry]) -> Result<(), TrackError>;

    /// Says what stands behind the last entry for now, and how the run has ended, if it has.
    fn close(
        &mut self,
        run: &Run,
        cursor: &mut Cursor,
        ending: Option<Ending>,
    ) -> Result<(), TrackError>;

    /// Where a person finds it, and what is still to do.
    fn where_to(&self, cursor: &Cursor) -> String;
}

/// A path as a shell takes it.
pub(crate) fn shell(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    if text.chars().all(is_plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}
