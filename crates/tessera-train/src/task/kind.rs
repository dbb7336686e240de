//! The kinds of tasks, as a configuration names them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tessera_nn::parameters::Stage;

/// What is trained, a value of `task`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TaskKind {
    /// Encoder, quantiser and decoder, to make inputs anew.
    #[default]
    Autoencoder,
    /// A small head on features, to find the class of a sample: `[probe]` says which.
    Probe,
    /// A model of tokens, to generate through: `[prior]` says which.
    Prior,
}

impl TaskKind {
    /// The stages that it can train: the groups of its parameters.
    pub fn stages(self) -> &'static [Stage] {
        match self {
            Self::Autoencoder => &[Stage::Quantizer, Stage::Encoder, Stage::Decoder],
            Self::Probe => &[Stage::Head],
            Self::Prior => &[Stage::Prior],
        }
    }

    /// The parts that its checkpoints hold, and that it can begin from.
    pub(crate) fn parts(self) -> &'static [Stage] {
        match self {
            Self::Autoencoder | Self::Prior => self.stages(),
            Self::Probe => &[Stage::Quantizer, Stage::Encoder, Stage::Decoder, Stage::Head],
        }
    }

    /// Whether it reads labels, where samples have some.
    pub fn wants_labels(self) -> bool {
        self != Self::Autoencoder
    }
}
