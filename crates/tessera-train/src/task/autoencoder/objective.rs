//! Losses of an autoencoder's output: which there are, and what each is of a part of the batch.

use tch::{Kind, Tensor};
use tessera_nn::features::Seen;
use tessera_nn::loss::{self, MelDistance, StftDistance};

use crate::config::TrainConfig;
use crate::config::objective::LossConfig;
use crate::error::TrainError;
use crate::task::{Loss, Part, Samples, networks};

/// The losses that compare an output with its input.
#[derive(Debug)]
pub(super) struct Objective {
    config: LossConfig,
    /// Whose features are compared, where they are.
    perceptual: Option<Seen>,
    /// Mel spectrograms that are compared, where they are.
    mel: Option<MelDistance>,
    /// The same of spectrograms.
    stft: Option<StftDistance>,
    /// The variance of all values of the first global batch, `[1]`.
    variance: Tensor,
}

/// Losses of a part, each the part's share of a mean over the global batch, without its weight; with graph.
#[derive(Debug)]
pub(super) struct Terms {
    /// The weighted sum.
    pub(super) sum: Tensor,
    /// In the order of [`Objective::losses`].
    pub(super) each: Vec<Tensor>,
}

impl Objective {
    /// What a configuration says, for such samples and parameters `like` these.
    ///
    /// # Errors
    ///
    /// [`TrainError::BadInput`] where a network cannot be opened or a loss is not for such samples.
    pub(super) fn new(
        config: &TrainConfig,
        samples: &Samples,
        like: &Tensor,
    ) -> Result<Self, TrainError> {
        let shown = (&samples.signal, samples.sample_rate);
        let perceptual = networks::perceptual(config, shown, like.device())?;
        let (mel, stft) = spectral(config, samples, like).map_err(TrainError::BadInput)?;
        let variance = Tensor::ones([1], (like.kind(), like.device()));
        Ok(Self { config: config.loss.clone(), perceptual, mel, stft, variance })
    }

    /// The losses that are told, in order. The squared error is always one of them, so that runs can be compared.
    pub(super) fn losses(&self) -> Vec<Loss> {
        let config = &self.config;
        let (name, words, weight) = ("recon_mse", "reconstruction loss", config.squared);
        let mut all = vec![Loss { name, words, weight }];
        for (name, words, weight) in [
            ("recon_absolute", "absolute error", config.absolute),
            ("recon_variance_scaled", "variance-scaled error", config.variance_scaled),
            ("logit_laplace", "logit-Laplace loss", config.logit_laplace),
            ("gradient_difference", "gradient difference", config.gradient_difference),
            ("frame_difference", "frame difference", config.frame_difference),
            ("ssim_loss", "SSIM loss", config.ssim),
            ("ms_ssim_loss", "MS-SSIM loss", config.ms_ssim),
            ("mel_loss", "mel loss", config.mel),
            ("stft_loss", "STFT loss", config.stft),
            ("perceptual_loss", "perceptual loss", config.perceptual),
        ] {
            if weight > 0.0 {
                all.push(Loss { name, words, weight });
            }
        }
        all
    }

    /// The losses of values `values_nc` against samples; `raw_nc` is what the decoder has given out, which the values
    /// were made of.
    pub(super) fn terms(
        &self,
        raw_nc: &Tensor,
        values_nc: &Tensor,
        samples_nc: &Tensor,
        part: &Part,
    ) -> Terms {
        let config = &self.config;
        let num_samples = part.num_global as f64;
        let num_values = num_samples * part.signal.num_values() as f64;
        let squared = loss::squared_error(values_nc, samples_nc) / num_values;
        let mut each = vec![squared];
        if config.absolute > 0.0 {
            each.push(loss::absolute_error(values_nc, samples_nc) / num_values);
        }
        if config.variance_scaled > 0.0 {
            each.push(&each[0] / self.variance.get(0));
        }
        if config.logit_laplace > 0.0 {
            each.push(loss::logit_laplace(raw_nc, samples_nc) / num_values);
        }
        if config.gradient_difference > 0.0 {
            each.push(loss::gradient_difference(values_nc, samples_nc) / num_samples);
        }
        if config.frame_difference > 0.0 {
            each.push(loss::frame_difference(values_nc, samples_nc) / num_samples);
        }
        // Similarities are sums over samples of at most 1 each.
        let share = samples_nc.size()[0] as f64 / num_samples;
        let kind = values_nc.kind();
        if config.ssim > 0.0 {
            let similarity = loss::ssim_sum_in(kind, values_nc, samples_nc);
            each.push(-similarity / num_samples + share);
        }
        if config.ms_ssim > 0.0 {
            let axes = part.signal.axes();
            let [height, width] = axes[axes.len() - 2..] else { panic!("pictures or film") };
            let scales = loss::ms_ssim_scales(height, width);
            let similarity = loss::ms_ssim_sum_in(kind, values_nc, samples_nc, scales);
            each.push(-similarity / num_samples + share);
        }
        if let Some(distance) = &self.mel {
            each.push(distance.sum(values_nc, samples_nc) / num_samples);
        }
        if let Some(distance) = &self.stft {
            each.push(distance.sum(values_nc, samples_nc) / num_samples);
        }
        if let Some(network) = &self.perceptual {
            each.push(network.distance_sum(values_nc, samples_nc) / num_samples);
        }
        let losses = self.losses();
        let mut sum: Option<Tensor> = None;
        for (loss, term) in losses.iter().zip(&each).filter(|(loss, _)| loss.weight > 0.0) {
            let weighted =
                if loss.weight == 1.0 { term.shallow_clone() } else { term * loss.weight };
            sum = Some(match sum {
                None => weighted,
                Some(sum) => sum + weighted,
            });
        }
        let sum = sum.unwrap_or_else(|| Tensor::zeros([], (Kind::Float, samples_nc.device())));
        Terms { sum, each }
    }

    /// Takes the variance from the mean of all values and of their squares.
    pub(super) fn begin(&mut self, mean: &Tensor, mean_square: &Tensor) {
        let variance = (mean_square - mean.square()).clamp_min(1e-12);
        self.variance.copy_(&variance.view([1]));
    }

    /// State that is no parameter.
    pub(super) fn state(&self) -> Option<(String, Tensor)> {
        let variance = || ("loss.variance".to_owned(), self.variance.shallow_clone());
        self.needs_variance().then(variance)
    }

    /// Whether the variance is part of what is trained on.
    pub(super) fn needs_variance(&self) -> bool {
        self.config.variance_scaled > 0.0
    }
}

/// The distances of spectra that have a weight, with filters `like` these parameters.
fn spectral(
    config: &TrainConfig,
    samples: &Samples,
    like: &Tensor,
) -> Result<(Option<MelDistance>, Option<StftDistance>), String> {
    let (form, options) = (config.spectral.form, (like.kind(), like.device()));
    let (len, rate) = (samples.signal.axes()[0], i64::from(samples.sample_rate));
    let scales = (config.loss.mel > 0.0).then(|| config.spectral.scales(len, rate)).transpose()?;
    let resolutions = (config.loss.stft > 0.0).then(|| config.spectral.resolutions(len));
    let stft = resolutions.transpose()?.map(|resolutions| StftDistance::new(&resolutions));
    Ok((scales.map(|scales| MelDistance::new(form, &scales, rate, options)), stft))
}
