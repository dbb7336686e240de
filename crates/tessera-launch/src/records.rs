//! Where the workers of this host keep what they are doing, so that it is known after they were
//! killed: a few hundred bytes each, in memory.
//!
//! Whose a folder is, a lock says that its launcher holds: ids of processes mean nothing in another container that
//! shares the memory.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use tessera_control::Attempt;

/// A file system in memory.
const IN_MEMORY: &str = "/dev/shm";
/// What a launcher keeps locked in its folder.
const LOCK: &str = "lock";

/// The folder; removed with everything in it when dropped.
#[derive(Debug)]
pub(crate) struct Records {
    /// Where it is.
    pub(crate) folder: PathBuf,
    /// Held as long as the launcher lives.
    _lock: Option<File>,
}

impl Records {
    /// A folder for this attempt, and away with those whose launchers have ended. Where it cannot be
    /// made, workers find none and keep no records.
    pub(crate) fn make(attempt: &Attempt) -> Self {
        let in_memory = Path::new(IN_MEMORY);
        let above = if in_memory.is_dir() { in_memory.to_owned() } else { std::env::temp_dir() };
        Self::make_in(&above, attempt)
    }

    fn make_in(above: &Path, attempt: &Attempt) -> Self {
        for entry in fs::read_dir(above).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let is_ours = name.to_str().is_some_and(|name| name.starts_with("tessera-"));
            if is_ours && is_left_behind(&entry.path()) {
                let _ = fs::remove_dir_all(entry.path()); // another user's stays
            }
        }
        let folder = above.join(format!("tessera-{}-{attempt}", std::process::id()));
        let lock = make_locked(&folder)
            .inspect_err(|error| tracing::debug!(%error, "workers keep no records"))
            .ok();
        Self { folder, _lock: lock }
    }
}

/// Makes a folder with its lock, which is held before anybody can see it.
fn make_locked(folder: &Path) -> io::Result<File> {
    let hidden = folder.with_extension("new");
    fs::create_dir(&hidden)?;
    let made = || {
        let lock = File::create_new(hidden.join(LOCK))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        fs::rename(&hidden, folder)?;
        Ok(lock)
    };
    made().inspect_err(|_| drop(fs::remove_dir_all(&hidden)))
}

/// Whether the launcher of a folder has ended: nobody holds its lock. One without a lock is not known.
fn is_left_behind(folder: &Path) -> bool {
    let Ok(lock) = File::open(folder.join(LOCK)) else { return false };
    let is_free = flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok();
    // Without a suffix it was locked before it got its name.
    is_free && folder.extension().is_none()
}

impl Drop for Records {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_neighbours_folder_stays_as_long_as_its_launcher_holds_the_lock() {
        let above = tempfile::tempdir().unwrap();
        let attempt = |number| "9f3a07c2b1d4-0".parse::<Attempt>().unwrap().restarted(number);
        let make = |number| Records::make_in(above.path(), &attempt(number));
        let neighbour = make(0);
        fs::write(neighbour.folder.join("rank-0"), "{}").unwrap();
        // As left by a launcher that was killed, and by something else of this name.
        let left = make(1);
        let killed = left.folder.clone();
        std::mem::forget(left);
        let unknown = above.path().join("tessera-unknown");
        fs::create_dir(&unknown).unwrap();
        flock(File::open(killed.join(LOCK)).unwrap(), FlockOperation::NonBlockingLockExclusive)
            .unwrap_err();
        fs::remove_file(killed.join(LOCK)).unwrap();
        File::create(killed.join(LOCK)).unwrap(); // nobody holds this one
        let own = make(2);
        assert!(own.folder.join(LOCK).is_file());
        assert!(neighbour.folder.join("rank-0").is_file() && unknown.is_dir());
        assert!(!killed.exists());
        drop(neighbour);
        assert_eq!(fs::read_dir(above.path()).unwrap().count(), 2, "its own and the unknown one");
    }
}
