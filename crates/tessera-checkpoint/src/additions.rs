//! What version 1 lacks of the newest one's state, worked out from what is there; `upgrade.rs` lists it.

use safetensors::tensor::Dtype;
use serde_json::Value;

use crate::manifest::Manifest;
use crate::tensor::HostTensor;

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

/// What the newest version has and a checkpoint of version 1 with these tensors has not, or has
/// otherwise.
pub(crate) fn additions(manifest: &Manifest, tensors: &[(String, HostTensor<'_>)]) -> Vec<Owned> {
    let mut added = Vec::new();
    let has = |name: &str| tensors.iter().any(|(found, _)| found == name);
    let moments = tensors.iter().filter(|(name, _)| name.starts_with("optimizer.exp_avg."));
    let num_parameters = moments.count();
    if !has("optimizer.updates") && num_parameters > 0 {
        let bytes = (manifest.step as f64).to_le_bytes().repeat(num_parameters);
        let name = "optimizer.updates".to_owned();
        added.push(Owned { name, dtype: Dtype::F64, shape: vec![num_parameters], bytes });
    }
    let has_anchors = mentions(&manifest.config, "anchors");
    for (name, tensor) in tensors {
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
