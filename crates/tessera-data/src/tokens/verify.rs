//! Checking every byte of a token set.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

use crate::error::DataError;
use crate::manifest::ShardEntry;
use crate::store::Store;
use crate::tokens::histograms::Histograms;
use crate::tokens::manifest::{TokenManifest, TokenSplit};
use crate::tokens::shard::OpenShard;
use crate::verify::{Problem, VerifyReport, damaged_samples, message_of, problems};

/// What was found in one shard.
struct Checked {
    messages: Vec<String>,
    /// The first and the last number of its samples, if it could be opened.
    ids: Option<(u64, u64)>,
    counted: Histograms,
}

/// Checks length, header, SHA-256 and every variant of every sample of every shard, that no sample is
/// there twice, and that the histograms are those of the shards.
///
/// # Errors
///
/// Only if there is no token set or its manifest cannot be used; damage is reported.
pub(crate) fn verify(
    folder: &Path,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<VerifyReport, DataError> {
    let manifest = TokenManifest::read(folder)?;
    let (done, num_bytes) = (AtomicU64::new(0), manifest.num_bytes());
    let bytes_done = |bytes| progress(done.fetch_add(bytes, Ordering::Relaxed) + bytes, num_bytes);
    let mut found = Vec::new();
    for split in manifest.splits.values() {
        found.extend(check_split(folder, split, &manifest, &bytes_done));
    }
    Ok(VerifyReport {
        num_shards: manifest.splits.values().map(|split| split.shards.len() as u64).sum(),
        num_samples: manifest.splits.values().map(|split| split.num_samples).sum(),
        num_bytes,
        problems: found,
    })
}

fn check_split(
    folder: &Path,
    split: &TokenSplit,
    manifest: &TokenManifest,
    bytes_done: &(dyn Fn(u64) + Sync),
) -> Vec<Problem> {
    let (mut found, mut last) = (Vec::new(), None);
    let mut sum = Histograms::new(&manifest.levels, manifest.num_classes);
    // As many at a time as are checked together: each counts codes of its own.
    for entries in split.shards.chunks(rayon::current_num_threads().max(1)) {
        let check = |entry: &ShardEntry| {
            let checked = check_shard(folder, entry, manifest);
            bytes_done(entry.bytes);
            checked
        };
        let checked: Vec<Checked> = entries.par_iter().map(check).collect();
        for (entry, mut shard) in entries.iter().zip(checked) {
            let path = folder.join(&entry.file);
            if let (Some(before), Some((first, _))) = (last, shard.ids)
                && first <= before
            {
                let twice = format!("shard {} has samples of the one before it", path.display());
                shard.messages.push(twice);
            }
            last = shard.ids.map(|(_, last)| last).or(last);
            sum.merge(&shard.counted);
            found.extend(problems(&path, shard.messages));
        }
    }
    let store = Store::Local(folder.to_owned());
    let path = folder.join(&split.histograms.file);
    match Histograms::read(&store, &split.histograms, manifest) {
        Err(error) => found.extend(problems(&path, vec![message_of(error)])),
        Ok(written) if found.is_empty() && written != sum => {
            let message = format!("{} has not the counts of its shards", path.display());
            found.extend(problems(&path, vec![message]));
        }
        Ok(_) => {}
    }
    found
}

fn check_shard(folder: &Path, entry: &ShardEntry, manifest: &TokenManifest) -> Checked {
    let store = Store::Local(folder.to_owned());
    let mut counted = Histograms::new(&manifest.levels, manifest.num_classes);
    let path = folder.join(&entry.file);
    let shard = match OpenShard::open(path.clone(), store.open(&entry.file), entry, manifest) {
        Ok(shard) => shard,
        Err(error) => return Checked { messages: vec![message_of(error)], ids: None, counted },
    };
    let mut messages: Vec<String> =
        shard.check_hash(entry).err().map(message_of).into_iter().collect();
    let mut sample = vec![0; manifest.token_shape().num_bytes()];
    let mut check = |index| -> Result<(), DataError> {
        // The first variant last: it is counted.
        for variant in (0..manifest.variants.len() as u64).rev() {
            shard.read(index, variant, &mut sample)?;
        }
        counted.add(&manifest.levels, &sample, shard.label(index)?);
        Ok(())
    };
    messages.extend(damaged_samples(&path, entry.num_samples, &mut check));
    let ids = shard.ids().first().copied().zip(shard.ids().last().copied());
    Checked { messages, ids, counted }
}
