//! How far a reconstruction is from its input.

use tch::{Device, Kind, Tensor};

/// Side of SSIM's Gaussian window.
const WINDOW: i64 = 11;
/// Standard deviation of SSIM's Gaussian window, in pixels.
const SIGMA: f64 = 1.5;

/// Sum of squared errors over all pixels, a scalar of the kind of the inputs.
pub fn squared_error(images_nchw: &Tensor, targets_nchw: &Tensor) -> Tensor {
    (images_nchw - targets_nchw).square().sum(images_nchw.kind())
}

/// Zero, a scalar, or NaN where a number of `tensor` is not finite; without graph. Added to a loss
/// it makes sure that such a number is seen there, whatever was made of it.
pub fn zero_if_finite(tensor: &Tensor) -> Tensor {
    (tensor.detach() * 0.0).sum(tensor.kind())
}

/// Sum over images of the structural similarity, a scalar in float64; pixels in [0, 1].
///
/// Wang et al. 2004, <https://doi.org/10.1109/TIP.2003.819861>, equation 13: Gaussian window of
/// 11 x 11 with sigma 1.5, K1 = 0.01, K2 = 0.03, biased moments, averaged over the positions where
/// the window fits, and over channels. Images smaller than the window get a smaller, odd window.
pub fn ssim_sum(images_nchw: &Tensor, targets_nchw: &Tensor) -> Tensor {
    let (num, channels, height, width) = images_nchw.size4().expect("images are [N, C, H, W]");
    if num == 0 {
        return Tensor::zeros([], (Kind::Double, images_nchw.device()));
    }
    let side = WINDOW.min((height.min(width) - 1) / 2 * 2 + 1);
    let window = gaussian(side, images_nchw.device());
    let planes = |images: &Tensor| {
        images.to_kind(Kind::Double).contiguous().view([num * channels, 1, height, width])
    };
    let blur = |planes: &Tensor| planes.conv2d(&window, None::<Tensor>, [1, 1], [0, 0], [1, 1], 1);
    let (x, y) = (planes(images_nchw), planes(targets_nchw));
    let (mean_x, mean_y) = (blur(&x), blur(&y));
    let variance_x = blur(&x.square()) - mean_x.square();
    let variance_y = blur(&y.square()) - mean_y.square();
    let covariance = blur(&(&x * &y)) - &mean_x * &mean_y;
    let (c1, c2) = (0.01f64.powi(2), 0.03f64.powi(2));
    let above = (&mean_x * &mean_y * 2.0 + c1) * (covariance * 2.0 + c2);
    let below = (mean_x.square() + mean_y.square() + c1) * (variance_x + variance_y + c2);
    (above / below).mean(Kind::Double) * num as f64
}

/// `[1, 1, side, side]`, sums to one.
fn gaussian(side: i64, device: Device) -> Tensor {
    let line: Vec<f64> =
        (0..side).map(|at| (-0.5 * ((at - side / 2) as f64 / SIGMA).powi(2)).exp()).collect();
    let total: f64 = line.iter().sum();
    let line = Tensor::from_slice(&line).to(device) / total;
    line.outer(&line).view([1, 1, side, side])
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

    /// Constant images a and b have no variance: SSIM is (2ab + c1) / (a^2 + b^2 + c1).
    #[test]
    fn ssim_of_constant_images_is_the_term_of_the_means() {
        let flat = |value| Tensor::full([2, 1, 16, 16], value, (Kind::Double, Device::Cpu));
        let (a, b, c1) = (0.5, 0.25, 1e-4);
        let expected = 2.0 * (2.0 * a * b + c1) / (a * a + b * b + c1);
        let found = ssim_sum(&flat(a), &flat(b)).double_value(&[]);
        assert!((found - expected).abs() < 1e-9, "{found} {expected}");
        assert!((ssim_sum(&flat(a), &flat(a)).double_value(&[]) - 2.0).abs() < 1e-12);
    }
}
