//! Networks that tell outputs from targets, to be trained against the decoder.
//!
//! A critic is a [`Chain`] of its own, stage [`Stage::Critic`](crate::parameters::Stage::Critic),
//! with names that begin with `critic.`; what is learned from its logits is in
//! [`crate::loss::adversarial`].
//!
//! There is no batch norm, though the original PatchGAN has it. Its statistics are those of the part
//! of a batch that a rank has, so a run on two ranks is another one than on one; no split of a batch
//! into micro-batches gives them either. It hides what a critic should see as well: real and fake
//! samples come in separate batches, each is brought to the same mean and variance, and a fake with
//! half the contrast has logits with the same spread. Group norm is over one sample and exact.

mod patch;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::patch::{PatchConfig, PatchNorm};
use crate::chain::Chain;
use crate::parameters::Declarations;
use crate::signal::Signal;

/// Which critic, chosen by `kind`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum CriticConfig {
    /// `kind = "patch"`: a logit for each patch of a picture or a clip of film.
    Patch(PatchConfig),
}

impl Default for CriticConfig {
    fn default() -> Self {
        Self::Patch(PatchConfig::default())
    }
}

impl CriticConfig {
    /// What is wrong with the values for samples of `signal`, if anything. Keys are named from
    /// `critic.` on.
    ///
    /// # Errors
    ///
    /// One line that names the key and says what it may be.
    pub fn validate(&self, signal: &Signal) -> Result<(), String> {
        match self {
            Self::Patch(config) => config.validate(signal),
        }
    }

    /// Declares the parameters of a critic of samples of `signal`. The chain takes them, `[N, C, ..]`, to logits
    /// `[N, 1, ..]`.
    pub fn build(&self, signal: &Signal, to: &mut Declarations) -> Chain {
        match self {
            Self::Patch(config) => config.build(signal, to),
        }
    }
}
