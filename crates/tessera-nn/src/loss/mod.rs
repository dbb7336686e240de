//! How far outputs are from targets, and what a critic makes of both.
//!
//! Every loss is a sum over samples and a scalar with a graph, so that parts of a batch add up to
//! the whole and a rank without samples adds 0. Whoever trains divides by a count that all ranks
//! know. Nothing here keeps a statistic of a batch or draws at random.
//!
//! `docs/losses.md` has each formula beside its paper.

pub mod adversarial;
pub mod balancer;
pub mod laplace;
pub mod pixels;
pub mod similarity;
pub mod spectral;

use tch::Tensor;

pub use self::adversarial::{
    AdversarialLoss, OverCritics, feature_matching, lecam, mean_logit_sum,
};
pub use self::balancer::{Balancer, BalancerConfig, norm_sum};
pub use self::laplace::{logit_laplace, logit_laplace_start, logit_laplace_values};
pub use self::pixels::{absolute_error, frame_difference, gradient_difference, squared_error};
pub use self::similarity::{ms_ssim_scales, ms_ssim_sum, ms_ssim_sum_in, ssim_sum, ssim_sum_in};
pub use self::spectral::{MelDistance, MelForm, StftDistance};

/// Zero, a scalar, or NaN where a number of `tensor` is not finite; without graph. Added to a loss
/// it makes sure that such a number is seen there, whatever was made of it.
pub fn zero_if_finite(tensor: &Tensor) -> Tensor {
    (tensor.detach() * 0.0).sum(tensor.kind())
}

/// exp of the entropy of a histogram: how many codes are in use, as it were. 0 for an empty one.
pub fn perplexity(counts: &[f64]) -> f64 {
    let total: f64 = counts.iter().sum();
    if total == 0.0 {
        return 0.0;
    }
    let entropy: f64 = counts
        .iter()
        .filter(|&&count| count > 0.0)
        .map(|&count| -(count / total) * (count / total).ln())
        .sum();
    entropy.exp()
}

/// Peak signal-to-noise ratio in decibels of a mean squared error, for pixels in [0, 1].
pub fn psnr(mean_squared_error: f64) -> f64 {
    -10.0 * mean_squared_error.log10()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn perplexity_counts_equally_used_codes() {
        assert!((perplexity(&[5.0, 5.0, 0.0, 5.0]) - 3.0).abs() < 1e-12);
        assert_eq!(perplexity(&[0.0; 4]), 0.0);
    }

    #[test]
    fn what_is_not_finite_shows_in_a_loss() {
        let of = |value: f64| zero_if_finite(&Tensor::from_slice(&[1.0, value])).double_value(&[]);
        assert_eq!([0.0, -1e308, f64::MIN_POSITIVE].map(of), [0.0; 3]);
        assert!([f64::NAN, f64::INFINITY, f64::NEG_INFINITY].map(of).iter().all(|n| n.is_nan()));
    }

    #[test]
    fn psnr_of_a_hundredth_is_twenty_decibels() {
        assert!((psnr(0.01) - 20.0).abs() < 1e-12);
    }
}
