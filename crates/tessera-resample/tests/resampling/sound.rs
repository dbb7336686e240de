use std::f64::consts::TAU;

use tessera_resample::resample;

fn tone(frames: usize, hz: f64, rate: usize) -> Vec<f32> {
    (0..frames).map(|at| (TAU * hz * at as f64 / rate as f64).sin() as f32).collect()
}

/// Gain of a tone in decibels, and its delay in frames, from the middle half of a sound.
fn gain_and_delay(found: &[f32], hz: f64, rate: usize) -> (f64, f64) {
    let middle = found.len() / 4..found.len() * 3 / 4;
    let (mut sine, mut cosine) = ((0.0, 0.0), (0.0, 0.0));
    for at in middle {
        let (s, c) = (TAU * hz * at as f64 / rate as f64).sin_cos();
        sine = (sine.0 + f64::from(found[at]) * s, sine.1 + s * s);
        cosine = (cosine.0 + f64::from(found[at]) * c, cosine.1 + c * c);
    }
    let (sine, cosine) = (sine.0 / sine.1, cosine.0 / cosine.1);
    let phase = -cosine.atan2(sine);
    (20.0 * sine.hypot(cosine).log10(), phase / (TAU * hz) * rate as f64)
}

/// Up to 0.96 of half of the lower rate a tone keeps its strength and its place.
#[test]
fn the_band_below_both_halves_passes() {
    let pairs = [
        (44100, 16000),
        (96000, 16000),
        (192_000, 8000),
        (16000, 44100),
        (48000, 44100),
        (7999, 16000),
    ];
    for (from, to) in pairs {
        for share in [0.04, 0.8, 0.96] {
            let hz = share * from.min(to) as f64 / 2.0;
            let found = resample(&tone(from / 2, hz, from), 1, from, to).unwrap();
            let (gain, delay) = gain_and_delay(&found, hz, to);
            assert!(gain.abs() < 0.1, "{from} to {to}: {gain:.3} dB at {share}");
            assert!(delay.abs() < 0.001, "{from} to {to}: {delay:.4} frames at {share}");
        }
    }
}

/// What is above half of the lower rate does not come back below it.
#[test]
fn nothing_is_folded_back() {
    for (from, to) in [(44100, 16000), (192_000, 8000), (48000, 44100)] {
        for share in [1.01, 1.3] {
            let hz = share * to as f64 / 2.0;
            if hz >= from as f64 / 2.0 {
                continue;
            }
            let found = resample(&tone(from / 2, hz, from), 1, from, to).unwrap();
            let middle = &found[found.len() / 4..found.len() * 3 / 4];
            let power = middle.iter().map(|x| f64::from(x * x)).sum::<f64>();
            let alias = 10.0 * (2.0 * power / middle.len() as f64 + 1e-30).log10();
            assert!(alias < -100.0, "{from} to {to}: {alias:.1} dB at {share}");
        }
    }
}

/// As many frames as begin in the time of the sound, for short ones and long ones.
#[test]
fn no_frame_is_lost_or_made() {
    for (from, to) in [(44100, 16000), (8000, 44100), (7999, 16000), (96000, 44100)] {
        for frames in [1, 147, 1025, 20_001] {
            let found = resample(&vec![0.5; 2 * frames], 2, from, to).unwrap();
            assert_eq!(found.len(), 2 * (frames * to).div_ceil(from), "{frames}: {from} {to}");
        }
    }
}

/// A burst of three tones, 441 frames at 44.1 kHz: every eighth frame that sox makes of it at
/// 16 kHz. Numbers and burst are from `tests/resample_reference.py`. Below full scale by 80 dB:
/// the two filters differ that much.
#[test]
fn a_burst_is_what_sox_makes_of_it() {
    let sox = [
        -4.5e-05, 0.003819, -6e-06, -0.031346, 4e-06, 0.075534, -1e-06, -0.119513, 0.0, 0.14649,
        0.0, -0.14616, 0.0, 0.118649, 1e-06, -0.074465, -4e-06, 0.03048, 4e-06, -0.003488,
    ];
    let tones = [(1000.0, 0.3), (3000.0, 0.2), (6500.0, 0.15)];
    let burst = |at: usize| {
        let time = at as f64 / 44100.0;
        let sum: f64 = tones.iter().map(|(hz, gain)| gain * (TAU * hz * time).sin()).sum();
        ((TAU / 2.0 * (at as f64 + 0.5) / 441.0).sin().powi(2) * sum) as f32
    };
    let burst: Vec<f32> = (0..441).map(burst).collect();
    let found = resample(&burst, 1, 44100, 16000).unwrap();
    assert_eq!(found.len(), 160);
    for (found, sox) in found.iter().step_by(8).zip(sox) {
        assert!((found - sox).abs() < 1e-4, "{found} and {sox}");
    }
}
