//! SI-SDR and the log-mel distance of sounds, as Tessera's trainings have them.

use std::f64::consts::TAU;
use std::sync::Arc;

use realfft::{RealFftPlanner, RealToComplex};

use crate::error::BaselineError;
use crate::item::Sound;

/// Most decibels that a ratio counts, and the negative of the least.
const MOST_DECIBELS: f64 = 100.0;
/// Energy below which a channel is silent.
const SILENT_ENERGY: f64 = 1e-20;
/// Least mel that a logarithm is taken of.
const FLOOR: f64 = 1e-5;
/// The least window of the mel distance and its filters; each further scale has twice of both.
const LEAST_WINDOW: usize = 32;
const LEAST_MELS: usize = 5;
const SCALES: usize = 7;

/// Scale-invariant signal-to-distortion ratio in decibels, from -100 to 100, the mean over channels.
///
/// Le Roux et al. 2019 (<https://arxiv.org/abs/1811.02508>), of sounds whose means are taken away. Silent
/// channels of the original are left out; `None` if all are.
///
/// # Errors
///
/// [`BaselineError::Item`] if one is malformed or they differ in length, rate or channels.
pub fn si_sdr(original: &Sound, decoded: &Sound) -> Result<Option<f64>, BaselineError> {
    alike(original, decoded)?;
    let channels = usize::from(original.channels);
    let ratios = (0..channels).filter_map(|channel| {
        let [x, y] = [original, decoded].map(|sound| centered(sound.channel(channel)));
        ratio(&x, &y)
    });
    let ratios: Vec<f64> = ratios.collect();
    let number = ratios.len() as f64;
    Ok((!ratios.is_empty()).then(|| ratios.iter().sum::<f64>() / number))
}

fn ratio(x: &[f64], y: &[f64]) -> Option<f64> {
    let energy: f64 = x.iter().map(|x| x * x).sum();
    if energy < SILENT_ENERGY {
        return None;
    }
    let scale = x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>() / energy;
    let (mut heard, mut noise) = (0.0, 0.0);
    for (x, y) in x.iter().zip(y) {
        heard += (scale * x).powi(2);
        noise += (y - scale * x).powi(2);
    }
    // Of silence nothing is heard: zero by zero is as bad as can be.
    let decibels = if heard == 0.0 { -MOST_DECIBELS } else { 10.0 * (heard / noise).log10() };
    Some(decibels.clamp(-MOST_DECIBELS, MOST_DECIBELS))
}

fn centered(values: Vec<f64>) -> Vec<f64> {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    values.into_iter().map(|value| value - mean).collect()
}

/// The mel distance that DAC is told by, Kumar et al. 2023 (<https://arxiv.org/abs/2306.06546>).
///
/// Magnitudes of centered short-time transforms (periodic Hann windows of 32, 64, ... 2,048 instants, a
/// quarter of it apart, ends mirrored) go through 5, 10, ... 320 of Slaney's filters from 0 Hz to half the rate;
/// the mean absolute difference of log10(max(mel, 1e-5)) over frames, filters and channels is summed over
/// the windows of which half is shorter than the sound. `None` if none is.
///
/// # Errors
///
/// [`BaselineError::Item`] if one is malformed or they differ in length, rate or channels.
pub fn log_mel_distance(original: &Sound, decoded: &Sound) -> Result<Option<f64>, BaselineError> {
    alike(original, decoded)?;
    let scales = (0..SCALES).map(|at| (LEAST_WINDOW << at, LEAST_MELS << at));
    let fitting = scales.filter(|(window, _)| window / 2 < original.num_instants());
    let mut total = None;
    for (window, num_mels) in fitting {
        let scale = Scale::new(window, num_mels, f64::from(original.rate));
        let mut sum = 0.0;
        for channel in 0..usize::from(original.channels) {
            let [x, y] = [original, decoded].map(|sound| scale.log_mels(&sound.channel(channel)));
            let differences = x.iter().zip(&y).map(|(x, y)| (x - y).abs());
            sum += differences.sum::<f64>() / x.len() as f64;
        }
        *total.get_or_insert(0.0) += sum / f64::from(original.channels);
    }
    Ok(total)
}

/// A window with its transform and its filters.
struct Scale {
    transform: Arc<dyn RealToComplex<f64>>,
    hann: Vec<f64>,
    filters: Vec<Filter>,
}

/// What each bin counts from the first that counts.
struct Filter {
    first: usize,
    weights: Vec<f64>,
}

impl Scale {
    fn new(window: usize, num_mels: usize, rate: f64) -> Self {
        let transform = RealFftPlanner::<f64>::new().plan_fft_forward(window);
        let turn = TAU / window as f64;
        let hann = (0..window).map(|at| 0.5 - 0.5 * (turn * at as f64).cos()).collect();
        Self { transform, hann, filters: filters(window, num_mels, rate) }
    }

    /// log10 of the mels of each frame, one frame after the other.
    fn log_mels(&self, values: &[f64]) -> Vec<f64> {
        let mut frame = self.transform.make_input_vec();
        let mut bins = self.transform.make_output_vec();
        let (half, hop) = (frame.len() / 2, frame.len() / 4);
        let mut mels = Vec::new();
        for middle in (0..=values.len()).step_by(hop) {
            for (at, value) in frame.iter_mut().enumerate() {
                *value = self.hann[at] * values[mirrored(middle + at, half, values.len())];
            }
            self.transform.process(&mut frame, &mut bins).expect("of the plan's sizes");
            let magnitudes: Vec<f64> = bins.iter().map(|bin| bin.norm()).collect();
            mels.extend(self.filters.iter().map(|Filter { first, weights }| {
                let pairs = weights.iter().zip(&magnitudes[*first..]);
                pairs.map(|(a, b)| a * b).sum::<f64>().max(FLOOR).log10()
            }));
        }
        mels
    }
}

/// The instant that stands at `at` of a sound that has `half` mirrored instants before its first.
fn mirrored(at: usize, half: usize, len: usize) -> usize {
    let place = at.abs_diff(half);
    if at > half && place >= len { 2 * (len - 1) - place } else { place }
}

/// Slaney's triangles of area 1.
fn filters(window: usize, num_mels: usize, rate: f64) -> Vec<Filter> {
    let top = mels(rate / 2.0);
    let corner = |at: usize| hertz(top * at as f64 / (num_mels + 1) as f64);
    let filter = |at: usize| {
        let (left, middle, right) = (corner(at), corner(at + 1), corner(at + 2));
        let weight = |bin: usize| {
            let hertz = bin as f64 * rate / window as f64;
            let (up, down) = ((hertz - left) / (middle - left), (right - hertz) / (right - middle));
            up.min(down).max(0.0) * 2.0 / (right - left)
        };
        let bins = (0..=window / 2).map(|bin| (bin, weight(bin)));
        let counted: Vec<(usize, f64)> = bins.filter(|(_, weight)| *weight > 0.0).collect();
        let first = counted.first().map_or(0, |(bin, _)| *bin);
        Filter { first, weights: counted.into_iter().map(|(_, weight)| weight).collect() }
    };
    (0..num_mels).map(filter).collect()
}

fn mels(hertz: f64) -> f64 {
    if hertz < 1000.0 { hertz * 0.015 } else { 15.0 + 27.0 * (hertz / 1000.0).ln() / 6.4f64.ln() }
}

fn hertz(mels: f64) -> f64 {
    if mels < 15.0 { mels / 0.015 } else { 1000.0 * ((mels - 15.0) * 6.4f64.ln() / 27.0).exp() }
}

fn alike(original: &Sound, decoded: &Sound) -> Result<(), BaselineError> {
    original.check()?;
    decoded.check()?;
    let sizes = |sound: &Sound| {
        let instants = sound.num_instants();
        format!("{instants} instants of {} channels at {} Hz", sound.channels, sound.rate)
    };
    let (expected, found) = (sizes(original), sizes(decoded));
    if expected == found {
        return Ok(());
    }
    Err(BaselineError::Item { what: "a decoded sound", expected, found })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sound(channels: u16, samples: &[i16]) -> Sound {
        Sound { rate: 8000, channels, samples: samples.to_vec() }
    }

    /// The sounds of `tests/figures.py`.
    fn pair(len: i64) -> (Sound, Sound) {
        let samples: Vec<i16> =
            (0..len).map(|i| ((i * i * 37 + i * 911) % 20_001 - 10_000) as i16).collect();
        let near = samples.iter().zip(0..).map(|(value, i): (&i16, i64)| {
            (i64::from(*value) * 3 / 4 + i * 731 % 4001 - 2000) as i16
        });
        let decoded = sound(1, &near.collect::<Vec<_>>());
        (sound(1, &samples), decoded)
    }

    /// By hand, in thousands: x = (1, -1, 0), y = 2 x + (1, 1, -2): its mean is 0 and its product with x too, so that
    /// the ratio is that of |2 x|^2 = 8 and 6: 10 log10(4 / 3) = 1.2494 dB.
    #[test]
    fn si_sdr_takes_scale_and_mean_away() {
        let x = sound(1, &[1000, -1000, 0]);
        let y = sound(1, &[3000, -1000, -2000]);
        let found = si_sdr(&x, &y).expect("alike").expect("heard");
        assert!((found - 10.0 * (4.0f64 / 3.0).log10()).abs() < 1e-9, "{found}");
        assert_eq!(si_sdr(&x, &x).expect("alike"), Some(100.0));
        assert_eq!(si_sdr(&x, &sound(1, &[5, 5, 5])).expect("alike"), Some(-100.0));
    }

    #[test]
    fn silent_channels_are_left_out() {
        let x = sound(2, &[1000, 0, -1000, 0, 0, 0]);
        let y = sound(2, &[3000, 7, -1000, 3, -2000, 1]);
        let one = si_sdr(&sound(1, &[1000, -1000, 0]), &sound(1, &[3000, -1000, -2000]));
        assert_eq!(si_sdr(&x, &y).expect("alike"), one.expect("alike"));
        let silent = sound(1, &[9, 9]);
        assert_eq!(si_sdr(&silent, &silent).expect("alike"), None);
    }

    /// Values of NumPy, by `tests/figures.py`.
    #[test]
    fn figures_are_those_of_numpy() {
        let (x, y) = pair(2500);
        let found = si_sdr(&x, &y).expect("alike").expect("heard");
        assert!((found - 11.521882553223373).abs() < 1e-9, "{found}");
        let found = log_mel_distance(&x, &y).expect("alike").expect("long enough");
        assert!((found - 0.8571600206785268).abs() < 1e-9, "{found}");
        let (x, y) = pair(300);
        let found = log_mel_distance(&x, &y).expect("alike").expect("long enough");
        assert!((found - 0.592362946869435).abs() < 1e-9, "{found}");
    }

    #[test]
    fn sounds_of_two_lengths_are_not_compared() {
        let (x, _) = pair(40);
        assert!(log_mel_distance(&x, &pair(39).0).is_err());
        let (x, y) = pair(16);
        assert_eq!(log_mel_distance(&x, &y).expect("alike"), None);
    }
}
