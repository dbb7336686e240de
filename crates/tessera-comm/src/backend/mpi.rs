//! Ranks as processes, through MPI.
//!
//! Calls go through `mpi::ffi` with errors returned instead of fatal, and every code is checked:
//! the safe layer of rsmpi drops return codes, and its requests borrow buffers and panic on
//! drop. Tensors of a GPU go through the host's memory: MPI may not know GPUs, and one that does
//! can deadlock with NCCL. Calls block; MPI makes no progress during compute, so there is nothing to overlap. A
//! [`Watchdog`] is armed around each.

use std::ffi::{c_char, c_int, c_void};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mpi::ffi;
use tch::{Device, Kind, Tensor};

use super::{Communicator, InFlight, check_layout, on_copy};
use crate::{Calls, CommError, Watchdog};

/// Most elements in one call: MPI counts in `int`.
const MAX_COUNT: usize = 1 << 30;

/// The value of MPI_IN_PLACE; never read through.
#[derive(Debug, Clone, Copy)]
struct InPlace(*const c_void);

// SAFETY: the pointer is a mark that MPI compares; nothing is behind it.
unsafe impl Send for InPlace {}

/// A process among those that `mpirun` started.
#[derive(Debug)]
pub struct Mpi {
    rank: usize,
    world_size: usize,
    in_place: InPlace,
    watchdog: Watchdog,
    collectives: AtomicU64,
    calls: Arc<Calls>,
}

impl Mpi {
    /// Initialises MPI, once in the life of the process.
    ///
    /// # Errors
    ///
    /// [`CommError::Mpi`] if MPI refuses, [`CommError::UntriedMpi`] if it is one that nobody has tried.
    pub fn init(watchdog: Watchdog) -> Result<Self, CommError> {
        refuse_untried()?;
        let mut this = Self {
            rank: 0,
            world_size: 1,
            in_place: InPlace(tessera_mpi_in_place()),
            watchdog,
            collectives: AtomicU64::new(0),
            calls: Arc::default(),
        };
        let (mut rank, mut size, mut provided) = (0, 0, 0);
        let armed = this.watchdog.arm("MPI_Init_thread", 0);
        // SAFETY: null argument pointers are allowed since MPI-2, and the out-pointers are live
        // locals. `init` is reached once a process: `connect` is its only caller and is called
        // first thing by the worker.
        let status = unsafe {
            ffi::MPI_Init_thread(
                std::ptr::null_mut(),
                std::ptr::null_mut(),
                ffi::RSMPI_THREAD_FUNNELED,
                &mut provided,
            )
        };
        this.check("MPI_Init_thread", status)?;
        // SAFETY: MPI is initialised; MPI_COMM_WORLD and the constants are MPI's own, and the
        // out-pointers are live locals.
        let status = unsafe {
            let world = ffi::RSMPI_COMM_WORLD;
            [
                ffi::MPI_Comm_set_errhandler(world, ffi::RSMPI_ERRORS_RETURN),
                ffi::MPI_Comm_rank(world, &mut rank),
                ffi::MPI_Comm_size(world, &mut size),
            ]
        };
        drop(armed);
        for code in status {
            this.check("MPI set-up", code)?;
        }
        this.rank = rank as usize;
        this.world_size = size as usize;
        Ok(this)
    }

    /// This rank's number among those that share its memory, from 0. Collective.
    pub(crate) fn local_rank(&self) -> Result<usize, CommError> {
        let mut rank = 0;
        self.call("MPI_Comm_split_type", None, || {
            // SAFETY: MPI is initialised, the constants are MPI's own, and the out-pointers are
            // live locals; the new communicator is freed before it goes out of scope.
            unsafe {
                let mut local = ffi::RSMPI_COMM_NULL;
                let world = ffi::RSMPI_COMM_WORLD;
                let kind = ffi::RSMPI_COMM_TYPE_SHARED;
                let info = ffi::RSMPI_INFO_NULL;
                let code = ffi::MPI_Comm_split_type(world, kind, 0, info, &mut local);
                if code != ffi::MPI_SUCCESS as c_int {
                    return code;
                }
                ffi::MPI_Comm_rank(local, &mut rank);
                ffi::MPI_Comm_free(&mut local)
            }
        })?;
        Ok(rank as usize)
    }

    fn check(&self, op: &'static str, code: c_int) -> Result<(), CommError> {
        if code == ffi::MPI_SUCCESS as c_int {
            return Ok(());
        }
        let mut text = [0u8; 1024]; // MPI_MAX_ERROR_STRING is 256 (Open MPI) or 512 (MPICH)
        let mut length = 0;
        // SAFETY: `text` is longer than any MPI's longest message, and `length` is live.
        unsafe { ffi::MPI_Error_string(code, text.as_mut_ptr().cast::<c_char>(), &mut length) };
        let text = String::from_utf8_lossy(&text[..length as usize]).into_owned();
        Err(CommError::Mpi { op, rank: self.rank, code, text })
    }

    /// Runs a collective call under the watchdog.
    fn call(
        &self,
        op: &'static str,
        elements: Option<(usize, Kind)>,
        call: impl FnOnce() -> c_int,
    ) -> Result<(), CommError> {
        let sequence = self.collectives.fetch_add(1, Ordering::Relaxed);
        let (count, kind) = elements.map_or((0, ""), |(count, kind)| (count as u64, name_of(kind)));
        self.calls.begin(op, sequence, count, kind);
        let armed = self.watchdog.arm(op, sequence);
        let code = call();
        drop(armed);
        self.check(op, code)?;
        self.calls.end(sequence);
        Ok(())
    }

    /// Runs `call(pointer, count)` over the elements of a tensor in parts that MPI can count.
    fn in_parts(
        &self,
        op: &'static str,
        tensor: &Tensor,
        call: impl Fn(*mut c_void, c_int) -> c_int,
    ) -> Result<(), CommError> {
        let (base, total) = (tensor.data_ptr().cast::<u8>(), tensor.numel());
        let size = tensor.kind().elt_size_in_bytes();
        let mut start = 0;
        loop {
            let count = MAX_COUNT.min(total - start);
            let pointer = base.wrapping_add(start * size).cast::<c_void>();
            let elements = Some((count, tensor.kind()));
            self.call(op, elements, || call(pointer, count as c_int))?;
            start += count;
            if start >= total {
                return Ok(());
            }
        }
    }
}

/// A name of an element kind for people.
pub(super) fn name_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Float => "f32",
        Kind::Double => "f64",
        Kind::Int64 => "i64",
        _ => "u8",
    }
}

/// MPI's name of an element kind that `check_layout` has let through.
fn datatype(kind: Kind) -> ffi::MPI_Datatype {
    // SAFETY: constants of MPI, set when the library was loaded.
    unsafe {
        match kind {
            Kind::Float => ffi::RSMPI_FLOAT,
            Kind::Double => ffi::RSMPI_DOUBLE,
            Kind::Int64 => ffi::RSMPI_INT64_T,
            _ => ffi::RSMPI_UINT8_T,
        }
    }
}

impl Communicator for Mpi {
    fn rank(&self) -> usize {
        self.rank
    }

    fn carrier(&self) -> String {
        "MPI".to_owned()
    }

    fn world_size(&self) -> usize {
        self.world_size
    }

    fn all_reduce(&self, tensor: Tensor) -> Result<InFlight, CommError> {
        if tensor.device() != Device::Cpu {
            return on_copy(tensor, Device::Cpu, |tensor| self.all_reduce(tensor));
        }
        check_layout("all_reduce", &tensor)?;
        let kind = datatype(tensor.kind());
        self.in_parts("all_reduce", &tensor, |pointer, count| {
            // SAFETY: `pointer` is the start of `count` contiguous elements of this kind, which
            // `in_parts` took from a tensor that `check_layout` passed and that lives until the
            // call, a blocking one, has returned. MPI_IN_PLACE is allowed as the send buffer.
            unsafe {
                ffi::MPI_Allreduce(
                    self.in_place.0,
                    pointer,
                    count,
                    kind,
                    ffi::RSMPI_SUM,
                    ffi::RSMPI_COMM_WORLD,
                )
            }
        })?;
        Ok(InFlight::done(tensor))
    }

    fn broadcast(&self, tensor: Tensor, root: usize) -> Result<InFlight, CommError> {
        if tensor.device() != Device::Cpu {
            return on_copy(tensor, Device::Cpu, |tensor| self.broadcast(tensor, root));
        }
        check_layout("broadcast", &tensor)?;
        let kind = datatype(tensor.kind());
        self.in_parts("broadcast", &tensor, |pointer, count| {
            // SAFETY: as in `all_reduce`.
            unsafe { ffi::MPI_Bcast(pointer, count, kind, root as c_int, ffi::RSMPI_COMM_WORLD) }
        })?;
        Ok(InFlight::done(tensor))
    }

    fn all_gather(&self, tensor: &Tensor) -> Result<Tensor, CommError> {
        if tensor.device() != Device::Cpu {
            let gathered = self.all_gather(&tensor.to_device(Device::Cpu))?;
            return Ok(gathered.to_device(tensor.device()));
        }
        check_layout("all_gather", tensor)?;
        let count = c_int::try_from(tensor.numel()).expect("only short messages are gathered");
        let mut size = tensor.size();
        size.insert(0, self.world_size as i64);
        let gathered = Tensor::zeros(size, (tensor.kind(), tensor.device()));
        let kind = datatype(tensor.kind());
        self.call("all_gather", Some((tensor.numel(), tensor.kind())), || {
            // SAFETY: `tensor` holds `count` contiguous elements and `gathered`, just made, room
            // for `world_size` times as many; both outlive the blocking call.
            unsafe {
                ffi::MPI_Allgather(
                    tensor.data_ptr(),
                    count,
                    kind,
                    gathered.data_ptr(),
                    count,
                    kind,
                    ffi::RSMPI_COMM_WORLD,
                )
            }
        })?;
        Ok(gathered)
    }

    fn barrier(&self) -> Result<(), CommError> {
        // SAFETY: MPI is initialised as long as `self` exists.
        self.call("barrier", None, || unsafe { ffi::MPI_Barrier(ffi::RSMPI_COMM_WORLD) })
    }

    fn num_collectives(&self) -> u64 {
        self.collectives.load(Ordering::Relaxed)
    }

    fn calls(&self) -> Option<Arc<Calls>> {
        Some(Arc::clone(&self.calls))
    }

    fn finish(self: Box<Self>) -> Result<(), CommError> {
        // SAFETY: MPI is initialised, every call of ours blocks, so none is pending, and `self`
        // is consumed, so none follows.
        self.call("MPI_Finalize", None, || unsafe { ffi::MPI_Finalize() })
    }
}

unsafe extern "C" {
    /// MPI_IN_PLACE of the header that this program is compiled with (in_place.c).
    safe fn tessera_mpi_in_place() -> *const c_void;
}

/// Refuses an MPI that nobody has tried: Intel's has MPICH's names and may be loaded in its place.
fn refuse_untried() -> Result<(), CommError> {
    let mut text = [0u8; 8192]; // Open MPI says 256, MPICH 8192
    let mut length = 0;
    // SAFETY: `text` is as long as the longest version text of any MPI, and `length` is live.
    let code =
        unsafe { ffi::MPI_Get_library_version(text.as_mut_ptr().cast::<c_char>(), &mut length) };
    let text = String::from_utf8_lossy(&text[..length.max(0) as usize]).into_owned();
    if code != ffi::MPI_SUCCESS as c_int {
        let text = "no version text".to_owned();
        return Err(CommError::Mpi { op: "MPI_Get_library_version", rank: 0, code, text });
    }
    if is_untried(&text) {
        let version = text.lines().next().unwrap_or_default().to_owned();
        return Err(CommError::UntriedMpi { version });
    }
    Ok(())
}

fn is_untried(version: &str) -> bool {
    version.starts_with("Intel(R) MPI")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_place_is_a_mark_and_no_buffer() {
        // Open MPI's headers have 1, MPICH's -1; another one's are as good, but for null.
        assert_ne!(tessera_mpi_in_place().addr(), 0);
    }

    #[test]
    fn intel_mpi_is_known_by_its_words() {
        assert!(is_untried("Intel(R) MPI Library 2021.8 for Linux* OS\n"));
        assert!(!is_untried("Open MPI v4.1.4, package: Debian OpenMPI"));
        assert!(!is_untried("MPICH Version:      4.0.2\nMPICH Release date: ..."));
        refuse_untried().unwrap();
    }
}
