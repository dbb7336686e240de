//! `manifest.json` of a token set.
//!
//! As that of a packed data set it is written last, and holds neither a time nor an absolute path: its
//! hash is the identity of the set.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use safetensors::Dtype;
use serde::{Deserialize, Serialize};

use crate::error::{DataError, one_line};
use crate::file;
use crate::manifest::{
    Grouping, Head, MANIFEST_FILE, ShardEntry, SourceDescription, TOKENS_FORMAT, check_file,
    check_shards,
};
use crate::shape::{Modality, SampleShape};
use crate::store::{self, Store};

/// Newest version of the format.
pub const TOKENS_VERSION: u32 = 1;

/// Most codes of a level that are believed.
const MAX_CODES: u32 = 1 << 24;

/// What a token set consists of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TokenManifest {
    /// Always `tessera-tokens`.
    pub format: String,
    /// Version of the format, at most [`TOKENS_VERSION`].
    pub version: u32,
    /// Hash of the tokeniser, by which the model is known that decodes these codes.
    pub tokenizer: String,
    /// Shape of every sample that was encoded.
    pub shape: SampleShape,
    /// The levels of codes, the finest first.
    pub levels: Vec<TokenLevel>,
    /// What was encoded of each sample, at least 1: the first is the sample as it is.
    pub variants: Vec<String>,
    /// Which samples were made from one file; none if that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<Grouping>,
    /// Names of the classes by their numbers, the same in every split; empty where they have none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<String>,
    /// Number of classes; none if there are no labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_classes: Option<u64>,
    /// What was encoded.
    pub source: SourceDescription,
    /// The splits by name.
    pub splits: BTreeMap<String, TokenSplit>,
}

/// One level of codes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenLevel {
    /// Number of codes, K: codes are below it.
    pub num_codes: u32,
    /// The grid that they lie on, in row-major order: height and width of pictures, instants of
    /// sound, frames with height and width of film.
    pub axes: Vec<u32>,
}

/// One split of a token set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TokenSplit {
    /// Samples in all shards together.
    pub num_samples: u64,
    /// Samples among them that have a label.
    pub num_labels: u64,
    /// Identity of the data that was encoded.
    pub encoded: String,
    /// Names of samples that could not be read and were left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<String>,
    /// How often each code came.
    pub histograms: FileEntry,
    /// The shards in the order of their samples.
    pub shards: Vec<ShardEntry>,
}

/// A file beside the shards.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Name of the file inside the folder of the token set, without any folder.
    pub file: String,
    /// Length of the file.
    pub bytes: u64,
    /// SHA-256 of the file, lower-case hex.
    pub sha256: String,
}

/// What the codes of a source are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenInfo {
    /// Hash of the tokeniser, by which the model is known that decodes these codes.
    pub tokenizer: String,
    /// Shape of the samples that were encoded.
    pub shape: SampleShape,
    /// The levels of codes, the finest first, one after another in a sample.
    pub levels: Vec<TokenLevel>,
    /// What was encoded of each sample: the first is the sample as it is.
    pub variants: Vec<String>,
}

impl TokenLevel {
    /// Codes of one sample.
    pub fn num_positions(&self) -> usize {
        self.axes.iter().map(|&axis| axis as usize).fold(1, usize::saturating_mul)
    }

    /// Type of the codes in a shard: the narrowest that holds them.
    pub(super) fn dtype(&self) -> Dtype {
        match self.num_codes {
            0..=0x100 => Dtype::U8,
            0x101..=0x1_0000 => Dtype::U16,
            _ => Dtype::U32,
        }
    }

    /// Bytes of a code in a shard.
    pub(super) fn width(&self) -> usize {
        self.dtype().bitsize() / 8
    }
}

impl TokenManifest {
    /// A manifest without splits.
    pub(super) fn new(
        tokenizer: &str,
        shape: SampleShape,
        levels: Vec<TokenLevel>,
        variants: Vec<String>,
        source: SourceDescription,
    ) -> Self {
        Self {
            format: TOKENS_FORMAT.to_owned(),
            version: TOKENS_VERSION,
            tokenizer: tokenizer.to_owned(),
            shape,
            levels,
            variants,
            groups: None,
            classes: Vec::new(),
            num_classes: None,
            source,
            splits: BTreeMap::new(),
        }
    }

    /// Codes of one variant of a sample, of all levels together.
    pub fn num_tokens(&self) -> usize {
        self.levels.iter().map(TokenLevel::num_positions).fold(0, usize::saturating_add)
    }

    /// Shape of a sample of the token set, which is the codes of all levels.
    pub fn token_shape(&self) -> SampleShape {
        SampleShape::tokens(u32::try_from(self.num_tokens()).unwrap_or(u32::MAX))
    }

    /// Bytes of all shard files together.
    pub fn num_bytes(&self) -> u64 {
        self.splits.values().map(TokenSplit::num_bytes).fold(0, u64::saturating_add)
    }

    /// Reads and checks the manifest of the token set in `folder`; opens no shard.
    ///
    /// # Errors
    ///
    /// [`DataError::NoTokens`] if there is none, [`DataError::Tokens`] if it cannot be used,
    /// [`DataError::Read`] if the system refuses.
    pub fn read(folder: &Path) -> Result<Self, DataError> {
        read_from(&Store::Local(folder.to_owned()), folder).map(|(manifest, _)| manifest)
    }

    /// Writes the manifest into `folder`, which completes the token set.
    pub(super) fn write(&self, folder: &Path) -> Result<(), DataError> {
        let mut text = serde_json::to_vec_pretty(self).expect("a manifest is plain data");
        text.push(b'\n');
        file::write_synced(&folder.join(MANIFEST_FILE), &[&text]).map(|_| ())
    }

    /// Checks all that needs no other file; the error completes "manifest.json ...".
    pub(super) fn check(&self) -> Result<(), String> {
        if self.tokenizer.is_empty() {
            return Err("names no tokeniser".to_owned());
        }
        self.shape.check()?;
        if self.shape.modality == Modality::Tokens {
            return Err("says that tokens were encoded, which have codes already".to_owned());
        }
        self.check_levels()?;
        self.check_variants()?;
        if let (named @ 1.., Some(counted)) = (self.classes.len(), self.num_classes)
            && named as u64 != counted
        {
            return Err(format!("names {named} classes and says that there are {counted}"));
        }
        if self.num_classes.is_some_and(|classes| i32::try_from(classes).is_err()) {
            return Err("has more classes than labels can tell apart".to_owned());
        }
        let mut files = BTreeSet::new();
        for (name, split) in &self.splits {
            check_shards(name, split.num_samples, &split.shards, &mut files)?;
            check_file(&split.histograms.file, &mut files)?;
        }
        Ok(())
    }

    fn check_levels(&self) -> Result<(), String> {
        if self.levels.is_empty() {
            return Err("has no level of codes".to_owned());
        }
        for (number, TokenLevel { num_codes, axes }) in self.levels.iter().enumerate() {
            if !(1..=MAX_CODES).contains(num_codes) {
                return Err(format!(
                    "has {num_codes} codes at level {number}, expected 1 to {MAX_CODES}"
                ));
            }
            if axes.is_empty() || axes.contains(&0) {
                return Err(format!("has a grid of {axes:?} at level {number}"));
            }
        }
        self.token_shape().check()
    }

    fn check_variants(&self) -> Result<(), String> {
        if self.variants.is_empty() {
            return Err("has no variant: name the plain one".to_owned());
        }
        let mut known = BTreeSet::new();
        match self.variants.iter().find(|variant| !known.insert(*variant)) {
            Some(twice) => Err(format!("has the variant {twice:?} twice")),
            None => Ok(()),
        }
    }
}

impl TokenSplit {
    /// Bytes of this split's shard files together.
    pub fn num_bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.bytes).fold(0, u64::saturating_add)
    }
}

/// The manifest of a folder that may lie elsewhere, checked, and the SHA-256 of the file.
pub(super) fn read_from(
    store: &Store,
    folder: &Path,
) -> Result<(TokenManifest, String), DataError> {
    let path = store.path(MANIFEST_FILE);
    let text = store.read(MANIFEST_FILE).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            DataError::NoTokens { path: store::shown(folder) }
        }
        _ => DataError::Read { path: path.clone(), source },
    })?;
    let manifest =
        parse(&text).map_err(|problem| DataError::Tokens { path, problem: one_line(&problem) })?;
    Ok((manifest, file::sha256_of(&text)))
}

fn parse(text: &[u8]) -> Result<TokenManifest, String> {
    let head: Head =
        serde_json::from_slice(text).map_err(|error| format!("is not a manifest ({error})"))?;
    if head.format != TOKENS_FORMAT {
        return Err(format!("has format {:?}, not {TOKENS_FORMAT:?}", head.format));
    }
    if !(1..=TOKENS_VERSION).contains(&head.version) {
        let version = head.version;
        return Err(format!("has version {version}, this program reads {TOKENS_VERSION}"));
    }
    let manifest: TokenManifest =
        serde_json::from_slice(text).map_err(|error| format!("is damaged ({error})"))?;
    manifest.check()?;
    Ok(manifest)
}
