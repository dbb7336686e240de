//! Critics of sound, what is learned from them, and the balancer, against AudioCraft's source and the Descript codec's, in
//! float64; `fixtures/sound_critics.py` has the cases and what differs from the sources.

use std::collections::BTreeMap;

use serde::Deserialize;
use tch::{Device, Kind, Tensor};
use tessera_nn::critic::{Critic, Opinion};
use tessera_nn::loss::{
    AdversarialLoss, Balancer, BalancerConfig, OverCritics, feature_matching, norm_sum,
};
use tessera_nn::parameters::{Declarations, Stage};
use tessera_nn::{CriticConfig, Kinds, Parameters, Signal};

use crate::rule::{Summary, assert_near, assert_sum, assert_summary, uniform, weight};

#[derive(Deserialize)]
struct Fixture {
    critics: Vec<Case>,
    balancer: Balanced,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    config: CriticConfig,
    shape: Vec<i64>,
    loss: AdversarialLoss,
    over: OverCritics,
    opinions: Vec<Expected>,
    adversarial: f64,
    at_adversarial: Summary,
    features: f64,
    at_features: Summary,
    critic: f64,
    gradients: Vec<Gradient>,
}

#[derive(Deserialize)]
struct Expected {
    logits: Summary,
    maps: Vec<f64>,
}

#[derive(Deserialize)]
struct Gradient {
    name: String,
    shape: Vec<i64>,
    sum: f64,
}

#[derive(Deserialize)]
struct Balanced {
    weights: Vec<f64>,
    total_norm: f64,
    decay: f64,
    shape: Vec<i64>,
    steps: Vec<Vec<f64>>,
}

fn fixture() -> Fixture {
    let fixture: Fixture =
        serde_json::from_str(include_str!("../fixtures/sound_critics.json")).unwrap();
    assert_eq!((fixture.critics.len(), fixture.balancer.steps.len()), (4, 5));
    fixture
}

/// Our name for a tensor of the sources.
fn ours(theirs: &str, config: &CriticConfig) -> String {
    let parts: Vec<&str> = theirs.split('.').collect();
    let (number, last) = (parts[1], parts[parts.len() - 1]);
    let (folder, num_layers) = match config {
        CriticConfig::Spectral(_) => ("scales", 5),
        _ => ("periods", 5),
    };
    match parts[2] {
        "conv_post" => format!("critic.{folder}.{number}.logits.{last}"),
        "convs" => {
            let layer: usize = parts[3].parse().unwrap();
            assert!(layer < num_layers, "{theirs}");
            format!("critic.{folder}.{number}.layers.{layer}.conv.{last}")
        }
        other => panic!("{other}"),
    }
}

/// The critic of a case, with the weights of the rule.
fn build(case: &Case) -> (Critic, Parameters) {
    let [_, channels, samples] = case.shape[..] else { panic!("sound") };
    let signal = Signal::Audio { channels, samples };
    case.config.validate(&signal).unwrap();
    let mut to = Declarations::default();
    let critic = case.config.build(&signal, &mut to);
    let parameters = to.allocate(0, Kinds::same(Kind::Double), Device::Cpu);
    let mut places: BTreeMap<String, Tensor> =
        parameters.named_views().map(|(name, place)| (name.to_owned(), place)).collect();
    for theirs in &case.gradients {
        let place = places.remove(&ours(&theirs.name, &case.config));
        let mut place = place.unwrap_or_else(|| panic!("{} has no place", theirs.name));
        assert_eq!(place.size(), theirs.shape, "{}", theirs.name);
        place.copy_(&weight(&theirs.name, &theirs.shape));
    }
    assert!(places.is_empty(), "without a counterpart: {:?}", places.keys());
    (critic, parameters)
}

fn over_all(case: &Case, fake: &[Opinion], real: &[Opinion]) -> [Tensor; 3] {
    let pairs = || fake.iter().zip(real);
    let num_samples = case.shape[0] as f64;
    let of = |terms: Vec<Tensor>| case.over.of(&terms) / num_samples;
    let adversarial = fake.iter().map(|fake| case.loss.generator(&fake.logits)).collect();
    let features = pairs().map(|(fake, real)| feature_matching(&fake.maps, &real.maps, case.over));
    let critic = pairs().map(|(fake, real)| case.loss.critic(&real.logits, &fake.logits));
    [of(adversarial), of(features.collect()), of(critic.collect())]
}

#[test]
fn critics_of_sound_and_what_is_learned_from_them_are_those_of_the_sources() {
    for case in &fixture().critics {
        let (critic, parameters) = build(case);
        let what = |end: &str| format!("{}: {end}", case.name);
        let fake_nct = uniform("fake", &case.shape).set_requires_grad(true);
        let fake = critic.judge(&parameters, &fake_nct);
        let real = critic.judge(&parameters, &uniform("real", &case.shape));
        assert_eq!(fake.len(), case.opinions.len());
        for (number, (found, expected)) in fake.iter().zip(&case.opinions).enumerate() {
            let what = |end: &str| what(&format!("network {number}, {end}"));
            assert_summary(&what("logits"), &found.logits, &expected.logits);
            assert_eq!(found.maps.len(), expected.maps.len());
            for (map, &expected) in found.maps.iter().zip(&expected.maps) {
                assert_sum(&what("map"), map, expected);
            }
        }
        let [adversarial, features, of_critic] = over_all(case, &fake, &real);
        assert_near(&what("adversarial"), &adversarial.view(1), &[case.adversarial]);
        assert_near(&what("features"), &features.view(1), &[case.features]);
        assert_near(&what("critic"), &of_critic.view(1), &[case.critic]);
        for (loss, expected) in [(adversarial, &case.at_adversarial), (features, &case.at_features)]
        {
            let gradient = Tensor::run_backward(&[loss], &[&fake_nct], true, false).remove(0);
            assert_summary(&what("gradient at the output"), &gradient, expected);
        }
        let leaves = parameters.leaves_of(Stage::Critic);
        let gradients = Tensor::run_backward(&[of_critic], &leaves, false, false);
        let buffer = parameters.flat().zeros_like();
        parameters.store_gradients(Stage::Critic, &gradients, &buffer);
        let found: BTreeMap<&str, Tensor> = parameters.trained_views(&buffer).collect();
        for Gradient { name, sum, .. } in &case.gradients {
            assert_sum(&what(name), &found[&*ours(name, &case.config)], *sum);
        }
    }
}

/// What a rank says of its part does not hang on the others' parts, and a rank may have none.
#[test]
fn opinions_of_parts_are_those_of_the_whole() {
    for case in &fixture().critics {
        let (critic, parameters) = build(case);
        let [fake_nct, real_nct] = ["fake", "real"].map(|key| uniform(key, &case.shape));
        let losses = |from: i64, len: i64| {
            let part = |sound: &Tensor| sound.narrow(0, from, len).set_requires_grad(true);
            let (fake_nct, real_nct) = (part(&fake_nct), part(&real_nct));
            let fake = critic.judge(&parameters, &fake_nct);
            let real = critic.judge(&parameters, &real_nct);
            let losses = over_all(case, &fake, &real);
            let root = &losses[0] + &losses[1] + &losses[2];
            let leaves = parameters.leaves_of(Stage::Critic);
            let targets: Vec<&Tensor> = [&fake_nct].into_iter().chain(leaves).collect();
            let gradients = Tensor::run_backward(&[root], &targets, false, false);
            assert_eq!(gradients[0].size(), fake_nct.size());
            let buffer = parameters.flat().ones_like();
            parameters.store_gradients(Stage::Critic, &gradients[1..], &buffer);
            (Tensor::stack(&losses, 0).detach(), buffer)
        };
        let whole = losses(0, 3);
        let parts = [(0, 0), (0, 1), (1, 2)].map(|(from, len)| losses(from, len));
        assert_eq!(parts[0].0.abs().max().double_value(&[]), 0.0, "{}", case.name);
        let sum = |of: &dyn Fn(&(Tensor, Tensor)) -> Tensor| {
            of(&parts[0]) + of(&parts[1]) + of(&parts[2]) - of(&whole)
        };
        assert!(sum(&|part| part.0.shallow_clone()).abs().max().double_value(&[]) < 1e-12);
        let [none, one, two] = parts.map(|(_, buffer)| buffer);
        let off = sum_of_views(&parameters, &[&none, &one, &two], &whole.1);
        assert!(off < 1e-10, "{} is off by {off:e}", case.name);
        for (name, gradient) in parameters.trained_views(&none) {
            assert_eq!(gradient.abs().max().double_value(&[]), 0.0, "{}: {name}", case.name);
        }
    }
}

/// How far the sum of gradients of parts is from those of the whole, at most; padding between parameters is left out.
fn sum_of_views(parameters: &Parameters, parts: &[&Tensor], whole: &Tensor) -> f64 {
    let mut off = whole.copy();
    for part in parts {
        off -= *part;
    }
    let views = parameters.trained_views(&off);
    views.map(|(_, view)| view.abs().max().double_value(&[])).fold(0.0, f64::max)
}

/// One rank has what AudioCraft has on one; two with one and two of the samples have the same.
#[test]
fn balanced_gradients_are_audiocrafts_and_do_not_hang_on_the_split() {
    let Balanced { weights, total_norm, decay, shape, steps } = fixture().balancer;
    let config = BalancerConfig { decay, total_norm };
    let mut balancer = Balancer::new(&config, weights.len(), Device::Cpu);
    let count: i64 = shape.iter().product();
    for (step, expected) in steps.iter().enumerate() {
        let mut weights = weights.clone();
        if step < 2 {
            weights[2] = 0.0;
        }
        let [x, y] = ["x", "y"].map(|key| uniform(&format!("{key} {step}"), &shape));
        let of_part = |(from, len): (i64, i64)| -> Vec<Tensor> {
            let y = y.narrow(0, from, len).set_requires_grad(true);
            let off = &y - x.narrow(0, from, len);
            let losses = [off.abs(), off.square(), off.abs().pow_tensor_scalar(3)]
                .map(|each| each.sum(Kind::Double) / count as f64);
            let gradient = |loss| Tensor::run_backward(&[loss], &[&y], true, false).remove(0);
            losses.iter().map(gradient).collect()
        };
        let norms = |gradients: &[Tensor]| {
            let norms: Vec<Tensor> = gradients.iter().map(norm_sum).collect();
            Tensor::stack(&norms, 0) / shape[0] as f64
        };
        let balanced = |gradients: &[Tensor], scales: &Tensor| {
            let scaled = gradients.iter().zip(0..).map(|(one, at)| one * scales.get(at));
            scaled.reduce(|sum, one| sum + one).unwrap()
        };
        let whole = of_part((0, 3));
        let scales = balancer.scales(&norms(&whole), &weights);
        assert_near(&format!("step {step}"), &balanced(&whole, &scales), expected);

        let ranks = [(0, 1), (1, 2), (3, 0)].map(of_part);
        let sum = norms(&ranks[0]) + norms(&ranks[1]) + norms(&ranks[2]);
        let scales = balancer.scales(&sum, &weights);
        let parts: Vec<Tensor> = ranks.iter().map(|one| balanced(one, &scales)).collect();
        let off = Tensor::cat(&parts, 0) - Tensor::from_slice(expected).view(shape.as_slice());
        assert!(off.abs().max().double_value(&[]) < 1e-12);
        balancer.update(&sum, &weights);
    }
}
