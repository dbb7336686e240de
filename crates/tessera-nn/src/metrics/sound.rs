//! Figures of single sounds, in float64: one a sample, `[N]`, so that means and medians can be made of them.
//!
//! Waveforms are `[N, C, T]`. Each channel is measured by itself, and a sample's figure is the mean over
//! its channels. Silence has no figure in decibels, so a silent channel of the target is left out, and
//! a sample of which all are silent has NaN.
//!
//! What a person hears is not measured here: PESQ and ViSQOL are programs of their own.

use tch::{Device, Kind, Tensor};

use crate::loss::spectral::{
    MelDistance, MelForm, RESOLUTIONS, Resolution, Stft, StftDistance, WindowMels, mean_of_samples,
    zero_of_samples,
};

/// Most decibels that a ratio counts, and the negative of the least: that of an exact copy has no end.
pub const MOST_DECIBELS: f64 = 100.0;
/// Energy below which a channel is silent: the least step of 16 bits, once, has 1e-9.
const SILENT_ENERGY: f64 = 1e-20;
/// Windows of audiotools' STFT loss.
const STFT_WINDOWS: [i64; 2] = [2048, 512];
/// Least magnitude that it takes the logarithm of.
const STFT_FLOOR: f64 = 1e-5;

/// Scale-invariant signal-to-distortion ratio of each sample in decibels, `[N]`.
///
/// Le Roux et al. 2019 (<https://arxiv.org/abs/1811.02508>), of sounds y (outputs) and x (targets) whose
/// means are taken away: a = <y, x> / <x, x>, and 10 log10(|a x|^2 / |y - a x|^2), from -100 to 100.
/// A louder or softer copy is exact.
pub fn si_sdr(outputs_nct: &Tensor, targets_nct: &Tensor) -> Tensor {
    let (outputs, targets) = (centered(outputs_nct), centered(targets_nct));
    let energy_nc1 = energy(&targets, true);
    let scale = energy_of(&(&outputs * &targets), true) / energy_nc1.clamp_min(SILENT_ENERGY);
    let heard = scale * &targets;
    ratio(&energy(&heard, false), &energy(&(outputs - heard), false), &energy_nc1.squeeze_dim(2))
}

/// Signal-to-noise ratio of each sample in decibels, `[N]`: 10 log10(|x|^2 / |x - y|^2), from -100 to
/// 100. Nothing is centred, and loudness counts.
pub fn snr(outputs_nct: &Tensor, targets_nct: &Tensor) -> Tensor {
    let targets = targets_nct.to_kind(Kind::Double);
    let noise = outputs_nct.to_kind(Kind::Double) - &targets;
    let energy_nc = energy(&targets, false);
    ratio(&energy_nc, &energy(&noise, false), &energy_nc)
}

/// The scales of DAC's mel distance that a sound of `len` instants is long enough for.
pub fn dac_scales(len: i64) -> Vec<WindowMels> {
    let scales = MelForm::Dac.scales();
    scales.into_iter().filter(|scale| Stft::centered(scale.window).fits(len)).collect()
}

/// The mel distance that a codec of sound is told by: DAC's with its published settings, over those
/// of its seven windows that a sound of `len` instants is long enough for; none below 32 instants. Give
/// their number beside it: with fewer than seven it is another figure.
pub fn mel_distance(len: i64, sample_rate: i64, device: Device) -> Option<MelDistance> {
    let scales = dac_scales(len);
    (!scales.is_empty())
        .then(|| MelDistance::new(MelForm::Dac, &scales, sample_rate, (Kind::Double, device)))
}

/// Windows of the STFT distance that a sound of `len` instants is long enough for.
pub fn stft_windows(len: i64) -> Vec<i64> {
    STFT_WINDOWS.into_iter().filter(|window| Stft::centered(*window).fits(len)).collect()
}

/// The STFT distance of each sample, `[N]`: the mean absolute difference of magnitudes and that of
/// log10(max(magnitude, 1e-5)^2), summed over `windows`, which audiotools (and DAC) have as 2,048 and 512.
///
/// # Panics
///
/// If a window is longer than the sounds.
pub fn stft_distance(windows: &[i64], outputs_nct: &Tensor, targets_nct: &Tensor) -> Tensor {
    let [outputs_nct, targets_nct] = [outputs_nct, targets_nct].map(|t| t.to_kind(Kind::Double));
    let mut total_n = zero_of_samples(&outputs_nct);
    if outputs_nct.size()[0] == 0 {
        return total_n;
    }
    for &window in windows {
        let stft = Stft::centered(window);
        let (outputs, targets) = (stft.magnitudes(&outputs_nct), stft.magnitudes(&targets_nct));
        let log = |magnitudes: &Tensor| magnitudes.clamp_min(STFT_FLOOR).log10() * 2.0;
        let of_logs = (log(&outputs) - log(&targets)).abs();
        total_n += mean_of_samples(&((outputs - targets).abs() + of_logs));
    }
    total_n
}

/// Resolutions of Parallel WaveGAN that a sound of `len` instants is long enough for.
pub fn convergence_resolutions(len: i64) -> Vec<Resolution> {
    RESOLUTIONS.into_iter().filter(|resolution| resolution.stft().fits(len)).collect()
}

/// The spectral convergence of each sample, `[N]`, a mean over these resolutions, as
/// [`StftDistance`] has it.
///
/// # Panics
///
/// If a transform is longer than the sounds.
pub fn spectral_convergence(
    resolutions: &[Resolution],
    outputs_nct: &Tensor,
    targets_nct: &Tensor,
) -> Tensor {
    let [outputs_nct, targets_nct] = [outputs_nct, targets_nct].map(|t| t.to_kind(Kind::Double));
    StftDistance::new(resolutions).terms(&outputs_nct, &targets_nct).convergence_n
}

/// Waveforms without their mean over time, in float64.
fn centered(waves_nct: &Tensor) -> Tensor {
    let waves_nct = waves_nct.to_kind(Kind::Double);
    let means_nc1 = waves_nct.mean_dim([2i64].as_slice(), true, Kind::Double);
    waves_nct - means_nc1
}

/// Sums of squares over time.
fn energy(waves_nct: &Tensor, keeps_axis: bool) -> Tensor {
    energy_of(&waves_nct.square(), keeps_axis)
}

/// Sums over time.
fn energy_of(squares_nct: &Tensor, keeps_axis: bool) -> Tensor {
    squares_nct.sum_dim_intlist([2i64].as_slice(), keeps_axis, Kind::Double)
}

/// The mean over channels whose target is not silent of a ratio in decibels, `[N]`; all are `[N, C]`.
fn ratio(signal_nc: &Tensor, noise_nc: &Tensor, target_nc: &Tensor) -> Tensor {
    let decibels = ((signal_nc / noise_nc).log10() * 10.0).clamp(-MOST_DECIBELS, MOST_DECIBELS);
    let is_heard = target_nc.gt(SILENT_ENERGY);
    let count_n = is_heard.sum_dim_intlist([1i64].as_slice(), false, Kind::Double);
    let decibels = decibels.where_scalarother(&is_heard, 0.0);
    decibels.sum_dim_intlist([1i64].as_slice(), false, Kind::Double) / count_n
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waves(shape: &[i64], values: &[f64]) -> Tensor {
        Tensor::from_slice(values).view(shape)
    }

    fn list(tensor: &Tensor) -> Vec<f64> {
        Vec::try_from(tensor).unwrap()
    }

    /// By hand: x = (1, -1, 1, -1) and y = x + (1, 1, -1, -1) are at right angles, of equal energy: a = 1 and
    /// 0 dB. A constant that is added, and loudness, change nothing; y = 3 x is exact: 100 dB; what
    /// is at right angles to x has nothing of it: -100 dB.
    #[test]
    fn loudness_and_constants_are_no_distortion() {
        let x = [1.0, -1.0, 1.0, -1.0];
        let at_right_angles = [1.0, 1.0, -1.0, -1.0];
        let mixed: Vec<f64> = (0..4).map(|at| x[at] + at_right_angles[at]).collect();
        let moved: Vec<f64> = mixed.iter().map(|value| value * 0.2 + 5.0).collect();
        let louder = x.map(|value| 3.0 * value);
        let outputs = waves(&[4, 1, 4], &[&mixed[..], &moved, &louder, &at_right_angles].concat());
        let targets = waves(&[1, 1, 4], &x).expand([4, 1, 4], false);
        let found = list(&si_sdr(&outputs, &targets));
        for (found, expected) in found.iter().zip([0.0, 0.0, 100.0, -100.0]) {
            assert!((found - expected).abs() < 1e-9, "{found} {expected}");
        }
        // Energies 4 and 4: 0 dB; of 3 x the noise is 2 x: 10 log10(1 / 4).
        let found = list(&snr(&outputs, &targets));
        assert!((found[0]).abs() < 1e-12 && (found[2] + 10.0 * 4f64.log10()).abs() < 1e-12);
    }

    /// A channel of silence, or of a constant, is left out; where all are silent there is no figure.
    #[test]
    fn silent_channels_are_left_out() {
        let targets = waves(&[2, 2, 2], &[1.0, -1.0, 0.7, 0.7, 0.1, 0.1, 0.0, 0.0]);
        let outputs = waves(&[2, 2, 2], &[0.5, -0.5, 1.0, -1.0, 0.3, 0.2, 0.0, 0.0]);
        let found = list(&si_sdr(&outputs, &targets));
        assert_eq!(found[0], 100.0);
        assert!(found[1].is_nan());
        assert!(
            list(&snr(&targets.zeros_like(), &targets.zeros_like())).iter().all(|n| n.is_nan())
        );
    }

    #[test]
    fn figures_are_of_windows_that_a_sound_is_long_enough_for() {
        let windows = |len| dac_scales(len).iter().map(|scale| scale.window).collect::<Vec<_>>();
        assert_eq!(windows(127), [32, 64]);
        assert_eq!((windows(31), windows(2048).len()), (vec![], 7));
        assert!(mel_distance(31, 8000, Device::Cpu).is_none());
        assert_eq!(mel_distance(500, 8000, Device::Cpu).unwrap().num_scales(), 4);
        assert_eq!((stft_windows(511), stft_windows(2047)), (vec![], vec![512]));
        assert_eq!(convergence_resolutions(1500).len(), 2);
    }

    #[test]
    fn no_samples_have_no_figures() {
        let none = Tensor::zeros([0, 1, 600], (Kind::Float, Device::Cpu));
        let resolutions = convergence_resolutions(600);
        for found in [
            si_sdr(&none, &none),
            snr(&none, &none),
            stft_distance(&[512], &none, &none),
            spectral_convergence(&resolutions, &none, &none),
        ] {
            assert_eq!((found.size(), found.kind()), (vec![0], Kind::Double));
        }
    }
}
