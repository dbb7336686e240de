//! Who watches, and who may ask for an end.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tessera_control::Activity;

/// What this process tells of its work, and where it hears that it should stop.
pub struct Watch<'a> {
    /// Hears of each batch.
    pub activity: &'a Activity,
    /// Whether the work should stop where it can go on later.
    pub stop: Arc<AtomicBool>,
    /// Says a line to whoever watches.
    pub say: &'a dyn Fn(String),
}

impl fmt::Debug for Watch<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Watch").field("stop", &self.stop).finish_non_exhaustive()
    }
}
