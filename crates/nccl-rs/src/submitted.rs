//! Waiting for another thread, never without an end.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::Error;

/// What a call is given beyond its deadline to say by itself that the deadline has passed. Even
/// non-blocking calls do some work before NCCL says that they are in progress.
const GRACE: Duration = Duration::from_secs(1);
/// Between two looks at whether the thread has come out of NCCL.
const LOOK: Duration = Duration::from_millis(20);
/// Beats of a thread that nobody has given up.
const NEVER: u64 = u64::MAX;

/// A function of NCCL, and how long it may take to return.
type Call = (&'static str, Duration);

/// Where the communication thread is, for whoever waits for it.
#[derive(Debug)]
pub(crate) struct Inside {
    call: Mutex<Option<Call>>,
    /// Grows whenever the thread is seen outside NCCL.
    beats: AtomicU64,
    /// How many there had been when somebody gave up.
    lost_at: AtomicU64,
}

impl Default for Inside {
    fn default() -> Self {
        let (beats, lost_at) = (AtomicU64::new(0), AtomicU64::new(NEVER));
        Self { call: Mutex::new(None), beats, lost_at }
    }
}

impl Inside {
    /// The thread begins `op`; what it interrupts for that, if anything.
    pub(crate) fn enter(&self, op: &'static str, deadline: Duration) -> Option<Call> {
        self.beat();
        self.set(Some((op, deadline)))
    }

    /// The thread goes on with what it had interrupted.
    pub(crate) fn leave(&self, interrupted: Option<Call>) {
        self.beat();
        self.set(interrupted);
    }

    /// The thread is outside NCCL.
    pub(crate) fn beat(&self) {
        self.beats.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether somebody has waited in vain, and the thread has not been seen since.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost_at.load(Ordering::Acquire) == self.beats.load(Ordering::Acquire)
    }

    fn set(&self, call: Option<Call>) -> Option<Call> {
        std::mem::replace(&mut *self.call.lock().unwrap_or_else(PoisonError::into_inner), call)
    }

    fn call(&self) -> Option<Call> {
        *self.call.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long the thread may be inside one call before whoever waits for it gives up.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Patience {
    /// The deadline of the call that the thread is in: it may be one that was submitted before.
    OfWhatIsAhead,
    /// The waiter's own deadline: an abort does not wait for what others were promised.
    Own,
}

/// An answer that the communication thread owes.
#[derive(Debug)]
#[must_use = "the operation may not have been accepted until it is waited for"]
pub struct Submitted<T = ()> {
    op: &'static str,
    deadline: Duration,
    patience: Patience,
    answer: Receiver<Result<T, Error>>,
    inside: Arc<Inside>,
}

impl<T> Submitted<T> {
    /// An answer owed, and the place to put it.
    pub(crate) fn new(
        op: &'static str,
        deadline: Duration,
        patience: Patience,
        inside: Arc<Inside>,
    ) -> (SyncSender<Result<T, Error>>, Self) {
        let (sender, answer) = sync_channel(1);
        (sender, Self { op, deadline, patience, answer, inside })
    }

    /// Waits for the answer. For an operation: until NCCL has put it into the stream, not until
    /// the GPU has carried it out.
    ///
    /// What was submitted to the same thread before, by this communicator or by one that it shares
    /// its thread with, comes first, each with its own deadline.
    ///
    /// # Errors
    ///
    /// Those of the call, or [`Error::Stuck`] if the thread does not return from a call of NCCL's.
    pub fn wait(self) -> Result<T, Error> {
        let (mut beats, mut still) = (self.inside.beats.load(Ordering::Acquire), Duration::ZERO);
        loop {
            let look = Instant::now();
            let lost = match self.answer.recv_timeout(LOOK) {
                Ok(answer) => return answer,
                Err(RecvTimeoutError::Disconnected) => true, // the thread has gone
                Err(RecvTimeoutError::Timeout) => false,
            };
            let before = std::mem::replace(&mut beats, self.inside.beats.load(Ordering::Acquire));
            // A process that was stopped has looked once, however long that took.
            still =
                if before == beats { still + look.elapsed().min(2 * LOOK) } else { Duration::ZERO };
            let call = self.inside.call();
            let deadline = match (self.patience, call) {
                (Patience::OfWhatIsAhead, Some((_, deadline))) => deadline,
                _ => self.deadline,
            };
            if lost || still >= deadline + GRACE {
                self.inside.lost_at.store(beats, Ordering::Release);
                let op = call.map_or(self.op, |(op, _)| op);
                return Err(Error::Stuck { op, waited: deadline + GRACE });
            }
        }
    }
}

/// Runs a call that NCCL has no non-blocking form of on a thread that may be left behind.
pub(crate) fn on_own_thread<T: Send + 'static>(
    op: &'static str,
    deadline: Duration,
    call: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let (sender, submitted) = Submitted::new(op, deadline, Patience::Own, Arc::default());
    let spawned = std::thread::Builder::new().name("nccl-call".into()).spawn(move || {
        // The caller may have given up.
        let _ = sender.send(call());
    });
    match spawned {
        Ok(_) => submitted.wait(),
        Err(error) => Err(Error::SetUp(error.to_string())),
    }
}
