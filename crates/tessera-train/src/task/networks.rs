//! Networks whose features are compared, opened by what a configuration says of them.

use std::path::Path;

use tch::{Device, Kind};
use tessera_nn::features::{FeatureNetwork, Script, ScriptInput, Stages, Vgg};
use tessera_nn::{HeadConfig, Signal};

use crate::config::TrainConfig;
use crate::config::features::{FeatureKind, FeaturesConfig};
use crate::config::objective::PerceptualNetwork;
use crate::engine::warm_start;
use crate::error::TrainError;
use crate::task::kind::TaskKind;
use crate::task::probe::Features;

/// Digits of a hash that tell one file from another.
const DIGITS: usize = 12;

/// A network, and what to call it.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) network: FeatureNetwork,
    /// Its kind, and the first digits of the SHA-256 of its weights where they came from a file.
    pub(crate) name: String,
}

/// A network as a table of the configuration names it.
#[derive(Debug, Clone, Copy)]
struct Named<'a> {
    /// The table, as messages call it.
    table: &'a str,
    kind: FeatureKind,
    path: &'a Path,
    input: ScriptInput,
}

/// The network of `[perceptual]`, where `loss.perceptual` wants it.
///
/// # Errors
///
/// [`TrainError::BadInput`] with the key and what is wrong.
pub(crate) fn perceptual(
    config: &TrainConfig,
    signal: &Signal,
    device: Device,
) -> Result<Option<FeatureNetwork>, TrainError> {
    if config.loss.perceptual == 0.0 {
        return Ok(None);
    }
    let kind = match config.perceptual.network {
        PerceptualNetwork::Random => FeatureKind::Random,
        PerceptualNetwork::Vgg => FeatureKind::Vgg,
        PerceptualNetwork::Probe => FeatureKind::Probe,
    };
    let (path, input) = (config.perceptual.path.as_path(), ScriptInput::Float);
    let named = Named { table: "perceptual", kind, path, input };
    Ok(named.open(signal, device)?.map(|opened| opened.network))
}

/// The network of `[eval.features]`, where there is one.
///
/// # Errors
///
/// [`TrainError::BadInput`] with the key and what is wrong.
pub(crate) fn of_evaluation(
    config: &TrainConfig,
    signal: &Signal,
    device: Device,
) -> Result<Option<Opened>, TrainError> {
    let features = &config.eval.features;
    let (kind, path, input) = (features.network, features.path.as_path(), features.input);
    Named { table: "eval.features", kind, path, input }.open(signal, device)
}

/// A network that pictures are compared by, and what to call it: its kind and, where its weights came from a file, their hash.
/// `table` is what messages call `features`.
///
/// # Errors
///
/// [`TrainError::BadInput`] with the key and what is wrong; also where no network is named.
pub fn open_features(
    features: &FeaturesConfig,
    table: &str,
    signal: &Signal,
    device: Device,
) -> Result<(FeatureNetwork, String), TrainError> {
    let (kind, path, input) = (features.network, features.path.as_path(), features.input);
    let Opened { network, name } = Named { table, kind, path, input }
        .open(signal, device)?
        .ok_or_else(|| TrainError::BadInput(format!("{table}.network should name one")))?;
    Ok((network, name))
}

impl Named<'_> {
    fn open(self, signal: &Signal, device: Device) -> Result<Option<Opened>, TrainError> {
        let Self { table, kind, path, input } = self;
        let refuse = |problem: String| TrainError::BadInput(format!("{table}.path {problem}"));
        if kind == FeatureKind::None {
            return Ok(None);
        }
        let Signal::Image { channels, height, width } = *signal else {
            return Err(TrainError::BadInput(format!(
                "[{table}] is for pictures, these data are {signal}: leave it out"
            )));
        };
        let (network, name) = match kind {
            FeatureKind::None => return Ok(None),
            FeatureKind::Random => {
                (FeatureNetwork::Stages(Stages::random(channels, device)), "random".to_owned())
            }
            FeatureKind::Vgg => {
                let vgg = Vgg::read(path, device).map_err(refuse)?;
                (FeatureNetwork::Vgg(vgg), format!("vgg {}", hash_of_file(path)?))
            }
            FeatureKind::TorchScript => {
                let shape = [channels, height, width];
                let script = Script::open(path, input, shape, device).map_err(refuse)?;
                (FeatureNetwork::Script(script), format!("torchscript {}", hash_of_file(path)?))
            }
            FeatureKind::Probe => {
                let key = format!("{table}.path");
                let (stages, hash) = of_probe(path, &key, channels, device)?;
                (FeatureNetwork::Stages(stages), format!("probe {hash}"))
            }
        };
        let fits = network.validate(channels, height, width);
        fits.map_err(|problem| TrainError::BadInput(format!("{table}.network: {problem}")))?;
        Ok(Some(Opened { network, name }))
    }
}

fn hash_of_file(path: &Path) -> Result<String, TrainError> {
    let bytes = std::fs::read(path).map_err(|error| {
        TrainError::BadInput(format!("{} cannot be read: {error}", path.display()))
    })?;
    Ok(short(tessera_checkpoint::sha256_hex(&bytes)))
}

fn short(mut hash: String) -> String {
    hash.truncate(DIGITS);
    hash
}

/// The stages of the head that a probe on pixels has trained, and a hash of its weights.
fn of_probe(
    path: &Path,
    key: &str,
    channels: i64,
    device: Device,
) -> Result<(Stages, String), TrainError> {
    let refuse = |problem: &str| {
        let path = path.display();
        TrainError::BadInput(format!("{key} {path} {problem}"))
    };
    let checkpoint = warm_start::read(path, key)?;
    let wanted = "should be a run with task = \"probe\", probe.features = \"pixels\" and probe.head = \"conv\"";
    let config = serde_json::from_value::<TrainConfig>(checkpoint.manifest.config.clone());
    let config = config.map_err(|_| refuse(wanted))?;
    let head = config.probe.head();
    let is_conv = matches!(head, HeadConfig::Conv { .. });
    if config.task != TaskKind::Probe || config.probe.features != Features::Pixels || !is_conv {
        return Err(refuse(wanted));
    }
    let mut tensors = warm_start::usable(&checkpoint)?;
    tensors.retain(|name, _| name.starts_with("head."));
    let mut bytes = Vec::new();
    for (name, tensor) in &tensors {
        let values: Vec<f32> = Vec::try_from(tensor.to_kind(Kind::Float).flatten(0, -1))?;
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    }
    let stages = Stages::of_head(head, channels, tensors, device);
    let stages = stages.map_err(|problem| refuse(&problem))?;
    Ok((stages, short(tessera_checkpoint::sha256_hex(&bytes))))
}
