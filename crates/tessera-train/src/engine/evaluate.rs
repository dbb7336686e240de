//! Figures over a whole split, each sample counted exactly once.

use std::sync::Arc;

use tch::{Device, Kind, Tensor};
use tessera_comm::Communicator;
use tessera_control::Activity;
use tessera_data::{LoadOptions, Loader, Order, Source, eval_plan};
use tessera_model::signal_of;

use super::batch::part_of;
use super::figures::{Figure, Row, Value};
use crate::error::TrainError;
use crate::task::{Asked, Measure, Task};

/// Where an evaluation reads its samples.
#[derive(Clone)]
pub struct Split {
    /// Name of the split.
    pub name: String,
    /// Its samples.
    pub source: Arc<dyn Source>,
    /// Samples a batch, over all ranks.
    pub batch: u64,
    /// How they are read.
    pub load: LoadOptions,
}

/// Measures a task after `step` steps. Collective: one all-reduce, at the end; `activity` hears of each batch.
///
/// # Errors
///
/// [`TrainError::Data`] or [`TrainError::Comm`].
pub fn evaluate(
    comm: &dyn Communicator,
    task: &dyn Task,
    split: &Split,
    step: u64,
    asked: Asked,
    activity: &Activity,
) -> Result<Row, TrainError> {
    let device = task.parameters().flat().device();
    measure_split(comm, &|asked| task.measure(asked), device, split, step, asked, activity)
}

/// How something is measured that is asked for this.
pub(super) type Measuring<'a> = dyn Fn(Asked) -> Result<Box<dyn Measure + 'a>, TrainError> + 'a;

/// The same of whatever can be measured on a device.
pub(super) fn measure_split(
    comm: &dyn Communicator,
    measuring: &Measuring<'_>,
    device: Device,
    split: &Split,
    step: u64,
    asked: Asked,
    activity: &Activity,
) -> Result<Row, TrainError> {
    let _no_grad = tch::no_grad_guard();
    let num_samples = split.source.num_samples();
    let measure = measuring(Asked { num_samples, ..asked })?;
    // The task's sums, and samples behind them.
    let sums = Tensor::zeros([measure.len() + 1], (Kind::Double, device));
    let plan = eval_plan(num_samples, split.batch, comm.rank(), comm.world_size());
    let mut loader = Loader::new(Arc::clone(&split.source), Order::Sequential, plan, split.load)?;
    while let Some(batch) = loader.next() {
        let batch = batch?;
        if batch.num_samples() > 0 {
            measure.add(&part_of(&batch, device), &sums.narrow(0, 0, measure.len()));
            let _ = sums.get(-1).g_add_scalar_(batch.num_samples() as f64);
        }
        loader.recycle(batch);
        activity.part_done();
    }
    let sums: Vec<f64> = Vec::try_from(comm.all_reduce(sums)?.wait()?)?;
    let (samples, sums) = sums.split_last().expect("samples are the last");
    let num_samples = *samples as u64;
    let mut figures =
        vec![Figure::text("split", split.name.as_str()), Figure::count("samples", num_samples)];
    figures.extend(measure.figures(sums, num_samples, signal_of(split.source.shape())));
    Ok(Row { step, figures })
}

/// Refuses figures that are not finite: the model has made something that is no number of a
/// sample.
///
/// # Errors
///
/// [`TrainError::NotFinite`]; [`TrainError::BadInput`] where the task has not what was asked for.
pub fn check_finite(task: &dyn Task, row: &Row) -> Result<(), TrainError> {
    all_finite(task.measure(Asked::default())?.finite(), row)
}

/// The same of figures of these names, each with its words.
pub(super) fn all_finite(
    named: &[(&'static str, &'static str)],
    row: &Row,
) -> Result<(), TrainError> {
    let mut values = named.iter().map(|(name, words)| (words, row.number(name)));
    match values.find(|(_, value)| !value.is_finite()) {
        Some((what, value)) if row.number("samples") > 0.0 => {
            let of = match row.get("split").map(|figure| &figure.value) {
                Some(Value::Text(split)) => format!(" (evaluated on the split {split})"),
                _ => String::new(),
            };
            Err(TrainError::NotFinite { what, step: row.step, value, of })
        }
        _ => Ok(()),
    }
}
