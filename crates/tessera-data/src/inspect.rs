//! What a data set is, in a few lines, from its manifest; of its shards only labels are read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

use crate::error::DataError;
use crate::manifest::{self, Grouping, Manifest, SourceDescription, SplitEntry};
use crate::shape::SampleShape;
use crate::shard::Shard;
use crate::store::Store;

/// What a packed data set is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DatasetSummary {
    /// The folder that was asked for; in JSON, what of its name is not UTF-8 is replaced.
    #[serde(serialize_with = "as_text")]
    pub path: PathBuf,
    /// Version of its format.
    pub version: u32,
    /// Identity of the data set: SHA-256 of its manifest.
    pub fingerprint: String,
    /// What was packed.
    pub source: SourceDescription,
    /// Shape of every sample.
    pub shape: SampleShape,
    /// Names of the classes by their numbers.
    pub classes: Vec<String>,
    /// Number of classes; none without labels, or where an older version did not note it and labels
    /// cannot be read.
    pub num_classes: Option<u64>,
    /// Which samples were made from one file; none if an older version packed it and did not note it.
    pub groups: Option<Grouping>,
    /// Bytes of all shard files.
    pub num_bytes: u64,
    /// The splits by name.
    pub splits: BTreeMap<String, SplitSummary>,
}

pub(crate) fn as_text<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}

/// One split of a packed data set.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SplitSummary {
    /// Number of samples.
    pub num_samples: u64,
    /// Number of shard files.
    pub num_shards: usize,
    /// Bytes of the shard files.
    pub num_bytes: u64,
    /// Whether there is a label for each sample.
    pub labels: bool,
    /// Samples of each class, by its number; none without labels, or where they cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub samples_per_class: Option<Vec<u64>>,
    /// Mean of the pixels of each channel, with bytes scaled to [0, 1].
    pub pixel_mean: Vec<f64>,
    /// Population variance of the pixels of each channel, with bytes scaled to [0, 1].
    pub pixel_variance: Vec<f64>,
}

/// Most classes that are counted one by one.
const MAX_COUNTED: u64 = 1 << 20;

/// Describes the data set in `folder`. Reads the manifest, and of each shard its labels; what is
/// damaged is told by [`crate::verify`].
///
/// # Errors
///
/// [`DataError::NoDataset`], [`DataError::Manifest`] or [`DataError::Read`].
pub fn inspect(folder: &Path) -> Result<DatasetSummary, DataError> {
    let (manifest, fingerprint) = manifest::read_with_hash(folder)?;
    let num_bytes = manifest.num_bytes();
    let mut labels = BTreeMap::new();
    for (name, split) in &manifest.splits {
        labels.extend(labels_of(folder, split, &manifest).map(|found| (name.clone(), found)));
    }
    let largest = labels.values().flatten().max();
    let counted = largest.map(|largest| (largest + 1) as u64);
    let has_labels = manifest.splits.values().any(|split| split.labels);
    let num_classes = manifest.noted_classes().or(counted).filter(|_| has_labels);
    let mut splits = BTreeMap::new();
    for (name, split) in manifest.splits {
        let summary = SplitSummary {
            num_samples: split.num_samples,
            num_shards: split.shards.len(),
            num_bytes: split.num_bytes(),
            labels: split.labels,
            samples_per_class: num_classes
                .zip(labels.get(&name))
                .and_then(|(classes, labels)| per_class(labels, classes)),
            pixel_mean: split.pixel_mean,
            pixel_variance: split.pixel_variance,
        };
        splits.insert(name, summary);
    }
    Ok(DatasetSummary {
        path: folder.to_owned(),
        version: manifest.version,
        fingerprint,
        source: manifest.source,
        shape: manifest.shape,
        classes: manifest.classes,
        num_classes,
        groups: manifest.groups,
        num_bytes,
        splits,
    })
}

/// All labels of a split; none if it has none, or one of its shards cannot be read.
fn labels_of(folder: &Path, split: &SplitEntry, manifest: &Manifest) -> Option<Vec<i64>> {
    if !split.labels {
        return None;
    }
    let store = Store::Local(folder.to_owned());
    let mut all = Vec::new();
    for entry in &split.shards {
        let blob = store.open(&entry.file);
        let shard = Shard::open(store.path(&entry.file), blob, entry, manifest).ok()?;
        all.extend(shard.labels().ok()??);
    }
    Some(all)
}

/// How many of the labels are of each class; none if one is of no class.
fn per_class(labels: &[i64], num_classes: u64) -> Option<Vec<u64>> {
    if num_classes > MAX_COUNTED {
        return None;
    }
    let mut counts = vec![0; num_classes as usize];
    for label in labels {
        *counts.get_mut(usize::try_from(*label).ok()?)? += 1;
    }
    Some(counts)
}
