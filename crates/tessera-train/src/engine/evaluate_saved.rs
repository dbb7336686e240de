//! What a training has left, measured on a test split: a checkpoint of a run, or a model folder.
//!
//! An autoencoder is opened as everybody opens one, by `tessera-model`, without optimiser and averages; any other task is
//! restored as a training.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tch::Device;
use tessera_comm::{Communicator, broadcast_bytes};
use tessera_control::{Activity, Phase};
use tessera_data::{DataConfig, Source};
use tessera_model::{OpenModel, Weights, Which, find_checkpoint, open, open_checkpoint};

use super::agreement::agree_on;
use super::batch::load_options;
use super::checkpoint;
use super::evaluate::{Split, all_finite, check_finite, evaluate, measure_split};
use super::figures::Row;
use super::metrics::picture::Exhibit;
use super::setup::open_test;
use super::training::Training;
use crate::config::TrainConfig;
use crate::error::TrainError;
use crate::resolve::{Resolved, resolve_over};
use crate::task::autoencoder::Judge;
use crate::task::{Asked, Samples, TaskKind};

/// What is to be evaluated.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// On the test split of which part of a mixture, counted from 0; none: of all.
    pub part: Option<usize>,
    /// What is asked of the task.
    pub asked: Asked,
    /// Settings in the place of those of the run, `key=value` each: of `eval`, and for a model folder of `data`.
    pub sets: &'a [String],
    /// A folder for samples and what the model makes of them.
    pub show: Option<&'a Path>,
}

/// What of a run's configuration an evaluation may change: nothing of the model or the data.
const MAY_SET: [&str; 3] = ["eval.batch=", "eval.features=", "eval.features."];

/// Evaluates a checkpoint of a run on its test split, with these weights; none: those that the configuration of the run
/// names. Collective.
///
/// # Errors
///
/// [`TrainError::BadInput`] if the folder holds no run or no such checkpoint, there is no test split
/// or no such part, or the task has not what was asked for; [`TrainError::NotFinite`] where figures are not.
pub fn evaluate_run(
    comm: &dyn Communicator,
    device: Device,
    run_dir: &Path,
    (which, weights): (Which, Option<Weights>),
    request: Request<'_>,
    activity: &Activity,
) -> Result<Row, TrainError> {
    check_sets(request.sets, &MAY_SET, "eval.batch and eval.features")?;
    let resolved = agree_on(comm, Resolved::of_run_with(run_dir, request.sets))?;
    let found = match comm.rank() {
        0 => find_checkpoint(run_dir, which).map_err(TrainError::from),
        _ => Ok(PathBuf::new()),
    };
    let found = agree_on(comm, found)?;
    let found = broadcast_bytes(comm, found.as_os_str().as_bytes())?;
    let checkpoint = PathBuf::from(OsString::from_vec(found));
    let config = &resolved.config;
    let has_average = config.train.ema_decay > 0.0;
    if weights == Some(Weights::Average) && !has_average {
        return Err(TrainError::BadInput(
            "--weights average asks for what this run has not made: train with train.ema_decay above 0"
                .to_owned(),
        ));
    }
    let split = agree_on(comm, split_of(config, request.part))?;
    let weights = match weights.unwrap_or(config.eval.weights) {
        Weights::Average if has_average => Weights::Average,
        _ => Weights::Trained,
    };
    let show = Show::new(comm, request.show)?;
    if config.task == TaskKind::Autoencoder {
        let model = open_checkpoint(&checkpoint, Some(weights), device);
        let model = agree_on(comm, model.map_err(TrainError::from))?;
        return evaluate_open(comm, &model, (config, &split), (request.asked, show), activity);
    }
    let samples = agree_on(comm, samples_of(config, &*split.source))?;
    let training = agree_on(comm, Training::new(config, samples, device))?;
    drop(training.task.measure(request.asked)?); // before anything is read
    let step = checkpoint::restore_all(comm, &checkpoint, &training)?.step;
    activity.enter(Phase::Evaluate);
    let figures = training
        .with(weights, |task| evaluate(comm, task, &split, step, request.asked, activity))?;
    check_finite(&*training.task, &figures)?;
    show.write(comm, || {
        training.with(weights, |task| task.show(&*split.source, config.data.on_corrupt))
    })?;
    Ok(figures)
}

/// What may be set where a model folder is evaluated: its data too.
const MAY_SET_OF_MODEL: [&str; 4] = ["eval.batch=", "eval.features=", "eval.features.", "data."];

/// Evaluates a model folder on the test split of the data that it was trained on, or of those that settings name.
/// Collective.
///
/// # Errors
///
/// As [`evaluate_run`], and [`TrainError::Model`].
pub fn evaluate_model(
    comm: &dyn Communicator,
    device: Device,
    folder: &Path,
    request: Request<'_>,
    activity: &Activity,
) -> Result<Row, TrainError> {
    check_sets(request.sets, &MAY_SET_OF_MODEL, "data, eval.batch and eval.features")?;
    let model = agree_on(comm, open(folder, device).map_err(TrainError::from))?;
    let config = model.file.data().map_err(TrainError::BadInput);
    let config = config.and_then(|data| resolve_over(&data, request.sets));
    let config = agree_on(comm, config)?;
    let split = agree_on(comm, split_of(&config, request.part))?;
    let show = Show::new(comm, request.show)?;
    evaluate_open(comm, &model, (&config, &split), (request.asked, show), activity)
}

fn check_sets(sets: &[String], may: &[&str], names: &str) -> Result<(), TrainError> {
    match sets.iter().find(|set| !may.iter().any(|may| set.starts_with(may))) {
        Some(set) => Err(TrainError::BadInput(format!(
            "--set of an evaluation is for {names} alone, found {set}"
        ))),
        None => Ok(()),
    }
}

/// Evaluates an autoencoder that is open. Collective.
fn evaluate_open(
    comm: &dyn Communicator,
    model: &OpenModel,
    (config, split): (&TrainConfig, &Split),
    (asked, show): (Asked, Show<'_>),
    activity: &Activity,
) -> Result<Row, TrainError> {
    let (wanted, found) = (model.file.autoencoder().shape, split.source.shape());
    if wanted != found {
        return Err(TrainError::BadInput(format!(
            "the model takes samples of {wanted}, these data have {found}: set the sizes in data.image, data.audio or \
             data.video"
        )));
    }
    let judge = agree_on(comm, Judge::new(&model.vqvae, config, found.sample_rate))?;
    let named = judge.measure(asked)?.finite(); // before anything is read
    activity.enter(Phase::Evaluate);
    let (device, step) = (model.vqvae.device(), model.file.step);
    let measuring = |asked| judge.measure(asked);
    let figures = measure_split(comm, &measuring, device, split, step, asked, activity)?;
    all_finite(named, &figures)?;
    show.write(comm, || judge.show(&*split.source, config.data.on_corrupt, asked.levels))?;
    Ok(figures)
}

/// Where samples and what was made of them go, where anybody wants them.
#[derive(Debug, Clone, Copy)]
struct Show<'a>(Option<&'a Path>);

impl<'a> Show<'a> {
    /// Makes the folder, before anything is measured. Collective.
    fn new(comm: &dyn Communicator, folder: Option<&'a Path>) -> Result<Self, TrainError> {
        let made = match folder {
            Some(folder) if comm.rank() == 0 => {
                fs::create_dir_all(folder).map_err(TrainError::file("make the folder", folder))
            }
            _ => Ok(()),
        };
        agree_on(comm, made)?;
        Ok(Self(folder))
    }

    /// Writes what there is to look at and to listen to, by rank 0. Collective.
    fn write(
        self,
        comm: &dyn Communicator,
        exhibits: impl FnOnce() -> Result<Vec<Exhibit>, TrainError>,
    ) -> Result<(), TrainError> {
        let Some(folder) = self.0 else { return Ok(()) };
        let written = match comm.rank() {
            0 => exhibits().and_then(|exhibits| {
                exhibits.iter().try_for_each(|exhibit| {
                    let name = format!("{}.{}", exhibit.shows(), exhibit.extension());
                    let path = folder.join(name);
                    fs::write(&path, exhibit.bytes()).map_err(TrainError::file("write", &path))
                })
            }),
            _ => Ok(()),
        };
        agree_on(comm, written)
    }
}

/// The split test, or that of a part of a mixture, as it is read.
fn split_of(config: &TrainConfig, part: Option<usize>) -> Result<Split, TrainError> {
    let source = test_of(&config.data, part)?;
    let (batch, load) = (config.eval.batch, load_options(config.task, &config.data));
    let name = part.map_or("test".to_owned(), |part| format!("test of data.mixture.{part}"));
    Ok(Split { name, source, batch, load })
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
