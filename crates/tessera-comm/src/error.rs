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
    /// A launcher variable is malformed.
    #[error("environment variable {name} should be a number of ranks, found '{value}'")]
    Variable {
        /// Name of the variable.
        name: &'static str,
        /// Its value.
        value: String,
    },
    /// A collective was handed a tensor it cannot send.
    #[error(
        "{op} needs a contiguous tensor on the CPU of kind f32, f64, i64 or u8, found {kind:?}"
    )]
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
    /// libtorch refused an operation on a buffer.
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
}
