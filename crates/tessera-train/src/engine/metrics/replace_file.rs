//! Replacing a file as a whole, so that no reader ever sees half of it.
//!
//! For the small files of a run folder. Checkpoints have their own commit protocol.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// Writes `bytes` to a temporary sibling of `path`, syncs it and renames it to `path`.
///
/// # Errors
///
/// Those of the file system. The temporary file is removed, `path` is as it was.
pub(crate) fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // Not named after `path`: a reader that goes by the name would take what a killed process
    // left behind for the file itself.
    static NUM_REPLACED: AtomicU64 = AtomicU64::new(0);
    let count = NUM_REPLACED.fetch_add(1, Ordering::Relaxed);
    let temporary = path.with_file_name(format!(".replacing-{}-{count}.tmp", std::process::id()));
    let written = write_synced(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // The first error is the one to report; the file may not even exist.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Writes a new file and syncs it.
pub(crate) fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_replacement_leaves_no_file_and_the_target_as_it_was() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let target = dir.path().join("a");
        fs::create_dir(&target).expect("a folder cannot be replaced by a file");
        replace_file(&target, b"x").expect_err("rename onto a folder");
        let names: Vec<_> = fs::read_dir(dir.path()).expect("folder").collect();
        assert_eq!(names.len(), 1, "{names:?}");
        assert!(target.is_dir());
    }

    #[test]
    fn a_replaced_file_holds_exactly_the_new_bytes() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let target = dir.path().join("a");
        replace_file(&target, b"longer than the second").expect("new file");
        replace_file(&target, b"second").expect("existing file");
        assert_eq!(fs::read(&target).expect("readable"), b"second");
    }
}
