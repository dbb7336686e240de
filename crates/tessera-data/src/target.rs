//! The folder of a data set that is being written: complete or absent.
//!
//! All is made in a folder `NAME.partial` beside the target, which is renamed at the end. Where the
//! target exists, and so may be a volume or a link to one, the folder is `.partial` inside of it, and
//! files are moved out of it, the manifest last: nothing is renamed across file systems.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::DataError;
use crate::file;
use crate::manifest::MANIFEST_FILE;

/// Folder of a data set in the making inside of a target that exists.
const INSIDE: &str = ".partial";

/// What is made, in its first line: no other data set goes on in that folder.
pub(crate) const PROGRESS_FILE: &str = "progress.jsonl";

/// Refuses a target that holds anything, before any work is done.
pub(crate) fn check(target: &Path) -> Result<(), DataError> {
    if target.file_name().is_none() {
        return Err(output_error(target, "give the name of a new folder"));
    }
    if let Some(link) = target.ancestors().find(|path| path.is_symlink() && !path.exists()) {
        let problem = format!("{} is a link to nowhere: choose another", link.display());
        return Err(output_error(target, &problem));
    }
    match fs::read_dir(target) {
        Ok(_) if is_free(target) => Ok(()),
        Ok(_) => Err(output_error(target, "it is not empty: remove it or choose another")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            Err(output_error(target, "it, or a part of its path, is a file: choose another"))
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidFilename => {
            Err(output_error(target, "its name is too long: choose another"))
        }
        Err(source) => Err(write_error(target, source)),
    }
}

/// Whether a folder is free for a data set: it is empty, but for what file systems put there and what
/// an attempt has left that was stopped.
fn is_free(target: &Path) -> bool {
    let Ok(entries) = fs::read_dir(target) else { return false };
    let is_left = target.join(INSIDE).is_dir() && !target.join(MANIFEST_FILE).exists();
    let mut names = entries.flatten().map(|entry| entry.file_name());
    names.all(|name| {
        let shard = || name.to_str().is_some_and(|name| name.ends_with(".safetensors"));
        name == "lost+found" || (is_left && (name == INSIDE || shard()))
    })
}

/// Where the data set is made, for a target that was checked.
pub(crate) fn partial_of(target: &Path) -> PathBuf {
    if target.is_dir() {
        return target.join(INSIDE);
    }
    let mut name = target.file_name().expect("the target was checked").to_owned();
    name.push(".partial");
    parent_of(target).join(name)
}

/// Gives the folder, or the files in it, their final names; from here on the data set exists. Of what
/// is in the folder, `scratch` is no part of it, and `files` are its parts beside the manifest.
pub(crate) fn commit(
    partial: &Path,
    target: &Path,
    scratch: &[PathBuf],
    files: &[&str],
) -> Result<(), DataError> {
    if partial.parent() == Some(target) {
        return commit_inside(partial, target, files);
    }
    for file in scratch {
        fs::remove_file(file).map_err(|source| write_error(file, source))?;
    }
    file::sync_folder(partial)?;
    // Replaces an empty folder and nothing else.
    fs::rename(partial, target).map_err(|source| write_error(target, source))?;
    file::sync_folder(&parent_of(target))
}

/// The manifest goes last: a folder without one is no data set. What is killed in here makes the files
/// again that have moved.
fn commit_inside(partial: &Path, target: &Path, files: &[&str]) -> Result<(), DataError> {
    let move_out = |name: &str| {
        let to = target.join(name);
        fs::rename(partial.join(name), &to).map_err(|source| write_error(&to, source))
    };
    for file in files {
        move_out(file)?;
    }
    file::sync_folder(target)?;
    move_out(MANIFEST_FILE)?;
    file::sync_folder(target)?;
    // What cannot be removed is found by the next attempt.
    let _ = fs::remove_dir_all(partial);
    Ok(())
}

fn parent_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// A folder that no data set can be made in.
pub(crate) fn output_error(path: &Path, problem: &str) -> DataError {
    DataError::Output { path: path.to_owned(), problem: problem.to_owned() }
}

/// A file that cannot be written.
pub(crate) fn write_error(path: &Path, source: io::Error) -> DataError {
    DataError::Write { path: path.to_owned(), source }
}
