//! The folder that holds a run's checkpoints.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::commit::set_aside;
use crate::error::CheckpointError;
use crate::load::Checkpoint;
use crate::manifest;
use crate::storage::Storage;

/// Folder of checkpoints that a resume has left behind.
pub(crate) const SUPERSEDED: &str = "superseded";
/// End of the name of a folder in the making.
const PARTIAL: &str = ".partial";

pub(crate) fn folder_name(step: u64) -> String {
    format!("step-{step:08}")
}

/// Where the parts of a checkpoint are written before it has its name.
pub fn partial_folder(checkpoints: &Path, step: u64) -> PathBuf {
    checkpoints.join(format!(".{}{PARTIAL}", folder_name(step)))
}

/// Step and folder of every checkpoint with a final name, oldest first.
///
/// # Errors
///
/// [`CheckpointError::File`] if the folder cannot be read.
pub fn list(checkpoints: &Path) -> Result<Vec<(u64, PathBuf)>, CheckpointError> {
    let mut found = Vec::new();
    for path in entries(checkpoints)? {
        let name = path.file_name().and_then(|name| name.to_str());
        let step = name.and_then(|name| name.strip_prefix("step-")?.parse().ok());
        if let Some(step) = step {
            found.push((step, path));
        }
    }
    found.sort();
    Ok(found)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, CheckpointError> {
    let read = || -> io::Result<Vec<PathBuf>> {
        fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect()
    };
    read().map_err(CheckpointError::file("read", folder))
}

/// The newest checkpoint whose hashes hold, and what was wrong with newer ones. A folder that is
/// not there holds none.
///
/// # Errors
///
/// [`CheckpointError::File`] if the folder cannot be read.
pub fn newest_good(
    checkpoints: &Path,
) -> Result<(Option<Checkpoint>, Vec<CheckpointError>), CheckpointError> {
    let mut refused = Vec::new();
    if !checkpoints.is_dir() {
        return Ok((None, refused));
    }
    for (_, path) in list(checkpoints)?.into_iter().rev() {
        match Checkpoint::verify(&path) {
            Ok(checkpoint) => return Ok((Some(checkpoint), refused)),
            Err(error) => refused.push(error),
        }
    }
    Ok((None, refused))
}

/// Moves checkpoints of steps past `last_step` to `superseded/`: the run takes another way from
/// there.
///
/// # Errors
///
/// [`CheckpointError::File`].
pub fn supersede_after(
    storage: &Storage,
    checkpoints: &Path,
    last_step: u64,
) -> Result<(), CheckpointError> {
    for (step, path) in list(checkpoints)? {
        if step > last_step {
            set_aside(storage, checkpoints, &path)?;
        }
    }
    Ok(())
}

/// Removes what runs that ended in the middle of a save have left.
///
/// # Errors
///
/// [`CheckpointError::File`].
pub fn remove_partials(storage: &Storage, checkpoints: &Path) -> Result<(), CheckpointError> {
    for path in entries(checkpoints)? {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with(".step-") && name.ends_with(PARTIAL) {
            storage.remove_folder(&path)?;
        }
    }
    Ok(())
}

/// The checkpoint that a person means by a path: its folder, its manifest, or a run folder (or its
/// `checkpoints/`) for the newest one that was finished.
///
/// # Errors
///
/// [`CheckpointError::NotOne`].
pub fn checkpoint_at(path: &Path) -> Result<PathBuf, CheckpointError> {
    if path.file_name().is_some_and(|name| name == manifest::FILE) && path.is_file() {
        return Ok(path.parent().map_or_else(PathBuf::new, Path::to_owned));
    }
    if path.join(manifest::FILE).is_file() {
        return Ok(path.to_owned());
    }
    for folder in [path.join("checkpoints"), path.to_owned()] {
        let newest = list(&folder).unwrap_or_default().into_iter().rev();
        let finished = |(_, path): &(u64, PathBuf)| path.join(manifest::FILE).is_file();
        if let Some((_, path)) = newest.into_iter().find(finished) {
            return Ok(path);
        }
    }
    let problem = if path.exists() { "is no checkpoint and has none" } else { "does not exist" };
    let problem =
        format!("{problem}: name a checkpoint folder, its {}, or a run folder", manifest::FILE);
    Err(CheckpointError::NotOne { path: path.to_owned(), problem })
}
