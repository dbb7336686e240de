//! The `[prior]` table.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The `[prior]` table: which model of codes, chosen by `kind`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum PriorConfig {
    /// `kind = "autoregressive"`: each token from those before it.
    Autoregressive(AutoregressiveConfig),
    /// `kind = "masked"`: hidden tokens from those that are seen, as MaskGIT.
    Masked(MaskedConfig),
}

impl Default for PriorConfig {
    fn default() -> Self {
        Self::Autoregressive(AutoregressiveConfig::default())
    }
}

/// Size and make of a transformer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkConfig {
    /// Channels of a token; 1 to 8192.
    pub width: i64,
    /// Transformer blocks; 1 to 96.
    pub layers: i64,
    /// Heads of attention, which divide the width.
    pub heads: i64,
    /// Channels within the MLP of a block; 0: 8/3 of the width in steps of 64 with `block = "llama"`, 4 times the width
    /// with `block = "gpt2"`.
    pub hidden: i64,
    /// What a block is made of.
    pub block: BlockKind,
    /// Whether queries and keys are brought to length one, up to a learned scale.
    pub qk_norm: bool,
    /// How a token knows its position.
    pub positions: Positions,
    /// Part of the numbers that are dropped behind the embedding, each attention and each MLP in training, in steps of
    /// 1/256; at least 0 and below 1.
    pub dropout: f64,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            width: 128,
            layers: 4,
            heads: 4,
            hidden: 0,
            block: BlockKind::Llama,
            qk_norm: false,
            positions: Positions::Learned,
            dropout: 0.1,
        }
    }
}

/// What a block is made of, a value of `prior.network.block`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BlockKind {
    /// Norms by the root of the mean square, SwiGLU, no biases.
    Llama,
    /// Layer norms, GELU, biases.
    Gpt2,
}

/// How a token knows its position, a value of `prior.network.positions`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Positions {
    /// A vector for each position, learned.
    Learned,
    /// Queries and keys turned by angles that grow with their place on the grid.
    Rotary,
}

/// An autoregressive prior.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AutoregressiveConfig {
    /// The transformer over tokens.
    pub network: NetworkConfig,
    /// How several levels become one sequence.
    pub levels: Levels,
    /// Blocks of the small transformer within a token or position, with `levels = "depth"` or `factors`; 1 to 96.
    pub inner_layers: i64,
    /// Bits of the parts that a code's index is split into, the highest first, for large numbers of codes, which have to
    /// be 2 to the power of their sum: `[6, 12]` for 262144. Each part has a table and a head, and is drawn given the
    /// parts before it. Empty: not split.
    pub factors: Vec<i64>,
    /// Leading tokens of the sequence that carry no loss: a condition made of codes.
    pub prefix: i64,
    /// Part of the input's tokens that are kept in training; each of the others is replaced by any code. Above 0, at
    /// most 1.
    pub keep_input: f64,
    /// Part of the samples whose class is hidden in training, for guidance; from 0 to 1. Without classes it has no
    /// effect.
    pub hide_class: f64,
    /// Part of the target that is spread over all codes; at least 0 and below 1. Evaluations have none.
    pub label_smoothing: f64,
}

impl Default for AutoregressiveConfig {
    fn default() -> Self {
        Self {
            network: NetworkConfig::default(),
            levels: Levels::Flatten,
            inner_layers: 2,
            factors: Vec::new(),
            prefix: 0,
            keep_input: 1.0,
            hide_class: 0.1,
            label_smoothing: 0.0,
        }
    }
}

/// How several levels become one sequence, a value of `prior.levels`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Levels {
    /// Token after token: all levels of a position before the next position, or, of a hierarchy, a level after the
    /// coarser one.
    Flatten,
    /// Each level one step behind the one before it, and all levels of a step at once, as in MusicGen. Needs levels on
    /// one grid.
    Delay,
    /// Position after position, and within one level after level by a small transformer, as the RQ-transformer. Needs
    /// levels on one grid.
    Depth,
}

/// A masked prior.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MaskedConfig {
    /// The transformer over tokens.
    pub network: NetworkConfig,
    /// What part of a sample is hidden in training, of a uniform r.
    pub schedule: MaskSchedule,
    /// What the loss is a mean over.
    pub weight: LossWeight,
    /// Part of the samples whose class is hidden in training, for guidance; from 0 to 1. Without classes it has no
    /// effect.
    pub hide_class: f64,
    /// Part of the target that is spread over all codes; at least 0 and below 1. Evaluations have none.
    pub label_smoothing: f64,
}

impl Default for MaskedConfig {
    fn default() -> Self {
        Self {
            network: NetworkConfig::default(),
            schedule: MaskSchedule::Cosine,
            weight: LossWeight::Token,
            hide_class: 0.1,
            label_smoothing: 0.1,
        }
    }
}

/// What part of a sample is hidden, of a uniform r: a value of `prior.schedule`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MaskSchedule {
    /// cos(pi r / 2).
    Cosine,
    /// arccos(r) / (pi / 2).
    Arccos,
    /// 1 - r.
    Linear,
    /// 1 - r^2.
    Square,
}

impl MaskSchedule {
    /// The part that is hidden.
    pub fn part(self, r: f64) -> f64 {
        match self {
            Self::Cosine => (std::f64::consts::FRAC_PI_2 * r).cos(),
            Self::Arccos => r.acos() / std::f64::consts::FRAC_PI_2,
            Self::Linear => 1.0 - r,
            Self::Square => 1.0 - r * r,
        }
    }
}

/// What the loss of a masked prior is a mean over, a value of `prior.weight`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LossWeight {
    /// All hidden tokens of the global batch.
    Token,
    /// Samples, each with the mean over its hidden tokens.
    Sample,
}

impl PriorConfig {
    /// The transformer over tokens.
    pub fn network(&self) -> &NetworkConfig {
        match self {
            Self::Autoregressive(config) => &config.network,
            Self::Masked(config) => &config.network,
        }
    }
}

impl NetworkConfig {
    /// Channels within an MLP.
    pub(super) fn hidden(&self) -> i64 {
        match (self.hidden, self.block) {
            (0, BlockKind::Llama) => (8 * self.width + 3 * 64 - 1) / (3 * 64) * 64,
            (0, BlockKind::Gpt2) => 4 * self.width,
            (hidden, _) => hidden,
        }
    }

    /// Channels of a head.
    pub(super) fn head_dim(&self) -> i64 {
        self.width / self.heads
    }
}

/// How many of 256 values of a byte drop a number.
pub(super) fn dropped(dropout: f64) -> i64 {
    (256.0 * dropout).round() as i64
}
