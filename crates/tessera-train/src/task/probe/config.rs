//! The `[probe]` table.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tessera_nn::{HeadConfig, Signal};

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
    /// Sound as its log-mel spectrogram, a picture of 64 rows; its convolutions have two axes.
    Spectrogram,
    /// Film frame by frame, each as a picture; the answer is the mean over frames.
    Frames,
    /// What the encoder of a trained model makes of them, before its quantiser; `model.init_from` names it.
    Latents,
    /// What that model's decoder would read: the latents' codes.
    Codes,
}

impl Features {
    /// What a network of pictures sees of samples of this signal: heads on it are networks that features come from.
    pub(crate) fn seen_of(signal: &Signal) -> Self {
        match signal {
            Signal::Audio { .. } => Self::Spectrogram,
            Signal::Video { .. } => Self::Frames,
            Signal::Image { .. } | Signal::Tokens { .. } => Self::Pixels,
        }
    }

    /// The value, as a configuration has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pixels => "pixels",
            Self::Spectrogram => "spectrogram",
            Self::Frames => "frames",
            Self::Latents => "latents",
            Self::Codes => "codes",
        }
    }

    /// What is wrong with samples of this signal, if anything.
    pub(super) fn check(self, signal: &Signal) -> Result<(), String> {
        let words = match (self, signal) {
            (Self::Spectrogram, Signal::Audio { .. }) | (Self::Frames, Signal::Video { .. }) => {
                return Ok(());
            }
            (Self::Spectrogram, _) => "sound",
            (Self::Frames, _) => "film",
            _ => return Ok(()),
        };
        Err(format!(
            "probe.features = \"{}\" is for {words}, these data are {signal}: set it to \"{}\"",
            self.name(),
            Self::seen_of(signal).name()
        ))
    }
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
        matches!(self.features, Features::Latents | Features::Codes)
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
