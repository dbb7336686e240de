//! The state of one step on the host, for whoever writes it while the training goes on.

use std::ops::Range;
use std::time::Duration;

use tch::{Kind, Tensor};
use tessera_checkpoint::{Dtype, HostTensor, num_files};
use tessera_comm::{HostBytes, RankDevice, download};

use super::state::state;
use crate::engine::training::Training;
use crate::error::TrainError;

/// Longest wait for a device to copy its state.
const DEADLINE: Duration = Duration::from_secs(300);

/// This rank's part of all state: whole tensors. A copy, which nothing that the training does
/// afterwards can reach.
#[derive(Debug)]
pub(crate) struct Snapshot {
    memory: HostBytes,
    /// `None` where other ranks write all there is.
    tensors: Option<Vec<Slot>>,
    /// Files of the whole state.
    num_parts: usize,
}

#[derive(Debug)]
struct Slot {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Range<usize>,
}

impl Snapshot {
    /// Copies a rank's part of the state into `memory`, which grows where it is too small.
    ///
    /// # Errors
    ///
    /// [`TrainError::Comm`] if the device fails.
    pub(crate) fn take(
        training: &Training,
        (rank, world_size): (usize, usize),
        least_bytes: usize,
        device: &RankDevice,
        mut memory: HostBytes,
    ) -> Result<Self, TrainError> {
        let state = state(training);
        let bytes = |tensor: &Tensor| tensor.numel() * tensor.kind().elt_size_in_bytes();
        let total = state.iter().map(|(_, tensor)| bytes(tensor)).sum();
        let num_parts = num_files(total, world_size, least_bytes);
        if rank >= num_parts {
            return Ok(Self { memory, tensors: None, num_parts });
        }
        let mine = deal(state, num_parts).swap_remove(rank);
        let (mut slots, mut tensors, mut at) = (Vec::new(), Vec::new(), 0);
        for (name, tensor) in mine {
            let dtype = match tensor.kind() {
                Kind::Float => Dtype::F32,
                Kind::Double => Dtype::F64,
                kind => unreachable!("no state is of kind {kind:?}"),
            };
            let shape = tensor.size().into_iter().map(|size| size as usize).collect();
            let end = at + bytes(&tensor);
            slots.push(Slot { name, dtype, shape, bytes: at..end });
            tensors.push(tensor);
            at = end;
        }
        if memory.as_ref().len() < at {
            memory = HostBytes::new(device, at)?;
        }
        download(device, &tensors, &mut memory, DEADLINE)?;
        Ok(Self { memory, tensors: Some(slots), num_parts })
    }

    /// Files that the whole state is written to, the same on every rank.
    pub(crate) fn num_parts(&self) -> usize {
        self.num_parts
    }

    /// This rank's tensors by name; `None` where it writes no file.
    pub(crate) fn tensors(&self) -> Option<Vec<(&str, HostTensor<'_>)>> {
        let view = |slot: &Slot| HostTensor {
            dtype: slot.dtype,
            shape: slot.shape.clone(),
            bytes: &self.memory.as_ref()[slot.bytes.clone()],
        };
        let slots = self.tensors.as_ref()?;
        Some(slots.iter().map(|slot| (slot.name.as_str(), view(slot))).collect())
    }

    /// The memory, for the next one.
    pub(crate) fn into_memory(self) -> HostBytes {
        self.memory
    }
}

/// Deals tensors to `num_files` files, the largest first, each to the file with the fewest bytes.
fn deal(state: Vec<(String, Tensor)>, num_files: usize) -> Vec<Vec<(String, Tensor)>> {
    let mut state = state;
    state.sort_by_key(|(_, tensor)| std::cmp::Reverse(tensor.numel()));
    let mut files: Vec<(usize, Vec<_>)> = (0..num_files).map(|_| (0, Vec::new())).collect();
    for (name, tensor) in state {
        let fewest = files.iter_mut().min_by_key(|(bytes, _)| *bytes).expect("a file at least");
        fewest.0 += tensor.numel() * tensor.kind().elt_size_in_bytes();
        fewest.1.push((name, tensor));
    }
    files.into_iter().map(|(_, tensors)| tensors).collect()
}
