//! Why a run did not end well, and with which exit code.

use std::io;
use std::path::{Path, PathBuf};

use tessera_checkpoint::{CheckpointError, CheckpointErrorKind};
use tessera_control::{ExitCode, LockError, Lost};
use tessera_model::{ModelError, ModelErrorKind};

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
    /// Another run has the run folder now.
    #[error("{0}: nothing more is written; start it again to go on from the newest checkpoint")]
    Lost(String),
    /// There are checkpoints, and none of them is what was written.
    #[error("{0}")]
    AllDamaged(String),
    /// A checkpoint cannot be used.
    #[error(transparent)]
    Checkpoint(CheckpointError),
    /// A trained model cannot be opened or written.
    #[error(transparent)]
    Model(ModelError),
    /// What a model was applied to failed.
    #[error("{message}")]
    Applied {
        /// Exit code of the process.
        code: ExitCode,
        /// What to tell.
        message: String,
    },
    /// The storage of the run folder does not answer.
    #[error("{0}")]
    Storage(String),
    /// Whatever ended a run that had begun: nothing that a person must change first, so it may be started again.
    #[error(transparent)]
    Begun(Box<TrainError>),
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

    /// The same of a run that has done steps: what was no bad input at its start is none now.
    #[must_use]
    pub fn once_begun(self) -> Self {
        match self {
            Self::Begun(_) => self,
            error => Self::Begun(Box::new(error)),
        }
    }

    /// Whether another rank failed, and tells why itself.
    pub fn is_of_peer(&self) -> bool {
        match self {
            Self::Begun(error) => error.is_of_peer(),
            error => matches!(error, Self::Peer { .. }),
        }
    }

    /// Whether it is a wait over NCCL that took too long.
    pub fn is_hang_over_nccl(&self) -> bool {
        match self {
            Self::Begun(error) => error.is_hang_over_nccl(),
            error => matches!(error, Self::Comm(error) if error.is_hang_over_nccl()),
        }
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
                    | NcclError::TooNew { .. }
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
            Self::Peer { code, .. } | Self::Applied { code, .. } => *code,
            Self::Checkpoint(error) => match error.kind() {
                CheckpointErrorKind::Unreadable => ExitCode::Failed,
                _ => ExitCode::BadInput,
            },
            Self::AllDamaged(_) => ExitCode::DataCorrupt,
            Self::Model(error) => match error.kind() {
                ModelErrorKind::BadInput => ExitCode::BadInput,
                ModelErrorKind::Damaged => ExitCode::DataCorrupt,
                ModelErrorKind::Failed => ExitCode::Failed,
            },
            Self::Begun(error) => match error.code() {
                ExitCode::BadInput => ExitCode::Failed,
                code => code,
            },
            Self::Lost(_) | Self::Storage(_) | Self::Torch(_) => ExitCode::Failed,
        }
    }
}

impl From<CheckpointError> for TrainError {
    fn from(error: CheckpointError) -> Self {
        match error {
            CheckpointError::File { action, path, source } => Self::File { action, path, source },
            CheckpointError::Lost(lost) => Self::Lost(lost),
            other => Self::Checkpoint(other),
        }
    }
}

impl From<ModelError> for TrainError {
    /// What is wrong with a checkpoint, or with data, is told as it is everywhere.
    fn from(error: ModelError) -> Self {
        match error {
            ModelError::Checkpoint(error) => error.into(),
            ModelError::Data(error) => error.into(),
            other => Self::Model(other),
        }
    }
}

impl From<Lost> for TrainError {
    fn from(lost: Lost) -> Self {
        Self::Lost(lost.to_string())
    }
}

impl From<LockError> for TrainError {
    /// A folder that another run has is for a person to decide.
    fn from(error: LockError) -> Self {
        match error {
            LockError::File { path, source } => Self::File { action: "lock", path, source },
            held => Self::BadInput(held.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_bad_input_before_a_run_has_begun_and_never_after() {
        let full = || {
            let path = Path::new("runs/a/metrics.jsonl");
            TrainError::file("write", path)(io::ErrorKind::StorageFull.into())
        };
        assert_eq!(full().code(), ExitCode::BadInput);
        let begun = full().once_begun().once_begun();
        assert_eq!((begun.code(), begun.to_string()), (ExitCode::Failed, full().to_string()));
        // A peer says the same of itself.
        let peer = TrainError::Peer { rank: 1, code: ExitCode::BadInput, message: String::new() };
        let peer = peer.once_begun();
        assert!(peer.is_of_peer() && peer.code() == ExitCode::Failed);
        let hang = TrainError::Mismatch(String::new()).once_begun();
        assert_eq!(hang.code(), ExitCode::Hang, "other codes stay");
        let waited = std::time::Duration::from_secs(8);
        let device = tessera_comm::CommError::DeviceDeadline { waited };
        let waits = TrainError::from(device).once_begun();
        assert!(waits.is_hang_over_nccl() && !hang.is_hang_over_nccl());
    }
}
