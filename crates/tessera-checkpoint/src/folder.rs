//! The folder that holds a run's checkpoints.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{CheckpointError, CheckpointErrorKind};
use crate::load::verify_files;
use crate::manifest::{self, Manifest};
use crate::patience::patiently;
use crate::storage::Storage;

/// Folder of checkpoints that a resume has left behind.
const SUPERSEDED: &str = "superseded";
/// End of the name of a folder in the making.
pub(crate) const PARTIAL: &str = ".partial";

pub(crate) fn folder_name(step: u64) -> String {
    format!("step-{step:08}")
}

/// Step and folder of every checkpoint with a final name, oldest first; a folder that is not there holds none.
///
/// # Errors
///
/// [`CheckpointError::Unreadable`] if the folder cannot be read now.
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
    match patiently(read) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(CheckpointError::Unreadable { path: folder.to_owned(), source }),
        entries => Ok(entries.expect("errors were taken out above")),
    }
}

/// The newest checkpoint whose hashes hold, of those that `wanted` takes by their manifests, and what was wrong
/// with newer ones, all of them damaged.
///
/// # Errors
///
/// [`CheckpointError::Unreadable`], [`CheckpointError::OtherVersion`]: such a checkpoint may be good, so none that
/// is older stands for it.
pub fn newest_good(
    checkpoints: &Path,
    wanted: impl Fn(&Manifest) -> bool,
) -> Result<(Option<Verified>, Vec<CheckpointError>), CheckpointError> {
    newest_of(checkpoints, wanted, verify_files)
}

/// The same by manifests alone: no other file is read, and damage to one is not found.
///
/// # Errors
///
/// As [`newest_good`].
pub fn newest(
    checkpoints: &Path,
    wanted: impl Fn(&Manifest) -> bool,
) -> Result<(Option<Verified>, Vec<CheckpointError>), CheckpointError> {
    newest_of(checkpoints, wanted, |_, _| Ok(()))
}

fn newest_of(
    checkpoints: &Path,
    wanted: impl Fn(&Manifest) -> bool,
    check: impl Fn(&Path, &Manifest) -> Result<(), CheckpointError>,
) -> Result<(Option<Verified>, Vec<CheckpointError>), CheckpointError> {
    let mut refused = Vec::new();
    for (_, path) in list(checkpoints)?.into_iter().rev() {
        let manifest = match Manifest::read(&path) {
            Ok(manifest) if !wanted(&manifest) => continue,
            manifest => manifest,
        };
        match manifest.and_then(|manifest| check(&path, &manifest).map(|()| manifest)) {
            Ok(manifest) => return Ok((Some(Verified { path, manifest }), refused)),
            Err(error) => match error.kind() {
                CheckpointErrorKind::Damaged | CheckpointErrorKind::NotOne => refused.push(error),
                _ => return Err(error),
            },
        }
    }
    Ok((None, refused))
}

/// A checkpoint whose hashes hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Verified {
    /// Its folder.
    pub path: PathBuf,
    /// Its manifest.
    pub manifest: Manifest,
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

/// Moves a checkpoint to where no resume finds it.
pub(crate) fn set_aside(
    storage: &Storage,
    checkpoints: &Path,
    path: &Path,
) -> Result<(), CheckpointError> {
    let folder = checkpoints.join(SUPERSEDED);
    let target = folder.join(path.file_name().expect("a checkpoint has a name"));
    storage.make_folder(&folder)?;
    if target.exists() {
        storage.remove_folder(&target)?;
    }
    storage.rename(path, &target)
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
