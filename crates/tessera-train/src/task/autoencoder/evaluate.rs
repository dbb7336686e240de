//! Reconstruction and codebook figures over a split.

use tch::{Kind, Tensor};
use tessera_nn::metrics::film::{FilmFigures, add_film, film_len};
use tessera_nn::metrics::squared_error_by_channel;
use tessera_nn::{Signal, VqVae, from_vectors, loss, to_vectors};

use super::features::{Features, Layout};
use super::pass::count;
use super::sound::Sound;
use super::usage::Usage;
use crate::engine::figures::Figure;
use crate::error::TrainError;
use crate::task::{Asked, Measure, Part};

/// Sums that every signal has room for, behind the squared error of each channel.
const HEAD: i64 = 3;
/// Least squared error that a picture's own PSNR counts, which is 100 dB: that of an exact picture has no end.
const LEAST_ERROR: f64 = 1e-10;
/// What MS-SSIM over so many scales is called; over one it is SSIM.
const MS_SSIM: [&str; 4] = ["ms_ssim_2", "ms_ssim_3", "ms_ssim_4", "ms_ssim"];

/// A model whose reconstructions are measured.
///
/// Its sums are: the squared error of each channel; SSIM, MS-SSIM and PSNR of each picture; those of [`Sound`]; those of film by
/// frame; how often each code was taken; those of [`Features`].
pub(super) struct Reconstruction<'a> {
    model: &'a VqVae,
    /// Codes of each level.
    levels: Vec<i64>,
    /// Levels in a row that take part; none: all.
    num_levels: Option<usize>,
    /// Scales of MS-SSIM; 1: there is none.
    scales: usize,
    features: Option<(&'a Features, Layout)>,
    sound: Option<&'a Sound>,
}

/// What outputs and samples are compared by, beside their values.
pub(super) type ComparedBy<'a> = (Option<&'a Features>, Option<&'a Sound>);

impl<'a> Reconstruction<'a> {
    pub(super) fn new(
        model: &'a VqVae,
        (features, sound): ComparedBy<'a>,
        asked: Asked,
    ) -> Result<Self, TrainError> {
        model.check_levels(asked.levels).map_err(TrainError::BadInput)?;
        let scales = match model.signal {
            Signal::Image { height, width, .. } | Signal::Video { height, width, .. } => {
                loss::ms_ssim_scales(height, width)
            }
            Signal::Audio { .. } | Signal::Tokens { .. } => 1,
        };
        let features = features.map(|features| (features, features.layout(asked.num_samples)));
        let levels = model.num_codes();
        Ok(Self { model, levels, num_levels: asked.levels, scales, features, sound })
    }

    /// Where each kind of sums begins: those of pictures, sound, film, counts, features, and the end.
    fn starts(&self) -> [i64; 6] {
        let pictures = self.model.signal.channels();
        let sound = pictures + HEAD;
        let film = sound + self.sound.map_or(0, |_| Sound::NUM_SUMS);
        let counts = film
            + match self.model.signal {
                Signal::Video { frames, .. } => film_len(frames),
                _ => 0,
            };
        let features = counts + self.levels.iter().sum::<i64>();
        let num = self.features.map_or(0, |(_, layout)| layout.num_sums());
        [pictures, sound, film, counts, features, features + num]
    }
}

impl Measure for Reconstruction<'_> {
    fn len(&self) -> i64 {
        self.starts()[5]
    }

    fn add(&self, part: &Part, sums: &Tensor) {
        let samples_nc = part.values(self.model.kind());
        let (outputs_nc, indices) = reconstruct(self.model, &samples_nc, self.num_levels);
        let [pictures, sound, film, counts, features, end] = self.starts();
        let mut start = counts;
        let errors_c = squared_error_by_channel(&outputs_nc, &samples_nc);
        let _ = sums.narrow(0, 0, pictures).g_add_(&errors_c);
        if is_visible(part.signal) {
            let seen = self.similarities(&outputs_nc, &samples_nc, part.signal);
            let _ = sums.narrow(0, pictures, HEAD).g_add_(&seen);
        }
        if let Some(compared) = self.sound {
            compared.add(&outputs_nc, &samples_nc, &sums.narrow(0, sound, Sound::NUM_SUMS));
        }
        if counts > film {
            add_film(&outputs_nc, &samples_nc, &mut sums.narrow(0, film, counts - film));
        }
        for (quantizer, indices_nl) in self.model.quantizers.iter().zip(&indices) {
            let (num_codes, len) = (quantizer.num_codes(), quantizer.lens().counts);
            count(indices_nl, &num_codes, &sums.narrow(0, start, len));
            start += len;
        }
        if let Some((network, layout)) = self.features {
            let own = sums.narrow(0, features, end - features);
            network.add(&samples_nc, &outputs_nc, part, (layout, &own));
        }
    }

    fn figures(&self, sums: &[f64], num_samples: u64, signal: Signal) -> Vec<Figure> {
        let [pictures, sound, film, counts, features, end] =
            self.starts().map(|start| start as usize);
        let samples = num_samples as f64;
        let of_channel = samples * signal.num_values() as f64 / signal.channels() as f64;
        let by_channel: Vec<f64> = sums[..pictures].iter().map(|sum| sum / of_channel).collect();
        let mse = sums[..pictures].iter().sum::<f64>() / (samples * signal.num_values() as f64);
        let mut figures = vec![Figure::number("mse", mse).charted("eval").shown(5)];
        if is_visible(signal) {
            let mean = |at: usize| sums[pictures + at] / samples;
            let db = |name, value| Figure::number(name, value).in_unit("dB").charted("eval");
            figures.push(db("psnr", loss::psnr(mse)).shown(2));
            figures.push(Figure::number("ssim", mean(0)).charted("eval").shown(4));
            if self.scales > 1 {
                let name = MS_SSIM[self.scales - 2];
                figures.push(Figure::number(name, mean(1)).charted("eval").shown(4));
            }
            figures.push(db("psnr_of_samples", mean(2)));
            if by_channel.len() > 1 {
                figures.push(Figure::numbers("mse_by_channel", by_channel));
            }
        }
        if let Some(compared) = self.sound {
            figures.extend(compared.figures(&sums[sound..film], num_samples));
        }
        if counts > film {
            figures.extend(of_film(&sums[film..counts], num_samples));
        }
        figures.extend(Usage::of(&sums[counts..features], &self.levels).in_evaluation());
        if let Some((network, layout)) = self.features {
            figures.extend(network.figures(layout, &sums[features..end], num_samples));
        }
        figures
    }

    fn finite(&self) -> &'static [(&'static str, &'static str)] {
        match is_visible(self.model.signal) {
            true => &[("mse", "mean squared error"), ("ssim", "structural similarity")],
            false => &[("mse", "mean squared error")],
        }
    }
}

impl Reconstruction<'_> {
    /// Sums over samples of SSIM, MS-SSIM and PSNR, each of a film the mean over its pictures; `[3]` in float64.
    fn similarities(&self, outputs_nc: &Tensor, samples_nc: &Tensor, signal: Signal) -> Tensor {
        let (outputs, targets, frames) =
            (pictures(outputs_nc, signal), pictures(samples_nc, signal), frames(signal));
        let ssim = loss::ssim_sum(&outputs, &targets);
        let ms_ssim = match self.scales {
            1 => ssim.zeros_like(),
            scales => loss::ms_ssim_sum(&outputs, &targets, scales),
        };
        let errors_n = (outputs.to_kind(Kind::Double) - targets.to_kind(Kind::Double)).square();
        let errors_n = errors_n.flatten(1, -1).mean_dim([1i64].as_slice(), false, Kind::Double);
        let psnr = errors_n.clamp_min(LEAST_ERROR).log10().sum(Kind::Double) * -10.0;
        Tensor::stack(&[ssim, ms_ssim, psnr], 0) / frames as f64
    }
}

/// Figures by the number of a frame, and of what changes from frame to frame.
fn of_film(sums: &[f64], num_samples: u64) -> Vec<Figure> {
    let film = FilmFigures::of(sums, num_samples);
    let mut figures = Vec::new();
    if let Some(psnr) = film.whole_difference_psnr {
        let psnr = Figure::number("difference_psnr", psnr).in_unit("dB");
        figures.push(psnr.charted("eval").shown(2));
    }
    if let Some(flicker) = film.whole_flicker {
        figures.push(Figure::number("flicker", flicker).charted("eval").shown(3));
    }
    figures.push(Figure::numbers("psnr_by_frame", film.psnr));
    figures.push(Figure::numbers("ssim_by_frame", film.ssim));
    figures.push(Figure::numbers("difference_psnr_by_frame", film.difference_psnr));
    figures
}

/// Whether people look at such samples: what is measured on pixels is said of them alone.
fn is_visible(signal: Signal) -> bool {
    matches!(signal, Signal::Image { .. } | Signal::Video { .. })
}

/// Pictures of a sample.
fn frames(signal: Signal) -> i64 {
    match signal {
        Signal::Video { frames, .. } => frames,
        _ => 1,
    }
}

/// Pictures `[N, C, H, W]` of visible samples.
fn pictures(samples_nc: &Tensor, signal: Signal) -> Tensor {
    match signal {
        Signal::Video { channels, height, width, .. } => {
            samples_nc.permute([0, 2, 1, 3, 4]).reshape([-1, channels, height, width])
        }
        _ => samples_nc.shallow_clone(),
    }
}

/// Samples through the whole model, with the first `num_levels` levels of residual quantisers, or all: outputs clamped to
/// the range of their signal, and the indices of each token at each level, the finest first. An output is NaN where a
/// latent that it was made of is not finite, even though there is a code for it.
pub fn reconstruct(
    model: &VqVae,
    samples_nc: &Tensor,
    num_levels: Option<usize>,
) -> (Tensor, Vec<Tensor>) {
    let parameters = &model.parameters;
    let mut indices = Vec::new();
    let codes = model.descend(samples_nc, |level, latents| {
        let quantizer = &model.quantizers[level];
        let latents_nd = to_vectors(latents);
        let all = quantizer.num_residual_levels();
        let indices_nl = quantizer.tokenize(parameters, &latents_nd);
        let indices_nl = quantizer.leave_out(&indices_nl, num_levels.unwrap_or(all).min(all));
        let is_lost_n1 = latents_nd.isfinite().all_dim(1, true).logical_not();
        let codes_nd =
            quantizer.look_up(parameters, &indices_nl).masked_fill(&is_lost_n1, f64::NAN);
        indices.push(indices_nl);
        from_vectors(&codes_nd, latents)
    });
    indices.reverse();
    let outputs_nc = model.decode(&codes);
    let range = model.signal.range().expect("what is made anew is no tokens");
    (outputs_nc.clamp(*range.start(), *range.end()), indices)
}
