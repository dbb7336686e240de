//! A file that whole pieces are appended to: rows, events, lines of a log.
//!
//! What a full disk has left half written is cut back before the next piece, so that a reader finds whole
//! pieces alone. One process appends to a file at a time.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tessera_checkpoint::Storage;

/// An open file of whole pieces.
#[derive(Debug)]
pub struct Appended {
    file: File,
    path: PathBuf,
    storage: Storage,
    /// Bytes of whole pieces.
    length: u64,
    /// Whether there may be something behind them.
    is_torn: bool,
}

impl Appended {
    /// Opens `path` for appending, and creates it where it is missing.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::over(OpenOptions::new().append(true).create(true).open(path)?, path)
    }

    /// Appends to `file`, which is open for that as `path`.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    pub(crate) fn over(file: File, path: &Path) -> io::Result<Self> {
        let length = file.metadata()?.len();
        let (path, storage) = (path.to_owned(), Storage::new());
        Ok(Self { file, path, storage, length, is_torn: false })
    }

    /// The same file on a storage that a test may let fail.
    pub(crate) fn on(self, storage: Storage) -> Self {
        Self { storage, ..self }
    }

    /// Its name.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends a piece, whole or not at all.
    ///
    /// # Errors
    ///
    /// Those of the file system; the same piece may be tried again.
    pub fn append(&mut self, piece: &[u8]) -> io::Result<()> {
        self.cut_back()?;
        let written = self.storage.append(&mut self.file, &self.path, piece);
        match written {
            Ok(()) => self.length += piece.len() as u64,
            Err(_) => {
                self.is_torn = true;
                let _ = self.cut_back(); // the first error is the one to report
            }
        }
        written
    }

    fn cut_back(&mut self) -> io::Result<()> {
        if self.is_torn {
            self.file.set_len(self.length)?;
            self.is_torn = false;
        }
        Ok(())
    }

    /// Sees to it that what was appended survives a loss of power.
    ///
    /// # Errors
    ///
    /// Those of the file system; `NotFound` where the file has been removed meanwhile, or another one has its
    /// name: what was appended is then lost.
    pub(crate) fn sync(&self) -> io::Result<()> {
        let (there, ours) = (self.path.metadata()?, self.file.metadata()?);
        if (there.dev(), there.ino()) != (ours.dev(), ours.ino()) {
            let problem = "it was replaced by another file while the run wrote to it";
            return Err(io::Error::new(io::ErrorKind::NotFound, problem));
        }
        self.storage.sync(&self.file, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Mutex;

    use tessera_checkpoint::{Fate, Operation};

    use super::*;

    /// A storage whose appends fare as `fates` says, one after another, and well afterwards.
    fn storage(fates: Vec<Fate>) -> Storage {
        let fates = Mutex::new(fates.into_iter());
        Storage::judged(move |operation, _| match operation {
            Operation::Append => fates.lock().unwrap().next().unwrap_or(Fate::Done),
            _ => Fate::Done,
        })
    }

    fn full() -> Fate {
        Fate::Failed(io::ErrorKind::StorageFull.into())
    }

    #[test]
    fn a_piece_that_was_half_written_is_cut_back_and_can_be_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows");
        fs::write(&path, "old\n").unwrap();
        let fates = vec![Fate::Done, Fate::Short, full(), Fate::Short, Fate::Done];
        let mut file = Appended::open(&path).unwrap().on(storage(fates));
        file.append(b"one\n").unwrap();
        for _ in 0..3 {
            file.append(b"two\n").unwrap_err();
            assert_eq!(fs::read_to_string(&path).unwrap(), "old\none\n");
        }
        file.append(b"two\n").unwrap();
        file.append(b"three\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "old\none\ntwo\nthree\n");
    }

    #[test]
    fn a_file_that_was_removed_or_replaced_cannot_be_made_durable() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows");
        let mut file = Appended::open(&path).unwrap();
        file.append(b"one\n").unwrap();
        file.sync().unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(file.sync().unwrap_err().kind(), io::ErrorKind::NotFound);
        fs::write(&path, "another").unwrap();
        assert_eq!(file.sync().unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
