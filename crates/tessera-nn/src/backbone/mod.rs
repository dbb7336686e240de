//! The networks around the quantiser, one file each.

mod conv2d;
mod dense;

use std::fmt::Debug;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::Tensor;

pub use self::conv2d::{Conv2d, Conv2dConfig};
pub use self::dense::{Dense, DenseConfig};
use crate::chain::Chain;
use crate::parameters::{Declarations, Parameters};
use crate::signal::Signal;

/// Which encoder and decoder, chosen by `kind`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum BackboneConfig {
    /// `kind = "conv2d"`: strided convolutions and residual blocks, for images.
    Conv2d(Conv2dConfig),
    /// `kind = "dense"`: two linear layers on each side, for images, sound and video.
    Dense(DenseConfig),
}

impl Default for BackboneConfig {
    fn default() -> Self {
        Self::Conv2d(Conv2dConfig::default())
    }
}

impl BackboneConfig {
    /// What is wrong with the values for samples of `signal`, if anything.
    ///
    /// # Errors
    ///
    /// One line that names the key and says what it may be.
    pub fn validate(&self, signal: &Signal) -> Result<(), String> {
        match self {
            Self::Conv2d(config) => config.validate(signal),
            Self::Dense(config) => config.validate(signal),
        }
    }

    /// Declares the network's parameters, the encoder's first, for samples of `signal` and codes
    /// of `dim` channels.
    pub fn build(&self, signal: &Signal, dim: i64, to: &mut Declarations) -> Box<dyn Backbone> {
        match self {
            Self::Conv2d(config) => Box::new(Conv2d::new(config, signal.channels(), dim, to)),
            Self::Dense(config) => Box::new(Dense::new(config, signal, dim, to)),
        }
    }
}

/// An encoder and a decoder, without what is between them.
///
/// Both compute in the kind of their parameters; casts are the caller's.
pub trait Backbone: Debug + Send {
    /// Samples `[N, C, ..]` to latents `[N, D, ..]`, channels-last in memory.
    fn encoder(&self) -> &Chain;

    /// Quantised latents `[N, D, ..]` to samples `[N, C, ..]`.
    fn decoder(&self) -> &Chain;

    /// Sizes of the positional axes of the latents of one sample.
    fn latent_axes(&self, signal: &Signal) -> Vec<i64>;

    /// Lets the output start at `means_c`, the mean of each channel `[C]`, by its bias in the
    /// master parameters, which the caller refreshes.
    fn set_output_mean(&self, parameters: &Parameters, means_c: &Tensor);
}
