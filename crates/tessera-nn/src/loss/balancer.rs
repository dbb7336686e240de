//! Losses that count by the size of their gradients at the decoder's output, not by their own.
//!
//! Follows Defossez et al. 2022 (<https://arxiv.org/abs/2210.13438>), section 3.4, in the form of
//! AudioCraft. With g_i the gradient of loss i at the output and w_i its weight, the output gets
//!
//! sum_i T w_i / (sum_j w_j) g_i / (1e-12 + avg n_i),   n_i = mean over samples of |g_i of the sample|
//!
//! where avg is a moving average over steps, this one included, without what it began with. So of each
//! sample's gradient a share w_i / sum w comes from loss i, whatever the scale of its values, and all
//! of it has a norm of about T at most.
//!
//! The n_i are sums over samples over a global count, so ranks add theirs up: the caller does, between
//! [`norm_sum`] and [`Balancer::scales`]. Losses are means over the global batch, and g_i of a
//! sample is its part of that. AudioCraft's is of a mean over a rank's samples, and then averaged over ranks: there
//! the gradient is a W-th on W ranks of what it is on one.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

/// Keeps the quotient finite where a gradient is 0.
const EPSILON: f64 = 1e-12;

/// How losses are balanced.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BalancerConfig {
    /// Decay of the moving averages of the gradients' norms, in [0, 1): 0.999 averages over about 1000
    /// steps, and over all there were until then.
    pub decay: f64,
    /// Norm that a sample's gradient at the output has at most, but for the averaging, above 0. The gradient of a parameter is
    /// the sum over samples, so it grows with `train.global_batch`.
    pub total_norm: f64,
}

impl Default for BalancerConfig {
    fn default() -> Self {
        Self { decay: 0.999, total_norm: 1.0 }
    }
}

impl BalancerConfig {
    /// What is wrong with the values, if anything. Keys are named from `balancer.` on.
    ///
    /// # Errors
    ///
    /// One line that names the key and says what it may be.
    pub fn validate(&self) -> Result<(), String> {
        let Self { decay, total_norm } = *self;
        if !(0.0..1.0).contains(&decay) {
            return Err(format!("balancer.decay should be at least 0 and below 1, found {decay}"));
        }
        if !(total_norm > 0.0 && total_norm.is_finite()) {
            return Err(format!("balancer.total_norm should be above 0, found {total_norm}"));
        }
        Ok(())
    }
}

/// Moving averages of the norms of losses' gradients, and what follows from them.
#[derive(Debug)]
pub struct Balancer {
    config: BalancerConfig,
    /// Decayed sums of norms and of ones, by which they are divided, `[2, losses]`, float64.
    sums: Tensor,
}

impl Balancer {
    /// Of so many losses, before the first step.
    pub fn new(config: &BalancerConfig, num_losses: usize, device: Device) -> Self {
        let sums = Tensor::zeros([2, num_losses as i64], (Kind::Double, device));
        Self { config: config.clone(), sums }
    }

    /// What the gradient of each loss counts in this step, `[losses]`, float64.
    ///
    /// * `norms`: the n_i of this step, over all ranks, `[losses]`.
    /// * `weights`: the w_i of this step. A loss of weight 0 takes no part, in the averages neither.
    ///
    /// # Panics
    ///
    /// If there are not as many of them as losses.
    pub fn scales(&self, norms: &Tensor, weights: &[f64]) -> Tensor {
        let sums = self.moved(norms, weights);
        let averages = sums.get(0) / sums.get(1).clamp_min(EPSILON);
        let total: f64 = weights.iter().sum();
        let share = |weight: &f64| {
            if *weight > 0.0 { self.config.total_norm * weight / total } else { 0.0 }
        };
        let shares: Vec<f64> = weights.iter().map(share).collect();
        Tensor::from_slice(&shares).to_device(sums.device()) / (averages + EPSILON)
    }

    /// Moves the averages, after a step with these norms and weights.
    ///
    /// # Panics
    ///
    /// Those of [`Self::scales`].
    pub fn update(&mut self, norms: &Tensor, weights: &[f64]) {
        let moved = self.moved(norms, weights);
        self.sums.copy_(&moved);
    }

    /// The averages' state, `[2, losses]`, float64.
    pub fn state(&self) -> Tensor {
        self.sums.shallow_clone()
    }

    fn moved(&self, norms: &Tensor, weights: &[f64]) -> Tensor {
        let num_losses = self.sums.size()[1];
        assert_eq!((weights.len() as i64, norms.size()), (num_losses, vec![num_losses]));
        let norms = norms.to_kind(Kind::Double);
        let moved =
            &self.sums * self.config.decay + Tensor::stack(&[&norms, &norms.ones_like()], 0);
        let counts: Vec<bool> = weights.iter().map(|weight| *weight > 0.0).collect();
        let counts = Tensor::from_slice(&counts).to_device(self.sums.device());
        moved.where_self(&counts, &self.sums)
    }
}

/// Sum over samples of the norm of a sample's gradient `[N, ..]`, a scalar; 0 without samples.
pub fn norm_sum(gradient: &Tensor) -> Tensor {
    let axes: Vec<i64> = (1..gradient.dim() as i64).collect();
    gradient.norm_scalaropt_dim(2.0, axes.as_slice(), false).sum(gradient.kind())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(tensor: &Tensor) -> Vec<f64> {
        Vec::try_from(tensor).unwrap()
    }

    /// By hand, decay 0.5 and norms (4, 1), then (8, 3): the averages are (4, 1) and (0.5 x 4 + 8, 0.5 + 3) / 1.5.
    /// Weights 3 and 1 of a total of 2 are shares of 1.5 and 0.5.
    #[test]
    fn scales_follow_from_debiased_averages() {
        let config = BalancerConfig { decay: 0.5, total_norm: 2.0 };
        let mut balancer = Balancer::new(&config, 2, Device::Cpu);
        let weights = [3.0, 1.0];
        let norms = Tensor::from_slice(&[4.0, 1.0]);
        assert_eq!(
            numbers(&balancer.scales(&norms, &weights)),
            [1.5 / (4.0 + EPSILON), 0.5 / (1.0 + EPSILON)]
        );
        balancer.update(&norms, &weights);
        let found = numbers(&balancer.scales(&Tensor::from_slice(&[8.0, 3.0]), &weights));
        let expected = [1.5 / (10.0 / 1.5), 0.5 / (3.5 / 1.5)];
        assert!(
            found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-11)
        );
    }

    /// By hand: a loss that joins in the second step has its own norm of that step for an average.
    #[test]
    fn a_loss_that_does_not_count_yet_is_not_averaged() {
        let mut balancer = Balancer::new(&BalancerConfig::default(), 2, Device::Cpu);
        let norms = Tensor::from_slice(&[2.0, 100.0]);
        assert_eq!(numbers(&balancer.scales(&norms, &[1.0, 0.0])), [1.0 / (2.0 + EPSILON), 0.0]);
        balancer.update(&norms, &[1.0, 0.0]);
        assert_eq!(numbers(&balancer.state().flatten(0, 1)), [2.0, 0.0, 1.0, 0.0]);
        let found = numbers(&balancer.scales(&Tensor::from_slice(&[2.0, 5.0]), &[1.0, 1.0]));
        assert!((found[0] - 0.25).abs() < 1e-12 && (found[1] - 0.1).abs() < 1e-12, "{found:?}");
    }

    #[test]
    fn norms_are_summed_over_samples() {
        let gradient = Tensor::from_slice(&[3.0, 4.0, 0.0, 5.0]).view([2, 1, 2]);
        assert_eq!(norm_sum(&gradient).double_value(&[]), 10.0);
        assert_eq!(norm_sum(&gradient.narrow(0, 0, 0)).double_value(&[]), 0.0);
    }

    #[test]
    fn what_cannot_be_is_said_in_one_line() {
        assert_eq!(BalancerConfig::default().validate(), Ok(()));
        let refused = BalancerConfig { decay: 1.0, total_norm: 1.0 }.validate().unwrap_err();
        assert!(refused.starts_with("balancer.decay should be at least 0"), "{refused}");
        let refused = BalancerConfig { decay: 0.9, total_norm: 0.0 }.validate().unwrap_err();
        assert!(refused.starts_with("balancer.total_norm should be above 0"), "{refused}");
    }
}
