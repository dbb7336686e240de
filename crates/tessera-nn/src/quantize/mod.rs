//! From latents to codes.

mod ema;
mod fsq;
mod gradient;
mod lfq;
mod nearest;

use serde::{Deserialize, Serialize};

pub use self::ema::{VectorQuantizer, lay_out_tokens};
pub use self::fsq::{FiniteScalarCodes, FiniteScalarQuantizer};
pub use self::gradient::Passage;
pub use self::lfq::LookupFreeQuantizer;
pub use self::nearest::nearest_code;

/// Which quantiser, chosen by `kind`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum QuantizerConfig {
    /// `kind = "ema"`: vector quantiser whose codebook is a moving average.
    Ema(EmaConfig),
}

impl Default for QuantizerConfig {
    fn default() -> Self {
        Self::Ema(EmaConfig::default())
    }
}

/// Where the first codes come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CodebookInit {
    /// Latents of the first global batch, the same for every number of ranks.
    Data,
    /// Uniform in ±sqrt(6 / (K D)).
    Uniform,
}

/// How a [`VectorQuantizer`] is sized and updated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EmaConfig {
    /// Number of codes, K; at least 2.
    pub num_codes: i64,
    /// Channels per code, D.
    pub code_dim: i64,
    /// Weight of the past per optimiser step, in [0, 1). 0.99 averages over about 100 steps.
    pub decay: f64,
    /// Added to every count so that a code unseen on all ranks is never divided by zero.
    pub epsilon: f64,
    /// Weight of the commitment loss, mean |z - sg e|^2; 0 or more.
    pub commitment: f64,
    /// How the gradient passes the quantiser: "straight_through", or "rotation".
    pub gradient: Passage,
    /// Steps between two replacements of dead codes by latents of the batch; 0: never.
    pub replace_every: u64,
    /// A code is dead when its moving count is below this times the mean count, in [0, 1].
    pub replace_below: f64,
    /// "data": codes start as latents of the first global batch; "uniform": as random numbers.
    pub codebook_init: CodebookInit,
}

impl Default for EmaConfig {
    fn default() -> Self {
        Self {
            num_codes: 512,
            code_dim: 64,
            decay: 0.99,
            epsilon: 1e-5,
            commitment: 0.25,
            gradient: Passage::StraightThrough,
            replace_every: 0,
            replace_below: 0.1,
            codebook_init: CodebookInit::Data,
        }
    }
}

impl QuantizerConfig {
    /// The numbers of the vector quantiser.
    pub fn ema(&self) -> &EmaConfig {
        let Self::Ema(config) = self;
        config
    }

    /// What is wrong with the values, if anything.
    ///
    /// # Errors
    ///
    /// One line that names the key and says what it may be.
    pub fn validate(&self) -> Result<(), String> {
        let config = self.ema();
        let checks = [
            (
                (2..=1 << 24).contains(&config.num_codes),
                "num_codes should be from 2 to 16777216",
                config.num_codes as f64,
            ),
            (
                (1..=65_536).contains(&config.code_dim),
                "code_dim should be from 1 to 65536",
                config.code_dim as f64,
            ),
            (
                (0.0..1.0).contains(&config.decay),
                "decay should be at least 0 and below 1",
                config.decay,
            ),
            (
                config.epsilon > 0.0 && config.epsilon <= 1.0,
                "epsilon should be above 0 and at most 1",
                config.epsilon,
            ),
            (
                (0.0..=1.0).contains(&config.replace_below),
                "replace_below should be from 0 to 1",
                config.replace_below,
            ),
            (
                config.commitment >= 0.0 && config.commitment.is_finite(),
                "commitment should be 0 or more",
                config.commitment,
            ),
        ];
        for (holds, rule, found) in checks {
            if !holds {
                return Err(format!("model.quantizer.{rule}, found {found}"));
            }
        }
        Ok(())
    }
}
