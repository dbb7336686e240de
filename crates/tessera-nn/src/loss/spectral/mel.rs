//! Banks of triangular filters that make the bins of a spectrum as fine as hearing is.
//!
//! Filter m rises from the (m-1)-th to the m-th and falls to the (m+1)-th of M + 2 frequencies that are
//! equally far apart on the mel scale.

use tch::{Device, Kind, Tensor};

/// What a mel is, and with it how high triangles are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MelScale {
    /// f / (200 / 3) below 1 kHz, 15 + 27 ln(f / 1000) / ln 6.4 above; triangles of area 1 in hertz.
    /// From Slaney's Auditory Toolbox, librosa's default.
    Slaney,
    /// 2595 log10(1 + f / 700); triangles of height 1. From HTK, torchaudio's default.
    Htk,
}

/// Where Slaney's scale becomes logarithmic, in hertz.
const BREAK_HERTZ: f64 = 1000.0;
/// Hertz of a mel below.
const HERTZ_OF_MEL: f64 = 200.0 / 3.0;
/// Mels at which frequencies are 6.4 times as high.
const MELS_OF_6_4: f64 = 27.0;

impl MelScale {
    /// The mels of a frequency.
    pub fn mels(self, hertz: f64) -> f64 {
        match self {
            Self::Slaney if hertz < BREAK_HERTZ => hertz / HERTZ_OF_MEL,
            Self::Slaney => {
                BREAK_HERTZ / HERTZ_OF_MEL + MELS_OF_6_4 * (hertz / BREAK_HERTZ).ln() / 6.4f64.ln()
            }
            Self::Htk => 2595.0 * (1.0 + hertz / 700.0).log10(),
        }
    }

    /// The frequency of so many mels.
    pub fn hertz(self, mels: f64) -> f64 {
        let above = mels - BREAK_HERTZ / HERTZ_OF_MEL;
        match self {
            Self::Slaney if above < 0.0 => mels * HERTZ_OF_MEL,
            Self::Slaney => BREAK_HERTZ * (above * 6.4f64.ln() / MELS_OF_6_4).exp(),
            Self::Htk => 700.0 * (10f64.powf(mels / 2595.0) - 1.0),
        }
    }
}

/// A bank of filters from a frequency to half of the sample rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MelBank {
    /// The scale.
    pub scale: MelScale,
    /// Number of filters, M.
    pub num_mels: i64,
    /// Instants of the transform that it filters.
    pub size: i64,
    /// Instants a second.
    pub sample_rate: i64,
    /// Where the first filter begins, in hertz.
    pub lowest_hertz: f64,
}

impl MelBank {
    /// What each bin counts in each filter, `[M, F]` in row-major order.
    ///
    /// Half of an odd sample rate is not rounded, as it is by torchaudio.
    pub fn weights(&self) -> Vec<f64> {
        let half = self.sample_rate as f64 / 2.0;
        let (low, high) = (self.scale.mels(self.lowest_hertz), self.scale.mels(half));
        let step = (high - low) / (self.num_mels + 1) as f64;
        let corner = |at: i64| self.scale.hertz(low + step * at as f64);
        let bins = self.size / 2 + 1;
        let mut weights = Vec::with_capacity((self.num_mels * bins) as usize);
        for filter in 0..self.num_mels {
            let [left, middle, right] = [0, 1, 2].map(|side| corner(filter + side));
            let height = match self.scale {
                MelScale::Slaney => 2.0 / (right - left),
                MelScale::Htk => 1.0,
            };
            for bin in 0..bins {
                let hertz = bin as f64 * self.sample_rate as f64 / self.size as f64;
                let (rising, falling) =
                    ((hertz - left) / (middle - left), (right - hertz) / (right - middle));
                weights.push(rising.min(falling).max(0.0) * height);
            }
        }
        weights
    }

    /// Filters that are so narrow that no bin lies in them: they hear nothing.
    pub fn num_empty(&self) -> usize {
        let bins = (self.size / 2 + 1) as usize;
        self.weights().chunks(bins).filter(|filter| filter.iter().all(|&w| w == 0.0)).count()
    }

    /// The same as a tensor `[M, F]`.
    pub fn matrix(&self, kind: Kind, device: Device) -> Tensor {
        let weights = Tensor::from_slice(&self.weights());
        weights.view([self.num_mels, self.size / 2 + 1]).to_kind(kind).to_device(device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: 15 mels are 1 kHz, and 27 more are 6.4 kHz; HTK's 1 kHz are 2595 log10(17/7).
    #[test]
    fn scales_go_both_ways() {
        assert!((MelScale::Slaney.mels(500.0) - 7.5).abs() < 1e-12);
        assert!((MelScale::Slaney.mels(6400.0) - 42.0).abs() < 1e-12);
        assert!((MelScale::Htk.mels(1000.0) - 2595.0 * (17.0f64 / 7.0).log10()).abs() < 1e-9);
        for scale in [MelScale::Slaney, MelScale::Htk] {
            for hertz in [0.0, 64.0, 999.0, 1000.0, 4000.0, 22050.0] {
                let back = scale.hertz(scale.mels(hertz));
                assert!((back - hertz).abs() < 1e-9 * hertz.max(1.0), "{scale:?} {hertz} {back}");
            }
        }
    }

    /// Facts of the published settings: DAC's counts leave no filter empty from 8 to 48 kHz, and
    /// EnCodec's 64 filters at a window of 64 leave many.
    #[test]
    fn filters_without_a_bin_are_counted() {
        let dac = [(32, 5), (64, 10), (128, 20), (256, 40), (512, 80), (1024, 160), (2048, 320)];
        for sample_rate in [8000, 16000, 24000, 44100] {
            for (size, num_mels) in dac {
                let (scale, lowest_hertz) = (MelScale::Slaney, 0.0);
                let bank = MelBank { scale, num_mels, size, sample_rate, lowest_hertz };
                assert_eq!(bank.num_empty(), 0, "{bank:?}");
            }
        }
        let (scale, lowest_hertz) = (MelScale::Htk, 64.0);
        let at = |sample_rate| {
            MelBank { scale, num_mels: 64, size: 64, sample_rate, lowest_hertz }.num_empty()
        };
        assert!(at(8000) > 10 && at(44100) > at(8000), "{} {}", at(8000), at(44100));
    }
}
