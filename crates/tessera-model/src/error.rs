//! Why a model cannot be opened or written.

use std::io;
use std::path::{Path, PathBuf};

use tessera_checkpoint::{CheckpointError, CheckpointErrorKind};
use tessera_data::{DataError, DataErrorKind};

use crate::file::VERSION;

/// Why a model cannot be opened or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A model folder whose bytes are not those that were written.
    #[error(
        "{} is no good model folder: {problem}: copy it again, or write it anew with `tessera export`",
        .folder.display()
    )]
    Damaged {
        /// The folder.
        folder: PathBuf,
        /// What is wrong, beginning with the file.
        problem: String,
    },
    /// A model folder of another version of the format.
    #[error(
        "{} has version {found} of the format, this program reads {VERSION}: use Tessera {tessera}, which wrote it, \
         or a newer one",
        .folder.display()
    )]
    OtherVersion {
        /// The folder.
        folder: PathBuf,
        /// Its version.
        found: u32,
        /// Version of the Tessera that wrote it.
        tessera: String,
    },
    /// What is there is not what was asked for.
    #[error("{} {problem}", .path.display())]
    NotOne {
        /// What was asked for.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A file cannot be read now.
    #[error("{} cannot be read: {source}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// The run's checkpoint cannot be used, or files cannot be written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The data that the model was trained on, which say what its samples are, cannot be opened.
    #[error(transparent)]
    Data(#[from] DataError),
}

/// What an error means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelErrorKind {
    /// Another path or option has to be given.
    BadInput,
    /// Bytes are not those that were written.
    Damaged,
    /// The storage fails.
    Failed,
}

impl ModelError {
    /// What the error means.
    pub fn kind(&self) -> ModelErrorKind {
        match self {
            Self::Damaged { .. } => ModelErrorKind::Damaged,
            Self::OtherVersion { .. } | Self::NotOne { .. } => ModelErrorKind::BadInput,
            Self::Unreadable { .. } => ModelErrorKind::Failed,
            Self::Checkpoint(error) => match error.kind() {
                // Another checkpoint has to be named.
                CheckpointErrorKind::Damaged
                | CheckpointErrorKind::NotOne
                | CheckpointErrorKind::OtherVersion => ModelErrorKind::BadInput,
                CheckpointErrorKind::File
                | CheckpointErrorKind::Unreadable
                | CheckpointErrorKind::Lost => ModelErrorKind::Failed,
            },
            Self::Data(error) => match error.kind() {
                DataErrorKind::BadInput => ModelErrorKind::BadInput,
                DataErrorKind::Corrupt => ModelErrorKind::Damaged,
                DataErrorKind::Io => ModelErrorKind::Failed,
            },
        }
    }

    pub(crate) fn damaged(folder: &Path, file: &str, problem: impl std::fmt::Display) -> Self {
        Self::Damaged { folder: folder.to_owned(), problem: format!("{file}: {problem}") }
    }

    pub(crate) fn not_one(path: &Path, problem: impl Into<String>) -> Self {
        Self::NotOne { path: path.to_owned(), problem: problem.into() }
    }
}
