//! The collective that a rank is in, or was in last, readable from any thread.
//!
//! Over MPI a call ends before the next begins. Over NCCL several are under way on the device while the
//! host goes on; the oldest is what the rank waits for, if not now then where it needs the answer.

use std::collections::VecDeque;
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
    /// Whether the rank is still in it: has not yet got the answer.
    pub waiting: bool,
    /// Time in collectives since the start of the rank, this one included; nothing over NCCL, where
    /// they travel beside other work.
    pub waited: Duration,
}

#[derive(Default)]
struct State {
    /// Begun and not ended, oldest first.
    outstanding: VecDeque<(Call, Instant)>,
    /// The last that has ended.
    ended: Option<Call>,
    waited: Duration,
}

/// The collectives of a rank.
pub struct Calls {
    state: Mutex<State>,
    /// Whether the time in them is time that the rank waits.
    is_timed: bool,
    on_call: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Default for Calls {
    fn default() -> Self {
        Self { state: Mutex::default(), is_timed: true, on_call: OnceLock::new() }
    }
}

impl fmt::Debug for Calls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Calls").field("last", &self.last()).finish_non_exhaustive()
    }
}

impl Calls {
    /// Those of a device, which go on beside other work.
    pub(crate) fn untimed() -> Self {
        Self { is_timed: false, ..Self::default() }
    }

    /// The oldest collective that has not ended; where there is none, the last that has. None before
    /// the first.
    pub fn last(&self) -> Option<Call> {
        let state = self.lock();
        let Some((call, begun)) = state.outstanding.front() else { return state.ended.clone() };
        let now = if self.is_timed { begun.elapsed() } else { Duration::ZERO };
        Some(Call { waited: state.waited + now, ..call.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on `on_call` is called at the beginning of each collective, on the thread that makes
    /// it, and at its end, on the thread that sees it.
    pub fn tell(&self, on_call: impl Fn() + Send + Sync + 'static) {
        let _ = self.on_call.set(Box::new(on_call)); // the first one stays
    }

    /// Notes that a collective begins.
    pub(crate) fn begin(&self, op: &'static str, sequence: u64, count: u64, kind: &'static str) {
        let call = Call { op, sequence, count, kind, waiting: true, waited: Duration::ZERO };
        self.lock().outstanding.push_back((call, Instant::now()));
        self.told();
    }

    /// Notes that the collective of this number has ended, and those before it.
    pub(crate) fn end(&self, sequence: u64) {
        let mut state = self.lock();
        while state.outstanding.front().is_some_and(|(call, _)| call.sequence <= sequence) {
            let (mut call, begun) = state.outstanding.pop_front().expect("just seen");
            if self.is_timed {
                state.waited += begun.elapsed();
            }
            (call.waiting, call.waited) = (false, state.waited);
            state.ended = Some(call);
        }
        drop(state);
        self.told();
    }

    fn told(&self) {
        if let Some(on_call) = self.on_call.get() {
            on_call();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn seen(calls: &Calls) -> Option<(u64, bool)> {
        calls.last().map(|call| (call.sequence, call.waiting))
    }

    #[test]
    fn the_oldest_that_has_not_ended_is_the_one_that_is_told() {
        let calls = Calls::untimed();
        let told = Arc::new(AtomicU32::new(0));
        let counts = Arc::clone(&told);
        calls.tell(move || {
            counts.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(seen(&calls), None);
        for sequence in 7..10 {
            calls.begin("all_reduce", sequence, 4, "f32");
        }
        assert_eq!(seen(&calls), Some((7, true)));
        calls.end(8); // the stream has passed it, so it has passed 7
        assert_eq!(seen(&calls), Some((9, true)));
        calls.end(9);
        assert_eq!(seen(&calls), Some((9, false)));
        assert_eq!(calls.last().map(|call| call.waited), Some(Duration::ZERO));
        assert_eq!(told.load(Ordering::Relaxed), 5);
    }

    #[test]
    fn time_in_calls_is_added_up() {
        let calls = Calls::default();
        calls.begin("barrier", 0, 0, "");
        while calls.last().is_none_or(|call| call.waited.is_zero()) {
            std::thread::yield_now();
        }
        calls.end(0);
        let first = calls.last().expect("one has ended").waited;
        assert!(first > Duration::ZERO);
        calls.begin("barrier", 1, 0, "");
        assert!(calls.last().expect("one goes on").waited >= first);
    }
}
