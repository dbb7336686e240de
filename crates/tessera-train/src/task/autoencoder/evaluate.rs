//! Reconstruction and codebook figures over a split.

use tch::{Kind, Tensor};
use tessera_nn::{Signal, VqVae, from_vectors, loss, to_vectors};

use super::pass::count;
use super::usage::Usage;
use crate::engine::figures::Figure;
use crate::error::TrainError;
use crate::task::{Asked, Measure, Part};

/// Sums of squared error and similarity, before how often each code was taken.
const HEAD: i64 = 2;

/// A model whose reconstructions are measured.
pub(super) struct Reconstruction<'a> {
    model: &'a VqVae,
    /// Codes of each level.
    levels: Vec<i64>,
    /// Levels in a row that take part.
    num_levels: usize,
}

impl<'a> Reconstruction<'a> {
    pub(super) fn new(model: &'a VqVae, asked: Asked) -> Result<Self, TrainError> {
        let levels = model.quantizer.num_residual_levels();
        let num_levels = asked.levels.unwrap_or(levels);
        if !(1..=levels).contains(&num_levels) {
            return Err(TrainError::BadInput(format!(
                "--levels should be from 1 to {levels}, the levels in a row that the run's quantiser \
                 has, found {num_levels}"
            )));
        }
        Ok(Self { model, levels: model.quantizer.num_codes(), num_levels })
    }
}

impl Measure for Reconstruction<'_> {
    fn len(&self) -> i64 {
        HEAD + self.levels.iter().sum::<i64>()
    }

    fn add(&self, part: &Part, sums: &Tensor) {
        let samples_nc = part.values(self.model.kind());
        let (outputs_nc, indices_nl) = reconstruct(self.model, &samples_nc, self.num_levels);
        let error = loss::squared_error(&outputs_nc, &samples_nc).to_kind(Kind::Double);
        let similarity = similarity(&outputs_nc, &samples_nc, part.signal);
        let _ = sums.narrow(0, 0, HEAD).g_add_(&Tensor::stack(&[error, similarity], 0));
        count(&indices_nl, &self.levels, &sums.narrow(0, HEAD, self.len() - HEAD));
    }

    fn figures(&self, sums: &[f64], num_samples: u64, signal: Signal) -> Vec<Figure> {
        let (head, counts) = sums.split_at(HEAD as usize);
        let samples = num_samples as f64;
        let mse = head[0] / (samples * signal.num_values() as f64);
        let mut figures = vec![Figure::number("mse", mse).charted("eval").shown(5)];
        if is_visible(signal) {
            let psnr = Figure::number("psnr", loss::psnr(mse)).in_unit("dB");
            figures.push(psnr.charted("eval").shown(2));
            figures.push(Figure::number("ssim", head[1] / samples).charted("eval").shown(4));
        }
        figures.extend(Usage::of(counts, &self.levels).in_evaluation());
        figures
    }

    fn finite(&self) -> &'static [(&'static str, &'static str)] {
        match is_visible(self.model.signal) {
            true => &[("mse", "mean squared error"), ("ssim", "structural similarity")],
            false => &[("mse", "mean squared error")],
        }
    }
}

/// Whether people look at such samples: what is measured on pixels is said of them alone.
fn is_visible(signal: Signal) -> bool {
    matches!(signal, Signal::Image { .. } | Signal::Video { .. })
}

/// Sum over samples of the structural similarity, of a film the mean over its pictures; a scalar in float64, 0 for what
/// is not visible.
fn similarity(outputs_nc: &Tensor, samples_nc: &Tensor, signal: Signal) -> Tensor {
    match signal {
        Signal::Image { .. } => loss::ssim_sum(outputs_nc, samples_nc),
        Signal::Video { channels, frames, height, width } => {
            let pictures = |film_ncthw: &Tensor| {
                let pictures_ntchw = film_ncthw.permute([0, 2, 1, 3, 4]);
                pictures_ntchw.reshape([-1, channels, height, width])
            };
            loss::ssim_sum(&pictures(outputs_nc), &pictures(samples_nc)) / frames as f64
        }
        Signal::Audio { .. } | Signal::Tokens { .. } => {
            Tensor::zeros([], (Kind::Double, samples_nc.device()))
        }
    }
}

/// Samples through the whole model, with the first `num_levels` levels of a residual quantiser:
/// outputs clamped to the range of their signal, and the indices of each token. An output is NaN where a latent that
/// it was made of is not finite, even though there is a code for it.
pub fn reconstruct(model: &VqVae, samples_nc: &Tensor, num_levels: usize) -> (Tensor, Tensor) {
    let latents = model.encode(samples_nc);
    let (quantizer, parameters) = (&model.quantizer, &model.parameters);
    let latents_nd = to_vectors(&latents);
    let indices_nl = quantizer.tokenize(parameters, &latents_nd);
    let indices_nl = quantizer.leave_out(&indices_nl, num_levels);
    let is_lost_n1 = latents_nd.isfinite().all_dim(1, true).logical_not();
    let codes_nd = quantizer.look_up(parameters, &indices_nl).masked_fill(&is_lost_n1, f64::NAN);
    let outputs_nc = model.decode(&from_vectors(&codes_nd, &latents));
    let range = model.signal.range().expect("what is made anew is no tokens");
    (outputs_nc.clamp(*range.start(), *range.end()), indices_nl)
}
