//! What the server asks of whoever reads and writes files.

use serde::Serialize;

use crate::Layout;

/// A file, cut into samples of the model.
#[derive(Debug, Clone)]
pub struct Parsed {
    /// Size of the whole.
    pub layout: Layout,
    /// Samples in order, each of the model's shape, little-endian.
    pub samples: Vec<Vec<u8>>,
}

/// The same content in another format, for comparison.
#[derive(Debug, Clone, Serialize)]
pub struct Rival {
    /// Name of the format, such as `JPEG`.
    pub name: String,
    /// Bytes of the file.
    pub bytes: u64,
    /// Peak signal-to-noise ratio in decibels; `None`: it has lost nothing.
    pub psnr: Option<f64>,
}

/// Why a client's file is refused. Each message is one line that says what was expected and what came.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadInput {
    /// It cannot be read, or does not fit the model; answered with 400.
    #[error("{0}")]
    Malformed(String),
    /// It has more pixels, frames or samples than the limit; answered with 413.
    #[error("{0}")]
    TooLarge(String),
    /// It is of a format that is not read; answered with 415.
    #[error("{0}")]
    Unsupported(String),
}

/// Reads and writes files. A few threads share it; every call computes and waits for nothing.
///
/// Who implements it holds pixels, frames and samples against the limits before memory for them is asked for.
pub trait Media: Send + Sync {
    /// Cuts a file of the model's modality into samples.
    ///
    /// # Errors
    ///
    /// [`BadInput`] if the file cannot be read or is too large.
    fn parse(&self, file: &[u8]) -> Result<Parsed, BadInput>;

    /// Number of samples that a file of this size takes. The layout may come from a client.
    ///
    /// # Errors
    ///
    /// [`BadInput`] if the model has no such files or the size is above the limit.
    fn num_samples(&self, layout: &Layout) -> Result<usize, BadInput>;

    /// Puts samples together: a PNG, a WAV or an APNG, by [`content_type`](crate::Modality::content_type).
    /// There are [`num_samples`](Self::num_samples) of them.
    ///
    /// # Errors
    ///
    /// One line that says why.
    fn join(&self, layout: &Layout, samples: &[Vec<u8>]) -> Result<Vec<u8>, String>;

    /// Compresses the tokens of samples into a `.tsc` file.
    ///
    /// # Errors
    ///
    /// One line that says why.
    fn compress(&self, layout: &Layout, tokens: &[Vec<u32>]) -> Result<Vec<u8>, String>;

    /// The way back from [`compress`](Self::compress).
    ///
    /// # Errors
    ///
    /// [`BadInput`] if the file is damaged, of another model, or too large.
    fn decompress(&self, file: &[u8]) -> Result<(Layout, Vec<Vec<u32>>), BadInput>;

    /// Peak signal-to-noise ratio in decibels between samples of a file and their reconstruction, without what only
    /// fills the last samples up; infinite where they are equal.
    fn psnr(&self, layout: &Layout, original: &[&[u8]], reconstructed: &[Vec<u8>]) -> f64;

    /// The same content in other formats, lossy ones at about this peak signal-to-noise ratio; empty where none is known.
    fn rivals(&self, layout: &Layout, original: &[&[u8]], psnr: f64) -> Vec<Rival>;
}
