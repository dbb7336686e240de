//! Packing: from a data set as published to shards with checksums.
//!
//! Any source can be packed. Samples of a shard are read and decoded on all processors; a shard
//! is held in memory until it is written. The whole data set is written into a folder beside the
//! target and renamed at the end, so the target is complete or absent; a target that exists and is
//! empty may be a volume, and is written inside of it, the manifest last (`partial.rs`). What a killed
//! pack had done is taken up again by the next one. The same input gives the same bytes, however many
//! processors there are and however often it was stopped.

mod moments;
mod partial;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

use self::moments::Moments;
use self::partial::{PackedShard, Partial};
use crate::config::{DataConfig, OnCorrupt};
use crate::described::{self, Split};
use crate::draw::Draw;
use crate::error::{DataError, DataErrorKind};
use crate::file;
use crate::manifest::{Compression, Manifest, SourceDescription, SplitEntry};
use crate::open::open;
use crate::samples::Source;
use crate::shape::Modality;
use crate::shard::{self, ShardContent};
use crate::target::{self, output_error, write_error};

/// Samples in a shard unless asked otherwise.
pub const DEFAULT_SHARD_SAMPLES: u64 = 8192;

/// A shard is held in memory while it is packed, so large samples make shorter shards.
const MAX_SHARD_BYTES: u64 = 256 << 20;

/// What to pack, and where to.
#[derive(Debug, Clone)]
pub struct PackOptions {
    /// The input, as a run would read it.
    pub data: DataConfig,
    /// Folder of the data set to write; must not exist, or be empty, as a volume that was mounted
    /// there is.
    pub out: PathBuf,
    /// Most samples in a shard, at least 1.
    pub shard_samples: u64,
    /// Level of zstd, from 1 to 19, for each sample on its own; none: not compressed.
    pub zstd_level: Option<i32>,
    /// What becomes of a sample that cannot be read or decoded.
    pub on_corrupt: OnCorrupt,
}

/// Called with samples done and samples in all, from many threads.
pub type PackProgress<'a> = &'a (dyn Fn(u64, u64) + Sync);

/// Packs a data set.
///
/// # Errors
///
/// The input is malformed, or the output cannot be written. After a failing disk, what was done
/// stays beside the target for the next attempt; after any other error nothing is left.
pub fn pack(options: &PackOptions, progress: PackProgress<'_>) -> Result<Manifest, DataError> {
    // Either says it: the option, or the key among those of the input.
    let on_corrupt = match options.data.on_corrupt {
        OnCorrupt::Skip => OnCorrupt::Skip,
        OnCorrupt::Fail => options.on_corrupt,
    };
    let data = DataConfig { on_corrupt, ..options.data.clone() };
    let options = &PackOptions { data, on_corrupt, ..options.clone() };
    check(options)?;
    let splits = open_splits(&options.data)?;
    described::check_shapes(&splits)
        .map_err(|problem| DataError::Folder { path: options.data.path.clone(), problem })?;
    if splits[0].1.shape().modality == Modality::Tokens {
        let problem = "is of tokens, which lie in shards with checksums already: copy their folder";
        return Err(DataError::Config { key: "kind", problem: problem.to_owned() });
    }
    let partial = Partial::open(&options.out, &identity(options, &splits))?;
    let outcome = pack_into(&partial, options, &splits, progress).and_then(|manifest| {
        partial.commit(&options.out, &manifest)?;
        Ok(manifest)
    });
    if let Err(error) = &outcome
        && !matches!(error, DataError::Write { .. })
        && error.kind() != DataErrorKind::Io
    {
        partial.remove();
    }
    outcome
}

fn check(options: &PackOptions) -> Result<(), DataError> {
    if options.shard_samples == 0 {
        return Err(output_error(&options.out, "a shard needs at least 1 sample"));
    }
    if options.zstd_level.is_some_and(|level| !(1..=19).contains(&level)) {
        return Err(output_error(&options.out, "levels of zstd are from 1 to 19"));
    }
    target::check(&options.out)
}

/// The splits that the input has; `train` is always there.
fn open_splits(config: &DataConfig) -> Result<Vec<Split<'static>>, DataError> {
    let mut splits = vec![("train", open(config, "train")?)];
    match open(config, "test") {
        Ok(test) => splits.push(("test", test)),
        Err(DataError::NoSplit { .. }) => {}
        Err(error) => return Err(error),
    }
    Ok(splits)
}

/// What has to be equal for a pack to go on where another one was stopped.
fn identity(options: &PackOptions, splits: &[Split<'_>]) -> String {
    let fingerprints: Vec<_> = splits.iter().map(|(_, source)| source.fingerprint()).collect();
    let PackOptions { shard_samples, zstd_level, on_corrupt, .. } = options;
    // Fingerprints of archives do not say how they were divided.
    let DataConfig { holdout, split, member, .. } = &options.data;
    let divided = format!("{holdout} {split:?} {member:?}");
    let described =
        format!("3 {fingerprints:?} {shard_samples} {zstd_level:?} {on_corrupt:?} {divided}");
    file::sha256_of(described.as_bytes())
}

fn pack_into(
    partial: &Partial,
    options: &PackOptions,
    splits: &[Split<'_>],
    progress: PackProgress<'_>,
) -> Result<Manifest, DataError> {
    let shape = splits[0].1.shape();
    let total = splits.iter().map(|(_, source)| source.num_samples()).sum();
    let done = AtomicU64::new(0);
    let sample_done = |count| progress(done.fetch_add(count, Ordering::Relaxed) + count, total);
    let format = serde_json::to_value(options.data.kind).expect("a kind is plain data");
    let format = format.as_str().expect("a kind is a word").to_owned();
    let compression = options.zstd_level.map(|_| Compression::Zstd);
    let (grouping, groups) = described::groups_of(splits)?;
    let (files, notes) = (described::origin_of(splits), described::notes_of(splits));
    let source = SourceDescription { format, files, notes };
    let mut manifest = Manifest::new(shape, compression, grouping, source);
    manifest.classes = splits[0].1.classes();
    for ((name, source), groups) in splits.iter().zip(&groups) {
        let most = (MAX_SHARD_BYTES / shape.num_bytes() as u64).max(1).min(options.shard_samples);
        let num_samples = source.num_samples();
        let mut packed = Vec::new();
        for (number, start) in (0..num_samples).step_by(most as usize).enumerate() {
            let ids = start..num_samples.min(start + most);
            let file = format!("{name}-{number:05}.safetensors");
            if let Some(known) = partial.take(&file)? {
                sample_done(ids.end - ids.start);
                packed.push(known);
                continue;
            }
            let (content, moments, skipped) =
                read_shard(&**source, groups.as_deref(), ids, options, &sample_done)?;
            let entry = match content.num_samples() {
                0 => None,
                _ => Some(shard::write(partial.path(), &file, shape, &content)?),
            };
            let (labels, num_labels) = (content.has_labels(), content.num_labels());
            let num_classes = content.num_classes();
            let done =
                PackedShard { file, entry, labels, num_labels, num_classes, moments, skipped };
            partial.add(&done)?;
            packed.push(done);
        }
        let num_labels: u64 = packed.iter().map(|shard| shard.num_labels).sum();
        let num_classes = packed.iter().map(|shard| shard.num_classes).max().unwrap_or(0);
        let mut entry = split_entry(&options.data.path, name, packed)?;
        entry.skipped.extend(source.skipped());
        if num_labels > 0 && !entry.labels {
            let all = entry.num_samples;
            let note = format!("no labels in {name}: {num_labels} of {all} samples have one");
            manifest.source.notes.push(note);
        }
        if entry.labels && manifest.classes.is_empty() {
            manifest.num_classes = manifest.num_classes.max(Some(num_classes));
        }
        manifest.splits.insert((*name).to_owned(), entry);
    }
    manifest.write(partial.path())?;
    Ok(manifest)
}

fn split_entry(
    input: &Path,
    name: &str,
    packed: Vec<PackedShard>,
) -> Result<SplitEntry, DataError> {
    let labels = packed.iter().all(|shard| shard.labels || shard.entry.is_none());
    let (mut shards, mut skipped, mut moments) = (Vec::new(), Vec::new(), Moments::default());
    for shard in packed {
        moments.merge(&shard.moments);
        shards.extend(shard.entry);
        skipped.extend(shard.skipped);
    }
    let num_samples: u64 = shards.iter().map(|shard| shard.num_samples).sum();
    if num_samples == 0 {
        let problem = format!(
            "has no sample in split {name} that can be read: all {} are damaged, the first is {}",
            skipped.len(),
            skipped.first().map_or("", String::as_str)
        );
        return Err(DataError::NothingReadable { path: input.to_owned(), problem });
    }
    let (pixel_mean, pixel_variance) = moments.mean_and_variance();
    Ok(SplitEntry { num_samples, labels, pixel_mean, pixel_variance, skipped, shards })
}

/// What was made of one sample.
enum Outcome {
    Read { label: Option<i64>, moments: Moments, crc32: u32, compressed: Vec<u8> },
    Skipped { name: String },
}

fn read_shard(
    source: &dyn Source,
    groups: Option<&[u64]>,
    ids: std::ops::Range<u64>,
    options: &PackOptions,
    sample_done: &(dyn Fn(u64) + Sync),
) -> Result<(ShardContent, Moments, Vec<String>), DataError> {
    let shape = source.shape();
    let mut samples = vec![0; (ids.end - ids.start) as usize * shape.num_bytes()];
    let read = |(id, out): (u64, &mut [u8])| {
        let outcome = read_sample(source, id, options, out);
        sample_done(1);
        outcome
    };
    let outcomes: Vec<Outcome> = samples
        .par_chunks_exact_mut(shape.num_bytes())
        .enumerate()
        .map(|(at, out)| read((ids.start + at as u64, out)))
        .collect::<Result<_, _>>()?;

    let (mut content, mut moments, mut skipped) =
        (ShardContent::default(), Moments::default(), Vec::new());
    let mut kept = 0;
    for (at, outcome) in outcomes.into_iter().enumerate() {
        let from = at * shape.num_bytes();
        match outcome {
            Outcome::Skipped { name } => skipped.push(name),
            Outcome::Read { label, moments: own, crc32, compressed } => {
                moments.merge(&own);
                let group = groups.map(|groups| groups[ids.start as usize + at]);
                let compressed = options.zstd_level.map(|_| compressed.as_slice());
                content.push(crc32, label, group, compressed);
                if kept < at {
                    // Behind one that was left out.
                    samples.copy_within(from..from + shape.num_bytes(), kept * shape.num_bytes());
                }
                kept += 1;
            }
        }
    }
    if options.zstd_level.is_none() {
        samples.truncate(kept * shape.num_bytes());
        content.samples = samples;
    }
    Ok((content, moments, skipped))
}

fn read_sample(
    source: &dyn Source,
    id: u64,
    options: &PackOptions,
    out: &mut [u8],
) -> Result<Outcome, DataError> {
    let label = match source.read(id, Draw::NONE, out).and_then(|()| source.label(id)) {
        Ok(label) => label,
        Err(error) if options.on_corrupt == OnCorrupt::Skip && error.is_of_one_sample() => {
            tracing::warn!(%error, "sample left out");
            return Ok(Outcome::Skipped { name: source.name(id) });
        }
        Err(error) => return Err(error),
    };
    let compressed = match options.zstd_level {
        Some(level) => {
            zstd::bulk::compress(out, level).map_err(|source| write_error(&options.out, source))?
        }
        None => Vec::new(),
    };
    let moments = Moments::of(source.shape(), out);
    Ok(Outcome::Read { label, moments, crc32: crc32fast::hash(out), compressed })
}
