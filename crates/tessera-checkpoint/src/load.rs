//! Reading checkpoints: nothing is believed whose hash does not hold.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Metadata, SafeTensors};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::additions::additions;
use crate::error::CheckpointError;
use crate::hash::{hex, sha256_hex};
use crate::manifest::{FileEntry, Manifest};
use crate::patience::patiently;
use crate::tensor::HostTensor;

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
    /// Reads a checkpoint into memory, checks the hash of each file, and brings its state to that of the newest
    /// version ([`upgrade`](mod@crate::upgrade)).
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Damaged`], [`CheckpointError::Unreadable`], [`CheckpointError::OtherVersion`] or
    /// [`CheckpointError::NotOne`].
    pub fn read(folder: &Path) -> Result<Self, CheckpointError> {
        let manifest = Manifest::read(folder)?;
        let mut contents = Vec::with_capacity(manifest.files.len() + 1);
        for entry in &manifest.files {
            let bad = |problem: String| CheckpointError::damaged(folder, &entry.name, problem);
            let path = path_of(folder, entry).map_err(|problem| bad(problem.to_owned()))?;
            let bytes = patiently(|| fs::read(&path))
                .map_err(|error| CheckpointError::reading(folder, &entry.name, error))?;
            if sha256_hex(&bytes) != entry.sha256 {
                return Err(bad("its SHA-256 is not the manifest's, it is damaged".into()));
            }
            SafeTensors::deserialize(&bytes).map_err(|error| bad(error.to_string()))?;
            contents.push(bytes);
        }
        let mut checkpoint = Self { path: folder.to_owned(), manifest, contents };
        let added = match checkpoint.manifest.version {
            1 => additions(&checkpoint.manifest, &checkpoint.tensors()),
            _ => Vec::new(),
        };
        if !added.is_empty() {
            let views = added.iter().map(|tensor| (tensor.name.as_str(), tensor.view()));
            let bytes = safetensors::serialize(views, None).expect("shapes are those of the bytes");
            checkpoint.contents.push(bytes);
        }
        Ok(checkpoint)
    }

    /// All tensors, in the order of their names.
    pub fn tensors(&self) -> Vec<(String, HostTensor<'_>)> {
        // What an upgrade has changed comes last, and stands for what was there.
        let mut all = BTreeMap::new();
        for bytes in &self.contents {
            let file = SafeTensors::deserialize(bytes).expect("it was read before");
            for (name, view) in file.iter() {
                let (dtype, shape) = (view.dtype(), view.shape().to_vec());
                all.insert(name.to_owned(), HostTensor { dtype, shape, bytes: view.data() });
            }
        }
        all.into_iter().collect()
    }
}

/// Checks the hash of each file of a checkpoint, piece by piece: it need not fit in memory.
///
/// # Errors
///
/// As [`Checkpoint::read`].
pub fn verify(folder: &Path) -> Result<Manifest, CheckpointError> {
    let manifest = Manifest::read(folder)?;
    verify_files(folder, &manifest)?;
    Ok(manifest)
}

/// The same of the files that a manifest lists.
pub(crate) fn verify_files(folder: &Path, manifest: &Manifest) -> Result<(), CheckpointError> {
    for entry in &manifest.files {
        check_file(folder, entry).map_err(|problem| problem.of(folder, &entry.name))?;
    }
    Ok(())
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
            Err(problem) => Some(problem.to_string()),
        };
        files.push(CheckedFile { entry, problem });
    }
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Survey { manifest, files, tensors })
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("{0}")]
    Damaged(String),
    #[error("cannot be read ({0})")]
    Reading(#[from] io::Error),
}

impl Problem {
    fn of(self, folder: &Path, file: &str) -> CheckpointError {
        match self {
            Self::Damaged(problem) => CheckpointError::damaged(folder, file, problem),
            Self::Reading(source) => CheckpointError::reading(folder, file, source),
        }
    }
}

/// Hashes the file piece by piece and reads its header.
fn check_file(folder: &Path, entry: &FileEntry) -> Result<Metadata, Problem> {
    let path = path_of(folder, entry).map_err(|problem| Problem::Damaged(problem.to_owned()))?;
    let (bytes, sha256, metadata) = patiently(|| {
        let mut source = File::open(&path)?;
        let bytes = source.metadata()?.len();
        let mut hash = HashingReader { source: &mut source, hasher: Sha256::new() };
        let metadata = read_header(&mut hash).map_err(|error| error.to_string());
        io::copy(&mut hash, &mut io::sink())?;
        Ok((bytes, hex(&hash.hasher.finalize()), metadata))
    })?;
    if bytes != entry.bytes {
        let problem = format!("has {bytes} bytes where the manifest says {}", entry.bytes);
        return Err(Problem::Damaged(problem));
    }
    if sha256 != entry.sha256.to_ascii_lowercase() {
        return Err(Problem::Damaged("its SHA-256 is not the manifest's, it is damaged".into()));
    }
    metadata.map_err(|error| Problem::Damaged(format!("is no safetensors file ({error})")))
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
