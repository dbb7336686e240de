//! The model in a run's checkpoint.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;
use tch::Device;
use tessera_checkpoint::{Checkpoint, Manifest, newest_good};
use tessera_data::{DataConfig, SampleShape};

use crate::error::ModelError;
use crate::file::{
    AutoencoderFile, CodesFile, FORMAT, Level, ModelFile, ModelKind, Preprocessing, PriorFile,
    VERSION,
};
use crate::opened::OpenModel;
use crate::tensors::Values;
use crate::words::{Precision, Weights, Which};

/// What the names of averaged weights begin with in a checkpoint.
const AVERAGE: &str = "average.";

/// What of a run's configuration decides its model.
#[derive(Debug, Deserialize)]
struct RunConfig {
    #[serde(default)]
    task: Option<String>,
    #[serde(default)]
    data: Value,
    #[serde(default)]
    model: Value,
    #[serde(default)]
    prior: Value,
    train: RunTrain,
    #[serde(default)]
    eval: RunEval,
}

#[derive(Debug, Deserialize)]
struct RunTrain {
    precision: Precision,
}

#[derive(Debug, Default, Deserialize)]
struct RunEval {
    #[serde(default)]
    weights: Weights,
}

/// What a manifest says of the samples, where its program was new enough to.
#[derive(Debug, Deserialize)]
struct Samples {
    shape: SampleShape,
    #[serde(default)]
    classes: Vec<String>,
}

/// What a manifest says of the codes of a prior.
#[derive(Debug, Deserialize)]
struct Tokens {
    codes: CodesFile,
}

/// Opens the model of a run, with these weights; none: those that the `eval.weights` of its configuration names.
///
/// # Errors
///
/// [`ModelError::NotOne`] if the folder holds no run or no such checkpoint, or the run is of another task;
/// [`ModelError::Checkpoint`] if it is damaged; [`ModelError::Data`] where an older program did not note the shape of
/// samples and the data cannot be asked.
pub fn open_run(
    run_dir: &Path,
    which: Which,
    weights: Option<Weights>,
    device: Device,
) -> Result<OpenModel, ModelError> {
    open_checkpoint(&find_checkpoint(run_dir, which)?, weights, device)
}

/// The checkpoint of a run whose every byte is as it was written.
///
/// # Errors
///
/// As [`open_run`].
pub fn find_checkpoint(run_dir: &Path, which: Which) -> Result<PathBuf, ModelError> {
    let checkpoints = run_dir.join("checkpoints");
    if !checkpoints.is_dir() {
        let is_model = run_dir.join(crate::folder::CONFIG_FILE).is_file();
        let problem = match is_model {
            true => "is no run folder: give it as --model",
            false => "is no run folder: it has no checkpoints",
        };
        return Err(ModelError::not_one(run_dir, problem));
    }
    let is_asked = |step: u64| which == Which::Latest || which == Which::Step(step);
    let (found, refused) = newest_good(&checkpoints, |manifest| is_asked(manifest.step))?;
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
    let there =
        if steps.is_empty() { "is none".into() } else { format!("are {}", steps.join(", ")) };
    Err(ModelError::not_one(&checkpoints, format!("has no such checkpoint; there {there}")))
}

/// Opens the model of a checkpoint, as [`open_run`] does.
///
/// # Errors
///
/// As [`open_run`].
pub fn open_checkpoint(
    path: &Path,
    weights: Option<Weights>,
    device: Device,
) -> Result<OpenModel, ModelError> {
    let checkpoint = Checkpoint::read(path)?;
    let config = config_of(path, &checkpoint.manifest)?;
    match config.task.as_deref() {
        None | Some("autoencoder") => {}
        Some("prior") => {
            let problem = "is of a prior, and an autoencoder is wanted here: name the model that makes its codes";
            return Err(ModelError::not_one(path, problem));
        }
        Some(task) => return Err(of_other_task(path, task)),
    }
    let (saved, weights) = saved_of(path, &checkpoint, &config, weights)?;
    let file = file_of(path, config, weights, &checkpoint.manifest)?;
    let choose = |names: &[String]| Ok(chosen_of(saved, names, weights));
    let mut model = OpenModel::build(file, path, device, choose)?;
    let levels = Level::of(&model.vqvae);
    if let ModelKind::Autoencoder(autoencoder) = &mut model.file.kind {
        autoencoder.levels = levels;
    }
    Ok(model)
}

/// What a checkpoint of a prior holds: what there is to know of it, without its hash, and the choice of its tensors.
pub(crate) fn read_prior(
    path: &Path,
    weights: Option<Weights>,
) -> Result<(ModelFile, impl FnOnce(&[String]) -> Chosen), ModelError> {
    let checkpoint = Checkpoint::read(path)?;
    let config = config_of(path, &checkpoint.manifest)?;
    match config.task.as_deref() {
        Some("prior") => {}
        None | Some("autoencoder") => {
            let problem = "is of an autoencoder, and a prior is wanted here: name a run with task = \"prior\"";
            return Err(ModelError::not_one(path, problem));
        }
        Some(task) => return Err(of_other_task(path, task)),
    }
    let (saved, weights) = saved_of(path, &checkpoint, &config, weights)?;
    let manifest = &checkpoint.manifest;
    let noted = manifest.model.clone().and_then(|model| serde_json::from_value(model).ok());
    let Some(Tokens { codes }) = noted else {
        return Err(ModelError::not_one(path, "does not say what its codes are: train it anew"));
    };
    let kind = ModelKind::Prior(PriorFile { prior: config.prior, codes });
    let file = with_kind(kind, config.data, config.train.precision, weights, manifest);
    Ok((file, move |names: &[String]| Ok(chosen_of(saved, names, weights))))
}

/// The tensors of a model, or why there are none.
type Chosen = Result<BTreeMap<String, Values>, String>;

/// All tensors of a checkpoint, and which weights of it are wanted.
fn saved_of(
    path: &Path,
    checkpoint: &Checkpoint,
    config: &RunConfig,
    weights: Option<Weights>,
) -> Result<(BTreeMap<String, Values>, Weights), ModelError> {
    let saved: BTreeMap<String, Values> = checkpoint
        .tensors()
        .iter()
        .map(|(name, tensor)| (name.clone(), Values::of(tensor)))
        .collect();
    let has_average = saved.keys().any(|name| name.starts_with(AVERAGE));
    if weights == Some(Weights::Average) && !has_average {
        let problem = "has no average of its weights: ask for --weights trained, or train with train.ema_decay above 0";
        return Err(ModelError::not_one(path, problem));
    }
    let wanted = weights.unwrap_or(config.eval.weights);
    Ok((saved, if has_average { wanted } else { Weights::Trained }))
}

/// Whether a checkpoint is of a prior.
pub(crate) fn is_prior(path: &Path) -> Result<bool, ModelError> {
    let manifest = Manifest::read(path)?;
    Ok(config_of(path, &manifest)?.task.as_deref() == Some("prior"))
}

fn of_other_task(path: &Path, task: &str) -> ModelError {
    let problem = format!(
        "is of a training with task = \"{task}\": a model folder is made of an autoencoder or a prior"
    );
    ModelError::not_one(path, problem)
}

/// The tensors of these names; averages in the place of what they are of, where they are wanted.
fn chosen_of(
    mut saved: BTreeMap<String, Values>,
    names: &[String],
    weights: Weights,
) -> BTreeMap<String, Values> {
    let mut chosen = BTreeMap::new();
    for name in names {
        let averaged = match weights {
            Weights::Average => saved.remove(&format!("{AVERAGE}{name}")),
            Weights::Trained => None,
        };
        if let Some(values) = averaged.or_else(|| saved.remove(name)) {
            chosen.insert(name.clone(), values);
        }
    }
    chosen
}

/// What the configuration of a checkpoint says of its model.
fn config_of(path: &Path, manifest: &Manifest) -> Result<RunConfig, ModelError> {
    serde_json::from_value(manifest.config.clone()).map_err(|error| {
        let problem = format!("cannot be used: its configuration is of another version ({error})");
        ModelError::not_one(path, problem)
    })
}

/// What there is to know of the model, without its hash and its levels.
fn file_of(
    path: &Path,
    mut config: RunConfig,
    weights: Weights,
    manifest: &Manifest,
) -> Result<ModelFile, ModelError> {
    let data: DataConfig = serde_json::from_value(config.data.clone()).map_err(|error| {
        ModelError::not_one(path, format!("cannot be used: its [data] table: {error}"))
    })?;
    let noted = manifest.model.clone().and_then(|model| serde_json::from_value(model).ok());
    let Samples { shape, classes } = match noted {
        Some(samples) => samples,
        None => {
            let source = tessera_data::source::open(&data, "train")?;
            Samples { shape: source.shape(), classes: source.classes() }
        }
    };
    if let Some(model) = config.model.as_object_mut() {
        // Where it began decides nothing of what it has become.
        model.retain(|key, _| key != "init_from" && key != "init_parts");
    }
    let preprocessing = Preprocessing::of(&data, &config.data, shape);
    let model = config.model;
    let levels = Vec::new();
    let autoencoder = AutoencoderFile { model, shape, preprocessing, classes, levels };
    let kind = ModelKind::Autoencoder(autoencoder);
    Ok(with_kind(kind, config.data, config.train.precision, weights, manifest))
}

fn with_kind(
    kind: ModelKind,
    trained_on: Value,
    precision: Precision,
    weights: Weights,
    manifest: &Manifest,
) -> ModelFile {
    ModelFile {
        format: FORMAT.to_owned(),
        version: VERSION,
        tessera: manifest.tessera.clone(),
        hash: String::new(),
        step: manifest.step,
        weights,
        precision,
        kind,
        trained_on,
    }
}
