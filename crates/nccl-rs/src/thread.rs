//! The one thread that enters NCCL.
//!
//! It takes jobs in order, and meanwhile looks for asynchronous errors of the communicators it serves: one, and those split off from it. Aborts and revocations do not wait in that order:
//! they are served between two looks at whatever is being polled, whose communicator is then
//! given up if it is theirs and polled on if it is another one. Everybody else talks to the thread
//! through [`State`] and [`Submitted`], so nobody can be lost in NCCL but this thread, and nothing
//! else is inside NCCL when it aborts.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::state::State;
use crate::submitted::{Inside, Patience};
use crate::sys::{self, Code};
use crate::{Error, Library, Submitted};

/// Between two looks for asynchronous errors.
const PATROL: Duration = Duration::from_millis(100);
/// How long the state of a call in progress is asked for without a pause, and the pause then.
const SPIN: Duration = Duration::from_micros(200);
const PAUSE: Duration = Duration::from_micros(50);

type Job = Box<dyn FnOnce(&mut Server) + Send>;

#[derive(Default)]
struct Waiting {
    urgent: VecDeque<Job>,
    in_order: VecDeque<Job>,
    closed: bool,
}

/// Jobs that wait for the thread.
#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    news: Condvar,
}

/// What the thread does next.
enum Next {
    Job(Job),
    Patrol,
    End,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Waiting)) {
        change(&mut self.lock());
        self.news.notify_one();
    }

    fn take_urgent(&self) -> Option<Job> {
        self.lock().urgent.pop_front()
    }

    fn take(&self) -> Next {
        let waiting = self.news.wait_timeout_while(self.lock(), PATROL, |waiting| {
            waiting.urgent.is_empty() && waiting.in_order.is_empty() && !waiting.closed
        });
        let mut waiting = waiting.unwrap_or_else(PoisonError::into_inner).0;
        match waiting.urgent.pop_front().or_else(|| waiting.in_order.pop_front()) {
            Some(job) => Next::Job(job),
            None if waiting.closed => Next::End,
            None => Next::Patrol,
        }
    }
}

/// The thread's own side: what a job has at hand.
pub(crate) struct Server {
    library: Library,
    queue: Arc<Queue>,
    inside: Arc<Inside>,
    /// Communicators whose asynchronous errors it looks for.
    watched: Vec<Weak<State>>,
    looked: Instant,
}

impl Server {
    /// From now on it looks for asynchronous errors of this communicator.
    pub(crate) fn watch(&mut self, state: &Arc<State>) {
        self.watched.push(Arc::downgrade(state));
    }

    /// Polls what NCCL calls in progress until it is done, fails, is interrupted or is late.
    pub(crate) fn settle(
        &mut self,
        state: &State,
        op: &'static str,
        mut code: Code,
        deadline: Duration,
    ) -> Result<(), Error> {
        let mut poll = Poll::begin(state, op, deadline);
        while code == sys::IN_PROGRESS {
            poll.pause(self)?;
            code = self.library.state_of(state.raw());
        }
        self.library.check(op, code)
    }

    /// Does what cannot wait; the time that it took.
    fn serve_urgent(&mut self) -> Duration {
        let start = Instant::now();
        while let Some(job) = self.queue.take_urgent() {
            job(self);
        }
        start.elapsed()
    }

    fn serve(&mut self) {
        loop {
            match self.queue.take() {
                Next::Job(job) => job(self),
                Next::Patrol => {}
                Next::End => return,
            }
            self.inside.beat();
            self.patrol(None);
        }
    }

    /// Looks for asynchronous errors where it is time to, but for the communicator that is polled:
    /// its errors are those of the call in progress.
    fn patrol(&mut self, polled: Option<&State>) {
        if self.looked.elapsed() < PATROL {
            return;
        }
        self.looked = Instant::now();
        self.watched.retain(|state| state.strong_count() > 0);
        for state in self.watched.iter().filter_map(Weak::upgrade) {
            let is_polled = polled.is_some_and(|polled| std::ptr::eq(polled, &*state));
            if is_polled || state.raw().is_null() || state.failure().is_some() {
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

/// The looks at something in progress, on behalf of one communicator.
pub(crate) struct Poll<'a> {
    state: &'a State,
    op: &'static str,
    deadline: Duration,
    num_interruptions: usize,
    /// When it began, but for what was done in the meantime for others.
    start: Instant,
}

impl<'a> Poll<'a> {
    pub(crate) fn begin(state: &'a State, op: &'static str, deadline: Duration) -> Self {
        let num_interruptions = state.num_interruptions();
        Self { state, op, deadline, num_interruptions, start: Instant::now() }
    }

    /// Until the next look; meanwhile does what cannot wait.
    ///
    /// # Errors
    ///
    /// [`Error::Aborted`] if the communicator was interrupted, [`Error::Deadline`].
    pub(crate) fn pause(&mut self, server: &mut Server) -> Result<(), Error> {
        self.start += server.serve_urgent();
        server.inside.beat();
        server.patrol(Some(self.state));
        let (op, waited) = (self.op, self.start.elapsed());
        if self.state.num_interruptions() != self.num_interruptions {
            return Err(Error::Aborted { op });
        }
        if waited >= self.deadline {
            return Err(Error::Deadline { op, waited: self.deadline });
        }
        if waited < SPIN {
            std::thread::yield_now()
        } else {
            std::thread::sleep(PAUSE)
        }
        Ok(())
    }
}

/// Handle of the thread, which ends when the last handle is dropped.
pub(crate) struct CommThread {
    queue: Arc<Queue>,
    inside: Arc<Inside>,
}

impl std::fmt::Debug for CommThread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CommThread").field("inside", &self.inside).finish_non_exhaustive()
    }
}

impl CommThread {
    pub(crate) fn spawn(library: Library, rank: usize) -> Result<Self, Error> {
        let (queue, inside) = (Arc::<Queue>::default(), Arc::<Inside>::default());
        let (theirs, beats) = (Arc::clone(&queue), Arc::clone(&inside));
        let (watched, looked) = (Vec::new(), Instant::now());
        std::thread::Builder::new()
            .name(format!("nccl-{rank}"))
            .spawn(move || {
                Server { library, queue: theirs, inside: beats, watched, looked }.serve();
            })
            .map_err(|error| Error::SetUp(error.to_string()))?;
        Ok(Self { queue, inside })
    }

    /// Queues a job behind those before it. `op` is what is reported should the thread not return
    /// from it for `deadline`.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        op: &'static str,
        deadline: Duration,
        job: impl FnOnce(&mut Server) -> Result<T, Error> + Send + 'static,
    ) -> Submitted<T> {
        let (job, submitted) = self.job(op, deadline, Patience::OfWhatIsAhead, job);
        self.queue.change(|waiting| waiting.in_order.push_back(job));
        submitted
    }

    /// Has a job done as soon as the thread is outside NCCL, before all that waits in order.
    pub(crate) fn run_at_once<T: Send + 'static>(
        &self,
        op: &'static str,
        deadline: Duration,
        job: impl FnOnce(&mut Server) -> Result<T, Error> + Send + 'static,
    ) -> Submitted<T> {
        let (job, submitted) = self.job(op, deadline, Patience::Own, job);
        self.queue.change(|waiting| waiting.urgent.push_back(job));
        submitted
    }

    fn job<T: Send + 'static>(
        &self,
        op: &'static str,
        deadline: Duration,
        patience: Patience,
        job: impl FnOnce(&mut Server) -> Result<T, Error> + Send + 'static,
    ) -> (Job, Submitted<T>) {
        let (sender, submitted) = Submitted::new(op, deadline, patience, Arc::clone(&self.inside));
        let inside = Arc::clone(&self.inside);
        let job = move |server: &mut Server| {
            let interrupted = inside.enter(op, deadline);
            // The thread has to live on, for an abort.
            let answer = catch_unwind(AssertUnwindSafe(|| job(server)));
            inside.leave(interrupted);
            // The caller may have given up.
            let _ = sender.send(answer.unwrap_or(Err(Error::Panicked { op })));
        };
        (Box::new(job), submitted)
    }

    /// Whether somebody has waited in vain for the thread, and it has not come back since.
    pub(crate) fn is_lost(&self) -> bool {
        self.inside.is_lost()
    }
}

impl Drop for CommThread {
    fn drop(&mut self) {
        self.queue.change(|waiting| waiting.closed = true);
    }
}
