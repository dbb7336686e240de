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

use safetensors::tensor::Dtype;
use serde_json::Value;

use crate::commit::{Committed, commit};
use crate::error::CheckpointError;
use crate::load::Checkpoint;
use crate::manifest::{Manifest, VERSION};
use crate::part::{HostTensor, Save, write_part};
use crate::retention::{BestMetric, Retention};
use crate::storage::Storage;

/// A tensor that owns its values.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Owned {
    pub(crate) name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Owned {
    pub(crate) fn view(&self) -> HostTensor<'_> {
        HostTensor { dtype: self.dtype, shape: self.shape.clone(), bytes: &self.bytes }
    }
}

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

/// What the newest version has and this checkpoint has not, or has otherwise.
pub(crate) fn additions(checkpoint: &Checkpoint) -> Vec<Owned> {
    let manifest = &checkpoint.manifest;
    let mut added = Vec::new();
    if manifest.version > 1 {
        return added;
    }
    let tensors = checkpoint.tensors();
    let has = |name: &str| tensors.iter().any(|(found, _)| found == name);
    let moments = tensors.iter().filter(|(name, _)| name.starts_with("optimizer.exp_avg."));
    let num_parameters = moments.count();
    if !has("optimizer.updates") && num_parameters > 0 {
        let bytes = (manifest.step as f64).to_le_bytes().repeat(num_parameters);
        let name = "optimizer.updates".to_owned();
        added.push(Owned { name, dtype: Dtype::F64, shape: vec![num_parameters], bytes });
    }
    let has_anchors = mentions(&manifest.config, "anchors");
    for (name, tensor) in &tensors {
        if let Some(quantizer) = name.strip_suffix(".ema_counts").filter(|_| has_anchors) {
            let name = format!("{quantizer}.ema_use");
            if !has(&name)
                && let Some(bytes) = shares(tensor)
            {
                added.push(Owned { name, dtype: tensor.dtype, shape: tensor.shape.clone(), bytes });
            }
        }
        if name == "metrics.window_sums" && tensor.shape == [5] {
            let mut bytes = tensor.bytes.to_vec();
            bytes.resize(bytes.len() / 5 * 6, 0);
            added.push(Owned { name: name.clone(), dtype: tensor.dtype, shape: vec![6], bytes });
        }
    }
    added
}

/// Whether a value of a configuration says so anywhere.
fn mentions(config: &Value, word: &str) -> bool {
    match config {
        Value::String(text) => text == word,
        Value::Array(parts) => parts.iter().any(|part| mentions(part, word)),
        Value::Object(table) => table.values().any(|value| mentions(value, word)),
        _ => false,
    }
}

/// Each value over the sum of all.
fn shares(counts: &HostTensor<'_>) -> Option<Vec<u8>> {
    match counts.dtype {
        Dtype::F32 => {
            let values = counts.bytes.as_chunks().0.iter().map(|four| f32::from_le_bytes(*four));
            let total: f32 = values.clone().sum();
            Some(values.flat_map(|value| (value / total).to_le_bytes()).collect())
        }
        Dtype::F64 => {
            let values = counts.bytes.as_chunks().0.iter().map(|eight| f64::from_le_bytes(*eight));
            let total: f64 = values.clone().sum();
            Some(values.flat_map(|value| (value / total).to_le_bytes()).collect())
        }
        _ => None,
    }
}
