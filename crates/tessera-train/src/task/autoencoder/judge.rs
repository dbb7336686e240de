//! The critic of an autoencoder, and what the two learn from one another.
//!
//! Both move in the same step, on one sum: the autoencoder's gradient is that of the critic as it was before the step, and
//! the critic's is of the very outputs that the autoencoder is judged by. Their losses are means over the global batch,
//! so neither hangs on how it is split.
//!
//! With an adaptive weight (Esser et al. 2021, <https://arxiv.org/abs/2012.09841>, equation 7) two gradients at the weight of
//! the decoder's last layer are summed over ranks before the rest of the backward pass goes on. Averaging a weight of each
//! rank instead would make it another one for every number of ranks.

use std::ops::Range;

use tch::{Device, Kind, Tensor};
use tessera_comm::Reducer;
use tessera_nn::Parameters;
use tessera_nn::chain::{Block, Chain};
use tessera_nn::loss::{lecam, mean_logit_sum};
use tessera_nn::parameters::Stage;

use crate::config::objective::AdversarialConfig;
use crate::engine::figures::Figure;
use crate::error::TrainError;
use crate::task::{Loss, Part};

/// Mean logits of samples and of outputs, and what part of each the critic has told right.
pub(super) const LOGITS: &str = "critic_logits";
/// Numbers that a critic adds up over a logging interval.
pub(super) const NUM_TOTALS: usize = 5;
/// Numbers of [`LOGITS`].
pub(super) const NUM_LOGITS: i64 = 4;
/// Gradients of the other losses and of the adversarial one at the weight of the decoder's last layer.
pub(super) const LAST_LAYER: &str = "last_layer";
/// Added to the norm that is divided by, as in VQGAN.
const TINY: f64 = 1e-4;

/// A critic in training.
#[derive(Debug)]
pub(super) struct Critic {
    chain: Chain,
    pub(super) config: AdversarialConfig,
    /// What `loss.adversarial` says.
    weight: f64,
    /// Moving averages of the mean logits of samples and outputs, and of 1, by which they are divided, `[3]`.
    averages: Tensor,
}

/// What a critic says of a part.
pub(super) struct Verdict {
    /// The autoencoder's loss; 0 before the critic counts. Without graph.
    pub(super) generator_loss: Tensor,
    /// Its gradient at the leaf, before any weight; none before the critic counts.
    pub(super) at_leaf: Option<Tensor>,
    /// The critic's loss, LeCAM's part included; without graph.
    pub(super) critic_loss: Tensor,
    /// Gradients at the critic's leaves; not defined before it is trained.
    pub(super) at_critic: Vec<Tensor>,
    /// What to add to [`LOGITS`].
    pub(super) logits: Tensor,
}

impl Critic {
    pub(super) fn new(
        chain: Chain,
        config: &AdversarialConfig,
        weight: f64,
        like: &Tensor,
    ) -> Self {
        let averages = Tensor::zeros([3], (like.kind(), like.device()));
        Self { chain, config: config.clone(), weight, averages }
    }

    /// The losses that it brings, in order.
    pub(super) fn losses(&self) -> [Loss; 2] {
        [
            Loss { name: "generator_loss", words: "adversarial loss", weight: self.weight },
            Loss { name: "critic_loss", words: "critic's loss", weight: 0.0 },
        ]
    }

    /// What the adversarial loss counts in a step, before any adaptive weight.
    fn weight(&self, step: u64) -> f64 {
        let AdversarialConfig { start, warmup_steps, .. } = self.config;
        let Some(since) = step.checked_sub(start) else { return 0.0 };
        let risen = match warmup_steps {
            0 => 1.0,
            steps => ((since + 1) as f64 / steps as f64).min(1.0),
        };
        self.weight * risen
    }

    /// Whether two gradients have to be compared in this step.
    pub(super) fn adapts(&self, step: u64) -> bool {
        self.config.adaptive && step >= self.config.start
    }

    /// Whether it is trained in this step.
    pub(super) fn is_trained(&self, step: u64) -> bool {
        step >= self.config.critic_start
    }

    /// Elements of the flat parameters that rest in this step.
    pub(super) fn at_rest(&self, step: u64, parameters: &Parameters) -> Option<Range<i64>> {
        if self.is_trained(step) {
            return None;
        }
        let mut own = parameters.trained().into_iter().filter(|own| own.stage == Stage::Critic);
        let first = own.next()?;
        let end = own.next_back().map_or(first.range.end, |last| last.range.end);
        Some(first.range.start..end)
    }

    /// The logits of values `[N, C, ..]` that were made of a leaf, the autoencoder's loss, without graph, and its gradient at
    /// the leaf where it counts in this step.
    pub(super) fn judge(
        &self,
        parameters: &Parameters,
        (leaf, values_nc): (&Tensor, &Tensor),
        part: &Part,
    ) -> Result<(Tensor, Tensor, Option<Tensor>), TrainError> {
        let fake = self.chain.forward(parameters, values_nc);
        let loss = self.config.loss.generator(&fake) / part.num_global as f64;
        if part.step < self.config.start {
            let nothing = loss.detach().zeros_like();
            return Ok((fake, nothing, None));
        }
        let mut gradients = Tensor::f_run_backward(&[&loss], &[leaf], true, false)?;
        Ok((fake, loss.detach(), gradients.pop()))
    }

    /// All that the critic says of values that were made of a leaf, and of the samples they should be.
    pub(super) fn verdict(
        &self,
        parameters: &Parameters,
        made: (&Tensor, &Tensor),
        samples_nc: &Tensor,
        part: &Part,
    ) -> Result<Verdict, TrainError> {
        let (fake, generator_loss, at_leaf) = self.judge(parameters, made, part)?;
        let real = self.chain.forward(parameters, samples_nc);
        let num_samples = part.num_global as f64;
        let mut loss = self.config.loss.critic(&real, &fake);
        if self.config.lecam > 0.0 {
            let [ema_real, ema_fake] = [0, 1].map(|at| self.average(at));
            let kept_near = lecam(&real, &fake, &ema_real, &ema_fake);
            // Before the first step there is no average to stay near.
            loss += kept_near * self.config.lecam * self.averages.get(2).gt(0.0);
        }
        let loss = loss / num_samples;
        let leaves = parameters.leaves_of(Stage::Critic);
        let at_critic = match self.is_trained(part.step) {
            true => Tensor::f_run_backward(&[&loss], &leaves, false, false)?,
            false => leaves.iter().map(|_| Tensor::new()).collect(),
        };
        let (real, fake) = (real.detach(), fake.detach());
        let share = |told: Tensor| mean_logit_sum(&told.to_kind(real.kind()));
        let logits = [
            mean_logit_sum(&real),
            mean_logit_sum(&fake),
            share(real.gt(0.0)),
            share(fake.lt(0.0)),
        ];
        let logits = Tensor::stack(&logits, 0) / num_samples;
        let critic_loss = loss.detach();
        Ok(Verdict { generator_loss, at_leaf, critic_loss, at_critic, logits })
    }

    /// A moving average, without what it began with.
    fn average(&self, at: i64) -> Tensor {
        self.averages.get(at) / self.averages.get(2).clamp_min(1e-30)
    }

    /// What the adversarial loss counts in a step, a scalar that is made on the device, so that the host waits for no copy;
    /// `last_layer` gives [`LAST_LAYER`] summed over ranks, where that is needed.
    pub(super) fn counts(
        &self,
        step: u64,
        device: Device,
        last_layer: impl FnOnce() -> Tensor,
    ) -> Tensor {
        let weight = Tensor::full([0i64; 0], self.weight(step), (Kind::Double, device));
        match self.adapts(step) {
            true => weight * self.quotient(&last_layer()),
            false => weight,
        }
    }

    /// The quotient of two gradients' norms, from [`LAST_LAYER`] summed over ranks; a scalar.
    fn quotient(&self, last_layer: &Tensor) -> Tensor {
        let both = last_layer.view([2, -1]).to_kind(Kind::Double);
        let [others, adversarial] = [0, 1].map(|at| both.get(at).norm());
        (others / (adversarial + TINY)).clamp(0.0, self.config.adaptive_most)
    }

    /// Moves the averages by the mean logits of the global batch. What the step adds to the totals: steps, the mean
    /// logits, the share that was told right, what the adversarial loss counted.
    pub(super) fn update(&mut self, step: u64, sums: &Reducer) -> [Option<Tensor>; NUM_TOTALS] {
        let logits = sums.piece(LOGITS);
        if self.is_trained(step) {
            let one = logits.ones_like().narrow(0, 0, 1);
            let told = Tensor::cat(&[logits.narrow(0, 0, 2), one], 0);
            let _ = self.averages.lerp_(&told, 1.0 - self.config.lecam_decay);
        }
        let weight = self.counts(step, logits.device(), || sums.piece(LAST_LAYER));
        let right = (logits.get(2) + logits.get(3)) * 0.5;
        let one = Tensor::ones([0i64; 0], (Kind::Double, logits.device()));
        [one, logits.get(0), logits.get(1), right, weight].map(Some)
    }

    /// The figures of an interval, from its [totals](Self::update).
    pub(super) fn figures(&self, totals: &[f64]) -> Vec<Figure> {
        let names =
            ["critic_logit_real", "critic_logit_fake", "critic_accuracy", "adversarial_weight"];
        let mean = |(name, total): (&'static str, &f64)| {
            Figure::number(name, total / totals[0]).charted("train")
        };
        names.into_iter().zip(&totals[1..]).map(mean).collect()
    }

    /// State that is no parameter.
    pub(super) fn state(&self) -> (String, Tensor) {
        ("critic.mean_logits".to_owned(), self.averages.shallow_clone())
    }
}
