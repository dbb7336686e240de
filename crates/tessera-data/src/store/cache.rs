//! Pages of remote files on the local disk.
//!
//! A page is one file, written under a temporary name and renamed, so it is whole or absent, and
//! any number of processes can share the folder. When the limit is passed, what was fetched first
//! is removed first. A disk that is full costs speed and nothing else: the page is used from
//! memory and not kept.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use crate::file;

/// A folder of pages.
#[derive(Debug)]
pub(super) struct Cache {
    folder: PathBuf,
    limit: u64,
    /// Bytes in the folder when they were last counted, and what this process added since.
    bytes: Mutex<u64>,
    serial: AtomicU64,
}

impl Cache {
    pub(super) fn new(folder: PathBuf, limit: u64) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        let cache = Self { folder, limit, bytes: Mutex::new(0), serial: AtomicU64::new(0) };
        *cache.bytes.lock().expect("nothing panics while it is held") = cache.count()?;
        Ok(cache)
    }

    /// Fills `out` from a page, if the cache has it whole: of `page_bytes`.
    pub(super) fn read(&self, page: &str, page_bytes: u64, out: &mut [u8], at: u64) -> bool {
        let Ok(file) = File::open(self.folder.join(page)) else { return false };
        let whole = file.metadata().is_ok_and(|metadata| metadata.len() == page_bytes);
        whole && file.read_exact_at(out, at).is_ok()
    }

    /// Keeps a page, if there is room for it.
    pub(super) fn keep(&self, page: &str, bytes: &[u8]) {
        let mut kept = self.write(page, bytes);
        if kept.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::StorageFull) {
            // Other files may fill the disk: half of ours has to do.
            self.evict(self.limit.min(self.count().unwrap_or(0)) / 2);
            kept = self.write(page, bytes);
        }
        if let Err(error) = kept {
            tracing::warn!(cache = %self.folder.display(), %error, "page not kept");
            return;
        }
        let mut held = self.bytes.lock().expect("nothing panics while it is held");
        *held += bytes.len() as u64;
        if *held > self.limit {
            *held = self.evict(self.limit / 10 * 9);
        }
    }

    /// Removes a page; whether it was there.
    pub(super) fn forget(&self, page: &str) -> bool {
        fs::remove_file(self.folder.join(page)).is_ok()
    }

    fn write(&self, page: &str, bytes: &[u8]) -> io::Result<()> {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let temporary = self.folder.join(format!("{page}.{}-{serial}.tmp", std::process::id()));
        let write = || {
            File::create(&temporary)?.write_all(bytes)?;
            fs::rename(&temporary, self.folder.join(page))
        };
        write().inspect_err(|_| {
            // The first failure is the one worth reporting.
            let _ = fs::remove_file(&temporary);
        })
    }

    /// Removes the oldest pages until at most `most` bytes are left; returns how many are.
    fn evict(&self, most: u64) -> u64 {
        let Ok(mut pages) = self.pages() else { return 0 };
        pages.sort_unstable();
        let mut held: u64 = pages.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, bytes, path) in pages {
            if held <= most {
                break;
            }
            // Another process may have removed it.
            let _ = fs::remove_file(path);
            held -= bytes;
        }
        held
    }

    fn count(&self) -> io::Result<u64> {
        Ok(self.pages()?.iter().map(|(_, bytes, _)| bytes).sum())
    }

    fn pages(&self) -> io::Result<Vec<(SystemTime, u64, PathBuf)>> {
        let mut pages = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            // What another process has just removed is not there.
            if let Ok(metadata) = fs::metadata(&path)
                && metadata.is_file()
            {
                pages.push((metadata.modified()?, metadata.len(), path));
            }
        }
        Ok(pages)
    }
}

/// The user's folder for pages.
pub(super) fn default_folder() -> PathBuf {
    file::user_cache().unwrap_or_else(|| std::env::temp_dir().join("tessera")).join("remote")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_pages_go_first_and_the_limit_holds() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path().join("pages"), 1000).unwrap();
        for page in 0..20u8 {
            cache.keep(&format!("page-{page}"), &[page; 100]);
            assert!(cache.count().unwrap() <= 1000);
        }
        let mut out = [0; 10];
        assert!(cache.read("page-19", 100, &mut out, 50) && out == [19; 10]);
        assert!(!cache.read("page-0", 100, &mut out, 0));
        assert!(!cache.read("page-19", 99, &mut out, 0), "a page of another length is not whole");
        assert!(cache.forget("page-19") && !cache.forget("page-19"));
        // Another process finds what is there: ten pages before the last was forgotten.
        assert_eq!(Cache::new(folder.path().join("pages"), 1000).unwrap().count().unwrap(), 900);
    }
}
