//! Who watches, and who may ask for an end.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tessera_control::{Activity, ExitCode};

use crate::error::ApplyError;

/// What this process tells of its work, and where it hears that it should stop.
pub struct Watch<'a> {
    /// Hears of each batch.
    pub activity: &'a Activity,
    /// Whether the work should stop where it can go on later.
    pub stop: Arc<AtomicBool>,
    /// Says a line to whoever watches.
    pub say: &'a dyn Fn(String),
}

impl Watch<'_> {
    /// Refuses to go on where somebody has asked for an end, of work that cannot go on later.
    ///
    /// # Errors
    ///
    /// [`ApplyError::Opened`].
    pub(crate) fn check(&self) -> Result<(), ApplyError> {
        match self.stop.load(Ordering::Relaxed) {
            false => Ok(()),
            true => Err(ApplyError::Opened {
                code: ExitCode::Failed,
                message: "stopped before all was done; nothing was written".to_owned(),
            }),
        }
    }
}

impl fmt::Debug for Watch<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Watch").field("stop", &self.stop).finish_non_exhaustive()
    }
}
