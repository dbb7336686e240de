//! This rank's batches, and what they are to a task: samples on a device.

use std::io;
use std::sync::Arc;

use tch::{Device, Tensor};
use tessera_comm::{Communicator, HostBytes, RankDevice, Uploads};
use tessera_data::{Batch, Loader, Order, Source, train_plan};
use tessera_nn::to_device;

use crate::config::TrainConfig;
use crate::error::TrainError;
use crate::task::Part;

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
    let order = Order::Shuffled(source.sampler(&data.shuffling(), *seed));
    let (rank, world_size) = (comm.rank(), comm.world_size());
    let plan = train_plan(start_step, train.steps, train.global_batch, rank, world_size);
    let take = move |num_bytes| HostBytes::new(&device, num_bytes).map_err(io::Error::other);
    Ok(Loader::with_memory(source, order, plan, data.load_options(), take)?)
}

/// A batch on a device, as a part of its global batch.
pub fn part_of<M: AsRef<[u8]>>(batch: &Batch<M>, device: Device) -> Part {
    let bytes_nhwc = Tensor::from_slice(batch.pixels()).view(shape_nhwc(batch));
    part(batch, batch.step, to_device(bytes_nhwc, device))
}

/// The same, copied while the device computes; the batch may get other memory for its own, or none.
///
/// # Errors
///
/// [`TrainError::Comm`] if the device fails.
pub(crate) fn upload(
    uploads: &mut Uploads,
    batch: &mut Batch<HostBytes>,
    step: u64,
) -> Result<Part, TrainError> {
    let shape = shape_nhwc(batch);
    let bytes_nhwc = uploads.upload(&mut batch.memory, &shape)?;
    Ok(part(batch, step, bytes_nhwc))
}

fn part<M>(batch: &Batch<M>, step: u64, bytes_nhwc: Tensor) -> Part {
    let first = batch.positions.start - batch.global.start;
    Part {
        step,
        bytes_nhwc,
        samples: first..first + batch.num_samples() as u64,
        num_global: batch.global.end - batch.global.start,
        shape: batch.shape,
    }
}

fn shape_nhwc<M>(batch: &Batch<M>) -> [i64; 4] {
    let (num_samples, shape) = (batch.num_samples() as i64, &batch.shape);
    let sizes = [shape.height, shape.width, shape.channels].map(i64::from);
    [num_samples, sizes[0], sizes[1], sizes[2]]
}
