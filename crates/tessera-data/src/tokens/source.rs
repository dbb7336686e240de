//! Samples from a token set: the codes of a sample, level after level.
//!
//! A code is an unsigned 32-bit integer, little endian, whatever it takes on disk. In training the
//! variant of a sample is drawn by seed, epoch and sample; an evaluation reads the first one.

use std::path::{Path, PathBuf};

use crate::config::{DataConfig, OnCorrupt, VerifyMode};
use crate::draw::{Draw, Purpose};
use crate::error::DataError;
use crate::manifest::Grouping;
use crate::samples::{Groups, Source, assert_read};
use crate::shape::SampleShape;
use crate::store::{self, Store};
use crate::tokens::histograms::Histograms;
use crate::tokens::manifest::{self, FileEntry, TokenInfo, TokenManifest};
use crate::tokens::shard::OpenShard;

/// Up to this size [`VerifyMode::Auto`] hashes every shard: about a second.
const AUTO_VERIFY_BYTES: u64 = 256 << 20;

/// One split of a token set, opened and checked.
pub struct TokenSource {
    store: Store,
    manifest: TokenManifest,
    info: TokenInfo,
    fingerprint: String,
    /// The shards; or why one of them is skipped.
    shards: Vec<Result<OpenShard, Skipped>>,
    /// Number of the first sample of each shard, and at the end the number of samples.
    starts: Vec<u64>,
    has_labels: bool,
    histograms: FileEntry,
    /// Names of samples that were left out when it was made.
    skipped: Vec<String>,
}

/// A shard that was damaged when the token set was opened.
struct Skipped {
    path: PathBuf,
    problem: String,
}

impl TokenSource {
    /// Opens `split` of the token set at `config.path` and checks manifest, lengths and headers, and
    /// the hash of each shard if `config.verify` says so.
    ///
    /// # Errors
    ///
    /// [`DataError::NoTokens`], [`DataError::NoSplit`], [`DataError::Tokens`],
    /// [`DataError::DamagedTokens`], [`DataError::Shard`], [`DataError::Remote`] or
    /// [`DataError::Read`].
    pub fn open(config: &DataConfig, split: &str) -> Result<Self, DataError> {
        let DataConfig { path: folder, verify, .. } = config;
        let store = Store::at(folder, &config.remote)?;
        let (manifest, fingerprint) = manifest::read_from(&store, folder)?;
        let entry = match manifest.splits.get(split) {
            Some(entry) if entry.num_samples > 0 => entry.clone(),
            _ => return Err(no_split(folder, split, &manifest)),
        };
        let is_hashed = match verify {
            VerifyMode::Auto => {
                manifest.num_bytes() <= AUTO_VERIFY_BYTES && matches!(store, Store::Local(_))
            }
            VerifyMode::Always => true,
            VerifyMode::Never => false,
        };
        let (mut shards, mut starts, mut total) = (Vec::new(), vec![0], 0);
        let names: Vec<&str> = entry.shards.iter().map(|shard| shard.file.as_str()).collect();
        for (shard, blob) in entry.shards.iter().zip(store.open_all(&names)) {
            let path = store.path(&shard.file);
            let open = OpenShard::open(path.clone(), blob, shard, &manifest);
            let checked = open.and_then(|open| match is_hashed {
                true => open.check_hash(shard).map(|()| open),
                false => Ok(open),
            });
            shards.push(match checked {
                Ok(open) => Ok(open),
                // Its samples keep their numbers, so the order of all others stays.
                Err(error) if config.on_corrupt == OnCorrupt::Skip => {
                    tracing::warn!(%error, "shard skipped");
                    Err(Skipped { path, problem: error.to_string() })
                }
                Err(error) => return Err(error),
            });
            total += shard.num_samples;
            starts.push(total);
        }
        if shards.iter().all(Result::is_err) {
            let problem = "has no shard in this split that is whole".to_owned();
            return Err(DataError::NothingReadable { path: store::shown(folder), problem });
        }
        tracing::debug!(split, num_samples = total, num_shards = shards.len(), is_hashed, "opened");
        let info = TokenInfo {
            tokenizer: manifest.tokenizer.clone(),
            shape: manifest.shape,
            levels: manifest.levels.clone(),
            variants: manifest.variants.clone(),
        };
        let (has_labels, histograms, skipped) =
            (entry.num_labels > 0, entry.histograms, entry.skipped);
        Ok(Self {
            store,
            manifest,
            info,
            fingerprint,
            shards,
            starts,
            has_labels,
            histograms,
            skipped,
        })
    }

    /// The shard of a sample, and the sample's number in it.
    fn place(&self, id: u64) -> Result<(&OpenShard, u64), DataError> {
        let shard = self.starts.partition_point(|&start| start <= id) - 1;
        let sample = id - self.starts[shard];
        match &self.shards[shard] {
            Ok(shard) => Ok((shard, sample)),
            Err(Skipped { path, problem }) => {
                let problem = format!("cannot be read, since {problem}");
                Err(DataError::CorruptSample { shard: path.clone(), sample, problem })
            }
        }
    }
}

impl Source for TokenSource {
    fn num_samples(&self) -> u64 {
        self.starts[self.shards.len()]
    }

    fn shape(&self) -> SampleShape {
        self.manifest.token_shape()
    }

    fn read(&self, id: u64, draw: Draw, out: &mut [u8]) -> Result<(), DataError> {
        assert_read(self, id, out);
        let variant = draw.one_of(Purpose::Variant, self.info.variants.len() as u64);
        let (shard, sample) = self.place(id)?;
        shard.read(sample, variant, out)
    }

    fn label(&self, id: u64) -> Result<Option<i64>, DataError> {
        if !self.has_labels {
            return Ok(None);
        }
        let (shard, sample) = self.place(id)?;
        shard.label(sample)
    }

    fn has_labels(&self) -> bool {
        self.has_labels
    }

    fn num_classes(&self) -> Result<Option<u64>, DataError> {
        Ok(self.manifest.num_classes.filter(|_| self.has_labels))
    }

    fn groups(&self) -> Result<Groups, DataError> {
        match self.manifest.groups {
            None => return Ok(Groups::Unknown),
            Some(Grouping::Single) => return Ok(Groups::Single),
            Some(Grouping::Recorded) => {}
        }
        let (mut firsts, mut last) = (Vec::new(), None);
        for at in &self.starts[..self.shards.len()] {
            let (shard, _) = self.place(*at)?;
            for group in shard.groups()?.expect("it was there when the shard was opened") {
                let first = match last {
                    Some((known, first)) if known == group => first,
                    _ => firsts.len() as u64,
                };
                last = Some((group, first));
                firsts.push(first);
            }
        }
        Ok(Groups::Of(firsts))
    }

    fn classes(&self) -> Vec<String> {
        self.manifest.classes.clone()
    }

    /// Its number in the split that was encoded; that in this split where its shard is damaged.
    fn name(&self, id: u64) -> String {
        let known = self.place(id).map(|(shard, sample)| shard.ids()[sample as usize]);
        known.unwrap_or(id).to_string()
    }

    fn notes(&self) -> Vec<String> {
        match self.skipped.len() {
            0 => Vec::new(),
            num => vec![format!("{num} samples could not be read when they were encoded")],
        }
    }

    fn shard_starts(&self) -> Vec<u64> {
        self.starts.clone()
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }

    fn tokens(&self) -> Option<&TokenInfo> {
        Some(&self.info)
    }

    fn histograms(&self) -> Result<Option<Histograms>, DataError> {
        Histograms::read(&self.store, &self.histograms, &self.manifest).map(Some)
    }
}

fn no_split(folder: &Path, split: &str, manifest: &TokenManifest) -> DataError {
    let names: Vec<&str> = manifest.splits.keys().map(String::as_str).collect();
    let available = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    DataError::NoSplit { path: store::shown(folder), split: split.to_owned(), available }
}
