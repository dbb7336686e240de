//! What a data set is, in a few lines, from its manifest alone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

use crate::error::DataError;
use crate::manifest::{self, Grouping, SourceDescription};
use crate::shape::SampleShape;

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
    /// Which samples were made from one file; none if an older version packed it and did not note it.
    pub groups: Option<Grouping>,
    /// Bytes of all shard files.
    pub num_bytes: u64,
    /// The splits by name.
    pub splits: BTreeMap<String, SplitSummary>,
}

fn as_text<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
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
    /// Mean of the pixels of each channel, with bytes scaled to [0, 1].
    pub pixel_mean: Vec<f64>,
    /// Population variance of the pixels of each channel, with bytes scaled to [0, 1].
    pub pixel_variance: Vec<f64>,
}

/// Describes the data set in `folder`. Reads the manifest only: see [`crate::verify`].
///
/// # Errors
///
/// [`DataError::NoDataset`], [`DataError::Manifest`] or [`DataError::Read`].
pub fn inspect(folder: &Path) -> Result<DatasetSummary, DataError> {
    let (manifest, fingerprint) = manifest::read_with_hash(folder)?;
    let num_bytes = manifest.num_bytes();
    let mut splits = BTreeMap::new();
    for (name, split) in manifest.splits {
        let summary = SplitSummary {
            num_samples: split.num_samples,
            num_shards: split.shards.len(),
            num_bytes: split.num_bytes(),
            labels: split.labels,
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
        groups: manifest.groups,
        num_bytes,
        splits,
    })
}
