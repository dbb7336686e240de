//! The header of a safetensors file: written so that equal files have equal bytes, and read without
//! believing it.

use std::collections::HashMap;
use std::io;

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use crate::store::Blob;

/// Longest header that is believed; ours has a few hundred bytes.
const MAX_HEADER_BYTES: u64 = 1 << 20;

/// What the header says of one tensor.
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) bytes: usize,
}

/// A tensor with what it holds.
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) bytes: Vec<u8>,
}

impl Column {
    pub(crate) fn new(
        name: impl Into<String>,
        dtype: Dtype,
        shape: Vec<usize>,
        bytes: impl Iterator<Item = u8>,
    ) -> Self {
        Self { name: name.into(), dtype, shape, bytes: bytes.collect() }
    }
}

/// What a file of these tensors begins with, in the order of their bytes: the length of the header,
/// and the header, padded with spaces to eight bytes as the format's own writer does. Its metadata is
/// `format` alone, since safetensors writes several keys in the order of a hash map.
pub(crate) fn write(format: &str, tensors: Vec<Entry>) -> Vec<u8> {
    let mut offset = 0;
    let tensors = tensors.into_iter().map(|Entry { name, dtype, shape, bytes }| {
        let data_offsets = (offset, offset + bytes);
        offset += bytes;
        (name, TensorInfo { dtype, shape, data_offsets })
    });
    let metadata = HashMap::from([("format".to_owned(), format.to_owned())]);
    let metadata = Metadata::new(Some(metadata), tensors.collect()).expect("the offsets follow on");
    let mut text = serde_json::to_vec(&metadata).expect("a header is plain data");
    text.resize(text.len().next_multiple_of(8), b' ');
    [(text.len() as u64).to_le_bytes().to_vec(), text].concat()
}

/// The same of a file of these columns.
pub(crate) fn of_columns(format: &str, columns: &[Column]) -> Vec<u8> {
    let entry = |Column { name, dtype, shape, bytes }: &Column| Entry {
        name: name.clone(),
        dtype: *dtype,
        shape: shape.clone(),
        bytes: bytes.len(),
    };
    write(format, columns.iter().map(entry).collect())
}

/// Where the tensors start in the file, and what they are; the error completes "shard ...".
pub(crate) fn read(file: &Blob, expected: &str) -> Result<(u64, Metadata), String> {
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
    if format.map(String::as_str) != Some(expected) {
        return Err(format!("has format {format:?}, expected {expected:?}"));
    }
    let data_at = 8 + length;
    if data_at.checked_add(metadata.data_len() as u64) != Some(file.len()) {
        return Err("has a header that does not match its length".to_owned());
    }
    Ok((data_at, metadata))
}

/// The tensor `name`, if it has this type and shape.
pub(crate) fn tensor<'a>(
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
