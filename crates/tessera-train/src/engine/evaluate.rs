//! Figures over a whole split, each sample counted exactly once.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tch::{Device, Kind, Tensor};
use tessera_comm::Communicator;
use tessera_control::{Activity, Phase};
use tessera_data::{DataConfig, LoadOptions, Loader, Order, Source, eval_plan};

use super::agreement::agree_on;
use super::average::Weights;
use super::batch::{load_options, part_of, signal_of};
use super::checkpoint;
use super::figures::{Figure, Row, Value};
use super::run_folder::RunFolder;
use super::setup::open_test;
use super::training::Training;
use crate::config::TrainConfig;
use crate::error::TrainError;
use crate::resolve::Resolved;
use crate::task::{Asked, Samples, Task};

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
    let _no_grad = tch::no_grad_guard();
    let device = task.parameters().flat().device();
    let num_samples = split.source.num_samples();
    let measure = task.measure(Asked { num_samples, ..asked })?;
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
    let named = task.measure(Asked::default())?.finite();
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

/// Which checkpoint of a run to evaluate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The newest one whose hashes hold.
    Latest,
    /// That of this step.
    Step(u64),
}

impl std::str::FromStr for Which {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "latest" => Ok(Self::Latest),
            step => step
                .parse()
                .map(Self::Step)
                .map_err(|_| format!("expected 'latest' or a step, found '{step}'")),
        }
    }
}

/// What of a run is to be evaluated.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Which checkpoint.
    pub which: Which,
    /// Which weights; none: those that the configuration of the run names.
    pub weights: Option<Weights>,
    /// On the test split of which part of a mixture, counted from 0; none: of all.
    pub part: Option<usize>,
    /// What is asked of the task.
    pub asked: Asked,
    /// Settings of `eval` in the place of the run's, `key=value` each.
    pub sets: &'a [String],
}

/// What of a run's configuration an evaluation may change: nothing of the model or the data.
const MAY_SET: [&str; 3] = ["eval.batch=", "eval.features=", "eval.features."];

/// Evaluates a checkpoint of a run on its test split. Collective.
///
/// # Errors
///
/// [`TrainError::BadInput`] if the folder holds no run or no such checkpoint, there is no test split
/// or no such part, or the task has not what was asked for; [`TrainError::NotFinite`] where figures are not.
pub fn evaluate_run(
    comm: &dyn Communicator,
    device: Device,
    run_dir: &Path,
    request: Request<'_>,
    activity: &Activity,
) -> Result<Row, TrainError> {
    let Request { which, weights, part, asked, sets } = request;
    if let Some(set) = sets.iter().find(|set| !MAY_SET.iter().any(|may| set.starts_with(may))) {
        return Err(TrainError::BadInput(format!(
            "--set of an evaluation is for eval.batch and eval.features alone, found {set}"
        )));
    }
    let resolved = agree_on(comm, Resolved::of_run_with(run_dir, sets))?;
    let found = match comm.rank() {
        0 => find(run_dir, which),
        _ => Ok(PathBuf::new()), // the state comes from rank 0
    };
    let checkpoint = agree_on(comm, found)?;
    let config = &resolved.config;
    let source = agree_on(comm, test_of(&config.data, part))?;
    let samples = agree_on(comm, samples_of(config, &*source))?;
    let training = agree_on(comm, Training::new(config, samples, device))?;
    if weights == Some(Weights::Average) && training.average.is_none() {
        return Err(TrainError::BadInput(
            "--weights average asks for what this run has not made: train with train.ema_decay above 0"
                .to_owned(),
        ));
    }
    drop(training.task.measure(asked)?); // before anything is read
    let step = checkpoint::restore_all(comm, &checkpoint, &training)?.step;
    let (batch, load) = (config.eval.batch, load_options(config.task, &config.data));
    let name = part.map_or("test".to_owned(), |part| format!("test of data.mixture.{part}"));
    let split = Split { name, source, batch, load };
    activity.enter(Phase::Evaluate);
    let figures = training.with(weights.unwrap_or(config.eval.weights), |task| {
        evaluate(comm, task, &split, step, asked, activity)
    })?;
    check_finite(&*training.task, &figures)?;
    Ok(figures)
}

/// What a task has to know of its data; where that can differ between splits, of what it was trained on.
fn samples_of(config: &TrainConfig, test: &dyn Source) -> Result<Samples, TrainError> {
    if config.task.wants_labels() {
        let train = tessera_data::source::open(&config.data, "train")?;
        return Ok(Samples::of(config.task, &*train)?);
    }
    Ok(Samples::of(config.task, test)?)
}

/// The split test of a data set, or of a part of it.
fn test_of(data: &DataConfig, part: Option<usize>) -> Result<Arc<dyn Source>, TrainError> {
    let bad = |problem: String| Err(TrainError::BadInput(problem));
    let data = match part {
        None => data,
        Some(_) if data.mixture.is_empty() => {
            return bad("--part is for a mixture, which the data of this run are not".to_owned());
        }
        Some(number) => match data.mixture.get(number) {
            Some(part) => &part.data,
            None => {
                let last = data.mixture.len() - 1;
                return bad(format!("--part should be from 0 to {last}, found {number}"));
            }
        },
    };
    match open_test(data)? {
        Some(source) => Ok(source),
        None => bad("there is nothing to evaluate on: the data have no split test, and \
                     data.holdout is 0"
            .to_owned()),
    }
}

/// The checkpoint to evaluate, every byte of it as it was written.
fn find(run_dir: &Path, which: Which) -> Result<PathBuf, TrainError> {
    let checkpoints = RunFolder { root: run_dir.to_owned() }.checkpoints();
    let is_asked = |step: u64| which == Which::Latest || which == Which::Step(step);
    let (found, refused) =
        tessera_checkpoint::newest_good(&checkpoints, |manifest| is_asked(manifest.step))?;
    for error in &refused {
        tracing::warn!(%error, "checkpoint skipped");
    }
    if let Some(found) = found {
        return Ok(found.path);
    }
    let all = tessera_checkpoint::list(&checkpoints)?;
    // Of one whose manifest is damaged the name is all there is.
    let is_there = all.iter().any(|(step, _)| is_asked(*step));
    if let Some(error) = refused.into_iter().next().filter(|_| is_there) {
        return Err(error.into());
    }
    let steps: Vec<_> = all.iter().map(|(step, _)| step.to_string()).collect();
    Err(TrainError::BadInput(format!(
        "{} has no such checkpoint; there {}",
        checkpoints.display(),
        if steps.is_empty() { "is none".into() } else { format!("are {}", steps.join(", ")) }
    )))
}
