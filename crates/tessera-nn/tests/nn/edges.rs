//! Latents that are no ordinary numbers, through every quantiser of `configs/quantizers`.
//!
//! Nothing panics, on any of them, and an index is always one that a code has: a run whose latents
//! are not finite ends because its loss is not, and before that may take another step with them.

use std::collections::BTreeMap;
use std::path::Path;

use tch::{Device, Kind, Tensor};
use tessera_nn::loss::zero_if_finite;
use tessera_nn::parameters::{Declarations, Stage};
use tessera_nn::quantize::{Place, Quantized, Quantizer, QuantizerConfig, Slot, Sums, build};
use tessera_nn::{Kinds, Parameters};

/// Tokens of the global batch, and of this part of it.
const TOKENS: usize = 12;

/// Every experiment's quantiser, by name, with codebooks of `num_codes` codes and, where asked, of
/// one channel; dead codes are replaced in every step where they are at all.
fn experiments(num_codes: i64, one_channel: bool) -> BTreeMap<String, QuantizerConfig> {
    let folder =
        Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("../../configs/quantizers");
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let file: toml::Table = std::fs::read_to_string(&path).unwrap().parse().unwrap();
        let table = file["model"]["quantizer"].clone();
        let mut config: QuantizerConfig = table.try_into().unwrap();
        shrink(&mut config, num_codes, one_channel);
        config.validate().unwrap();
        all.insert(path.file_stem().unwrap().to_string_lossy().into_owned(), config);
    }
    assert!(all.len() >= 25, "{all:?}");
    all
}

fn shrink(config: &mut QuantizerConfig, num_codes: i64, one_channel: bool) {
    match config {
        QuantizerConfig::Vector(config) => {
            config.num_codes = num_codes;
            config.code_dim = if one_channel { 1 } else { config.code_dim.min(8) };
            config.replace_every = config.replace_every.min(1);
        }
        QuantizerConfig::SimVq(config) => {
            config.num_codes = num_codes;
            config.code_dim = if one_channel { 1 } else { config.code_dim.min(8) };
        }
        QuantizerConfig::FiniteScalar(config) if one_channel => config.levels = vec![num_codes],
        QuantizerConfig::LookupFree(config) | QuantizerConfig::BinarySpherical(config)
            if one_channel =>
        {
            config.num_bits = 1;
        }
        QuantizerConfig::FiniteScalar(_)
        | QuantizerConfig::LookupFree(_)
        | QuantizerConfig::BinarySpherical(_) => {}
        QuantizerConfig::Residual(config) => {
            config.num_codes.clear();
            shrink(&mut config.quantizer, num_codes, one_channel);
        }
        QuantizerConfig::Grouped(config) => shrink(&mut config.quantizer, num_codes, one_channel),
    }
}

struct Model {
    quantizer: Box<dyn Quantizer>,
    parameters: Parameters,
}

impl Model {
    fn new(config: &QuantizerConfig) -> Self {
        let mut declarations = Declarations::default();
        let quantizer = build(config, &Slot::root(3, Kind::Float, Device::Cpu), &mut declarations);
        let parameters = declarations.allocate(3, Kinds::same(Kind::Float), Device::Cpu);
        Self { quantizer, parameters }
    }

    /// First codes from these latents, and a step with them; whether loss, outputs and gradients
    /// are finite.
    fn start(&mut self, latents_nd: &Tensor) -> bool {
        let candidates = (self.quantizer.num_candidates() as i64).min(latents_nd.size()[0]);
        let candidates_cd = latents_nd.narrow(0, 0, candidates);
        if candidates > 0 {
            self.quantizer.initialize(&self.parameters, &candidates_cd, TOKENS);
        }
        self.step(0, latents_nd)
    }

    fn step(&mut self, step: u64, latents_nd: &Tensor) -> bool {
        let Self { quantizer, parameters } = self;
        let latents_nd = latents_nd.copy().set_requires_grad(true);
        let place = Place::new(step, TOKENS, 0..latents_nd.size()[0] as usize);
        let sums = Sums::zeros(quantizer.lens(), Kind::Float, Device::Cpu);
        let Quantized { output_nd, path, indices_nl, mut loss, late } =
            quantizer.forward(parameters, &latents_nd, &place, &sums);
        for part in late {
            loss += part(&sums.distribution);
        }
        assert_eq!(output_nd.size(), latents_nd.size());
        assert_indices(&**quantizer, &indices_nl, -1);
        let counted = sums.counts.sum(Kind::Double).double_value(&[]);
        let taken = indices_nl.ge(0).sum(Kind::Double).double_value(&[]);
        assert_eq!(counted, taken, "each index is counted once");
        let leaves = parameters.leaves_of(Stage::Quantizer);
        let inputs: Vec<&Tensor> = [&latents_nd].into_iter().chain(leaves).collect();
        let root = path.root(&output_nd.ones_like()) + &loss;
        let gradients = Tensor::run_backward(&[root], &inputs, false, false);
        let _no_grad = tch::no_grad_guard();
        let _ = quantizer.update(parameters, &sums, &place);

        // An evaluation with what has become of the codes.
        let indices_nl = quantizer.tokenize(parameters, &latents_nd);
        assert_indices(&**quantizer, &indices_nl, 0);
        let looked_up_nd = quantizer.look_up(parameters, &indices_nl);
        assert_eq!(looked_up_nd.size(), latents_nd.size());
        let all = gradients.iter().filter(|gradient| gradient.defined());
        all.chain([&output_nd, &loss, &zero_if_finite(&latents_nd)]).all(is_finite)
    }

    fn is_finite(&self) -> bool {
        self.quantizer.state().iter().all(|(_, tensor)| is_finite(tensor))
    }
}

fn is_finite(tensor: &Tensor) -> bool {
    tensor.isfinite().all().int64_value(&[]) != 0
}

/// From `least`, -1 or 0, to below K, for each level.
#[track_caller]
fn assert_indices(quantizer: &dyn Quantizer, indices_nl: &Tensor, least: i64) {
    for (level, num_codes) in quantizer.num_codes().into_iter().enumerate() {
        let indices: Vec<i64> = Vec::try_from(indices_nl.select(1, level as i64)).unwrap();
        assert!(indices.iter().all(|index| (least..num_codes).contains(index)), "{indices:?}");
    }
}

/// Latents that differ, between -2 and 2.
fn ordinary(dim: i64) -> Tensor {
    let values: Vec<f32> = (0..TOKENS as i64 * dim).map(|at| 2.0 * (at as f32).sin()).collect();
    Tensor::from_slice(&values).view([-1, dim])
}

/// The same with one number replaced.
fn with_one(dim: i64, value: f64) -> Tensor {
    let latents_nd = ordinary(dim);
    let _ = latents_nd.narrow(0, 5, 1).narrow(1, dim - 1, 1).fill_(value);
    latents_nd
}

fn all_of(dim: i64, value: f64) -> Tensor {
    Tensor::full([TOKENS as i64, dim], value, (Kind::Float, Device::Cpu))
}

/// Both sizes of every experiment: codes of some channels, and two codes of one channel.
fn for_each_model(check: impl Fn(&str, &QuantizerConfig)) {
    tch::set_num_threads(1);
    for (num_codes, one_channel) in [(16, false), (2, true)] {
        for (name, config) in experiments(num_codes, one_channel) {
            check(&format!("{name} with {num_codes} codes"), &config);
        }
    }
}

/// The loss that is summed over ranks is not finite, so no rank goes on; were one to go on, as with
/// a GPU that nobody waits for, it could still take steps and evaluate.
#[test]
fn latents_that_are_not_finite_are_seen_and_break_nothing() {
    for_each_model(|name, config| {
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let dim = Model::new(config).quantizer.dim();
            for latents_nd in [with_one(dim, bad), all_of(dim, bad)] {
                let mut from_the_first = Model::new(config);
                assert!(!from_the_first.start(&latents_nd), "{name}: {bad} in the first batch");
                from_the_first.step(1, &ordinary(dim));
                let mut later = Model::new(config);
                later.start(&ordinary(dim));
                assert!(!later.step(1, &latents_nd), "{name}: {bad} in a later batch");
                later.step(2, &ordinary(dim));
            }
        }
    });
}

#[test]
fn zeros_equal_and_tiny_latents_keep_everything_finite() {
    for_each_model(|name, config| {
        for value in [0.0, 0.7, -3.0, 1e-30, 1e-42] {
            let mut model = Model::new(config);
            let latents_nd = all_of(model.quantizer.dim(), value);
            for step in 0..3 {
                let finite = match step {
                    0 => model.start(&latents_nd),
                    _ => model.step(step, &latents_nd),
                };
                assert!(finite && model.is_finite(), "{name}: {value} in step {step}");
            }
        }
    });
}

/// What overflows shows in the loss; what does not, is quantised.
#[test]
fn huge_latents_break_nothing_and_leave_no_state_that_is_not_finite_unseen() {
    for_each_model(|name, config| {
        for value in [1e6, 1e18, 1e25, -1e30] {
            let mut model = Model::new(config);
            let dim = model.quantizer.dim();
            for latents_nd in [with_one(dim, value), all_of(dim, value)] {
                let finite = model.start(&latents_nd);
                assert!(!finite || model.is_finite(), "{name}: {value}");
            }
        }
    });
}

#[test]
fn a_part_without_tokens_adds_nothing() {
    for_each_model(|name, config| {
        let mut model = Model::new(config);
        let dim = model.quantizer.dim();
        let none = Tensor::zeros([0, dim], (Kind::Float, Device::Cpu));
        model.quantizer.initialize(&model.parameters, &none, 0);
        assert!(model.step(0, &none), "{name}: losses and gradients of nothing");
        assert!(model.is_finite(), "{name}");
        let place = Place::new(1, 0, 0..0);
        let sums = Sums::zeros(model.quantizer.lens(), Kind::Float, Device::Cpu);
        let _ = model.quantizer.update(&model.parameters, &sums, &place);
        assert!(model.is_finite(), "{name}: after a batch without tokens");
    });
}

/// Of one code there is nothing to choose: that is refused by name, and no quantiser is built.
#[test]
fn a_single_code_is_refused() {
    for (kind, key, value) in [
        ("vector", "num_codes", serde_json::json!(1)),
        ("simvq", "num_codes", serde_json::json!(1)),
        ("fsq", "levels", serde_json::json!([1])),
        ("lfq", "num_bits", serde_json::json!(0)),
        ("bsq", "num_bits", serde_json::json!(0)),
    ] {
        let config = serde_json::json!({"kind": kind, key: value});
        let config: QuantizerConfig = serde_json::from_value(config).unwrap();
        let refused = config.validate().unwrap_err();
        assert!(refused.starts_with(&format!("model.quantizer.{key} should be")), "{refused}");
    }
}
