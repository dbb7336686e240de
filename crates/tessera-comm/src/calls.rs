//! The last collective that a rank has called, readable from any thread.

use std::fmt;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// A collective, as its rank called it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Which one.
    pub op: &'static str,
    /// Its running number on this rank: equal on every rank of a correct program.
    pub sequence: u64,
    /// Elements.
    pub count: u64,
    /// Kind of the elements; empty where there are none.
    pub kind: &'static str,
    /// Whether the rank is still in it.
    pub waiting: bool,
    /// Time in collectives since the start of the rank, this one included.
    pub waited: Duration,
}

/// The last collective of a rank.
#[derive(Default)]
pub struct Calls {
    last: Mutex<Option<(Call, Instant)>>,
    on_call: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl fmt::Debug for Calls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Calls").field("last", &self.last()).finish_non_exhaustive()
    }
}

impl Calls {
    /// The last collective; none before the first.
    pub fn last(&self) -> Option<Call> {
        let (mut call, begun) = self.lock().clone()?;
        if call.waiting {
            call.waited += begun.elapsed();
        }
        Some(call)
    }

    fn lock(&self) -> MutexGuard<'_, Option<(Call, Instant)>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on `on_call` is called at the beginning and at the end of each collective, on the thread that
    /// makes it.
    pub fn tell(&self, on_call: impl Fn() + Send + Sync + 'static) {
        let _ = self.on_call.set(Box::new(on_call)); // the first one stays
    }

    /// Notes that a collective begins.
    pub(crate) fn begin(&self, op: &'static str, sequence: u64, count: u64, kind: &'static str) {
        let mut last = self.lock();
        let waited = last.as_ref().map_or(Duration::ZERO, |(call, _)| call.waited);
        let call = Call { op, sequence, count, kind, waiting: true, waited };
        *last = Some((call, Instant::now()));
        drop(last);
        if let Some(on_call) = self.on_call.get() {
            on_call();
        }
    }

    /// Notes that it has ended.
    pub(crate) fn end(&self) {
        if let Some((call, begun)) = self.lock().as_mut() {
            call.waiting = false;
            call.waited += begun.elapsed();
        }
        if let Some(on_call) = self.on_call.get() {
            on_call();
        }
    }
}
