//! What a batch is to the model: images on a device, and a place among the global batch's tokens.

use std::io;
use std::sync::Arc;

use tch::{Device, Kind, Tensor};
use tessera_comm::{Communicator, HostBytes, RankDevice, Uploads};
use tessera_data::{Batch, Loader, Order, Source, train_plan};
use tessera_nn::quantize::Place;
use tessera_nn::{VqVae, images_from_bytes, to_device};

use crate::config::TrainConfig;
use crate::error::TrainError;

/// This rank's batches from a step to the end of the run, read ahead into memory that its device
/// copies from.
///
/// # Errors
///
/// [`TrainError::Data`] if no thread can be started.
pub fn training_batches(
    source: Arc<dyn Source>,
    config: &TrainConfig,
    start_step: u64,
    comm: &dyn Communicator,
    device: RankDevice,
) -> Result<Loader<HostBytes>, TrainError> {
    let TrainConfig { seed, data, train, .. } = config;
    let order = Order::Shuffled(source.sampler(data, *seed));
    let (rank, world_size) = (comm.rank(), comm.world_size());
    let plan = train_plan(start_step, train.steps, train.global_batch, rank, world_size);
    let take = move |num_bytes| HostBytes::new(&device, num_bytes).map_err(io::Error::other);
    Ok(Loader::with_memory(source, order, plan, data.load_options(), take)?)
}

/// A batch as images `[N, C, H, W]` in [0, 1], channels-last in memory.
pub fn batch_images<M: AsRef<[u8]>>(batch: &Batch<M>, kind: Kind, device: Device) -> Tensor {
    let bytes_nhwc = Tensor::from_slice(batch.pixels()).view(shape_nhwc(batch));
    images_from_bytes(&to_device(bytes_nhwc, device), kind)
}

/// The same, copied while the device computes; the batch may get other memory for its own, or none.
///
/// # Errors
///
/// [`TrainError::Comm`] if the device fails.
pub(crate) fn upload_images(
    uploads: &mut Uploads,
    batch: &mut Batch<HostBytes>,
    kind: Kind,
) -> Result<Tensor, TrainError> {
    let shape = shape_nhwc(batch);
    let bytes_nhwc = uploads.upload(&mut batch.memory, &shape)?;
    Ok(images_from_bytes(&bytes_nhwc, kind))
}

fn shape_nhwc<M>(batch: &Batch<M>) -> [i64; 4] {
    let (num_samples, shape) = (batch.num_samples() as i64, &batch.shape);
    let sizes = [shape.height, shape.width, shape.channels].map(i64::from);
    [num_samples, sizes[0], sizes[1], sizes[2]]
}

/// Where this rank's tokens stand in the global batch.
pub(crate) fn place_of<M>(model: &VqVae, batch: &Batch<M>, step: u64) -> Place {
    let (height, width) = (i64::from(batch.shape.height), i64::from(batch.shape.width));
    let positions = model.num_positions(height, width) as usize;
    let first = (batch.positions.start - batch.global.start) as usize * positions;
    let all = (batch.global.end - batch.global.start) as usize * positions;
    Place::new(step, all, first..first + batch.num_samples() * positions)
}
