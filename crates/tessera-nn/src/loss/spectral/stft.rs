//! The short-time Fourier transform, with the framings that codecs of sound use.
//!
//! Windows are periodic Hann windows. A window that is shorter than the transform stands in its middle.

use tch::{Kind, Tensor};

use super::spectral_kind;

/// Which instants frames stand at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Frame t has instant t `hop` in its middle; half of a transform is mirrored at both ends. A sound
    /// of T instants has T / `hop` + 1 frames, rounded down: `torch.stft`, librosa, audiotools, PWG.
    Centered,
    /// (`size` - `hop`) / 2 instants are mirrored at both ends, and zeros follow until the last
    /// frame is full. A sound has T / `hop` frames, rounded up where `size` - `hop` is even: EnCodec's
    /// spectrograms in AudioCraft.
    Full,
}

/// A short-time Fourier transform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stft {
    /// Instants of a transform; there are `size` / 2 + 1 bins.
    pub size: i64,
    /// Instants of the window, at most `size`.
    pub window: i64,
    /// Instants from a frame to the next.
    pub hop: i64,
    /// Where frames stand.
    pub framing: Framing,
    /// Whether the window is divided by the length of it as a vector, so that noise of variance 1
    /// has bins of mean square 1.
    pub is_normalized: bool,
}

impl Stft {
    /// Centered frames, of which each covers three quarters of the one before: DAC's.
    pub fn centered(window: i64) -> Self {
        let (size, hop, framing) = (window, window / 4, Framing::Centered);
        Self { size, window, hop, framing, is_normalized: false }
    }

    /// The same overlap in full frames, with a normalised window: EnCodec's.
    pub fn full(window: i64) -> Self {
        Self { framing: Framing::Full, is_normalized: true, ..Self::centered(window) }
    }

    /// Number of bins, F.
    pub fn num_bins(&self) -> i64 {
        self.size / 2 + 1
    }

    /// Whether a sound of `len` instants is as long as a transform. Shorter ones would be seen
    /// through their mirror images more than themselves.
    pub fn fits(&self, len: i64) -> bool {
        self.size <= len
    }

    /// The spectra of waveforms `[N, C, T]` of one sample at least, complex `[N, C, F, frames]`; with
    /// graph. Float64 of float64, else in float32.
    ///
    /// # Panics
    ///
    /// If the sound does not [fit](Self::fits).
    pub fn spectra(&self, waves_nct: &Tensor) -> Tensor {
        let (num, channels, len) = waves_nct.size3().expect("waveforms are [N, C, T]");
        assert!(self.fits(len), "a transform of {} instants over {len}", self.size);
        let kind = spectral_kind(waves_nct);
        let rows = waves_nct.to_kind(kind).reshape([1, num * channels, len]);
        let (before, behind, zeros) = self.padding(len);
        let padded = rows.pad([before, behind], "reflect", None);
        let padded = if zeros > 0 { padded.constant_pad_nd([0, zeros]) } else { padded };
        let window = self.window_of((kind, waves_nct.device()));
        let spectra = padded.squeeze_dim(0).stft_center(
            self.size,
            self.hop,
            self.window,
            Some(window),
            false,
            "reflect",
            false,
            true,
            true,
            false,
        );
        let frames = spectra.size()[2];
        spectra.view([num, channels, self.num_bins(), frames])
    }

    /// The lengths of the spectra's complex numbers, `[N, C, F, frames]`. The gradient where one is
    /// 0 is 0.
    ///
    /// # Panics
    ///
    /// As [`Self::spectra`].
    pub fn magnitudes(&self, waves_nct: &Tensor) -> Tensor {
        self.spectra(waves_nct).abs()
    }

    /// Their squares, which have a gradient everywhere.
    ///
    /// # Panics
    ///
    /// As [`Self::spectra`].
    pub fn powers(&self, waves_nct: &Tensor) -> Tensor {
        let parts = self.spectra(waves_nct).view_as_real().square();
        parts.select(-1, 0) + parts.select(-1, 1)
    }

    /// Mirrored instants before and behind, and zeros behind those.
    fn padding(&self, len: i64) -> (i64, i64, i64) {
        match self.framing {
            Framing::Centered => (self.size / 2, self.size / 2, 0),
            Framing::Full => {
                let side = (self.size - self.hop) / 2;
                let past = (len + 2 * side - self.size) % self.hop;
                (side, side, (self.hop - past) % self.hop)
            }
        }
    }

    fn window_of(&self, (kind, device): (Kind, tch::Device)) -> Tensor {
        let window = Tensor::hann_window_periodic(self.window, true, (Kind::Double, device));
        let window = match self.is_normalized {
            true => &window / window.square().sum(Kind::Double).sqrt(),
            false => window,
        };
        window.to_kind(kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    fn wave(len: i64) -> Tensor {
        let at = Tensor::arange(2 * len, (Kind::Double, Device::Cpu));
        (at * 0.37).sin().view([1, 2, len])
    }

    /// The definition, term by term: frame t and bin f are the sum over i of w[i] x[t hop + i - start]
    /// e^(-2 pi j f i / size), with the sound mirrored beyond its ends.
    #[test]
    fn spectra_are_the_sums_of_their_definition() {
        for (stft, start, frames) in [
            (Stft::centered(16), 8, 6),
            (Stft { hop: 5, window: 12, ..Stft::centered(16) }, 8, 5),
            (Stft { is_normalized: false, ..Stft::full(16) }, 6, 6),
        ] {
            let len = 21;
            let wave = wave(len);
            let spectra = stft.spectra(&wave);
            assert_eq!(spectra.size(), [1, 2, 9, frames], "{stft:?}");
            let at = |instant: i64| {
                let mirrored = if instant < 0 { -instant } else { instant };
                // Behind the mirror there are zeros.
                let past = mirrored - (len - 1);
                if past > start { 0.0 } else { wave.double_value(&[0, 1, len - 1 - past.abs()]) }
            };
            let gap = (stft.size - stft.window) / 2;
            for (frame, bin) in [(0, 1), (2, 0), (frames - 1, 3), (frames - 1, 8)] {
                let (mut real, mut imaginary) = (0.0, 0.0);
                for i in 0..stft.window {
                    let turn = std::f64::consts::TAU / stft.window as f64 * i as f64;
                    let value = (0.5 - 0.5 * turn.cos()) * at(frame * stft.hop + gap + i - start);
                    let angle = std::f64::consts::TAU * (bin * (gap + i)) as f64 / stft.size as f64;
                    real += value * angle.cos();
                    imaginary -= value * angle.sin();
                }
                let found = spectra.view_as_real();
                for (part, expected) in [real, imaginary].into_iter().enumerate() {
                    let found = found.double_value(&[0, 1, bin, frame, part as i64]);
                    assert!((found - expected).abs() < 1e-12, "{stft:?} {frame} {bin}: {found}");
                }
            }
        }
    }

    /// Full frames of a length that is a multiple of the hop need no zeros: T / hop frames; any
    /// other length has one more.
    #[test]
    fn frames_cover_the_sound() {
        for (len, frames) in [(64, 16), (65, 17), (67, 17), (68, 17)] {
            assert_eq!(Stft::full(16).spectra(&wave(len)).size()[3], frames, "{len}");
            assert_eq!(Stft::centered(16).spectra(&wave(len)).size()[3], len / 4 + 1, "{len}");
        }
        assert!(Stft::centered(16).fits(16) && !Stft::centered(16).fits(15));
    }

    /// By hand: a Hann window's squares sum to 3/8 of its length, so an impulse in its middle becomes
    /// 1 / sqrt(3/8 16) at every bin.
    #[test]
    fn a_normalized_window_has_length_one() {
        let mut wave = Tensor::zeros([1, 1, 64], (Kind::Double, Device::Cpu));
        let _ = wave.get(0).get(0).get(32).fill_(1.0);
        // A full frame starts 6 instants before its number times 4, so none has its middle at 32:
        let stft = Stft { framing: Framing::Centered, ..Stft::full(16) };
        let powers = stft.powers(&wave).select(3, 8);
        assert!((powers - 1.0 / 6.0).abs().max().double_value(&[]) < 1e-15);
        wave = wave.to_kind(Kind::Half);
        assert_eq!(stft.magnitudes(&wave).kind(), Kind::Float);
    }
}
