//! What can go wrong with a sweep.

use std::path::PathBuf;

use tessera_control::ExitCode;
use tessera_launch::LaunchError;

/// Why a sweep cannot begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// A sweep file, or what was said on the command line, cannot be understood.
    #[error("{place}: {problem}")]
    Spec {
        /// Where it stands.
        place: String,
        /// What is wrong, in one line.
        problem: String,
    },
    /// What is to be varied makes no sense.
    #[error("the space of the sweep: {0}")]
    Space(String),
    /// The folder holds a sweep already, or none, or another one.
    #[error("{folder}: {problem}")]
    Folder {
        /// The sweep's folder.
        folder: PathBuf,
        /// What is wrong, in one line.
        problem: String,
    },
    /// The first trial's configuration is refused; the worker has said why.
    #[error("the configuration of a trial is refused")]
    Refused {
        /// The worker's exit code.
        code: ExitCode,
    },
    /// A figure is none of those of an evaluation.
    #[error("{key}: an evaluation has no figure {name:?}: there are {known}")]
    Metric {
        /// The key that names it.
        key: &'static str,
        /// The name.
        name: String,
        /// Those that there are.
        known: String,
    },
    /// The file of the sweep's state.
    #[error("the state of the sweep: {0}")]
    Store(#[from] rusqlite::Error),
    /// A file of the sweep.
    #[error("cannot {what} {path}: {source}")]
    File {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the file system answers.
        source: std::io::Error,
    },
    /// A launcher cannot be started.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// A picture cannot be drawn.
    #[error("cannot draw {path}: {problem}")]
    Picture {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

impl SweepError {
    /// The command's exit code.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Spec { .. } | Self::Space(_) | Self::Folder { .. } | Self::Metric { .. } => {
                ExitCode::BadInput
            }
            Self::Refused { code } => *code,
            Self::Launch(error) => error.exit_code(),
            // A folder that cannot be made is the user's choice of a place.
            Self::File { what: "make", .. } => ExitCode::BadInput,
            Self::Store(_) | Self::File { .. } | Self::Picture { .. } => ExitCode::Failed,
        }
    }

    /// Turns a file system's answer into an error.
    pub(crate) fn file(
        what: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { what, path, source }
    }
}
