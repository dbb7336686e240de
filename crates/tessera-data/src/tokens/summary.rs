//! What a token set is, in a few lines, from its manifest and its histograms.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::DataError;
use crate::inspect::as_text;
use crate::manifest::{Grouping, MANIFEST_FILE, SourceDescription, is_of_tokens};
use crate::shape::SampleShape;
use crate::store::Store;
use crate::tokens::baselines::{Baselines, baselines};
use crate::tokens::histograms::Histograms;
use crate::tokens::manifest::{self, TokenLevel, TokenManifest, TokenSplit};

/// What a token set is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TokenSetSummary {
    /// The folder that was asked for; in JSON, what of its name is not UTF-8 is replaced.
    #[serde(serialize_with = "as_text")]
    pub path: PathBuf,
    /// Version of its format.
    pub version: u32,
    /// Identity of the set: SHA-256 of its manifest.
    pub fingerprint: String,
    /// Hash of the tokeniser.
    pub tokenizer: String,
    /// Shape of every sample that was encoded.
    pub shape: SampleShape,
    /// Codes of one variant of a sample, of all levels together.
    pub num_tokens: usize,
    /// The levels of codes, the finest first.
    pub levels: Vec<TokenLevel>,
    /// What was encoded of each sample.
    pub variants: Vec<String>,
    /// Names of the classes by their numbers.
    pub classes: Vec<String>,
    /// Number of classes; none without labels.
    pub num_classes: Option<u64>,
    /// Which samples were made from one file; none if that is not known.
    pub groups: Option<Grouping>,
    /// What was encoded.
    pub source: SourceDescription,
    /// Bytes of all shard files.
    pub num_bytes: u64,
    /// The splits by name.
    pub splits: BTreeMap<String, TokenSplitSummary>,
    /// Nats a token of the split `test`, by the counts of `train`; none where there are not both.
    pub baselines: Option<Baselines>,
}

/// One split of a token set.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TokenSplitSummary {
    /// Number of samples.
    pub num_samples: u64,
    /// Samples that have a label.
    pub num_labels: u64,
    /// Samples that were left out, since they could not be read.
    pub num_skipped: usize,
    /// Number of shard files.
    pub num_shards: usize,
    /// Bytes of the shard files.
    pub num_bytes: u64,
    /// How the codes of each level are used; none where the histograms are damaged.
    pub levels: Option<Vec<LevelSummary>>,
}

/// How the codes of one level are used.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LevelSummary {
    /// Codes that came at all.
    pub num_used: usize,
    /// Exponential of the entropy of codes, from 1 to K.
    pub perplexity: f64,
}

/// Whether a folder holds a token set, of whatever version.
pub fn is_token_set(folder: &Path) -> bool {
    fs::read(folder.join(MANIFEST_FILE)).is_ok_and(|text| is_of_tokens(&text))
}

/// Describes the token set in `folder`. Reads the manifest and the histograms; what is damaged is told
/// by [`crate::verify`].
///
/// # Errors
///
/// [`DataError::NoTokens`], [`DataError::Tokens`] or [`DataError::Read`].
pub fn inspect(folder: &Path) -> Result<TokenSetSummary, DataError> {
    let store = Store::Local(folder.to_owned());
    let (manifest, fingerprint) = manifest::read_from(&store, folder)?;
    let mut histograms = BTreeMap::new();
    for (name, split) in &manifest.splits {
        let read = Histograms::read(&store, &split.histograms, &manifest);
        histograms.extend(read.ok().map(|read| (name.as_str(), read)));
    }
    let both = histograms.get("train").zip(histograms.get("test"));
    let baselines = both.and_then(|(train, test)| baselines(train, test)).map(|both| both.all);
    let summary = |(name, split): (&String, &TokenSplit)| {
        (name.clone(), of_split(split, histograms.get(name.as_str())))
    };
    let splits = manifest.splits.iter().map(summary).collect();
    let (num_tokens, num_bytes) = (manifest.num_tokens(), manifest.num_bytes());
    let TokenManifest {
        version,
        tokenizer,
        shape,
        levels,
        variants,
        groups,
        classes,
        num_classes,
        source,
        ..
    } = manifest;
    Ok(TokenSetSummary {
        path: folder.to_owned(),
        version,
        fingerprint,
        tokenizer,
        shape,
        num_tokens,
        levels,
        variants,
        classes,
        num_classes,
        groups,
        source,
        num_bytes,
        splits,
        baselines,
    })
}

fn of_split(split: &TokenSplit, histograms: Option<&Histograms>) -> TokenSplitSummary {
    let level = |histograms: &Histograms, level| LevelSummary {
        num_used: histograms.num_used(level),
        perplexity: histograms.perplexity(level),
    };
    let levels = histograms
        .map(|counted| (0..counted.levels.len()).map(|number| level(counted, number)).collect());
    TokenSplitSummary {
        num_samples: split.num_samples,
        num_labels: split.num_labels,
        num_skipped: split.skipped.len(),
        num_shards: split.shards.len(),
        num_bytes: split.num_bytes(),
        levels,
    }
}
