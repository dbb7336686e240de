//! The networks around the quantiser.

mod conv2d;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::Tensor;

pub use self::conv2d::{Conv2dBackbone, Conv2dConfig};
use crate::parameters::{Declarations, ParameterId, Parameters};

/// Which encoder and decoder, chosen by `kind`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum BackboneConfig {
    /// `kind = "conv2d"`: strided convolutions and residual blocks, for images.
    Conv2d(Conv2dConfig),
}

impl Default for BackboneConfig {
    fn default() -> Self {
        Self::Conv2d(Conv2dConfig::default())
    }
}

impl BackboneConfig {
    /// What is wrong with the values for images of `height` times `width`, if anything.
    ///
    /// # Errors
    ///
    /// One line that names the key and says what it may be.
    pub fn validate(&self, height: i64, width: i64) -> Result<(), String> {
        match self {
            Self::Conv2d(config) => config.validate(height, width),
        }
    }
}

/// An encoder and a decoder.
#[derive(Debug)]
pub enum Backbone {
    /// See [`Conv2dBackbone`].
    Conv2d(Conv2dBackbone),
}

impl Backbone {
    /// Declares the network's parameters, the encoder's first.
    pub fn new(config: &BackboneConfig, channels: i64, dim: i64, to: &mut Declarations) -> Self {
        match config {
            BackboneConfig::Conv2d(config) => {
                Self::Conv2d(Conv2dBackbone::new(config, channels, dim, to))
            }
        }
    }

    /// Images `[N, C, H, W]` to latents `[N, D, h, w]`.
    pub fn encode(&self, parameters: &Parameters, images_nchw: &Tensor) -> Tensor {
        match self {
            Self::Conv2d(network) => network.encode(parameters, images_nchw),
        }
    }

    /// Quantised latents `[N, D, h, w]` to images `[N, C, H, W]`.
    pub fn decode(&self, parameters: &Parameters, latents_ndhw: &Tensor) -> Tensor {
        match self {
            Self::Conv2d(network) => network.decode(parameters, latents_ndhw),
        }
    }

    /// The bias of the output, `[C]`.
    pub fn output_bias(&self) -> ParameterId {
        match self {
            Self::Conv2d(network) => network.output_bias(),
        }
    }

    /// Latent positions of one image of `height` times `width`.
    pub fn num_positions(&self, height: i64, width: i64) -> i64 {
        match self {
            Self::Conv2d(_) => (height / conv2d::REDUCTION) * (width / conv2d::REDUCTION),
        }
    }
}
