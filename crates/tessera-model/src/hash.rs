//! What the hash of a model is made of.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;

use crate::tensors::Values;

/// A tensor without its values: kind, sizes, and the SHA-256 of its bytes in hex.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct TensorHash {
    /// Kind of its values, as safetensors calls it.
    pub(crate) dtype: String,
    /// Sizes of its axes.
    pub(crate) shape: Vec<usize>,
    /// SHA-256 of its bytes, contiguous and little endian.
    pub(crate) sha256: String,
}

/// Those of all tensors, by name.
pub(crate) fn hashes(tensors: &BTreeMap<String, Values>) -> BTreeMap<String, TensorHash> {
    let hash = |values: &Values| TensorHash {
        dtype: values.dtype.to_string(),
        shape: values.shape.clone(),
        sha256: tessera_checkpoint::sha256_hex(&values.bytes),
    };
    tensors.iter().map(|(name, values)| (name.clone(), hash(values))).collect()
}

/// JSON with sorted keys and no spaces.
pub(crate) fn canonical(value: &Value) -> String {
    let mut text = String::new();
    write(value, &mut text);
    text
}

fn write(value: &Value, text: &mut String) {
    match value {
        Value::Object(object) => {
            let mut entries: Vec<_> = object.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            text.push('{');
            for (number, (key, value)) in entries.into_iter().enumerate() {
                let comma = if number == 0 { "" } else { "," };
                let _ = write!(text, "{comma}{}:", Value::from(key.as_str()));
                write(value, text);
            }
            text.push('}');
        }
        Value::Array(values) => {
            text.push('[');
            for (number, value) in values.iter().enumerate() {
                text.push_str(if number == 0 { "" } else { "," });
                write(value, text);
            }
            text.push(']');
        }
        plain => {
            let _ = write!(text, "{plain}");
        }
    }
}
