//! Memory of the host that a device copies from.

use std::ptr::NonNull;
use std::sync::Arc;

use cudarc::driver::{CudaContext, result};

use crate::device::cuda;
use crate::{CommError, RankDevice};

/// Bytes on the host. For a rank with a GPU they are page-locked, so that the GPU copies from them
/// by itself while everybody else goes on.
#[derive(Debug)]
pub struct HostBytes(Memory);

#[derive(Debug)]
enum Memory {
    Pageable(Vec<u8>),
    PageLocked { start: NonNull<u8>, len: usize, context: Arc<CudaContext> },
}

// SAFETY: page-locked memory belongs to no thread; it is reached through this value alone, by the
// usual rules of references. `free_host` may be called by any thread that the context is bound to.
unsafe impl Send for HostBytes {}
// SAFETY: as above; shared references only read.
unsafe impl Sync for HostBytes {}

impl HostBytes {
    /// So many bytes, all zero, for a rank's device.
    ///
    /// # Errors
    ///
    /// [`CommError::Cuda`] if the driver locks no more memory.
    pub fn new(device: &RankDevice, len: usize) -> Result<Self, CommError> {
        let Some(gpu) = device.gpu.as_ref().filter(|_| len > 0) else {
            return Ok(Self(Memory::Pageable(vec![0; len])));
        };
        gpu.context.bind_to_thread().map_err(cuda("be used by a thread"))?;
        // SAFETY: the context is bound. Flag 0 is memory that the host's caches hold, as decoders
        // read what they wrote.
        let start = unsafe { result::malloc_host(len, 0) }
            .map_err(cuda("lock memory of the host"))?
            .cast::<u8>();
        let start = NonNull::new(start).expect("the driver gives no null with success");
        // SAFETY: `len` bytes from `start` were just allocated, and nobody else knows them.
        unsafe { start.write_bytes(0, len) };
        Ok(Self(Memory::PageLocked { start, len, context: Arc::clone(&gpu.context) }))
    }

    /// Whether a GPU copies from here by itself.
    pub(crate) fn is_page_locked(&self) -> bool {
        matches!(self.0, Memory::PageLocked { .. })
    }
}

impl Default for HostBytes {
    fn default() -> Self {
        Self(Memory::Pageable(Vec::new()))
    }
}

impl AsRef<[u8]> for HostBytes {
    fn as_ref(&self) -> &[u8] {
        match &self.0 {
            Memory::Pageable(bytes) => bytes,
            // SAFETY: `start` is `len` bytes that were set when they were allocated; they live as
            // long as `self`, which is borrowed.
            Memory::PageLocked { start, len, .. } => unsafe {
                std::slice::from_raw_parts(start.as_ptr(), *len)
            },
        }
    }
}

impl AsMut<[u8]> for HostBytes {
    fn as_mut(&mut self) -> &mut [u8] {
        match &mut self.0 {
            Memory::Pageable(bytes) => bytes,
            // SAFETY: as in `as_ref`, and `self` is borrowed by nobody else.
            Memory::PageLocked { start, len, .. } => unsafe {
                std::slice::from_raw_parts_mut(start.as_ptr(), *len)
            },
        }
    }
}

impl Drop for HostBytes {
    fn drop(&mut self) {
        let Memory::PageLocked { start, context, .. } = &self.0 else { return };
        if context.bind_to_thread().is_ok() {
            // SAFETY: `start` came from `malloc_host` of this context, and nothing reads it any
            // more. A driver that refuses has failed for good, and the process ends with it.
            let _ = unsafe { result::free_host(start.as_ptr().cast()) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_the_cpu_they_are_a_vector_of_zeros() {
        let mut bytes = HostBytes::new(&RankDevice::cpu(), 3).unwrap();
        bytes.as_mut()[1] = 7;
        assert_eq!((bytes.as_ref(), bytes.is_page_locked()), (&[0, 7, 0][..], false));
        assert!(HostBytes::default().as_ref().is_empty());
    }
}
