//! The critic of an autoencoder, and what the two learn from one another.
//!
//! Both move in the same step, on one sum: the autoencoder's gradient is that of the critic as it was before the step, and
//! the critic's is of the very outputs that the autoencoder is judged by. Their losses are means over the global batch,
//! so neither hangs on how it is split. A critic may be several networks: each has its losses, and one mean or sum of them
//! is what is learned from.
//!
//! With an adaptive weight (Esser et al. 2021, <https://arxiv.org/abs/2012.09841>, equation 7) two gradients at the weight of
//! the decoder's last layer are summed over ranks before the rest of the backward pass goes on. Averaging a weight of each
//! rank instead would make it another one for every number of ranks.

use std::ops::Range;

use tch::{Device, Kind, Tensor};
use tessera_comm::Reducer;
use tessera_nn::Parameters;
use tessera_nn::critic::{Critic as Networks, Opinion};
use tessera_nn::loss::{feature_matching, lecam, mean_logit_sum};
use tessera_nn::parameters::Stage;

use crate::config::objective::{AdversarialConfig, LossConfig};
use crate::engine::figures::Figure;
use crate::error::TrainError;
use crate::task::{Loss, Part};

/// Mean logits of samples and of outputs, and what part of each has been told right, of each network: `[4, networks]`.
pub(super) const LOGITS: &str = "critic_logits";
/// Numbers that a critic adds up over a logging interval.
pub(super) const NUM_TOTALS: usize = 5;
/// Gradients of the other losses and of the adversarial one at the weight of the decoder's last layer.
pub(super) const LAST_LAYER: &str = "last_layer";
/// Added to the norm that is divided by, as in VQGAN.
const TINY: f64 = 1e-4;

/// A critic in training.
#[derive(Debug)]
pub(super) struct Critic {
    networks: Networks,
    pub(super) config: AdversarialConfig,
    /// What `loss.adversarial` says.
    weight: f64,
    /// What `loss.feature_matching` says.
    feature_weight: f64,
    /// Moving averages of the mean logits of samples and outputs, of each network, and of 1, by which they are divided:
    /// `[2 networks + 1]`.
    averages: Tensor,
}

/// A loss of a part that the autoencoder learns from; without graph.
#[derive(Debug)]
pub(super) struct Taught {
    /// 0 before the critic counts.
    pub(super) loss: Tensor,
    /// Its gradient at the leaf, before any weight; none before the critic counts.
    pub(super) at_leaf: Option<Tensor>,
}

/// What a critic makes of a part, for the autoencoder.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) adversarial: Taught,
    /// Where features are matched.
    pub(super) features: Option<Taught>,
    /// Of the outputs.
    pub(super) fake: Vec<Opinion>,
    /// Of the samples, where features are matched; else nobody has asked yet.
    pub(super) real: Option<Vec<Opinion>>,
}

/// What the critic itself learns of a part.
#[derive(Debug)]
pub(super) struct Learned {
    /// LeCAM's part included; without graph.
    pub(super) loss: Tensor,
    /// Gradients at the critic's leaves; not defined before it is trained.
    pub(super) at_leaves: Vec<Tensor>,
    /// What to add to [`LOGITS`], flat.
    pub(super) logits: Tensor,
}

impl Critic {
    pub(super) fn new(
        networks: Networks,
        config: &AdversarialConfig,
        loss: &LossConfig,
        like: &Tensor,
    ) -> Self {
        let num_averages = 2 * networks.num_networks() as i64 + 1;
        let averages = Tensor::zeros([num_averages], (like.kind(), like.device()));
        let (weight, feature_weight) = (loss.adversarial, loss.feature_matching);
        Self { networks, config: config.clone(), weight, feature_weight, averages }
    }

    /// The losses that it brings, in order.
    pub(super) fn losses(&self) -> Vec<Loss> {
        let (words, weight) = ("adversarial loss", self.weight);
        let mut all = vec![
            Loss { name: "generator_loss", words, weight },
            Loss { name: "critic_loss", words: "critic's loss", weight: 0.0 },
        ];
        if self.matches_features() {
            let (words, weight) = ("feature matching", self.feature_weight);
            all.push(Loss { name: "feature_matching", words, weight });
        }
        all
    }

    /// Whether features of outputs and samples are compared.
    pub(super) fn matches_features(&self) -> bool {
        self.feature_weight > 0.0
    }

    /// Numbers of [`LOGITS`].
    pub(super) fn num_logits(&self) -> i64 {
        4 * self.networks.num_networks() as i64
    }

    /// What the adversarial loss and feature matching count in a step, before any adaptive weight and any balance.
    pub(super) fn weights(&self, step: u64) -> [f64; 2] {
        let AdversarialConfig { start, warmup_steps, .. } = self.config;
        let Some(since) = step.checked_sub(start) else { return [0.0; 2] };
        let risen = match warmup_steps {
            0 => 1.0,
            steps => ((since + 1) as f64 / steps as f64).min(1.0),
        };
        [self.weight * risen, self.feature_weight * risen]
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

    /// What it makes of values `[N, C, ..]` that were made of a leaf; samples are those that they should be.
    pub(super) fn judge(
        &self,
        parameters: &Parameters,
        (leaf, values_nc): (&Tensor, &Tensor),
        samples_nc: &Tensor,
        part: &Part,
    ) -> Result<Verdict, TrainError> {
        let (num_samples, over) = (part.num_global as f64, self.config.over_critics);
        let counts = part.step >= self.config.start;
        let taught = |terms: &[Tensor]| -> Result<Taught, TrainError> {
            let loss = over.of(terms) / num_samples;
            if !counts {
                return Ok(Taught { loss: loss.detach().zeros_like(), at_leaf: None });
            }
            let mut gradients = Tensor::f_run_backward(&[&loss], &[leaf], true, false)?;
            Ok(Taught { loss: loss.detach(), at_leaf: gradients.pop() })
        };
        let fake = self.networks.judge(parameters, values_nc);
        let terms = fake.iter().map(|fake| self.config.loss.generator(&fake.logits));
        let adversarial = taught(&terms.collect::<Vec<_>>())?;
        let (mut features, mut real) = (None, None);
        if self.matches_features() {
            let seen = self.networks.judge(parameters, samples_nc);
            let pairs = fake.iter().zip(&seen);
            let terms = pairs.map(|(fake, real)| feature_matching(&fake.maps, &real.maps, over));
            features = Some(taught(&terms.collect::<Vec<_>>())?);
            real = Some(seen);
        }
        Ok(Verdict { adversarial, features, fake, real })
    }

    /// What it learns itself from what it has said of a part's outputs, and says of the samples that they should be.
    pub(super) fn learn(
        &self,
        parameters: &Parameters,
        (fake, real): (Vec<Opinion>, Option<Vec<Opinion>>),
        samples_nc: &Tensor,
        part: &Part,
    ) -> Result<Learned, TrainError> {
        let real = real.unwrap_or_else(|| self.networks.judge(parameters, samples_nc));
        let (num_samples, over) = (part.num_global as f64, self.config.over_critics);
        let pairs = || real.iter().zip(&fake).map(|(real, fake)| (&real.logits, &fake.logits));
        let terms = pairs().map(|(real, fake)| self.config.loss.critic(real, fake));
        let mut loss = over.of(&terms.collect::<Vec<_>>());
        if self.config.lecam > 0.0 {
            let averages = self.means();
            let kept_near = (0..).zip(pairs()).map(|(at, (real, fake))| {
                lecam(real, fake, &averages.get(0).get(at), &averages.get(1).get(at))
            });
            let kept_near = over.of(&kept_near.collect::<Vec<_>>());
            // Before the first step there is no average to stay near.
            loss += kept_near * self.config.lecam * self.averages.get(-1).gt(0.0);
        }
        let loss = loss / num_samples;
        let leaves = parameters.leaves_of(Stage::Critic);
        let at_leaves = match self.is_trained(part.step) {
            true => Tensor::f_run_backward(&[&loss], &leaves, false, false)?,
            false => leaves.iter().map(|_| Tensor::new()).collect(),
        };
        let share = |told: Tensor, like: &Tensor| mean_logit_sum(&told.to_kind(like.kind()));
        let (mut means, mut shares) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
        for (real, fake) in pairs() {
            let (real, fake) = (real.detach(), fake.detach());
            means[0].push(mean_logit_sum(&real));
            means[1].push(mean_logit_sum(&fake));
            shares[0].push(share(real.gt(0.0), &real));
            shares[1].push(share(fake.lt(0.0), &fake));
        }
        let logits: Vec<Tensor> = means.into_iter().chain(shares).flatten().collect();
        let logits = Tensor::stack(&logits, 0) / num_samples;
        Ok(Learned { loss: loss.detach(), at_leaves, logits })
    }

    /// The moving averages of mean logits without what they began with, `[2, networks]`.
    fn means(&self) -> Tensor {
        let (len, one) = (self.averages.size()[0] - 1, self.averages.get(-1));
        (self.averages.narrow(0, 0, len) / one.clamp_min(1e-30)).view([2, -1])
    }

    /// What the adversarial loss counts in a step, a scalar that is made on the device, so that the host waits for no copy;
    /// `last_layer` gives [`LAST_LAYER`] summed over ranks, where that is needed.
    pub(super) fn counts(
        &self,
        step: u64,
        device: Device,
        last_layer: impl FnOnce() -> Tensor,
    ) -> Tensor {
        let [weight, _] = self.weights(step);
        let weight = Tensor::full([0i64; 0], weight, (Kind::Double, device));
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
    /// logits, the share that was told right, over all networks, and what the adversarial loss has counted.
    pub(super) fn update(
        &mut self,
        step: u64,
        sums: &Reducer,
        counted: Tensor,
    ) -> [Option<Tensor>; NUM_TOTALS] {
        let logits = sums.piece(LOGITS);
        let num_networks = self.networks.num_networks() as i64;
        if self.is_trained(step) {
            let one = logits.ones_like().narrow(0, 0, 1);
            let told = Tensor::cat(&[logits.narrow(0, 0, 2 * num_networks), one], 0);
            let _ = self.averages.lerp_(&told, 1.0 - self.config.lecam_decay);
        }
        let of_networks = logits.view([4, num_networks]);
        let logits = match num_networks {
            1 => of_networks.squeeze_dim(1),
            _ => of_networks.mean_dim([1i64].as_slice(), false, of_networks.kind()),
        };
        let right = (logits.get(2) + logits.get(3)) * 0.5;
        let one = Tensor::ones([0i64; 0], (Kind::Double, logits.device()));
        [one, logits.get(0), logits.get(1), right, counted].map(Some)
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
