//! Packing: from the files of a data set as published to shards with checksums.
//!
//! The whole data set is written into a folder beside the target and renamed at the end, so
//! the target is complete or absent. The same input gives the same bytes. Packing runs on
//! one thread and holds one shard in memory.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::DataError;
use crate::file;
use crate::manifest::{Manifest, SourceDescription, SplitEntry};
use crate::shard::ShardBuffer;
use crate::source::SampleShape;
use crate::source::idx::{self, IdxReader, IdxSplit};

/// Samples in a shard unless asked otherwise.
pub const DEFAULT_SHARD_SAMPLES: u64 = 8192;

/// A shard is held in memory while it is packed, so large samples make shorter shards.
const MAX_SHARD_BYTES: u64 = 256 << 20;

/// What to pack, and where to.
#[derive(Debug, Clone)]
pub struct PackOptions {
    /// Format of the input.
    pub format: PackFormat,
    /// Folder of the input.
    pub input: PathBuf,
    /// Folder of the data set to write; must not exist, or be empty.
    pub out: PathBuf,
    /// Most samples in a shard, at least 1.
    pub shard_samples: u64,
}

/// Formats that can be packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PackFormat {
    /// IDX files of MNIST and its successors, see [`crate::source::idx`].
    Idx,
}

/// Packs a data set; `progress` is called with samples done and samples in all.
///
/// # Errors
///
/// Every error is of kind [`crate::DataErrorKind::BadInput`], and nothing is left behind:
/// the input is malformed, or the output cannot be written.
pub fn pack(
    options: &PackOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Manifest, DataError> {
    if options.shard_samples == 0 {
        return Err(output_error(&options.out, "a shard needs at least 1 sample"));
    }
    check_target(&options.out)?;
    match options.format {
        PackFormat::Idx => pack_idx(options, progress),
    }
}

/// The opened files of one split.
struct IdxInput {
    name: &'static str,
    images: IdxReader,
    labels: Option<IdxReader>,
}

fn pack_idx(
    options: &PackOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Manifest, DataError> {
    let splits = idx::find_splits(&options.input)?;
    let mut inputs = Vec::new();
    let mut files = Vec::new();
    for split in &splits {
        let input = open_input(split)?;
        files.extend([Some(&split.images), split.labels.as_ref()].into_iter().flatten());
        inputs.push(input);
    }
    let shape = inputs[0].images.image_shape();
    for (split, input) in splits.iter().zip(&inputs) {
        if input.images.image_shape() != shape {
            let problem = "has images of another size than the training images".to_owned();
            return Err(DataError::Idx { path: split.images.clone(), problem });
        }
    }
    let total = inputs.iter().map(|input| input.images.num_items()).sum();
    let files = files.into_iter().map(|path| file_name(path)).collect();
    let source = SourceDescription { format: "idx".to_owned(), files };

    let target = PartialFolder::create(&options.out)?;
    let mut manifest = Manifest::new(shape, source);
    let mut done = 0;
    for input in inputs {
        let name = input.name;
        let entry = pack_split(input, &target.path, options.shard_samples, &mut || {
            done += 1;
            progress(done, total);
        })?;
        manifest.splits.insert(name.to_owned(), entry);
    }
    manifest.write(&target.path)?;
    target.commit(&options.out)?;
    Ok(manifest)
}

fn open_input(split: &IdxSplit) -> Result<IdxInput, DataError> {
    let images = IdxReader::open_images(&split.images)?;
    let labels = match &split.labels {
        Some(path) => Some(IdxReader::open_labels(path)?),
        None => None,
    };
    if let (Some(reader), Some(path)) = (&labels, &split.labels)
        && reader.num_items() != images.num_items()
    {
        let (labels, images) = (reader.num_items(), images.num_items());
        let problem = format!("holds {labels} labels for {images} images");
        return Err(DataError::Idx { path: path.clone(), problem });
    }
    Ok(IdxInput { name: split.name, images, labels })
}

fn pack_split(
    mut input: IdxInput,
    folder: &Path,
    shard_samples: u64,
    sample_done: &mut dyn FnMut(),
) -> Result<SplitEntry, DataError> {
    let shape = input.images.image_shape();
    let mut sample = vec![0; shape.num_bytes()];
    let most = shard_samples.min(MAX_SHARD_BYTES / sample.len() as u64).max(1);
    let (mut shards, mut buffer) = (Vec::new(), ShardBuffer::default());
    let mut moments = PixelMoments::new(shape);
    let num_samples = input.images.num_items();
    for index in 0..num_samples {
        input.images.read_item(&mut sample)?;
        let label = match &mut input.labels {
            Some(labels) => {
                let mut label = [0];
                labels.read_item(&mut label)?;
                Some(i64::from(label[0]))
            }
            None => None,
        };
        moments.add(&sample);
        buffer.push(&sample, label);
        if buffer.num_samples() == most || index + 1 == num_samples {
            let file = format!("{}-{:05}.safetensors", input.name, shards.len());
            shards.push(buffer.write(folder, file, shape)?);
        }
        sample_done();
    }
    let labels = input.labels.is_some();
    input.images.finish()?;
    input.labels.map_or(Ok(()), IdxReader::finish)?;
    let (pixel_mean, pixel_variance) = moments.mean_and_variance();
    Ok(SplitEntry { num_samples, labels, pixel_mean, pixel_variance, shards })
}

/// Exact sums of bytes and of their squares, a channel.
struct PixelMoments {
    sums: Vec<u128>,
    squares: Vec<u128>,
    count: u128,
}

impl PixelMoments {
    fn new(shape: SampleShape) -> Self {
        let channels = shape.channels as usize;
        Self { sums: vec![0; channels], squares: vec![0; channels], count: 0 }
    }

    fn add(&mut self, sample: &[u8]) {
        let channels = self.sums.len();
        for channel in 0..channels {
            let (mut sum, mut square) = (0u64, 0u64);
            for &byte in sample.iter().skip(channel).step_by(channels) {
                sum += u64::from(byte);
                square += u64::from(byte) * u64::from(byte);
            }
            self.sums[channel] += u128::from(sum);
            self.squares[channel] += u128::from(square);
        }
        self.count += (sample.len() / channels) as u128;
    }

    /// Mean and population variance of each channel, with bytes scaled to [0, 1].
    fn mean_and_variance(&self) -> (Vec<f64>, Vec<f64>) {
        let count = self.count as f64;
        let mean = self.sums.iter().map(|&sum| sum as f64 / count / 255.0).collect();
        let spread = |(&sum, &square): (&u128, &u128)| {
            (self.count * square - sum * sum) as f64 / (count * count) / (255.0 * 255.0)
        };
        (mean, self.sums.iter().zip(&self.squares).map(spread).collect())
    }
}

/// A folder beside the target that vanishes unless it becomes the target.
struct PartialFolder {
    path: PathBuf,
}

impl PartialFolder {
    fn create(target: &Path) -> Result<Self, DataError> {
        let parent = parent_of(target);
        fs::create_dir_all(&parent).map_err(|source| write_error(&parent, source))?;
        let path = parent.join(format!("{}.partial-{}", file_name(target), std::process::id()));
        match fs::create_dir(&path) {
            Ok(()) => Ok(Self { path }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(output_error(&path, "it was left by a pack that was killed: remove it"))
            }
            Err(source) => Err(write_error(&path, source)),
        }
    }

    /// Gives the folder its final name; from here on the data set exists.
    fn commit(self, target: &Path) -> Result<(), DataError> {
        file::sync_folder(&self.path)?;
        // Replaces an empty folder and nothing else.
        fs::rename(&self.path, target).map_err(|source| write_error(target, source))?;
        file::sync_folder(&parent_of(target))
    }
}

impl Drop for PartialFolder {
    fn drop(&mut self) {
        // After a commit the name is gone, and there is nothing to remove.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Refuses a target that holds anything, before any work is done.
fn check_target(target: &Path) -> Result<(), DataError> {
    if target.file_name().is_none() {
        return Err(output_error(target, "give the name of a new folder"));
    }
    match fs::read_dir(target) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(output_error(target, "it is not empty: remove it or choose another")),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            Err(output_error(target, "it, or a part of its path, is a file: choose another"))
        }
        Err(source) => Err(write_error(target, source)),
    }
}

fn parent_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn output_error(path: &Path, problem: &str) -> DataError {
    DataError::Output { path: path.to_owned(), problem: problem.to_owned() }
}

fn write_error(path: &Path, source: io::Error) -> DataError {
    DataError::Write { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand, two pixels of two channels: (0, 255) and (255, 255). Channel 0 has mean 1/2
    /// and variance 1/4, channel 1 has mean 1 and variance 0.
    #[test]
    fn moments_are_those_of_the_scaled_bytes() {
        let shape = SampleShape { channels: 2, height: 1, width: 2 };
        let mut moments = PixelMoments::new(shape);
        moments.add(&[0, 255, 255, 255]);
        assert_eq!(moments.mean_and_variance(), (vec![0.5, 1.0], vec![0.25, 0.0]));
    }
}
