//! Samples by number: what every source promises to whoever reads from it.
//!
//! Every sample of a source has the same shape and is bytes: of pictures height by width by channels.
//! Scaling to floats is the training program's work.

use crate::config::{Shuffle, Shuffling};
use crate::draw::Draw;
use crate::error::DataError;
use crate::sampler::Sampler;
use crate::shape::SampleShape;
use crate::tokens::histograms::Histograms;
use crate::tokens::manifest::TokenInfo;

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

    /// The order of a training run's samples, as `order` says; that of a mixture, as its parts say.
    fn sampler(&self, order: &Shuffling, seed: u64) -> Sampler {
        let Shuffling { kind, shards, block } = *order;
        match kind {
            Shuffle::Global => Sampler::new(seed, self.num_samples()),
            Shuffle::TwoLevel => Sampler::two_level(seed, &self.shard_starts(), shards, block),
        }
    }

    /// What the codes of its samples are, if they are tokens.
    fn tokens(&self) -> Option<&TokenInfo> {
        None
    }

    /// How often each code came, each sample counted once as an evaluation reads it; none if its
    /// samples are no tokens. Reads every sample where nothing says it before.
    ///
    /// # Errors
    ///
    /// As [`Source::read`]; [`DataError::DamagedTokens`] if the counts themselves are damaged.
    fn histograms(&self) -> Result<Option<Histograms>, DataError> {
        let Some(TokenInfo { levels, .. }) = self.tokens() else { return Ok(None) };
        let num_classes = match self.num_classes() {
            // Of a mixture whose parts disagree.
            Err(DataError::Config { .. }) => None,
            num_classes => num_classes?,
        };
        let mut histograms = Histograms::new(levels, num_classes);
        let mut sample = vec![0; self.shape().num_bytes()];
        for id in 0..self.num_samples() {
            self.read(id, Draw::NONE, &mut sample)?;
            histograms.add(levels, &sample, self.label(id)?);
        }
        Ok(Some(histograms))
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

/// Starts of pieces of `every` samples, and at the end their number.
pub(crate) fn starts_every(every: usize, num_samples: u64) -> Vec<u64> {
    (0..num_samples).step_by(every).chain([num_samples]).collect()
}

/// The two promises that a caller of [`Source::read`] makes.
pub(crate) fn assert_read(source: &dyn Source, id: u64, out: &[u8]) {
    let num_samples = source.num_samples();
    assert!(id < num_samples, "sample {id} of {num_samples} was asked for");
    assert_eq!(out.len(), source.shape().num_bytes(), "the buffer is not one sample");
}
