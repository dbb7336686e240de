//! Where samples come from: one file a source, and [`open`] to choose one from a config.
//!
//! Every sample of a source has the same shape and is bytes, height by width by channels.
//! Scaling to floats is the training program's work.

use std::path::Path;
use std::sync::Arc;

use crate::config::{DataConfig, DataKind, Shuffle};
use crate::draw::Draw;
use crate::error::DataError;
use crate::sampler::Sampler;
use crate::shape::SampleShape;
use crate::source::files::FolderFiles;
use crate::source::idx::IdxSource;
use crate::source::media::MediaSource;
use crate::source::mixture::MixtureSource;
use crate::source::records::RecordSource;
use crate::source::splits::TRAIN;
use crate::source::subset::Subset;
use crate::source::webdataset::TarFiles;
use crate::store::RemoteConfig;

mod archives;
mod arrays;
mod compressed;
mod files;
pub mod idx;
mod labels;
mod media;
mod mixture;
pub(crate) mod names;
pub(crate) mod packed;
mod pattern;
mod recipe;
mod records;
pub(crate) mod split_config;
mod splits;
mod subset;
mod synthetic;
mod tar_index;
mod tar_members;
mod tar_sparse;
pub(crate) mod webdataset;

pub use packed::PackedSource;
pub use synthetic::SyntheticSource;

/// Samples by number. Reading is by shared reference: any number of threads may do it.
pub trait Source: Send + Sync {
    /// Number of samples, at least 1.
    fn num_samples(&self) -> u64;

    /// Shape of every sample.
    fn shape(&self) -> SampleShape;

    /// Reads sample `id` into `out`; `draw` says how it is cut and turned, where the source does
    /// that at random.
    ///
    /// # Errors
    ///
    /// [`DataError::CorruptSample`], [`DataError::CorruptFile`] or [`DataError::ReadSample`].
    ///
    /// # Panics
    ///
    /// If `id` is not below [`Source::num_samples`] or `out` is not of
    /// [`SampleShape::num_bytes`].
    fn read(&self, id: u64, draw: Draw, out: &mut [u8]) -> Result<(), DataError>;

    /// Identity of the whole data set as 64 hex digits: equal on two ranks if and only if
    /// they see the same data.
    fn fingerprint(&self) -> String;

    /// Number of the sample's class, if it has one: at least 0, and below
    /// [`Source::num_classes`].
    ///
    /// # Errors
    ///
    /// As [`Source::read`]; a number that is out of that range is damage.
    fn label(&self, _id: u64) -> Result<Option<i64>, DataError> {
        Ok(None)
    }

    /// Whether samples have labels; single ones may lack theirs.
    fn has_labels(&self) -> bool {
        false
    }

    /// Number of classes, the same in every split where that can be known; labels are below it.
    /// None if there are no labels. Reads every label where nothing says it before.
    ///
    /// # Errors
    ///
    /// As [`Source::read`]; [`DataError::Config`] of a mixture whose parts disagree.
    fn num_classes(&self) -> Result<Option<u64>, DataError> {
        Ok(None)
    }

    /// Which samples were made from one file.
    ///
    /// # Errors
    ///
    /// As [`Source::read`].
    fn groups(&self) -> Result<Groups, DataError> {
        Ok(Groups::Single)
    }

    /// Names of the classes by their numbers, the same in every split; empty where they have none.
    fn classes(&self) -> Vec<String> {
        Vec::new()
    }

    /// How samples came to their split and what was left out, in lines for a person.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }

    /// Name of a sample in the published data set; by its hash samples are held out.
    fn name(&self, id: u64) -> String {
        id.to_string()
    }

    /// The first sample of each shard or archive, and at the end the number of samples. A source
    /// without any is taken in pieces of 1024.
    fn shard_starts(&self) -> Vec<u64> {
        starts_every(1024, self.num_samples())
    }

    /// The order of a training run's samples, as `order` says.
    fn sampler(&self, order: &DataConfig, seed: u64) -> Sampler {
        match order.shuffle {
            Shuffle::Global => Sampler::new(seed, self.num_samples()),
            Shuffle::TwoLevel => {
                let DataConfig { shuffle_shards, shuffle_block, .. } = *order;
                Sampler::two_level(seed, &self.shard_starts(), shuffle_shards, shuffle_block)
            }
        }
    }

    /// Names of files that were left out when it was opened, since they are damaged.
    fn skipped(&self) -> Vec<String> {
        Vec::new()
    }

    /// Names of what was published, without folders, for people.
    fn origin(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Which samples were made from one file, as tiles, windows and clips are. Such samples follow each
/// other, and are on one side of every split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Groups {
    /// Each sample is a file, or a record, of its own.
    Single,
    /// For each sample a number that it shares with the others of its file, and with no other: that
    /// of the first of them.
    Of(Vec<u64>),
    /// Nobody noted it: of a data set that an older version packed.
    Unknown,
}

/// Opens the split `split` (`"train"` or `"test"`) of what `config` names, and checks it as
/// far as [`DataConfig::verify`] says.
///
/// # Errors
///
/// Missing, truncated or damaged data is found here, before the run starts.
pub fn open(config: &DataConfig, split: &str) -> Result<Arc<dyn Source>, DataError> {
    config.validate()?;
    let whole = match config.folds {
        0 => open_split(config, split)?,
        _ => Arc::new(Subset::fold(open_split(config, TRAIN)?, config, split)?),
    };
    if split == TRAIN && config.fraction < 1.0 {
        return Ok(Arc::new(Subset::fraction(whole, config.fraction)?));
    }
    Ok(whole)
}

fn open_split(config: &DataConfig, split: &str) -> Result<Arc<dyn Source>, DataError> {
    let path = &config.path;
    Ok(match config.kind {
        DataKind::Packed => Arc::new(PackedSource::open(config, split)?),
        DataKind::Synthetic => Arc::new(SyntheticSource::new(&config.synthetic, split)?),
        DataKind::Mixture => {
            let mut parts = config.mixture.clone();
            parts.iter_mut().for_each(|part| part.data.on_corrupt = config.on_corrupt);
            Arc::new(MixtureSource::open(&parts, split)?)
        }
        DataKind::Idx => Arc::new(IdxSource::open(path, split)?),
        DataKind::Cifar => Arc::new(RecordSource::open_cifar(path, split)?),
        DataKind::Npy => arrays::open_arrays(config, split)?,
        DataKind::Folder => {
            let files = FolderFiles::open(config, split)?;
            Arc::new(MediaSource::new(Box::new(files), config)?)
        }
        DataKind::Webdataset => {
            let files = TarFiles::open(config, split)?;
            Arc::new(MediaSource::new(Box::new(files), config)?)
        }
    })
}

/// Reads the tar archives at `path` from beginning to end and keeps an index beside each.
/// `progress` is called, from many threads, with bytes read and bytes in all. Returns the numbers
/// of archives and of samples.
///
/// # Errors
///
/// [`DataError::NoFiles`], [`DataError::Archive`] or [`DataError::Read`].
pub fn index(
    path: &Path,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<(usize, usize), DataError> {
    webdataset::index(path, &RemoteConfig::default(), progress)
}

/// Starts of pieces of `every` samples, and at the end their number.
fn starts_every(every: usize, num_samples: u64) -> Vec<u64> {
    (0..num_samples).step_by(every).chain([num_samples]).collect()
}

/// The two promises that a caller of [`Source::read`] makes.
fn assert_read(source: &dyn Source, id: u64, out: &[u8]) {
    let num_samples = source.num_samples();
    assert!(id < num_samples, "sample {id} of {num_samples} was asked for");
    assert_eq!(out.len(), source.shape().num_bytes(), "the buffer is not one sample");
}
