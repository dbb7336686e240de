//! This rank's batches, and what they are to a task: samples on a device.

use std::io;
use std::sync::Arc;

use tch::{Device, Tensor};
use tessera_comm::{Communicator, HostBytes, RankDevice, Uploads};
use tessera_data::{Batch, DataConfig, LoadOptions, Loader, Order, Source, train_plan};
use tessera_model::{raw_axes, raw_samples, signal_of};
use tessera_nn::to_device;

use crate::config::TrainConfig;
use crate::error::TrainError;
use crate::task::Part;
use crate::task::kind::TaskKind;

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
    let TrainConfig { task, seed, data, train, .. } = config;
    let order = Order::Shuffled(source.sampler(&data.shuffling(), *seed));
    let (rank, world_size) = (comm.rank(), comm.world_size());
    let plan = train_plan(start_step, train.steps, train.global_batch, rank, world_size);
    let take = move |num_bytes| HostBytes::new(&device, num_bytes).map_err(io::Error::other);
    Ok(Loader::with_memory(source, order, plan, load_options(*task, data), take)?)
}

/// How a task's samples are read.
pub(crate) fn load_options(task: TaskKind, data: &DataConfig) -> LoadOptions {
    LoadOptions { labels: task.wants_labels(), ..data.load_options() }
}

/// A batch on a device, as a part of its global batch.
pub fn part_of<M: AsRef<[u8]>>(batch: &Batch<M>, device: Device) -> Part {
    let raw = raw_samples(batch.pixels(), batch.shape);
    part(batch, batch.step, to_device(raw, device))
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
    let shape = raw_axes(batch.shape, batch.num_samples());
    let raw = uploads.upload(&mut batch.memory, &shape)?;
    Ok(part(batch, step, raw))
}

fn part<M>(batch: &Batch<M>, step: u64, raw: Tensor) -> Part {
    let has_labels = batch.labels.len() == batch.num_samples();
    let labels = has_labels.then(|| to_device(Tensor::from_slice(&batch.labels), raw.device()));
    let first = batch.positions.start - batch.global.start;
    Part {
        step,
        raw,
        signal: signal_of(batch.shape),
        labels,
        samples: first..first + batch.num_samples() as u64,
        num_global: batch.global.end - batch.global.start,
        first: batch.global.start,
    }
}
