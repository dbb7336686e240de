//! Samples from a data set that `tessera data pack` wrote.
//!
//! All shards of the split stay open, one file descriptor each. Nothing is cached here: the
//! page cache does that better, and for all ranks of a host at once.

use std::path::{Path, PathBuf};

use crate::config::{DataConfig, OnCorrupt, VerifyMode};
use crate::draw::Draw;
use crate::error::DataError;
use crate::manifest::{self, Manifest};
use crate::shape::SampleShape;
use crate::shard::Shard;
use crate::source::{Source, assert_read};
use crate::store::Store;

/// Up to this size [`VerifyMode::Auto`] hashes every shard: about a second.
const AUTO_VERIFY_BYTES: u64 = 256 << 20;

/// One split of a packed data set, opened and checked.
pub struct PackedSource {
    shape: SampleShape,
    fingerprint: String,
    /// The shards; or why one of them is skipped.
    shards: Vec<Result<Shard, Skipped>>,
    /// Number of the first sample of each shard, and at the end the number of samples.
    starts: Vec<u64>,
}

/// A shard that was damaged when the data set was opened.
struct Skipped {
    path: PathBuf,
    problem: String,
}

impl PackedSource {
    /// Opens `split` of the data set at `config.path` and checks manifest, lengths and headers,
    /// and the hash of each shard if `config.verify` says so.
    ///
    /// # Errors
    ///
    /// [`DataError::NoDataset`], [`DataError::NoSplit`], [`DataError::Manifest`],
    /// [`DataError::Truncated`], [`DataError::Shard`], [`DataError::Remote`] or
    /// [`DataError::Read`].
    pub fn open(config: &DataConfig, split: &str) -> Result<Self, DataError> {
        let DataConfig { path: folder, verify, .. } = config;
        let store = Store::at(folder, &config.remote)?;
        let (manifest, fingerprint) = manifest::read_from(&store, folder)?;
        let entry = match manifest.splits.get(split) {
            Some(entry) if entry.num_samples > 0 => entry,
            _ => return Err(no_split(folder, split, &manifest)),
        };
        let hashed = match verify {
            VerifyMode::Auto => {
                manifest.num_bytes() <= AUTO_VERIFY_BYTES && matches!(store, Store::Local(_))
            }
            VerifyMode::Always => true,
            VerifyMode::Never => false,
        };
        let mut shards = Vec::with_capacity(entry.shards.len());
        let mut starts = vec![0];
        let mut total = 0;
        let names: Vec<&str> = entry.shards.iter().map(|shard| shard.file.as_str()).collect();
        for (shard, blob) in entry.shards.iter().zip(store.open_all(&names)) {
            let path = store.path(&shard.file);
            let open = Shard::open(path.clone(), blob, shard, manifest.shape, manifest.compression);
            let checked = open.and_then(|open| match hashed {
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
        if let Some(Err(Skipped { path, .. })) = shards.first()
            && shards.iter().all(Result::is_err)
        {
            let problem = "is damaged, as is every other one of its split".to_owned();
            return Err(DataError::Shard { path: path.clone(), problem });
        }
        tracing::debug!(split, num_samples = total, num_shards = shards.len(), hashed, "opened");
        Ok(Self { shape: manifest.shape, fingerprint, shards, starts })
    }
}

impl Source for PackedSource {
    fn num_samples(&self) -> u64 {
        self.starts[self.shards.len()]
    }

    fn shape(&self) -> SampleShape {
        self.shape
    }

    fn read(&self, id: u64, _draw: Draw, out: &mut [u8]) -> Result<(), DataError> {
        assert_read(self, id, out);
        let shard = self.starts.partition_point(|&start| start <= id) - 1;
        let sample = id - self.starts[shard];
        match &self.shards[shard] {
            Ok(shard) => shard.read(sample, out),
            Err(Skipped { path, problem }) => Err(DataError::CorruptSample {
                shard: path.clone(),
                sample,
                problem: format!("cannot be read, since {problem}"),
            }),
        }
    }

    fn shard_starts(&self) -> Vec<u64> {
        self.starts.clone()
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }
}

fn no_split(folder: &Path, split: &str, manifest: &Manifest) -> DataError {
    let names: Vec<&str> = manifest.splits.keys().map(String::as_str).collect();
    let available = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    DataError::NoSplit { path: folder.to_owned(), split: split.to_owned(), available }
}
