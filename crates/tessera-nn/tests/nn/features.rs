//! Distances by features against `lpips`, and figures of sets of features against pytorch-fid and
//! prdc; `fixtures/features.py` and `fixtures/metrics.py` have the cases and the reasons.
//! `parity.rs` makes them anew where it has a Python.

use std::path::PathBuf;

use serde::Deserialize;
use tch::{CModule, Device, Kind, Tensor};
use tessera_nn::features::{FeatureNetwork, Script, ScriptInput, Stages, Vgg};
use tessera_nn::metrics::{add_moments, frechet, manifold, moments_len};

/// Places of the convolutions in torchvision's `vgg16.features`, their slices in lpips, and channels.
const CONVS: [(i64, i64, i64); 13] = [
    (0, 1, 64),
    (2, 1, 64),
    (5, 2, 128),
    (7, 2, 128),
    (10, 3, 256),
    (12, 3, 256),
    (14, 3, 256),
    (17, 4, 512),
    (19, 4, 512),
    (21, 4, 512),
    (24, 5, 512),
    (26, 5, 512),
    (28, 5, 512),
];
const HEADS: [i64; 5] = [64, 128, 256, 512, 512];

/// SplitMix64's outputs as numbers in [0, 1), 53 bits each, as the scripts draw them.
fn unit(stream: u64, shape: &[i64]) -> Tensor {
    let of = |at: u64| {
        let mut z = (at + 1 + (stream << 32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    };
    let count: i64 = shape.iter().product();
    Tensor::from_slice(&(0..count as u64).map(of).collect::<Vec<_>>()).view(shape)
}

/// Names and shapes of a file's tensors; `in_lpips`: by lpips's own names, else by torchvision's.
fn layout(in_lpips: bool) -> Vec<(String, Vec<i64>)> {
    let mut all = Vec::new();
    let mut inputs = 3;
    for (place, slice, outputs) in CONVS {
        let stem = if in_lpips { format!("net.slice{slice}") } else { "features".to_owned() };
        all.push((format!("{stem}.{place}.weight"), vec![outputs, inputs, 3, 3]));
        all.push((format!("{stem}.{place}.bias"), vec![outputs]));
        inputs = outputs;
    }
    let head = |(head, width)| {
        (format!("lin{head}.model.{}.weight", i32::from(in_lpips)), vec![1, width, 1, 1])
    };
    all.extend(HEADS.into_iter().enumerate().map(head));
    all
}

/// The tensors of a file, by the formulas of the script.
fn tensors(in_lpips: bool) -> Vec<(String, Tensor)> {
    let value = |(k, (name, shape)): (usize, (String, Vec<i64>))| {
        let unit = unit(k as u64, &shape);
        let value = match shape[..] {
            [_] => unit * 0.2 - 0.1,
            [1, ..] => unit,
            _ => (unit * 2.0 - 1.0) * (6.0 / (9 * shape[1]) as f64).sqrt(),
        };
        (name, value)
    };
    layout(in_lpips).into_iter().enumerate().map(value).collect()
}

/// Another file each time.
fn scratch(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{name}", std::process::id()))
}

#[derive(Deserialize)]
struct Case {
    name: String,
    shape: Vec<i64>,
    value: f64,
    layers: Vec<f64>,
    every: i64,
    gradient: Vec<f64>,
}

fn cases() -> Vec<Case> {
    let cases: Vec<Case> = serde_json::from_str(include_str!("../fixtures/features.json")).unwrap();
    assert_eq!(cases.len(), 4);
    cases
}

fn picture(shape: &[i64], value: impl Fn(f64) -> f64) -> Tensor {
    let values: Vec<f64> = (0..shape.iter().product()).map(|at: i64| value(at as f64)).collect();
    Tensor::from_slice(&values).view(shape)
}

fn inputs(case: &Case, kind: Kind) -> [Tensor; 2] {
    let outputs = picture(&case.shape, |at| 0.5 + 0.45 * (1.3 * at + 0.2).sin());
    let targets = picture(&case.shape, |at| 0.5 + 0.4 * (0.7 * at - 0.3).cos());
    [outputs, targets].map(|images| images.to_kind(kind))
}

fn check(network: &FeatureNetwork, case: &Case, kind: Kind, tolerance: f64) {
    let [outputs, targets] = inputs(case, kind);
    let outputs = outputs.set_requires_grad(true);
    let original = network.original_distance_sum(&outputs, &targets);
    let loss = network.distance_sum(&outputs, &targets);
    let value = if case.name == "original" { &original } else { &loss };
    let off = (value.double_value(&[]) - case.value).abs();
    assert!(off < tolerance, "{}, {kind:?}: off by {off:e}", case.name);
    let gradient = &Tensor::run_backward(&[loss], &[&outputs], false, false)[0];
    let kept = gradient.to_kind(Kind::Double).flatten(0, -1).slice(0, None, None, case.every);
    let off = (kept - Tensor::from_slice(&case.gradient)).abs().max().double_value(&[]);
    assert!(off < tolerance, "{}, {kind:?}: gradient off by {off:e}", case.name);
    assert_eq!(case.layers.len(), network.maps(&outputs).len());
}

/// In float64 the rest is rounding through 13 layers, and in the baseline that the two forms of a
/// length differ by 1e-10 / s; in float32 it was 3e-8.
#[test]
fn distances_and_gradients_are_those_of_lpips() {
    let path = scratch("vgg.safetensors");
    Tensor::write_safetensors(&tensors(true), &path).unwrap();
    let network = FeatureNetwork::Vgg(Vgg::read(&path, Device::Cpu).unwrap());
    std::fs::remove_file(&path).unwrap();
    for case in cases().iter().filter(|case| case.name != "baseline") {
        check(&network, case, Kind::Double, 1e-10);
        check(&network, case, Kind::Float, 1e-6);
    }
    let [outputs, _] = inputs(&cases()[0], Kind::Float);
    assert_eq!(network.vector(&outputs).size(), [2, 1024]);
    assert_eq!(network.vector(&outputs.narrow(0, 0, 0)).size(), [0, 1024]);
    assert_eq!(network.validate(1, 16, 16), Ok(()));
    assert!(network.validate(2, 16, 16).unwrap_err().contains("1 or 3 channels, these have 2"));
    assert!(network.validate(3, 16, 15).unwrap_err().contains("sides of 16 at least"));
}

/// Heads of ones are lpips's baseline, whose channels count equally.
#[test]
fn both_names_are_read_and_equal_weights_are_the_baseline() {
    let mut tensors = tensors(false);
    for (name, tensor) in &mut tensors {
        if name.starts_with("lin") {
            *tensor = tensor.ones_like();
        }
    }
    let more = ["classifier.0.weight", "scaling_layer.shift", "lins.3.model.1.weight"];
    tensors.extend(more.map(|name| (name.to_owned(), Tensor::from(0.0))));
    let network = FeatureNetwork::Vgg(Vgg::new(tensors, Device::Cpu).unwrap());
    check(&network, cases().last().unwrap(), Kind::Double, 1e-9);
}

#[test]
fn a_file_that_is_not_the_layout_is_refused_in_one_line() {
    let empty = |name: &str, shape: &[i64]| {
        (name.to_owned(), Tensor::zeros(shape, (Kind::Float, Device::Cpu)))
    };
    let without = |name: &str| {
        let others = layout(true).into_iter().filter(|(other, _)| other != name);
        others.map(|(name, shape)| empty(&name, &shape)).collect::<Vec<_>>()
    };
    let with = |name: &str, shape: &[i64]| {
        let mut all = without(name);
        all.push(empty(name, shape));
        all
    };
    for (tensors, words) in [
        (without("lin4.model.1.weight"), "lin4.model.1.weight is missing: the file should"),
        (without("net.slice2.5.bias"), "features.5.bias is missing"),
        (
            with("net.slice1.0.weight", &[64, 1, 3, 3]),
            "net.slice1.0.weight should be [64, 3, 3, 3], found [64, 1, 3, 3]",
        ),
        (with("features.1.running_mean", &[64]), "features.1.running_mean is not of this network"),
    ] {
        let refused = Vgg::new(tensors, Device::Cpu).unwrap_err();
        assert!(refused.contains(words) && !refused.contains('\n'), "{refused}");
    }
    let path = scratch("other.safetensors");
    Tensor::write_safetensors(&[("a", Tensor::from(1.0))], &path).unwrap();
    let refused = Vgg::read(&path, Device::Cpu).unwrap_err();
    std::fs::remove_file(&path).unwrap();
    assert!(refused.starts_with(path.to_str().unwrap()), "{refused}");
    assert!(refused.contains(": features.0.weight is missing: the file should"), "{refused}");
    let path = scratch("none.safetensors");
    let refused = Vgg::read(&path, Device::Cpu).unwrap_err();
    assert!(
        refused.contains("cannot be read as safetensors") && !refused.contains('\n'),
        "{refused}"
    );
}

/// A module that was traced: mean and mean square over positions.
fn traced(path: &PathBuf, input: ScriptInput) {
    let images = match input {
        ScriptInput::Float => Tensor::zeros([2, 3, 8, 6], (Kind::Float, Device::Cpu)),
        ScriptInput::Bytes => Tensor::zeros([2, 3, 8, 6], (Kind::Uint8, Device::Cpu)),
    };
    let mut forward = |inputs: &[Tensor]| {
        let images = inputs[0].to_kind(Kind::Float);
        let mean = |of: &Tensor| of.mean_dim([2i64, 3].as_slice(), false, Kind::Float);
        vec![Tensor::cat(&[mean(&images), mean(&images.square())], 1)]
    };
    let module =
        CModule::create_by_tracing("Features", "forward", &[images], &mut forward).unwrap();
    module.save(path).unwrap();
}

#[test]
fn a_torchscript_file_gives_vectors() {
    for (input, scale) in [(ScriptInput::Float, 1.0), (ScriptInput::Bytes, 255.0)] {
        let path = scratch(&format!("{input:?}.pt"));
        traced(&path, input);
        let script = Script::open(&path, input, [3, 8, 6], Device::Cpu).unwrap();
        let refused = Script::open(&path, input, [0, 8, 6], Device::Cpu);
        std::fs::remove_file(&path).unwrap();
        assert!(refused.is_ok(), "it takes any size");
        let network = FeatureNetwork::Script(script);
        assert!(!network.has_maps());
        assert!(
            network.validate(3, 8, 5).unwrap_err().contains("opened for pictures of 3 x 8 x 6")
        );
        let images = Tensor::full([2, 3, 8, 6], 0.2, (Kind::Double, Device::Cpu));
        let vectors = network.vector(&images);
        assert_eq!(vectors.size(), [2, 6]);
        let first = vectors.double_value(&[0, 0]);
        assert!((first - 0.2 * scale).abs() < 1e-5, "{first}");
        assert_eq!(network.vector(&images.narrow(0, 0, 0)).size(), [0, 6]);
    }
    let path = scratch("broken.pt");
    std::fs::write(&path, "no module").unwrap();
    let refused = Script::open(&path, ScriptInput::Float, [3, 8, 6], Device::Cpu).unwrap_err();
    std::fs::remove_file(&path).unwrap();
    assert!(
        refused.contains("cannot be opened as TorchScript") && !refused.contains('\n'),
        "{refused}"
    );
}

#[derive(Deserialize)]
struct Sets {
    nums: [i64; 2],
    width: i64,
    scale: f64,
    shift: f64,
    frechet: f64,
    precision: f64,
    recall: f64,
    density: f64,
    coverage: f64,
}

/// Roots of a singular matrix turn rounding of 1e-16 into 1e-8, so 1e-7 relative.
#[test]
fn figures_of_sets_are_those_of_pytorch_fid_and_prdc() {
    let sets: Vec<Sets> = serde_json::from_str(include_str!("../fixtures/metrics.json")).unwrap();
    assert_eq!(sets.len(), 4);
    for set in &sets {
        let features = |stream, num| unit(stream, &[num, set.width]) * 2.0 - 1.0;
        let real = features(1, set.nums[0]);
        let fake = features(2, set.nums[1]) * set.scale + set.shift;
        let [of_real, of_fake] = [&real, &fake].map(|features| {
            let options = (Kind::Double, Device::Cpu);
            let mut sums = Tensor::zeros([moments_len(set.width)], options);
            add_moments(features, &mut sums);
            sums
        });
        let found = frechet(&of_real, &of_fake);
        assert!((found - set.frechet).abs() < 1e-7 * set.frechet, "{found} {}", set.frechet);
        let found = manifold(&real, &fake, 5);
        for (found, expected) in [
            (found.precision, set.precision),
            (found.recall, set.recall),
            (found.density, set.density),
            (found.coverage, set.coverage),
        ] {
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        }
    }
}

/// What the module promises of the random network, from outside.
#[test]
fn a_random_network_tells_a_blur_from_a_shade() {
    let network = FeatureNetwork::Stages(Stages::random(3, Device::Cpu));
    let images = picture(&[1, 3, 32, 32], |at| 0.5 + 0.4 * (0.9 * at).sin());
    let blurred = images.avg_pool2d([3, 3], [1, 1], [1, 1], false, false, None);
    let shade = &images + (&blurred - &images).square().mean(Kind::Double).sqrt();
    let [blur, shade] =
        [blurred, shade].map(|other| network.distance_sum(&other, &images).double_value(&[]));
    assert!(blur > shade, "{blur} {shade}");
}
