//! Bytes from the host to a rank's device, while the device computes.
//!
//! Two slots take turns, each a tensor on the device and the host's bytes that it is copied from. A
//! copy runs on a stream of its own: it waits until libtorch has used what lay in the slot before,
//! and libtorch's stream waits for the copy. So the copy for one step runs under the computation of
//! the step before, and the host waits for neither. The bytes stay in the slot until they have been
//! copied, and then go back to whoever reads batches into them.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use cudarc::driver::{CudaEvent, CudaStream, result};
use tch::{Device, Kind, Tensor};

use crate::device::{Gpu, Mark, cuda};
use crate::{CommError, HostBytes, RankDevice};

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
    on_host: HostBytes,
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

    /// The first bytes as a tensor `shape` of kind uint8 on the device. On a GPU it is a slot: ask
    /// libtorch for everything that reads it before the next upload. `bytes` may be others
    /// afterwards, or none: those of the upload before the last, which have been copied.
    ///
    /// # Errors
    ///
    /// [`CommError::Cuda`], [`CommError::DeviceDeadline`].
    ///
    /// # Panics
    ///
    /// If there are fewer bytes than `shape` has elements.
    pub fn upload(&mut self, bytes: &mut HostBytes, shape: &[i64]) -> Result<Tensor, CommError> {
        let len = shape.iter().product::<i64>() as usize;
        let first = &bytes.as_ref()[..len];
        match &mut self.lane {
            None => Ok(Tensor::from_slice(first).view(shape)),
            Some(lane) if len == 0 => Ok(Tensor::zeros(shape, (Kind::Uint8, lane.device))),
            Some(lane) => lane.upload(bytes, len).map(|tensor| tensor.view(shape)),
        }
    }
}

impl Lane {
    fn upload(&mut self, bytes: &mut HostBytes, len: usize) -> Result<Tensor, CommError> {
        assert!(bytes.is_page_locked(), "a copy from other memory would block this thread");
        let asked = self.gpu.torch.record_event(None).map_err(cuda("set a mark"))?;
        let place = &mut self.slots[self.next];
        self.next = 1 - self.next;
        if let Some(slot) = place {
            slot.copied.wait(DEADLINE)?;
            mem::swap(&mut slot.on_host, bytes);
        }
        let slot = match place {
            Some(slot) if slot.on_device.numel() >= len => {
                if let Some(used) = &self.asked {
                    self.copies.wait(used).map_err(cuda("order a copy"))?;
                }
                slot
            }
            place => {
                let on_host = match place.take() {
                    Some(slot) => slot.on_host,
                    None => mem::take(bytes),
                };
                let on_device = Tensor::empty([len as i64], (Kind::Uint8, self.device));
                // libtorch may still work on what this memory was before.
                self.copies.wait(&asked).map_err(cuda("order a copy"))?;
                place.insert(Slot { on_host, on_device, copied: Mark::passed() })
            }
        };
        // SAFETY: the tensor, of at least so many bytes, is of this context's device; the copy
        // stream has waited for its last use. Both buffers live in the slot, and the host's is not
        // touched before `copied` has passed.
        unsafe {
            let destination = slot.on_device.data_ptr() as u64;
            let from = &slot.on_host.as_ref()[..len];
            result::memcpy_htod_async(destination, from, self.copies.cu_stream())
                .map_err(cuda("copy a batch"))?;
        }
        let copied = self.copies.record_event(None).map_err(cuda("set a mark"))?;
        self.gpu.torch.wait(&copied).map_err(cuda("wait for a copy"))?;
        slot.copied = Mark::at(copied);
        self.asked = Some(asked);
        Ok(slot.on_device.narrow(0, 0, len as i64))
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
        let mut bytes = HostBytes::new(&RankDevice::cpu(), 8).unwrap();
        bytes.as_mut().copy_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8]);
        let tensor = uploads.upload(&mut bytes, &[2, 3]).unwrap();
        assert_eq!((tensor.size(), tensor.kind()), (vec![2, 3], Kind::Uint8));
        assert_eq!(tensor.int64_value(&[1, 2]), 6);
        assert_eq!(uploads.upload(&mut bytes, &[0, 3]).unwrap().size(), [0, 3]);
        assert_eq!(bytes.as_ref().len(), 8);
    }
}
