//! Reading checkpoints: nothing is believed whose hash does not hold.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Metadata, SafeTensors};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::error::CheckpointError;
use crate::manifest::{FileEntry, Manifest};
use crate::part::HostTensor;
use crate::{hex, sha256_hex};

/// A safetensors header is not longer than this, by its own specification.
const LONGEST_HEADER: u64 = 100_000_000;

/// A checkpoint in memory whose hashes hold.
#[derive(Debug)]
pub struct Checkpoint {
    /// Where it was read.
    pub path: PathBuf,
    /// Its manifest.
    pub manifest: Manifest,
    contents: Vec<Vec<u8>>,
}

impl Checkpoint {
    /// Reads a checkpoint and checks the hash of each file.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Damaged`] or [`CheckpointError::NotOne`].
    pub fn verify(folder: &Path) -> Result<Self, CheckpointError> {
        let manifest = Manifest::read(folder)?;
        let mut contents = Vec::with_capacity(manifest.files.len());
        for entry in &manifest.files {
            let bad = |problem: String| CheckpointError::damaged(folder, &entry.name, problem);
            let path = path_of(folder, entry).map_err(|problem| bad(problem.to_owned()))?;
            let bytes = fs::read(path).map_err(|error| bad(error.to_string()))?;
            if sha256_hex(&bytes) != entry.sha256 {
                return Err(bad("its SHA-256 is not the manifest's, it is damaged".into()));
            }
            SafeTensors::deserialize(&bytes).map_err(|error| bad(error.to_string()))?;
            contents.push(bytes);
        }
        Ok(Self { path: folder.to_owned(), manifest, contents })
    }

    /// All tensors, in the order of their names.
    pub fn tensors(&self) -> Vec<(String, HostTensor<'_>)> {
        let mut all = Vec::new();
        for bytes in &self.contents {
            let file = SafeTensors::deserialize(bytes).expect("it was read before");
            for (name, view) in file.iter() {
                let (dtype, shape) = (view.dtype(), view.shape().to_vec());
                all.push((name.to_owned(), HostTensor { dtype, shape, bytes: view.data() }));
            }
        }
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }
}

/// Where a file of a manifest lies: right in the checkpoint's folder.
fn path_of(folder: &Path, entry: &FileEntry) -> Result<PathBuf, &'static str> {
    let plain = Path::new(&entry.name).file_name().is_some_and(|name| name == entry.name.as_str());
    if plain { Ok(folder.join(&entry.name)) } else { Err("not a plain file name") }
}

/// What a checkpoint holds, and which of its files are not what was written.
#[derive(Debug)]
pub struct Survey {
    /// Its manifest.
    pub manifest: Manifest,
    /// Its files, in the manifest's order.
    pub files: Vec<CheckedFile>,
    /// The tensors of the files that are whole, by name.
    pub tensors: Vec<TensorInfo>,
}

/// A file, and what is wrong with it.
#[derive(Debug, Serialize)]
pub struct CheckedFile {
    /// What the manifest says of it.
    #[serde(flatten)]
    pub entry: FileEntry,
    /// What is wrong; none if it is as it was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// A tensor, without its values.
#[derive(Debug, Serialize)]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// Kind of its values.
    pub dtype: String,
    /// Sizes of its axes.
    pub shape: Vec<usize>,
    /// The file it is in.
    pub file: String,
}

/// Checks every file of a checkpoint, piece by piece, so that it need not fit in memory.
///
/// # Errors
///
/// [`CheckpointError`] only where the manifest cannot be used; damage to other files is told.
pub fn survey(folder: &Path) -> Result<Survey, CheckpointError> {
    let manifest = Manifest::read(folder)?;
    let (mut files, mut tensors) = (Vec::new(), Vec::new());
    for entry in manifest.files.clone() {
        let problem = match check_file(folder, &entry) {
            Ok(metadata) => {
                for name in metadata.offset_keys() {
                    let Some(info) = metadata.info(&name) else { continue };
                    let (dtype, shape) = (info.dtype.to_string(), info.shape.clone());
                    tensors.push(TensorInfo { name, dtype, shape, file: entry.name.clone() });
                }
                None
            }
            Err(problem) => Some(problem),
        };
        files.push(CheckedFile { entry, problem });
    }
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Survey { manifest, files, tensors })
}

/// Hashes the file piece by piece and reads its header; the error says what is wrong.
fn check_file(folder: &Path, entry: &FileEntry) -> Result<Metadata, String> {
    let path = path_of(folder, entry)?;
    let unreadable = |error: io::Error| format!("cannot be read ({error})");
    let mut source = File::open(path).map_err(unreadable)?;
    let bytes = source.metadata().map_err(unreadable)?.len();
    if bytes != entry.bytes {
        return Err(format!("has {bytes} bytes where the manifest says {}", entry.bytes));
    }
    let mut hash = HashingReader { source: &mut source, hasher: Sha256::new() };
    let metadata = read_header(&mut hash);
    io::copy(&mut hash, &mut io::sink()).map_err(unreadable)?;
    if hex(&hash.hasher.finalize()) != entry.sha256.to_ascii_lowercase() {
        return Err("sha256 differs from the manifest's".into());
    }
    metadata.map_err(|error| format!("is no safetensors file ({error})"))
}

fn read_header(source: &mut impl Read) -> io::Result<Metadata> {
    let mut length = [0u8; 8];
    source.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    if length > LONGEST_HEADER {
        return Err(io::Error::other("its header is too long"));
    }
    let mut header = Vec::new();
    source.take(length).read_to_end(&mut header)?;
    Ok(serde_json::from_slice(&header)?)
}

/// Hashes what is read through it.
struct HashingReader<'a> {
    source: &'a mut File,
    hasher: Sha256,
}

impl Read for HashingReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}
