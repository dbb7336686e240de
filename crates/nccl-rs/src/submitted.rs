//! Waiting for another thread, never without a deadline.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::Error;

/// What a call is given beyond its deadline to say by itself that the deadline has passed. Even
/// non-blocking calls do some work before NCCL says that they are in progress.
const GRACE: Duration = Duration::from_secs(1);

/// The function of NCCL that a thread is in, for whoever waits for that thread.
#[derive(Debug, Default)]
pub(crate) struct Inside {
    op: Mutex<Option<&'static str>>,
    lost: AtomicBool,
}

impl Inside {
    pub(crate) fn enter(&self, op: &'static str) {
        *self.op.lock().unwrap_or_else(PoisonError::into_inner) = Some(op);
    }

    /// Whether somebody has waited in vain.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// Marks the thread as lost; where it is.
    fn give_up(&self) -> Option<&'static str> {
        self.lost.store(true, Ordering::Release);
        *self.op.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An answer that the communication thread owes.
#[derive(Debug)]
#[must_use = "the operation may not have been accepted until it is waited for"]
pub struct Submitted<T = ()> {
    op: &'static str,
    deadline: Duration,
    answer: Receiver<Result<T, Error>>,
    inside: Arc<Inside>,
}

impl<T> Submitted<T> {
    /// An answer owed, and the place to put it.
    pub(crate) fn new(
        op: &'static str,
        deadline: Duration,
        inside: Arc<Inside>,
    ) -> (SyncSender<Result<T, Error>>, Self) {
        let (sender, answer) = sync_channel(1);
        (sender, Self { op, deadline, answer, inside })
    }

    /// Waits for the answer. For an operation: until NCCL has put it into the stream, not until
    /// the GPU has carried it out.
    ///
    /// # Errors
    ///
    /// Those of the call, or [`Error::Stuck`] if the thread is lost in NCCL.
    pub fn wait(self) -> Result<T, Error> {
        match self.answer.recv_timeout(self.deadline + GRACE) {
            Ok(answer) => answer,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Err(Error::Stuck {
                op: self.inside.give_up().unwrap_or(self.op),
                waited: self.deadline + GRACE,
            }),
        }
    }
}

/// Runs a call that NCCL has no non-blocking form of on a thread that may be left behind.
pub(crate) fn on_own_thread<T: Send + 'static>(
    op: &'static str,
    deadline: Duration,
    call: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let (sender, submitted) = Submitted::new(op, deadline, Arc::default());
    let spawned = std::thread::Builder::new().name("nccl-call".into()).spawn(move || {
        // The caller may have given up.
        let _ = sender.send(call());
    });
    match spawned {
        Ok(_) => submitted.wait(),
        Err(error) => Err(Error::SetUp(error.to_string())),
    }
}
