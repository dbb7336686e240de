//! A pack in the making: what the folder beside the target holds so far (`target.rs`).
//!
//! `progress.jsonl` in it has a first line that says what is packed, and one line for each shard
//! that is whole. A pack that finds such a folder of the same input and options goes on from it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::moments::Moments;
use crate::error::DataError;
use crate::file;
use crate::manifest::{Manifest, ShardEntry};
use crate::target::{self, PROGRESS_FILE, output_error, write_error};

/// A shard that is whole; without an entry if all of its samples were left out.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PackedShard {
    pub(crate) file: String,
    pub(crate) entry: Option<ShardEntry>,
    /// Whether it holds a label for each sample.
    pub(crate) labels: bool,
    /// Samples in it that have a label.
    pub(crate) num_labels: u64,
    /// One more than the largest of them; 0 without any.
    pub(crate) num_classes: u64,
    pub(crate) moments: Moments,
    pub(crate) skipped: Vec<String>,
}

/// The folder of a pack in the making, ours alone while this lives.
pub(crate) struct Partial {
    path: PathBuf,
    /// Locked; the system lets go of it however the process ends.
    progress: Mutex<File>,
    known: Vec<PackedShard>,
}

impl Partial {
    /// Makes the folder, or takes up the one that an equal pack has left.
    pub(crate) fn open(target: &Path, identity: &str) -> Result<Self, DataError> {
        let path = target::partial_of(target);
        fs::create_dir_all(&path).map_err(|source| write_error(&path, source))?;
        let file = path.join(PROGRESS_FILE);
        let mut options = OpenOptions::new();
        let progress = options.create(true).read(true).append(true).open(&file);
        let mut progress = progress.map_err(|source| write_error(&file, source))?;
        if flock(&progress, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(output_error(target, "another pack is writing it: wait for that one"));
        }
        let text = fs::read_to_string(&file).map_err(|source| write_error(&file, source))?;
        // A line without an end was being written when the pack was killed.
        let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
        let mut lines = whole.lines();
        let known = match lines.next() {
            None => Vec::new(),
            Some(first) if first == identity => {
                lines.filter_map(|line| serde_json::from_str(line).ok()).collect()
            }
            Some(_) => {
                return Err(output_error(
                    &path,
                    "it was left by a pack of another input or with other options: remove it",
                ));
            }
        };
        let fix = |progress: &mut File| -> io::Result<()> {
            progress.set_len(whole.len() as u64)?;
            if whole.is_empty() {
                writeln!(progress, "{identity}")?;
            }
            progress.sync_all()
        };
        fix(&mut progress).map_err(|source| write_error(&file, source))?;
        Ok(Self { path, progress: Mutex::new(progress), known })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What was done about the shard `file`, if it is still whole.
    pub(crate) fn take(&self, file: &str) -> Result<Option<PackedShard>, DataError> {
        let Some(known) = self.known.iter().find(|known| known.file == file) else {
            return Ok(None);
        };
        if let Some(entry) = &known.entry {
            let path = self.path.join(file);
            if !path.is_file() || file::sha256_of_file(&path)? != entry.sha256 {
                return Ok(None);
            }
        }
        Ok(Some(known.clone()))
    }

    /// Remembers a shard that has been written.
    pub(crate) fn add(&self, shard: &PackedShard) -> Result<(), DataError> {
        let mut line = serde_json::to_string(shard).expect("a shard's entry is plain data");
        line.push('\n');
        let mut progress = self.progress.lock().expect("nothing panics while it is held");
        let written = progress.write_all(line.as_bytes()).and_then(|()| progress.sync_all());
        written.map_err(|source| write_error(&self.path, source))
    }

    /// Gives the folder, or the files in it, their final names; from here on the data set exists.
    pub(crate) fn commit(&self, target: &Path, manifest: &Manifest) -> Result<(), DataError> {
        let shards = manifest.splits.values().flat_map(|split| &split.shards);
        let files: Vec<&str> = shards.map(|shard| shard.file.as_str()).collect();
        target::commit(&self.path, target, &[self.path.join(PROGRESS_FILE)], &files)
    }

    /// Removes what was done.
    pub(crate) fn remove(&self) {
        // What cannot be removed is found by the next pack.
        let _ = fs::remove_dir_all(&self.path);
    }
}
