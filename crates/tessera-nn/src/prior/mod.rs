//! Priors: models of the codes that a trained quantiser gives to samples, for drawing new ones and for coding them.
//!
//! | `kind` | what it predicts | after |
//! |---|---|---|
//! | `autoregressive` | each token from those before it | LlamaGen, <https://arxiv.org/abs/2406.06525> |
//! | `masked` | hidden tokens from those that are seen | MaskGIT, <https://arxiv.org/abs/2202.04200> |
//!
//! A [`Prior`] is a transformer over one flat buffer of [`Parameters`], stage [`Stage::Prior`]. Losses are sums over
//! samples, in nats, so parts of a batch add up to the whole; [`Prior::weight`] says what the sum over the global batch
//! is divided by, a pure function of the configuration and of keys. Whatever is drawn in training (hidden classes and
//! tokens, replaced tokens, dropped activations) is keyed by (seed, step, sample id), never by a place in a batch.
//! Heads start at zero, so the first loss is ln K exactly.
//!
//! Tokens of a batch are `[N, T]`, level after level ([`codes`]). How they become a sequence is the prior's affair.
//!
//! Shape letters beyond the crate's: `t` tokens of a sample, `u` units of a sequence, `w` channels of the transformer,
//! `l` rows of a transformer or levels.

mod autoregressive;
mod body;
pub mod codes;
pub mod config;
mod dropout;
mod losses;
mod masked;
pub mod sample;
mod transformer;
mod validate;
mod vocabulary;

use std::fmt::Debug;

use tch::{Device, Kind, Tensor};

pub use self::codes::{Codes, Level};
pub use self::config::PriorConfig;
pub use self::losses::TokenLosses;
use self::sample::{Request, Samples, Sampling, Walk};
use crate::cost::Cost;
use crate::layers::Scope;
use crate::parameters::{Declarations, Kinds, Parameters, Stage};
use crate::random::{Purpose, draws};
use crate::vqvae::to_device;

/// Samples as a prior sees them.
#[derive(Debug, Clone, Copy)]
pub struct TokenBatch<'a> {
    /// `[N, T]` int64 on the prior's device, level after level.
    pub tokens_nt: &'a Tensor,
    /// `[N]` int64, the class of each sample, -1: none; left out: no sample has one.
    pub classes_n: Option<&'a Tensor>,
    /// Global ids of the samples, by which draws are keyed.
    pub ids: &'a [u64],
}

/// What the draws of a training step are keyed by, besides sample ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrainingDraws {
    /// The run's seed.
    pub seed: u64,
    /// The step.
    pub step: u64,
}

/// A model of codes.
#[derive(Debug)]
pub struct Prior {
    /// What it is a model of.
    pub codes: Codes,
    /// All its trainable tensors.
    pub parameters: Parameters,
    scheme: Box<dyn Scheme>,
}

impl Prior {
    /// A prior of such codes, for which the configuration is [valid](PriorConfig::validate), with the initial values
    /// that `seed` stands for.
    pub fn new(
        config: &PriorConfig,
        codes: &Codes,
        seed: u64,
        kinds: Kinds,
        device: Device,
    ) -> Self {
        let mut to = Declarations::default();
        let scope = Scope::new(Stage::Prior, "prior");
        let options = (kinds.compute, device);
        let scheme: Box<dyn Scheme> = match config {
            PriorConfig::Autoregressive(config) => Box::new(autoregressive::Autoregressive::new(
                config, codes, &mut to, &scope, options,
            )),
            PriorConfig::Masked(config) => {
                Box::new(masked::Masked::new(config, codes, &mut to, &scope, options))
            }
        };
        Self { codes: codes.clone(), parameters: to.allocate(seed, kinds, device), scheme }
    }

    /// Losses of a part of a step's batch, in training: with a graph, and with all that is drawn.
    pub fn losses(&self, batch: &TokenBatch<'_>, by: TrainingDraws) -> TokenLosses {
        self.scheme.losses(&self.parameters, batch, by)
    }

    /// What the sum of the losses of these samples is divided by: the tokens that carry a loss in this step, or samples
    /// where the configuration weighs by them.
    pub fn weight(&self, ids: &[u64], by: TrainingDraws) -> f64 {
        self.scheme.weight(ids, by)
    }

    /// Nats of each token, `[N, T]` float64, without a graph and without anything dropped. Of an autoregressive prior
    /// these are -log p of the token given those before it. Of a masked one they are an estimate of a bound: tokens that
    /// are hidden in an evaluation, which is keyed by `seed` and sample id alone, count T / n times, n being their number,
    /// and all others 0.
    pub fn nats(&self, batch: &TokenBatch<'_>, seed: u64) -> Tensor {
        tch::no_grad(|| self.scheme.nats(&self.parameters, batch, seed))
    }

    /// Nats of each token that is hidden, `[N, T]` float64, without a graph: -ln p of it given all that are not hidden, of
    /// which the nats are 0. None of an autoregressive prior, which sees nothing but what comes before.
    ///
    /// * `is_hidden_nt`: `[N, T]` bool, on the prior's device.
    pub fn nats_of_hidden(&self, batch: &TokenBatch<'_>, is_hidden_nt: &Tensor) -> Option<Tensor> {
        tch::no_grad(|| self.scheme.nats_of_hidden(&self.parameters, batch, is_hidden_nt))
    }

    /// Whether each token can carry a loss, level after level.
    pub fn carries_loss(&self) -> Vec<bool> {
        self.scheme.carries_loss()
    }

    /// What a forward pass of a sample costs; of a masked prior, with some of its tokens hidden.
    pub fn cost(&self) -> Cost {
        let tokens_nt = Tensor::zeros([1, self.codes.num_tokens()], (Kind::Int64, self.device()));
        let batch = TokenBatch { tokens_nt: &tokens_nt, classes_n: None, ids: &[0] };
        Cost::of(|| drop(self.nats(&batch, 0)))
    }

    /// Where the prior is.
    pub fn device(&self) -> Device {
        self.parameters.flat().device()
    }
}

/// How tokens become losses and samples: what kinds of priors differ in.
trait Scheme: Debug + Send {
    /// As [`Prior::losses`].
    fn losses(
        &self,
        parameters: &Parameters,
        batch: &TokenBatch<'_>,
        by: TrainingDraws,
    ) -> TokenLosses;

    /// As [`Prior::weight`].
    fn weight(&self, ids: &[u64], by: TrainingDraws) -> f64;

    /// As [`Prior::nats`].
    fn nats(&self, parameters: &Parameters, batch: &TokenBatch<'_>, seed: u64) -> Tensor;

    /// As [`Prior::nats_of_hidden`].
    fn nats_of_hidden(
        &self,
        parameters: &Parameters,
        batch: &TokenBatch<'_>,
        is_hidden_nt: &Tensor,
    ) -> Option<Tensor>;

    /// As [`Prior::carries_loss`].
    fn carries_loss(&self) -> Vec<bool>;

    /// As [`Prior::sample`].
    fn sample(
        &self,
        parameters: &Parameters,
        sampling: &Sampling,
        request: &Request<'_>,
    ) -> Samples;

    /// As [`Prior::walk`].
    fn walk(
        &self,
        parameters: &Parameters,
        request: &Request<'_>,
        walk: Walk<'_>,
    ) -> Option<Samples>;

    /// How many numbers a code is drawn by.
    fn num_parts(&self) -> usize;

    /// Refuses given tokens of a sample, -1 where there is none, that it cannot draw the others of.
    fn check_known(&self, known_t: &[i64]) -> Result<(), String>;
}

/// Rows of the class table, of which `none` stands for no class, `[N]` on `device`. In training each class is hidden
/// with this probability.
fn class_rows(
    batch: &TokenBatch<'_>,
    none: i64,
    hidden: Option<(f64, TrainingDraws)>,
    device: Device,
) -> Tensor {
    let num = batch.ids.len() as i64;
    let Some(classes_n) = batch.classes_n.filter(|_| none > 0) else {
        return Tensor::full([num], none, (Kind::Int64, device));
    };
    let classes_n = classes_n.to_device(device);
    let mut is_hidden_n = classes_n.lt(0);
    if let Some((part, by)) = hidden {
        let is_hidden = |&id: &u64| draws(by.seed, Purpose::HiddenClass, by.step, id).unit() < part;
        let drawn: Vec<bool> = batch.ids.iter().map(is_hidden).collect();
        is_hidden_n = is_hidden_n.logical_or(&to_device(Tensor::from_slice(&drawn), device));
    }
    classes_n.masked_fill(&is_hidden_n, none)
}
