//! Why a model could not be applied, and with which exit code.

use std::io;
use std::path::{Path, PathBuf};

use tessera_control::ExitCode;
use tessera_data::{DataError, DataErrorKind};
use tessera_model::{ModelError, ModelErrorKind};

/// Why a model could not be applied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// A path or an option that cannot work; nothing was changed.
    #[error("{0}")]
    BadInput(String),
    /// The model cannot be opened.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Samples or tokens cannot be read or written.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Ranks cannot exchange tensors.
    #[error(transparent)]
    Comm(#[from] tessera_comm::CommError),
    /// The model makes no numbers of a sample.
    #[error(
        "the model's latents of sample {sample} are not finite: its training has gone astray, take an earlier checkpoint"
    )]
    NotFinite {
        /// Number of the first sample of the tile where it was seen.
        sample: u64,
    },
    /// A file cannot be read or written.
    #[error("cannot {action} {}: {source}", .path.display())]
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
    /// Something beside the model cannot be opened.
    #[error("{message}")]
    Opened {
        /// Exit code of the process.
        code: ExitCode,
        /// What is wrong.
        message: String,
    },
    /// libtorch refused an operation.
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
}

impl ApplyError {
    /// A file error, for `map_err`.
    pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { action, path, source }
    }

    /// The exit code of a process that ends with this error. Those of communication are for whoever knows its ways.
    pub fn code(&self) -> ExitCode {
        match self {
            Self::BadInput(_) => ExitCode::BadInput,
            Self::Model(error) => match error.kind() {
                ModelErrorKind::BadInput => ExitCode::BadInput,
                ModelErrorKind::Damaged => ExitCode::DataCorrupt,
                ModelErrorKind::Failed => ExitCode::Failed,
            },
            Self::Data(error) => match error.kind() {
                DataErrorKind::BadInput => ExitCode::BadInput,
                DataErrorKind::Corrupt => ExitCode::DataCorrupt,
                DataErrorKind::Io => ExitCode::Failed,
            },
            Self::NotFinite { .. } => ExitCode::Numeric,
            Self::Peer { code, .. } | Self::Opened { code, .. } => *code,
            Self::Comm(_) | Self::File { .. } | Self::Torch(_) => ExitCode::Failed,
        }
    }
}
