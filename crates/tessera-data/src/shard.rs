//! One shard: a safetensors file of samples, each with a checksum of its own.
//!
//! Tensors, in the order of their bytes: `labels` I64 `[n]` (only if there are labels), `groups` U64
//! `[n]` (only if a file can be several samples: equal for those of one file), `crc32` U32 `[n]`, `samples`: U8 `[n, H, W, C]` of pictures, U8 `[n, T, H, W, C]` of video, I16
//! `[n, T, C]` of audio. Where samples are compressed, `ends` U64 `[n]` comes after the labels, and
//! `compressed` U8 is in place of `samples`. The order is that of safetensors itself
//! (larger elements first, so that each tensor is aligned). Any safetensors reader opens it;
//! this one never maps or loads the file, it reads one sample at its offset. The checksum
//! (CRC-32 of IEEE 802.3, as in gzip) catches a flipped bit when it matters: when the sample
//! is used. It does not protect against a person; the SHA-256 in the manifest does.

use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::TensorInfo;

use crate::error::{DataError, one_line};
use crate::file;
use crate::header::{self, Entry};
use crate::manifest::{Compression, Manifest, ShardEntry};
use crate::shape::Modality;
use crate::shape::SampleShape;
use crate::store::{Blob, Sequential};

/// Value of the metadata key `format`.
const FORMAT: &str = "tessera-shard-1";
/// The same where each sample is compressed.
const FORMAT_ZSTD: &str = "tessera-shard-zstd-1";

/// Samples of one shard before it is written.
#[derive(Default)]
pub(crate) struct ShardContent {
    /// Samples one after another, compressed if `ends` says where.
    pub(crate) samples: Vec<u8>,
    crcs: Vec<u8>,
    labels: Vec<u8>,
    /// Numbers that samples of one file share; empty if each is a file of its own.
    groups: Vec<u8>,
    /// Where each compressed sample ends.
    ends: Vec<u8>,
    num_samples: u64,
}

impl ShardContent {
    /// Adds what belongs to one sample, and the sample itself if it is compressed.
    pub(crate) fn push(
        &mut self,
        crc32: u32,
        label: Option<i64>,
        group: Option<u64>,
        compressed: Option<&[u8]>,
    ) {
        self.crcs.extend_from_slice(&crc32.to_le_bytes());
        if let Some(group) = group {
            self.groups.extend_from_slice(&group.to_le_bytes());
        }
        if let Some(label) = label {
            self.labels.extend_from_slice(&label.to_le_bytes());
        }
        if let Some(compressed) = compressed {
            self.samples.extend_from_slice(compressed);
            self.ends.extend_from_slice(&(self.samples.len() as u64).to_le_bytes());
        }
        self.num_samples += 1;
    }

    /// Samples held.
    pub(crate) fn num_samples(&self) -> u64 {
        self.num_samples
    }

    /// Samples with a label.
    pub(crate) fn num_labels(&self) -> u64 {
        self.labels.len() as u64 / 8
    }

    /// One more than the largest label; 0 without any.
    pub(crate) fn num_classes(&self) -> u64 {
        let labels = self.labels.as_chunks().0.iter().map(|eight| i64::from_le_bytes(*eight));
        labels.max().map_or(0, |largest| (largest + 1) as u64)
    }

    /// Whether every sample has a label; a shard has labels for all of its samples or for none.
    pub(crate) fn has_labels(&self) -> bool {
        self.num_samples > 0 && self.num_labels() == self.num_samples
    }

    fn labels(&self) -> &[u8] {
        if self.has_labels() { &self.labels } else { &[] }
    }

    /// The length of the safetensors header, and the header.
    fn header(&self, shape: SampleShape) -> Vec<u8> {
        let n = self.num_samples as usize;
        let mut tensors = Vec::new();
        let mut add = |name: &str, dtype, shape: Vec<usize>, bytes: usize| {
            tensors.push(Entry { name: name.to_owned(), dtype, shape, bytes });
        };
        if self.has_labels() {
            add("labels", Dtype::I64, vec![n], self.labels.len());
        }
        if !self.groups.is_empty() {
            add("groups", Dtype::U64, vec![n], self.groups.len());
        }
        if !self.ends.is_empty() {
            add("ends", Dtype::U64, vec![n], self.ends.len());
        }
        add("crc32", Dtype::U32, vec![n], self.crcs.len());
        let (name, dtype, samples) = match self.ends.is_empty() {
            true => ("samples", dtype_of(shape), samples_shape(n, shape)),
            false => ("compressed", Dtype::U8, vec![self.samples.len()]),
        };
        add(name, dtype, samples, self.samples.len());
        header::write(if self.ends.is_empty() { FORMAT } else { FORMAT_ZSTD }, tensors)
    }
}

/// Writes samples to `folder/file` and describes the file.
pub(crate) fn write(
    folder: &Path,
    file: &str,
    shape: SampleShape,
    content: &ShardContent,
) -> Result<ShardEntry, DataError> {
    let header = content.header(shape);
    let ShardContent { groups, ends, crcs, samples, .. } = content;
    let pieces: [&[u8]; 6] = [&header, content.labels(), groups, ends, crcs, samples];
    let written = file::write_synced(&folder.join(file), &pieces)?;
    Ok(ShardEntry {
        file: file.to_owned(),
        num_samples: content.num_samples,
        bytes: written.bytes,
        sha256: written.sha256,
    })
}

/// An open shard; reading needs no lock and no position.
pub(crate) struct Shard {
    path: PathBuf,
    blob: Blob,
    sample_bytes: usize,
    /// Where the label of the first sample starts in the file, if there are labels.
    labels_at: Option<u64>,
    /// The same of the numbers of groups.
    groups_at: Option<u64>,
    /// What labels are below, if the manifest says it.
    num_classes: Option<u64>,
    /// Where the first sample starts in the file.
    samples_at: u64,
    /// Where each compressed sample ends behind that; empty if they are not compressed.
    ends: Vec<u64>,
    /// Checksum of each sample.
    crcs: Vec<u32>,
}

impl Shard {
    /// Opens a shard and checks its length and header against the manifest's entry.
    ///
    /// # Errors
    ///
    /// [`DataError::Truncated`], [`DataError::Shard`] or [`DataError::Read`].
    pub(crate) fn open(
        path: PathBuf,
        blob: io::Result<Blob>,
        entry: &ShardEntry,
        manifest: &Manifest,
    ) -> Result<Self, DataError> {
        let Manifest { shape, compression, .. } = *manifest;
        let read_error = |source| match io::Error::kind(&source) {
            io::ErrorKind::NotFound => {
                DataError::Shard { path: path.clone(), problem: "is missing".to_owned() }
            }
            _ => DataError::Read { path: path.clone(), source },
        };
        let wrong =
            |problem: String| DataError::Shard { path: path.clone(), problem: one_line(&problem) };
        let blob = blob.map_err(read_error)?;
        let found = blob.len();
        let expected = entry.bytes;
        if found < expected {
            return Err(DataError::Truncated { path, expected, found, unit: "bytes" });
        }
        if found > expected {
            return Err(wrong(format!("has {found} bytes, expected {expected}")));
        }
        let format = if compression.is_some() { FORMAT_ZSTD } else { FORMAT };
        let (data_at, metadata) = header::read(&blob, format).map_err(wrong)?;
        let num_samples = usize::try_from(entry.num_samples)
            .map_err(|_| wrong("holds more samples than memory".to_owned()))?;
        let bytes_of = |info: &TensorInfo| -> Result<Vec<u8>, DataError> {
            let (start, end) = info.data_offsets;
            let mut bytes = vec![0; end - start];
            blob.read_exact_at(&mut bytes, data_at + start as u64).map_err(read_error)?;
            Ok(bytes)
        };
        let crcs = header::tensor(&metadata, "crc32", Dtype::U32, &[num_samples]).map_err(wrong)?;
        let crcs = bytes_of(crcs)?;
        let crcs = crcs.as_chunks().0.iter().map(|quad| u32::from_le_bytes(*quad)).collect();
        let (samples_at, ends) = match compression {
            None => {
                let expected = samples_shape(num_samples, shape);
                let samples = header::tensor(&metadata, "samples", dtype_of(shape), &expected);
                (samples.map_err(wrong)?.data_offsets.0, Vec::new())
            }
            Some(Compression::Zstd) => {
                let ends =
                    header::tensor(&metadata, "ends", Dtype::U64, &[num_samples]).map_err(wrong)?;
                let ends = bytes_of(ends)?;
                let ends: Vec<u64> =
                    ends.as_chunks().0.iter().map(|eight| u64::from_le_bytes(*eight)).collect();
                let last = ends.last().copied().unwrap_or(0) as usize;
                let samples =
                    header::tensor(&metadata, "compressed", Dtype::U8, &[last]).map_err(wrong)?;
                if !ends.is_sorted() {
                    return Err(wrong("has samples that end before they begin".to_owned()));
                }
                (samples.data_offsets.0, ends)
            }
        };
        let samples_at = data_at + samples_at as u64;
        let column = |name: &str, dtype| -> Result<Option<u64>, DataError> {
            if metadata.info(name).is_none() {
                return Ok(None);
            }
            let info = header::tensor(&metadata, name, dtype, &[num_samples]).map_err(wrong)?;
            Ok(Some(data_at + info.data_offsets.0 as u64))
        };
        let columns = (column("labels", Dtype::I64)?, column("groups", Dtype::U64)?);
        if manifest.has_groups() && columns.1.is_none() {
            return Err(wrong("has no tensor \"groups\", the manifest says it has".to_owned()));
        }
        let sample_bytes = shape.num_bytes();
        let num_classes = manifest.noted_classes();
        let (labels_at, groups_at) = columns;
        Ok(Self {
            path,
            blob,
            sample_bytes,
            labels_at,
            groups_at,
            num_classes,
            samples_at,
            ends,
            crcs,
        })
    }

    /// Number of a sample's class, if there are labels.
    ///
    /// # Errors
    ///
    /// As [`Shard::read`]; a number that is out of range is damage.
    pub(crate) fn label(&self, index: u64) -> Result<Option<i64>, DataError> {
        let Some(start) = self.labels_at else { return Ok(None) };
        let mut label = [0; 8];
        self.read_bytes(index, start + 8 * index, &mut label)?;
        let label = i64::from_le_bytes(label);
        if label < 0 || self.num_classes.is_some_and(|classes| label as u64 >= classes) {
            let expected = match self.num_classes {
                Some(classes) => format!("below {classes}, the classes of the manifest"),
                None => "0 or more".to_owned(),
            };
            let problem = format!("has label {label}, expected {expected}");
            return Err(DataError::CorruptSample {
                shard: self.path.clone(),
                sample: index,
                problem,
            });
        }
        Ok(Some(label))
    }

    /// The labels of all samples as they stand there, if there are labels.
    ///
    /// # Errors
    ///
    /// [`DataError::ReadSample`] if the system fails.
    pub(crate) fn labels(&self) -> Result<Option<Vec<i64>>, DataError> {
        let eights = self.column(self.labels_at)?;
        Ok(eights.map(|eights| eights.into_iter().map(i64::from_le_bytes).collect()))
    }

    /// For each sample a number that it shares with the others of its file; none if that was not
    /// noted.
    ///
    /// # Errors
    ///
    /// [`DataError::ReadSample`] if the system fails.
    pub(crate) fn groups(&self) -> Result<Option<Vec<u64>>, DataError> {
        let eights = self.column(self.groups_at)?;
        Ok(eights.map(|eights| eights.into_iter().map(u64::from_le_bytes).collect()))
    }

    /// Eight bytes a sample, from where they start.
    fn column(&self, start: Option<u64>) -> Result<Option<Vec<[u8; 8]>>, DataError> {
        let Some(start) = start else { return Ok(None) };
        let mut bytes = vec![0; 8 * self.crcs.len()];
        self.read_bytes(0, start, &mut bytes)?;
        Ok(Some(bytes.as_chunks().0.to_vec()))
    }

    /// Samples in this shard.
    pub(crate) fn num_samples(&self) -> u64 {
        self.crcs.len() as u64
    }

    /// Compares the SHA-256 of the file with the manifest's.
    ///
    /// # Errors
    ///
    /// [`DataError::Shard`] if it is another one.
    pub(crate) fn check_hash(&self, entry: &ShardEntry) -> Result<(), DataError> {
        let found = file::sha256_of_reader(&mut Sequential::new(&self.blob))
            .map_err(|source| DataError::Read { path: self.path.clone(), source })?;
        if found != entry.sha256 {
            let expected = &entry.sha256;
            let problem = format!("is damaged (sha256 {found}, packed as {expected})");
            return Err(DataError::Shard { path: self.path.clone(), problem });
        }
        Ok(())
    }

    /// Reads sample `index` of this shard into `out` and checks it. What a cache holds wrongly is
    /// fetched again, once.
    ///
    /// # Errors
    ///
    /// [`DataError::CorruptSample`] if the bytes are not those that were packed,
    /// [`DataError::ReadSample`] if the system fails.
    pub(crate) fn read(&self, index: u64, out: &mut [u8]) -> Result<(), DataError> {
        match self.read_once(index, out) {
            Err(DataError::CorruptSample { .. }) if self.forget(index) => {
                self.read_once(index, out)
            }
            outcome => outcome,
        }
    }

    /// Whether a cache held a sample.
    fn forget(&self, index: u64) -> bool {
        let (start, bytes) = self.place(index);
        self.blob.forget(self.samples_at + start, bytes)
    }

    /// Where the bytes of a sample lie behind the first one's, and how many they are.
    fn place(&self, index: u64) -> (u64, u64) {
        if self.ends.is_empty() {
            let bytes = self.sample_bytes as u64;
            return (index * bytes, bytes);
        }
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before as usize]);
        (start, self.ends[index as usize] - start)
    }

    fn read_once(&self, index: u64, out: &mut [u8]) -> Result<(), DataError> {
        let corrupt = |problem: String| DataError::CorruptSample {
            shard: self.path.clone(),
            sample: index,
            problem,
        };
        let (start, bytes) = self.place(index);
        if self.ends.is_empty() {
            self.read_bytes(index, self.samples_at + start, out)?;
        } else {
            let mut compressed = vec![0; bytes as usize];
            self.read_bytes(index, self.samples_at + start, &mut compressed)?;
            let outcome = DECOMPRESSOR
                .with_borrow_mut(|zstd| zstd.decompress_to_buffer(&compressed, &mut *out));
            match outcome {
                Ok(bytes) if bytes == out.len() => {}
                Ok(bytes) => {
                    return Err(corrupt(format!("has {bytes} bytes, expected {}", out.len())));
                }
                Err(error) => return Err(corrupt(format!("is no zstd ({error})"))),
            }
        }
        let (found, expected) = (crc32fast::hash(out), self.crcs[index as usize]);
        if found != expected {
            return Err(corrupt(format!("has crc32 {found:08x}, packed as {expected:08x}")));
        }
        Ok(())
    }

    /// Reads what belongs to a sample at byte `at` of the file.
    fn read_bytes(&self, index: u64, at: u64, out: &mut [u8]) -> Result<(), DataError> {
        let (shard, sample) = (self.path.clone(), index);
        self.blob.read_exact_at(out, at).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => {
                let problem = "is beyond the end of the file, which was longer".to_owned();
                DataError::CorruptSample { shard, sample, problem }
            }
            _ => DataError::ReadSample { shard, sample: sample.to_string(), source },
        })
    }
}

thread_local! {
    static DECOMPRESSOR: RefCell<zstd::bulk::Decompressor<'static>> =
        RefCell::new(zstd::bulk::Decompressor::new().expect("memory for a zstd context"));
}

/// Type of the tensor `samples`.
fn dtype_of(shape: SampleShape) -> Dtype {
    match shape.modality {
        Modality::Image | Modality::Video => Dtype::U8,
        Modality::Audio => Dtype::I16,
        Modality::Tokens => Dtype::U32,
    }
}

/// Shape of the tensor `samples`: channels last.
fn samples_shape(num_samples: usize, shape: SampleShape) -> Vec<usize> {
    let [frames, height, width, channels] =
        [shape.frames, shape.height, shape.width, shape.channels].map(|axis| axis as usize);
    match shape.modality {
        Modality::Image => vec![num_samples, height, width, channels],
        Modality::Audio | Modality::Tokens => vec![num_samples, frames, channels],
        Modality::Video => vec![num_samples, frames, height, width, channels],
    }
}
