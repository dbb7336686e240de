//! Losses and critics against the packages and sources that define them; `fixtures/losses.py` and
//! `fixtures/critics.py` have the cases and the reasons. `parity.rs` makes them anew where it
//! has a Python.

use serde::Deserialize;
use tch::{Device, Kind, Tensor};
use tessera_nn::loss::{
    AdversarialLoss, absolute_error, gradient_difference, lecam, logit_laplace, ms_ssim_sum,
    ms_ssim_sum_in, squared_error, ssim_sum, ssim_sum_in,
};
use tessera_nn::parameters::{Declarations, Stage};
use tessera_nn::{CriticConfig, Kinds, Signal};

#[derive(Deserialize)]
struct Case {
    name: String,
    kind: String,
    shape: Vec<i64>,
    value: f64,
    every: i64,
    gradient: Vec<f64>,
    length: f64,
    #[serde(default)]
    scales: usize,
}

fn values(shape: &[i64], value: impl Fn(f64) -> f64) -> Tensor {
    let values: Vec<f64> = (0..shape.iter().product()).map(|at: i64| value(at as f64)).collect();
    Tensor::from_slice(&values).view(shape)
}

/// Outputs and targets, by the formulas of the script.
fn inputs(case: &Case) -> (Tensor, Tensor) {
    if !case.kind.contains("ssim") {
        let mut shape = case.shape.clone();
        let outputs = values(&shape, |at| 1.5 * (1.3 * at + 0.2).sin());
        if case.kind == "logit_laplace" {
            shape[1] /= 2;
        }
        return (outputs, values(&shape, |at| 0.5 + 0.45 * (0.9 * at + 0.4).sin()));
    }
    let [num, channels, height, width] = case.shape[..] else { panic!("{}", case.name) };
    let by_place = |value: &dyn Fn(f64, f64, f64) -> f64| {
        values(&case.shape, |at| {
            let (row, column) = ((at / width as f64).floor(), at % width as f64);
            value((row / height as f64).floor(), row % height as f64, column)
        })
    };
    assert!(num * channels > 0);
    let picture = |p: f64, r: f64, c: f64| {
        0.5 + 0.2 * (0.9 * r + 0.7 * c + p).sin()
            + 0.15 * (0.13 * r - 0.11 * c + 2.0 * p).sin()
            + 0.1 * (0.031 * r + 0.043 * c + 0.5 * p).sin()
    };
    let other = |p: f64, r: f64, c: f64| {
        let noise = 0.5
            + 0.25 * (1.3 * r - 0.6 * c + 0.4 * p).sin()
            + 0.2 * (0.21 * r + 0.17 * c + p).sin();
        0.8 * picture(p, r, c) + 0.2 * noise
    };
    (by_place(&other), by_place(&picture))
}

impl Case {
    fn loss(&self, outputs: &Tensor, targets: &Tensor) -> Tensor {
        match self.kind.as_str() {
            "absolute" => absolute_error(outputs, targets),
            "squared" => squared_error(outputs, targets),
            "gradient_difference" => gradient_difference(outputs, targets),
            "logit_laplace" => logit_laplace(outputs, targets),
            "ssim" => ssim_sum_in(outputs.kind(), outputs, targets),
            "ms_ssim" => ms_ssim_sum_in(outputs.kind(), outputs, targets, self.scales),
            other => panic!("{other}"),
        }
    }
}

fn cases() -> Vec<Case> {
    let cases: Vec<Case> = serde_json::from_str(include_str!("../fixtures/losses.json")).unwrap();
    assert_eq!(cases.len(), 21);
    cases
}

#[track_caller]
fn assert_near(what: &str, found: &Tensor, expected: &[f64], tolerance: f64) {
    let found = found.detach().to_kind(Kind::Double).contiguous().flatten(0, -1);
    assert_eq!(found.size()[0] as usize, expected.len(), "{what}");
    let off = (found - Tensor::from_slice(expected)).abs().max().double_value(&[]);
    assert!(off < tolerance, "{what} is off by {off:e}");
}

/// Every `every`-th number in row-major order.
fn kept(tensor: &Tensor, every: i64) -> Tensor {
    tensor.contiguous().flatten(0, -1).slice(0, None, None, every)
}

/// Value and gradient of a case in a kind, of numbers that lie in memory as `lay_out` says.
fn check(case: &Case, kind: Kind, tolerance: f64, lay_out: &dyn Fn(&Tensor) -> Tensor) {
    let (outputs, targets) = inputs(case);
    let outputs = lay_out(&outputs.to_kind(kind)).set_requires_grad(true);
    let loss = case.loss(&outputs, &lay_out(&targets.to_kind(kind)));
    assert_eq!((loss.size(), loss.kind()), (vec![], kind), "{}", case.name);
    let what = |end: &str| format!("{}, {kind:?}: {end}", case.name);
    assert_near(&what("value"), &loss, &[case.value], tolerance * case.value.abs());
    let gradient = &Tensor::run_backward(&[loss], &[&outputs], false, false)[0];
    assert_near(&what("gradient"), &kept(gradient, case.every), &case.gradient, tolerance);
    let length = gradient.to_kind(Kind::Double).square().sum(Kind::Double).sqrt();
    assert_near(&what("length"), &length, &[case.length], tolerance * case.length.max(1.0) * 10.0);
}

/// In float64 sums differ by their order alone. In float32 they are off by 1e-5, and similarities by
/// ten times that: variances are differences of numbers near 1, and what is added to them is 9e-4.
#[test]
fn values_and_gradients_are_those_of_the_packages() {
    for case in &cases() {
        let loosely = if case.kind.contains("ssim") { 1e-4 } else { 2e-5 };
        check(case, Kind::Double, 1e-11, &Tensor::shallow_clone);
        check(case, Kind::Double, 1e-11, &channels_last);
        check(case, Kind::Float, loosely, &Tensor::shallow_clone);
    }
}

/// The same values with channels last in memory.
fn channels_last(tensor: &Tensor) -> Tensor {
    let last = tensor.dim() as i64 - 1;
    tensor.movedim_int(1, last).contiguous().movedim_int(last, 1)
}

/// The two-argument forms compute in float64 whatever they are given.
#[test]
fn metrics_are_in_float64() {
    for case in cases().iter().filter(|case| case.kind.contains("ssim")) {
        let (outputs, targets) = inputs(case);
        let [outputs, targets] = [outputs, targets].map(|images| images.to_kind(Kind::Float));
        let found = match case.kind.as_str() {
            "ssim" => ssim_sum(&outputs, &targets),
            _ => ms_ssim_sum(&outputs, &targets, case.scales),
        };
        assert_eq!(found.kind(), Kind::Double);
        // The pictures are rounded to float32.
        assert!((found.double_value(&[]) - case.value).abs() < 1e-5, "{}", case.name);
    }
}

#[test]
fn sums_over_parts_are_the_whole_and_a_part_may_be_empty() {
    for case in &cases() {
        let (outputs, targets) = inputs(case);
        let num = case.shape[0];
        let mut total = 0.0;
        for (from, len) in [(0, 0), (0, 1), (1, num - 1)] {
            let outputs = outputs.narrow(0, from, len).set_requires_grad(true);
            let loss = case.loss(&outputs, &targets.narrow(0, from, len));
            total += loss.double_value(&[]);
            if len == 0 {
                assert_eq!(loss.double_value(&[]), 0.0, "{}", case.name);
                let gradient = &Tensor::run_backward(&[loss], &[&outputs], false, false)[0];
                assert_eq!(gradient.size(), outputs.size(), "{}", case.name);
            }
        }
        assert!((total - case.value).abs() < 1e-12 * case.value.max(1.0), "{}: {total}", case.name);
    }
}

#[derive(Deserialize)]
struct Critics {
    critics: Vec<Critic>,
    losses: Vec<Adversarial>,
}

#[derive(Deserialize)]
struct Critic {
    name: String,
    config: CriticConfig,
    shape: Vec<i64>,
    output_shape: Vec<i64>,
    output: Vec<f64>,
    gradient: Vec<f64>,
    parameters: Vec<Vec<f64>>,
}

#[derive(Deserialize)]
struct Adversarial {
    name: String,
    shape: Vec<i64>,
    critic: f64,
    at_real: Vec<f64>,
    at_fake: Vec<f64>,
    #[serde(default)]
    ema_real: f64,
    #[serde(default)]
    ema_fake: f64,
    generator: Option<f64>,
    #[serde(default)]
    of_generator: Vec<f64>,
}

fn critics() -> Critics {
    let critics: Critics = serde_json::from_str(include_str!("../fixtures/critics.json")).unwrap();
    assert_eq!((critics.critics.len(), critics.losses.len()), (6, 3));
    critics
}

impl Critic {
    fn signal(&self) -> Signal {
        match self.shape[..] {
            [_, channels, samples] => Signal::Audio { channels, samples },
            [_, channels, height, width] => Signal::Image { channels, height, width },
            [_, channels, frames, height, width] => {
                Signal::Video { channels, frames, height, width }
            }
            _ => panic!("{}: of one to three axes", self.name),
        }
    }
}

/// Of each gradient, every so many numbers are kept.
const EVERY: i64 = 13;

fn check_critic(case: &Critic, kind: Kind, tolerance: f64) {
    let mut to = Declarations::default();
    let critic = case.config.build(&case.signal(), &mut to);
    let parameters = to.allocate(0, Kinds::same(kind), Device::Cpu);
    for (k, (name, mut place)) in parameters.named_views().enumerate() {
        let base = if name.ends_with("norm.weight") { 1.0 } else { 0.0 };
        let shape = place.size();
        place.copy_(&values(&shape, |at| base + 0.15 * (0.9 * at + 0.7 * k as f64 + 0.4).sin()));
    }
    let input = values(&case.shape, |at| 1.5 * (1.3 * at + 0.2).sin()).to_kind(kind);
    let input = input.set_requires_grad(true);
    let output = critic.judge(&parameters, &input).remove(0).logits;
    assert_eq!(output.size(), case.output_shape, "{}", case.name);
    let what = |end: &str| format!("{}, {kind:?}: {end}", case.name);
    assert_near(&what("output"), &output, &case.output, tolerance);
    let root =
        (output * values(&case.output_shape, |at| (0.7 * at - 0.3).cos()).to_kind(kind)).sum(kind);
    let leaves = parameters.leaves_of(Stage::Critic);
    assert_eq!(leaves.len(), case.parameters.len());
    let inputs: Vec<&Tensor> = [&input].into_iter().chain(leaves).collect();
    let gradients = Tensor::run_backward(&[root], &inputs, false, false);
    let expected = [&case.gradient].into_iter().chain(&case.parameters);
    for (at, (gradient, expected)) in gradients.iter().zip(expected).enumerate() {
        assert_near(&what(&format!("gradient {at}")), &kept(gradient, EVERY), expected, tolerance);
    }
}

/// Numbers are below 100 and sums have below 500 terms.
#[test]
fn critics_are_those_of_the_sources() {
    for case in &critics().critics {
        check_critic(case, Kind::Double, 1e-11);
        check_critic(case, Kind::Float, 1e-4);
    }
}

#[test]
fn a_critic_takes_no_samples_and_its_gradients_are_zero() {
    for case in &critics().critics {
        for kind in [Kind::Float, Kind::BFloat16] {
            let mut to = Declarations::default();
            let critic = case.config.build(&case.signal(), &mut to);
            let parameters =
                to.allocate(0, Kinds { master: Kind::Float, compute: kind }, Device::Cpu);
            let shape = [&[0], &case.shape[1..]].concat();
            let none = Tensor::zeros(shape, (kind, Device::Cpu));
            let logits = critic.judge(&parameters, &none).remove(0).logits;
            assert_eq!(logits.size(), [&[0], &case.output_shape[1..]].concat());
            let loss = AdversarialLoss::Hinge.critic(&logits, &logits);
            let leaves = parameters.leaves_of(Stage::Critic);
            let gradients = Tensor::run_backward(&[loss], &leaves, false, false);
            let flat = parameters.flat().ones_like();
            parameters.store_gradients(Stage::Critic, &gradients, &flat);
            for (name, gradient) in parameters.trained_views(&flat) {
                assert_eq!(gradient.abs().max().double_value(&[]), 0.0, "{}: {name}", case.name);
            }
        }
    }
}

#[test]
fn adversarial_losses_are_those_of_their_sources() {
    for case in &critics().losses {
        let logits =
            |value: &dyn Fn(f64) -> f64| values(&case.shape, value).set_requires_grad(true);
        let real = logits(&|at| 1.5 * (1.3 * at + 0.2).sin());
        let fake = logits(&|at| 1.4 * (0.8 * at + 0.1).cos());
        let kind = serde_json::from_value(serde_json::Value::from(case.name.as_str()));
        let kind: Option<AdversarialLoss> = kind.ok();
        let loss = |real: &Tensor, fake: &Tensor| match kind {
            Some(kind) => kind.critic(real, fake),
            None => lecam(real, fake, &Tensor::from(case.ema_real), &Tensor::from(case.ema_fake)),
        };
        let whole = loss(&real, &fake);
        assert_near(&case.name, &whole, &[case.critic], 1e-12);
        let gradients = Tensor::run_backward(&[whole], &[&real, &fake], false, false);
        assert_near(&case.name, &gradients[0], &case.at_real, 1e-12);
        assert_near(&case.name, &gradients[1], &case.at_fake, 1e-12);

        let part = |logits: &Tensor, from, len| logits.narrow(0, from, len);
        let parts: f64 = [(0, 1), (1, 2), (3, 0)]
            .map(|(from, len)| loss(&part(&real, from, len), &part(&fake, from, len)))
            .iter()
            .map(|loss| loss.double_value(&[]))
            .sum();
        assert!((parts - case.critic).abs() < 1e-12, "{}", case.name);

        assert_eq!(kind.is_some(), case.generator.is_some(), "{}", case.name);
        if let (Some(kind), Some(expected)) = (kind, case.generator) {
            let loss = kind.generator(&fake);
            assert_near(&case.name, &loss, &[expected], 1e-12);
            let gradients = Tensor::run_backward(&[loss], &[&fake], false, false);
            assert_near(&case.name, &gradients[0], &case.of_generator, 1e-12);
        }
    }
}
