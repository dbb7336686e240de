//! Why a call to NCCL did not do what it should.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::Version;

/// A library that was looked for and could not be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attempt {
    /// The name or path that was given to the loader.
    pub name: String,
    /// What the loader said.
    pub reason: String,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.reason)
    }
}

/// Why a call to NCCL did not do what it should.
///
/// After any error but [`Error::Unsupported`] and [`Error::Invalid`] the communicator is unusable:
/// every later call gives the first error again. Abort it, and end the process.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No library could be opened.
    #[error(
        "NCCL was not found; tried {}; install NCCL 2.14.3 or newer (PyPI: nvidia-nccl-cu13), \
         or set NCCL_RS_LIBRARY to the full path of libnccl.so.2",
        list(tried)
    )]
    NotFound {
        /// What was tried, in order.
        tried: Vec<Attempt>,
    },
    /// The process has another NCCL already; two would not know of each other's kernels.
    #[error(
        "this process has loaded NCCL from {}, so {} cannot be used: unset NCCL_RS_LIBRARY, or put \
         the folder of the wanted library first in LD_LIBRARY_PATH before the process starts",
        loaded.display(),
        asked.display()
    )]
    TwoCopies {
        /// The copy that is there.
        loaded: PathBuf,
        /// The copy that was asked for.
        asked: PathBuf,
    },
    /// The library is older than this crate works with.
    #[error("{} is NCCL {found}; {needed} or newer is needed", path.display())]
    TooOld {
        /// Where it lies.
        path: PathBuf,
        /// Its version.
        found: Version,
        /// The oldest that would do.
        needed: Version,
    },
    /// The library is of a generation whose interface this crate does not know.
    #[error("{} is NCCL {found}, of which this nccl-rs knows nothing: it works with NCCL 2", path.display())]
    TooNew {
        /// Where it lies.
        path: PathBuf,
        /// Its version.
        found: Version,
    },
    /// A function that every supported version has is not in the library.
    #[error("{} has no function {symbol}: is it NCCL?", path.display())]
    MissingSymbol {
        /// The function.
        symbol: &'static str,
        /// Where the library lies.
        path: PathBuf,
    },
    /// The library is too old for this one function.
    #[error("{symbol} needs NCCL {since} or newer, found {found}")]
    Unsupported {
        /// The function.
        symbol: &'static str,
        /// The first version with it.
        since: Version,
        /// The version at hand.
        found: Version,
    },
    /// An argument that NCCL need not be asked about.
    #[error("{op}: {problem}")]
    Invalid {
        /// The function.
        op: &'static str,
        /// What is wrong with the argument.
        problem: String,
    },
    /// The caller's own set-up of the communication thread failed.
    #[error("the communication thread could not be set up: {0}")]
    SetUp(String),
    /// A job of the caller's panicked on the communication thread, which goes on.
    #[error("{op} panicked on the communication thread")]
    Panicked {
        /// The job.
        op: &'static str,
    },
    /// NCCL refused or failed.
    #[error("{op} failed with NCCL code {code}, {text}{}", detail(last_error))]
    Nccl {
        /// The function; `ncclCommGetAsyncError` when it was noticed between two calls.
        op: &'static str,
        /// Its `ncclResult_t`.
        code: i32,
        /// NCCL's text for the code.
        text: String,
        /// NCCL's last error message, possibly of another call; empty where it has none.
        last_error: String,
    },
    /// NCCL still called it in progress when the deadline had passed: a peer is late or lost.
    #[error("{op} was still in progress after {waited:?}")]
    Deadline {
        /// The function.
        op: &'static str,
        /// The deadline.
        waited: Duration,
    },
    /// A call did not return, so the communication thread is lost and nothing can be aborted.
    #[error("{op} has not returned from NCCL for {waited:?}; the process has to end")]
    Stuck {
        /// The function that the thread is in.
        op: &'static str,
        /// How long the caller waited.
        waited: Duration,
    },
    /// The communicator was aborted, or revoked, while the operation was under way.
    #[error("{op}: the communicator was aborted")]
    Aborted {
        /// The function.
        op: &'static str,
    },
}

fn list(tried: &[Attempt]) -> String {
    tried.iter().map(Attempt::to_string).collect::<Vec<_>>().join(", ")
}

fn detail(last_error: &str) -> String {
    if last_error.is_empty() { String::new() } else { format!(": {last_error}") }
}
