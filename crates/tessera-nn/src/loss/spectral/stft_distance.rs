//! Distance of spectrograms at several resolutions, as Parallel WaveGAN trains with.

use tch::Tensor;

use super::stft::{Framing, Stft};
use super::{mean_of_samples, zero_of_samples};

/// Least power.
const LEAST_POWER: f64 = 1e-7;
/// Added to magnitudes before their logarithm, and to the length that convergence is divided by.
const EPSILON: f64 = f32::EPSILON as f64;

/// A resolution of a spectrogram, in instants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resolution {
    /// Of a transform.
    pub size: i64,
    /// Of its window, at most `size`.
    pub window: i64,
    /// From a frame to the next.
    pub hop: i64,
}

/// Those of Parallel WaveGAN: Yamamoto et al. 2020 (<https://arxiv.org/abs/1910.11480>), table 1.
pub const RESOLUTIONS: [Resolution; 3] = [
    Resolution { size: 1024, window: 600, hop: 120 },
    Resolution { size: 2048, window: 1200, hop: 240 },
    Resolution { size: 512, window: 240, hop: 50 },
];

impl Resolution {
    /// Centered frames of it.
    pub fn stft(self) -> Stft {
        let Self { size, window, hop } = self;
        Stft { size, window, hop, framing: Framing::Centered, is_normalized: false }
    }
}

/// The distance of spectrograms: half of the spectral convergence |X - Y| / |X|, lengths over all
/// bins and frames, and half of the mean of |ln X - ln Y|; a mean over resolutions.
///
/// Follows AudioCraft's code, but for one thing: there, and in Parallel WaveGAN and auraloss, the
/// convergence is one quotient for the whole batch. Here each channel of each sample has its own,
/// as in Jukebox (<https://arxiv.org/abs/2005.00341>), so that parts of a batch add up. Magnitudes X
/// (target) and Y are sqrt(max(power, 1e-7)); 2^-23 is added before the logarithm and to |X|.
#[derive(Debug, Clone)]
pub struct StftDistance {
    resolutions: Vec<Stft>,
}

/// The two terms of each sample, `[N]` each; means over resolutions and channels.
#[derive(Debug)]
pub struct StftTerms {
    /// Spectral convergence: the share of the target's spectrum that is missed; 1 of silence.
    pub convergence_n: Tensor,
    /// Mean absolute difference of natural logarithms.
    pub logarithms_n: Tensor,
}

impl StftDistance {
    /// The distance over these resolutions.
    pub fn new(resolutions: &[Resolution]) -> Self {
        Self { resolutions: resolutions.iter().map(|resolution| resolution.stft()).collect() }
    }

    /// Sum over samples of their distances, a scalar; with graph.
    ///
    /// # Panics
    ///
    /// As [`Self::terms`].
    pub fn sum(&self, outputs_nct: &Tensor, targets_nct: &Tensor) -> Tensor {
        let StftTerms { convergence_n, logarithms_n } = self.terms(outputs_nct, targets_nct);
        let kind = convergence_n.kind();
        (convergence_n + logarithms_n).sum(kind) * 0.5
    }

    /// The terms of each sample, in float64 of float64 and else in float32; with graph.
    ///
    /// * `outputs_nct`, `targets_nct`: waveforms `[N, C, T]`; N may be 0.
    ///
    /// # Panics
    ///
    /// If a transform is longer than T.
    pub fn terms(&self, outputs_nct: &Tensor, targets_nct: &Tensor) -> StftTerms {
        // Two tensors: each is added to in place.
        let zero_n = || zero_of_samples(outputs_nct);
        let mut terms = StftTerms { convergence_n: zero_n(), logarithms_n: zero_n() };
        if outputs_nct.size()[0] == 0 {
            return terms;
        }
        let count = self.resolutions.len() as f64;
        for stft in &self.resolutions {
            let magnitudes = |waves: &Tensor| stft.powers(waves).clamp_min(LEAST_POWER).sqrt();
            let (outputs, targets) = (magnitudes(outputs_nct), magnitudes(targets_nct));
            let length = |spectra: &Tensor| spectra.norm_scalaropt_dim(2, [2i64, 3], false);
            let convergence_nc = length(&(&targets - &outputs)) / (length(&targets) + EPSILON);
            let logarithms = |magnitudes: Tensor| (magnitudes + EPSILON).log();
            let apart = (logarithms(outputs) - logarithms(targets)).abs();
            terms.convergence_n += mean_of_samples(&convergence_nc) / count;
            terms.logarithms_n += mean_of_samples(&apart) / count;
        }
        terms
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    /// By hand: half of a sound misses half of its spectrum, and is ln 2 away but for what is added
    /// to magnitudes, which are far above 2^-23.
    #[test]
    fn half_of_a_sound_is_half_away() {
        let at = Tensor::arange(1200, (Kind::Double, Device::Cpu));
        let targets = (((&at * 12.9898).sin() * 43758.5453).frac() * 100.0).view([1, 2, 600]);
        let distance = StftDistance::new(&[RESOLUTIONS[2]]);
        let StftTerms { convergence_n, logarithms_n } = distance.terms(&(&targets * 0.5), &targets);
        assert!((convergence_n.double_value(&[0]) - 0.5).abs() < 1e-9);
        assert!((logarithms_n.double_value(&[0]) - 2f64.ln()).abs() < 1e-5);
    }

    /// Equal sounds are a length of 0, and silence is one of no power: neither gives NaN.
    #[test]
    fn gradients_are_finite_where_nothing_is_missed() {
        let distance = StftDistance::new(&[RESOLUTIONS[2]]);
        for level in [0.0, 0.3] {
            let targets = Tensor::full([1, 1, 600], level, (Kind::Float, Device::Cpu));
            let outputs = targets.copy().set_requires_grad(true);
            let sum = distance.sum(&outputs, &targets);
            assert_eq!(sum.double_value(&[]), 0.0);
            let gradients = Tensor::run_backward(&[sum], &[&outputs], false, false);
            assert_eq!(gradients[0].abs().max().double_value(&[]), 0.0);
        }
    }
}
