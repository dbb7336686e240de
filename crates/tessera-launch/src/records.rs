//! Where the workers of this host keep what they are doing, so that it is known after they were
//! killed: a few hundred bytes each, in memory.

use std::fs;
use std::path::{Path, PathBuf};

/// A file system in memory.
const IN_MEMORY: &str = "/dev/shm";

/// The folder; removed with everything in it when dropped.
#[derive(Debug)]
pub(crate) struct Records(pub(crate) PathBuf);

impl Records {
    /// A folder of its own, and away with those of launchers that were killed. Where it cannot be
    /// made, workers find none and keep no records.
    pub(crate) fn make(token: &str) -> Self {
        let in_memory = Path::new(IN_MEMORY);
        let above = if in_memory.is_dir() { in_memory.to_owned() } else { std::env::temp_dir() };
        for entry in fs::read_dir(&above).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let pid = name.to_str().and_then(|name| name.strip_prefix("tessera-")?.split_once('-'));
            if pid.is_some_and(|(pid, _)| !Path::new("/proc").join(pid).exists()) {
                let _ = fs::remove_dir_all(entry.path()); // another user's stays
            }
        }
        let folder = above.join(format!("tessera-{}-{}", std::process::id(), &token[..16]));
        if let Err(error) = fs::create_dir(&folder) {
            tracing::debug!(%error, "workers keep no records");
        }
        Self(folder)
    }
}

impl Drop for Records {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
