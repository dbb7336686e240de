//! One shard: a safetensors file of samples, each with a checksum of its own.
//!
//! Tensors, in the order of their bytes: `labels` I64 `[n]` (only if there are labels),
//! `crc32` U32 `[n]`, `samples` U8 `[n, H, W, C]`. The order is that of safetensors itself
//! (larger elements first, so that each tensor is aligned). Any safetensors reader opens it;
//! this one never maps or loads the file, it reads one sample at its offset. The checksum
//! (CRC-32 of IEEE 802.3, as in gzip) catches a flipped bit when it matters: when the sample
//! is used. It does not protect against a person; the SHA-256 in the manifest does.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use crate::error::DataError;
use crate::file;
use crate::manifest::ShardEntry;
use crate::source::SampleShape;

/// Value of the metadata key `format`. One key, since safetensors writes several in the
/// order of a hash map, and equal shards must have equal bytes.
const FORMAT: &str = "tessera-shard-1";

/// Longest header that is believed; ours has a few hundred bytes.
const MAX_HEADER_BYTES: u64 = 1 << 20;

/// Samples of one shard while it is filled, in memory.
#[derive(Default)]
pub(crate) struct ShardBuffer {
    samples: Vec<u8>,
    crcs: Vec<u8>,
    labels: Vec<u8>,
    num_samples: u64,
}

impl ShardBuffer {
    /// Adds one sample; either every sample of a shard has a label or none has.
    pub(crate) fn push(&mut self, sample: &[u8], label: Option<i64>) {
        self.samples.extend_from_slice(sample);
        self.crcs.extend_from_slice(&crc32fast::hash(sample).to_le_bytes());
        if let Some(label) = label {
            self.labels.extend_from_slice(&label.to_le_bytes());
        }
        self.num_samples += 1;
    }

    /// Samples held.
    pub(crate) fn num_samples(&self) -> u64 {
        self.num_samples
    }

    /// Writes the samples to `folder/file`, empties the buffer and describes the file.
    pub(crate) fn write(
        &mut self,
        folder: &Path,
        file: String,
        shape: SampleShape,
    ) -> Result<ShardEntry, DataError> {
        let header = self.header(shape);
        let length = (header.len() as u64).to_le_bytes();
        let pieces: [&[u8]; 5] = [&length, &header, &self.labels, &self.crcs, &self.samples];
        let written = file::write_synced(&folder.join(&file), &pieces)?;
        let entry = ShardEntry {
            file,
            num_samples: self.num_samples,
            bytes: written.bytes,
            sha256: written.sha256,
        };
        self.samples.clear();
        self.crcs.clear();
        self.labels.clear();
        self.num_samples = 0;
        Ok(entry)
    }

    /// The safetensors header, padded with spaces to eight bytes as the format's own writer
    /// does.
    fn header(&self, shape: SampleShape) -> Vec<u8> {
        let n = self.num_samples as usize;
        let mut tensors = Vec::new();
        let mut offset = 0;
        let mut add = |name: &str, dtype, shape: Vec<usize>, bytes: usize| {
            let data_offsets = (offset, offset + bytes);
            offset += bytes;
            tensors.push((name.to_owned(), TensorInfo { dtype, shape, data_offsets }));
        };
        if !self.labels.is_empty() {
            add("labels", Dtype::I64, vec![n], self.labels.len());
        }
        add("crc32", Dtype::U32, vec![n], self.crcs.len());
        add("samples", Dtype::U8, samples_shape(n, shape), self.samples.len());
        let metadata = HashMap::from([("format".to_owned(), FORMAT.to_owned())]);
        let metadata = Metadata::new(Some(metadata), tensors).expect("the offsets follow on");
        let mut text = serde_json::to_vec(&metadata).expect("a header is plain data");
        text.resize(text.len().next_multiple_of(8), b' ');
        text
    }
}

/// An open shard; reading needs no lock and no position.
pub(crate) struct Shard {
    path: PathBuf,
    file: File,
    sample_bytes: usize,
    /// Where the first sample starts in the file.
    samples_at: u64,
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
        entry: &ShardEntry,
        shape: SampleShape,
    ) -> Result<Self, DataError> {
        let read_error = |source| match io::Error::kind(&source) {
            io::ErrorKind::NotFound => {
                DataError::Shard { path: path.clone(), problem: "is missing".to_owned() }
            }
            _ => DataError::Read { path: path.clone(), source },
        };
        let wrong = |problem| DataError::Shard { path: path.clone(), problem };
        let file = File::open(&path).map_err(read_error)?;
        let found = file.metadata().map_err(read_error)?.len();
        let expected = entry.bytes;
        if found < expected {
            return Err(DataError::Truncated { path, expected, found, unit: "bytes" });
        }
        if found > expected {
            return Err(wrong(format!("has {found} bytes, expected {expected}")));
        }
        let (data_at, metadata) = read_header(&file, found).map_err(wrong)?;
        let num_samples = usize::try_from(entry.num_samples)
            .map_err(|_| wrong("holds more samples than memory".to_owned()))?;
        let samples = tensor(&metadata, "samples", Dtype::U8, &samples_shape(num_samples, shape))
            .map_err(wrong)?;
        let crcs = tensor(&metadata, "crc32", Dtype::U32, &[num_samples]).map_err(wrong)?;
        let samples_at = data_at + samples.data_offsets.0 as u64;
        let mut crc_bytes = vec![0; 4 * num_samples];
        file.read_exact_at(&mut crc_bytes, data_at + crcs.data_offsets.0 as u64)
            .map_err(read_error)?;
        let (quads, _) = crc_bytes.as_chunks::<4>();
        let crcs = quads.iter().map(|quad| u32::from_le_bytes(*quad)).collect();
        Ok(Self { path, file, sample_bytes: shape.num_bytes(), samples_at, crcs })
    }

    /// Samples in this shard.
    pub(crate) fn num_samples(&self) -> u64 {
        self.crcs.len() as u64
    }

    /// Reads sample `index` of this shard into `out` and checks it.
    ///
    /// # Errors
    ///
    /// [`DataError::CorruptSample`] if the bytes are not those that were packed,
    /// [`DataError::ReadSample`] if the system fails.
    pub(crate) fn read(&self, index: u64, out: &mut [u8]) -> Result<(), DataError> {
        let corrupt = |problem: String| DataError::CorruptSample {
            shard: self.path.clone(),
            sample: index,
            problem,
        };
        let at = self.samples_at + index * self.sample_bytes as u64;
        match self.file.read_exact_at(out, at) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(corrupt("is beyond the end of the file, which was longer".to_owned()));
            }
            Err(source) => {
                let shard = self.path.clone();
                return Err(DataError::ReadSample { shard, sample: index, source });
            }
        }
        let (found, expected) = (crc32fast::hash(out), self.crcs[index as usize]);
        if found != expected {
            return Err(corrupt(format!("has crc32 {found:08x}, packed as {expected:08x}")));
        }
        Ok(())
    }
}

/// Where the tensors start in the file, and what they are; the error completes "shard ...".
fn read_header(file: &File, file_bytes: u64) -> Result<(u64, Metadata), String> {
    let unreadable = |error: io::Error| format!("has an unreadable header ({error})");
    let mut length = [0; 8];
    file.read_exact_at(&mut length, 0).map_err(unreadable)?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER_BYTES {
        return Err(format!("claims a header of {length} bytes"));
    }
    let mut text = vec![0; length as usize];
    file.read_exact_at(&mut text, 8).map_err(unreadable)?;
    let metadata: Metadata = serde_json::from_slice(&text)
        .map_err(|error| format!("has a header that is not safetensors ({error})"))?;
    let format = metadata.metadata().as_ref().and_then(|keys| keys.get("format"));
    if format.map(String::as_str) != Some(FORMAT) {
        return Err(format!("has format {format:?}, expected {FORMAT:?}"));
    }
    let data_at = 8 + length;
    if data_at.checked_add(metadata.data_len() as u64) != Some(file_bytes) {
        return Err("has a header that does not match its length".to_owned());
    }
    Ok((data_at, metadata))
}

/// The tensor `name`, if it has this type and shape.
fn tensor<'a>(
    metadata: &'a Metadata,
    name: &str,
    dtype: Dtype,
    shape: &[usize],
) -> Result<&'a TensorInfo, String> {
    let info = metadata.info(name).ok_or_else(|| format!("has no tensor {name:?}"))?;
    if info.dtype != dtype || info.shape != shape {
        let (found_dtype, found) = (info.dtype, &info.shape);
        return Err(format!(
            "has tensor {name:?} of {found_dtype} {found:?}, the manifest says {dtype} {shape:?}"
        ));
    }
    Ok(info)
}

/// Shape of the tensor `samples`: channels last.
fn samples_shape(num_samples: usize, shape: SampleShape) -> Vec<usize> {
    vec![num_samples, shape.height as usize, shape.width as usize, shape.channels as usize]
}
