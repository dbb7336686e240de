//! A rank's part of a checkpoint: one safetensors file.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, View};

use crate::error::CheckpointError;
use crate::manifest::FileEntry;
use crate::sha256_hex;
use crate::storage::Storage;

/// A tensor's values on the host, contiguous, little endian.
#[derive(Debug, Clone)]
pub struct HostTensor<'a> {
    /// Kind of the values.
    pub dtype: Dtype,
    /// Sizes of the axes.
    pub shape: Vec<usize>,
    /// The values.
    pub bytes: &'a [u8],
}

impl View for HostTensor<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(self.bytes)
    }
    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// File in which a rank reports its part to the one that commits.
pub(crate) fn report_file(partial: &Path, rank: usize) -> PathBuf {
    partial.join(format!("part-{rank:05}.json"))
}

/// Writes a rank's part of a checkpoint, and beside it the report of what was written. The folder
/// `partial` is made where it is not there.
///
/// # Errors
///
/// [`CheckpointError::File`]; what was written of the part is removed.
///
/// # Panics
///
/// If a tensor has not as many bytes as its shape says.
pub fn write_part(
    storage: &Storage,
    partial: &Path,
    (rank, world_size): (usize, usize),
    tensors: Vec<(&str, HostTensor<'_>)>,
) -> Result<FileEntry, CheckpointError> {
    storage.make_folder(partial)?;
    let name = format!("state-{:05}-of-{world_size:05}.safetensors", rank + 1);
    let mut names: Vec<String> = tensors.iter().map(|(name, _)| (*name).to_owned()).collect();
    names.sort_unstable();
    let bytes = safetensors::serialize(tensors, None).expect("shapes are those of the bytes");
    storage.write(&partial.join(&name), &bytes)?;
    let (sha256, bytes) = (sha256_hex(&bytes), bytes.len() as u64);
    let entry = FileEntry { name, bytes, sha256, tensors: names };
    let report = serde_json::to_vec(&entry).expect("an entry is plain data");
    storage.write(&report_file(partial, rank), &report)?;
    Ok(entry)
}
