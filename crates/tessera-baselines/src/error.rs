//! What can go wrong with a comparison.

use std::path::{Path, PathBuf};

/// Why a baseline cannot be measured, or a report not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BaselineError {
    /// An item is not what its sizes say, or items of one comparison differ.
    #[error("{what}: expected {expected}, got {found}")]
    Item {
        /// What was looked at.
        what: &'static str,
        /// What it has to be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A setting is none of the codec's.
    #[error("{codec} has no setting {setting:?}: give one of {known}")]
    Setting {
        /// The codec.
        codec: &'static str,
        /// What was asked for.
        setting: String,
        /// Those that there are.
        known: String,
    },
    /// A program that codes or decodes did not do so.
    #[error("{program}: {problem}")]
    Tool {
        /// The program.
        program: &'static str,
        /// The last line that it said, or what became of it.
        problem: String,
    },
    /// A coded file is not of its format.
    #[error("a file is no whole {format}: {problem}")]
    Format {
        /// The format.
        format: &'static str,
        /// What is wrong, in one line.
        problem: String,
    },
    /// A file or folder.
    #[error("cannot {what} {path}: {source}")]
    File {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A curve does not belong to a report, or a file of numbers is none of ours.
    #[error("{place}: {problem}")]
    Report {
        /// The curve or the line.
        place: String,
        /// What is wrong, in one line.
        problem: String,
    },
}

impl BaselineError {
    /// For `map_err`: this could not be done with that file.
    pub(crate) fn file(
        what: &'static str,
        path: &Path,
    ) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::File { what, path, source }
    }

    /// A coded file ends too early, or says what cannot be.
    pub(crate) fn format(format: &'static str, problem: impl Into<String>) -> Self {
        Self::Format { format, problem: problem.into() }
    }
}
