//! A pack in the making: a folder `NAME.partial` beside the target, and what it holds so far. Where
//! the target exists, and so may be a volume or a link to one, the folder is `.partial` inside of it:
//! nothing is renamed across file systems.
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
use crate::manifest::{MANIFEST_FILE, Manifest, ShardEntry};

/// Folder of a pack in the making inside of a target that exists.
const INSIDE: &str = ".partial";

const PROGRESS_FILE: &str = "progress.jsonl";

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

/// Whether a folder is free for a pack: it is empty, but for what file systems put there and what a
/// pack has left that was stopped.
pub(crate) fn is_free(target: &Path) -> bool {
    let Ok(entries) = fs::read_dir(target) else { return false };
    let is_left = target.join(INSIDE).is_dir() && !target.join(MANIFEST_FILE).exists();
    let mut names = entries.flatten().map(|entry| entry.file_name());
    names.all(|name| {
        let shard = || name.to_str().is_some_and(|name| name.ends_with(".safetensors"));
        name == "lost+found" || (is_left && (name == INSIDE || shard()))
    })
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
        let path = match target.is_dir() {
            true => target.join(INSIDE),
            false => {
                let mut name = target.file_name().expect("the target was checked").to_owned();
                name.push(".partial");
                parent_of(target).join(name)
            }
        };
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
        if self.path.parent() == Some(target) {
            return self.commit_inside(target, manifest);
        }
        let file = self.path.join(PROGRESS_FILE);
        fs::remove_file(&file).map_err(|source| write_error(&file, source))?;
        file::sync_folder(&self.path)?;
        // Replaces an empty folder and nothing else.
        fs::rename(&self.path, target).map_err(|source| write_error(target, source))?;
        file::sync_folder(&parent_of(target))
    }

    /// The manifest goes last: a folder without one is no data set. A pack that is killed in here
    /// makes the shards again that have moved.
    fn commit_inside(&self, target: &Path, manifest: &Manifest) -> Result<(), DataError> {
        let shards = manifest.splits.values().flat_map(|split| &split.shards);
        let move_out = |name: &str| {
            let to = target.join(name);
            fs::rename(self.path.join(name), &to).map_err(|source| write_error(&to, source))
        };
        for shard in shards {
            move_out(&shard.file)?;
        }
        file::sync_folder(target)?;
        move_out(MANIFEST_FILE)?;
        file::sync_folder(target)?;
        self.remove();
        Ok(())
    }

    /// Removes what was done.
    pub(crate) fn remove(&self) {
        // What cannot be removed is found by the next pack.
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn parent_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// A folder that cannot be packed into.
pub(crate) fn output_error(path: &Path, problem: &str) -> DataError {
    DataError::Output { path: path.to_owned(), problem: problem.to_owned() }
}

/// A file that cannot be written.
pub(crate) fn write_error(path: &Path, source: io::Error) -> DataError {
    DataError::Write { path: path.to_owned(), source }
}
