//! How many files this process may have open: one a worker, and a usual limit is 1,024.

use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The soft limit that the launcher was started with.
static BEFORE: OnceLock<Option<u64>> = OnceLock::new();

/// Raises the soft limit to the hard one. Programs that are started get the old one back
/// ([`before`]): some count up to it, or keep a table of so many.
pub(crate) fn raise() {
    let limit = getrlimit(Resource::Nofile);
    BEFORE.get_or_init(|| limit.current);
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })
    {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

/// The limit before it was raised, where it was.
pub(crate) fn before() -> Option<u64> {
    BEFORE.get().copied().flatten().filter(|before| limit() != Some(*before))
}

/// How many files may be open; `None`: any number.
pub(crate) fn limit() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// Sets the soft limit of this process.
pub(crate) fn lower(files: u64) -> std::io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: Some(files), ..limit })?)
}
