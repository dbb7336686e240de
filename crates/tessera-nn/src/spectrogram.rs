//! A waveform as a picture, for people to look at and for networks that know pictures alone.
//!
//! Levels are in decibels against a sine that fills the range of sound, from -1 to 1, and the range is
//! fixed: the same sound is equally bright in every picture, whatever stands beside it. Nothing is
//! drawn here, neither axes nor colors.

use tch::{Kind, Tensor};

use crate::loss::spectral::{MelBank, MelScale, Stft, spectral_kind};

/// Decibels below a full sine that are black; a full sine is white.
pub const RANGE_DECIBELS: f64 = 80.0;
/// What is added to powers, so that silence has a logarithm: far below black.
const LEAST_POWER: f64 = 1e-20;
/// Columns of a spectrogram that people look at, about, and instants of its shortest window and its longest.
const COLUMNS: i64 = 128;
const WINDOWS: (i64, i64) = (32, 1024);
/// What networks see: mels, and a window's milliseconds before it is lengthened to a power of two.
const NUM_MELS: i64 = 64;
const MILLISECONDS: i64 = 32;

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
    /// What people look at of a sound of so many instants: bins, and about 128 columns.
    pub fn of_length(instants: i64) -> Self {
        let mut window = WINDOWS.0;
        while window < WINDOWS.1 && window * COLUMNS < 4 * instants {
            window *= 2;
        }
        Self { window, hop: window / 4, rows: Rows::Bins }
    }

    /// What networks see of a sound with so many instants a second: 64 mels, and windows of 32 ms, lengthened to the
    /// next power of two, of which each covers three quarters of the one before.
    pub fn of_rate(sample_rate: i64) -> Self {
        let least = (sample_rate * MILLISECONDS + 999) / 1000;
        let window = (least.max(WINDOWS.0) as u64).next_power_of_two() as i64;
        Self { window, hop: window / 4, rows: Rows::Mels { num: NUM_MELS, sample_rate } }
    }

    /// Rows and columns of the picture of a sound of so many instants.
    pub fn size(&self, instants: i64) -> [i64; 2] {
        let rows = match self.rows {
            Rows::Bins => self.window / 2 + 1,
            Rows::Mels { num, .. } => num,
        };
        [rows, instants.max(self.window) / self.hop + 1]
    }

    /// The levels of sounds `[N, C, T]`, of which the channels' powers are averaged: `[N, 1, H, W]` in [0, 1], float64 of
    /// float64 and else float32, without graph. Low frequencies are in the first rows, time runs to the right, and
    /// [`Self::size`] says how many of both. A full sine is 1, 80 dB below it and less are 0, and decibels lie evenly
    /// between.
    ///
    /// Frames are centered; a sound shorter than the window is lengthened by silence.
    pub fn levels(&self, waves_nct: &Tensor) -> Tensor {
        let (num, _, instants) = waves_nct.size3().expect("waveforms are [N, C, T]");
        let (kind, device) = (spectral_kind(waves_nct), waves_nct.device());
        if num == 0 {
            let [height, width] = self.size(instants);
            return Tensor::zeros([0, 1, height, width], (kind, device));
        }
        let stft = Stft { hop: self.hop, ..Stft::centered(self.window) };
        let waves = waves_nct.detach().to_kind(kind);
        let missing = self.window - instants;
        let waves = if missing > 0 { waves.constant_pad_nd([0, missing]) } else { waves };
        let powers_nft = stft.powers(&waves).mean_dim([1i64].as_slice(), false, kind);
        // A full sine at a bin has half of the window's sum there, which is window / 4 of a Hann window.
        let powers_nft = powers_nft / (self.window as f64 / 4.0).powi(2);
        let rows_nht = match self.rows {
            Rows::Bins => powers_nft,
            Rows::Mels { num, sample_rate } => {
                let bank = MelBank {
                    scale: MelScale::Htk,
                    num_mels: num,
                    size: self.window,
                    sample_rate,
                    lowest_hertz: 0.0,
                };
                bank.matrix(kind, device).matmul(&powers_nft)
            }
        };
        let decibels = (rows_nht + LEAST_POWER).log10() * 10.0;
        (decibels / RANGE_DECIBELS + 1.0).clamp(0.0, 1.0).unsqueeze(1)
    }

    /// The gray levels of a sound `[C, T]`: [`Self::levels`] times 255, `[H, W]`, uint8 on the CPU, with high frequencies
    /// at the top.
    pub fn draw(&self, waves_ct: &Tensor) -> Tensor {
        let levels = self.levels(&waves_ct.to_kind(Kind::Double).unsqueeze(0)) * 255.0;
        let rows_ht = levels.round().to_kind(Kind::Uint8).squeeze_dim(0).squeeze_dim(0);
        rows_ht.flip([0]).to_device(tch::Device::Cpu)
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
    /// By hand: 8 and 16 kHz have windows of 256 and 512 instants, 44.1 kHz needs 1412 and has 2048. 8000 instants are 125
    /// steps of 64; what people look at of them has windows of 256 too: 128 of them with a hop of a quarter are 8192.
    #[test]
    fn windows_follow_from_rate_or_length() {
        let windows = [8000, 16_000, 44_100, 8].map(|rate| Spectrogram::of_rate(rate).window);
        assert_eq!(windows, [256, 512, 2048, 32]);
        let mels = Spectrogram::of_rate(8000);
        assert_eq!([mels.size(8000), mels.size(100)], [[64, 126], [64, 5]]);
        let bins = Spectrogram::of_length(8000);
        assert_eq!((bins.window, bins.size(8000)), (256, [129, 126]));
        for sounds in [2, 0] {
            let waves_nct = Tensor::zeros([sounds, 2, 100], (Kind::Float, Device::Cpu));
            assert_eq!(mels.levels(&waves_nct).size(), [sounds, 1, 64, 5]);
        }
    }
}
