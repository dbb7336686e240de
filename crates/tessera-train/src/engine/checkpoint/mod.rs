//! What of a training is saved, and how it goes on from there.
//!
//! The files are `tessera-checkpoint`'s business. Here a training becomes names and bytes
//! ([`state`], `snapshot`), a save runs beside the steps
//! (`saver`), and a checkpoint becomes a training again ([`restore`]).

pub(crate) mod saver;
pub(crate) mod snapshot;
mod state;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use tch::Tensor;
use tessera_checkpoint::{Checkpoint, Dtype, HostTensor, Manifest};
use tessera_comm::{Communicator, broadcast_bytes};

pub use self::state::state;
use crate::config::TrainConfig;
use crate::engine::agreement::agree_on;
use crate::engine::optim::AdamW;
use crate::engine::training::Training;
use crate::error::TrainError;

/// Keys that may change between a checkpoint and the run that goes on from it. `train.steps`
/// may too, where the schedule does not depend on it.
const MAY_CHANGE: [&str; 31] = [
    "checkpoint.best_metric",
    "checkpoint.every",
    "checkpoint.file_mib",
    "checkpoint.keep",
    "checkpoint.keep_best",
    "checkpoint.keep_every",
    "checkpoint.max_failures",
    "comm.backend",
    "comm.share_gpu",
    "comm.timeout_seconds",
    "data.on_corrupt",
    "data.path",
    "data.prefetch",
    "data.threads",
    "data.verify",
    "eval.batch",
    "eval.every",
    "eval.weights",
    "metrics.every",
    "metrics.images_every",
    "model.init_from",
    "model.init_parts",
    "train.device",
    "train.max_skipped_steps",
    "train.micro_batch",
    "train.precision",
    "train.recompute",
    "train.stop_at",
    "train.threads",
    "optimizer.clip_grad_norm",
    "optimizer.learning_rate",
];

/// A manifest of a training after `step` steps, without its files.
pub(crate) fn draft(
    step: u64,
    world_size: usize,
    config: &TrainConfig,
    data_fingerprint: &str,
) -> Manifest {
    let json = serde_json::to_value(config).expect("a configuration is plain data");
    let samples_seen = step * config.train.global_batch;
    let fingerprint = data_fingerprint.to_owned();
    Manifest::draft(step, samples_seen, world_size, json, config.hash(), fingerprint)
}

/// Refuses a checkpoint of another run: other data, or a key that may not change.
pub(crate) fn check_resumable(
    manifest: &Manifest,
    config: &TrainConfig,
    data_fingerprint: &str,
) -> Result<(), TrainError> {
    if manifest.data_fingerprint != data_fingerprint {
        return Err(TrainError::BadInput(
            "the data set is not the one that the checkpoint was trained on: set data.path to \
             that, or choose another --run-dir"
                .into(),
        ));
    }
    let flat = |config: &serde_json::Value| {
        let mut leaves = BTreeMap::new();
        flatten("", config, &mut leaves);
        leaves
    };
    // Keys that are newer than the checkpoint had their defaults then; those that are gone now
    // cannot be compared.
    let saved: TrainConfig = serde_json::from_value(manifest.config.clone()).map_err(|error| {
        TrainError::BadInput(format!(
            "the configuration of the checkpoint of step {} is of another version of Tessera \
             ({error}): use the one that wrote it, {}",
            manifest.step, manifest.tessera
        ))
    })?;
    // A default that has changed is no other run where nothing reads the key.
    let plain = |config: &TrainConfig| {
        serde_json::to_value(config.without_idle_keys()).expect("a configuration is plain data")
    };
    let (saved, now) = (flat(&plain(&saved)), flat(&plain(config)));
    let groups = &config.optimizer.groups;
    let is_endless = !groups.know_their_end(&config.schedule, &config.stages());
    let keys: BTreeSet<&String> = saved.keys().chain(now.keys()).collect();
    let mut keys = Vec::from_iter(keys);
    keys.sort_by_key(|key| !key.ends_with(".kind")); // what the others hang on comes first
    for key in keys {
        let may = MAY_CHANGE.contains(&of_whole_run(key))
            || key.starts_with("limits.")
            || key.starts_with("eval.features.")
            || key.starts_with("metrics.track.")
            || (key.starts_with("optimizer.groups.") && key.ends_with(".learning_rate"))
            || (key == "train.steps" && is_endless);
        let value = |of: &BTreeMap<String, String>| {
            of.get(key).cloned().unwrap_or_else(|| "nothing".to_owned())
        };
        let (was, is) = (value(&saved), value(&now));
        if !may && was != is {
            return Err(TrainError::BadInput(format!(
                "{key} is {is} but the checkpoint of step {} has {was}: set it back, or choose \
                 another --run-dir (docs/configuration.md lists the keys that may change)",
                manifest.step
            )));
        }
    }
    Ok(())
}

/// The key of `[data]` that a part of a mixture has for itself; any other key as it is.
fn of_whole_run(key: &str) -> &str {
    match key.rsplit_once(".data.") {
        Some((part, _)) if part.starts_with("data.mixture.") => &key[part.len() + 1..],
        _ => key,
    }
}

fn flatten(prefix: &str, value: &serde_json::Value, leaves: &mut BTreeMap<String, String>) {
    match value {
        serde_json::Value::Object(table) => {
            for (key, value) in table {
                let dot = if prefix.is_empty() { "" } else { "." };
                flatten(&format!("{prefix}{dot}{key}"), value, leaves);
            }
        }
        serde_json::Value::Array(parts) if parts.iter().any(serde_json::Value::is_object) => {
            for (number, part) in parts.iter().enumerate() {
                flatten(&format!("{prefix}.{number}"), part, leaves);
            }
        }
        leaf => {
            leaves.insert(prefix.to_owned(), leaf.to_string());
        }
    }
}

/// Writes every tensor of a checkpoint into the training.
///
/// # Errors
///
/// [`TrainError::BadInput`] if a tensor is missing, or has another shape or kind.
pub fn restore(checkpoint: &Checkpoint, training: &Training) -> Result<(), TrainError> {
    let bad = |what: String| TrainError::BadInput(format!("the checkpoint cannot be used: {what}"));
    let saved: BTreeMap<_, _> = checkpoint.tensors().into_iter().collect();
    for (name, mut tensor) in state(training) {
        let view = saved.get(&name).ok_or_else(|| bad(format!("it has no tensor {name}")))?;
        let found = tensor_of(&name, view).map_err(bad)?;
        let (kind, size) = (found.kind(), found.size());
        if kind != tensor.kind() || size != tensor.size() {
            return Err(bad(format!(
                "{name} is {kind:?} {size:?}, the model wants {:?} {:?}",
                tensor.kind(),
                tensor.size()
            )));
        }
        tensor.copy_(&found);
    }
    training.task.refresh();
    Ok(())
}

/// A tensor of a checkpoint, on the host.
pub(crate) fn tensor_of(name: &str, view: &HostTensor<'_>) -> Result<Tensor, String> {
    let kind = match view.dtype {
        Dtype::F32 => tch::Kind::Float,
        Dtype::F64 => tch::Kind::Double,
        other => return Err(format!("{name} is of kind {other:?}")),
    };
    let size: Vec<i64> = view.shape.iter().map(|&size| size as i64).collect();
    Ok(Tensor::from_data_size(view.bytes, &size, kind))
}

/// Writes the state of a checkpoint into the trainings of all ranks: rank 0 alone reads it. Collective.
///
/// # Errors
///
/// As [`restore`], and those of reading it.
pub(crate) fn restore_all(
    comm: &dyn Communicator,
    path: &Path,
    training: &Training,
) -> Result<Manifest, TrainError> {
    let restored = match comm.rank() {
        0 => Checkpoint::read(path).map_err(TrainError::from).and_then(|checkpoint| {
            restore(&checkpoint, training)?;
            Ok(Some(checkpoint.manifest))
        }),
        _ => Ok(None),
    };
    let manifest = agree_on(comm, restored)?;
    let manifest = serde_json::to_vec(&manifest).expect("a manifest is plain data");
    let manifest = broadcast_bytes(comm, &manifest)?;
    // What `state` has views of.
    let AdamW { exp_avg, exp_avg_sq, updates, .. } = &training.optimizer;
    let window = training.window.state();
    let buffers = [exp_avg, exp_avg_sq, updates].into_iter();
    let average = training.average.as_ref().map(|average| &average.weights);
    for buffer in buffers.chain(average).chain(window.iter().map(|(_, tensor)| *tensor)) {
        let _ = comm.broadcast(buffer.shallow_clone(), 0)?.wait()?;
    }
    broadcast_state(comm, training)?;
    Ok(serde_json::from_slice(&manifest).expect("rank 0 sends a manifest"))
}

/// Gives every rank rank 0's parameters and other state: the last word on what all start from.
/// Collective.
pub(crate) fn broadcast_state(
    comm: &dyn Communicator,
    training: &Training,
) -> Result<(), TrainError> {
    let parameters = training.task.parameters();
    let _ = comm.broadcast(parameters.flat().shallow_clone(), 0)?.wait()?;
    for (_, mut tensor) in training.task.state() {
        // Of a view whose elements do not lie in a row, a copy travels.
        let sent = tensor.contiguous();
        let is_copy = sent.data_ptr() != tensor.data_ptr();
        let heard = comm.broadcast(sent, 0)?.wait()?;
        if is_copy {
            tensor.copy_(&heard);
        }
    }
    training.task.refresh();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tessera_data::{DataConfig, DataKind, MixturePart};
    use tessera_nn::QuantizerConfig;
    use tessera_nn::quantize::VectorConfig;

    #[test]
    fn of_a_mixture_may_change_what_may_change_of_one_data_set() {
        let part = |weight| {
            let data =
                DataConfig { kind: DataKind::Npy, path: "a".into(), ..DataConfig::default() };
            MixturePart { weight, data }
        };
        let mut config = TrainConfig::default();
        config.data.kind = DataKind::Mixture;
        config.data.mixture = vec![part(1.0), part(2.0)];
        let saved = draft(5, 1, &config, "data");
        let resumed = |change: &dyn Fn(&mut TrainConfig)| {
            let mut config = config.clone();
            change(&mut config);
            check_resumable(&saved, &config, "data").map_err(|error| error.to_string())
        };
        assert_eq!(resumed(&|_| {}), Ok(()));
        assert_eq!(resumed(&|config| config.data.mixture[1].data.path = "b".into()), Ok(()));
        assert_eq!(resumed(&|config| config.data.mixture[0].data.threads = 3), Ok(()));
        let told = |change: &dyn Fn(&mut TrainConfig)| resumed(change).unwrap_err();
        let words = "data.mixture.1.weight is 3.0 but the checkpoint of step 5 has 2.0";
        assert!(told(&|config| config.data.mixture[1].weight = 3.0).starts_with(words));
        let image = told(&|config| config.data.mixture[0].data.image.height = 8);
        assert!(image.starts_with("data.mixture.0.data.image.height is 8 but"), "{image}");
        let more = told(&|config| config.data.mixture.push(part(1.0)));
        assert!(more.contains("data.mixture.2.") && more.contains(" has nothing"), "{more}");
        let fewer = told(&|config| config.data.mixture.truncate(1));
        assert!(fewer.contains("data.mixture.1.") && fewer.contains(" is nothing but"), "{fewer}");
        // Of a table with kinds the kind is told, not a key that one of them lacks.
        let kind = told(&|config| {
            config.model.quantizer = QuantizerConfig::FiniteScalar(Default::default());
        });
        assert!(kind.starts_with("model.quantizer.kind is \"fsq\" but"), "{kind}");
    }

    fn config(entropy: f64, entropy_temperature: f64) -> TrainConfig {
        let mut config = TrainConfig::default();
        let vector = VectorConfig { entropy, entropy_temperature, ..VectorConfig::default() };
        config.model.quantizer = QuantizerConfig::Vector(vector);
        config
    }

    /// The default went from 1 to 0.01. Without an entropy loss nothing reads it.
    #[test]
    fn a_default_that_has_changed_matters_only_where_it_is_read() {
        let resumed = |entropy: f64| {
            let saved = draft(5, 1, &config(entropy, 1.0), "data");
            check_resumable(&saved, &config(entropy, 0.01), "data")
        };
        assert!(resumed(0.0).is_ok());
        let refused = resumed(0.1).unwrap_err().to_string();
        let expected = "model.quantizer.entropy_temperature is 0.01 but the checkpoint of step 5 \
                        has 1.0: set it back";
        assert!(refused.starts_with(expected), "{refused}");
    }
}
