//! Distance of mel spectrograms at several scales, as DAC and EnCodec train with.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::mel::{MelBank, MelScale};
use super::stft::Stft;
use super::{mean_of_samples, spectral_kind, zero_of_samples};

/// Least mel that DAC takes the logarithm of, and what EnCodec adds to each.
const FLOOR: f64 = 1e-5;
/// Where EnCodec's filters begin, in hertz.
const ENCODEC_LOWEST_HERTZ: f64 = 64.0;

/// Whose distance it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MelForm {
    /// Magnitudes in Slaney's filters; the mean absolute difference of log10(max(mel, 1e-5)), summed over
    /// scales: DAC, Kumar et al. 2023 (<https://arxiv.org/abs/2306.06546>), as its code has it.
    #[default]
    Dac,
    /// Powers in HTK's filters from 64 Hz on; the mean absolute difference of mels and the mean
    /// squared one of log10(mel + 1e-5), summed over scales and divided by twice their number: EnCodec,
    /// Defossez et al. 2022 (<https://arxiv.org/abs/2210.13438>), as AudioCraft trains it.
    Encodec,
}

/// A scale: instants of the window, and the number of filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowMels {
    /// Instants of window and transform; frames are a quarter of it apart.
    pub window: i64,
    /// Number of filters.
    pub mels: i64,
}

impl MelForm {
    /// The published scales: windows of 32 to 2,048 instants with 5 to 320 filters, or of 64 to
    /// 1,024 with 64 filters each, of which many are empty at the smaller ones.
    pub fn scales(self) -> Vec<WindowMels> {
        match self {
            Self::Dac => (0..7).map(|at| WindowMels { window: 32 << at, mels: 5 << at }).collect(),
            Self::Encodec => (6..11).map(|at| WindowMels { window: 1 << at, mels: 64 }).collect(),
        }
    }

    /// The filters of a scale.
    pub fn bank(self, scale: WindowMels, sample_rate: i64) -> MelBank {
        let WindowMels { window: size, mels: num_mels } = scale;
        let (scale, lowest_hertz) = match self {
            Self::Dac => (MelScale::Slaney, 0.0),
            Self::Encodec => (MelScale::Htk, ENCODEC_LOWEST_HERTZ),
        };
        MelBank { scale, num_mels, size, sample_rate, lowest_hertz }
    }
}

/// The distance of mel spectrograms, with its filters.
#[derive(Debug)]
pub struct MelDistance {
    form: MelForm,
    /// Transforms, and filters `[M, F]`.
    scales: Vec<(Stft, Tensor)>,
}

impl MelDistance {
    /// The distance over `scales`, of sound with `sample_rate` instants a second; filters of this kind
    /// and device.
    pub fn new(
        form: MelForm,
        scales: &[WindowMels],
        sample_rate: i64,
        (kind, device): (Kind, Device),
    ) -> Self {
        let scale = |scale: &WindowMels| {
            let stft = match form {
                MelForm::Dac => Stft::centered(scale.window),
                MelForm::Encodec => Stft::full(scale.window),
            };
            (stft, form.bank(*scale, sample_rate).matrix(kind, device))
        };
        Self { form, scales: scales.iter().map(scale).collect() }
    }

    /// Number of scales.
    pub fn num_scales(&self) -> usize {
        self.scales.len()
    }

    /// Sum over samples of their distances, a scalar; with graph.
    ///
    /// # Panics
    ///
    /// As [`Self::each`].
    pub fn sum(&self, outputs_nct: &Tensor, targets_nct: &Tensor) -> Tensor {
        let each_n = self.each(outputs_nct, targets_nct);
        each_n.sum(each_n.kind())
    }

    /// The distance of each sample, `[N]`, in float64 of float64 and else in float32; with graph.
    ///
    /// * `outputs_nct`, `targets_nct`: waveforms `[N, C, T]`; N may be 0.
    ///
    /// # Panics
    ///
    /// If a window is longer than T.
    pub fn each(&self, outputs_nct: &Tensor, targets_nct: &Tensor) -> Tensor {
        let mut total_n = zero_of_samples(outputs_nct);
        if outputs_nct.size()[0] == 0 {
            return total_n;
        }
        for (stft, filters) in &self.scales {
            let filters = filters.to_kind(spectral_kind(outputs_nct));
            let mels = |waves: &Tensor| match self.form {
                MelForm::Dac => filters.matmul(&stft.magnitudes(waves)),
                MelForm::Encodec => filters.matmul(&stft.powers(waves)),
            };
            let (outputs, targets) = (mels(outputs_nct), mels(targets_nct));
            total_n += match self.form {
                MelForm::Dac => {
                    let log = |mels: &Tensor| mels.clamp_min(FLOOR).log10();
                    mean_of_samples(&(log(&outputs) - log(&targets)).abs())
                }
                MelForm::Encodec => {
                    let log = |mels: &Tensor| (mels + FLOOR).log10();
                    let of_logs = (log(&outputs) - log(&targets)).square();
                    mean_of_samples(&((outputs - targets).abs() + of_logs))
                        / (2 * self.scales.len()) as f64
                }
            };
        }
        total_n
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(shape: &[i64]) -> Tensor {
        let at = Tensor::arange(shape.iter().product::<i64>(), (Kind::Double, Device::Cpu));
        ((&at * 12.9898).sin() * 43758.5453).frac().view(shape) * 0.5
    }

    /// By hand: ten times the sound has ten times the mels, 1 apart in log10 at each of three scales;
    /// powers are 100 times as large.
    #[test]
    fn a_louder_copy_is_one_away_at_each_scale() {
        let targets = noise(&[2, 1, 400]);
        let scales = &MelForm::Dac.scales()[..3];
        let distance = MelDistance::new(MelForm::Dac, scales, 8000, (Kind::Double, Device::Cpu));
        let each: Vec<f64> = distance.each(&(&targets * 10.0), &targets).try_into().unwrap();
        assert!(each.iter().all(|value| (value - 3.0).abs() < 1e-12), "{each:?}");
        assert_eq!(distance.each(&targets, &targets).sum(Kind::Double).double_value(&[]), 0.0);
    }

    /// Silence has magnitudes of 0, where a length has no derivative and a logarithm no end.
    #[test]
    fn gradients_are_finite_in_silence() {
        for form in [MelForm::Dac, MelForm::Encodec] {
            for kind in [Kind::Float, Kind::Double] {
                let distance =
                    MelDistance::new(form, &form.scales()[..2], 8000, (kind, Device::Cpu));
                let targets = noise(&[1, 1, 300]).to_kind(kind);
                let outputs = targets.zeros_like().set_requires_grad(true);
                let sum = distance.sum(&outputs, &targets);
                assert!(sum.double_value(&[]) > 0.1);
                let gradients = Tensor::run_backward(&[sum], &[&outputs], false, false);
                assert!(gradients[0].isfinite().all().int64_value(&[]) == 1, "{form:?}");
            }
        }
    }

    #[test]
    fn the_names_are_those_of_a_configuration() {
        let of = |form| serde_json::to_string(&form).unwrap();
        assert_eq!([of(MelForm::Dac), of(MelForm::Encodec)], ["\"dac\"", "\"encodec\""]);
    }
}
