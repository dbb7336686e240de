//! Samples from a data set that `tessera data pack` wrote.
//!
//! All shards of the split stay open, one file descriptor each. Nothing is cached here: the
//! page cache does that better, and for all ranks of a host at once.

use std::path::{Path, PathBuf};

use crate::config::{DataConfig, OnCorrupt, VerifyMode};
use crate::draw::Draw;
use crate::error::DataError;
use crate::manifest::{self, Grouping, Manifest};
use crate::samples::{Groups, Source, assert_read};
use crate::shape::SampleShape;
use crate::shard::Shard;
use crate::store::{self, Store};

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
    /// Whether all samples have labels.
    labels: bool,
    classes: Vec<String>,
    /// Number of classes, if the manifest says it.
    noted_classes: Option<u64>,
    /// Which samples were made from one file, if that was noted.
    groups: Option<Grouping>,
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
            let open = Shard::open(path.clone(), blob, shard, &manifest);
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
        let (shape, labels) = (manifest.shape, entry.labels);
        let noted_classes = manifest.noted_classes();
        let Manifest { classes, groups, .. } = manifest;
        Ok(Self { shape, fingerprint, shards, starts, labels, classes, noted_classes, groups })
    }

    /// The shard of a sample, and the sample's number in it.
    fn place(&self, id: u64) -> (&Result<Shard, Skipped>, u64) {
        let shard = self.starts.partition_point(|&start| start <= id) - 1;
        (&self.shards[shard], id - self.starts[shard])
    }
}

impl Skipped {
    fn corrupt(&self, sample: u64) -> DataError {
        let (shard, problem) = (self.path.clone(), &self.problem);
        let problem = format!("cannot be read, since {problem}");
        DataError::CorruptSample { shard, sample, problem }
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
        match self.place(id) {
            (Ok(shard), sample) => shard.read(sample, out),
            (Err(skipped), sample) => Err(skipped.corrupt(sample)),
        }
    }

    fn label(&self, id: u64) -> Result<Option<i64>, DataError> {
        match self.place(id) {
            _ if !self.labels => Ok(None),
            (Ok(shard), sample) => shard.label(sample),
            (Err(skipped), sample) => Err(skipped.corrupt(sample)),
        }
    }

    fn has_labels(&self) -> bool {
        self.labels
    }

    /// Where the manifest does not say it, one more than the largest label of this split.
    fn num_classes(&self) -> Result<Option<u64>, DataError> {
        if !self.labels || self.noted_classes.is_some() {
            return Ok(self.noted_classes.filter(|_| self.labels));
        }
        let mut largest = -1;
        for shard in self.shards.iter().flatten() {
            let labels = shard.labels()?.unwrap_or_default();
            largest = labels.into_iter().fold(largest, i64::max);
        }
        Ok(Some((largest + 1) as u64))
    }

    fn groups(&self) -> Result<Groups, DataError> {
        match self.groups {
            None => return Ok(Groups::Unknown),
            Some(Grouping::Single) => return Ok(Groups::Single),
            Some(Grouping::Recorded) => {}
        }
        let (mut firsts, mut last) = (Vec::new(), None);
        for shard in &self.shards {
            let shard = match shard {
                Ok(shard) => shard,
                Err(Skipped { path, problem }) => {
                    let problem =
                        format!("says which samples are of one file and cannot be read: {problem}");
                    return Err(DataError::Shard { path: path.clone(), problem });
                }
            };
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
        self.classes.clone()
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
    DataError::NoSplit { path: store::shown(folder), split: split.to_owned(), available }
}
