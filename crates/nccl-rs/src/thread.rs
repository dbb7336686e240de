//! The one thread that enters NCCL.
//!
//! It takes jobs in order, and between them looks for asynchronous errors of the communicators
//! it serves. Everybody else talks to it through [`State`] and [`Submitted`], so nobody can be
//! lost in NCCL but this thread, and nothing else is inside NCCL when it aborts.

use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::submitted::Inside;
use crate::sys::{self, Code, RawComm};
use crate::{Error, Library, Options, Submitted};

/// Between two looks for asynchronous errors, while there is nothing else to do.
const PATROL: Duration = Duration::from_millis(100);
/// How long the state of a call in progress is asked for without a pause, and the pause then.
const SPIN: Duration = Duration::from_micros(200);
const PAUSE: Duration = Duration::from_micros(50);

/// What the thread and its callers both see of a communicator.
#[derive(Debug)]
pub(crate) struct State {
    /// Null before its beginning and after its end. Handed to NCCL by the thread alone.
    raw: AtomicPtr<std::ffi::c_void>,
    /// Aborts and revocations that wait for the thread: it gives up what it polls.
    interrupts: AtomicUsize,
    revoked: AtomicBool,
    failure: Mutex<Option<Error>>,
    /// Lives here since NCCL may keep the pointers of the configuration.
    pub(crate) options: Options,
}

impl State {
    pub(crate) fn new(options: &Options) -> Arc<Self> {
        Arc::new(Self {
            raw: AtomicPtr::new(ptr::null_mut()),
            interrupts: AtomicUsize::new(0),
            revoked: AtomicBool::new(false),
            failure: Mutex::new(None),
            options: options.clone(),
        })
    }

    pub(crate) fn raw(&self) -> RawComm {
        self.raw.load(Ordering::Acquire)
    }

    /// Where NCCL puts the communicator, possibly after the call has returned.
    pub(crate) fn raw_place(&self) -> *mut RawComm {
        self.raw.as_ptr()
    }

    /// The communicator, which from now on has ended.
    pub(crate) fn take_raw(&self) -> RawComm {
        self.raw.swap(ptr::null_mut(), Ordering::AcqRel)
    }

    pub(crate) fn interrupt(&self) {
        self.interrupts.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn interruption_served(&self) {
        self.interrupts.fetch_sub(1, Ordering::AcqRel);
    }

    pub(crate) fn failure(&self) -> Option<Error> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps the first failure.
    pub(crate) fn fail(&self, error: &Error) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.get_or_insert_with(|| error.clone());
    }

    /// A revoked communicator carries no operation, but can be split and freed.
    pub(crate) fn set_revoked(&self) {
        self.revoked.store(true, Ordering::Release);
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(crate) fn is_revoked(&self) -> bool {
        self.revoked.load(Ordering::Acquire)
    }

    /// Whether an abort or a revocation waits for the thread.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.interrupts.load(Ordering::Acquire) > 0
    }

    /// Polls what NCCL calls in progress until it is done, fails, is interrupted or is late.
    pub(crate) fn settle(
        &self,
        library: &Library,
        op: &'static str,
        mut code: Code,
        deadline: Duration,
    ) -> Result<(), Error> {
        let start = Instant::now();
        while code == sys::IN_PROGRESS {
            let waited = start.elapsed();
            if self.is_interrupted() {
                return Err(Error::Aborted { op });
            }
            if waited >= deadline {
                return Err(Error::Deadline { op, waited: deadline });
            }
            if waited < SPIN {
                std::thread::yield_now()
            } else {
                std::thread::sleep(PAUSE)
            }
            code = library.state_of(self.raw());
        }
        library.check(op, code)
    }
}

/// Communicators whose asynchronous errors the thread looks for.
#[derive(Debug)]
pub(crate) struct Patrol {
    library: Library,
    watched: Vec<Weak<State>>,
}

impl Patrol {
    pub(crate) fn watch(&mut self, state: &Arc<State>) {
        self.watched.push(Arc::downgrade(state));
    }

    fn look(&mut self) {
        self.watched.retain(|state| state.strong_count() > 0);
        for state in self.watched.iter().filter_map(Weak::upgrade) {
            if state.raw().is_null() || state.failure().is_some() {
                continue;
            }
            let code = self.library.state_of(state.raw());
            if code != sys::IN_PROGRESS
                && let Err(error) = self.library.check("ncclCommGetAsyncError", code)
            {
                state.fail(&error);
            }
        }
    }
}

type Job = Box<dyn FnOnce(&mut Patrol) + Send>;

/// Handle of the thread, which ends when the last handle is dropped.
#[derive(Debug)]
pub(crate) struct CommThread {
    jobs: Sender<Job>,
    inside: Arc<Inside>,
}

impl CommThread {
    pub(crate) fn spawn(library: Library, rank: usize) -> Result<Self, Error> {
        let (jobs, queue) = channel();
        let patrol = Patrol { library, watched: Vec::new() };
        std::thread::Builder::new()
            .name(format!("nccl-{rank}"))
            .spawn(move || serve(&queue, patrol))
            .map_err(|error| Error::SetUp(error.to_string()))?;
        Ok(Self { jobs, inside: Arc::default() })
    }

    /// Queues a job. `op` is what is reported should the thread not return from it.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        op: &'static str,
        deadline: Duration,
        job: impl FnOnce(&mut Patrol) -> Result<T, Error> + Send + 'static,
    ) -> Submitted<T> {
        let (sender, submitted) = Submitted::new(op, deadline, Arc::clone(&self.inside));
        let inside = Arc::clone(&self.inside);
        let job = Box::new(move |patrol: &mut Patrol| {
            inside.enter(op);
            let answer = job(patrol);
            // The caller may have given up.
            let _ = sender.send(answer);
        });
        // Without a thread the answer's sender is dropped with the job, which `wait` reports.
        let _ = self.jobs.send(job);
        submitted
    }

    /// Whether somebody has waited in vain for the thread.
    pub(crate) fn is_lost(&self) -> bool {
        self.inside.is_lost()
    }
}

fn serve(queue: &Receiver<Job>, mut patrol: Patrol) {
    loop {
        match queue.recv_timeout(PATROL) {
            Ok(job) => job(&mut patrol),
            Err(RecvTimeoutError::Timeout) => patrol.look(),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}
