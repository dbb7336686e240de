//! A group of ranks, one GPU each, that exchange tensors.

use std::sync::Arc;
use std::time::Duration;

use crate::state::State;
use crate::sys;
use crate::thread::{CommThread, Poll, Server};
use crate::{
    DataType, DevicePointer, Error, Library, Op, Options, ReduceOp, Stream, Submitted, UniqueId,
    Version,
};

const SPLIT_SINCE: Version = Version { major: 2, minor: 18, patch: 1 };
const REVOKE_SINCE: Version = Version { major: 2, minor: 28, patch: 7 };

/// One rank of a group.
///
/// All ranks make the same collective calls in the same order. Methods may be called from any
/// thread; the calls into NCCL are made by a thread that the communicator owns (and shares with
/// those [split](Self::split) off from it), in the order in which they were submitted.
///
/// End it with [`finish`](Self::finish) when all is well and with [`abort`](Self::abort) when it
/// is not. Dropped without either, it is aborted, which waits for [`Options::abort_deadline`].
#[derive(Debug)]
pub struct Communicator {
    library: Library,
    thread: Arc<CommThread>,
    state: Arc<State>,
    rank: usize,
    world_size: usize,
}

impl Communicator {
    /// Meets the other ranks that have the same `id`. Collective.
    ///
    /// NCCL takes the CUDA device that is current on the calling thread, and the calls are made
    /// by a new thread: `set_up` runs on it first and makes this rank's device current there
    /// (with cudarc, `CudaContext::bind_to_thread`).
    ///
    /// # Errors
    ///
    /// [`Error::Nccl`] if NCCL refuses, [`Error::Deadline`] if not every rank came within
    /// [`Options::init_deadline`], [`Error::SetUp`], [`Error::Invalid`].
    pub fn init(
        library: &Library,
        id: UniqueId,
        world_size: usize,
        rank: usize,
        options: &Options,
        set_up: impl FnOnce() -> Result<(), String> + Send + 'static,
    ) -> Result<Self, Error> {
        const OP: &str = "ncclCommInitRankConfig";
        if rank >= world_size || i32::try_from(world_size).is_err() {
            let problem = format!("there is no rank {rank} among {world_size}");
            return Err(Error::Invalid { op: OP, problem });
        }
        let this = Self {
            library: library.clone(),
            thread: Arc::new(CommThread::spawn(library.clone(), rank)?),
            state: State::new(options),
            rank,
            world_size,
        };
        let (library, state) = (library.clone(), Arc::clone(&this.state));
        // NCCL loads its plug-ins and kernels before it says that the start is in progress.
        let patience = options.init_deadline + Duration::from_secs(30);
        let met = this.thread.run(OP, patience, move |server| {
            set_up().map_err(Error::SetUp)?;
            let mut config = state.options.config();
            // SAFETY: the out-pointer and what the configuration points to live in `state`, which
            // `outlive` keeps until the call has settled; NCCL copies the configuration itself.
            let code = unsafe {
                (library.functions().comm_init_rank_config)(
                    state.raw_place(),
                    world_size as i32,
                    id.0,
                    rank as i32,
                    &mut config,
                )
            };
            let limit = state.options.init_deadline;
            outlive(&state, server.settle(&state, OP, code, limit))?;
            server.watch(&state);
            Ok(())
        });
        // On an error `this` is dropped, which aborts what NCCL has begun.
        met.wait()?;
        Ok(this)
    }

    /// This rank, from 0.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Number of ranks.
    pub fn world_size(&self) -> usize {
        self.world_size
    }

    /// The library it was made with.
    pub fn library(&self) -> &Library {
        &self.library
    }

    /// The first error that this communicator has met, in a call or between calls. Never enters
    /// NCCL, so a watchdog can ask at any time; errors of the network show here alone.
    pub fn failure(&self) -> Option<Error> {
        self.state.failure()
    }

    /// Enqueues operations on a stream: one, or several as an NCCL group, in which sends and
    /// receives cannot wait for one another.
    ///
    /// What is wrong with an argument is an error at once; otherwise the communication thread
    /// goes to work, and [`Submitted::wait`] tells when NCCL has accepted the operations. The GPU
    /// carries them out in the order of the stream.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`]; and from [`Submitted::wait`] [`Error::Nccl`], [`Error::Deadline`],
    /// [`Error::Aborted`], [`Error::Stuck`].
    ///
    /// # Safety
    ///
    /// Until the stream has passed the operations, every pointer is to memory of this rank's
    /// device, of the length that the operation names, that nothing else writes to and, for
    /// what is received, nothing else reads. `stream` is of the same device. All ranks submit the
    /// same collectives, with the same counts and types, in the same order.
    pub unsafe fn submit(&self, ops: Vec<Op>, stream: Stream) -> Result<Submitted, Error> {
        for op in &ops {
            op.check(self.world_size)?;
        }
        let name = match ops.as_slice() {
            [op] => op.name(),
            _ => "ncclGroupEnd",
        };
        let (library, state) = (self.library.clone(), Arc::clone(&self.state));
        let deadline = self.state.options.deadline;
        Ok(self.thread.run(name, deadline, move |server| {
            ready(&state, name)?;
            let functions = library.functions();
            let grouped = ops.len() != 1;
            let mut refused = None;
            // SAFETY: `ready` has seen that the communicator lives, this is the one thread that
            // enters NCCL with it, and the caller has promised what concerns memory, stream and
            // the other ranks.
            let code = unsafe {
                if grouped {
                    (functions.group_start)();
                }
                let mut code = sys::SUCCESS;
                for op in &ops {
                    code = op.enqueue(functions, state.raw(), stream);
                    if code != sys::SUCCESS && code != sys::IN_PROGRESS {
                        refused = Some(op.name());
                        break;
                    }
                }
                if grouped {
                    let ended = (functions.group_end)();
                    if refused.is_none() {
                        code = ended;
                    }
                }
                code
            };
            let settled = match refused {
                Some(op) => library.check(op, code),
                None => server.settle(&state, name, code, deadline),
            };
            settled.inspect_err(|error| state.fail(error))
        }))
    }

    /// Runs a job on the communication thread, after what was submitted so far: to record an
    /// event behind an operation, for instance, or to make its stream wait for one. `name` is
    /// what is reported should the thread not return from it.
    pub fn run<T: Send + 'static>(
        &self,
        name: &'static str,
        job: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Submitted<T> {
        self.thread.run(name, self.state.options.deadline, move |_| job())
    }

    /// Replaces `count` elements at `buffer` by their reduction over all ranks.
    ///
    /// # Errors
    ///
    /// As [`Self::submit`].
    ///
    /// # Safety
    ///
    /// As [`Self::submit`].
    pub unsafe fn all_reduce(
        &self,
        buffer: DevicePointer,
        count: usize,
        kind: DataType,
        op: ReduceOp,
        stream: Stream,
    ) -> Result<Submitted, Error> {
        let op = Op::AllReduce { send: buffer, receive: buffer, count, kind, op };
        // SAFETY: the caller's promise.
        unsafe { self.submit(vec![op], stream) }
    }

    /// Leaves in `receive` this rank's part of the reduction of all ranks' `send`, which holds
    /// `world_size * count` elements.
    ///
    /// # Errors
    ///
    /// As [`Self::submit`].
    ///
    /// # Safety
    ///
    /// As [`Self::submit`].
    pub unsafe fn reduce_scatter(
        &self,
        send: DevicePointer,
        receive: DevicePointer,
        count: usize,
        kind: DataType,
        op: ReduceOp,
        stream: Stream,
    ) -> Result<Submitted, Error> {
        let op = Op::ReduceScatter { send, receive, count, kind, op };
        // SAFETY: the caller's promise.
        unsafe { self.submit(vec![op], stream) }
    }

    /// Gathers `count` elements of each rank into `receive`, `world_size * count` elements.
    ///
    /// # Errors
    ///
    /// As [`Self::submit`].
    ///
    /// # Safety
    ///
    /// As [`Self::submit`].
    pub unsafe fn all_gather(
        &self,
        send: DevicePointer,
        receive: DevicePointer,
        count: usize,
        kind: DataType,
        stream: Stream,
    ) -> Result<Submitted, Error> {
        let op = Op::AllGather { send, receive, count, kind };
        // SAFETY: the caller's promise.
        unsafe { self.submit(vec![op], stream) }
    }

    /// Overwrites `count` elements at `buffer` with those of rank `root`.
    ///
    /// # Errors
    ///
    /// As [`Self::submit`].
    ///
    /// # Safety
    ///
    /// As [`Self::submit`].
    pub unsafe fn broadcast(
        &self,
        buffer: DevicePointer,
        count: usize,
        kind: DataType,
        root: usize,
        stream: Stream,
    ) -> Result<Submitted, Error> {
        let op = Op::Broadcast { send: buffer, receive: buffer, count, kind, root };
        // SAFETY: the caller's promise.
        unsafe { self.submit(vec![op], stream) }
    }

    /// Divides the ranks: those that name the same color become a communicator, with ranks in
    /// order of `key`. Collective; a rank without a color gets none. The new communicator works
    /// on the same thread.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] before NCCL 2.18.1; otherwise as [`Self::init`].
    pub fn split(
        &self,
        color: Option<u32>,
        key: i32,
        options: &Options,
    ) -> Result<Option<Self>, Error> {
        const OP: &str = "ncclCommSplit";
        let number = color.map_or(Ok(sys::SPLIT_NO_COLOR), i32::try_from).map_err(|_| {
            Error::Invalid { op: OP, problem: "a color is at most 2147483647".to_owned() }
        })?;
        let split = self.supported(self.library.functions().comm_split, OP, SPLIT_SINCE)?;
        let (library, state) = (self.library.clone(), Arc::clone(&self.state));
        let mut child = Self {
            library: self.library.clone(),
            thread: Arc::clone(&self.thread),
            state: State::new(options),
            rank: 0,
            world_size: 0,
        };
        let new = Arc::clone(&child.state);
        let limit = options.init_deadline;
        let submitted = self.thread.run(OP, limit, move |server| {
            alive(&state, OP)?;
            let mut config = new.options.config();
            // SAFETY: the communicator lives and this thread alone enters NCCL with it. The
            // out-pointer and what the configuration points to live in `new`, which `outlive`
            // keeps until the call has settled; NCCL copies the configuration itself.
            let code = unsafe { split(state.raw(), number, key, new.raw_place(), &mut config) };
            outlive(&new, server.settle(&state, OP, code, limit))
                .inspect_err(|error| state.fail(error))?;
            if color.is_none() {
                return Ok(None);
            }
            // NCCL may fill the place a little after the parent has settled (nccl#1472).
            let mut poll = Poll::begin(&state, OP, limit);
            while new.raw().is_null() {
                outlive(&new, poll.pause(server))?;
            }
            let code = library.state_of(new.raw());
            outlive(&new, server.settle(&new, OP, code, limit))?;
            let (mut rank, mut world_size) = (0, 0);
            // SAFETY: the new communicator has just settled; the out-pointers are live locals.
            let codes = unsafe {
                let functions = library.functions();
                [
                    (functions.comm_user_rank)(new.raw(), &mut rank),
                    (functions.comm_count)(new.raw(), &mut world_size),
                ]
            };
            for code in codes {
                library.check(OP, code)?;
            }
            server.watch(&new);
            Ok(Some((rank as usize, world_size as usize)))
        });
        // On an error `child` is dropped, which aborts what NCCL has begun.
        let Some((rank, world_size)) = submitted.wait()? else { return Ok(None) };
        (child.rank, child.world_size) = (rank, world_size);
        Ok(Some(child))
    }

    /// Stops what is in flight, on this rank, and refuses operations from now on; the
    /// communicator can still be split, and ends with [`Self::finish`].
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] before NCCL 2.28.7; [`Error::Nccl`], [`Error::Deadline`],
    /// [`Error::Stuck`].
    pub fn revoke(&self) -> Result<(), Error> {
        const OP: &str = "ncclCommRevoke";
        let revoke = self.supported(self.library.functions().comm_revoke, OP, REVOKE_SINCE)?;
        let state = Arc::clone(&self.state);
        let deadline = self.state.options.deadline;
        self.interrupt(OP, deadline, move |server| {
            if state.raw().is_null() {
                return Err(Error::Aborted { op: OP });
            }
            // SAFETY: the communicator lives, and this thread alone enters NCCL with it.
            let code = unsafe { revoke(state.raw(), 0) };
            server.settle(&state, OP, code, deadline)?;
            state.set_revoked();
            Ok(())
        })
    }

    /// Waits for all ranks and all operations, and frees everything. Collective.
    ///
    /// # Errors
    ///
    /// The first failure, if there was one, and the communicator is aborted; [`Error::Nccl`],
    /// [`Error::Deadline`], [`Error::Stuck`].
    pub fn finish(self) -> Result<(), Error> {
        const OP: &str = "ncclCommFinalize";
        let (library, state) = (self.library.clone(), Arc::clone(&self.state));
        let deadline = self.state.options.deadline;
        let ended = self.thread.run(OP, deadline, move |server| {
            alive(&state, OP)?;
            if !state.is_revoked() {
                // SAFETY: the communicator lives, and this thread alone enters NCCL with it.
                let code = unsafe { (library.functions().comm_finalize)(state.raw()) };
                server.settle(&state, OP, code, deadline).inspect_err(|e| state.fail(e))?;
            }
            // SAFETY: `take_raw` makes this the last use of a communicator that has settled.
            let code = unsafe { (library.functions().comm_destroy)(state.take_raw()) };
            library.check("ncclCommDestroy", code)
        });
        // On an error `self` is dropped, which aborts.
        ended.wait()
    }

    /// Gives up everything in flight and frees it. Not collective, but every rank has to, since
    /// none can go on without the others. Can be called from any thread, while another waits
    /// for an operation, which then ends with [`Error::Aborted`]. Communicators that share the
    /// thread, since one was split off from the other, go on, also with an operation that is in
    /// progress (but see [`Options::split_share`]).
    ///
    /// # Errors
    ///
    /// [`Error::Stuck`] if NCCL does not return: end the process then. [`Error::Nccl`].
    pub fn abort(&self) -> Result<(), Error> {
        const OP: &str = "ncclCommAbort";
        if self.thread.is_lost() {
            return Err(self
                .failure()
                .unwrap_or(Error::Stuck { op: OP, waited: self.state.options.abort_deadline }));
        }
        let (library, state) = (self.library.clone(), Arc::clone(&self.state));
        self.interrupt(OP, self.state.options.abort_deadline, move |_| {
            let raw = state.take_raw();
            if raw.is_null() {
                return Ok(());
            }
            state.fail(&Error::Aborted { op: OP });
            // SAFETY: `take_raw` makes this the last use, and no other thread is inside NCCL.
            let code = unsafe { (library.functions().comm_abort)(raw) };
            library.check(OP, code)
        })
    }

    /// Runs a job at once, for which the thread gives up what it polls of this communicator.
    fn interrupt(
        &self,
        op: &'static str,
        deadline: Duration,
        job: impl FnOnce(&mut Server) -> Result<(), Error> + Send + 'static,
    ) -> Result<(), Error> {
        let state = Arc::clone(&self.state);
        let submitted = self.thread.run_at_once(op, deadline, move |server| {
            state.interrupt();
            job(server)
        });
        submitted.wait()
    }

    fn supported<F>(
        &self,
        function: Option<F>,
        symbol: &'static str,
        since: Version,
    ) -> Result<F, Error> {
        function.ok_or_else(|| Error::Unsupported { symbol, since, found: self.library.version() })
    }
}

impl Drop for Communicator {
    fn drop(&mut self) {
        if !self.state.raw().is_null() {
            // There is nobody to tell, and the wait has a deadline.
            let _ = self.abort();
        }
    }
}

/// Keeps what NCCL may still write to, should a call that makes a communicator fail.
fn outlive(state: &Arc<State>, settled: Result<(), Error>) -> Result<(), Error> {
    settled.inspect_err(|error| {
        state.fail(error);
        std::mem::forget(Arc::clone(state));
    })
}

/// Whether the communicator has neither failed nor ended.
fn alive(state: &State, op: &'static str) -> Result<(), Error> {
    match state.failure() {
        Some(failure) => Err(failure),
        None if state.raw().is_null() => Err(Error::Aborted { op }),
        None => Ok(()),
    }
}

/// Whether the communicator takes operations.
fn ready(state: &State, op: &'static str) -> Result<(), Error> {
    if state.is_revoked() { Err(Error::Aborted { op }) } else { alive(state, op) }
}
