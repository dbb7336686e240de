//! Where samples come from: one file a source, and [`open`] to choose one from a config.
//!
//! Every sample of a source has the same shape and is bytes, height by width by channels.
//! Scaling to floats is the training program's work.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::config::{DataConfig, DataKind};
use crate::error::DataError;

pub mod idx;
pub(crate) mod packed;
mod synthetic;

pub use packed::PackedSource;
pub use synthetic::SyntheticSource;

/// Largest sample that is believed: 1 GiB.
const MAX_SAMPLE_BYTES: u64 = 1 << 30;

/// Samples by number. Reading is by shared reference: any number of threads may do it.
pub trait Source: Send + Sync {
    /// Number of samples, at least 1.
    fn num_samples(&self) -> u64;

    /// Shape of every sample.
    fn shape(&self) -> SampleShape;

    /// Reads sample `id` into `out`, as bytes in the order height, width, channels.
    ///
    /// # Errors
    ///
    /// [`DataError::CorruptSample`] or [`DataError::ReadSample`].
    ///
    /// # Panics
    ///
    /// If `id` is not below [`Source::num_samples`] or `out` is not of
    /// [`SampleShape::num_bytes`].
    fn read(&self, id: u64, out: &mut [u8]) -> Result<(), DataError>;

    /// Identity of the whole data set as 64 hex digits: equal on two ranks if and only if
    /// they see the same data.
    fn fingerprint(&self) -> String;
}

/// Shape of a sample of unsigned bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SampleShape {
    /// Color channels.
    pub channels: u32,
    /// Height in pixels.
    pub height: u32,
    /// Width in pixels.
    pub width: u32,
}

impl SampleShape {
    /// Bytes of one sample.
    pub fn num_bytes(&self) -> usize {
        self.channels as usize * self.height as usize * self.width as usize
    }

    /// Rejects empty and absurd shapes; the error completes a sentence about their owner.
    pub(crate) fn check(&self) -> Result<(), String> {
        let axes = [("channels", self.channels), ("height", self.height), ("width", self.width)];
        for (name, size) in axes {
            if size == 0 {
                return Err(format!("has a {name} of 0"));
            }
        }
        let bytes = axes.iter().fold(1u64, |bytes, axis| bytes.saturating_mul(u64::from(axis.1)));
        if bytes > MAX_SAMPLE_BYTES {
            return Err(format!("has samples of {bytes} bytes, the limit is {MAX_SAMPLE_BYTES}"));
        }
        Ok(())
    }
}

/// Opens the split `split` (`"train"` or `"test"`) of what `config` names, and checks it as
/// far as [`DataConfig::verify`] says.
///
/// # Errors
///
/// Every error is of kind [`crate::DataErrorKind::BadInput`]: missing, truncated or damaged
/// data is found here, before the run starts.
pub fn open(config: &DataConfig, split: &str) -> Result<Arc<dyn Source>, DataError> {
    config.validate()?;
    match config.kind {
        DataKind::Packed => Ok(Arc::new(PackedSource::open(&config.path, split, config.verify)?)),
        DataKind::Synthetic => Ok(Arc::new(SyntheticSource::new(&config.synthetic, split)?)),
    }
}

/// The two promises that a caller of [`Source::read`] makes.
fn assert_read(source: &dyn Source, id: u64, out: &[u8]) {
    let num_samples = source.num_samples();
    assert!(id < num_samples, "sample {id} of {num_samples} was asked for");
    assert_eq!(out.len(), source.shape().num_bytes(), "the buffer is not one sample");
}
