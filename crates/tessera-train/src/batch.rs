//! What a batch is to the model: images on a device, and a place among the global batch's tokens.

use tch::{Device, Kind, Tensor};
use tessera_comm::Uploads;
use tessera_data::Batch;
use tessera_nn::quantize::Place;
use tessera_nn::{VqVae, images_from_bytes, to_device};

use crate::error::TrainError;

/// A batch as images `[N, C, H, W]` in [0, 1], channels-last in memory.
pub fn batch_images(batch: &Batch, kind: Kind, device: Device) -> Tensor {
    let bytes_nhwc = Tensor::from_slice(&batch.pixels).view(shape_nhwc(batch));
    images_from_bytes(&to_device(bytes_nhwc, device), kind)
}

/// The same, copied while the device computes.
///
/// # Errors
///
/// [`TrainError::Comm`] if the device fails.
pub(crate) fn upload_images(
    uploads: &mut Uploads,
    batch: &Batch,
    kind: Kind,
) -> Result<Tensor, TrainError> {
    let bytes_nhwc = uploads.upload(&batch.pixels, &shape_nhwc(batch))?;
    Ok(images_from_bytes(&bytes_nhwc, kind))
}

fn shape_nhwc(batch: &Batch) -> [i64; 4] {
    let (num_samples, shape) = (batch.num_samples() as i64, &batch.shape);
    let sizes = [shape.height, shape.width, shape.channels].map(i64::from);
    [num_samples, sizes[0], sizes[1], sizes[2]]
}

/// Where this rank's tokens stand in the global batch.
pub(crate) fn place_of(model: &VqVae, batch: &Batch, step: u64) -> Place {
    let (height, width) = (i64::from(batch.shape.height), i64::from(batch.shape.width));
    let positions = model.num_positions(height, width) as usize;
    let first = (batch.positions.start - batch.global.start) as usize * positions;
    let all = (batch.global.end - batch.global.start) as usize * positions;
    Place::new(step, all, first..first + batch.num_samples() * positions)
}
