//! Checking every byte of a data set, and telling all that is wrong at once.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;
use serde::Serialize;

use crate::error::DataError;
use crate::manifest::{self, MANIFEST_FILE, Manifest, ShardEntry};
use crate::shard::Shard;
use crate::sources::webdataset::{self, CheckedArchive};
use crate::store::{RemoteConfig, Store};
use crate::tokens;

/// Damaged samples named for each shard; the rest is counted.
const MAX_SAMPLES_NAMED: usize = 10;

/// What a full check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// Shards that the manifest names, or archives that were found.
    pub num_shards: u64,
    /// Samples that the manifest or the indices promise.
    pub num_samples: u64,
    /// Bytes that they promise.
    pub num_bytes: u64,
    /// All that is wrong; empty if the data set is whole.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong with a data set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The shard or archive.
    pub file: PathBuf,
    /// What is wrong, one line that names the file.
    pub message: String,
}

/// Checks every byte of a data set: length, header, SHA-256 and every sample of every shard of a
/// packed one and of a token set, of that also the histograms; of tar archives, all members against the index that was kept, or that is made now.
/// `progress` is called, from many threads, with bytes read and bytes in all.
///
/// # Errors
///
/// Only if there is no data set or its manifest cannot be used; damage to shards and archives is
/// reported.
pub fn verify(
    path: &Path,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<VerifyReport, DataError> {
    if !path.join(MANIFEST_FILE).exists()
        && let Ok(checked) = webdataset::verify(path, &RemoteConfig::default(), progress)
    {
        return Ok(of_archives(checked));
    }
    if tokens::is_token_set(path) {
        return tokens::verify::verify(path, progress);
    }
    let manifest = Manifest::read(path)?;
    let shards: Vec<_> = manifest.splits.values().flat_map(|split| &split.shards).collect();
    let (done, num_bytes) = (AtomicU64::new(0), manifest.num_bytes());
    let check = |entry: &&ShardEntry| {
        let file = manifest::shard_path(path, entry);
        let messages = check_shard(&file, entry, &manifest);
        progress(done.fetch_add(entry.bytes, Ordering::Relaxed) + entry.bytes, num_bytes);
        problems(&file, messages)
    };
    let problems: Vec<Vec<Problem>> = shards.par_iter().map(check).collect();
    Ok(VerifyReport {
        num_shards: shards.len() as u64,
        num_samples: manifest.splits.values().map(|split| split.num_samples).sum(),
        num_bytes,
        problems: problems.into_iter().flatten().collect(),
    })
}

fn of_archives(checked: Vec<CheckedArchive>) -> VerifyReport {
    VerifyReport {
        num_shards: checked.len() as u64,
        num_samples: checked.iter().map(|archive| archive.num_samples).sum(),
        num_bytes: checked.iter().map(|archive| archive.num_bytes).sum(),
        problems: checked
            .into_iter()
            .flat_map(|archive| problems(&archive.path, archive.problems))
            .collect(),
    }
}

/// What is wrong with one file.
pub(crate) fn problems(file: &Path, messages: Vec<String>) -> Vec<Problem> {
    messages.into_iter().map(|message| Problem { file: file.to_owned(), message }).collect()
}

/// Everything wrong with one shard.
fn check_shard(path: &Path, entry: &ShardEntry, manifest: &Manifest) -> Vec<String> {
    let blob = Store::Local(path.parent().unwrap_or(path).to_owned()).open(&entry.file);
    let shard = match Shard::open(path.to_owned(), blob, entry, manifest) {
        Ok(shard) => shard,
        Err(error) => return vec![message_of(error)],
    };
    let mut messages = Vec::new();
    if let Err(error) = shard.check_hash(entry) {
        messages.push(message_of(error));
    }
    let mut sample = vec![0; manifest.shape.num_bytes()];
    let mut check =
        |index| shard.read(index, &mut sample).and_then(|()| shard.label(index)).map(|_| ());
    messages.extend(damaged_samples(path, shard.num_samples(), &mut check));
    messages
}

/// What `check` says of each sample of a shard: the first of those that are damaged, and how many more
/// there are.
pub(crate) fn damaged_samples(
    path: &Path,
    num_samples: u64,
    check: &mut dyn FnMut(u64) -> Result<(), DataError>,
) -> Vec<String> {
    let (mut messages, mut num_damaged) = (Vec::new(), 0);
    for index in 0..num_samples {
        if let Err(error) = check(index) {
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
pub(crate) fn message_of(error: DataError) -> String {
    match error {
        DataError::Shard { path, problem } => format!("shard {} {problem}", path.display()),
        DataError::DamagedTokens { path, problem } => format!("{} {problem}", path.display()),
        DataError::CorruptSample { shard, sample, problem } => {
            format!("sample {sample} of shard {} {problem}", shard.display())
        }
        other => other.to_string(),
    }
}
