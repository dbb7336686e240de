//! Which tensors of two checkpoints differ, and by how much.

use safetensors::tensor::Dtype;
use serde::Serialize;

use crate::load::Checkpoint;
use crate::tensor::HostTensor;

/// How two checkpoints differ.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// Keys of the configurations with other values: key, the first's value, the second's.
    pub config: Vec<(String, String, String)>,
    /// Tensors that are not bit for bit the same, by name.
    pub tensors: Vec<TensorDifference>,
    /// Tensors that are the same.
    pub num_equal: usize,
}

/// How a tensor differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TensorDifference {
    /// Its name.
    pub name: String,
    /// What differs other than values: kind, shape, or that it is in one alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub form: Option<String>,
    /// Values that are not the same bits.
    pub num_values: usize,
    /// All its values.
    pub num_elements: usize,
    /// Largest absolute difference of two values; infinite where one of them is no number.
    pub max_abs: f64,
    /// Norm of the difference over the norm of the first.
    pub relative: f64,
}

/// Compares two checkpoints, tensor by tensor.
pub fn diff(first: &Checkpoint, second: &Checkpoint) -> Difference {
    let (ours, theirs) = (first.tensors(), second.tensors());
    let mut tensors = Vec::new();
    let mut num_equal = 0;
    let find = |all: &[(String, HostTensor<'_>)], name: &str| {
        all.binary_search_by(|(found, _)| found.as_str().cmp(name)).ok()
    };
    for (name, tensor) in &ours {
        match find(&theirs, name).map(|at| &theirs[at].1) {
            None => tensors.push(only(name, tensor, "in the first alone")),
            Some(other) if other.dtype != tensor.dtype || other.shape != tensor.shape => {
                let form = format!(
                    "{} {:?} and {} {:?}",
                    tensor.dtype, tensor.shape, other.dtype, other.shape
                );
                tensors.push(only(name, tensor, &form));
            }
            Some(other) if other.bytes == tensor.bytes => num_equal += 1,
            Some(other) => tensors.push(compare(name, tensor, other)),
        }
    }
    for (name, tensor) in theirs.iter().filter(|(name, _)| find(&ours, name).is_none()) {
        tensors.push(only(name, tensor, "in the second alone"));
    }
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    let mut config = Vec::new();
    compare_values("", &first.manifest.config, &second.manifest.config, &mut config);
    Difference { config, tensors, num_equal }
}

fn only(name: &str, tensor: &HostTensor<'_>, form: &str) -> TensorDifference {
    let num_elements = tensor.shape.iter().product();
    TensorDifference {
        name: name.to_owned(),
        form: Some(form.to_owned()),
        num_values: num_elements,
        num_elements,
        max_abs: f64::INFINITY,
        relative: f64::INFINITY,
    }
}

fn compare(name: &str, first: &HostTensor<'_>, second: &HostTensor<'_>) -> TensorDifference {
    let (ours, theirs) = (values(first), values(second));
    let (mut num_values, mut max_abs, mut squares, mut norm) = (0, 0.0f64, 0.0, 0.0);
    for (a, b) in ours.iter().zip(&theirs) {
        num_values += usize::from(a.to_bits() != b.to_bits());
        let distance = (a - b).abs();
        // A difference that is no number is as large as one can be.
        let distance =
            if distance.is_nan() && a.to_bits() != b.to_bits() { f64::INFINITY } else { distance };
        max_abs = max_abs.max(distance);
        squares += distance * distance;
        norm += a * a;
    }
    TensorDifference {
        name: name.to_owned(),
        form: None,
        num_values,
        num_elements: ours.len(),
        max_abs,
        relative: (squares / norm).sqrt(),
    }
}

/// The values of a tensor; of kinds that no state has, its bytes.
fn values(tensor: &HostTensor<'_>) -> Vec<f64> {
    let bytes = tensor.bytes;
    match tensor.dtype {
        Dtype::F32 => {
            bytes.as_chunks().0.iter().map(|&four| f64::from(f32::from_le_bytes(four))).collect()
        }
        Dtype::F64 => bytes.as_chunks().0.iter().map(|&eight| f64::from_le_bytes(eight)).collect(),
        Dtype::I64 => {
            bytes.as_chunks().0.iter().map(|&eight| i64::from_le_bytes(eight) as f64).collect()
        }
        _ => bytes.iter().map(|&byte| f64::from(byte)).collect(),
    }
}

fn compare_values(
    key: &str,
    first: &serde_json::Value,
    second: &serde_json::Value,
    found: &mut Vec<(String, String, String)>,
) {
    use serde_json::Value;
    if let (Value::Object(ours), Value::Object(theirs)) = (first, second) {
        let mut names: Vec<&String> = ours.keys().chain(theirs.keys()).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            let below = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
            let value = |table: &serde_json::Map<String, Value>| {
                table.get(name).cloned().unwrap_or(Value::Null)
            };
            compare_values(&below, &value(ours), &value(theirs), found);
        }
    } else if first != second {
        found.push((key.to_owned(), first.to_string(), second.to_string()));
    }
}
