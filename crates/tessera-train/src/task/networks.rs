//! Networks whose features are compared, opened by what a configuration says of them.

use std::path::Path;

use tch::{Device, Kind};
use tessera_nn::features::{FeatureNetwork, Script, ScriptInput, Seen, Stages, Vgg, View};
use tessera_nn::{HeadConfig, Signal};

use crate::config::TrainConfig;
use crate::config::features::{FeatureKind, FeaturesConfig};
use crate::config::objective::PerceptualNetwork;
use crate::engine::warm_start;
use crate::error::TrainError;
use crate::task::kind::TaskKind;
use crate::task::probe::{Features, check_noted};

/// Digits of a hash that tell one file from another.
const DIGITS: usize = 12;

/// A network, and what to call it.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) seen: Seen,
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

/// Samples that a network is opened for: their signal, and of sound the instants a second; 0 of others.
pub(crate) type Shown<'a> = (&'a Signal, u32);

/// The network of `[perceptual]`, where `loss.perceptual` wants it.
///
/// # Errors
///
/// [`TrainError::BadInput`] with the key and what is wrong.
pub(crate) fn perceptual(
    config: &TrainConfig,
    shown: Shown<'_>,
    device: Device,
) -> Result<Option<Seen>, TrainError> {
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
    Ok(named.open(shown, device)?.map(|opened| opened.seen))
}

/// The network of `[eval.features]`, where there is one.
///
/// # Errors
///
/// [`TrainError::BadInput`] with the key and what is wrong.
pub(crate) fn of_evaluation(
    config: &TrainConfig,
    shown: Shown<'_>,
    device: Device,
) -> Result<Option<Opened>, TrainError> {
    let features = &config.eval.features;
    let (kind, path, input) = (features.network, features.path.as_path(), features.input);
    Named { table: "eval.features", kind, path, input }.open(shown, device)
}

/// A network that samples of `signal` are compared by, and what to call it: its kind and, where its weights came from a file,
/// their hash. `table` is what messages call `features`; `sample_rate` is that of sound in instants a second, 0 of others.
///
/// # Errors
///
/// [`TrainError::BadInput`] with the key and what is wrong; also where no network is named.
pub fn open_features(
    features: &FeaturesConfig,
    table: &str,
    (signal, sample_rate): (&Signal, u32),
    device: Device,
) -> Result<(Seen, String), TrainError> {
    let (kind, path, input) = (features.network, features.path.as_path(), features.input);
    let Opened { seen, name } = Named { table, kind, path, input }
        .open((signal, sample_rate), device)?
        .ok_or_else(|| TrainError::BadInput(format!("{table}.network should name one")))?;
    Ok((seen, name))
}

impl Named<'_> {
    fn open(
        self,
        (signal, sample_rate): Shown<'_>,
        device: Device,
    ) -> Result<Option<Opened>, TrainError> {
        let Self { table, kind, path, input } = self;
        let refuse = |problem: String| TrainError::BadInput(format!("{table}.path {problem}"));
        if kind == FeatureKind::None {
            return Ok(None);
        }
        let view = View::of(signal, sample_rate).map_err(|problem| {
            TrainError::BadInput(format!("[{table}] cannot be used: {problem}: leave it out"))
        })?;
        let shape = view.shape();
        let channels = shape[0];
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
                let script = Script::open(path, input, shape, device).map_err(refuse)?;
                (FeatureNetwork::Script(script), format!("torchscript {}", hash_of_file(path)?))
            }
            FeatureKind::Probe => {
                let key = format!("{table}.path");
                let (stages, hash) = of_probe(path, &key, (&view, sample_rate), device)?;
                (FeatureNetwork::Stages(stages), format!("probe {hash}"))
            }
        };
        let seen = Seen::new(network, view)
            .map_err(|problem| TrainError::BadInput(format!("{table}.network: {problem}")))?;
        Ok(Some(Opened { seen, name }))
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

/// The stages of the head that a probe on what this view shows has trained, and a hash of its weights.
fn of_probe(
    path: &Path,
    key: &str,
    (view, sample_rate): (&View, u32),
    device: Device,
) -> Result<(Stages, String), TrainError> {
    let refuse = |problem: &str| {
        let path = path.display();
        TrainError::BadInput(format!("{key} {path} {problem}"))
    };
    let checkpoint = warm_start::read(path, key)?;
    let features = Features::seen_of(&view.signal());
    let wanted = format!(
        "should be a run with task = \"probe\", probe.features = \"{}\" and probe.head = \"conv\"",
        features.name()
    );
    let wanted = wanted.as_str();
    let config = serde_json::from_value::<TrainConfig>(checkpoint.manifest.config.clone());
    let config = config.map_err(|_| refuse(wanted))?;
    let head = config.probe.head();
    let is_conv = matches!(head, HeadConfig::Conv { .. });
    if config.task != TaskKind::Probe || config.probe.features != features || !is_conv {
        return Err(refuse(wanted));
    }
    if let Signal::Audio { .. } = view.signal() {
        check_noted(&checkpoint, None, sample_rate).map_err(|problem| refuse(&problem))?;
    }
    let mut tensors = warm_start::usable(&checkpoint)?;
    tensors.retain(|name, _| name.starts_with("head."));
    let mut bytes = Vec::new();
    for (name, tensor) in &tensors {
        let values: Vec<f32> = Vec::try_from(tensor.to_kind(Kind::Float).flatten(0, -1))?;
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    }
    let stages = Stages::of_head(head, view.shape()[0], tensors, device);
    let stages = stages.map_err(|problem| refuse(&problem))?;
    Ok((stages, short(tessera_checkpoint::sha256_hex(&bytes))))
}
