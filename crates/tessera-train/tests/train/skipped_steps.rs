//! Latents that are not finite, through a training step and an evaluation of every experiment in
//! `configs/quantizers`: the step changes nothing, the evaluation is refused with exit code 5.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tch::Tensor;
use tessera_comm::{RankDevice, Solo};
use tessera_control::{Activity, ExitCode};
use tessera_nn::QuantizerConfig;
use tessera_nn::Signal;
use tessera_train::engine::evaluate::check_finite;
use tessera_train::task::Asked;
use tessera_train::{
    Clock, Samples, Split, StepInput, Stepped, TrainConfig, Training, checkpoint, evaluate,
    resolve, training_batches,
};

/// What makes an experiment tiny: four samples of four tokens a step.
const TINY: [&str; 11] = [
    "data.kind=synthetic",
    "data.synthetic.height=8",
    "data.synthetic.width=8",
    "data.synthetic.num_train=32",
    "data.synthetic.num_test=6",
    "model.backbone.channels=4",
    "model.backbone.residual_layers=0",
    "train.global_batch=4",
    "train.steps=6",
    "optimizer.weight_decay=0.1",
    "eval.batch=4",
];

fn experiments() -> Vec<PathBuf> {
    let folder =
        Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("../../configs/quantizers");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 25, "{files:?}");
    files
}

fn config(file: &Path) -> TrainConfig {
    fn shrink(config: &mut QuantizerConfig) {
        match config {
            QuantizerConfig::Vector(config) => {
                config.num_codes = 16;
                config.replace_every = config.replace_every.min(1);
            }
            QuantizerConfig::SimVq(config) => config.num_codes = 16,
            QuantizerConfig::Residual(config) => {
                config.num_codes.clear();
                shrink(&mut config.quantizer);
            }
            QuantizerConfig::Grouped(config) => shrink(&mut config.quantizer),
            _ => {}
        }
    }
    let sets: Vec<String> = TINY.iter().map(|set| set.to_string()).collect();
    let mut config = resolve(Some(file), [], &sets, None).unwrap().config;
    shrink(&mut config.model.quantizer);
    config
}

fn new_training(config: &TrainConfig) -> Training {
    let signal = Signal::Image { channels: 1, height: 8, width: 8 };
    let samples = Samples { signal, sample_rate: 0, num_classes: None, tokens: None };
    Training::new(config, samples, tch::Device::Cpu).unwrap()
}

/// Adds to the bias of the encoder's last layer, and so to every latent.
fn shift_latents(training: &Training, by: &Tensor) {
    let parameters = training.task.parameters();
    let mut views = parameters.named_views();
    let (_, mut bias) = views.find(|(name, _)| *name == "encoder.to_code.bias").unwrap();
    bias.copy_(&(by.to_kind(bias.kind()) + &bias));
    parameters.refresh();
}

fn latent_bias(training: &Training) -> Tensor {
    let parameters = training.task.parameters();
    let mut views = parameters.named_views();
    views.find(|(name, _)| *name == "encoder.to_code.bias").unwrap().1.copy()
}

fn set_latent_bias(training: &Training, bias: &Tensor) {
    let parameters = training.task.parameters();
    let mut views = parameters.named_views();
    views.find(|(name, _)| *name == "encoder.to_code.bias").unwrap().1.copy_(bias);
    parameters.refresh();
}

fn state(training: &Training) -> Vec<(String, Tensor)> {
    let all = checkpoint::state(training).into_iter();
    all.map(|(name, tensor)| (name, tensor.detach().copy())).collect()
}

#[track_caller]
fn assert_same_state(what: &str, found: &Training, expected: &[(String, Tensor)]) {
    for ((name, expected), (_, found)) in expected.iter().zip(state(found)) {
        assert_eq!(*expected, found, "{what}: {name}");
    }
}

/// Takes a step as the trainer does: first codes before the first one that is done.
struct Run {
    training: Training,
    batches: tessera_data::Loader<tessera_comm::HostBytes>,
    clock: Clock,
}

impl Run {
    fn new(config: &TrainConfig, first_step: u64) -> Self {
        let source = tessera_data::source::open(&config.data, "train").unwrap();
        let comm = Solo::default();
        let batches =
            training_batches(source, config, first_step, &comm, RankDevice::cpu()).unwrap();
        let training = new_training(config);
        let clock = Clock::start(Arc::default(), &*training.task);
        Self { training, batches, clock }
    }

    fn step(&mut self) -> Stepped {
        let mut batch = self.batches.next().unwrap().unwrap();
        let comm = Solo::default();
        if !self.training.optimizer.has_begun() {
            self.training.begin(&comm, &batch).unwrap();
        }
        let input = StepInput {
            step: batch.step,
            stop: false,
            compare_state: false,
            num_skipped: 0,
            check_finite: true,
            saves: [0.0; 4],
        };
        self.training.step(&comm, &mut batch, input, &mut self.clock).unwrap()
    }

    /// A step whose latents all have `bad` added; whether it was skipped.
    fn skips(&mut self, bad: f64) -> bool {
        let bias = latent_bias(&self.training);
        shift_latents(&self.training, &Tensor::from(bad));
        let stepped = self.step();
        set_latent_bias(&self.training, &bias);
        matches!(stepped, Stepped::Skipped(_))
    }
}

#[test]
fn a_step_with_latents_that_are_not_finite_changes_nothing() {
    tch::set_num_threads(1);
    for file in experiments() {
        let name = file.file_stem().unwrap().to_string_lossy();
        let mut run = Run::new(&config(&file), 0);
        assert!(matches!(run.step(), Stepped::Done(_)), "{name}");
        let before = state(&run.training);
        for bad in [f64::NAN, f64::INFINITY] {
            assert!(run.skips(bad), "{name}: {bad}");
            assert_same_state(&name, &run.training, &before);
        }
        // Bias correction goes on from the one step that was done.
        assert!(matches!(run.step(), Stepped::Done(_)), "{name}: after a skipped step");
        assert_eq!(run.training.optimizer.updates.max().double_value(&[]), 2.0, "{name}");
        assert_ne!(state(&run.training)[0].1, before[0].1, "{name}");
    }
}

/// First codes are those of the batch after it, as if that one were the first.
#[test]
fn a_first_step_that_is_skipped_leaves_the_beginning_to_the_next() {
    tch::set_num_threads(1);
    for file in experiments() {
        let (name, config) = (file.file_stem().unwrap().to_string_lossy(), config(&file));
        let (mut late, mut fresh) = (Run::new(&config, 0), Run::new(&config, 1));
        assert!(late.skips(f64::NAN), "{name}");
        for run in [&mut late, &mut fresh] {
            assert!(matches!(run.step(), Stepped::Done(_)), "{name}");
        }
        assert_same_state(&name, &late.training, &state(&fresh.training));
    }
}

/// There is a code for every latent, so an error of the outputs alone would hide them.
#[test]
fn an_evaluation_with_latents_that_are_not_finite_is_refused() {
    tch::set_num_threads(1);
    for file in experiments() {
        let (name, config) = (file.file_stem().unwrap().to_string_lossy(), config(&file));
        let training = new_training(&config);
        let source = tessera_data::source::open(&config.data, "test").unwrap();
        let load = config.data.load_options();
        let split = Split { name: "test".into(), source, batch: config.eval.batch, load };
        let comm = Solo::default();
        for (bad, refused) in [(0.0, false), (f64::NAN, true), (f64::NEG_INFINITY, true)] {
            shift_latents(&training, &Tensor::from(bad));
            let activity = Activity::default();
            let (task, all) = (&*training.task, Asked::default());
            let figures = evaluate(&comm, task, &split, 7, all, &activity).unwrap();
            let checked = check_finite(task, &figures);
            assert_eq!(checked.is_err(), refused, "{name}: {bad}");
            if let Err(error) = checked {
                assert_eq!(error.code(), ExitCode::Numeric);
                assert!(
                    error.to_string().contains("mean squared error of step 7 is NaN"),
                    "{error}"
                );
            }
        }
    }
}
