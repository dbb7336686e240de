//! What a token set is to be made of: the same for every rank and every attempt.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use crate::config::DataConfig;
use crate::described;
use crate::error::DataError;
use crate::file;
use crate::manifest::SourceDescription;
use crate::samples::Source;
use crate::store;
use crate::tokens::manifest::{TokenLevel, TokenManifest};

/// Codes of a shard are held in memory, four bytes each, so long samples make shorter shards.
const MAX_SHARD_BYTES: u64 = 256 << 20;

/// What encodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokenizer {
    /// Hash of the model: of its codes, its encoder and how samples are prepared for it.
    pub hash: String,
    /// The levels of its codes, the finest first.
    pub levels: Vec<TokenLevel>,
}

/// What is encoded, and into which shards.
#[derive(Debug, Clone)]
pub struct TokenPlan {
    /// The manifest, without splits; it was checked.
    head: TokenManifest,
    splits: Vec<PlannedSplit>,
    /// Samples in a shard, at least 1.
    shard_samples: u64,
    identity: String,
}

/// One split that is encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedSplit {
    /// Its name.
    pub name: String,
    /// Its samples.
    pub num_samples: u64,
    /// Identity of its data.
    pub fingerprint: String,
    /// For each sample a number that it shares with the others of its file, where a file can be
    /// several samples.
    pub groups: Option<Vec<u64>>,
    /// Names of files that were left out when it was opened.
    pub skipped: Vec<String>,
}

/// One shard that is to be made, whole, by one rank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedShard {
    /// Number of its split in [`TokenPlan::splits`].
    pub split: usize,
    /// The samples of the split that are encoded into it, at least one.
    pub samples: Range<u64>,
    /// Name of its file.
    pub file: String,
}

impl TokenPlan {
    /// Plans to encode the splits of what `data` describes, by their names. `variants` says what is
    /// encoded of each sample, `"plain"` first; names of variants that are made otherwise must
    /// differ. A shard has at most `shard_samples` samples, whatever number of ranks there is.
    ///
    /// # Errors
    ///
    /// [`DataError::Folder`] if the splits are of several shapes, or codes of this tokeniser cannot
    /// be kept; as [`Source::num_classes`] and [`Source::groups`].
    ///
    /// # Panics
    ///
    /// If there is no split.
    pub fn new(
        tokenizer: &Tokenizer,
        variants: &[String],
        data: &DataConfig,
        splits: &[(&str, Arc<dyn Source>)],
        shard_samples: u64,
    ) -> Result<Self, DataError> {
        let format = serde_json::to_value(data.kind).expect("a kind is plain data");
        let format = format.as_str().expect("a kind is a word").to_owned();
        let path = match data.path.as_os_str().is_empty() {
            true => PathBuf::from(&format),
            false => store::shown(&data.path),
        };
        let refused = |problem| DataError::Folder { path: path.clone(), problem };
        described::check_shapes(splits).map_err(refused)?;
        let first = &splits[0].1;
        let source = SourceDescription {
            format,
            files: described::origin_of(splits),
            notes: described::notes_of(splits),
        };
        let levels = tokenizer.levels.clone();
        let mut head =
            TokenManifest::new(&tokenizer.hash, first.shape(), levels, variants.to_vec(), source);
        let classes: Result<Vec<_>, _> =
            splits.iter().map(|(_, source)| source.num_classes()).collect();
        match classes {
            Ok(classes) => head.num_classes = classes.into_iter().flatten().max(),
            Err(error @ DataError::Config { .. }) => {
                head.source.notes.push(format!("labels are left out, since {error}"));
            }
            Err(error) => return Err(error),
        }
        let names = first.classes();
        if head.num_classes == Some(names.len() as u64) {
            head.classes = names;
        }
        let (grouping, groups) = described::groups_of(splits)?;
        head.groups = grouping;
        head.check().map_err(|problem| refused(format!("cannot be encoded: the set {problem}")))?;
        let sample_bytes = 4 * (head.variants.len() * head.num_tokens()) as u64;
        let shard_samples = shard_samples.min(MAX_SHARD_BYTES / sample_bytes).max(1);
        let splits = splits.iter().zip(groups).map(|((name, source), groups)| PlannedSplit {
            name: (*name).to_owned(),
            num_samples: source.num_samples(),
            fingerprint: source.fingerprint(),
            groups,
            skipped: source.skipped(),
        });
        let splits: Vec<PlannedSplit> = splits.collect();
        let identity = identity(&head, &splits, data, shard_samples);
        Ok(Self { head, splits, shard_samples, identity })
    }

    /// The manifest as far as it is known before anything is encoded: without splits.
    pub fn head(&self) -> &TokenManifest {
        &self.head
    }

    /// The splits.
    pub fn splits(&self) -> &[PlannedSplit] {
        &self.splits
    }

    /// The shards of all splits, in the order of their samples. Which rank makes which is for the
    /// caller to say; the set is the same.
    pub fn shards(&self) -> Vec<PlannedShard> {
        let mut shards = Vec::new();
        for (split, PlannedSplit { name, num_samples, .. }) in self.splits.iter().enumerate() {
            for (number, start) in
                (0..*num_samples).step_by(self.shard_samples as usize).enumerate()
            {
                let samples = start..(start + self.shard_samples).min(*num_samples);
                let file = format!("{name}-{number:05}.safetensors");
                shards.push(PlannedShard { split, samples, file });
            }
        }
        shards
    }

    /// What has to be equal for a set to be made on where it was left.
    pub(super) fn identity(&self) -> &str {
        &self.identity
    }
}

fn identity(
    head: &TokenManifest,
    splits: &[PlannedSplit],
    data: &DataConfig,
    shard_samples: u64,
) -> String {
    let head = serde_json::to_string(head).expect("a manifest is plain data");
    let splits: Vec<_> =
        splits.iter().map(|split| (&split.name, split.num_samples, &split.fingerprint)).collect();
    // Fingerprints of archives do not say how they were divided.
    let DataConfig { holdout, split, member, on_corrupt, .. } = data;
    let divided = format!("{holdout} {split:?} {member:?} {on_corrupt:?}");
    file::sha256_of(format!("{head} {splits:?} {shard_samples} {divided}").as_bytes())
}
