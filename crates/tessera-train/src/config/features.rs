//! Which features an evaluation compares outputs and inputs by: the `[eval.features]` table.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tessera_nn::features::ScriptInput;

/// The `[eval.features]` table: Frechet distance, precision, recall, density and coverage of outputs against inputs, and the
/// mean distance between the two. Of sound a network sees log-mel spectrograms, of film each frame and what changes from
/// frame to frame. Figures of two evaluations can be compared where network and number of samples are the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FeaturesConfig {
    /// Which network.
    pub network: FeatureKind,
    /// What its weights are read from: for `"vgg"` a safetensors file, for `"probe"` a run folder or a checkpoint's, for
    /// `"torchscript"` a file that takes `[N, C, H, W]` and gives `[N, F]`.
    pub path: PathBuf,
    /// With `"torchscript"`: what pictures, spectrograms and frames are given as.
    pub input: ScriptInput,
    /// Samples from the first on that take part in precision, recall, density and coverage, 10 to 20,000: their time grows
    /// with the square.
    pub num_samples: u64,
    /// Neighbours that a ball of precision, recall, density and coverage reaches to, 1 to 100.
    pub neighbors: i64,
}

/// A network whose features are compared as sets, a value of `eval.features.network`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FeatureKind {
    /// None: nothing of the kind is computed.
    #[default]
    None,
    /// A small convolutional network with orthogonal weights from a fixed seed: it needs no file.
    Random,
    /// VGG16 with the heads of LPIPS, from a file.
    Vgg,
    /// The convolutional head of a probe that was trained here: on pixels of pictures, on spectrograms of sound, on frames of
    /// film.
    Probe,
    /// A TorchScript file. The Frechet distance is FID where that is its Inception network.
    #[serde(rename = "torchscript")]
    TorchScript,
}

impl Default for FeaturesConfig {
    fn default() -> Self {
        Self {
            network: FeatureKind::None,
            path: PathBuf::new(),
            input: ScriptInput::Float,
            num_samples: 2000,
            neighbors: 5,
        }
    }
}

impl FeaturesConfig {
    pub(super) fn validate(&self) -> Result<(), String> {
        let reads_file = !matches!(self.network, FeatureKind::None | FeatureKind::Random);
        if reads_file && self.path == PathBuf::new() {
            return Err("eval.features.network is read from eval.features.path, which is empty: set it, or \
                        eval.features.network = \"random\""
                .to_owned());
        }
        if !(10..=20_000).contains(&self.num_samples) {
            return Err(format!(
                "eval.features.num_samples should be from 10 to 20000, found {}",
                self.num_samples
            ));
        }
        if !(1..=100).contains(&self.neighbors) {
            return Err(format!(
                "eval.features.neighbors should be from 1 to 100, found {}",
                self.neighbors
            ));
        }
        Ok(())
    }
}
