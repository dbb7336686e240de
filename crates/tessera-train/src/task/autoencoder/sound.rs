//! Figures of reconstructed sound over a split.
//!
//! Every sum is one over samples in float64, so it is the same for any number of ranks and any size of
//! batches up to rounding. A median needs all values at once: what is summed for it is a
//! histogram of steps of 0.1 dB, and the median is right to half of a step.

use tch::{Device, Kind, Tensor};
use tessera_nn::Signal;
use tessera_nn::loss::MelDistance;
use tessera_nn::loss::spectral::Resolution;
use tessera_nn::metrics::sound;

use crate::engine::figures::Figure;

/// Samples that are computed at once: spectra in float64 take eighty times the memory of bytes.
const AT_ONCE: i64 = 32;
/// Where the histogram of SI-SDR begins and ends, in decibels. What lies beyond counts in the last steps.
const RANGE: (f64, f64) = (-60.0, 60.0);
/// Its steps.
const STEPS: i64 = 1200;
/// Sums before the histogram: samples that are not silent; of those SI-SDR and SNR; of all mel distance, STFT
/// distance and spectral convergence.
const HEAD: i64 = 6;

/// What sounds are compared by.
#[derive(Debug)]
pub(super) struct Sound {
    /// DAC's mel distance; none where the sample rate is unknown or a sample is shorter than its windows.
    mel: Option<MelDistance>,
    /// Of the STFT distance.
    windows: Vec<i64>,
    /// Of the spectral convergence.
    resolutions: Vec<Resolution>,
}

impl Sound {
    /// Length of its sums.
    pub(super) const NUM_SUMS: i64 = HEAD + STEPS;

    /// For samples of `signal`, where it is sound, with `sample_rate` instants a second; 0: unknown.
    pub(super) fn of(signal: &Signal, sample_rate: u32, device: Device) -> Option<Self> {
        let Signal::Audio { samples, .. } = *signal else { return None };
        let is_known = sample_rate > 0;
        Some(Self {
            mel: is_known
                .then(|| sound::mel_distance(samples, i64::from(sample_rate), device))
                .flatten(),
            windows: sound::stft_windows(samples),
            resolutions: sound::convergence_resolutions(samples),
        })
    }

    /// Adds outputs and targets `[N, C, T]` to sums of [length](Self::NUM_SUMS).
    pub(super) fn add(&self, outputs_nct: &Tensor, targets_nct: &Tensor, sums: &Tensor) {
        let num = outputs_nct.size()[0];
        for start in (0..num).step_by(AT_ONCE as usize) {
            let part = |waves: &Tensor| {
                waves.narrow(0, start, AT_ONCE.min(num - start)).to_kind(Kind::Double)
            };
            let (outputs, targets) = (part(outputs_nct), part(targets_nct));
            let zero = || Tensor::zeros([], (Kind::Double, sums.device()));
            let si_sdr_n = sound::si_sdr(&outputs, &targets);
            let snr_n = sound::snr(&outputs, &targets);
            let is_heard_n = si_sdr_n.isnan().logical_not();
            let heard_n = si_sdr_n.masked_select(&is_heard_n);
            let mel = self.mel.as_ref().map_or_else(zero, |mel| mel.sum(&outputs, &targets));
            let stft = sound::stft_distance(&self.windows, &outputs, &targets);
            let convergence = match self.resolutions.is_empty() {
                true => zero(),
                false => sound::spectral_convergence(&self.resolutions, &outputs, &targets)
                    .sum(Kind::Double),
            };
            let head = [
                is_heard_n.sum(Kind::Double),
                heard_n.sum(Kind::Double),
                snr_n.masked_select(&is_heard_n).sum(Kind::Double),
                mel,
                stft.sum(Kind::Double),
                convergence,
            ];
            let _ = sums.narrow(0, 0, HEAD).g_add_(&Tensor::stack(&head, 0));
            let _ = sums.narrow(0, HEAD, STEPS).g_add_(&histogram(&heard_n));
        }
    }

    /// The figures of a split of `num_samples`, from its sums.
    pub(super) fn figures(&self, sums: &[f64], num_samples: u64) -> Vec<Figure> {
        let (head, counts) = sums.split_at(HEAD as usize);
        let (heard, samples) = (head[0], num_samples as f64);
        let chart = |name: &'static str, value: f64| Figure::number(name, value).charted("eval");
        let db = |name, value| chart(name, value).in_unit("dB");
        let mut figures = vec![
            db("si_sdr", head[1] / heard).shown(2),
            db("si_sdr_median", median(counts)).shown(2),
            db("snr", head[2] / heard),
            Figure::count("silent_samples", num_samples - heard as u64),
        ];
        if let Some(mel) = &self.mel {
            figures.push(chart("mel_distance", head[3] / samples).shown(4));
            figures.push(Figure::count("mel_windows", mel.num_scales() as u64));
        }
        if !self.windows.is_empty() {
            figures.push(chart("stft_distance", head[4] / samples).shown(4));
            figures.push(Figure::count("stft_windows", self.windows.len() as u64));
        }
        if !self.resolutions.is_empty() {
            figures.push(chart("spectral_convergence", head[5] / samples).shown(4));
        }
        figures
    }
}

/// How many of these numbers of decibels lie in each step.
fn histogram(decibels_n: &Tensor) -> Tensor {
    let steps = (decibels_n - RANGE.0) * (STEPS as f64 / (RANGE.1 - RANGE.0));
    let steps = steps.floor().clamp(0.0, (STEPS - 1) as f64).to_kind(Kind::Int64);
    steps.bincount(None::<Tensor>, STEPS).to_kind(Kind::Double)
}

/// The median of a histogram: the middle of the step that has it, or the mean of two where the
/// number is even; NaN of none.
fn median(counts: &[f64]) -> f64 {
    let total: f64 = counts.iter().sum();
    if total == 0.0 {
        return f64::NAN;
    }
    let value_at = |place: f64| {
        let mut before = 0.0;
        let step = counts.iter().position(|count| {
            before += count;
            before > place
        });
        let step = step.expect("places are below the total");
        RANGE.0 + (step as f64 + 0.5) * (RANGE.1 - RANGE.0) / STEPS as f64
    };
    let [lower, upper] = [(total - 1.0) / 2.0, total / 2.0].map(|place| value_at(place.floor()));
    (lower + upper) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGNAL: Signal = Signal::Audio { channels: 1, samples: 600 };

    fn noise(num: i64, factor: f64) -> Tensor {
        let at = Tensor::arange(num * 600, (Kind::Double, Device::Cpu));
        ((at * factor).sin() * 4375.85453).frac().view([num, 1, 600]) * 0.5
    }

    fn sums_of(
        sound: &Sound,
        parts: &[(i64, i64)],
        outputs: &Tensor,
        targets: &Tensor,
    ) -> Vec<f64> {
        let sums = Tensor::zeros([Sound::NUM_SUMS], (Kind::Double, Device::Cpu));
        for &(from, len) in parts {
            sound.add(&outputs.narrow(0, from, len), &targets.narrow(0, from, len), &sums);
        }
        sums.try_into().unwrap()
    }

    fn number(figures: &[Figure], name: &str) -> f64 {
        figures.iter().find(|figure| figure.name == name).unwrap().as_number().unwrap()
    }

    /// More samples than are computed at once, in one part and in uneven ones: counts are equal, sums up to
    /// rounding.
    #[test]
    fn sums_over_parts_are_the_whole() {
        let (targets, sound) = (noise(70, 12.9898), Sound::of(&SIGNAL, 8000, Device::Cpu).unwrap());
        let outputs = &targets * 0.6 + noise(70, 7.77) * 0.2;
        let whole = sums_of(&sound, &[(0, 70)], &outputs, &targets);
        let parts = sums_of(&sound, &[(0, 1), (1, 0), (1, 40), (41, 29)], &outputs, &targets);
        let apart = |(a, b): (&f64, &f64)| (a - b).abs() / a.abs().max(1.0);
        assert!(whole.iter().zip(&parts).map(apart).fold(0.0, f64::max) < 1e-12);
        assert_eq!(whole[HEAD as usize..], parts[HEAD as usize..]);
        let figures = sound.figures(&whole, 70);
        let each: Vec<f64> = sound::si_sdr(&outputs, &targets).try_into().unwrap();
        let mean = each.iter().sum::<f64>() / 70.0;
        assert!((number(&figures, "si_sdr") - mean).abs() < 1e-9);
        let mut sorted = each;
        sorted.sort_by(f64::total_cmp);
        let exact = (sorted[34] + sorted[35]) / 2.0;
        assert!((number(&figures, "si_sdr_median") - exact).abs() <= 0.05 + 1e-9);
        assert_eq!((number(&figures, "mel_windows"), number(&figures, "stft_windows")), (5.0, 1.0));
    }

    /// By hand: a silent sample has no decibels, and is counted.
    #[test]
    fn silent_samples_are_told_and_left_out() {
        let sound = Sound::of(&SIGNAL, 0, Device::Cpu).unwrap();
        let targets = Tensor::cat(&[noise(2, 12.9898), noise(1, 1.0) * 0.0], 0);
        let figures = sound.figures(&sums_of(&sound, &[(0, 3)], &(&targets * 0.5), &targets), 3);
        assert_eq!(number(&figures, "silent_samples"), 1.0);
        assert_eq!(number(&figures, "si_sdr"), sound::MOST_DECIBELS);
        // Half of the signal is missing: 10 log10 4.
        assert!((number(&figures, "snr") - 10.0 * 4f64.log10()).abs() < 1e-9);
        assert!((number(&figures, "spectral_convergence") - 1.0 / 3.0).abs() < 1e-6);
        assert!(!figures.iter().any(|figure| figure.name == "mel_distance"), "no sample rate");
        let none = sound.figures(&sums_of(&sound, &[], &targets, &targets), 0);
        assert!(number(&none, "si_sdr_median").is_nan());
    }

    /// By hand: -0.04, 3.21 and 3.29 lie in the steps from -0.1, 3.2 and 3.2; the median is the middle of the second.
    /// With 70 dB beside them it is the mean of the middles of the second and the third, which are the same.
    #[test]
    fn a_median_is_right_to_half_of_a_step() {
        let counts = |values: &[f64]| -> Vec<f64> {
            histogram(&Tensor::from_slice(values)).try_into().unwrap()
        };
        assert!((median(&counts(&[-0.04, 3.21, 3.29])) - 3.25).abs() < 1e-9);
        assert!((median(&counts(&[-0.04, 3.21, 3.29, 70.0])) - 3.25).abs() < 1e-9);
        assert!((median(&counts(&[-0.04, 3.21])) - 1.6).abs() < 1e-9);
        assert!((median(&counts(&[-99.0])) + 59.95).abs() < 1e-9);
        assert!((median(&counts(&[99.0])) - 59.95).abs() < 1e-9);
    }

    #[test]
    fn pictures_and_short_sounds_have_fewer_figures() {
        let picture = Signal::Image { channels: 1, height: 4, width: 4 };
        assert!(Sound::of(&picture, 0, Device::Cpu).is_none());
        let short = Signal::Audio { channels: 1, samples: 20 };
        let sound = Sound::of(&short, 8000, Device::Cpu).unwrap();
        let waves = noise(1, 3.3).narrow(2, 0, 20);
        let figures = sound.figures(&sums_of(&sound, &[(0, 1)], &waves, &waves), 1);
        let names: Vec<_> = figures.iter().map(|figure| figure.name).collect();
        assert_eq!(names, ["si_sdr", "si_sdr_median", "snr", "silent_samples"]);
    }
}
