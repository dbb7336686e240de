//! N ranks on a global batch are one rank on the same batch.
//!
//! In fp64 to 1e-9, indices equal; in fp32 the ranks among themselves bit for bit. (In fp32 N
//! ranks against one part by up to 1e-1 in 20 steps in correct code: rounding flips an
//! assignment. That distance is printed, not asserted.)

use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tch::{Device, Kind, Tensor};
use tessera_comm::{CommError, Communicator, RankDevice, Solo, Threads};
use tessera_nn::QuantizerConfig;
use tessera_nn::quantize::VectorConfig;
use tessera_train::{
    Autoencoder, Clock, Precision, Row, Samples, StepInput, Stepped, TrainConfig, TrainError,
    Training, checkpoint, part_of, read_scalars, resolve, training_batches,
};

use crate::root;

const STEPS: u64 = 20;
const DEADLINE: Duration = Duration::from_secs(100);

/// The step that a resume begins with: no multiple of the steps between two replacements.
pub(crate) const STOP: u64 = 6;

/// What a rank ends with.
pub(crate) struct Outcome {
    /// Names and values of all state.
    pub(crate) state: Vec<(String, Tensor)>,
    /// The same before step [`STOP`], as a checkpoint of it has them; of a run that begins before it and ends behind it.
    pub(crate) state_at_stop: Vec<(String, Tensor)>,
    /// Codes of the whole global batch of each step, seen with the parameters after it; on rank 0, whose
    /// state is every rank's.
    pub(crate) indices: Vec<Vec<i64>>,
    /// Reconstruction, quantiser's losses, gradient norm, perplexity, codes used, and further losses: of each step.
    pub(crate) metrics: Vec<Vec<f64>>,
    /// Dead codes replaced in all steps.
    pub(crate) codes_replaced: u64,
    num_collectives: u64,
}

fn config(precision: Precision, global_batch: u64) -> TrainConfig {
    let file = root().join("configs/smoke.toml");
    let mut config = resolve(Some(&file), [], &[], None).unwrap().config;
    config.train.precision = precision;
    config.train.global_batch = global_batch;
    config.optimizer.learning_rate = 3e-5;
    config.optimizer.weight_decay = 0.01;
    config.optimizer.clip_grad_norm = 0.5;
    config.model.quantizer = QuantizerConfig::Vector(VectorConfig {
        num_codes: 128,
        code_dim: 8,
        replace_every: 1,
        replace_below: 0.9,
        ..VectorConfig::default()
    });
    config
}

/// Trains one rank from a state that `prepare` may have changed; `disturb` may do so before each
/// step.
fn train_rank(
    comm: &Threads,
    config: &TrainConfig,
    steps: Range<u64>,
    prepare: &dyn Fn(&Training),
    disturb: impl Fn(usize, u64, &Training),
) -> Result<Outcome, TrainError> {
    let source = tessera_data::source::open(&config.data, "train")?;
    let batches =
        |comm| training_batches(Arc::clone(&source), config, steps.start, comm, RankDevice::cpu());
    let (rank, world_size) = (comm.rank(), comm.world_size());
    let mine = batches(comm)?;
    let mut whole = if rank == 0 { Some(batches(&Solo::default())?) } else { None };
    let samples = Samples::of(config.task, &*source)?;
    let mut training = Training::new(config, samples, Device::Cpu)?;
    prepare(&training);
    let mut clock = Clock::start(Arc::default(), &*training.task);
    let (mut indices, mut metrics, mut codes_replaced) = (Vec::new(), Vec::new(), 0);
    let mut state_at_stop = Vec::new();
    let num_steps = (steps.end - steps.start) as usize;
    for batch in mine.take(num_steps) {
        let mut batch = batch?;
        if batch.step == 0 {
            training.begin(comm, &batch)?;
        }
        disturb(rank, batch.step, &training);
        if batch.step == STOP && rank == 0 {
            state_at_stop = copy_of_state(&training);
        }
        let step = batch.step;
        let input = StepInput {
            step,
            stop: false,
            compare_state: true,
            num_skipped: 0,
            check_finite: false,
            saves: [0.0; 4],
        };
        let Stepped::Done(scalars) = training.step(comm, &mut batch, input, &mut clock)? else {
            unreachable!("nothing looks")
        };
        read_scalars(step, &scalars, training.task.losses(), world_size)?;
        let means = training.window.take();
        let row = Row { step, figures: training.task.figures(&means.numbers, &means.vector) };
        // A prior has one loss and no codes.
        let of_codes = |name: &str| row.get(name).map_or(0.0, |_| row.number(name));
        codes_replaced += of_codes("codes_replaced") as u64;
        let (losses, rest) = means.losses.split_at(means.losses.len().min(2));
        let (perplexity, codes_used) = (of_codes("perplexity"), of_codes("codes_used"));
        let quantizer_loss = losses.get(1).copied().unwrap_or(0.0);
        let first = [losses[0], quantizer_loss, means.grad_norm, perplexity, codes_used];
        metrics.push([&first, rest].concat());
        let Some(whole) = whole.as_mut().and_then(Iterator::next) else { continue };
        let whole = whole?;
        let _no_grad = tch::no_grad_guard();
        let Some(autoencoder) = training.task.of::<Autoencoder>() else {
            indices.push(Vec::new());
            continue;
        };
        let model = &autoencoder.model;
        let samples_nc = part_of(&whole, Device::Cpu).values(model.kind());
        let of_levels = model.tokenize(&samples_nc);
        let flat: Vec<Tensor> = of_levels.iter().map(|level_nl| level_nl.flatten(0, 1)).collect();
        indices.push(Vec::try_from(Tensor::cat(&flat, 0))?);
    }
    let (state, num_collectives) = (copy_of_state(&training), comm.num_collectives());
    Ok(Outcome { state, state_at_stop, indices, metrics, codes_replaced, num_collectives })
}

fn copy_of_state(training: &Training) -> Vec<(String, Tensor)> {
    let copy = |(name, tensor): (String, Tensor)| (name, tensor.detach().contiguous().copy());
    checkpoint::state(training).into_iter().map(copy).collect()
}

/// Trains a world for so many steps, every rank from a state that `prepare` may have changed; the
/// outcomes in order of ranks.
pub(crate) fn train_world_from(
    prepare: impl Fn(&Training) + Sync,
    world_size: usize,
    config: &TrainConfig,
    steps: Range<u64>,
) -> Vec<Outcome> {
    tch::set_num_threads(1);
    let ranks = Threads::run(world_size, DEADLINE, |comm| {
        Ok::<_, CommError>(train_rank(&comm, config, steps.clone(), &prepare, |_, _, _| {}))
    });
    ranks.into_iter().map(|rank| rank.expect("joins").expect("trains")).collect()
}

/// Trains on, in new trainings, from the tensors that a checkpoint of step `steps.start` holds.
pub(crate) fn resume_world(
    state: &[(String, Tensor)],
    world_size: usize,
    config: &TrainConfig,
    steps: Range<u64>,
) -> Vec<Outcome> {
    let copies = state.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone()));
    let state = Mutex::new(copies.collect::<Vec<_>>()); // a tensor may be sent to another thread, and not be shared
    let restore = |training: &Training| {
        let _no_grad = tch::no_grad_guard();
        let saved = state.lock().expect("no rank panics");
        let own = checkpoint::state(training);
        assert_eq!(own.len(), saved.len());
        for ((name, mut tensor), (saved_name, value)) in own.into_iter().zip(&*saved) {
            assert_eq!(name, *saved_name);
            tensor.copy_(value);
        }
        training.task.refresh();
    };
    train_world_from(restore, world_size, config, steps)
}

fn train_world(world_size: usize, config: &TrainConfig) -> Vec<Outcome> {
    train_world_from(|_| {}, world_size, config, 0..STEPS)
}

pub(crate) fn distance(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).abs().max().to_kind(Kind::Double).double_value(&[])
}

pub(crate) fn assert_bitwise_equal(ranks: &[Outcome]) {
    for other in &ranks[1..] {
        for ((name, ours), (_, theirs)) in ranks[0].state.iter().zip(&other.state) {
            assert_eq!(ours, theirs, "{name}");
        }
        assert_eq!(ranks[0].metrics, other.metrics);
        assert_eq!(ranks[0].num_collectives, other.num_collectives);
    }
}

/// Worlds of 1 to 4 on a batch that none of 2, 3 and 4 divides, so that parts are unequal.
#[test]
fn in_fp64_one_to_four_ranks_end_with_the_same_indices_and_values_to_1e_9() {
    let config = config(Precision::Fp64, 25);
    let one = train_world(1, &config).remove(0);
    let used = |step: usize| one.metrics[step][4];
    assert!(used(0) >= 64.0, "codes in use at first: {}", used(0));
    assert!(used(STEPS as usize - 1) >= 64.0, "and at last: {}", used(STEPS as usize - 1));
    assert_eq!(one.num_collectives, 1 + STEPS); // the first batch, and one a step
    for world_size in 2..=4 {
        let ranks = train_world(world_size, &config);
        assert_bitwise_equal(&ranks);
        assert_eq!(ranks[0].indices, one.indices, "{world_size} ranks");
        for ((name, ours), (_, theirs)) in one.state.iter().zip(&ranks[0].state) {
            let distance = distance(ours, theirs);
            assert!(distance < 1e-9, "{world_size} ranks: {name} differs by {distance:e}");
        }
        for (ours, theirs) in one.metrics.iter().flatten().zip(ranks[0].metrics.iter().flatten()) {
            assert!((ours - theirs).abs() < 1e-9, "{world_size} ranks: {ours} {theirs}");
        }
    }
}

#[test]
fn with_the_rotation_trick_the_same_holds() {
    let mut config = config(Precision::Fp64, 25);
    let QuantizerConfig::Vector(quantizer) = &mut config.model.quantizer else { unreachable!() };
    quantizer.gradient = tessera_nn::quantize::Passage::Rotation;
    let (one, three) = (train_world(1, &config).remove(0), train_world(3, &config).remove(0));
    assert_eq!(three.indices, one.indices);
    for ((name, ours), (_, theirs)) in one.state.iter().zip(&three.state) {
        assert!(distance(ours, theirs) < 1e-9, "{name}");
    }
}

/// Three samples over four ranks: one rank joins every collective with zeros.
#[test]
fn a_rank_with_an_empty_part_neither_hangs_nor_changes_anything() {
    let config = config(Precision::Fp64, 3);
    let (one, four) = (train_world(1, &config).remove(0), train_world(4, &config));
    assert_bitwise_equal(&four);
    assert_eq!(four[0].indices, one.indices);
    for ((name, ours), (_, theirs)) in one.state.iter().zip(&four[0].state) {
        assert!(distance(ours, theirs) < 1e-9, "{name}");
    }
}

#[test]
fn in_fp32_the_ranks_among_themselves_are_bitwise_equal() {
    let config = config(Precision::Fp32, 25);
    let one = train_world(1, &config).remove(0);
    for world_size in 2..=4 {
        let ranks = train_world(world_size, &config);
        assert_bitwise_equal(&ranks);
        let apart = one
            .state
            .iter()
            .zip(&ranks[0].state)
            .map(|((_, ours), (_, theirs))| distance(ours, theirs))
            .fold(0.0, f64::max);
        println!("fp32, {world_size} ranks against 1 after {STEPS} steps: {apart:e} at most");
    }
}

/// The check that rides in the reduction: one bit of one parameter of one rank is enough.
#[test]
fn a_rank_whose_state_has_drifted_stops_the_run_on_every_rank() {
    tch::set_num_threads(1);
    let config = config(Precision::Fp32, 8);
    let ranks = Threads::run(3, DEADLINE, |comm| {
        Ok::<_, CommError>(train_rank(&comm, &config, 0..STEPS, &|_| {}, |rank, step, training| {
            if (rank, step) == (1, 4) {
                let mut first = training.task.parameters().flat().narrow(0, 0, 1);
                let bits = first.double_value(&[0]) as f32;
                let next = f32::from_bits(bits.to_bits() ^ 1);
                first.copy_(&Tensor::from_slice(&[next]));
            }
        }))
    });
    for rank in ranks {
        match rank.expect("joins") {
            Err(TrainError::Mismatch(message)) => assert!(message.contains("step 5"), "{message}"),
            Err(other) => panic!("another error: {other}"),
            Ok(_) => panic!("the drift was not noticed"),
        }
    }
}
