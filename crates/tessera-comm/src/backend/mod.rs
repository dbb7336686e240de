//! The ways in which ranks can be connected, and the choice between them.

mod mpi;
mod solo;
mod threads;

use std::time::Duration;

use tch::{Device, Kind, Tensor};

pub use self::mpi::Mpi;
pub use self::solo::Solo;
pub use self::threads::Threads;
use crate::{CommConfig, CommError, Hang, Watchdog};

/// The ranks of a run, seen from one of them.
///
/// Every rank makes the same calls in the same order with the same sizes; nothing here may stand
/// in an `if` that ranks could answer differently. Tensors are contiguous, of kind f32, f64, i64
/// or u8.
pub trait Communicator: Send {
    /// This rank, from 0.
    fn rank(&self) -> usize;

    /// Number of ranks.
    fn world_size(&self) -> usize;

    /// Sums `tensor` over all ranks, in place. The result is bitwise the same on every rank.
    ///
    /// # Errors
    ///
    /// [`CommError`]; the communicator is unusable then.
    fn all_reduce(&self, tensor: Tensor) -> Result<InFlight, CommError>;

    /// Overwrites `tensor` with that of rank `root`.
    ///
    /// # Errors
    ///
    /// [`CommError`]; the communicator is unusable then.
    fn broadcast(&self, tensor: Tensor, root: usize) -> Result<InFlight, CommError>;

    /// The tensors of all ranks, `[world_size, ...]`, in order of ranks.
    ///
    /// # Errors
    ///
    /// [`CommError`]; the communicator is unusable then.
    fn all_gather(&self, tensor: &Tensor) -> Result<Tensor, CommError>;

    /// Returns when every rank has come here.
    ///
    /// # Errors
    ///
    /// [`CommError`]; the communicator is unusable then.
    fn barrier(&self) -> Result<(), CommError>;

    /// Collectives called so far: equal on every rank of a correct program.
    fn num_collectives(&self) -> u64;

    /// Leaves in good order. On a failure path, leave the process without it: it may wait for
    /// peers.
    ///
    /// # Errors
    ///
    /// [`CommError`] if the library objects.
    fn finish(self: Box<Self>) -> Result<(), CommError>;
}

/// A tensor that a collective may still be writing to; nobody can name it before [`wait`].
///
/// [`wait`]: InFlight::wait
#[derive(Debug)]
#[must_use = "the tensor is lost unless it is waited for"]
pub struct InFlight(Tensor);

impl InFlight {
    /// A collective that had ended when its call returned.
    fn done(tensor: Tensor) -> Self {
        Self(tensor)
    }

    /// The tensor, once the collective has ended.
    ///
    /// # Errors
    ///
    /// [`CommError`] if the collective failed.
    pub fn wait(self) -> Result<Tensor, CommError> {
        Ok(self.0)
    }
}

/// Variables that tell how many ranks whoever started this process had in mind: ours, Open MPI's,
/// MPICH's, Slurm's.
const WORLD_VARIABLES: [&str; 4] =
    ["TESSERA_WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", SLURM];
const SLURM: &str = "SLURM_STEP_NUM_TASKS";

/// Connects this process with its peers: [`Mpi`] when it was started as one of several ranks,
/// [`Solo`] (and no call to MPI) otherwise.
///
/// `on_hang` reports a collective that outlasted `comm.timeout_seconds`; the process ends after it.
///
/// # Errors
///
/// [`CommError::World`] if the variables speak of several ranks and MPI of another number: never
/// N worlds of one that write into one folder.
pub fn connect(
    config: &CommConfig,
    on_hang: impl Fn(&Hang) + Send + 'static,
) -> Result<Box<dyn Communicator>, CommError> {
    let mut asked = Vec::new();
    for name in WORLD_VARIABLES {
        if let Ok(value) = std::env::var(name) {
            match value.parse::<usize>() {
                Ok(ranks) => asked.push((name, ranks)),
                Err(_) => return Err(CommError::Variable { name, value }),
            }
        }
    }
    if asked.iter().all(|&(_, ranks)| ranks <= 1) {
        return Ok(Box::new(Solo::default()));
    }
    let watchdog = Watchdog::start(Duration::from_secs_f64(config.timeout_seconds), on_hang);
    let mpi = Mpi::init(watchdog)?;
    let actual = mpi.world_size();
    for (variable, expected) in asked {
        // Slurm counts the tasks of its step, which need not be the ranks that MPI started in it.
        let contradicts = if variable == SLURM { actual == 1 } else { expected != actual };
        if expected > 1 && contradicts {
            return Err(CommError::World { variable, expected, actual });
        }
    }
    Ok(Box::new(mpi))
}

/// Refuses what a collective on the CPU cannot send.
fn check_layout(op: &'static str, tensor: &Tensor) -> Result<(), CommError> {
    let kind = tensor.kind();
    let sendable = matches!(kind, Kind::Float | Kind::Double | Kind::Int64 | Kind::Uint8);
    if !sendable || !tensor.is_contiguous() || tensor.device() != Device::Cpu {
        return Err(CommError::Layout { op, kind });
    }
    Ok(())
}
