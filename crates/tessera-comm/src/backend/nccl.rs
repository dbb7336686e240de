//! Ranks as processes with a GPU each, through NCCL.
//!
//! MPI brings rank 0's id to all ranks and then stays silent. Collectives go to a stream of their
//! own: it waits for what libtorch had been asked before, and libtorch's stream waits for it when
//! the answer is [taken](InFlight::wait), so the host waits for neither. A [`Monitor`] watches
//! what is outstanding.
//!
//! On the CPU (with the stand-in of nccl-rs' tests, which has no streams) the same code runs
//! without the events.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cudarc::driver::CudaStream;
use nccl_rs::{
    Communicator as Ranks, DataType, Library, Op, Options, ReduceOp, Stream, Submitted, UniqueId,
};
use tch::{Device, Kind, Tensor};

use super::monitor::{self, Monitor, Passed};
use super::mpi::name_of;
use super::{Communicator, InFlight, Mpi, check_layout, on_copy};
use crate::bytes::{all_gather_bytes, broadcast_bytes};
use crate::device::{Gpu, cuda};
use crate::{Calls, CommError, Hang, RankDevice};

/// NCCL's stream on a GPU, and libtorch's.
#[derive(Debug, Clone)]
struct Streams {
    gpu: Gpu,
    own: Arc<CudaStream>,
}

/// The ranks, aborted unless they were taken out to finish.
#[derive(Debug)]
struct Unfinished(Option<Arc<Ranks>>);

impl std::ops::Deref for Unfinished {
    type Target = Ranks;

    fn deref(&self) -> &Ranks {
        self.0.as_ref().expect("taken out by `finish` alone, which consumes the communicator")
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(ranks) = &self.0 {
            monitor::abort(ranks);
        }
    }
}

/// A process among those that `mpirun` started, with a GPU.
#[derive(Debug)]
pub struct Nccl {
    monitor: Monitor,
    ranks: Unfinished,
    device: Device,
    streams: Option<Streams>,
    collectives: AtomicU64,
    calls: Arc<Calls>,
    /// To be finalised at the end; silent until then.
    mpi: Option<Mpi>,
}

impl Nccl {
    /// Keeps the MPI that the ranks met through, for its end.
    pub(super) fn over(self, mpi: Mpi) -> Self {
        Self { mpi: Some(mpi), ..self }
    }

    /// Meets the other ranks; `boot` brings rank 0's id to them, and then stays silent. A library
    /// that is an error is told to all.
    ///
    /// # Errors
    ///
    /// [`CommError::Nccl`] if NCCL is missing or refuses, or not every rank comes in time.
    pub fn init(
        boot: &dyn Communicator,
        library: Result<Library, nccl_rs::Error>,
        device: &RankDevice,
        timeout: Duration,
        on_hang: impl Fn(&Hang) + Send + 'static,
    ) -> Result<Self, CommError> {
        let (rank, world_size) = (boot.rank(), boot.world_size());
        let failed = |error| CommError::Nccl { rank, error };
        // A rank without NCCL must not leave the others waiting for it.
        let id = match &library {
            Ok(library) if rank == 0 => library.unique_id(timeout).map(|id| id.to_bytes().to_vec()),
            _ => Ok(Vec::new()),
        };
        let mine = [u8::from(library.is_ok() && id.is_ok())];
        let all = all_gather_bytes(boot, &mine)?;
        let (library, id) = (library.map_err(failed)?, id.map_err(failed)?);
        if let Some(rank) = all.iter().position(|ready| ready != &[1]) {
            return Err(CommError::PeerDevice { rank });
        }
        let bytes = broadcast_bytes(boot, &id)?;
        let bytes = bytes.try_into().expect("rank 0 was ready, so it sent an id");
        let streams = match &device.gpu {
            None => None,
            Some(gpu) => {
                let own = gpu.context.new_stream().map_err(cuda("make a stream"))?;
                Some(Streams { gpu: gpu.clone(), own })
            }
        };
        let context = device.gpu.as_ref().map(|gpu| Arc::clone(&gpu.context));
        let watched = context.clone();
        let options = Options { init_deadline: timeout, deadline: timeout, ..Options::default() };
        let set_up = move || match context {
            Some(context) => context.bind_to_thread().map_err(|error| error.to_string()),
            None => Ok(()),
        };
        let id = UniqueId::from_bytes(bytes);
        let ranks = Ranks::init(&library, id, world_size, rank, &options, set_up);
        let ranks = Arc::new(ranks.map_err(failed)?);
        let calls = Arc::new(Calls::untimed());
        let monitor = Monitor::start(&ranks, Arc::clone(&calls), watched, timeout, on_hang);
        let collectives = AtomicU64::new(0);
        let (ranks, device) = (Unfinished(Some(ranks)), device.device);
        let this = Self { monitor, ranks, device, streams, collectives, calls, mpi: None };
        // NCCL connects at the first operation of each kind: here, not in the first step.
        for kind in [Kind::Float, Kind::Int64] {
            let ones = Tensor::ones([1], (kind, this.device));
            let _ = this.all_reduce(ones.copy())?.wait()?;
            let _ = this.broadcast(ones.copy(), 0)?.wait()?;
            let _ = this.all_gather(&ones)?;
        }
        Ok(this)
    }

    fn failed(&self, error: nccl_rs::Error) -> CommError {
        CommError::Nccl { rank: self.ranks.rank(), error }
    }

    /// Enqueues operations on tensors of this rank's device behind what libtorch was asked so far.
    fn launch(
        &self,
        name: &'static str,
        ops: Vec<Op>,
        (count, kind): (usize, Kind),
    ) -> Result<Pending, CommError> {
        let sequence = self.collectives.fetch_add(1, Ordering::Relaxed);
        self.calls.begin(name, sequence, count as u64, name_of(kind));
        let mut accepted = Vec::new();
        let stream = match &self.streams {
            None => Stream::DEFAULT,
            Some(Streams { gpu, own }) => {
                let before = gpu.torch.record_event(None).map_err(cuda("set a mark"))?;
                let own_stream = Arc::clone(own);
                accepted.push(self.ranks.run("cuStreamWaitEvent", move || {
                    own_stream
                        .wait(&before)
                        .map_err(|error| nccl_rs::Error::SetUp(error.to_string()))
                }));
                // SAFETY: the stream is of this rank's device and lives as long as `self`.
                unsafe { Stream::from_raw(own.cu_stream().cast()) }
            }
        };
        // SAFETY: the operations are on tensors that `InFlight` (or the calling function) owns
        // until the stream has passed them, of the lengths that were taken from them;
        // libtorch's stream waits for this one before it touches them again. That all ranks call
        // the same is the trait's contract.
        let submitted = unsafe { self.ranks.submit(ops, stream) };
        accepted.push(submitted.map_err(|error| self.failed(error))?);
        let passed = Passed::default();
        if let Some(Streams { own, .. }) = &self.streams {
            let (own, behind) = (Arc::clone(own), passed.clone());
            self.monitor.expect(name, sequence, passed.clone());
            accepted.push(self.ranks.run("cuEventRecord", move || {
                let event =
                    own.record_event(None).map_err(|e| nccl_rs::Error::SetUp(e.to_string()))?;
                behind.set(Some(event));
                Ok(())
            }));
        }
        let torch = self.streams.as_ref().map(|streams| Arc::clone(&streams.gpu.torch));
        let rank = self.ranks.rank();
        // Without a stream the answer is there when NCCL has accepted the operation.
        let ends = torch.is_none().then(|| (Arc::clone(&self.calls), sequence));
        let launched = Launched { rank, accepted, failure: None, passed, torch, ends };
        Ok(Pending(Arc::new(Mutex::new(launched))))
    }

    /// Runs one operation in place.
    fn in_place(
        &self,
        name: &'static str,
        tensor: Tensor,
        op: impl FnOnce(&Tensor, DataType) -> Op,
    ) -> Result<InFlight, CommError> {
        let kind = data_type(name, &tensor)?;
        if tensor.device() != self.device {
            return on_copy(tensor, self.device, |tensor| self.in_place(name, tensor, op));
        }
        let pending = self.launch(name, vec![op(&tensor, kind)], elements(&tensor))?;
        Ok(InFlight::pending(tensor, pending))
    }
}

/// NCCL's name of an element kind that a collective can send.
fn data_type(op: &'static str, tensor: &Tensor) -> Result<DataType, CommError> {
    check_layout(op, tensor)?;
    Ok(match tensor.kind() {
        Kind::Float => DataType::F32,
        Kind::Double => DataType::F64,
        Kind::Int64 => DataType::I64,
        _ => DataType::U8,
    })
}

/// What is told of a tensor on its way.
fn elements(tensor: &Tensor) -> (usize, Kind) {
    (tensor.numel(), tensor.kind())
}

fn sum_of(tensor: &Tensor, kind: DataType) -> Op {
    let at = tensor.data_ptr().into();
    Op::AllReduce { send: at, receive: at, count: tensor.numel(), kind, op: ReduceOp::Sum }
}

/// What NCCL's stream has yet to pass; shared by the tensors of a group.
#[derive(Debug, Clone)]
pub(super) struct Pending(Arc<Mutex<Launched>>);

#[derive(Debug)]
struct Launched {
    rank: usize,
    accepted: Vec<Submitted>,
    failure: Option<nccl_rs::Error>,
    passed: Passed,
    torch: Option<Arc<CudaStream>>,
    /// The call that ends here, where there is no stream.
    ends: Option<(Arc<Calls>, u64)>,
}

impl Pending {
    /// Makes libtorch's stream wait for the collective; the host waits until NCCL has accepted it.
    pub(super) fn wait(&self) -> Result<(), CommError> {
        let mut launched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for accepted in std::mem::take(&mut launched.accepted) {
            if let Err(error) = accepted.wait() {
                launched.failure.get_or_insert(error);
            }
        }
        if let Some(error) = launched.failure.clone() {
            return Err(CommError::Nccl { rank: launched.rank, error });
        }
        if let (Some(torch), Some(event)) = (&launched.torch, launched.passed.event()) {
            torch.wait(event).map_err(cuda("wait for NCCL"))?;
        }
        if let Some((calls, sequence)) = launched.ends.take() {
            calls.end(sequence);
        }
        Ok(())
    }
}

impl Communicator for Nccl {
    fn rank(&self) -> usize {
        self.ranks.rank()
    }

    fn carrier(&self) -> String {
        format!("{:?}", self.ranks.library())
    }

    fn world_size(&self) -> usize {
        self.ranks.world_size()
    }

    fn overlaps(&self) -> bool {
        true
    }

    fn all_reduce(&self, tensor: Tensor) -> Result<InFlight, CommError> {
        self.in_place("all_reduce", tensor, sum_of)
    }

    fn all_reduce_group(&self, tensors: Vec<Tensor>) -> Result<Vec<InFlight>, CommError> {
        let mut ops = Vec::with_capacity(tensors.len());
        for tensor in &tensors {
            let kind = data_type("all_reduce", tensor)?;
            if tensor.device() != self.device {
                return Err(CommError::Layout { op: "all_reduce", kind: tensor.kind() });
            }
            ops.push(sum_of(tensor, kind));
        }
        let Some(first) = tensors.first() else { return Ok(Vec::new()) };
        let all = (tensors.iter().map(Tensor::numel).sum(), first.kind());
        let pending = self.launch("all_reduce", ops, all)?;
        let flight = |tensor| InFlight::pending(tensor, pending.clone());
        Ok(tensors.into_iter().map(flight).collect())
    }

    fn broadcast(&self, tensor: Tensor, root: usize) -> Result<InFlight, CommError> {
        self.in_place("broadcast", tensor, |tensor, kind| {
            let at = tensor.data_ptr().into();
            Op::Broadcast { send: at, receive: at, count: tensor.numel(), kind, root }
        })
    }

    fn all_gather(&self, tensor: &Tensor) -> Result<Tensor, CommError> {
        let kind = data_type("all_gather", tensor)?;
        let mine = tensor.to_device(self.device);
        let mut size = tensor.size();
        size.insert(0, self.world_size() as i64);
        let gathered = Tensor::zeros(size, (tensor.kind(), self.device));
        let op = Op::AllGather {
            send: mine.data_ptr().into(),
            receive: gathered.data_ptr().into(),
            count: mine.numel(),
            kind,
        };
        let pending = self.launch("all_gather", vec![op], elements(&mine))?;
        let _mine = InFlight::pending(mine, pending.clone());
        Ok(InFlight::pending(gathered, pending).wait()?.to_device(tensor.device()))
    }

    fn barrier(&self) -> Result<(), CommError> {
        let one = self.all_reduce(Tensor::ones([1], (Kind::Float, self.device)))?.wait()?;
        // Reading the sum waits for the device; the monitor ends that wait if a peer is lost.
        let _ = one.double_value(&[0]);
        Ok(())
    }

    fn num_collectives(&self) -> u64 {
        self.collectives.load(Ordering::Relaxed)
    }

    fn calls(&self) -> Option<Arc<Calls>> {
        Some(Arc::clone(&self.calls))
    }

    fn finish(self: Box<Self>) -> Result<(), CommError> {
        let Self { mut ranks, monitor, mpi, .. } = *self;
        let rank = ranks.rank();
        drop(monitor); // joins, so that no one else holds the ranks
        if let Some(ranks) = ranks.0.take().and_then(Arc::into_inner) {
            ranks.finish().map_err(|error| CommError::Nccl { rank, error })?;
        }
        mpi.map_or(Ok(()), |mpi| Box::new(mpi).finish())
    }
}

#[cfg(test)]
#[path = "nccl_tests.rs"]
mod tests;
