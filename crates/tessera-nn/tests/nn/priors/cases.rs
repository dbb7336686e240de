//! Small priors of each scheme, and their samples.

use tch::{Device, Kind, Tensor};
use tessera_nn::parameters::Stage;
use tessera_nn::prior::{Codes, Level, Prior, PriorConfig, TokenLosses};
use tessera_nn::{Kinds, Parameters};

use crate::rule::{uniform, weight};

/// Names of [`of`].
pub(crate) const ALL: [&str; 11] = [
    "flatten",
    "flatten rotary",
    "flatten gpt2",
    "flatten levels",
    "flatten hierarchy",
    "flatten factors",
    "delay",
    "depth",
    "depth factors",
    "masked",
    "masked hierarchy",
];

/// A configuration, with dropout, noise and hidden classes, and codes of at most 13 tokens and three classes.
pub(crate) fn of(case: &str) -> (PriorConfig, Codes) {
    let network = |more: &str| {
        format!("network = {{ width = 16, layers = 2, heads = 2, dropout = 0.2{more} }}\n")
    };
    let (more, text, levels): (&str, &str, Vec<(&[i64], i64)>) = match case {
        "flatten" => ("", "keep_input = 0.7", vec![(&[3, 3], 7)]),
        "flatten rotary" => (", positions = \"rotary\"", "", vec![(&[3, 3], 7)]),
        "flatten gpt2" => (", block = \"gpt2\", qk_norm = true", "", vec![(&[9], 7)]),
        "flatten levels" => ("", "", vec![(&[4], 5), (&[4], 6), (&[4], 7)]),
        "flatten hierarchy" => ("", "prefix = 3", vec![(&[1, 2], 6), (&[2, 4], 7)]),
        "flatten factors" => ("", "factors = [2, 1, 2]", vec![(&[2, 3], 32)]),
        "delay" => ("", "levels = \"delay\"", vec![(&[4], 5), (&[4], 6), (&[4], 7)]),
        "depth" => ("", "levels = \"depth\"", vec![(&[2, 2], 5), (&[2, 2], 6), (&[2, 2], 7)]),
        "depth factors" => ("", "levels = \"depth\"\nfactors = [1, 2]", vec![(&[4], 8), (&[4], 8)]),
        "masked" => ("", "", vec![(&[3, 3], 7)]),
        "masked hierarchy" => ("", "", vec![(&[2], 6), (&[4], 7)]),
        _ => panic!("no case {case}"),
    };
    let kind = if case.starts_with("masked") { "masked" } else { "autoregressive" };
    let config = config(&format!("kind = \"{kind}\"\n{}{text}", network(more)));
    let codes = codes(&levels, 3);
    config.validate(&codes).unwrap();
    (config, codes)
}

pub(crate) fn config(text: &str) -> PriorConfig {
    toml::from_str(text).unwrap()
}

pub(crate) fn codes(levels: &[(&[i64], i64)], num_classes: i64) -> Codes {
    let level =
        |(axes, num_codes): &(&[i64], i64)| Level { axes: axes.to_vec(), num_codes: *num_codes };
    Codes { levels: levels.iter().map(level).collect(), num_classes }
}

pub(crate) fn made(config: &PriorConfig, codes: &Codes, kind: Kind) -> Prior {
    Prior::new(config, codes, 0, Kinds::same(kind), Device::Cpu)
}

/// Tokens of the fixtures' rule.
pub(crate) fn tokens(codes: &Codes, num: i64) -> Tensor {
    let of_level = |(at, level): (usize, &Level)| {
        let uniform = uniform(&format!("tokens.{at}"), &[num, level.num_positions()]);
        ((uniform + 1.0) / 2.0 * level.num_codes as f64).to_kind(Kind::Int64)
    };
    Tensor::cat(&codes.levels.iter().enumerate().map(of_level).collect::<Vec<_>>(), 1)
}

pub(crate) fn ids(num: u64) -> Vec<u64> {
    (0..num).map(|at| 100 + 3 * at).collect()
}

/// Writes the fixtures' weights.
pub(crate) fn fill(parameters: &Parameters) {
    for (name, mut view) in parameters.named_views() {
        let shape = view.size();
        view.copy_(&weight(name, &shape));
    }
    parameters.refresh();
}

/// Gradients of the sum, in a trained buffer.
pub(crate) fn gradients(parameters: &Parameters, losses: &TokenLosses) -> Tensor {
    let buffer = parameters.flat().zeros_like();
    let leaves = parameters.leaves_of(Stage::Prior);
    let gradients = Tensor::run_backward(&[&losses.sum], &leaves, false, false);
    parameters.store_gradients(Stage::Prior, &gradients, &buffer);
    buffer
}

pub(crate) fn numbers(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.to_kind(Kind::Double).reshape([-1])).unwrap()
}
