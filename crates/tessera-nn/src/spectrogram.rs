//! A waveform as a picture, for people to look at.
//!
//! Levels are in decibels against a sine that fills the range of sound, from -1 to 1, and the range is
//! fixed: the same sound is equally bright in every picture, whatever stands beside it. Nothing is
//! drawn here, neither axes nor colors.

use tch::{Kind, Tensor};

use crate::loss::spectral::{MelBank, MelScale, Stft};

/// Decibels below a full sine that are black; a full sine is white.
pub const RANGE_DECIBELS: f64 = 80.0;
/// What is added to powers, so that silence has a logarithm: far below black.
const LEAST_POWER: f64 = 1e-20;

/// How a spectrogram is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spectrogram {
    /// Instants of a window.
    pub window: i64,
    /// Instants from a column to the next.
    pub hop: i64,
    /// Rows.
    pub rows: Rows,
}

/// What a row of a spectrogram is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rows {
    /// A bin of the transform: `window` / 2 + 1 rows.
    Bins,
    /// A filter of HTK's mel scale from 0 to half of the sample rate, triangles of height 1 over powers.
    Mels {
        /// Number of rows.
        num: i64,
        /// Instants a second.
        sample_rate: i64,
    },
}

impl Spectrogram {
    /// The gray levels of a sound `[C, T]`, of which the channels' powers are averaged: `[H, W]`, uint8 on the
    /// CPU. High frequencies are at the top, time runs to the right, T / `hop` + 1 columns. A full
    /// sine is 255, 80 dB below it and less are 0, and decibels lie evenly between.
    ///
    /// Frames are centered; a sound shorter than the window is lengthened by silence.
    pub fn draw(&self, waves_ct: &Tensor) -> Tensor {
        let stft = Stft { hop: self.hop, ..Stft::centered(self.window) };
        let waves = waves_ct.detach().to_kind(Kind::Double).unsqueeze(0);
        let missing = self.window - waves.size()[2];
        let waves = if missing > 0 { waves.constant_pad_nd([0, missing]) } else { waves };
        let powers_ft = stft.powers(&waves).squeeze_dim(0);
        let powers_ft = powers_ft.mean_dim([0i64].as_slice(), false, Kind::Double);
        // A full sine at a bin has half of the window's sum there, which is window / 4 of a Hann window.
        let powers_ft = powers_ft / (self.window as f64 / 4.0).powi(2);
        let rows_ht = match self.rows {
            Rows::Bins => powers_ft,
            Rows::Mels { num, sample_rate } => {
                let bank = MelBank {
                    scale: MelScale::Htk,
                    num_mels: num,
                    size: self.window,
                    sample_rate,
                    lowest_hertz: 0.0,
                };
                bank.matrix(Kind::Double, powers_ft.device()).matmul(&powers_ft)
            }
        };
        let decibels = (rows_ht + LEAST_POWER).log10() * 10.0;
        let levels = (decibels / RANGE_DECIBELS + 1.0).clamp(0.0, 1.0) * 255.0;
        levels.round().to_kind(Kind::Uint8).flip([0]).to_device(tch::Device::Cpu)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    const BINS: Spectrogram = Spectrogram { window: 64, hop: 16, rows: Rows::Bins };

    /// A sine of 8 periods a window, as loud as `level`.
    fn sine(level: f64) -> Tensor {
        let at = Tensor::arange(256, (Kind::Double, Device::Cpu));
        ((at * (std::f64::consts::TAU / 8.0)).sin() * level).view([1, 256])
    }

    fn level(picture: &Tensor, row: i64, column: i64) -> i64 {
        picture.int64_value(&[row, column])
    }

    /// By hand: a full sine at bin 8 is 0 dB there, which is row 32 - 8, and by the Hann window half
    /// as large beside it: -6.02 dB, 255 (1 - 6.02 / 80) = 235.8. A tenth of it is -20 dB: 191.25.
    #[test]
    fn levels_are_decibels_below_a_full_sine() {
        let picture = BINS.draw(&sine(1.0));
        assert_eq!((picture.size(), picture.kind()), (vec![33, 17], Kind::Uint8));
        assert_eq!([23, 24, 25].map(|row| level(&picture, row, 8)), [236, 255, 236]);
        assert_eq!([0, 20, 32].map(|row| level(&picture, row, 8)), [0; 3]);
        assert_eq!(level(&BINS.draw(&sine(0.1)), 24, 8), 191);
        assert_eq!(level(&BINS.draw(&sine(0.0)), 24, 8), 0);
    }

    /// By hand: two channels of which one is silent have half the power: -3.01 dB, 245.4.
    #[test]
    fn channels_are_averaged_in_power() {
        let both = Tensor::cat(&[sine(1.0), sine(0.0)], 0);
        assert_eq!(level(&BINS.draw(&both), 24, 8), 245);
    }

    /// Rows of mels: as many as asked for, low sounds at the bottom, nothing in a silent one. A sound shorter than
    /// the window is silent at its end.
    #[test]
    fn rows_of_mels_have_low_sounds_at_the_bottom() {
        let rows = Rows::Mels { num: 10, sample_rate: 8000 };
        let mels = Spectrogram { rows, ..BINS };
        let picture = mels.draw(&sine(1.0));
        assert_eq!(picture.size(), [10, 17]);
        // 1 kHz is 1000 of 2146 mels, near the fifth of ten filters from below.
        let column: Vec<i64> = (0..10).map(|row| level(&picture, row, 8)).collect();
        let brightest = column.iter().enumerate().max_by_key(|(_, level)| **level).unwrap().0;
        assert_eq!(brightest, 5, "{column:?}");
        assert_eq!(column[0], 0);
        assert_eq!(mels.draw(&sine(1.0).narrow(1, 0, 20)).size(), [10, 5]);
    }
}
