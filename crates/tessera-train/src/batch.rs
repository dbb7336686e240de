//! What a batch is to the model: images on a device, and a range of the global batch's tokens.

use std::ops::Range;

use tch::{Device, Kind, Tensor};
use tessera_data::Batch;
use tessera_nn::{VqVae, images_from_bytes};

/// A batch as images `[N, C, H, W]` in [0, 1], channels-last in memory.
pub fn batch_images(batch: &Batch, kind: Kind, device: Device) -> Tensor {
    let shape = [
        batch.num_samples() as i64,
        i64::from(batch.shape.height),
        i64::from(batch.shape.width),
        i64::from(batch.shape.channels),
    ];
    images_from_bytes(&batch.pixels, shape, kind, device)
}

/// Tokens of a global batch, and the range of them that is this rank's.
pub(crate) fn tokens_of(model: &VqVae, batch: &Batch) -> (usize, Range<usize>) {
    let (height, width) = (i64::from(batch.shape.height), i64::from(batch.shape.width));
    let positions = model.num_positions(height, width) as usize;
    let first = (batch.positions.start - batch.global.start) as usize * positions;
    let all = (batch.global.end - batch.global.start) as usize * positions;
    (all, first..first + batch.num_samples() * positions)
}
