//! Why a checkpoint cannot be written or believed.

use std::io;
use std::path::{Path, PathBuf};

use crate::version::{OLDEST, VERSION};

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
    /// It cannot be read now, and nothing is known of what it holds.
    #[error("{} cannot be read now: {source}", .path.display())]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// What the system answered, also after it was asked again.
        source: io::Error,
    },
    /// It is whole, and of another version of the format.
    #[error(
        "{} has format version {found}, this program reads {OLDEST} to {VERSION}: use Tessera {tessera}, which \
         wrote it, or a newer one",
        .folder.display()
    )]
    OtherVersion {
        /// The checkpoint.
        folder: PathBuf,
        /// Its version.
        found: u32,
        /// Version of the Tessera that wrote it.
        tessera: String,
    },
    /// The run that saves has no right to the folder any more.
    #[error("{0}")]
    Lost(String),
    /// What is there is not a checkpoint.
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
    /// The storage has to answer first; the same may be tried again.
    Unreadable,
    /// Another program has to read it.
    OtherVersion,
    /// Somebody else has the folder.
    Lost,
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
            Self::Unreadable { .. } => CheckpointErrorKind::Unreadable,
            Self::OtherVersion { .. } => CheckpointErrorKind::OtherVersion,
            Self::Lost(_) => CheckpointErrorKind::Lost,
            Self::NotOne { .. } => CheckpointErrorKind::NotOne,
            Self::File { .. } => CheckpointErrorKind::File,
        }
    }

    /// A file error, for `map_err`.
    pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { action, path, source }
    }

    /// What a failed reading of a file of a checkpoint means: that it is not there or too short is damage, and
    /// anything else that the storage does not answer now.
    pub(crate) fn reading(folder: &Path, file: &str, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::NotFound
            | io::ErrorKind::UnexpectedEof
            | io::ErrorKind::InvalidData
            | io::ErrorKind::IsADirectory
            | io::ErrorKind::NotADirectory => Self::damaged(folder, file, source),
            _ => Self::Unreadable { path: folder.join(file), source },
        }
    }

    /// Damage to a file of a checkpoint.
    pub(crate) fn damaged(folder: &Path, file: &str, problem: impl std::fmt::Display) -> Self {
        Self::Damaged { folder: folder.to_owned(), problem: format!("{file}: {problem}") }
    }
}
