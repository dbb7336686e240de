//! Tensors of a file by their names: what is missing, of another shape, or not to be expected.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

/// The tensors of a file that have not been taken yet.
pub(super) struct Named {
    tensors: BTreeMap<String, Tensor>,
    device: Device,
    /// What the file should be, for errors.
    layout: &'static str,
}

impl Named {
    pub(super) fn new(
        tensors: impl IntoIterator<Item = (String, Tensor)>,
        device: Device,
        layout: &'static str,
    ) -> Self {
        Self { tensors: tensors.into_iter().collect(), device, layout }
    }

    /// Forgets the tensors whose names begin like this.
    pub(super) fn forget(&mut self, prefixes: &[&str]) {
        let starts = |name: &String| prefixes.iter().any(|prefix| name.starts_with(prefix));
        self.tensors.retain(|name, _| !starts(name));
    }

    pub(super) fn holds(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Takes the tensor that has the first of these names that there is, in float32 or float64.
    pub(super) fn take(&mut self, names: &[String], shape: &[i64]) -> Result<Tensor, String> {
        let Some(name) = names.iter().find(|name| self.holds(name)) else {
            return Err(format!("{} is missing: {}", names[0], self.layout));
        };
        let tensor = self.tensors.remove(name).expect("it has just been found");
        if tensor.size() != shape {
            return Err(format!(
                "{name} should be {shape:?}, found {:?}: {}",
                tensor.size(),
                self.layout
            ));
        }
        let kind = if tensor.kind() == Kind::Double { Kind::Double } else { Kind::Float };
        Ok(tensor.detach().to_kind(kind).to_device(self.device))
    }

    /// Nothing else is in the file.
    pub(super) fn end(&self) -> Result<(), String> {
        match self.tensors.keys().next() {
            None => Ok(()),
            Some(name) => Err(format!("{name} is not of this network: {}", self.layout)),
        }
    }
}
