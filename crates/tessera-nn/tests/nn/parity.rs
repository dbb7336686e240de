//! Every quantiser against vector-quantize-pytorch 1.32, or the paper's formula where that library
//! does something else; `fixtures/quantizers.py` has the cases and the reasons.
//!
//! With `TESSERA_PEER_PYTHON` set to a Python that has the library, the fixtures are made anew and
//! compared with those that are kept.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;
use tch::{Device, Kind, Tensor};
use tessera_nn::Kinds;
use tessera_nn::parameters::{Declarations, Stage};
use tessera_nn::quantize::{Place, Quantized, QuantizerConfig, Slot, Sums, build};

/// The library computes in float32.
const TOLERANCE: f64 = 1e-5;

#[derive(Deserialize)]
struct Case {
    name: String,
    config: QuantizerConfig,
    dim: i64,
    size: f64,
    given: BTreeMap<String, Vec<f64>>,
    output: Vec<f64>,
    indices: Vec<Vec<i64>>,
    loss: f64,
    gradient: Vec<f64>,
    parameter_gradients: BTreeMap<String, Vec<f64>>,
    after: BTreeMap<String, Vec<f64>>,
}

fn cases() -> Vec<Case> {
    serde_json::from_str(include_str!("../fixtures/quantizers.json")).expect("cases")
}

fn table(rows: i64, dim: i64, value: impl Fn(f64, f64) -> f64) -> Tensor {
    let values: Vec<f64> =
        (0..rows * dim).map(|at| value((at / dim) as f64, (at % dim) as f64)).collect();
    Tensor::from_slice(&values).view([rows, dim])
}

#[track_caller]
fn assert_near(what: &str, found: &Tensor, expected: &[f64]) {
    let found = found.detach().contiguous().flatten(0, -1);
    assert_eq!(found.size()[0] as usize, expected.len(), "{what}");
    let off = (found - Tensor::from_slice(expected)).abs().max().double_value(&[]);
    assert!(off < TOLERANCE, "{what} is off by {off:e}");
}

fn check(case: &Case) {
    case.config.validate().unwrap_or_else(|rule| panic!("{}: {rule}", case.name));
    let mut declarations = Declarations::default();
    let slot = Slot::root(0, Kind::Double, Device::Cpu);
    let mut quantizer = build(&case.config, &slot, &mut declarations);
    assert_eq!(quantizer.dim(), case.dim, "{}", case.name);
    let parameters = declarations.allocate(0, Kinds::same(Kind::Double), Device::Cpu);
    let mut places: BTreeMap<String, Tensor> = quantizer.state().into_iter().collect();
    for (name, view) in parameters.named_views() {
        places.insert(name.to_owned(), view);
    }
    for (name, values) in &case.given {
        let place = places.get_mut(name).unwrap_or_else(|| panic!("{}: no {name}", case.name));
        place.copy_(&Tensor::from_slice(values).view_as(place));
    }

    let rows = case.indices.len() as i64;
    let latents_nd = table(rows, case.dim, |i, j| case.size * (1.3 * i + 2.1 * j + 0.2).sin())
        .set_requires_grad(true);
    let upstream_nd = table(rows, case.dim, |i, j| (0.7 * i - 1.1 * j).cos());
    let place = Place::new(0, rows as usize, 0..rows as usize);
    let sums = Sums::zeros(quantizer.lens(), Kind::Double, Device::Cpu);
    let Quantized { output_nd, path, indices_nl, mut loss, late } =
        quantizer.forward(&parameters, &latents_nd, &place, &sums);
    for part in late {
        loss += part(&sums.distribution);
    }
    let what = |end: &str| format!("{}: {end}", case.name);
    assert_near(&what("output"), &output_nd, &case.output);
    let indices: Vec<i64> =
        Vec::try_from(indices_nl.contiguous().flatten(0, 1)).expect("whole numbers");
    assert_eq!(indices, case.indices.concat(), "{}", case.name);
    assert_near(&what("loss"), &loss, &[case.loss]);

    let leaves = parameters.leaves_of(Stage::Quantizer);
    let inputs: Vec<&Tensor> = [&latents_nd].into_iter().chain(leaves).collect();
    let root = path.root(&upstream_nd) + loss;
    let gradients = Tensor::run_backward(&[root], &inputs, false, false);
    assert_near(&what("gradient"), &gradients[0], &case.gradient);
    let flat = parameters.flat().zeros_like();
    parameters.store_gradients(Stage::Quantizer, &gradients[1..], &flat);
    let found: BTreeMap<&str, Tensor> = parameters.trained_views(&flat).collect();
    for (name, expected) in &case.parameter_gradients {
        assert_near(&what(&format!("gradient of {name}")), &found[name.as_str()], expected);
    }

    // An evaluation's way from indices to outputs is the training's.
    assert_eq!(quantizer.tokenize(&parameters, &latents_nd), indices_nl, "{}", case.name);
    let looked_up_nd = quantizer.look_up(&parameters, &indices_nl);
    assert_near(&what("look-up"), &looked_up_nd, &case.output);

    let _ = quantizer.update(&parameters, &sums, &place);
    let state: BTreeMap<String, Tensor> = quantizer.state().into_iter().collect();
    for (name, expected) in &case.after {
        assert_near(&what(&format!("{name} after the update")), &state[name], expected);
    }
}

#[test]
fn outputs_losses_gradients_and_updates_are_those_of_the_library_or_the_paper() {
    let cases = cases();
    assert_eq!(cases.len(), 24);
    for case in &cases {
        check(case);
    }
}

/// The numbers of a JSON tree, in order.
fn leaves(value: &serde_json::Value, out: &mut Vec<f64>) {
    match value {
        serde_json::Value::Array(values) => values.iter().for_each(|value| leaves(value, out)),
        serde_json::Value::Object(table) => table.values().for_each(|value| leaves(value, out)),
        other => out.extend(other.as_f64()),
    }
}

#[test]
fn the_fixtures_can_be_made_anew() {
    let Ok(python) = std::env::var("TESSERA_PEER_PYTHON") else {
        println!(
            "skipped: set TESSERA_PEER_PYTHON to a Python with vector-quantize-pytorch 1.32, and what \
             the scripts name, to make the fixtures anew"
        );
        return;
    };
    for name in ["critics", "features", "fsq", "layers", "lfq", "losses", "metrics", "quantizers"] {
        let folder =
            Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("tests/fixtures");
        let script = folder.join(format!("{name}.py"));
        let made = Command::new(&python).arg(script).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let kept = std::fs::read(folder.join(format!("{name}.json"))).unwrap();
        let numbers = |json: &[u8]| {
            let mut numbers = Vec::new();
            leaves(&serde_json::from_slice(json).unwrap(), &mut numbers);
            numbers
        };
        let (made, kept) = (numbers(&made.stdout), numbers(&kept));
        assert_eq!(made.len(), kept.len(), "{name}");
        for (made, kept) in made.iter().zip(&kept) {
            assert!((made - kept).abs() < 1e-6, "{name}: {made} {kept}");
        }
    }
}
