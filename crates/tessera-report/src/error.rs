//! Why a report is not written.

use std::io;
use std::path::{Path, PathBuf};

/// Why a report is not written: one line that says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// Nothing was named.
    #[error("no run is named: name run folders, or the folder of a sweep")]
    Nothing,
    /// A path is neither a run folder nor a sweep's.
    #[error(
        "{}: no run is there: name a folder that holds config.toml or metrics.jsonl, or sweep.db of a sweep",
        path.display()
    )]
    NoRun {
        /// The path.
        path: PathBuf,
    },
    /// The page is there already.
    #[error("{} is there already: give --force to replace it, or another --out", path.display())]
    Exists {
        /// The page.
        path: PathBuf,
    },
    /// A file cannot be read or written.
    #[error("cannot {act} {}: {source}", path.display())]
    File {
        /// What was tried: `read` or `write`.
        act: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file holds something else than it should.
    #[error("{}{}: {problem}", path.display(), line.map_or(String::new(), |line| format!(":{line}")))]
    Content {
        /// The file.
        path: PathBuf,
        /// The line, from 1, where it is known.
        line: Option<usize>,
        /// What was expected and what came.
        problem: String,
    },
    /// A sweep's state cannot be read.
    #[error(transparent)]
    Sweep(#[from] tessera_sweep::SweepError),
    /// Not even a page without pictures is small enough.
    #[error(
        "without pictures and tables the page still has {bytes} bytes, more than {most}: give fewer runs or a larger --most-mb"
    )]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The size that was allowed.
        most: u64,
    },
}

impl ReportError {
    /// For `map_err`: the file at `path` could not be read.
    pub(crate) fn read(path: &Path) -> impl FnOnce(io::Error) -> Self + use<'_> {
        move |source| Self::File { act: "read", path: path.to_owned(), source }
    }

    /// For `map_err`: the JSON file at `path` is not what it should be.
    pub(crate) fn json(path: &Path) -> impl FnOnce(serde_json::Error) -> Self + use<'_> {
        move |error| {
            let line = Some(error.line()).filter(|line| *line > 0);
            Self::Content { path: path.to_owned(), line, problem: error.to_string() }
        }
    }

    /// The file at `path` is not what it should be.
    pub(crate) fn content(path: &Path, problem: impl Into<String>) -> Self {
        Self::Content { path: path.to_owned(), line: None, problem: problem.into() }
    }
}
