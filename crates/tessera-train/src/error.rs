//! Why a run did not end well, and with which exit code.

use std::io;
use std::path::{Path, PathBuf};

use tessera_checkpoint::CheckpointError;
use tessera_control::ExitCode;

/// Why a run did not end well.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A configuration, a path or an option that cannot work; nothing was changed.
    #[error("{0}")]
    BadInput(String),
    /// Ranks cannot exchange tensors.
    #[error(transparent)]
    Comm(#[from] tessera_comm::CommError),
    /// The data set cannot be read.
    #[error(transparent)]
    Data(#[from] tessera_data::DataError),
    /// Ranks no longer agree.
    #[error("{0}")]
    Mismatch(String),
    /// A loss or gradient is not finite.
    #[error(
        "the {what} of step {step} is {value}{of}: lower optimizer.learning_rate or set optimizer.clip_grad_norm, then resume from the last checkpoint"
    )]
    NotFinite {
        /// Which number.
        what: &'static str,
        /// Step, from 1.
        step: u64,
        /// What it was.
        value: f64,
        /// Where it was seen first, in parentheses; empty where that is not known.
        of: String,
    },
    /// A file of the run folder cannot be read or written.
    #[error("cannot {action} {}: {source}{}", path.display(), hint(source))]
    File {
        /// What was tried, such as "write".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// Another rank failed; it tells why itself.
    #[error("rank {rank}: {message}")]
    Peer {
        /// The rank.
        rank: usize,
        /// Its exit code, and so this rank's.
        code: ExitCode,
        /// Its words.
        message: String,
    },
    /// The storage of the run folder does not answer.
    #[error("{0}")]
    Storage(String),
    /// libtorch refused an operation.
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
}

/// What is tried where a folder is made.
pub(crate) const MAKE_FOLDER: &str = "make the folder";

/// What a person can do about an error of the system, where that is known.
fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            ": free some space or choose another --run-dir"
        }
        io::ErrorKind::PermissionDenied
        | io::ErrorKind::ReadOnlyFilesystem
        | io::ErrorKind::NotADirectory
        | io::ErrorKind::IsADirectory
        | io::ErrorKind::AlreadyExists
        | io::ErrorKind::InvalidFilename => ": choose a --run-dir that can be written",
        _ => "",
    }
}

impl TrainError {
    /// A file error, for `map_err`.
    pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { action, path, source }
    }

    /// The exit code of a process that ends with this error.
    pub fn code(&self) -> ExitCode {
        use tessera_comm::{CommError, NcclError};
        use tessera_data::DataErrorKind;
        match self {
            Self::BadInput(_) => ExitCode::BadInput,
            Self::Comm(error) => match error {
                CommError::World { .. }
                | CommError::Variable { .. }
                | CommError::Starters { .. }
                | CommError::Starter { .. }
                | CommError::UntriedMpi { .. }
                | CommError::NoGpu { .. }
                | CommError::SharedGpu { .. }
                | CommError::PeerDevice { .. }
                | CommError::MixedDevices { .. }
                | CommError::NcclOnCpu => ExitCode::BadInput,
                CommError::Mismatch { .. }
                | CommError::Deadline { .. }
                | CommError::DeviceDeadline { .. } => ExitCode::Hang,
                CommError::PeerLeft { .. } | CommError::Mpi { .. } => ExitCode::WorkerLost,
                CommError::Nccl { error, .. } => match error {
                    NcclError::NotFound { .. }
                    | NcclError::TwoCopies { .. }
                    | NcclError::TooOld { .. }
                    | NcclError::MissingSymbol { .. } => ExitCode::BadInput,
                    NcclError::Deadline { .. } | NcclError::Stuck { .. } => ExitCode::Hang,
                    _ => ExitCode::WorkerLost,
                },
                _ => ExitCode::Failed,
            },
            Self::Data(error) => match error.kind() {
                DataErrorKind::BadInput => ExitCode::BadInput,
                DataErrorKind::Corrupt => ExitCode::DataCorrupt,
                DataErrorKind::Io => ExitCode::Failed,
            },
            Self::Mismatch(_) => ExitCode::Hang,
            Self::NotFinite { .. } => ExitCode::Numeric,
            Self::File { action, source, .. } => match source.kind() {
                io::ErrorKind::StorageFull
                | io::ErrorKind::QuotaExceeded
                | io::ErrorKind::PermissionDenied
                | io::ErrorKind::ReadOnlyFilesystem
                | io::ErrorKind::NotADirectory
                | io::ErrorKind::IsADirectory
                | io::ErrorKind::InvalidFilename
                | io::ErrorKind::NotFound => ExitCode::BadInput,
                // Something else has the name of a folder that is to be made.
                io::ErrorKind::AlreadyExists if *action == MAKE_FOLDER => ExitCode::BadInput,
                _ => ExitCode::Failed,
            },
            Self::Peer { code, .. } => *code,
            Self::Storage(_) | Self::Torch(_) => ExitCode::Failed,
        }
    }
}

impl From<CheckpointError> for TrainError {
    /// A checkpoint that cannot be used is bad input; storage that fails stays what it is.
    fn from(error: CheckpointError) -> Self {
        match error {
            CheckpointError::File { action, path, source } => Self::File { action, path, source },
            other => Self::BadInput(other.to_string()),
        }
    }
}
