//! Tensors from a rank's device to the host, one behind another.

use std::mem;
use std::time::Duration;

use cudarc::driver::result;
use tch::{Device, Tensor};

use crate::device::cuda;
use crate::{CommError, HostBytes, RankDevice};

/// Copies the values of tensors into `into`, contiguous and without gaps, and returns once they are
/// there: afterwards nothing that becomes of the tensors changes them. A GPU copies by itself into
/// page-locked memory.
///
/// # Errors
///
/// [`CommError::Cuda`], or [`CommError::DeviceDeadline`]; `into` is empty then.
///
/// # Panics
///
/// If `into` is too small.
pub fn download(
    device: &RankDevice,
    tensors: &[Tensor],
    into: &mut HostBytes,
    deadline: Duration,
) -> Result<(), CommError> {
    let copied = copy(device, tensors, into).and_then(|sources| {
        let waited = device.mark()?.wait(deadline);
        drop(sources);
        waited
    });
    if copied.is_err() {
        // The device may still write to the memory: it must never be used again.
        mem::forget(mem::take(into));
    }
    copied
}

/// Asks for all copies; what they read from has to live until they are done.
fn copy(
    device: &RankDevice,
    tensors: &[Tensor],
    into: &mut HostBytes,
) -> Result<Vec<Tensor>, CommError> {
    let mut rest = into.as_mut();
    let mut sources = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        let source = tensor.detach().contiguous();
        let (bytes, behind) = rest.split_at_mut(source.numel() * source.kind().elt_size_in_bytes());
        rest = behind;
        match (&device.gpu, source.device()) {
            (Some(gpu), Device::Cuda(_)) => {
                // SAFETY: the source is contiguous, has as many bytes as `bytes` and lives in
                // `sources` until the copy is done; so does `bytes`, which `download` leaks where
                // it cannot know that. The stream is libtorch's, so the values are there.
                unsafe {
                    result::memcpy_dtoh_async(
                        bytes,
                        source.data_ptr() as u64,
                        gpu.torch.cu_stream(),
                    )
                }
                .map_err(cuda("copy state to the host"))?;
            }
            _ => source.copy_data_u8(bytes, source.numel()),
        }
        sources.push(source);
    }
    Ok(sources)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_lie_one_behind_another_in_logical_order() {
        let device = RankDevice::cpu();
        let mut bytes = HostBytes::new(&device, 32).unwrap();
        let first = Tensor::from_slice(&[1f32, 2.0, 3.0, 4.0]).view([2, 2]).tr();
        let second = Tensor::from_slice(&[5f64]);
        download(&device, &[first, second], &mut bytes, Duration::ZERO).unwrap();
        let expected: Vec<u8> = [1f32, 3.0, 2.0, 4.0]
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .chain(5f64.to_le_bytes())
            .chain([0; 8])
            .collect();
        assert_eq!(bytes.as_ref(), expected);
    }
}
