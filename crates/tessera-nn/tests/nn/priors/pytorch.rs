//! Steps against plain PyTorch in float64: losses, nats, weights and gradients, with all that is drawn;
//! `fixtures/priors.py` has the cases.

use serde::Deserialize;
use tch::{Device, Kind, Tensor};
use tessera_nn::Kinds;
use tessera_nn::prior::{Codes, Level, Prior, PriorConfig, TokenBatch, TrainingDraws};

use crate::priors::cases::{fill, gradients, tokens};
use crate::rule::{Summary, assert_near, assert_sum, assert_summary};

#[derive(Deserialize)]
struct Case {
    name: String,
    prior: PriorConfig,
    levels: Vec<OfLevel>,
    num_classes: i64,
    classes: Vec<i64>,
    ids: Vec<u64>,
    seed: u64,
    step: u64,
    sum: f64,
    nats_per_level: Vec<f64>,
    weight: f64,
    nats: Summary,
    gradients: Vec<Gradient>,
}

#[derive(Deserialize)]
struct OfLevel {
    axes: Vec<i64>,
    num_codes: i64,
}

#[derive(Deserialize)]
struct Gradient {
    name: String,
    shape: Vec<i64>,
    sum: f64,
}

fn check(case: &Case) {
    let level = |of: &OfLevel| Level { axes: of.axes.clone(), num_codes: of.num_codes };
    let levels = case.levels.iter().map(level).collect();
    let codes = Codes { levels, num_classes: case.num_classes };
    case.prior.validate(&codes).unwrap();
    let prior = Prior::new(&case.prior, &codes, 0, Kinds::same(Kind::Double), Device::Cpu);
    fill(&prior.parameters);
    let tokens_nt = tokens(&codes, case.ids.len() as i64);
    let classes_n = Tensor::from_slice(&case.classes);
    let batch = TokenBatch { tokens_nt: &tokens_nt, classes_n: Some(&classes_n), ids: &case.ids };
    let by = TrainingDraws { seed: case.seed, step: case.step };
    let what = |what: &str| format!("{}: {what}", case.name);

    let losses = prior.losses(&batch, by);
    assert_near(&what("sum"), &losses.sum.view(1), &[case.sum]);
    assert_near(&what("nats of levels"), &losses.nats_l, &case.nats_per_level);
    assert_eq!(prior.weight(&case.ids, by), case.weight, "{}", case.name);
    assert_summary(&what("nats"), &prior.nats(&batch, case.seed), &case.nats);
    let found = gradients(&prior.parameters, &losses);
    let mut named: Vec<_> = prior.parameters.trained_views(&found).collect();
    assert_eq!(named.len(), case.gradients.len(), "{}", case.name);
    named.sort_by_key(|(name, _)| *name);
    let mut wanted: Vec<_> = case.gradients.iter().collect();
    wanted.sort_by_key(|gradient| &gradient.name);
    for ((name, found), wanted) in named.iter().zip(wanted) {
        assert_eq!((*name, found.size()), (wanted.name.as_str(), wanted.shape.clone()));
        assert_sum(&what(name), found, wanted.sum);
    }
}

fn check_all(is_one: impl Fn(&str) -> bool, num: usize) {
    let cases: Vec<Case> =
        serde_json::from_str(include_str!("../../fixtures/priors.json")).unwrap();
    let chosen: Vec<_> = cases.iter().filter(|case| is_one(&case.name)).collect();
    assert_eq!(chosen.len(), num);
    for case in chosen {
        check(case);
    }
}

#[test]
fn an_autoregressive_step_is_that_of_plain_pytorch() {
    check_all(|name| !name.starts_with("masked"), 11);
}

#[test]
fn a_masked_step_is_that_of_plain_pytorch() {
    check_all(|name| name.starts_with("masked"), 4);
}
