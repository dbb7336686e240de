//! Checking every byte of a packed data set, and telling all that is wrong at once.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::DataError;
use crate::manifest::{self, Manifest, ShardEntry};
use crate::shard::Shard;
use crate::store::Store;

/// Damaged samples named for each shard; the rest is counted.
const MAX_SAMPLES_NAMED: usize = 10;

/// What a full check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// Shards that the manifest names.
    pub num_shards: u64,
    /// Samples that the manifest promises.
    pub num_samples: u64,
    /// Bytes that the manifest promises.
    pub num_bytes: u64,
    /// All that is wrong; empty if the data set is whole.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong with a data set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The shard file.
    pub file: PathBuf,
    /// What is wrong, one line that names the shard.
    pub message: String,
}

/// Checks length, header, SHA-256 and every sample of every shard in `folder`.
///
/// # Errors
///
/// Only if there is no data set or its manifest cannot be used; damage to shards is reported.
pub fn verify(folder: &Path) -> Result<VerifyReport, DataError> {
    let manifest = Manifest::read(folder)?;
    let mut report = VerifyReport {
        num_shards: 0,
        num_samples: 0,
        num_bytes: manifest.num_bytes(),
        problems: Vec::new(),
    };
    for split in manifest.splits.values() {
        report.num_samples += split.num_samples;
        for entry in &split.shards {
            report.num_shards += 1;
            let path = manifest::shard_path(folder, entry);
            for message in check_shard(&path, entry, &manifest) {
                report.problems.push(Problem { file: path.clone(), message });
            }
        }
    }
    Ok(report)
}

/// Everything wrong with one shard.
fn check_shard(path: &Path, entry: &ShardEntry, manifest: &Manifest) -> Vec<String> {
    let blob = Store::Local(path.parent().unwrap_or(path).to_owned()).open(&entry.file);
    let (shape, compression) = (manifest.shape, manifest.compression);
    let shard = match Shard::open(path.to_owned(), blob, entry, shape, compression) {
        Ok(shard) => shard,
        Err(error) => return vec![message_of(error)],
    };
    let mut messages = Vec::new();
    if let Err(error) = shard.check_hash(entry) {
        messages.push(message_of(error));
    }
    let mut sample = vec![0; manifest.shape.num_bytes()];
    let mut num_damaged = 0;
    for index in 0..shard.num_samples() {
        if let Err(error) = shard.read(index, &mut sample) {
            num_damaged += 1;
            if num_damaged <= MAX_SAMPLES_NAMED {
                messages.push(message_of(error));
            }
        }
    }
    if num_damaged > MAX_SAMPLES_NAMED {
        let more = num_damaged - MAX_SAMPLES_NAMED;
        messages.push(format!("{more} more samples of shard {} are damaged", path.display()));
    }
    messages
}

/// The error without its advice to run the check that has just been run.
fn message_of(error: DataError) -> String {
    match error {
        DataError::Shard { path, problem } => format!("shard {} {problem}", path.display()),
        DataError::CorruptSample { shard, sample, problem } => {
            format!("sample {sample} of shard {} {problem}", shard.display())
        }
        other => other.to_string(),
    }
}
