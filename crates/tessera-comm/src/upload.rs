//! Bytes from the host to a rank's device, while the device computes.
//!
//! Two slots take turns, each a page-locked buffer on the host and a tensor on the device. A copy
//! runs on a stream of its own: it waits until libtorch has used what lay in the slot before, and
//! libtorch's stream waits for the copy. So the copy for one step runs under the computation of
//! the step before, and the host waits for neither.

use std::sync::Arc;
use std::time::Duration;

use cudarc::driver::{CudaEvent, CudaStream, PinnedHostSlice, result};
use tch::{Device, Kind, Tensor};

use crate::device::{Gpu, Mark, cuda};
use crate::{CommError, RankDevice};

/// Longest wait for the copy before the last one, which ended long ago on a GPU that works.
const DEADLINE: Duration = Duration::from_secs(300);

/// Copies batches of bytes to a device.
#[derive(Debug)]
pub struct Uploads {
    lane: Option<Lane>,
}

#[derive(Debug)]
struct Lane {
    gpu: Gpu,
    device: Device,
    copies: Arc<CudaStream>,
    slots: [Option<Slot>; 2],
    next: usize,
    /// What libtorch had been asked for at the last upload: all uses of the slot before it.
    asked: Option<CudaEvent>,
}

#[derive(Debug)]
struct Slot {
    on_host: PinnedHostSlice<u8>,
    on_device: Tensor,
    copied: Mark,
}

impl Uploads {
    /// Two empty slots; on the CPU there is nothing to copy to.
    ///
    /// # Errors
    ///
    /// [`CommError::Cuda`].
    pub fn new(device: &RankDevice) -> Result<Self, CommError> {
        let Some(gpu) = &device.gpu else { return Ok(Self::none()) };
        let copies = gpu.context.new_stream().map_err(cuda("make a stream"))?;
        let (gpu, device) = (gpu.clone(), device.device);
        let lane = Lane { gpu, device, copies, slots: [None, None], next: 0, asked: None };
        Ok(Self { lane: Some(lane) })
    }

    /// For the CPU: the bytes become a tensor of the host.
    pub fn none() -> Self {
        Self { lane: None }
    }

    /// The bytes as a tensor `shape` of kind uint8 on the device. On a GPU it is a slot: ask
    /// libtorch for everything that reads it before the next upload.
    ///
    /// # Errors
    ///
    /// [`CommError::Cuda`], [`CommError::DeviceDeadline`].
    ///
    /// # Panics
    ///
    /// If `shape` is not that of the bytes.
    pub fn upload(&mut self, bytes: &[u8], shape: &[i64]) -> Result<Tensor, CommError> {
        assert_eq!(shape.iter().product::<i64>(), bytes.len() as i64, "a byte an element");
        match &mut self.lane {
            None => Ok(Tensor::from_slice(bytes).view(shape)),
            Some(lane) if bytes.is_empty() => Ok(Tensor::zeros(shape, (Kind::Uint8, lane.device))),
            Some(lane) => lane.upload(bytes).map(|tensor| tensor.view(shape)),
        }
    }
}

impl Lane {
    fn upload(&mut self, bytes: &[u8]) -> Result<Tensor, CommError> {
        let asked = self.gpu.torch.record_event(None).map_err(cuda("set a mark"))?;
        let place = &mut self.slots[self.next];
        self.next = 1 - self.next;
        if let Some(slot) = place
            && slot.on_host.len() < bytes.len()
        {
            slot.copied.wait(DEADLINE)?;
            *place = None;
        }
        let slot = match place {
            Some(slot) => {
                slot.copied.wait(DEADLINE)?;
                if let Some(used) = &self.asked {
                    self.copies.wait(used).map_err(cuda("order a copy"))?;
                }
                slot
            }
            None => {
                // SAFETY: the memory is unset, and written below before anything reads it.
                let on_host = unsafe { self.gpu.context.alloc_pinned::<u8>(bytes.len()) }
                    .map_err(cuda("lock memory of the host"))?;
                let on_device = Tensor::empty([bytes.len() as i64], (Kind::Uint8, self.device));
                // libtorch may still work on what this memory was before.
                self.copies.wait(&asked).map_err(cuda("order a copy"))?;
                place.insert(Slot { on_host, on_device, copied: Mark::passed() })
            }
        };
        let on_host = slot.on_host.as_mut_slice().map_err(cuda("lend memory of the host"))?;
        on_host[..bytes.len()].copy_from_slice(bytes);
        // SAFETY: the tensor, of at least so many bytes, is of this context's device; the copy
        // stream has waited for its last use. Both buffers live in the slot, which is not touched
        // before `copied` has passed.
        unsafe {
            let destination = slot.on_device.data_ptr() as u64;
            result::memcpy_htod_async(
                destination,
                &on_host[..bytes.len()],
                self.copies.cu_stream(),
            )
            .map_err(cuda("copy a batch"))?;
        }
        let copied = self.copies.record_event(None).map_err(cuda("set a mark"))?;
        self.gpu.torch.wait(&copied).map_err(cuda("wait for a copy"))?;
        slot.copied = Mark::at(copied);
        self.asked = Some(asked);
        Ok(slot.on_device.narrow(0, 0, bytes.len() as i64))
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        for slot in self.slots.iter_mut().filter_map(Option::take) {
            // A copy may be behind work that never ends; what it reads and writes is then left.
            if !slot.copied.is_passed() {
                std::mem::forget(slot);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_the_cpu_the_bytes_are_the_tensor() {
        let mut uploads = Uploads::new(&RankDevice::cpu()).unwrap();
        let tensor = uploads.upload(&[1, 2, 3, 4, 5, 6], &[2, 3]).unwrap();
        assert_eq!((tensor.size(), tensor.kind()), (vec![2, 3], Kind::Uint8));
        assert_eq!(tensor.int64_value(&[1, 2]), 6);
        assert_eq!(uploads.upload(&[], &[0, 3]).unwrap().size(), [0, 3]);
    }
}
