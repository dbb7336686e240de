//! Words that a training, a run's checkpoints and a model folder have in common.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::Kind;
use tessera_nn::Kinds;

/// Which weights are for use: to be evaluated, shown, and to begin another training from; a value of `eval.weights`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Weights {
    /// The moving average, where `train.ema_decay` makes one; else those of the last step.
    #[default]
    Average,
    /// Those of the last step.
    Trained,
}

impl std::str::FromStr for Weights {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "average" => Ok(Self::Average),
            "trained" => Ok(Self::Trained),
            _ => Err(format!("expected 'average' or 'trained', found '{text}'")),
        }
    }
}

/// Kinds of parameters and activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// float32.
    Fp32,
    /// float64, for tests of exactness.
    Fp64,
    /// bfloat16 in the layers; parameters, quantiser, statistics and losses in float32.
    Bf16,
}

impl Precision {
    /// libtorch's names for them.
    pub fn kinds(self) -> Kinds {
        match self {
            Self::Fp32 => Kinds::same(Kind::Float),
            Self::Fp64 => Kinds::same(Kind::Double),
            Self::Bf16 => Kinds { master: Kind::Float, compute: Kind::BFloat16 },
        }
    }
}

/// Which checkpoint of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The newest one whose hashes hold.
    Latest,
    /// That of this step.
    Step(u64),
}

impl std::str::FromStr for Which {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "latest" => Ok(Self::Latest),
            step => step
                .parse()
                .map(Self::Step)
                .map_err(|_| format!("expected 'latest' or a step, found '{step}'")),
        }
    }
}
