//! `manifest.json`: what a checkpoint is and which files it has.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::CheckpointError;
use crate::hash::sha256_hex;
use crate::patience::patiently;
use crate::version::{OLDEST, VERSION};

/// Name of the manifest in a checkpoint's folder.
pub(crate) const FILE: &str = "manifest.json";
/// Name of the file that holds the manifest's own hash.
pub(crate) const HASH_FILE: &str = "manifest.sha256";
/// What a manifest says of itself.
const FORMAT: &str = "tessera-checkpoint";

/// `manifest.json` of a checkpoint. A reader ignores keys that it does not know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Always `tessera-checkpoint`.
    pub format: String,
    /// Version of the format.
    pub version: u32,
    /// Optimiser steps done.
    pub step: u64,
    /// Position in the order of samples: samples trained on so far.
    pub samples_seen: u64,
    /// Ranks of the run that wrote it.
    pub world_size: usize,
    /// Which start of which launch wrote it; none in those of version 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<String>,
    /// Version of Tessera that wrote it.
    pub tessera: String,
    /// SHA-256 of the configuration.
    pub config_hash: String,
    /// The configuration.
    pub config: Value,
    /// Identity of the data set.
    pub data_fingerprint: String,
    /// Figures of the evaluation after the same step, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluation: Option<Value>,
    /// What the model takes: parameters of each part, and what a sample costs. None in those of older programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<Value>,
    /// The files that hold the tensors.
    pub files: Vec<FileEntry>,
}

/// A file of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Name in the checkpoint's folder.
    pub name: String,
    /// Length.
    pub bytes: u64,
    /// SHA-256 of its content, in hex.
    pub sha256: String,
    /// Names of the tensors in it.
    pub tensors: Vec<String>,
}

impl Manifest {
    /// A manifest that lists no files yet.
    pub fn draft(
        step: u64,
        samples_seen: u64,
        world_size: usize,
        config: Value,
        config_hash: String,
        data_fingerprint: String,
    ) -> Self {
        Self {
            format: FORMAT.into(),
            version: VERSION,
            step,
            samples_seen,
            world_size,
            attempt: None,
            tessera: env!("CARGO_PKG_VERSION").into(),
            config_hash,
            config,
            data_fingerprint,
            evaluation: None,
            model: None,
            files: Vec::new(),
        }
    }

    /// Reads the manifest of a checkpoint; looks at no other file.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Damaged`], [`CheckpointError::Unreadable`], [`CheckpointError::OtherVersion`] or
    /// [`CheckpointError::NotOne`].
    pub fn read(folder: &Path) -> Result<Self, CheckpointError> {
        #[derive(Deserialize)]
        struct Head {
            #[serde(default)]
            format: String,
            #[serde(default)]
            version: u32,
            #[serde(default)]
            tessera: String,
        }
        let damaged = |problem: String| CheckpointError::damaged(folder, FILE, problem);
        let bytes =
            patiently(|| fs::read(folder.join(FILE))).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => {
                    damaged("it is missing, the save was never finished".into())
                }
                _ => CheckpointError::reading(folder, FILE, error),
            })?;
        let promised = match patiently(|| fs::read(folder.join(HASH_FILE))) {
            Ok(promised) => Some(promised),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(CheckpointError::reading(folder, HASH_FILE, error)),
        };
        if promised.as_ref().is_some_and(|promised| *promised != hash_line(&bytes).into_bytes()) {
            return Err(damaged(format!("not as {HASH_FILE} has it, it is damaged")));
        }
        let value: Value =
            serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        let head = Head::deserialize(&value).ok().filter(|head| head.format == FORMAT);
        match head {
            None => Err(CheckpointError::NotOne {
                path: folder.join(FILE),
                problem: "is no checkpoint's manifest: for a data set use `tessera data inspect`"
                    .into(),
            }),
            Some(Head { version, tessera, .. }) if !(OLDEST..=VERSION).contains(&version) => {
                let folder = folder.to_owned();
                Err(CheckpointError::OtherVersion { folder, found: version, tessera })
            }
            Some(_) if promised.is_none() => Err(damaged(format!("{HASH_FILE} is missing"))),
            Some(_) => serde_json::from_value(value).map_err(|error| damaged(error.to_string())),
        }
    }

    /// The bytes of the manifest and those of the file with its hash.
    pub(crate) fn to_files(&self) -> [(&'static str, Vec<u8>); 2] {
        let json = serde_json::to_vec_pretty(self).expect("a manifest is plain data");
        let hash = hash_line(&json).into_bytes();
        [(FILE, json), (HASH_FILE, hash)]
    }
}

/// The content of `manifest.sha256`, as `sha256sum --check` reads it.
fn hash_line(manifest: &[u8]) -> String {
    format!("{}  {FILE}\n", sha256_hex(manifest))
}
