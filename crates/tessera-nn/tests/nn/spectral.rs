//! Losses and figures of sound against the packages and sources that define them; `fixtures/spectral.py` has
//! the cases and the reasons.

use serde::Deserialize;
use tch::{Device, Kind, Tensor};
use tessera_nn::loss::spectral::{
    MelBank, MelDistance, MelForm, MelScale, RESOLUTIONS, StftDistance, WindowMels,
};
use tessera_nn::metrics::sound::{
    convergence_resolutions, mel_distance, si_sdr, snr, spectral_convergence, stft_distance,
    stft_windows,
};

use crate::rule::uniform;

#[derive(Deserialize)]
struct Fixture {
    cases: Vec<Case>,
    banks: Vec<Bank>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    kind: String,
    shape: Vec<i64>,
    each: Vec<f64>,
    form: Option<MelForm>,
    #[serde(default)]
    rate: i64,
    #[serde(default)]
    windows: Vec<i64>,
    #[serde(default)]
    mels: Vec<i64>,
    every: Option<i64>,
    #[serde(default)]
    gradient: Vec<f64>,
    #[serde(default)]
    length: f64,
}

#[derive(Deserialize)]
struct Bank {
    scale: String,
    lowest: f64,
    rate: i64,
    size: i64,
    mels: i64,
    empty: usize,
    places: Vec<i64>,
    weights: Vec<f64>,
}

fn fixture() -> Fixture {
    let found: Fixture = serde_json::from_str(include_str!("../fixtures/spectral.json")).unwrap();
    assert_eq!((found.cases.len(), found.banks.len()), (15, 7));
    found
}

/// Outputs and targets, by the formulas of the script.
fn waves(shape: &[i64]) -> (Tensor, Tensor) {
    let num: i64 = shape.iter().product();
    let at = Tensor::arange(num, (Kind::Double, Device::Cpu));
    let (row, t) = ((&at / shape[2] as f64).floor(), at.remainder(shape[2] as f64));
    let slow = ((&row * 0.02 + 0.05) * &t).sin() * 0.3;
    let fast = (&t / -400.0).exp() * ((row * 0.1 + 0.7) * &t).sin() * 0.2;
    let targets = slow + fast + uniform("sound", &[num]) * 0.02;
    let outputs = &targets * 0.75 + uniform("noise", &[num]) * 0.05 + 0.01;
    (outputs.view(shape), targets.view(shape))
}

impl Case {
    /// The value of each sample, with graph where it is a loss.
    fn each(&self, outputs: &Tensor, targets: &Tensor) -> Tensor {
        let len = self.shape[2];
        match self.kind.as_str() {
            "mel" => self.mel(outputs.kind()).each(outputs, targets),
            "stft" => {
                let terms = StftDistance::new(&RESOLUTIONS).terms(outputs, targets);
                (terms.convergence_n + terms.logarithms_n) * 0.5
            }
            "convergence" => spectral_convergence(&convergence_resolutions(len), outputs, targets),
            "stft_distance" => stft_distance(&stft_windows(len), outputs, targets),
            "si_sdr" => si_sdr(outputs, targets),
            "snr" => snr(outputs, targets),
            other => panic!("{other}"),
        }
    }

    /// The sum that is trained on.
    fn loss(&self, outputs: &Tensor, targets: &Tensor) -> Tensor {
        match self.kind.as_str() {
            "mel" => self.mel(outputs.kind()).sum(outputs, targets),
            "stft" => StftDistance::new(&RESOLUTIONS).sum(outputs, targets),
            other => panic!("{other} is no loss"),
        }
    }

    fn mel(&self, kind: Kind) -> MelDistance {
        let scales = self.windows.iter().zip(&self.mels);
        let scales: Vec<_> = scales.map(|(&window, &mels)| WindowMels { window, mels }).collect();
        let form = self.form.unwrap();
        assert!(form.scales().starts_with(&scales), "{}", self.name);
        MelDistance::new(form, &scales, self.rate, (kind, Device::Cpu))
    }

    fn is_loss(&self) -> bool {
        self.every.is_some()
    }
}

#[track_caller]
fn assert_near(what: &str, found: &Tensor, expected: &[f64], tolerance: f64) {
    let found = found.detach().to_kind(Kind::Double).contiguous().flatten(0, -1);
    assert_eq!(found.size()[0] as usize, expected.len(), "{what}");
    let off = (found - Tensor::from_slice(expected)).abs().max().double_value(&[]);
    assert!(off < tolerance, "{what} is off by {off:e}");
}

/// Convergence: auraloss adds nothing to the target's length, which is above 30 here, where we add 2^-23: 4e-9.
fn tolerance(case: &Case) -> f64 {
    if case.kind == "convergence" { 4e-9 } else { 1e-9 }
}

/// All are of size 0.1 to 20 in float64.
#[test]
fn values_are_those_of_the_packages() {
    for case in &fixture().cases {
        let (outputs, targets) = waves(&case.shape);
        let each = case.each(&outputs, &targets);
        assert_eq!(each.kind(), Kind::Double, "{}", case.name);
        assert_near(&case.name, &each, &case.each, tolerance(case));
    }
}

/// Gradients of absolute differences change their sign where a difference is near 0: in float32 a few bins of
/// thousands may.
#[test]
fn gradients_are_those_of_the_packages() {
    for case in fixture().cases.iter().filter(|case| case.is_loss()) {
        for (kind, tolerance) in [(Kind::Double, 1e-9), (Kind::Float, 2e-3)] {
            let (outputs, targets) = waves(&case.shape);
            let outputs = outputs.to_kind(kind).set_requires_grad(true);
            let loss = case.loss(&outputs, &targets.to_kind(kind));
            assert_eq!((loss.size(), loss.kind()), (vec![], kind), "{}", case.name);
            let value: f64 = case.each.iter().sum();
            let of_value = if kind == Kind::Double { 1e-9 } else { 1e-5 };
            assert_near(&case.name, &loss, &[value], of_value * value);
            let gradient = &Tensor::run_backward(&[loss], &[&outputs], false, false)[0];
            let some =
                gradient.contiguous().flatten(0, -1).slice(0, None, None, case.every.unwrap());
            let scale = case.length.max(1.0);
            assert_near(&case.name, &some, &case.gradient, tolerance * scale);
            let length = gradient.to_kind(Kind::Double).square().sum(Kind::Double).sqrt();
            assert_near(&case.name, &length, &[case.length], tolerance * scale);
        }
    }
}

#[test]
fn sums_over_parts_are_the_whole_and_a_part_may_be_empty() {
    for case in fixture().cases.iter().filter(|case| case.is_loss()) {
        for kind in [Kind::Double, Kind::Float] {
            let (outputs, targets) = waves(&case.shape);
            let [outputs, targets] = [outputs, targets].map(|waves| waves.to_kind(kind));
            let mut total = 0.0;
            for (from, len) in [(0, 0), (0, 1), (1, case.shape[0] - 1)] {
                let outputs = outputs.narrow(0, from, len).set_requires_grad(true);
                let loss = case.loss(&outputs, &targets.narrow(0, from, len));
                total += loss.double_value(&[]);
                if len == 0 {
                    assert_eq!(loss.double_value(&[]), 0.0, "{}", case.name);
                    let gradient = &Tensor::run_backward(&[loss], &[&outputs], false, false)[0];
                    assert_eq!(gradient.size(), outputs.size(), "{}", case.name);
                }
            }
            let whole = case.loss(&outputs, &targets).double_value(&[]);
            let tolerance = if kind == Kind::Double { 1e-12 } else { 1e-6 };
            assert!((total - whole).abs() < tolerance * whole, "{}: {total} {whole}", case.name);
        }
    }
}

/// Each channel counts as a sample of its own would: the mean over those of two is the value of both.
#[test]
fn channels_are_compared_by_themselves() {
    for case in fixture().cases.iter().filter(|case| case.shape[1] == 2) {
        let (outputs, targets) = waves(&case.shape);
        let apart = [&outputs, &targets].map(|waves| waves.reshape([-1, 1, case.shape[2]]));
        let of_channels = case.each(&apart[0], &apart[1]).view([-1, 2]);
        let means = of_channels.mean_dim([1i64].as_slice(), false, Kind::Double);
        assert_near(&case.name, &means, &case.each, tolerance(case));
    }
}

/// The figures compute in float64 whatever they are given, and the mel distance is DAC's.
#[test]
fn figures_are_in_float64_of_any_kind() {
    for case in fixture().cases.iter().filter(|case| !case.is_loss()) {
        let (outputs, targets) = waves(&case.shape);
        let [outputs, targets] = [outputs, targets].map(|waves| waves.to_kind(Kind::Float));
        let each = case.each(&outputs, &targets);
        assert_eq!(each.kind(), Kind::Double, "{}", case.name);
        // The waves are rounded to float32.
        assert_near(&case.name, &each, &case.each, 1e-4);
    }
    let fixture = fixture();
    let case = &fixture.cases[0];
    let (outputs, targets) = waves(&case.shape);
    let distance = mel_distance(case.shape[2], case.rate, Device::Cpu).unwrap();
    assert_near("DAC", &distance.each(&outputs, &targets), &case.each, 1e-9);
}

#[test]
fn filters_are_those_of_torchaudio() {
    for bank in &fixture().banks {
        let scale = match bank.scale.as_str() {
            "slaney" => MelScale::Slaney,
            _ => MelScale::Htk,
        };
        let (num_mels, size, sample_rate, lowest_hertz) =
            (bank.mels, bank.size, bank.rate, bank.lowest);
        let ours = MelBank { scale, num_mels, size, sample_rate, lowest_hertz };
        assert_eq!(ours.num_empty(), bank.empty, "{ours:?}");
        let mut expected = Tensor::zeros([num_mels * (size / 2 + 1)], (Kind::Double, Device::Cpu));
        let _ = expected.index_put_(
            &[Some(Tensor::from_slice(&bank.places))],
            &Tensor::from_slice(&bank.weights),
            false,
        );
        let matrix = ours.matrix(Kind::Double, Device::Cpu).flatten(0, -1);
        let expected: Vec<f64> = expected.try_into().unwrap();
        assert_near(&format!("{ours:?}"), &matrix, &expected, 1e-12);
    }
}
