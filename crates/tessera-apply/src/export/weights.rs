//! Tensors as a file of safetensors, as other programs want it.

use std::collections::{BTreeMap, HashMap};

use safetensors::tensor::{Dtype, TensorView};
use tch::{Device, Kind, Tensor};

use super::Source;

/// Float32 tensors by name.
pub(super) type Named = BTreeMap<String, Tensor>;

/// The bytes of a file with these tensors; older readers insist on its metadata.
pub(super) fn to_bytes(named: &Named) -> Vec<u8> {
    let values: Vec<(&str, Vec<usize>, Vec<u8>)> = named
        .iter()
        .map(|(name, tensor)| {
            let plain = tensor.detach().to_device(Device::Cpu).to_kind(Kind::Float).contiguous();
            let shape = plain.size().iter().map(|&size| size as usize).collect();
            let bytes = Vec::try_from(plain.reshape([-1]).view_dtype(Kind::Uint8));
            (name.as_str(), shape, bytes.expect("bytes are bytes"))
        })
        .collect();
    let views = values.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes);
        (*name, view.expect("bytes are those of the shape"))
    });
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize(views, Some(metadata)).expect("shapes are those of the bytes")
}

impl Source<'_> {
    /// Every parameter of encoder and decoder by our name.
    pub(super) fn networks(&self) -> Named {
        let views = self.model.vqvae.parameters.named_views();
        let is_network = |name: &str| name.starts_with("encoder.") || name.starts_with("decoder.");
        views
            .filter(|(name, _)| is_network(name))
            .map(|(name, tensor)| (name.to_owned(), tensor))
            .collect()
    }
}
