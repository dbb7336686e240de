//! How far sounds are apart in their spectra, which say how they sound and not where each wave is.
//!
//! Waveforms are `[N, C, T]`; each channel is compared by itself, as a sample of its own would be, and
//! a sample's value is the mean over its channels. Nothing is a statistic of a batch: values are
//! one a sample, `[N]`, so that parts of a batch add up to the whole.
//!
//! Magnitudes do not see phase. Train with an error of values beside them, or with a critic.

mod mel;
mod mel_distance;
mod stft;
mod stft_distance;

use tch::{Kind, Tensor};

pub use self::mel::{MelBank, MelScale};
pub use self::mel_distance::{MelDistance, MelForm, WindowMels};
pub use self::stft::{Framing, Stft};
pub use self::stft_distance::{RESOLUTIONS, Resolution, StftDistance, StftTerms};

/// The kind that spectra of waveforms are computed in: float64 for those, float32 for all others.
pub(crate) fn spectral_kind(waves: &Tensor) -> Kind {
    match waves.kind() {
        Kind::Double => Kind::Double,
        _ => Kind::Float,
    }
}

/// The mean over all but the first axis, `[N]`.
pub(crate) fn mean_of_samples(values: &Tensor) -> Tensor {
    let others: Vec<i64> = (1..values.dim() as i64).collect();
    values.mean_dim(others.as_slice(), false, values.kind())
}

/// Zeros `[N]` with a graph, for waveforms of which there are none or of which nothing is compared.
pub(crate) fn zero_of_samples(waves_nct: &Tensor) -> Tensor {
    let kind = spectral_kind(waves_nct);
    (waves_nct.to_kind(kind) * 0.0).sum_dim_intlist([1i64, 2].as_slice(), false, kind)
}
