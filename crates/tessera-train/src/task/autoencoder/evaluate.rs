//! Reconstruction and codebook figures over a split.

use tch::{Kind, Tensor};
use tessera_data::SampleShape;
use tessera_nn::{VqVae, from_vectors, images_from_bytes, loss, to_vectors};

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
        let images_nchw = images_from_bytes(&part.bytes_nhwc, self.model.kind());
        let (outputs_nchw, indices_nl) = reconstruct(self.model, &images_nchw, self.num_levels);
        let error = loss::squared_error(&outputs_nchw, &images_nchw).to_kind(Kind::Double);
        let similarity = loss::ssim_sum(&outputs_nchw, &images_nchw);
        let _ = sums.narrow(0, 0, HEAD).g_add_(&Tensor::stack(&[error, similarity], 0));
        let mut first = HEAD;
        for (level, &len) in self.levels.iter().enumerate() {
            let indices_n = indices_nl.select(1, level as i64);
            let kept_n = indices_n.masked_select(&indices_n.ge(0));
            let taken_k = kept_n.bincount(None::<Tensor>, len);
            let _ = sums.narrow(0, first, len).g_add_(&taken_k);
            first += len;
        }
    }

    fn figures(&self, sums: &[f64], num_samples: u64, shape: SampleShape) -> Vec<Figure> {
        let (head, counts) = sums.split_at(HEAD as usize);
        let samples = num_samples as f64;
        let mse = head[0] / (samples * shape.num_bytes() as f64);
        let psnr = Figure::number("psnr", loss::psnr(mse)).in_unit("dB");
        let mut figures = vec![
            Figure::number("mse", mse).charted("eval").shown(5),
            psnr.charted("eval").shown(2),
            Figure::number("ssim", head[1] / samples).charted("eval").shown(4),
        ];
        figures.extend(Usage::of(counts, &self.levels).in_evaluation());
        figures
    }

    fn finite(&self) -> &'static [(&'static str, &'static str)] {
        &[("mse", "mean squared error"), ("ssim", "structural similarity")]
    }
}

/// Images through the whole model, with the first `num_levels` levels of a residual quantiser:
/// outputs clamped to [0, 1], and the indices of each token. An output is NaN where a latent that
/// it was made of is not finite, even though there is a code for it.
pub fn reconstruct(model: &VqVae, images_nchw: &Tensor, num_levels: usize) -> (Tensor, Tensor) {
    let latents_ndhw = model.encode(images_nchw);
    let (quantizer, parameters) = (&model.quantizer, &model.parameters);
    let latents_nd = to_vectors(&latents_ndhw);
    let indices_nl = quantizer.tokenize(parameters, &latents_nd);
    let indices_nl = quantizer.leave_out(&indices_nl, num_levels);
    let is_lost_n1 = latents_nd.isfinite().all_dim(1, true).logical_not();
    let codes_nd = quantizer.look_up(parameters, &indices_nl).masked_fill(&is_lost_n1, f64::NAN);
    (model.decode(&from_vectors(&codes_nd, &latents_ndhw)).clamp(0.0, 1.0), indices_nl)
}
