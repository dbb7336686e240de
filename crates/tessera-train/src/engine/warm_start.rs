//! A training that begins from what another one made (`model.init_from`), instead of from nothing.
//!
//! Tensors of a model's parts are taken by their names, and a report says what was taken, what was left, and what is new. Steps,
//! moments, other averages of a training and the order of samples are not taken: for those there is `--resume`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};
use tessera_checkpoint::Checkpoint;
use tessera_comm::{Communicator, broadcast_bytes};
use tessera_model::{ModelPath, Weights};
use tessera_nn::parameters::Stage;

use super::agreement::agree_on;
use super::checkpoint::tensor_of;
use super::coordinator::{How, named};
use super::training::Training;
use crate::config::TrainConfig;
use crate::config::groups::{ALL, name};
use crate::error::TrainError;
use crate::task::Task;

/// The key, as messages call it.
const KEY: &str = "model.init_from";
/// Names that a report tells of each kind.
const MOST_NAMES: usize = 6;

/// What was taken, the same on every rank.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Report {
    /// Names of the parts of which nothing is new.
    whole: Vec<String>,
    notices: Vec<String>,
}

/// Refuses a path that holds no checkpoint and no model; reads no file but manifests and `config.json`.
pub(crate) fn check(config: &TrainConfig) -> Result<(), TrainError> {
    let path = &config.model.init_from;
    if path.as_os_str().is_empty() {
        return Ok(());
    }
    match is_model(path) {
        true => drop(tessera_model::read_file(path)?),
        false => drop(named(path, KEY, How::Manifest)?),
    }
    Ok(())
}

/// What a training begins from.
struct Begun {
    path: PathBuf,
    step: u64,
    tensors: BTreeMap<String, Tensor>,
}

/// Whether this is a model folder.
fn is_model(path: &Path) -> bool {
    path.join(tessera_model::CONFIG_FILE).is_file()
}

/// The tensors of a model folder, or of the checkpoint that the path names.
fn begin(path: &Path) -> Result<Begun, TrainError> {
    if is_model(path) {
        let model = ModelPath::Model(path.to_owned()).open(Device::Cpu)?;
        let (path, step) = (path.to_owned(), model.file.step);
        return Ok(Begun { path, step, tensors: model.named() });
    }
    let checkpoint = read(path, KEY)?;
    let (path, step) = (checkpoint.path.clone(), checkpoint.manifest.step);
    Ok(Begun { path, step, tensors: usable(&checkpoint)? })
}

/// Takes what `model.init_from` names, where it names something: rank 0 reads it, and its parameters and state are to be
/// broadcast afterwards. What to tell of it. Collective.
///
/// # Errors
///
/// [`TrainError::BadInput`] where the checkpoint is of another architecture; those of reading it.
pub(crate) fn load(
    comm: &dyn Communicator,
    training: &mut Training,
    config: &TrainConfig,
) -> Result<Vec<String>, TrainError> {
    let path = &config.model.init_from;
    if path.as_os_str().is_empty() {
        return Ok(Vec::new());
    }
    let report = match comm.rank() {
        0 => begin(path).and_then(|begun| take(begun, &*training.task, config)),
        _ => Ok(Report::default()),
    };
    let report = serde_json::to_vec(&agree_on(comm, report)?).expect("a report is plain data");
    let report: Report =
        serde_json::from_slice(&broadcast_bytes(comm, &report)?).expect("rank 0 sends a report");
    let is_whole = |stage: &Stage| report.whole.iter().any(|part| part == name(*stage));
    training.taken = ALL.into_iter().filter(is_whole).collect();
    Ok(report.notices)
}

/// The checkpoint that the path of a key names; of a run the newest that is whole, as `--resume` takes it.
pub(crate) fn read(path: &Path, key: &str) -> Result<Checkpoint, TrainError> {
    let (found, _) = named(path, key, How::Whole)?;
    Ok(Checkpoint::read(&found.path)?)
}

/// The tensors of a checkpoint that another training may begin from: the weights that are for use, and state.
pub(crate) fn usable(checkpoint: &Checkpoint) -> Result<BTreeMap<String, Tensor>, TrainError> {
    let mut all = BTreeMap::new();
    let mut averages = Vec::new();
    for (name, view) in checkpoint.tensors() {
        let tensor = |name: &str| {
            let bad = |what: String| {
                let path = checkpoint.path.display();
                TrainError::BadInput(format!("{path} cannot be used: {what}"))
            };
            tensor_of(name, &view).map_err(bad)
        };
        if let Some(averaged) = name.strip_prefix("average.") {
            averages.push((averaged.to_owned(), tensor(&name)?));
        } else if !name.starts_with("optimizer.") && !name.starts_with("metrics.") {
            all.insert(name.clone(), tensor(&name)?);
        }
    }
    let config = serde_json::from_value::<TrainConfig>(checkpoint.manifest.config.clone());
    if config.is_ok_and(|config| config.eval.weights == Weights::Average) {
        all.extend(averages);
    }
    Ok(all)
}

/// The part that a tensor is of, by its name.
fn part_of(tensor: &str) -> &str {
    tensor.split('.').next().unwrap_or(tensor)
}

/// Writes into the task what there is of it.
fn take(begun: Begun, task: &dyn Task, config: &TrainConfig) -> Result<Report, TrainError> {
    let Begun { path, step, tensors: mut saved } = begun;
    let asked = &config.model.init_parts;
    let is_asked = |tensor: &str| {
        let part = part_of(tensor);
        ALL.iter().any(|stage| name(*stage) == part)
            && (asked.is_empty() || asked.iter().any(|name| name == part))
    };
    saved.retain(|name, _| is_asked(name));
    let mut notices = task.fit(&mut saved);

    let parameters = task.parameters();
    let mut wanted: BTreeMap<String, Tensor> =
        parameters.named_views().map(|(name, tensor)| (name.to_owned(), tensor)).collect();
    wanted.extend(task.state());
    wanted.retain(|name, _| is_asked(name));
    let path = path.display();
    let refuse = |part: &str, what: String| {
        TrainError::BadInput(format!(
            "{KEY} {path} is of another architecture: {what}; set [model] as it is there, or leave \
             \"{part}\" out of model.init_parts"
        ))
    };
    let (mut taken, mut missing) = (Vec::new(), Vec::new());
    for (name, tensor) in &mut wanted {
        let Some(found) = saved.remove(name) else {
            missing.push(name.as_str());
            continue;
        };
        if found.size() != tensor.size() {
            let (there, here) = (found.size(), tensor.size());
            let what = format!("{name} is {there:?} there and {here:?} here");
            return Err(refuse(part_of(name), what));
        }
        tensor.copy_(&found);
        taken.push(name.as_str());
    }
    let left: Vec<&str> = saved.keys().map(String::as_str).collect();
    let has = |names: &[&str], part: &str| names.iter().any(|name| part_of(name) == part);
    for part in ALL.map(name) {
        if has(&missing, part) && has(&left, part) && !has(&taken, part) {
            return Err(refuse(part, format!("nothing of its {part} has a place here")));
        }
    }
    let trained = config.stages();
    let is_made = |part: &str| trained.iter().any(|stage| name(*stage) == part);
    if let Some(missing) = missing.iter().find(|name| !is_made(part_of(name))) {
        return Err(TrainError::BadInput(format!(
            "{KEY} {path} has no {missing}, which this task takes as it is: set [model] as it is there"
        )));
    }
    if taken.is_empty() {
        return Err(TrainError::BadInput(format!(
            "{KEY} {path} has nothing of this model: leave it out to begin from nothing"
        )));
    }
    let is_whole = |part: &&str| is_asked(part) && !has(&missing, part);
    let whole = ALL.map(name).into_iter().filter(is_whole).map(str::to_owned).collect();
    task.refresh();
    notices.insert(
        0,
        format!(
            "begun from {path}, step {step}: {} tensors taken; left there: {}; new here: {}",
            taken.len(),
            list(&left),
            list(&missing)
        ),
    );
    Ok(Report { whole, notices })
}

/// Names for a person.
fn list(names: &[&str]) -> String {
    let told = names.iter().take(MOST_NAMES).copied().collect::<Vec<_>>().join(", ");
    match names.len() {
        0 => "none".to_owned(),
        num if num > MOST_NAMES => format!("{told} and {} more", num - MOST_NAMES),
        _ => told,
    }
}
