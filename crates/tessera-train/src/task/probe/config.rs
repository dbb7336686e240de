//! The `[probe]` table.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tessera_nn::HeadConfig;

/// The `[probe]` table: what a head reads and what it is, with `task = "probe"`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ProbeConfig {
    /// What the head reads.
    pub features: Features,
    /// What the head is.
    pub head: HeadKind,
    /// With `"mlp"`: width of the hidden layer, at least 1.
    pub hidden: i64,
    /// With `"conv"`: channels of the first stage, at least 1; each further one has twice as many.
    pub channels: i64,
    /// With `"conv"`: stages, at least 1. Each halves what it reads along every axis.
    pub stages: i64,
    /// What part of the target is spread evenly over all classes, in [0, 1).
    pub label_smoothing: f64,
}

/// What a head reads, a value of `probe.features`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Features {
    /// The samples as they are.
    Pixels,
    /// What the encoder of a trained model makes of them, before its quantiser; `model.init_from` names it.
    Latents,
    /// What that model's decoder would read: the latents' codes.
    Codes,
}

/// What a head is, a value of `probe.head`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HeadKind {
    /// One linear layer.
    Linear,
    /// Linear, ReLU, linear.
    Mlp,
    /// Stages of a convolution, ReLU and the largest of neighbours; one linear layer.
    Conv,
}

impl Default for ProbeConfig {
    fn default() -> Self {
        Self {
            features: Features::Pixels,
            head: HeadKind::Linear,
            hidden: 256,
            channels: 32,
            stages: 3,
            label_smoothing: 0.0,
        }
    }
}

impl ProbeConfig {
    /// The head.
    pub(crate) fn head(&self) -> HeadConfig {
        match self.head {
            HeadKind::Linear => HeadConfig::Linear,
            HeadKind::Mlp => HeadConfig::Mlp { hidden: self.hidden },
            HeadKind::Conv => HeadConfig::Conv { channels: self.channels, stages: self.stages },
        }
    }

    /// Whether the head reads what a trained model makes.
    pub(crate) fn needs_model(&self) -> bool {
        self.features != Features::Pixels
    }

    pub(crate) fn validate(&self) -> Result<(), String> {
        for (key, value) in
            [("hidden", self.hidden), ("channels", self.channels), ("stages", self.stages)]
        {
            if !(1..=1 << 20).contains(&value) {
                return Err(format!("probe.{key} should be from 1 to 2^20, found {value}"));
            }
        }
        if !(0.0..1.0).contains(&self.label_smoothing) {
            return Err(format!(
                "probe.label_smoothing should be at least 0 and below 1, found {}",
                self.label_smoothing
            ));
        }
        Ok(())
    }
}
