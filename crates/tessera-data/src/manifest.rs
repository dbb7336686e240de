//! `manifest.json`: what a packed data set consists of.
//!
//! The manifest is written last, so a folder with a manifest is complete. It holds no time
//! and no absolute path: packing the same input twice gives the same bytes, and its hash is
//! the identity of the data set ([`crate::Source::fingerprint`]).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{DataError, one_line};
use crate::file;
use crate::shape::Modality;
use crate::shape::SampleShape;
use crate::store::{self, Store};

/// Name of the manifest inside the folder of a data set.
pub const MANIFEST_FILE: &str = "manifest.json";

/// Newest version of the format: the one that notes which samples were made from one file. Where
/// each sample is a file of its own, audio, video and compressed samples are written as version 2,
/// and pictures that are not compressed as version 1, which older programs read as well.
pub const FORMAT_VERSION: u32 = 3;

/// Value of `format` in every manifest.
const FORMAT: &str = "tessera-dataset";

/// The same of a token set, whose manifest is another one (`tokens/manifest.rs`).
pub(crate) const TOKENS_FORMAT: &str = "tessera-tokens";

/// What a packed data set consists of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Always `tessera-dataset`.
    pub format: String,
    /// Version of the format, at most [`FORMAT_VERSION`].
    pub version: u32,
    /// How samples are compressed, each on its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
    /// Which samples were made from one file; none if an older program packed it, which did not
    /// note it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<Grouping>,
    /// Names of the classes by their numbers, the same in every split; empty where they have none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<String>,
    /// Number of classes where they have no names: one more than the largest label of all splits.
    /// None if there are no labels, or an older program packed it, which did not note it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_classes: Option<u64>,
    /// Shape of every sample.
    pub shape: SampleShape,
    /// What was packed.
    pub source: SourceDescription,
    /// The splits by name.
    pub splits: BTreeMap<String, SplitEntry>,
}

/// What was packed: for people, never read back by the program.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SourceDescription {
    /// Format of the input, as given to `tessera data pack --format`.
    pub format: String,
    /// Names of the input files, without their folders.
    pub files: Vec<String>,
    /// How samples came to their split, and what was left out: lines for a person.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// One split of a data set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SplitEntry {
    /// Samples in all shards together.
    pub num_samples: u64,
    /// Whether the shards hold a label for each sample.
    pub labels: bool,
    /// Mean of each channel, with bytes scaled to [0, 1] and audio to [-1, 1].
    pub pixel_mean: Vec<f64>,
    /// Population variance of each channel, in the same scale.
    pub pixel_variance: Vec<f64>,
    /// Names of samples that could not be read and were left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<String>,
    /// The shards in the order of their samples.
    pub shards: Vec<ShardEntry>,
}

/// One shard file of a split.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ShardEntry {
    /// Name of the file inside the folder of the data set, without any folder.
    pub file: String,
    /// Samples in this shard.
    pub num_samples: u64,
    /// Length of the file.
    pub bytes: u64,
    /// SHA-256 of the file, lower-case hex.
    pub sha256: String,
}

/// Which samples were made from one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grouping {
    /// Each sample is a file, or a record, of its own.
    Single,
    /// The tensor `groups` of each shard says it.
    Recorded,
}

/// How samples are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// Zstandard, RFC 8878.
    Zstd,
}

/// What is read of a manifest before anything else, so that a newer format is named as such.
#[derive(Deserialize)]
pub(crate) struct Head {
    pub(crate) format: String,
    pub(crate) version: u32,
}

impl Manifest {
    /// A manifest without splits.
    pub(crate) fn new(
        shape: SampleShape,
        compression: Option<Compression>,
        groups: Option<Grouping>,
        source: SourceDescription,
    ) -> Self {
        let is_first = shape.modality == Modality::Image && compression.is_none();
        let version = match groups {
            Some(Grouping::Recorded) => FORMAT_VERSION,
            _ if is_first => 1,
            _ => 2,
        };
        let (format, splits) = (FORMAT.to_owned(), BTreeMap::new());
        let classes = Vec::new();
        let num_classes = None;
        Self { format, version, compression, groups, classes, num_classes, shape, source, splits }
    }

    /// Number of classes, if the manifest says it.
    pub fn noted_classes(&self) -> Option<u64> {
        match self.classes.len() {
            0 => self.num_classes,
            named => Some(named as u64),
        }
    }

    /// Whether every shard says which of its samples were made from one file.
    pub(crate) fn has_groups(&self) -> bool {
        self.groups == Some(Grouping::Recorded)
    }

    /// Bytes of all shard files together.
    pub fn num_bytes(&self) -> u64 {
        self.splits.values().map(SplitEntry::num_bytes).sum()
    }

    /// Reads and checks the manifest of the data set in `folder`; opens no shard.
    ///
    /// # Errors
    ///
    /// [`DataError::NoDataset`] if there is none, [`DataError::Manifest`] if it cannot be
    /// used, [`DataError::Read`] if the system refuses.
    pub fn read(folder: &Path) -> Result<Self, DataError> {
        read_with_hash(folder).map(|(manifest, _)| manifest)
    }

    /// Writes the manifest into `folder`, which completes the data set.
    pub(crate) fn write(&self, folder: &Path) -> Result<(), DataError> {
        let mut text = serde_json::to_vec_pretty(self).expect("a manifest is plain data");
        text.push(b'\n');
        file::write_synced(&folder.join(MANIFEST_FILE), &[&text]).map(|_| ())
    }

    /// Checks all that needs no other file; the error completes "manifest.json ...".
    fn check(&self) -> Result<(), String> {
        self.shape.check()?;
        if self.shape.modality == Modality::Tokens {
            return Err(
                "says that samples are tokens, which packed data sets do not hold".to_owned()
            );
        }
        if let (named @ 1.., Some(counted)) = (self.classes.len(), self.num_classes)
            && named as u64 != counted
        {
            return Err(format!("names {named} classes and says that there are {counted}"));
        }
        let mut files = BTreeSet::new();
        for (name, split) in &self.splits {
            check_shards(name, split.num_samples, &split.shards, &mut files)?;
        }
        Ok(())
    }
}

/// Checks the shards of a split, among `files` that were named before; the error completes
/// "manifest.json ...".
pub(crate) fn check_shards<'a>(
    split: &str,
    num_samples: u64,
    shards: &'a [ShardEntry],
    files: &mut BTreeSet<&'a str>,
) -> Result<(), String> {
    let mut total = 0u64;
    for shard in shards {
        check_file(&shard.file, files)?;
        if shard.num_samples == 0 {
            return Err(format!("says that shard {:?} is empty", shard.file));
        }
        total = total.saturating_add(shard.num_samples);
    }
    if total != num_samples {
        return Err(format!(
            "promises {num_samples} samples in split {split:?}, but its shards hold {total}"
        ));
    }
    Ok(())
}

/// Checks the name of a file, which no other of the folder has.
pub(crate) fn check_file<'a>(file: &'a str, files: &mut BTreeSet<&'a str>) -> Result<(), String> {
    if !is_plain_name(file) {
        return Err(format!("names a shard outside its folder: {file:?}"));
    }
    if !files.insert(file) {
        return Err(format!("names shard {file:?} twice"));
    }
    Ok(())
}

impl SplitEntry {
    /// Bytes of this split's shard files together.
    pub fn num_bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.bytes).fold(0, u64::saturating_add)
    }
}

/// The manifest of `folder`, checked, and the SHA-256 of the file it came from.
pub(crate) fn read_with_hash(folder: &Path) -> Result<(Manifest, String), DataError> {
    read_from(&Store::Local(folder.to_owned()), folder)
}

/// The same of a folder that may lie elsewhere.
pub(crate) fn read_from(store: &Store, folder: &Path) -> Result<(Manifest, String), DataError> {
    let path = store.path(MANIFEST_FILE);
    let text = store.read(MANIFEST_FILE).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            DataError::NoDataset { path: store::shown(folder) }
        }
        _ => DataError::Read { path: path.clone(), source },
    })?;
    if is_of_tokens(&text) {
        let problem = "is packed, and data.path a token set: set it to \"tokens\"".to_owned();
        return Err(DataError::Config { key: "kind", problem });
    }
    let manifest = parse(&text)
        .map_err(|problem| DataError::Manifest { path, problem: one_line(&problem) })?;
    Ok((manifest, file::sha256_of(&text)))
}

/// Whether a manifest is that of a token set, of whatever version.
pub(crate) fn is_of_tokens(text: &[u8]) -> bool {
    serde_json::from_slice::<Head>(text).is_ok_and(|head| head.format == TOKENS_FORMAT)
}

/// Path of a shard; its name was checked when the manifest was read.
pub(crate) fn shard_path(folder: &Path, shard: &ShardEntry) -> PathBuf {
    folder.join(&shard.file)
}

fn parse(text: &[u8]) -> Result<Manifest, String> {
    let head: Head =
        serde_json::from_slice(text).map_err(|error| format!("is not a manifest ({error})"))?;
    if head.format != FORMAT {
        return Err(format!("has format {:?}, not {FORMAT:?}", head.format));
    }
    if !(1..=FORMAT_VERSION).contains(&head.version) {
        let version = head.version;
        return Err(format!("has version {version}, this program reads 1 to {FORMAT_VERSION}"));
    }
    let manifest: Manifest =
        serde_json::from_slice(text).map_err(|error| format!("is damaged ({error})"))?;
    manifest.check()?;
    Ok(manifest)
}

/// Whether `name` is one visible file name: it cannot lead out of the folder.
fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(file: &str) -> Manifest {
        let shape = SampleShape::image(1, 2, 2);
        let source = SourceDescription { format: "idx".to_owned(), files: vec![], notes: vec![] };
        let mut manifest = Manifest::new(shape, None, Some(Grouping::Single), source);
        let shard =
            ShardEntry { file: file.to_owned(), num_samples: 3, bytes: 100, ..Default::default() };
        let split = SplitEntry {
            num_samples: 3,
            labels: false,
            pixel_mean: vec![0.1],
            pixel_variance: vec![0.2],
            skipped: vec![],
            shards: vec![shard],
        };
        manifest.splits.insert("train".to_owned(), split);
        manifest
    }

    #[test]
    fn a_written_manifest_is_read_back_equal() {
        let folder = tempfile::tempdir().unwrap();
        let written = manifest("train-00000.safetensors");
        written.write(folder.path()).unwrap();
        assert_eq!(Manifest::read(folder.path()).unwrap(), written);
    }

    #[test]
    fn names_that_lead_out_of_the_folder_are_refused() {
        for name in ["../a", "/etc/passwd", "a/b", "..", ".", "", ".hidden", "a\\b"] {
            let problem = manifest(name).check().unwrap_err();
            assert!(problem.starts_with("names a shard outside its folder"), "{problem}");
        }
    }

    #[test]
    fn counts_that_do_not_add_up_are_refused() {
        let mut wrong = manifest("a");
        wrong.splits.get_mut("train").unwrap().num_samples = 4;
        assert!(wrong.check().unwrap_err().contains("promises 4 samples"));
        let mut twice = manifest("a");
        let split = twice.splits["train"].clone();
        twice.splits.insert("test".to_owned(), split);
        assert!(twice.check().unwrap_err().contains("twice"));
    }

    #[test]
    fn classes_are_as_many_as_have_names() {
        let mut of_two = Manifest { num_classes: Some(7), ..manifest("a") };
        assert_eq!((of_two.check(), of_two.noted_classes()), (Ok(()), Some(7)));
        of_two.classes = vec!["cat".to_owned(), "dog".to_owned()];
        assert_eq!(of_two.check().unwrap_err(), "names 2 classes and says that there are 7");
        of_two.num_classes = None;
        assert_eq!((of_two.check(), of_two.noted_classes()), (Ok(()), Some(2)));
    }

    #[test]
    fn another_version_or_format_is_named() {
        let other = br#"{"format":"tessera-dataset","version":4,"new":[]}"#;
        assert_eq!(parse(other).unwrap_err(), "has version 4, this program reads 1 to 3");
        let foreign = br#"{"format":"else","version":1}"#;
        assert!(parse(foreign).unwrap_err().starts_with("has format \"else\""));
        assert!(parse(b"{").unwrap_err().starts_with("is not a manifest"));
    }
}
