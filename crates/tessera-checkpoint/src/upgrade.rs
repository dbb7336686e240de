//! Checkpoints of older versions, brought to the newest.
//!
//! Version 1 was written by programs whose state had less in it. What is missing is worked out from what is
//! there, when a checkpoint is read ([`Checkpoint::read`]), or once and for all ([`upgrade`]):
//!
//! * `optimizer.updates`: how often AdamW has moved each parameter. Every step had counted for every
//!   parameter.
//! * `QUANTIZER.ema_use`, where dead codes get anchors: the moving part of all tokens that each code has. About
//!   that of the moving counts.
//! * The sixth of `metrics.window_sums`, samples that could not be read: they were not counted.

use std::path::{Path, PathBuf};

use crate::commit::{Committed, commit};
use crate::error::CheckpointError;
use crate::load::Checkpoint;
use crate::manifest::Manifest;
use crate::part::{Save, write_part};
use crate::retention::{BestMetric, Retention};
use crate::storage::Storage;
use crate::version::VERSION;

/// What became of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upgraded {
    /// It was of the newest version.
    Already,
    /// It is now; the old one lies in `superseded/`.
    From {
        /// Version that it was of.
        version: u32,
        /// The checkpoint.
        path: PathBuf,
    },
}

/// Writes a checkpoint anew in the newest version, under its name; the old one is moved to `superseded/` beside
/// it, and nothing is lost.
///
/// # Errors
///
/// [`CheckpointError`]; then the old one is as it was, or in `superseded/`.
pub fn upgrade(storage: &Storage, folder: &Path) -> Result<Upgraded, CheckpointError> {
    let old = Checkpoint::read(folder)?;
    let version = old.manifest.version;
    if version == VERSION {
        return Ok(Upgraded::Already);
    }
    let folder = folder.canonicalize().map_err(CheckpointError::file("find", folder))?;
    let checkpoints = folder.parent().ok_or_else(|| CheckpointError::NotOne {
        path: folder.clone(),
        problem: "is the root of the file system".into(),
    })?;
    let attempt = format!("upgrade-{}", std::process::id());
    let save = Save { step: old.manifest.step, attempt, number: version.into() };
    let tensors = old.tensors();
    let tensors = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.clone())).collect();
    write_part(storage, checkpoints, &save, (0, 1), tensors)?;
    let draft = Manifest { version: VERSION, files: Vec::new(), ..old.manifest.clone() };
    let all = Retention { last: u64::MAX, every: 0, best: 0, metric: BestMetric::default() };
    let Committed { path, .. } = commit(storage, checkpoints, &save, 1, draft, &all)?;
    Ok(Upgraded::From { version, path })
}
