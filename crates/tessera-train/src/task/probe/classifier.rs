//! A trained probe in use: the classes of samples.

use std::path::Path;

use tch::{Device, Kind, Tensor};
use tessera_checkpoint::Checkpoint;
use tessera_data::SampleShape;
use tessera_model::signal_of;
use tessera_nn::Signal;

use super::Probe;
use crate::config::TrainConfig;
use crate::engine::warm_start;
use crate::error::TrainError;
use crate::task::kind::TaskKind;
use crate::task::{Samples, Task};

/// A trained probe, frozen.
#[derive(Debug)]
pub struct Classifier {
    probe: Probe,
}

impl Classifier {
    /// Opens the newest checkpoint of a run with `task = "probe"`, or one checkpoint, for samples like these; `option` is
    /// what messages call the path, `sample_rate` that of sound in instants a second, 0 of others.
    ///
    /// # Errors
    ///
    /// [`TrainError::BadInput`] where it is of another task, or of other samples; those of reading it.
    pub fn open(
        path: &Path,
        option: &str,
        (signal, sample_rate): (&Signal, u32),
        device: Device,
    ) -> Result<Self, TrainError> {
        let refuse = |problem: String| {
            TrainError::BadInput(format!("{option} {} {problem}", path.display()))
        };
        let checkpoint = warm_start::read(path, option)?;
        let config = serde_json::from_value::<TrainConfig>(checkpoint.manifest.config.clone());
        let config = config
            .ok()
            .filter(|config| config.task == TaskKind::Probe)
            .ok_or_else(|| refuse("should be a run with task = \"probe\"".to_owned()))?;
        check_noted(&checkpoint, Some(signal), sample_rate).map_err(refuse)?;
        config.probe.features.check(signal).map_err(refuse)?;
        let saved = warm_start::usable(&checkpoint)?;
        let head = ["head.logits.weight", "head.logits.bias"].map(|name| saved.get(name));
        let num_classes = head.into_iter().flatten().map(|tensor| tensor.size()[0]).next();
        let num_classes = num_classes
            .ok_or_else(|| refuse("has no head: train it anew with this version".to_owned()))?;
        let num_classes = Some(num_classes as u64);
        let samples = Samples { signal: *signal, sample_rate, num_classes, tokens: None };
        let probe = Probe::new(&config, samples, device)?;
        let wanted = probe.parameters.named_views().map(|(name, tensor)| (name.to_owned(), tensor));
        let wanted: Vec<(String, Tensor)> = wanted.chain(probe.state()).collect();
        tch::no_grad(|| {
            for (name, mut tensor) in wanted {
                let found = saved.get(&name).filter(|found| found.size() == tensor.size());
                let found = found.ok_or_else(|| {
                    refuse(format!("has no {name} of the shape {:?}", tensor.size()))
                })?;
                tensor.copy_(found);
            }
            Ok::<(), TrainError>(())
        })?;
        probe.refresh();
        Ok(Self { probe })
    }

    /// Classes that it tells apart.
    pub fn num_classes(&self) -> i64 {
        self.probe.num_classes
    }

    /// The probability of each class, `[N, classes]`, for samples `[N, C, ..]` as a [`Signal`] has them.
    pub fn probabilities(&self, samples_nc: &Tensor) -> Tensor {
        tch::no_grad(|| {
            let values = samples_nc.to_kind(self.probe.parameters.flat().kind());
            self.probe.logits(&self.probe.features_of(values)).softmax(1, Kind::Double)
        })
    }
}

/// What is wrong with samples of this signal, where it matters, and rate for a network that a checkpoint says was trained on
/// others.
pub(crate) fn check_noted(
    checkpoint: &Checkpoint,
    signal: Option<&Signal>,
    sample_rate: u32,
) -> Result<(), String> {
    let noted = checkpoint.manifest.model.as_ref().and_then(|model| model.get("shape").cloned());
    let noted = noted.and_then(|shape| serde_json::from_value::<SampleShape>(shape).ok());
    let Some(noted) = noted else { return Ok(()) };
    let theirs = signal_of(noted);
    if let Some(ours) = signal.filter(|ours| **ours != theirs) {
        let [theirs, ours] = [&theirs, ours].map(|signal| format!("{:?}", signal.shape(1)));
        return Err(format!("was trained on samples of {theirs}, these are {ours}"));
    }
    if noted.sample_rate != sample_rate {
        return Err(format!(
            "was trained on sound of {} instants a second, this has {sample_rate}",
            noted.sample_rate
        ));
    }
    Ok(())
}
