//! Why a checkpoint cannot be written or believed.

use std::io;
use std::path::{Path, PathBuf};

/// Why a checkpoint cannot be written or believed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// Bytes are not those that were written, or files are missing.
    #[error("{} is no good checkpoint: {problem}", .folder.display())]
    Damaged {
        /// The checkpoint.
        folder: PathBuf,
        /// What is wrong, beginning with the file.
        problem: String,
    },
    /// What is there is not a checkpoint, or not one that this program reads.
    #[error("{} {problem}", .path.display())]
    NotOne {
        /// What was asked for.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// The system refused a file operation.
    #[error("cannot {action} {}: {source}", .path.display())]
    File {
        /// What was tried, such as "write".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
}

/// What an error means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckpointErrorKind {
    /// Another checkpoint has to serve.
    Damaged,
    /// Another path has to be given.
    NotOne,
    /// The storage fails.
    File,
}

impl CheckpointError {
    /// What the error means.
    pub fn kind(&self) -> CheckpointErrorKind {
        match self {
            Self::Damaged { .. } => CheckpointErrorKind::Damaged,
            Self::NotOne { .. } => CheckpointErrorKind::NotOne,
            Self::File { .. } => CheckpointErrorKind::File,
        }
    }

    /// A file error, for `map_err`.
    pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { action, path, source }
    }

    /// Damage to a file of a checkpoint.
    pub(crate) fn damaged(folder: &Path, file: &str, problem: impl std::fmt::Display) -> Self {
        Self::Damaged { folder: folder.to_owned(), problem: format!("{file}: {problem}") }
    }
}
