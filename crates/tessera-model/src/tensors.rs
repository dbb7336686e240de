//! The tensors of a model, by name: between its networks, a checkpoint and a file.

use std::collections::BTreeMap;

use safetensors::tensor::{Dtype, SafeTensors};
use tch::{Device, Kind, Tensor};
use tessera_checkpoint::HostTensor;

/// A tensor's values on the host, contiguous, little endian.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Values {
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) bytes: Vec<u8>,
}

impl Values {
    pub(crate) fn of(tensor: &HostTensor<'_>) -> Self {
        let HostTensor { dtype, shape, bytes } = tensor;
        Self { dtype: *dtype, shape: shape.clone(), bytes: bytes.to_vec() }
    }

    fn copied(tensor: &Tensor) -> Self {
        let dtype = match tensor.kind() {
            Kind::Double => Dtype::F64,
            _ => Dtype::F32,
        };
        let plain = tensor.detach().to(Device::Cpu).contiguous();
        let shape = plain.size().iter().map(|&size| size as usize).collect();
        let bytes = Vec::try_from(plain.reshape([-1]).view_dtype(Kind::Uint8));
        Self { dtype, shape, bytes: bytes.expect("bytes are bytes") }
    }

    fn tensor(&self) -> Option<Tensor> {
        let kind = match self.dtype {
            Dtype::F32 => Kind::Float,
            Dtype::F64 => Kind::Double,
            _ => return None,
        };
        let size: Vec<i64> = self.shape.iter().map(|&size| size as i64).collect();
        Some(Tensor::from_data_size(&self.bytes, &size, kind))
    }
}

/// The values of tensors.
pub(crate) fn values(named: Vec<(String, Tensor)>) -> BTreeMap<String, Values> {
    named.into_iter().map(|(name, tensor)| (name, Values::copied(&tensor))).collect()
}

/// Writes values into tensors; what does not fit.
pub(crate) fn fill(
    named: Vec<(String, Tensor)>,
    values: &BTreeMap<String, Values>,
) -> Result<(), String> {
    let _no_grad = tch::no_grad_guard();
    for (name, mut tensor) in named {
        let found = values.get(&name).ok_or_else(|| format!("it has no tensor {name}"))?;
        let found = found.tensor().ok_or_else(|| format!("{name} is of kind {:?}", found.dtype))?;
        let (kind, size) = (found.kind(), found.size());
        if kind != tensor.kind() || size != tensor.size() {
            let (wanted, sizes) = (tensor.kind(), tensor.size());
            return Err(format!(
                "{name} is {kind:?} {size:?}, the model wants {wanted:?} {sizes:?}"
            ));
        }
        tensor.copy_(&found);
    }
    Ok(())
}

/// The bytes of `model.safetensors`.
pub(crate) fn to_bytes(values: &BTreeMap<String, Values>) -> Vec<u8> {
    let views = values.iter().map(|(name, values)| {
        let Values { dtype, shape, bytes } = values;
        (name.as_str(), HostTensor { dtype: *dtype, shape: shape.clone(), bytes })
    });
    safetensors::serialize(views, None).expect("shapes are those of the bytes")
}

/// The way back of [`to_bytes`]; what is wrong, where they are no such file.
pub(crate) fn from_bytes(bytes: &[u8]) -> Result<BTreeMap<String, Values>, String> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
    let values = |(name, view): (&str, safetensors::tensor::TensorView<'_>)| {
        let (dtype, shape) = (view.dtype(), view.shape().to_vec());
        (name.to_owned(), Values { dtype, shape, bytes: view.data().to_vec() })
    };
    Ok(file.iter().map(values).collect())
}
