//! The file operations of a save, each by its name, so that a test can let any of them fail.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use crate::error::CheckpointError;

/// Bytes that are written at once.
const PIECE: usize = 16 << 20;

/// A file operation that changes something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Making a folder.
    MakeFolder,
    /// Making a file.
    Create,
    /// Writing to a file; a large one is written in several pieces.
    Write,
    /// Syncing a file.
    Sync,
    /// Appending to a file that is open.
    Append,
    /// Syncing a folder.
    SyncFolder,
    /// Renaming a folder.
    Rename,
    /// Removing a file or a folder with all that is in it.
    Remove,
}

/// What becomes of an operation.
#[derive(Debug)]
pub enum Fate {
    /// It is carried out.
    Done,
    /// It fails with this error, and nothing is changed.
    Failed(io::Error),
    /// Half of what should be written is written, and then it fails.
    Short,
}

type Judge = dyn Fn(Operation, &Path) -> Fate + Send + Sync;
type Guard = dyn Fn() -> Result<(), String> + Send + Sync;

/// A file system.
#[derive(Clone, Default)]
pub struct Storage {
    judge: Option<Arc<Judge>>,
    guard: Option<Arc<Guard>>,
}

impl fmt::Debug for Storage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Storage")
            .field("judged", &self.judge.is_some())
            .field("guarded", &self.guard.is_some())
            .finish()
    }
}

impl Storage {
    /// The file system as it is.
    pub fn new() -> Self {
        Self::default()
    }

    /// One whose operations `judge` is asked about first: for tests of what happens when they fail,
    /// or when the process ends in one.
    pub fn judged(judge: impl Fn(Operation, &Path) -> Fate + Send + Sync + 'static) -> Self {
        Self { judge: Some(Arc::new(judge)), guard: None }
    }

    /// The same for whoever may lose its folder to another run: `guard` is asked before each operation that
    /// makes, renames or removes something, and says who has it now.
    #[must_use]
    pub fn guarded(
        mut self,
        guard: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        self.guard = Some(Arc::new(guard));
        self
    }

    fn fate(&self, operation: Operation, path: &Path) -> Fate {
        self.judge.as_ref().map_or(Fate::Done, |judge| judge(operation, path))
    }

    fn run(
        &self,
        operation: Operation,
        path: &Path,
        action: &'static str,
        run: impl FnOnce() -> io::Result<()>,
    ) -> Result<(), CheckpointError> {
        if !matches!(operation, Operation::Sync | Operation::SyncFolder)
            && let Some(guard) = &self.guard
        {
            guard().map_err(CheckpointError::Lost)?;
        }
        let done = match self.fate(operation, path) {
            Fate::Done => run(),
            Fate::Failed(error) => Err(error),
            Fate::Short => Err(io::ErrorKind::WriteZero.into()),
        };
        done.map_err(CheckpointError::file(action, path))
    }

    /// Makes a folder and those above it.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::File`] or [`CheckpointError::Lost`].
    pub fn make_folder(&self, path: &Path) -> Result<(), CheckpointError> {
        self.run(Operation::MakeFolder, path, "make the folder", || fs::create_dir_all(path))
    }

    /// Writes a new file and syncs it; removes it where that fails.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::File`] or [`CheckpointError::Lost`].
    pub fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), CheckpointError> {
        let written = self.write_pieces(path, bytes);
        if written.is_err() {
            // The first error is the one to report; the file may not even be there.
            let _ = fs::remove_file(path);
        }
        written
    }

    fn write_pieces(&self, path: &Path, bytes: &[u8]) -> Result<(), CheckpointError> {
        let mut file = None;
        self.run(Operation::Create, path, "make", || {
            file = Some(File::create(path)?);
            Ok(())
        })?;
        let mut file = file.expect("it was made");
        for piece in bytes.chunks(PIECE) {
            let written = match self.fate(Operation::Write, path) {
                Fate::Done => file.write_all(piece),
                Fate::Failed(error) => Err(error),
                Fate::Short => file.write_all(&piece[..piece.len() / 2]).and_then(|()| {
                    Err(io::Error::new(io::ErrorKind::WriteZero, "only half of it was written"))
                }),
            };
            written.map_err(CheckpointError::file("write", path))?;
        }
        self.run(Operation::Sync, path, "sync", || file.sync_all())
    }

    /// Appends to `file`, which was opened for that as `path`, in one piece.
    ///
    /// # Errors
    ///
    /// Those of the file system; part of it may have been written.
    pub fn append(&self, file: &mut File, path: &Path, bytes: &[u8]) -> io::Result<()> {
        match self.fate(Operation::Append, path) {
            Fate::Done => file.write_all(bytes),
            Fate::Failed(error) => Err(error),
            Fate::Short => file.write_all(&bytes[..bytes.len() / 2]).and_then(|()| {
                Err(io::Error::new(io::ErrorKind::WriteZero, "only half of it was written"))
            }),
        }
    }

    /// Syncs `file`, which was opened as `path`.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    pub fn sync(&self, file: &File, path: &Path) -> io::Result<()> {
        match self.fate(Operation::Sync, path) {
            Fate::Done => file.sync_all(),
            Fate::Failed(error) => Err(error),
            Fate::Short => Err(io::ErrorKind::WriteZero.into()),
        }
    }

    /// Syncs a folder: names in it survive a loss of power.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::File`] or [`CheckpointError::Lost`].
    pub fn sync_folder(&self, path: &Path) -> Result<(), CheckpointError> {
        let sync = || File::open(path)?.sync_all();
        self.run(Operation::SyncFolder, path, "sync", sync)
    }

    /// Renames a file or a folder.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::File`] or [`CheckpointError::Lost`].
    pub fn rename(&self, from: &Path, to: &Path) -> Result<(), CheckpointError> {
        self.run(Operation::Rename, from, "rename", || fs::rename(from, to))
    }

    pub(crate) fn remove_file(&self, path: &Path) -> Result<(), CheckpointError> {
        self.run(Operation::Remove, path, "remove", || fs::remove_file(path))
    }

    /// Removes a folder with all that is in it.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::File`] or [`CheckpointError::Lost`].
    pub fn remove_folder(&self, path: &Path) -> Result<(), CheckpointError> {
        self.run(Operation::Remove, path, "remove", || fs::remove_dir_all(path))
    }
}
