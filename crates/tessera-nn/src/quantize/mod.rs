//! From latents to codes.
//!
//! A [`Quantizer`] maps N latents to N outputs and their indices, and says what it has to sum over
//! ranks. It never communicates: [`Quantizer::forward`] leaves its statistics in [`Sums`], whoever
//! trains adds those over ranks, and [`Quantizer::update`] reads the sums. The same sums and the
//! same arithmetic give the same codes on every rank.
//!
//! Quantisers with codebooks are [`VectorQuantizer`] and [`SimVq`]; [`FiniteScalarQuantizer`] and
//! [`LookupFreeQuantizer`] have none. [`Residual`], [`Grouped`] and [`Projected`] are made of
//! others. An output has exactly the value of its code; its gradient goes back through a path of
//! its own ([`Quantized::path`]), whatever the estimator says.
//!
//! Shape letters: `n` tokens, `d` channels, `k` codes, `l` levels (columns of the indices).

mod config;
mod entropy;
mod first_codes;
mod fsq;
pub mod gradient;
mod grouped;
mod kmeans;
mod lfq;
mod nearest;
mod projected;
mod replace;
mod residual;
mod resize;
mod sample;
mod simvq;
mod tokens;
mod validate;
mod vector;

use std::fmt::Debug;
use std::ops::Range;

use tch::{Device, Kind, Tensor};

pub use self::config::{
    Codebook, CodebookInit, Distance, FiniteScalarConfig, GroupedConfig, LookupFreeConfig,
    QuantizerConfig, ReplaceWith, ResidualConfig, SimVqConfig, VectorConfig,
};
pub use self::fsq::{Bound, FiniteScalarQuantizer};
use self::gradient::pass_through;
pub use self::gradient::{Passage, Path};
pub use self::grouped::Grouped;
pub use self::kmeans::{Clusters, k_means};
pub use self::lfq::LookupFreeQuantizer;
pub use self::nearest::nearest_code;
pub use self::projected::Projected;
pub use self::residual::Residual;
pub use self::resize::{Codes, resize};
pub use self::simvq::SimVq;
pub use self::tokens::lay_out_tokens;
pub use self::vector::VectorQuantizer;
use crate::graph::Rule;
use crate::parameters::{Declarations, ParameterId, Parameters};
use crate::random::{Purpose, draws};

/// Lengths of what a quantiser sums over ranks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lens {
    /// How often each code was taken: the numbers of codes of all levels.
    pub counts: i64,
    /// Sums of latents, offers to dead codes.
    pub statistics: i64,
    /// What the gradient of the batch needs from all ranks before it can be computed.
    pub distribution: i64,
}

impl Lens {
    /// Those of both, one behind the other.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            counts: self.counts + other.counts,
            statistics: self.statistics + other.statistics,
            distribution: self.distribution + other.distribution,
        }
    }
}

/// Buffers for what ranks sum, each flat; zero before a forward pass adds to them.
#[derive(Debug)]
pub struct Sums {
    /// `[counts]`.
    pub counts: Tensor,
    /// `[statistics]`.
    pub statistics: Tensor,
    /// `[distribution]`.
    pub distribution: Tensor,
}

impl Sums {
    /// Zeros, for a quantiser on its own.
    pub fn zeros(lens: Lens, kind: Kind, device: Device) -> Self {
        let zeros = |len| Tensor::zeros([len], (kind, device));
        Self {
            counts: zeros(lens.counts),
            statistics: zeros(lens.statistics),
            distribution: zeros(lens.distribution),
        }
    }

    /// Counts the codes `[N]` of a quantiser of one level.
    fn count(&self, indices_n: &Tensor) {
        let ones_n = indices_n.ones_like().to_kind(self.counts.kind());
        let _ = self.counts.shallow_clone().index_add_(0, indices_n, &ones_n);
    }

    /// What the one quantiser of `num_levels` levels or groups reads: their counts together, and
    /// the statistics that all have added to.
    fn of_shared(&self, len: Lens, num_levels: i64) -> Self {
        let counts_lk = self.counts.view([num_levels, len.counts]);
        let along = [0i64];
        Self {
            counts: counts_lk.sum_dim_intlist(along.as_slice(), false, self.counts.kind()),
            ..self.part(Lens::default(), len)
        }
    }

    /// The part of a quantiser inside another one.
    #[must_use]
    pub fn part(&self, start: Lens, len: Lens) -> Self {
        Self {
            counts: self.counts.narrow(0, start.counts, len.counts),
            statistics: self.statistics.narrow(0, start.statistics, len.statistics),
            distribution: self.distribution.narrow(0, start.distribution, len.distribution),
        }
    }
}

/// Where latents stand among all tokens of a run. What is drawn at random hangs on this alone,
/// never on a rank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Optimiser step, from 0.
    pub step: u64,
    /// Tokens of the global batch.
    pub num_tokens: usize,
    /// Those that are here.
    pub mine: Range<usize>,
    /// Level of the quantiser that is asked, from 0.
    level: u64,
    /// Whether latents are offered to dead codes: by one where several levels share a codebook.
    offers: bool,
}

impl Place {
    /// The tokens `mine` of a global batch of `num_tokens`.
    pub fn new(step: u64, num_tokens: usize, mine: Range<usize>) -> Self {
        Self { step, num_tokens, mine, level: 0, offers: true }
    }

    /// Which of so many levels that share a codebook offers latents to dead codes in this step: a
    /// draw, so that codes of each level's kind come up.
    fn drawn_level(&self, seed: u64, num_levels: usize) -> usize {
        draws(seed, Purpose::Dropout, self.step, 1).below(num_levels as u64) as usize
    }

    /// The part of all tokens that is here; over ranks these add up to one.
    fn share(&self) -> f64 {
        self.mine.len() as f64 / self.num_tokens as f64
    }
}

/// A loss that needs what ranks have summed in [`Sums::distribution`].
pub type LateLoss<'a> = Box<dyn FnOnce(&Tensor) -> Tensor + 'a>;

/// Tokens after the quantiser.
pub struct Quantized<'a> {
    /// Outputs `[N, D]`, exactly the codes; without graph.
    pub output_nd: Tensor,
    /// What a gradient at the outputs goes back through.
    pub path: Path,
    /// `[N, L]` int64; -1 for a level that was left out.
    pub indices_nl: Tensor,
    /// The quantiser's losses, weighted, over the *global* number of tokens; with graph.
    pub loss: Tensor,
    /// Further losses, to be added once the distribution is summed.
    pub late: Vec<LateLoss<'a>>,
}

/// What an update did beyond moving the codes.
#[derive(Debug, Default)]
pub struct Updated {
    /// Codes that were replaced, a scalar; none where nothing was to be replaced.
    pub replaced: Option<Tensor>,
    /// Rows `[K]` (bool) of parameters that were set anew: their moments should be zero.
    pub resets: Vec<(ParameterId, Tensor)>,
}

impl Quantized<'_> {
    /// Outputs with their values and with the gradient of the path.
    pub fn output_with_path(&self) -> Tensor {
        pass_through(&self.output_nd, &self.path.graph())
    }
}

impl Updated {
    /// Takes in what another quantiser's update did.
    pub fn add(&mut self, other: Self) {
        self.replaced = match (self.replaced.take(), other.replaced) {
            (Some(ours), Some(theirs)) => Some(ours + theirs),
            (ours, theirs) => ours.or(theirs),
        };
        self.resets.extend(other.resets);
    }
}

/// A map from latents to a finite set of outputs.
pub trait Quantizer: Debug + Send {
    /// D, channels of latents and of outputs.
    fn dim(&self) -> i64;

    /// K of each level.
    fn num_codes(&self) -> Vec<i64>;

    /// Lengths of what is summed over ranks.
    fn lens(&self) -> Lens;

    /// Indices `[N, L]` int64 of the latents `[N, D]`, by the rule of an evaluation: nothing is
    /// drawn, no level left out.
    fn tokenize(&self, parameters: &Parameters, latents_nd: &Tensor) -> Tensor;

    /// Outputs `[N, D]` of these indices; a level whose index is -1 adds nothing.
    fn look_up(&self, parameters: &Parameters, indices_nl: &Tensor) -> Tensor;

    /// How it takes its codes, in numbers.
    ///
    /// # Errors
    ///
    /// Why that cannot be said.
    fn rule(&self, _parameters: &Parameters) -> Result<Rule, String> {
        Err("its quantiser has no form in a graph of common operations".to_owned())
    }

    /// Levels in a row, of which the last can be left out: 1 where there are none.
    fn num_residual_levels(&self) -> usize {
        1
    }

    /// The same indices with the levels in a row from `num_levels` on left out (-1).
    ///
    /// # Panics
    ///
    /// If `num_levels` is not from 1 to [`Self::num_residual_levels`].
    fn leave_out(&self, indices_nl: &Tensor, num_levels: usize) -> Tensor {
        assert_eq!(num_levels, 1, "one level, and it stays");
        indices_nl.shallow_clone()
    }

    /// A training pass over this rank's latents `[N, D]`, N may be 0; adds to `sums`.
    fn forward(
        &self,
        parameters: &Parameters,
        latents_nd: &Tensor,
        place: &Place,
        sums: &Sums,
    ) -> Quantized<'_>;

    /// Moves the codes, from the sums over all ranks, after the optimiser's step.
    /// Where nothing but the optimiser moves them: nothing.
    fn update(&mut self, _parameters: &Parameters, _sums: &Sums, _place: &Place) -> Updated {
        Updated::default()
    }

    /// Elements of the flat parameters that a step leaves as they are, momentum and decay included:
    /// the parameters of levels that it leaves out. In order; none where no level is.
    fn at_rest(&self, _step: u64) -> Vec<Range<i64>> {
        Vec::new()
    }

    /// Tokens of the first global batch that [`Self::initialize`] wants to see, at most.
    fn num_candidates(&self) -> usize {
        0
    }

    /// Takes first codes from latents `[C, D]`, drawn from the `num_tokens` of the first global
    /// batch in an order that is drawn too; the same rows on every rank.
    fn initialize(&mut self, _: &Parameters, _candidates_cd: &Tensor, _num_tokens: usize) {}

    /// Canonical name and tensor of all state that is no parameter, in a fixed order. Writing to
    /// the tensors restores it.
    fn state(&self) -> Vec<(String, Tensor)> {
        Vec::new()
    }
}

/// Where a quantiser sits in a model: its name, its level, and what keys its draws.
#[derive(Debug, Clone)]
pub struct Slot {
    /// In front of its tensors' names.
    pub name: String,
    /// Its first level.
    pub level: u64,
    /// Key of all its draws.
    pub seed: u64,
    /// Kind of its tensors: float32 or float64.
    pub kind: Kind,
    /// Where they are.
    pub device: Device,
}

impl Slot {
    /// The slot of a model's quantiser.
    pub fn root(seed: u64, kind: Kind, device: Device) -> Self {
        Self { name: "quantizer".into(), level: 0, seed, kind, device }
    }

    pub(crate) fn child(&self, name: &str, level: u64) -> Self {
        Self { name: format!("{}.{name}", self.name), level, ..self.clone() }
    }
}

/// Builds the quantiser that a configuration names, and declares its parameters.
///
/// # Panics
///
/// If [`QuantizerConfig::validate`] refuses the configuration.
pub fn build(config: &QuantizerConfig, slot: &Slot, to: &mut Declarations) -> Box<dyn Quantizer> {
    match config.latent_dim() {
        0 => bare(config, slot, to),
        latent_dim => Box::new(Projected::new(latent_dim, config, slot, to)),
    }
}

/// The same without projections around it.
fn bare(config: &QuantizerConfig, slot: &Slot, to: &mut Declarations) -> Box<dyn Quantizer> {
    match config {
        QuantizerConfig::Vector(config) => Box::new(VectorQuantizer::new(config, slot, to)),
        QuantizerConfig::SimVq(config) => Box::new(SimVq::new(config, slot, to)),
        QuantizerConfig::FiniteScalar(config) => Box::new(FiniteScalarQuantizer::of(config, slot)),
        QuantizerConfig::LookupFree(config) => Box::new(LookupFreeQuantizer::of(config, slot)),
        QuantizerConfig::BinarySpherical(config) => {
            Box::new(LookupFreeQuantizer::spherical(config, slot))
        }
        QuantizerConfig::Residual(config) => Box::new(Residual::new(config, slot, to)),
        QuantizerConfig::Grouped(config) => Box::new(Grouped::new(config, slot, to)),
    }
}
