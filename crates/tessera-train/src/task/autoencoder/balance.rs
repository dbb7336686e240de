//! Losses of an autoencoder's output that count by the size of their gradients there ([`tessera_nn::loss::balancer`]).
//!
//! The norms are summed over ranks in the middle of the step, so that what a loss counts is the same on all of them. The
//! averages move where the step is done, and are part of a checkpoint.

use tch::{Device, Kind, Tensor};
use tessera_nn::loss::{Balancer, BalancerConfig, norm_sum};

use super::judge::Critic;
use crate::engine::figures::Figure;
use crate::task::Loss;

/// Of each loss that is balanced the mean over samples of its gradient's norm at the decoder's output.
pub(super) const NORMS: &str = "loss_norms";

/// The losses by name, each with the name of the figure that tells what it has counted. That of the adversarial loss is among
/// the critic's.
const FIGURES: [(&str, &str); 9] = [
    ("recon_mse", "recon_mse_weight"),
    ("recon_absolute", "recon_absolute_weight"),
    ("recon_variance_scaled", "recon_variance_scaled_weight"),
    ("logit_laplace", "logit_laplace_weight"),
    ("gradient_difference", "gradient_difference_weight"),
    ("ssim_loss", "ssim_loss_weight"),
    ("ms_ssim_loss", "ms_ssim_loss_weight"),
    ("perceptual_loss", "perceptual_loss_weight"),
    ("feature_matching", "feature_matching_weight"),
];
/// The adversarial loss, as an autoencoder sees it.
const ADVERSARIAL: &str = "generator_loss";

/// The balance of an autoencoder in training.
#[derive(Debug)]
pub(super) struct Balance {
    balancer: Balancer,
    /// Those that take part: of values, then the critic's.
    losses: Vec<Loss>,
}

impl Balance {
    /// Of those losses that count, before the first step.
    pub(super) fn new(
        config: &BalancerConfig,
        losses: impl Iterator<Item = Loss>,
        device: Device,
    ) -> Self {
        let losses: Vec<Loss> = losses.filter(|loss| loss.weight > 0.0).collect();
        Self { balancer: Balancer::new(config, losses.len(), device), losses }
    }

    /// Numbers of [`NORMS`].
    pub(super) fn num_losses(&self) -> i64 {
        self.losses.len() as i64
    }

    /// What each loss is to count in a step, before any balance.
    pub(super) fn weights(&self, step: u64, critic: Option<&Critic>) -> Vec<f64> {
        let mut weights: Vec<f64> = self.losses.iter().map(|loss| loss.weight).collect();
        if let Some(critic) = critic {
            let of_critic = critic.weights(step);
            let num = if critic.matches_features() { 2 } else { 1 };
            let first = weights.len() - num;
            weights[first..].copy_from_slice(&of_critic[..num]);
        }
        weights
    }

    /// What a part adds to [`NORMS`], from the losses' gradients at the output; none: the loss does not count yet.
    pub(super) fn norms(&self, gradients: &[Option<&Tensor>], num_global: u64) -> Tensor {
        assert_eq!(gradients.len(), self.losses.len(), "each loss has a gradient");
        let like = gradients.iter().flatten().next().expect("one loss counts from the start");
        let nothing = || Tensor::zeros([0i64; 0], (like.kind(), like.device()));
        let norms = gradients.iter().map(|one| one.map_or_else(nothing, norm_sum));
        Tensor::stack(&norms.collect::<Vec<_>>(), 0) / num_global as f64
    }

    /// What the gradient of each loss counts in a step, from [`NORMS`] summed over ranks.
    pub(super) fn scales(&self, norms: &Tensor, weights: &[f64]) -> Tensor {
        self.balancer.scales(norms, weights)
    }

    /// Moves the averages; what the gradient of each loss has counted.
    pub(super) fn update(&mut self, norms: &Tensor, weights: &[f64]) -> Tensor {
        let scales = self.balancer.scales(norms, weights);
        self.balancer.update(norms, weights);
        scales
    }

    /// What the adversarial loss has counted, of the [scales](Self::update) of a step.
    pub(super) fn adversarial(&self, scales: &Tensor) -> Tensor {
        let at = self.losses.iter().position(|loss| loss.name == ADVERSARIAL);
        scales.get(at.expect("a critic brings it") as i64)
    }

    /// What a step adds to the totals: 1, and its [scales](Self::update).
    pub(super) fn numbers(&self, scales: &Tensor) -> Vec<Option<Tensor>> {
        let one = Tensor::ones([0i64; 0], (Kind::Double, scales.device()));
        let scales = (0..self.num_losses()).map(|at| scales.get(at));
        std::iter::once(one).chain(scales).map(Some).collect()
    }

    /// Numbers that it adds up over a logging interval.
    pub(super) fn num_totals(&self) -> usize {
        1 + self.losses.len()
    }

    /// The figures of an interval, from its totals: the mean of what each loss has counted.
    pub(super) fn figures(&self, totals: &[f64]) -> Vec<Figure> {
        let figure = |(loss, total): (&Loss, &f64)| {
            let (_, name) = FIGURES.iter().find(|(name, _)| *name == loss.name)?;
            Some(Figure::number(name, total / totals[0]).charted("train"))
        };
        self.losses.iter().zip(&totals[1..]).filter_map(figure).collect()
    }

    /// State that is no parameter.
    pub(super) fn state(&self) -> (String, Tensor) {
        ("balancer.norms".to_owned(), self.balancer.state())
    }
}
