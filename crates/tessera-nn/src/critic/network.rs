//! One network of a critic: a view of the samples, layers that each give a map, logits.

use tch::Tensor;

use super::Opinion;
use super::period::PeriodPadding;
use super::period::fold;
use super::spectral::spectrum;
use crate::chain::Block;
use crate::layers::activation::leaky_relu;
use crate::layers::{Conv, GroupNorm};
use crate::parameters::Parameters;

/// What a network sees of samples.
#[derive(Debug, Clone, Copy)]
pub(super) enum View {
    /// The samples `[N, C, ..]` themselves.
    Samples,
    /// Spectra of windows of sound `[N, C, T]`: `[N, 2 C, frames, window / 2 + 1]`.
    Spectrum {
        /// Instants of a window.
        window: i64,
    },
    /// Sound `[N, C, T]` folded: `[N, C, periods, period]`.
    Folded {
        /// Instants of a period.
        period: i64,
        /// How the last period is filled.
        padding: PeriodPadding,
    },
}

impl View {
    fn of(self, samples_nc: &Tensor) -> Tensor {
        match self {
            Self::Samples => samples_nc.shallow_clone(),
            Self::Spectrum { window } => spectrum(samples_nc, window),
            Self::Folded { period, padding } => fold(samples_nc, period, padding),
        }
    }
}

/// A network that judges samples.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) view: View,
    pub(super) layers: Vec<Layer>,
    pub(super) logits: Conv,
    /// Whether the logits are a map of features too.
    pub(super) logits_are_map: bool,
}

impl Network {
    pub(super) fn judge(&self, parameters: &Parameters, samples_nc: &Tensor) -> Opinion {
        let mut hidden = self.view.of(samples_nc);
        let mut maps = Vec::new();
        for layer in &self.layers {
            hidden = layer.forward(parameters, &hidden);
            maps.push(hidden.shallow_clone());
        }
        let logits = self.logits.forward(parameters, &hidden);
        if self.logits_are_map {
            maps.push(logits.shallow_clone());
        }
        Opinion { logits, maps }
    }
}

/// Convolution, norm, LeakyReLU.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) conv: Conv,
    pub(super) norm: Option<GroupNorm>,
    /// Of the LeakyReLU, below 0.
    pub(super) slope: f64,
}

impl Block for Layer {
    fn forward(&self, parameters: &Parameters, input: &Tensor) -> Tensor {
        let mut hidden = self.conv.forward(parameters, input);
        if let Some(norm) = &self.norm {
            hidden = norm.forward(parameters, &hidden);
        }
        leaky_relu(&hidden, self.slope)
    }
}

/// What is wrong with the slope of a LeakyReLU, if anything.
pub(super) fn validate_slope(at: &str, slope: f64) -> Result<(), String> {
    match (0.0..1.0).contains(&slope) {
        true => Ok(()),
        false => Err(format!("{at}.slope should be at least 0 and below 1, found {slope}")),
    }
}
