//! Why ranks could not exchange tensors.

use std::time::Duration;

use tch::Kind;

/// Why ranks could not exchange tensors. After any of these the communicator is
/// unusable: end the process, and let the launcher restart the job.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommError {
    /// How the process was started contradicts what MPI sees.
    #[error(
        "{variable} says {expected} ranks but MPI sees {actual}: start the workers with the mpirun \
         of the MPI library that tessera-worker was built with (see `tessera doctor`)"
    )]
    World {
        /// The variable that speaks of several ranks.
        variable: &'static str,
        /// What it says.
        expected: usize,
        /// What MPI says.
        actual: usize,
    },
    /// Two that start processes speak of other numbers of ranks.
    #[error(
        "{} says {} ranks, {} {}: ask Slurm for as many tasks (--ntasks) as there are to be ranks, or say \
         who has started them in TESSERA_ENVIRONMENT (single, openmpi, mpich or slurm)",
        first.0, first.1, second.0, second.1
    )]
    Starters {
        /// The variable that counts, and its number.
        first: (&'static str, usize),
        /// The one that contradicts it.
        second: (&'static str, usize),
    },
    /// Nobody of that name starts processes.
    #[error(
        "environment variable {name} should be auto, single, openmpi, mpich or slurm, found '{value}'"
    )]
    Starter {
        /// Name of the variable.
        name: &'static str,
        /// What it says.
        value: String,
    },
    /// A launcher variable is malformed.
    #[error("environment variable {name} should be a number of ranks, found '{value}'")]
    Variable {
        /// Name of the variable.
        name: &'static str,
        /// Its value.
        value: String,
    },
    /// A collective was handed a tensor it cannot send.
    #[error("{op} needs a contiguous tensor of kind f32, f64, i64 or u8, found {kind:?}")]
    Layout {
        /// The collective.
        op: &'static str,
        /// Kind of the tensor.
        kind: Kind,
    },
    /// Ranks called different collectives, or with different sizes.
    #[error("rank {rank} called {found} where another rank called {expected}")]
    Mismatch {
        /// The rank that noticed.
        rank: usize,
        /// What it called.
        found: String,
        /// What the others called.
        expected: String,
    },
    /// Not every rank joined a collective in time.
    #[error("{op}: only {arrived} of {world_size} ranks arrived within {waited:?}")]
    Deadline {
        /// The collective.
        op: &'static str,
        /// Ranks that arrived.
        arrived: usize,
        /// Ranks that should have.
        world_size: usize,
        /// How long this rank waited.
        waited: Duration,
    },
    /// A peer has left while others still communicate.
    #[error("{op}: a peer has left the run")]
    PeerLeft {
        /// The collective.
        op: &'static str,
    },
    /// MPI refused or failed.
    #[error("{op} failed on rank {rank}: MPI error {code}: {text}")]
    Mpi {
        /// The call.
        op: &'static str,
        /// The rank that saw it.
        rank: usize,
        /// MPI's error code.
        code: i32,
        /// MPI's words for it.
        text: String,
    },
    /// An MPI library that the project has never been run with.
    #[error(
        "the MPI library is {version}, with which Tessera has not been tried: build and start it with \
         Open MPI or MPICH"
    )]
    UntriedMpi {
        /// What it says of itself.
        version: String,
    },
    /// NCCL is missing, refused or failed.
    #[error("{error} (rank {rank})")]
    Nccl {
        /// The rank that saw it.
        rank: usize,
        /// What happened.
        error: nccl_rs::Error,
    },
    /// A GPU was asked for and there is none.
    #[error(
        "train.device = \"cuda\" but libtorch sees no GPU{}: check `nvidia-smi`, and that the CUDA \
         libtorch is installed (`./launch/setup.sh --cuda`), or set train.device = \"cpu\"",
        loader.as_ref().map_or(String::new(), |said| format!(" (the loader says: {said})"))
    )]
    NoGpu {
        /// What the loader said when it did not find libtorch's CUDA half.
        loader: Option<String>,
    },
    /// Another rank could not open its device; it tells why itself.
    #[error("rank {rank} has no device to compute on, or no NCCL; it says why itself")]
    PeerDevice {
        /// The rank.
        rank: usize,
    },
    /// Some ranks found a GPU and others did not.
    #[error(
        "rank {rank} found another kind of device than this one: all ranks need a GPU, or set \
         train.device = \"cpu\""
    )]
    MixedDevices {
        /// A rank with the other kind.
        rank: usize,
    },
    /// Two ranks have taken one GPU.
    #[error(
        "ranks {first} and {second} have the same GPU ({gpu}): start one worker a GPU, or set \
         comm.share_gpu = true to test with several on one"
    )]
    SharedGpu {
        /// A rank.
        first: usize,
        /// Another.
        second: usize,
        /// Host and GPU.
        gpu: String,
    },
    /// NCCL was asked for between processors.
    #[error(
        "comm.backend = \"nccl\" cannot carry tensors on the CPU: set comm.backend = \"mpi\", or \
         train.device = \"cuda\""
    )]
    NcclOnCpu,
    /// CUDA's driver refused or failed.
    #[error("the GPU could not {doing}: {text}")]
    Cuda {
        /// What was tried.
        doing: &'static str,
        /// CUDA's words.
        text: String,
    },
    /// The device did not come to a mark in time.
    #[error("the GPU has not finished its work within {waited:?}")]
    DeviceDeadline {
        /// The deadline.
        waited: Duration,
    },
    /// libtorch refused an operation on a buffer.
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
}

impl CommError {
    /// Whether a wait over NCCL, or for a device that NCCL's kernels may keep, took too long.
    pub fn is_hang_over_nccl(&self) -> bool {
        use nccl_rs::Error::{Deadline, Stuck};
        match self {
            Self::Nccl { error, .. } => matches!(error, Deadline { .. } | Stuck { .. }),
            Self::DeviceDeadline { .. } => true,
            _ => false,
        }
    }
}
