//! Every quantiser of `configs/quantizers/`, small: exact over ranks and resumed bit for bit, as threads.
//! `quantized_runs.rs` has them as processes.

use std::collections::BTreeSet;
use std::path::Path;

use tch::Kind;
use tessera_nn::QuantizerConfig;
use tessera_nn::quantize::{CodebookInit, VectorConfig};
use tessera_train::task::TaskKind;
use tessera_train::{Precision, TrainConfig, Training, resolve};

use crate::experiments::{SMALL, file};
use crate::ranks::{Outcome, STOP, assert_bitwise_equal, distance, resume_world, train_world_from};
use crate::root;

/// Steps of a training, and of one in `./launch/test.sh --full`.
pub(crate) const STEPS: u64 = 10;
pub(crate) const ALL_STEPS: u64 = 20;

/// The experiments, in parts that take about as long.
const AVERAGES: [&str; 8] = [
    "ema",
    "ema_rotation",
    "ema_kmeans",
    "ema_split",
    "ema_anchors",
    "ema_sampled",
    "ema_entropy",
    "ema_projected",
];
const OTHER_CODEBOOKS: [&str; 5] =
    ["cosine", "gradient", "gradient_orthogonal", "gradient_cosine", "simvq"];
const COMPOSED: [&str; 6] =
    ["grouped", "heads", "residual", "residual_shared", "residual_projected", "grouped_residual"];
const WITHOUT_CODEBOOK: [&str; 6] =
    ["fsq", "fsq_symmetric", "residual_fsq", "lfq", "bsq", "residual_lfq"];

/// Those that need more samples before many codes are in use: nothing replaces codes there.
const TAKES_FEW: [&str; 5] = ["simvq", "fsq", "fsq_symmetric", "lfq", "bsq"];

/// Calls `change` with each vector quantiser in a configuration.
pub(crate) fn each_vector(config: &mut QuantizerConfig, change: &dyn Fn(&mut VectorConfig)) {
    match config {
        QuantizerConfig::Vector(config) => change(config),
        QuantizerConfig::Residual(config) => each_vector(&mut config.quantizer, change),
        QuantizerConfig::Grouped(config) => each_vector(&mut config.quantizer, change),
        _ => {}
    }
}

/// Signals in the files of a folder, in float64, with 64 codes of which many are replaced; `sets` say the rest.
pub(crate) fn of_files(folder: &Path, modality: &str, sets: &[&str]) -> TrainConfig {
    let common = [
        format!("data.path={}", folder.display()),
        "data.kind=folder".to_owned(),
        format!("data.modality={modality}"),
        "model.quantizer.code_dim=8".to_owned(),
        "train.precision=fp64".to_owned(),
        "eval.every=0".to_owned(),
    ];
    let sets: Vec<String> =
        common.into_iter().chain(sets.iter().map(|set| set.to_string())).collect();
    let mut config = resolve(Some(&file("ema")), [], &sets, None).unwrap().config;
    each_vector(&mut config.model.quantizer, &|vector| {
        (vector.num_codes, vector.decay) = (64, 0.5);
        (vector.replace_every, vector.replace_below) = (2, 0.5);
    });
    config
}

/// An experiment, small, with many codes replaced where it replaces any: what was taken once is
/// soon forgotten.
pub(crate) fn config(name: &str) -> TrainConfig {
    let sets: Vec<String> = SMALL.iter().map(|set| set.to_string()).collect();
    let mut config = resolve(Some(&file(name)), [], &sets, None).unwrap().config;
    if !TAKES_FEW.contains(&name) {
        config.train.global_batch = 25;
    }
    each_vector(&mut config.model.quantizer, &|vector| {
        vector.decay = 0.5;
        vector.replace_every = 2;
        vector.replace_below = 0.5;
        // Latents are spread for this (`train_world`): against their distances the default is a
        // step function, which makes 1e-7 of rounding within 20 steps.
        vector.entropy_temperature = 1.0;
    });
    config
}

fn assert_close(what: &str, one: &Outcome, other: &Outcome) {
    assert_eq!(one.indices, other.indices, "{what}");
    for ((name, ours), (_, theirs)) in one.state.iter().zip(&other.state) {
        let distance = distance(ours, theirs);
        assert!(distance < 1e-9, "{what}: {name} differs by {distance:e}");
    }
    // Of figures above 1, such as the norm of a gradient, in parts of them.
    for (ours, theirs) in one.metrics.iter().flatten().zip(other.metrics.iter().flatten()) {
        assert!((ours - theirs).abs() < 1e-9 * ours.abs().max(1.0), "{what}: {ours} {theirs}");
    }
    assert_eq!(one.codes_replaced, other.codes_replaced, "{what}");
}

/// Trains a world from an encoder whose latents are far apart from the start, so that many codes
/// are in use.
fn train_world(world_size: usize, config: &TrainConfig, steps: u64) -> Vec<Outcome> {
    let spread = |training: &Training| {
        let parameters = training.task.parameters();
        for (name, mut weight) in parameters.named_views() {
            if name.starts_with("encoder.") && name.ends_with(".weight") {
                weight *= 4.0;
            }
        }
        parameters.refresh();
    };
    train_world_from(spread, world_size, config, 0..steps)
}

/// What a checkpoint of `STOP` holds is all that the steps after it hang on.
fn assert_resumes(name: &str, world_size: usize, config: &TrainConfig, whole: &Outcome) {
    let steps = STOP..whole.metrics.len() as u64;
    let resumed = resume_world(&whole.state_at_stop, world_size, config, steps).remove(0);
    for ((tensor, ours), (_, theirs)) in resumed.state.iter().zip(&whole.state) {
        assert_eq!(ours, theirs, "{name}: {tensor} differs after a resume");
    }
    let rest = STOP as usize;
    assert_eq!(resumed.indices, whole.indices[rest..], "{name}, resumed");
    assert_eq!(resumed.metrics, whole.metrics[rest..], "{name}, resumed");
}

/// On one rank, with all samples at once, a checkpoint of `STOP` by a larger world in micro-batches goes on with the same samples,
/// to the same figures.
fn assert_resumes_elsewhere(name: &str, world: &Outcome, config: &TrainConfig, whole: &Outcome) {
    let mut config = config.clone();
    (config.train.micro_batch, config.train.recompute) = (0, false);
    let resumed =
        resume_world(&world.state_at_stop, 1, &config, STOP..whole.metrics.len() as u64).remove(0);
    for ((tensor, ours), (_, theirs)) in resumed.state.iter().zip(&whole.state) {
        let distance = distance(ours, theirs);
        assert!(distance < 1e-9, "{name}, resumed elsewhere: {tensor} differs by {distance:e}");
    }
    assert_eq!(resumed.indices, whole.indices[STOP as usize..], "{name}, resumed elsewhere");
}

/// Worlds of these sizes and of 1 on a batch that none of 2, 3 and 4 divides, the first resumed, in one part and in
/// micro-batches of these sizes; then one that leaves a rank without samples; then float32 and bfloat16.
pub(crate) fn exact_over_ranks(
    name: &str,
    mut config: TrainConfig,
    world_sizes: &[usize],
    micro_batches: &[u64],
    steps: u64,
) {
    let one = train_world(1, &config, steps).remove(0);
    if config.task == TaskKind::Autoencoder {
        let used = one.metrics.iter().map(|metrics| metrics[4]).fold(0.0, f64::max);
        println!("{name}: {used} codes in use, {} replaced", one.codes_replaced);
        assert!(used >= 48.0, "{name}: {used} codes in use");
    }
    for &world_size in world_sizes {
        let ranks = train_world(world_size, &config, steps);
        assert_bitwise_equal(&ranks);
        assert_close(&format!("{name}, {world_size} ranks"), &one, &ranks[0]);
        if world_size == world_sizes[0] {
            assert_resumes(name, world_size, &config, &ranks[0]);
        }
    }
    // Activations are computed again there, which changes no bit.
    config.train.recompute = true;
    for &micro_batch in micro_batches {
        config.train.micro_batch = micro_batch;
        for &world_size in &[&[1], world_sizes].concat() {
            let ranks = train_world(world_size, &config, steps);
            assert_bitwise_equal(&ranks);
            let what = format!("{name}, {world_size} ranks, {micro_batch} samples at once");
            assert_close(&what, &one, &ranks[0]);
            if world_size == world_sizes[0] {
                assert_resumes(name, world_size, &config, &ranks[0]);
                assert_resumes_elsewhere(name, &ranks[0], &config, &one);
            }
        }
    }
    (config.train.micro_batch, config.train.recompute) = (0, false);
    let whole = std::mem::replace(&mut config.train.global_batch, 3);
    let few = steps / 3;
    let (one, four) = (train_world(1, &config, few).remove(0), train_world(4, &config, few));
    assert_bitwise_equal(&four);
    assert_close(&format!("{name}, an empty part"), &one, &four[0]);

    config.train.global_batch = whole;
    for precision in [Precision::Fp32, Precision::Bf16] {
        config.train.precision = precision;
        let ranks = train_world(3, &config, steps / 2);
        assert_bitwise_equal(&ranks);
        for (tensor, value) in &ranks[0].state {
            assert!(value.kind() != Kind::BFloat16, "{name}: {tensor} is rounded");
            let is_finite = value.isfinite().all().int64_value(&[]) == 1;
            assert!(is_finite, "{name}, {precision:?}: {tensor} is not finite");
        }
    }
}

/// The same in short: three ranks in micro-batches, with activations computed again, resumed; then a few steps in float32.
pub(crate) fn exact_in_parts(name: &str, mut config: TrainConfig) {
    let one = train_world(1, &config, STEPS).remove(0);
    (config.train.micro_batch, config.train.recompute) = (3, true);
    let ranks = train_world(3, &config, STEPS);
    assert_bitwise_equal(&ranks);
    assert_close(&format!("{name}, 3 ranks, 3 samples at once"), &one, &ranks[0]);
    assert_resumes(name, 3, &config, &ranks[0]);
    (config.train.micro_batch, config.train.recompute) = (0, false);
    config.train.precision = Precision::Fp32;
    assert_bitwise_equal(&train_world(3, &config, 6));
}

fn all_exact(names: &[&str]) {
    for (number, name) in names.iter().enumerate() {
        let mut config = config(name);
        if number == 0 {
            config.train.ema_decay = 0.9;
            exact_over_ranks(name, config, &[3], &[5], STEPS);
        } else {
            exact_in_parts(name, config);
        }
    }
}

#[test]
fn codebooks_that_are_averages_are_exact_over_ranks() {
    all_exact(&AVERAGES);
}

#[test]
fn other_codebooks_are_exact_over_ranks() {
    all_exact(&OTHER_CODEBOOKS);
}

#[test]
fn composed_quantizers_are_exact_over_ranks() {
    all_exact(&COMPOSED);
}

#[test]
fn quantizers_without_codebook_are_exact_over_ranks() {
    all_exact(&WITHOUT_CODEBOOK);
}

/// First codes are chosen in the first step; a few more show that all ranks went on from the same.
fn exact_from_first_codes(name: &str, init: CodebookInit) {
    let mut config = config(name);
    each_vector(&mut config.model.quantizer, &|vector| vector.codebook_init = init);
    let one = train_world(1, &config, 8).remove(0);
    let three = train_world(3, &config, 8);
    assert_bitwise_equal(&three);
    assert_close(&format!("{name}, {init:?}, 3 ranks"), &one, &three[0]);
}

#[test]
fn every_initialization_is_exact_over_ranks() {
    for (name, init) in [
        ("ema", CodebookInit::Data),
        ("cosine", CodebookInit::Uniform),
        ("gradient", CodebookInit::Kmeans),
        ("residual", CodebookInit::Kmeans),
        ("heads", CodebookInit::Uniform),
    ] {
        exact_from_first_codes(name, init);
    }
}

/// All ways to freeze parts.
const FROZEN: [&[&str]; 5] = [
    &["quantizer"],
    &["encoder"],
    &["decoder"],
    &["quantizer", "encoder"],
    &["encoder", "decoder"],
];

/// Parts frozen in these ways: worlds of these sizes in micro-batches of these sizes, the first resumed. What is frozen does
/// not change.
fn exact_with_frozen_parts(
    name: &str,
    frozen: &[&[&str]],
    world_sizes: &[usize],
    micro_batches: &[u64],
) {
    for &parts in frozen {
        let mut config = config(name);
        (config.train.ema_decay, config.train.recompute) = (0.9, true);
        let groups = &mut config.optimizer.groups;
        for part in parts {
            match *part {
                "quantizer" => groups.quantizer.frozen = true,
                "encoder" => groups.encoder.frozen = true,
                _ => groups.decoder.frozen = true,
            }
        }
        let what = format!("{name}, {} frozen", parts.join(" and "));
        let start = train_world(1, &config, 1).remove(0);
        let one = train_world(1, &config, STEPS).remove(0);
        for ((tensor, before), (_, after)) in start.state.iter().zip(&one.state) {
            let is_frozen = parts.iter().any(|part| tensor.split('.').next() == Some(part));
            assert!(!is_frozen || before == after, "{what}: {tensor} has moved");
        }
        assert!(start.state.iter().zip(&one.state).any(|(before, after)| before.1 != after.1));
        for &micro_batch in micro_batches {
            config.train.micro_batch = micro_batch;
            for &world_size in world_sizes {
                let ranks = train_world(world_size, &config, STEPS);
                assert_bitwise_equal(&ranks);
                let what = format!("{what}, {world_size} ranks, {micro_batch} samples at once");
                assert_close(&what, &one, &ranks[0]);
                if world_size == world_sizes[0] {
                    assert_resumes(&what, world_size, &config, &ranks[0]);
                }
            }
        }
    }
}

#[test]
fn trainings_with_frozen_parts_are_exact_over_ranks() {
    for (name, frozen) in [
        ("ema_anchors", [FROZEN[0], FROZEN[3]]),
        ("gradient", [FROZEN[1], FROZEN[4]]),
        ("ema_entropy", [FROZEN[2], FROZEN[0]]),
    ] {
        exact_with_frozen_parts(name, &frozen, &[3], &[5]);
    }
}

mod full {
    use super::*;

    #[test]
    fn all_initializations_are_exact_over_ranks() {
        for init in [CodebookInit::Data, CodebookInit::Uniform, CodebookInit::Kmeans] {
            for name in ["ema", "cosine", "gradient", "residual", "heads"] {
                exact_from_first_codes(name, init);
            }
        }
    }

    #[test]
    fn all_are_exact_with_frozen_parts() {
        let all = [&AVERAGES[..], &OTHER_CODEBOOKS, &COMPOSED, &WITHOUT_CODEBOOK].concat();
        for (number, name) in all.into_iter().enumerate() {
            // Each in one way. Without a codebook nothing is left to train in the last.
            let ways = if WITHOUT_CODEBOOK.contains(&name) { 4 } else { 5 };
            exact_with_frozen_parts(name, &[FROZEN[number % ways]], &[1, 2, 3, 4], &[0, 1, 5, 7]);
        }
    }

    #[test]
    fn all_are_exact_over_one_to_four_ranks() {
        for name in [&AVERAGES[..], &OTHER_CODEBOOKS, &COMPOSED, &WITHOUT_CODEBOOK].concat() {
            let mut config = config(name);
            config.train.ema_decay = 0.9;
            exact_over_ranks(name, config, &[2, 3, 4], &[1, 5, 7], ALL_STEPS);
        }
    }
}

#[test]
fn every_experiment_is_in_a_test() {
    let named: BTreeSet<String> = [&AVERAGES[..], &OTHER_CODEBOOKS, &COMPOSED, &WITHOUT_CODEBOOK]
        .concat()
        .into_iter()
        .map(str::to_owned)
        .collect();
    let found: BTreeSet<String> = std::fs::read_dir(root().join("configs/quantizers"))
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    assert_eq!(named, found);
}
