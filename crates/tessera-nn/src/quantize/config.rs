//! Which quantiser, how large, and with what losses. `docs/quantizers.md` says which to take.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Passage;

/// Which quantiser, chosen by `kind`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind")]
pub enum QuantizerConfig {
    /// `kind = "vector"`: a codebook, learned by moving average or by gradient.
    #[serde(rename = "vector")]
    Vector(VectorConfig),
    /// `kind = "simvq"`: a frozen codebook behind a linear layer that is learned.
    #[serde(rename = "simvq")]
    SimVq(SimVqConfig),
    /// `kind = "fsq"`: each channel rounded to a few levels.
    #[serde(rename = "fsq")]
    FiniteScalar(FiniteScalarConfig),
    /// `kind = "lfq"`: the sign of each channel.
    #[serde(rename = "lfq")]
    LookupFree(LookupFreeConfig),
    /// `kind = "bsq"`: the signs of a vector on the unit sphere.
    #[serde(rename = "bsq")]
    BinarySpherical(LookupFreeConfig),
    /// `kind = "residual"`: quantisers in a row, each on what those before it left over.
    #[serde(rename = "residual")]
    Residual(ResidualConfig),
    /// `kind = "grouped"`: quantisers side by side, each on its channels.
    #[serde(rename = "grouped")]
    Grouped(GroupedConfig),
}

impl Default for QuantizerConfig {
    fn default() -> Self {
        Self::Vector(VectorConfig::default())
    }
}

/// How a codebook is learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Codebook {
    /// Exponential moving average of the latents that take each code.
    Ema,
    /// The optimiser, from the loss |sg z - e|^2.
    Gradient,
}

/// What "nearest" means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Distance {
    /// Squared Euclidean distance.
    Euclidean,
    /// The angle: latents and codes are brought to length one first.
    Cosine,
    /// The angle, in the search alone: latents and codes keep their lengths in all else, as in DAC.
    CosineSearch,
}

/// Where the first codes come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CodebookInit {
    /// Latents of the first global batch.
    Data,
    /// Uniform in ±sqrt(6 / (K D)).
    Uniform,
    /// k-means++ and Lloyd's iterations over latents of the first global batch.
    Kmeans,
}

/// What a dead code becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReplaceWith {
    /// A latent of the global batch.
    Samples,
    /// One half of a code that is taken often.
    Split,
    /// Every code moves towards the nearest of some latents, the further the less it is taken.
    Anchors,
}

/// How a [`super::VectorQuantizer`] is sized and learned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct VectorConfig {
    /// Number of codes, K; 2 to 1,048,576.
    pub num_codes: i64,
    /// Channels per code, D; 1 to 65,536.
    pub code_dim: i64,
    /// Channels of the latents, with linear layers to and from `code_dim`, to 65,536; 0: `code_dim`,
    /// none.
    pub latent_dim: i64,
    /// How the codebook is learned.
    pub codebook: Codebook,
    /// "euclidean", "cosine" or "cosine_search".
    pub distance: Distance,
    /// Weight of the past per optimiser step, in [0, 1). 0.99 averages over about 100 steps.
    pub decay: f64,
    /// Laplace smoothing: added to every count, so that a code unseen on all ranks is never divided
    /// by zero; above 0, to 1.
    pub epsilon: f64,
    /// Weight of the commitment loss, mean |z - sg e|^2; 0 or more.
    pub commitment: f64,
    /// For a gradient codebook: `commitment` weighs |sg z - e|^2 instead, as in old VQGAN weights.
    pub legacy_commitment: bool,
    /// How the gradient passes the quantiser, see docs/numerics.md.
    pub gradient: Passage,
    /// Steps between two replacements of dead codes, see docs/numerics.md; 0: never.
    pub replace_every: u64,
    /// A code is dead when its moving count is below this times the mean count, in [0, 1].
    pub replace_below: f64,
    /// What takes their place.
    pub replace_with: ReplaceWith,
    /// The first codes.
    pub codebook_init: CodebookInit,
    /// Lloyd's iterations after k-means++, to 1000.
    pub kmeans_iterations: u64,
    /// Codes are drawn with probability exp(-distance / this) in training, with squared distances;
    /// 0: the nearest.
    pub sample_temperature: f64,
    /// Weight of the mean squared cosine between codes, 0 or more; for a gradient codebook.
    pub orthogonality: f64,
    /// Weight of the entropy loss `E[H(p)] - diversity H(E[p])`; 0: none.
    pub entropy: f64,
    /// Weight of the batch's entropy against that of each token, 0 or more.
    pub diversity: f64,
    /// Temperature of the softmax p over squared distances that the entropies are of, above 0; 0.01
    /// is that of MaskGIT and of LlamaGen.
    pub entropy_temperature: f64,
}

impl Default for VectorConfig {
    fn default() -> Self {
        Self {
            num_codes: 512,
            code_dim: 64,
            latent_dim: 0,
            codebook: Codebook::Ema,
            distance: Distance::Euclidean,
            decay: 0.99,
            epsilon: 1e-5,
            commitment: 0.25,
            legacy_commitment: false,
            gradient: Passage::StraightThrough,
            replace_every: 0,
            replace_below: 0.1,
            replace_with: ReplaceWith::Samples,
            codebook_init: CodebookInit::Data,
            kmeans_iterations: 10,
            sample_temperature: 0.0,
            orthogonality: 0.0,
            entropy: 0.0,
            diversity: 1.0,
            entropy_temperature: 0.01,
        }
    }
}

/// How a [`super::SimVq`] is sized.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SimVqConfig {
    /// Number of codes, K; 2 to 1,048,576.
    pub num_codes: i64,
    /// Channels per code, D; 1 to 65,536.
    pub code_dim: i64,
    /// Channels of the latents, with linear layers to and from `code_dim`; 0: `code_dim`, none.
    pub latent_dim: i64,
    /// Weight of |z - sg e|^2 against |sg z - e|^2; 0 or more.
    pub commitment: f64,
    /// How the gradient passes the quantiser, see docs/numerics.md.
    pub gradient: Passage,
}

impl Default for SimVqConfig {
    fn default() -> Self {
        Self {
            num_codes: 512,
            code_dim: 64,
            latent_dim: 0,
            commitment: 0.25,
            gradient: Passage::StraightThrough,
        }
    }
}

/// How a [`super::FiniteScalarQuantizer`] is sized.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FiniteScalarConfig {
    /// Levels of each channel, each at least 2; K is their product, to 1,048,576.
    pub levels: Vec<i64>,
    /// Channels of the latents, with linear layers to and from those; 0: one a level, none.
    pub latent_dim: i64,
    /// How a channel is brought into the range of its levels.
    pub bound: super::Bound,
}

impl Default for FiniteScalarConfig {
    fn default() -> Self {
        Self { levels: vec![8, 8, 8], latent_dim: 0, bound: super::Bound::Shifted }
    }
}

/// How a [`super::LookupFreeQuantizer`] is sized and trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LookupFreeConfig {
    /// Bits of a code, d, 1 to 20; K is 2^d.
    pub num_bits: i64,
    /// Most bits whose joint distribution the batch's entropy looks at, 1 to 14.
    pub group_bits: i64,
    /// Channels of the latents, with linear layers to and from the bits; 0: one a bit, none.
    pub latent_dim: i64,
    /// Weight of the commitment loss, mean |z - sg q|^2; 0 or more.
    pub commitment: f64,
    /// Weight of the entropy loss; 0: none.
    pub entropy: f64,
    /// Weight of the batch's entropy against that of each token.
    pub diversity: f64,
    /// Temperature of the softmax over corners that the entropies are of: of twice the product over
    /// this.
    pub entropy_temperature: f64,
}

impl Default for LookupFreeConfig {
    fn default() -> Self {
        Self {
            num_bits: 9,
            group_bits: 9,
            latent_dim: 0,
            commitment: 0.25,
            entropy: 0.1,
            diversity: 1.0,
            entropy_temperature: 1.0,
        }
    }
}

/// How a [`super::Residual`] is built.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ResidualConfig {
    /// Quantisers in a row, 1 to 256.
    pub num_quantizers: i64,
    /// Codes of each, where they differ; empty: as `quantizer` says.
    pub num_codes: Vec<i64>,
    /// Channels of the latents, with linear layers around all quantisers; 0: none.
    pub latent_dim: i64,
    /// Whether all use one codebook.
    pub shared_codebook: bool,
    /// Part of the steps that leave out the last quantisers, in [0, 1]; how many is drawn uniformly.
    pub dropout: f64,
    /// Quantisers that are never left out, 1 to `num_quantizers`.
    pub dropout_keep: i64,
    /// What each is: `"vector"`, `"simvq"`, `"fsq"` or `"lfq"`; the first two may have a
    /// `latent_dim` of each level.
    pub quantizer: Box<QuantizerConfig>,
}

impl Default for ResidualConfig {
    fn default() -> Self {
        Self {
            num_quantizers: 4,
            num_codes: Vec::new(),
            latent_dim: 0,
            shared_codebook: false,
            dropout: 0.0,
            dropout_keep: 1,
            quantizer: Box::default(),
        }
    }
}

/// How a [`super::Grouped`] is built.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GroupedConfig {
    /// Groups, 1 to 256; the latents have as many times the channels of `quantizer`.
    pub num_groups: i64,
    /// Channels of the latents, with linear layers around all groups; 0: none.
    pub latent_dim: i64,
    /// Whether all use one codebook: heads.
    pub shared_codebook: bool,
    /// What each group has; any kind.
    pub quantizer: Box<QuantizerConfig>,
}

impl Default for GroupedConfig {
    fn default() -> Self {
        Self { num_groups: 4, latent_dim: 0, shared_codebook: false, quantizer: Box::default() }
    }
}

impl QuantizerConfig {
    /// The vector quantiser's numbers, where it is one.
    pub fn vector(&self) -> Option<&VectorConfig> {
        match self {
            Self::Vector(config) => Some(config),
            _ => None,
        }
    }

    /// The same with the defaults for keys that nothing reads: those of the entropy loss of a
    /// codebook that has none.
    pub fn without_idle_keys(&self) -> Self {
        let mut plain = self.clone();
        match &mut plain {
            Self::Vector(config) if config.entropy == 0.0 => {
                let VectorConfig { diversity, entropy_temperature, .. } = VectorConfig::default();
                (config.diversity, config.entropy_temperature) = (diversity, entropy_temperature);
            }
            Self::Residual(config) => *config.quantizer = config.quantizer.without_idle_keys(),
            Self::Grouped(config) => *config.quantizer = config.quantizer.without_idle_keys(),
            _ => {}
        }
        plain
    }

    /// Channels of the latents where they are projected, otherwise 0.
    pub(super) fn latent_dim(&self) -> i64 {
        match self {
            Self::Vector(config) => config.latent_dim,
            Self::SimVq(config) => config.latent_dim,
            Self::FiniteScalar(config) => config.latent_dim,
            Self::LookupFree(config) | Self::BinarySpherical(config) => config.latent_dim,
            Self::Residual(config) => config.latent_dim,
            Self::Grouped(config) => config.latent_dim,
        }
    }
}

impl ResidualConfig {
    /// What the quantiser of one level is.
    pub(super) fn part(&self, level: usize) -> QuantizerConfig {
        let mut part = (*self.quantizer).clone();
        match (&mut part, self.num_codes.get(level)) {
            (QuantizerConfig::Vector(config), Some(&size)) => config.num_codes = size,
            (QuantizerConfig::SimVq(config), Some(&size)) => config.num_codes = size,
            _ => {}
        }
        part
    }
}
