//! Why rows could not be sent.

use std::io;
use std::path::{Path, PathBuf};

use tessera_control::ExitCode;

/// Why tracking has stopped, or has to wait.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrackError {
    /// The folder holds no run.
    #[error("{} is no run folder: name one, as in `tessera track runs/demo --to wandb`", .path.display())]
    NoRun {
        /// The folder.
        path: PathBuf,
    },
    /// A file could not be read or written.
    #[error("cannot {action} {}: {source}", .path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// A second process at the same cursor would send rows twice.
    #[error("another `tessera track` is at work with {}: wait for it, or stop it", .path.display())]
    Held {
        /// The cursor's lock.
        path: PathBuf,
    },
    /// The tracker will not take it, however often it is tried.
    #[error("{0}")]
    Refused(String),
    /// The tracker does not answer now.
    #[error("{0}")]
    Away(String),
    /// Somebody has asked for the end.
    #[error("stopped; the same command goes on where this one was")]
    Stopped,
}

impl TrackError {
    /// What `map_err` takes for a file that could not be read or written.
    pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { action, path, source }
    }

    /// Whether the same may succeed later, without anybody changing anything.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Away(_) | Self::File { .. })
    }

    /// The exit code of a command that ends for it.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Away(_) => ExitCode::Failed,
            Self::Stopped => ExitCode::Stopped,
            Self::NoRun { .. } | Self::File { .. } | Self::Held { .. } | Self::Refused(_) => {
                ExitCode::BadInput
            }
        }
    }
}
