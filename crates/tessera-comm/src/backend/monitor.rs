//! A deadline for what a GPU is still to do.
//!
//! NCCL's kernels wait for their peers on the device, where no call of the host's can time out,
//! and an error of the network shows in the communicator's state alone. This thread looks at both:
//! when a collective outlasts its deadline, or NCCL has failed and the main thread does not
//! notice (it may be waiting for the device), it reports, aborts, and ends the process. Meanwhile
//! it publishes the oldest collective that is outstanding: what a rank waits for, whether its host
//! already waits for the device or will.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cudarc::driver::{CudaContext, CudaEvent, DriverError};
use nccl_rs::Communicator as Ranks;

use crate::{Calls, Hang, aside, exit_now};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);
/// What the main thread is given to report a failure of NCCL's itself.
const GRACE: Duration = Duration::from_secs(2);
/// What a log that stands still may delay the end of a process.
const LOGGED_WITHIN: Duration = Duration::from_millis(300);

/// A point in NCCL's stream, once the communication thread has set it; without an event one that is
/// passed at once.
#[derive(Debug, Clone, Default)]
pub(super) struct Passed(Arc<OnceLock<Option<CudaEvent>>>);

impl Passed {
    pub(super) fn set(&self, event: Option<CudaEvent>) {
        let _ = self.0.set(event); // set once, by the one job that has it
    }

    pub(super) fn event(&self) -> Option<&CudaEvent> {
        self.0.get()?.as_ref()
    }

    fn is_passed(&self) -> Result<bool, DriverError> {
        match self.0.get() {
            None => Ok(false),
            Some(None) => Ok(true),
            Some(Some(event)) => event.try_is_complete(),
        }
    }
}

#[derive(Debug)]
struct Outstanding {
    op: &'static str,
    sequence: u64,
    since: Instant,
    passed: Passed,
}

#[derive(Debug)]
struct Shared {
    outstanding: Mutex<VecDeque<Outstanding>>,
    calls: Arc<Calls>,
    closed: AtomicBool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Outstanding>> {
        self.outstanding.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The watching thread; dropping it ends the watch.
#[derive(Debug)]
pub(super) struct Monitor {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Monitor {
    pub(super) fn start(
        ranks: &Arc<Ranks>,
        calls: Arc<Calls>,
        context: Option<Arc<CudaContext>>,
        timeout: Duration,
        on_hang: impl Fn(&Hang) + Send + 'static,
    ) -> Self {
        let (outstanding, closed) = (Mutex::default(), AtomicBool::new(false));
        let shared = Arc::new(Shared { outstanding, calls, closed });
        let (theirs, ranks) = (Arc::clone(&shared), Arc::downgrade(ranks));
        let thread = std::thread::Builder::new()
            .name("nccl-monitor".into())
            .spawn(move || {
                // Events are asked on the thread that their context is current on.
                if let Some(Err(error)) = context.map(|context| context.bind_to_thread()) {
                    tracing::error!(%error, "the monitor cannot see the GPU");
                }
                watch(&theirs, &ranks, timeout, &on_hang);
            })
            .expect("a thread can be started before training");
        Self { shared, thread: Some(thread) }
    }

    /// From now on what [`Calls`] has just been told of as begun has to pass in time.
    pub(super) fn expect(&self, op: &'static str, sequence: u64, passed: Passed) {
        let since = Instant::now();
        self.shared.lock().push_back(Outstanding { op, sequence, since, passed });
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // it looks every 20 ms, or is ending the process
        }
    }
}

/// Gives up what NCCL has in flight, within a deadline; what it cannot free goes with the process.
pub(super) fn abort(ranks: &Ranks) {
    let start = Instant::now();
    let answer = ranks.abort();
    let seconds = start.elapsed().as_secs_f64();
    aside(LOGGED_WITHIN, move || match answer {
        Ok(()) => tracing::warn!(seconds, "communicator aborted"),
        Err(error) => tracing::error!(%error, "communicator not aborted"),
    });
}

fn watch(shared: &Shared, ranks: &Weak<Ranks>, timeout: Duration, on_hang: &impl Fn(&Hang)) {
    let mut failed_since = None;
    while !shared.closed.load(Ordering::Acquire) {
        std::thread::sleep(PAUSE);
        let Some(ranks) = ranks.upgrade() else { return };
        let mut failure = ranks.failure().map(|error| error.to_string());
        let mut outstanding = shared.lock();
        let mut ended = None;
        while let Some(front) = outstanding.front() {
            match front.passed.is_passed() {
                Ok(true) => ended = outstanding.pop_front(),
                Ok(false) => break,
                Err(error) => {
                    failure.get_or_insert(format!("the GPU has failed: {error}"));
                    break;
                }
            }
        }
        if let Some(ended) = ended {
            shared.calls.end(ended.sequence);
        }
        if failure.is_some() {
            failed_since.get_or_insert_with(Instant::now);
        }
        let late = outstanding.front().filter(|front| front.since.elapsed() > timeout);
        let is_ignored = failed_since.is_some_and(|since| since.elapsed() > GRACE);
        if late.is_none() && !is_ignored {
            continue;
        }
        let (op, sequence, waited) = match outstanding.front() {
            Some(front) => (front.op, front.sequence, front.since.elapsed()),
            None => ("NCCL", 0, GRACE),
        };
        drop(outstanding);
        let hang = Hang { op, sequence, waited, cause: failure, over_nccl: true };
        on_hang(&hang);
        abort(&ranks);
        exit_now(hang.exit_code());
    }
}
