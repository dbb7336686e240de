//! Structural similarity of pictures, at one scale and at several.
//!
//! Wang et al. 2004 (<https://doi.org/10.1109/TIP.2003.819861>), equation 13: a Gaussian window of
//! 11 x 11 with sigma 1.5, K1 = 0.01, K2 = 0.03, biased moments, averaged over the positions where
//! the window fits, each channel by itself. Pictures smaller than the window get a smaller, odd
//! window. Pixels are in [0, 1]. The similarity of a film is the mean over its frames.
//!
//! The window is a product of two lines, so a picture is blurred by two matrices with few numbers
//! that are not 0, one an axis. On one core of an x86-64 CPU that was 5 to 20 times faster than two
//! convolutions for sides of 32 to 256, and 30 to 90 times faster than one with the whole window.

use tch::{Device, Kind, Tensor};

use crate::signal::to_frames;

/// Side of the Gaussian window.
const WINDOW: i64 = 11;
/// Standard deviation of the Gaussian window, in pixels.
const SIGMA: f64 = 1.5;
/// Keeps the term of the means finite: K1 squared.
const C1: f64 = 0.01 * 0.01;
/// Keeps the term of the contrasts finite: K2 squared.
const C2: f64 = 0.03 * 0.03;
/// Weights of the scales, the finest first: Wang et al. 2003, section 3.
const EXPONENTS: [f64; 5] = [0.0448, 0.2856, 0.3001, 0.2363, 0.1333];

/// Sum over images of their similarity, a scalar computed in float64; with graph.
///
/// * `images_nchw`, `targets_nchw`: `[N, C, H, W]`, or film `[N, C, T, H, W]`, of any floating kind.
pub fn ssim_sum(images_nchw: &Tensor, targets_nchw: &Tensor) -> Tensor {
    ssim_sum_in(Kind::Double, images_nchw, targets_nchw)
}

/// The same, computed in `kind`, as a loss needs it: float32 costs half as much and was off by up to
/// 5e-6 in the tests. Not for bfloat16: variances are small differences of large numbers.
pub fn ssim_sum_in(kind: Kind, images_nchw: &Tensor, targets_nchw: &Tensor) -> Tensor {
    let [images_nchw, targets_nchw] = [images_nchw, targets_nchw].map(|t| t.to_kind(kind));
    let [(images_nchw, frames), (targets_nchw, _)] =
        [pictures(&images_nchw), pictures(&targets_nchw)];
    let terms = Terms::of(&images_nchw, &targets_nchw);
    mean_positions(&terms.whole()).mean_dim(1, false, kind).sum(kind) / frames as f64
}

/// Samples as pictures `[M, C, H, W]`, and how many each has.
fn pictures(samples: &Tensor) -> (Tensor, i64) {
    match samples.size()[..] {
        [_, _, frames, _, _] => (to_frames(samples), frames),
        _ => (samples.shallow_clone(), 1),
    }
}

/// How many scales a picture has room for, 1 to 5: the window fits into the coarsest, so 2 need a
/// side of 21, 3 of 41, 4 of 81 and 5 of 161.
pub fn ms_ssim_scales(height: i64, width: i64) -> usize {
    let fits = |scales: &usize| height.min(width) > (WINDOW - 1) << (scales - 1);
    (1..=EXPONENTS.len()).rev().find(fits).unwrap_or(1)
}

/// Sum over images of their similarity at several scales, a scalar computed in float64; with graph.
///
/// Wang, Simoncelli and Bovik 2003 (<https://doi.org/10.1109/ACSSC.2003.1292216>), equation 7: the
/// contrast term at each scale but the last and the whole similarity at the last, each averaged
/// over positions, to the powers 0.0448, 0.2856, 0.3001, 0.2363 and 0.1333, multiplied. Between
/// scales each 2 x 2 pixels become their mean; of an odd side the last pixel stands alone. Each
/// channel by itself, then the mean over channels. Terms below 0 count as 0, for which there is no
/// power and no gradient.
///
/// With fewer than 5 scales the first powers are taken, divided by their sum, and the figure is
/// another one: call it MS-SSIM-M.
///
/// # Panics
///
/// If `scales` is 0 or more than [`ms_ssim_scales`] of these pictures.
pub fn ms_ssim_sum(images_nchw: &Tensor, targets_nchw: &Tensor, scales: usize) -> Tensor {
    ms_ssim_sum_in(Kind::Double, images_nchw, targets_nchw, scales)
}

/// The same, computed in `kind`, as [`ssim_sum_in`].
///
/// # Panics
///
/// Those of [`ms_ssim_sum`].
pub fn ms_ssim_sum_in(
    kind: Kind,
    images_nchw: &Tensor,
    targets_nchw: &Tensor,
    scales: usize,
) -> Tensor {
    let [(images_nchw, frames), (targets_nchw, _)] =
        [pictures(images_nchw), pictures(targets_nchw)];
    let (_, _, height, width) = images_nchw.size4().expect("images are [N, C, H, W]");
    let most = ms_ssim_scales(height, width);
    assert!((1..=most).contains(&scales), "{scales} scales of {height} x {width}, {most} at most");
    let powers = &EXPONENTS[..scales];
    let total: f64 = if scales < EXPONENTS.len() { powers.iter().sum() } else { 1.0 };
    let [mut images, mut targets] = [images_nchw, targets_nchw].map(|t| t.to_kind(kind));
    let mut product_nc: Option<Tensor> = None;
    for (scale, power) in powers.iter().enumerate() {
        if scale > 0 {
            [images, targets] = [halved(&images), halved(&targets)];
        }
        let terms = Terms::of(&images, &targets);
        let term = if scale + 1 < scales { terms.contrast } else { terms.whole() };
        let factor_nc = mean_positions(&term).relu().pow_tensor_scalar(power / total);
        product_nc = Some(
            product_nc.map_or_else(|| factor_nc.shallow_clone(), |so_far| so_far * &factor_nc),
        );
    }
    let product_nc = product_nc.expect("there is one scale at least");
    product_nc.mean_dim(1, false, kind).sum(kind) / frames as f64
}

/// The two factors of a similarity at each position, `[N, C, h, w]`.
struct Terms {
    luminance: Tensor,
    contrast: Tensor,
}

impl Terms {
    fn of(x: &Tensor, y: &Tensor) -> Self {
        let (_, _, height, width) = x.size4().expect("images are [N, C, H, W]");
        let side = WINDOW.min((height.min(width) - 1) / 2 * 2 + 1);
        let rows = blurring(height, side, x.kind(), x.device());
        let columns = blurring(width, side, x.kind(), x.device()).tr();
        // `[5, N, C, h, w]`
        let planes = Tensor::stack(&[x, y, &x.square(), &y.square(), &(x * y)], 0);
        let blurred = rows.matmul(&planes.matmul(&columns));
        let [mean_x, mean_y, square_x, square_y, product] =
            [0, 1, 2, 3, 4].map(|plane| blurred.select(0, plane));
        let squares = mean_x.square() + mean_y.square();
        let products = mean_x * mean_y;
        let contrast = ((product - &products) * 2.0 + C2) / (square_x + square_y - &squares + C2);
        Self { luminance: (products * 2.0 + C1) / (squares + C1), contrast }
    }

    fn whole(&self) -> Tensor {
        &self.luminance * &self.contrast
    }
}

/// The matrix `[size - side + 1, size]` that blurs an axis where the window fits; made on the device,
/// so that nothing waits for a copy.
fn blurring(size: i64, side: i64, kind: Kind, device: Device) -> Tensor {
    let reach = side / 2;
    let weight = |from_middle: i64| (-0.5 * (from_middle as f64 / SIGMA).powi(2)).exp();
    let total: f64 = (-reach..=reach).map(weight).sum();
    let options = (Kind::Double, device);
    let middles = Tensor::arange(size - side + 1, options).unsqueeze(1) + reach as f64;
    let from_middle = Tensor::arange(size, options) - middles;
    let weights = (from_middle.square() * (-0.5 / (SIGMA * SIGMA))).exp() / total;
    (weights * from_middle.abs().le(reach as f64)).to_kind(kind)
}

/// `[N, C, h, w]` to `[N, C]`; without samples as well.
fn mean_positions(map: &Tensor) -> Tensor {
    map.mean_dim([2i64, 3].as_slice(), false, map.kind())
}

/// Each 2 x 2 pixels become their mean, and what is left at the end of an odd side the mean of what
/// there is.
fn halved(images: &Tensor) -> Tensor {
    images.avg_pool2d([2, 2], [2, 2], [0, 0], true, false, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(value: f64) -> Tensor {
        Tensor::full([2, 1, 16, 16], value, (Kind::Double, Device::Cpu))
    }

    fn picture(shape: &[i64], step: f64) -> Tensor {
        let at = Tensor::arange(shape.iter().product::<i64>(), (Kind::Double, Device::Cpu));
        ((at * step).sin() * 0.4 + 0.5).view(shape)
    }

    /// Constant images a and b have no variance: SSIM is (2ab + c1) / (a^2 + b^2 + c1).
    #[test]
    fn ssim_of_constant_images_is_the_term_of_the_means() {
        let (a, b, c1) = (0.5, 0.25, 1e-4);
        let expected = 2.0 * (2.0 * a * b + c1) / (a * a + b * b + c1);
        let found = ssim_sum(&flat(a), &flat(b)).double_value(&[]);
        assert!((found - expected).abs() < 1e-9, "{found} {expected}");
        assert!((ssim_sum(&flat(a), &flat(a)).double_value(&[]) - 2.0).abs() < 1e-12);
    }

    /// The definition: one convolution with the whole window for each of the five planes.
    #[test]
    fn two_matrices_blur_as_the_whole_window_does() {
        for (height, width) in [(11, 11), (16, 13), (40, 24), (7, 9), (1, 4)] {
            let image = picture(&[2, 3, height, width], 0.7);
            let side = WINDOW.min((height.min(width) - 1) / 2 * 2 + 1);
            let double = (Kind::Double, Device::Cpu);
            let from_middle = Tensor::arange(side, double) - (side / 2) as f64;
            let line = (from_middle.square() * (-0.5 / (SIGMA * SIGMA))).exp();
            let line = &line / line.sum(Kind::Double);
            let window = line.outer(&line).view([1, 1, side, side]);
            let planes = image.view([6, 1, height, width]);
            let expected = planes.conv2d(&window, None::<Tensor>, [1, 1], [0, 0], [1, 1], 1);
            let [rows, columns] =
                [height, width].map(|size| blurring(size, side, Kind::Double, Device::Cpu));
            let found = rows.matmul(&image.matmul(&columns.tr())).view_as(&expected);
            assert!((found - expected).abs().max().double_value(&[]) < 1e-14);
        }
    }

    #[test]
    fn scales_are_those_that_the_window_fits_into() {
        for (side, scales) in [
            (1, 1),
            (20, 1),
            (21, 2),
            (32, 2),
            (40, 2),
            (41, 3),
            (64, 3),
            (128, 4),
            (160, 4),
            (161, 5),
            (999, 5),
        ] {
            assert_eq!(ms_ssim_scales(side, 1000), scales, "{side}");
            assert_eq!(ms_ssim_scales(1000, side), scales, "{side}");
        }
        // 161 pixels are 81, 41, 21 and 11 at the coarser scales.
        let (x, y) = (picture(&[1, 1, 161, 170], 0.9), picture(&[1, 1, 161, 170], 0.91));
        assert!(ms_ssim_sum(&x, &y, 5).double_value(&[]).is_finite());
    }

    #[test]
    fn a_film_is_as_similar_as_its_frames_are_on_average() {
        let (x, y) = (picture(&[2, 3, 4, 44, 42], 0.9), picture(&[2, 3, 4, 44, 42], 0.93));
        let mut sums = [0.0; 2];
        for frame in 0..4 {
            let [x, y] = [&x, &y].map(|film| film.select(2, frame));
            sums[0] += ssim_sum(&x, &y).double_value(&[]) / 4.0;
            sums[1] += ms_ssim_sum(&x, &y, 3).double_value(&[]) / 4.0;
        }
        let found = [ssim_sum(&x, &y), ms_ssim_sum(&x, &y, 3)].map(|sum| sum.double_value(&[]));
        for (found, expected) in found.iter().zip(sums) {
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        }
    }

    #[test]
    fn the_last_pixel_of_an_odd_side_stands_alone() {
        let image = picture(&[1, 2, 5, 4], 1.1);
        let longer = Tensor::cat(&[&image, &image.narrow(2, 4, 1)], 2);
        let off = (halved(&image) - halved(&longer)).abs().max().double_value(&[]);
        assert!(off < 1e-15, "{off}");
    }

    /// One scale is SSIM where that is above 0; equal pictures are 1 at any number.
    #[test]
    fn several_scales_begin_with_one() {
        let (x, noise) = (picture(&[3, 2, 44, 50], 0.9), picture(&[3, 2, 44, 50], 1.7));
        let y = &x * 0.9 + noise * 0.1;
        let [one, plain] = [ms_ssim_sum(&x, &y, 1), ssim_sum(&x, &y)];
        assert!((one - plain).abs().double_value(&[]) < 1e-12);
        assert!((ms_ssim_sum(&x, &x, 3).double_value(&[]) - 3.0).abs() < 1e-12);
    }

    /// A negative picture has contrast terms below 0, for which a power has no gradient.
    #[test]
    fn gradients_are_finite_where_contrasts_are_opposite() {
        let y = picture(&[2, 1, 44, 44], 0.9);
        let x = (-&y + 1.0).set_requires_grad(true);
        let found = ms_ssim_sum(&x, &y, 3);
        assert_eq!(found.double_value(&[]), 0.0);
        let gradients = Tensor::run_backward(&[found], &[&x], false, false);
        assert_eq!(gradients[0].abs().max().double_value(&[]), 0.0);
    }
}
