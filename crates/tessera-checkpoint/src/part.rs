//! A part of a checkpoint: one safetensors file that a rank writes.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::CheckpointError;
use crate::folder::{PARTIAL, folder_name};
use crate::hash::sha256_hex;
use crate::manifest::FileEntry;
use crate::storage::Storage;
use crate::tensor::HostTensor;

/// Which save of which attempt: what another one has written is refused, however late it comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Save {
    /// Optimiser steps done.
    pub step: u64,
    /// The attempt that saves, by a name that no other one has.
    pub attempt: String,
    /// Number of the save within the attempt: a second try of the same step has another one.
    pub number: u64,
}

impl Save {
    /// Where its parts are written before it has its name.
    pub fn folder(&self, checkpoints: &Path) -> PathBuf {
        checkpoints.join(format!(".{}.{self}{PARTIAL}", folder_name(self.step)))
    }
}

impl fmt::Display for Save {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.attempt, self.number)
    }
}

/// How many files a state of so many bytes is written to by so many ranks: none of fewer than `least` bytes,
/// unless it is the only one.
pub fn num_files(bytes: usize, world_size: usize, least: usize) -> usize {
    bytes.checked_div(least).unwrap_or(world_size).clamp(1, world_size.max(1))
}

/// What a rank reports of its part to the one that commits.
#[derive(Debug, Serialize, Deserialize)]
struct Report {
    /// [`Save`], as it is shown.
    save: String,
    file: FileEntry,
}

/// File in which the part of a number is reported.
pub(crate) fn report_file(partial: &Path, part: usize) -> PathBuf {
    partial.join(format!("part-{part:05}.json"))
}

/// What was reported of a part of `save`.
pub(crate) fn read_report(
    save: &Save,
    partial: &Path,
    part: usize,
) -> Result<FileEntry, CheckpointError> {
    let path = report_file(partial, part);
    let bytes = fs::read(&path).map_err(CheckpointError::file("read", &path))?;
    let name = format!("part {part}");
    let report: Report = serde_json::from_slice(&bytes)
        .map_err(|error| CheckpointError::damaged(partial, &name, error))?;
    if report.save != save.to_string() {
        let problem = format!("it is of save {} and not of {save}", report.save);
        return Err(CheckpointError::damaged(partial, &name, problem));
    }
    Ok(report.file)
}

/// Writes one of the parts of a checkpoint, `(number, of)` counted from 0, and beside it the report of what was
/// written. The folder for it is made where it is not there.
///
/// # Errors
///
/// [`CheckpointError::File`]; what was written of the part is removed. [`CheckpointError::Lost`].
///
/// # Panics
///
/// If a tensor has not as many bytes as its shape says.
pub fn write_part(
    storage: &Storage,
    checkpoints: &Path,
    save: &Save,
    (part, num_parts): (usize, usize),
    tensors: Vec<(&str, HostTensor<'_>)>,
) -> Result<FileEntry, CheckpointError> {
    let partial = save.folder(checkpoints);
    storage.make_folder(&partial)?;
    let name = format!("state-{:05}-of-{num_parts:05}.safetensors", part + 1);
    let mut names: Vec<String> = tensors.iter().map(|(name, _)| (*name).to_owned()).collect();
    names.sort_unstable();
    let bytes = safetensors::serialize(tensors, None).expect("shapes are those of the bytes");
    storage.write(&partial.join(&name), &bytes)?;
    let (sha256, bytes) = (sha256_hex(&bytes), bytes.len() as u64);
    let file = FileEntry { name, bytes, sha256, tensors: names };
    let report = Report { save: save.to_string(), file: file.clone() };
    let report = serde_json::to_vec(&report).expect("a report is plain data");
    storage.write(&report_file(&partial, part), &report)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_state_is_one_file_and_a_large_one_as_many_as_there_are_ranks() {
        let mib = 1 << 20;
        let files = |bytes, world_size| num_files(bytes, world_size, 64 * mib);
        assert_eq!(files(0, 8), 1);
        assert_eq!(files(127 * mib, 1000), 1);
        assert_eq!(files(128 * mib, 1000), 2);
        assert_eq!(files(6000 * mib, 1000), 93);
        assert_eq!(files(6000 * mib, 8), 8);
        assert_eq!(files(6000 * mib, 1), 1);
        assert_eq!(num_files(3, 8, 0), 8, "each rank");
    }
}
