//! The logit-Laplace distribution of pixels, which has none of its mass outside of their range.
//!
//! Follows Ramesh et al. 2021 (<https://arxiv.org/abs/2102.12092>), appendix A.3: a pixel x in
//! [0, 1] becomes u = 0.8 x + 0.1, away from the ends, and logit u has a Laplace distribution whose
//! mean and scale the network gives: `[N, 2 C, ..]` with the means mu in the first C channels and
//! ln b in the last.

use tch::Tensor;

/// What is kept free at both ends of (0, 1).
const MARGIN: f64 = 0.1;

/// Sum over values of -ln p(u) = ln b + ln 2 + ln(u (1 - u)) + |logit u - mu| / b, a scalar of the
/// kind of the outputs.
///
/// It is the density of u: bits a value need the constant -ln 0.8 beside it, which has no gradient.
/// It has no lower bound: where an output is exact, b goes to 0.
///
/// * `outputs_n2c`: `[N, 2 C, ..]`.
/// * `targets_nc`: `[N, C, ..]`, in [0, 1].
pub fn logit_laplace(outputs_n2c: &Tensor, targets_nc: &Tensor) -> Tensor {
    let channels = targets_nc.size()[1];
    let (means, log_scales) =
        (outputs_n2c.narrow(1, 0, channels), outputs_n2c.narrow(1, channels, channels));
    let inner = within(targets_nc);
    let kind = outputs_n2c.kind();
    let jacobian = (&inner - inner.square()).log().sum(kind);
    let errors = (inner.logit(None) - means).abs() * (-&log_scales).exp();
    let constant = std::f64::consts::LN_2 * targets_nc.numel() as f64;
    (log_scales + errors).sum(kind) + jacobian + constant
}

/// The picture that outputs stand for, `[N, C, ..]` in [0, 1]: (sigmoid mu - 0.1) / 0.8, clamped.
pub fn logit_laplace_values(outputs_n2c: &Tensor) -> Tensor {
    let means = outputs_n2c.narrow(1, 0, outputs_n2c.size()[1] / 2);
    ((means.sigmoid() - MARGIN) / (1.0 - 2.0 * MARGIN)).clamp(0.0, 1.0)
}

/// Outputs `[2 C]` that stand for the values `means_c` with b = 1: where an output's bias starts.
pub fn logit_laplace_start(means_c: &Tensor) -> Tensor {
    let means_c = within(&means_c.clamp(0.0, 1.0)).logit(None);
    Tensor::cat(&[&means_c, &means_c.zeros_like()], 0)
}

/// x in [0, 1] to u in [0.1, 0.9].
fn within(values: &Tensor) -> Tensor {
    values * (1.0 - 2.0 * MARGIN) + MARGIN
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: x = 1/2 is u = 1/2, logit 0. With mu = 1 and b = 2:
    /// ln 2 + ln 2 + ln(1/4) + 1/2 = 1/2.
    #[test]
    fn the_middle_of_the_range_is_by_hand() {
        let outputs = Tensor::from_slice(&[1.0, 2.0f64.ln()]).view([1, 2, 1]);
        let targets = Tensor::from_slice(&[0.5]).view([1, 1, 1]);
        let found = logit_laplace(&outputs, &targets).double_value(&[]);
        assert!((found - 0.5).abs() < 1e-12, "{found}");
    }

    /// The density of u over (0, 1) integrates to one: 2,000 midpoints, the middle of the kink
    /// included.
    #[test]
    fn it_is_a_density() {
        let count = 2_000;
        let inner: Vec<f64> = (0..count).map(|at| (at as f64 + 0.5) / count as f64).collect();
        let density = |u: f64| {
            let outputs = Tensor::from_slice(&[0.4, -0.3]).view([1, 2, 1]);
            let targets = Tensor::from_slice(&[(u - 0.1) / 0.8]).view([1, 1, 1]);
            (-logit_laplace(&outputs, &targets).double_value(&[])).exp()
        };
        let mass: f64 = inner.iter().map(|&u| density(u)).sum::<f64>() / count as f64;
        assert!((mass - 1.0).abs() < 1e-3, "{mass}");
    }

    #[test]
    fn a_picture_starts_at_the_mean_it_is_given() {
        let means_c = Tensor::from_slice(&[0.0, 0.25, 1.0]);
        let start = logit_laplace_start(&means_c);
        assert_eq!(start.size(), [6]);
        let picture = logit_laplace_values(&start.view([1, 6, 1])).view([3]);
        assert!((picture - means_c).abs().max().double_value(&[]) < 1e-12);
        let far = Tensor::from_slice(&[-9.0, 9.0, 0.0, 0.0]).view([1, 4, 1]);
        assert_eq!(logit_laplace_values(&far).view([2]), Tensor::from_slice(&[0.0, 1.0]));
    }
}
