//! Figures of film by the number of a frame, and of what changes from frame to frame.
//!
//! Sums over samples in float64, so that those of parts and ranks add up to those of the whole.

use tch::{Kind, Tensor};

use crate::loss::{psnr, ssim_sum};

/// Sums of each frame: squared errors, similarities, squared errors of differences, |d y| and |d x|, with d the difference to
/// the next frame.
const ROWS: usize = 5;

/// Numbers of the sums of film with so many frames.
pub fn film_len(num_frames: i64) -> i64 {
    ROWS as i64 * num_frames
}

/// Adds the sums of some samples to `sums`, `[film_len]` in float64.
///
/// * `outputs`, `targets`: `[N, C, T, H, W]` in [0, 1], of any floating kind.
///
/// # Panics
///
/// If `sums` has another length.
pub fn add_film(outputs: &Tensor, targets: &Tensor, sums: &mut Tensor) {
    let [outputs, targets] = [outputs, targets].map(|film| film.detach().to_kind(Kind::Double));
    let num_frames = outputs.size()[2];
    assert_eq!(sums.size(), [film_len(num_frames)], "sums of {num_frames} frames");
    let rows = sums.view([ROWS as i64, num_frames]);
    let add = |row: i64, of_frame: &Tensor| {
        let _ = rows.get(row).narrow(0, 0, of_frame.size()[0]).g_add_(of_frame);
    };
    add(0, &by_frame(&(&outputs - &targets).square()));
    let similarity = |frame| ssim_sum(&outputs.select(2, frame), &targets.select(2, frame));
    let similarities: Vec<Tensor> = (0..num_frames).map(similarity).collect();
    add(1, &Tensor::stack(&similarities, 0));
    let [of_outputs, of_targets] = [&outputs, &targets]
        .map(|film| film.narrow(2, 1, num_frames - 1) - film.narrow(2, 0, num_frames - 1));
    add(2, &by_frame(&(&of_outputs - &of_targets).square()));
    add(3, &by_frame(&of_outputs.abs()));
    add(4, &by_frame(&of_targets.abs()));
}

/// Sums over samples of the mean of each frame, `[T]`.
fn by_frame(film: &Tensor) -> Tensor {
    let of_frame_nt = film.mean_dim([1i64, 3, 4].as_slice(), false, Kind::Double);
    of_frame_nt.sum_dim_intlist([0i64].as_slice(), false, Kind::Double)
}

/// What sums over a set of film say.
#[derive(Debug, Clone, PartialEq)]
pub struct FilmFigures {
    /// PSNR of the mean squared error of all first frames, all second ones and so on, in decibels.
    pub psnr: Vec<f64>,
    /// Mean SSIM of the same.
    pub ssim: Vec<f64>,
    /// PSNR of differences: of y(t + 1) - y(t) against x(t + 1) - x(t), one less than there are frames.
    pub difference_psnr: Vec<f64>,
    /// Flicker: the mean of |y(t + 1) - y(t)| over that of |x(t + 1) - x(t)|. Above 1 where outputs move more than they
    /// should, below where they are dulled; not finite where targets do not move at all.
    pub flicker: Vec<f64>,
    /// PSNR of all differences together; none of film of one frame.
    pub whole_difference_psnr: Option<f64>,
    /// Flicker of all frames together; none of film that does not move.
    pub whole_flicker: Option<f64>,
}

impl FilmFigures {
    /// Of sums over `num_samples`.
    pub fn of(sums: &[f64], num_samples: u64) -> Self {
        let num_frames = sums.len() / ROWS;
        let row = |row: usize, len: usize| &sums[row * num_frames..row * num_frames + len];
        let mean = |sum: &f64| sum / num_samples as f64;
        let steps = num_frames.saturating_sub(1);
        let moved = row(3, steps).iter().zip(row(4, steps));
        let total = |of: usize| row(of, steps).iter().sum::<f64>();
        let difference = total(2) / (num_samples as f64 * steps.max(1) as f64);
        Self {
            psnr: row(0, num_frames).iter().map(|sum| psnr(mean(sum))).collect(),
            ssim: row(1, num_frames).iter().map(mean).collect(),
            difference_psnr: row(2, steps).iter().map(|sum| psnr(mean(sum))).collect(),
            flicker: moved.map(|(output, target)| output / target).collect(),
            whole_difference_psnr: (steps > 0).then(|| psnr(difference)),
            whole_flicker: (total(4) > 0.0).then(|| total(3) / total(4)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    fn sums(parts: &[(Tensor, Tensor)]) -> Vec<f64> {
        let len = film_len(parts[0].0.size()[2]);
        let mut sums = Tensor::zeros([len], (Kind::Double, Device::Cpu));
        for (outputs, targets) in parts {
            add_film(outputs, targets, &mut sums);
        }
        Vec::try_from(sums).expect("float64")
    }

    fn near(found: &[f64], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        }
    }

    /// By hand, of two samples of three frames of two pixels. Errors of the first: (0.1, 0.1), (0.1, 0.3), (0, 0); of the
    /// second: none. Targets move by 0.1 and 0.2 at each pixel, so outputs of the first by (0.1, 0.3), (0.1, -0.1).
    #[test]
    fn errors_and_movement_are_by_frame() {
        let moves = [0.2, 0.2, 0.3, 0.3, 0.5, 0.5];
        let targets = Tensor::from_slice(&[moves, moves].concat()).view([2, 1, 3, 1, 2]);
        let errors = [0.1, 0.1, 0.1, 0.3, 0.0, 0.0].into_iter().chain([0.0; 6]);
        let errors = Tensor::from_slice(&errors.collect::<Vec<f64>>()).view([2, 1, 3, 1, 2]);
        let found = FilmFigures::of(&sums(&[(&targets + errors, targets)]), 2);
        // Mean squares over both samples: 0.02 / 4, 0.1 / 4, 0.
        near(&found.psnr[..2], &[psnr(0.005), psnr(0.025)]);
        assert_eq!(found.psnr[2], f64::INFINITY);
        // Differences of errors: (0, 0.2), (-0.1, -0.3): 0.04 / 4 and 0.1 / 4.
        near(&found.difference_psnr, &[psnr(0.01), psnr(0.025)]);
        // |d y|: (0.1, 0.3, 0.1, 0.1), (0.1, 0.1, 0.2, 0.2).
        near(&found.flicker, &[0.6 / 0.4, 0.6 / 0.8]);
        near(&[found.whole_difference_psnr.unwrap()], &[psnr(0.0175)]);
        near(&[found.whole_flicker.unwrap()], &[1.2 / 1.2]);
        assert_eq!(found.ssim.len(), 3);
        near(&found.ssim[2..], &[1.0]);
    }

    #[test]
    fn sums_of_parts_are_those_of_the_whole_and_frames_are_as_similar_as_pictures() {
        let count = Tensor::arange(3 * 2 * 4 * 16 * 12, (Kind::Double, Device::Cpu));
        let film = |step: f64| ((&count * step).sin() * 0.4 + 0.5).view([3, 2, 4, 16, 12]);
        let (outputs, targets) = (film(0.7), film(0.71));
        let part = |from, len| (outputs.narrow(0, from, len), targets.narrow(0, from, len));
        let [parts, whole] = [sums(&[part(0, 1), part(1, 0), part(1, 2)]), sums(&[part(0, 3)])];
        near(&parts, &whole);
        let found = FilmFigures::of(&whole, 3);
        for (frame, found) in (0..).zip(&found.ssim) {
            let of = ssim_sum(&outputs.select(2, frame), &targets.select(2, frame));
            near(&[*found], &[of.double_value(&[]) / 3.0]);
        }
        let all = crate::metrics::squared_error_by_channel(&outputs, &targets);
        let mean = all.sum(Kind::Double).double_value(&[]) / (3.0 * 2.0 * 4.0 * 16.0 * 12.0);
        let by_frame: f64 = whole[..4].iter().sum::<f64>() / (3.0 * 4.0);
        near(&[by_frame], &[mean]);
    }

    #[test]
    fn film_of_one_frame_has_no_movement() {
        let picture = Tensor::full([2, 1, 1, 3, 3], 0.5, (Kind::Float, Device::Cpu));
        let found = FilmFigures::of(&sums(&[(&picture + 0.125, picture)]), 2);
        near(&found.psnr, &[psnr(1.0 / 64.0)]);
        assert_eq!((found.difference_psnr.len(), found.flicker.len()), (0, 0));
        assert_eq!((found.whole_difference_psnr, found.whole_flicker), (None, None));
    }
}
