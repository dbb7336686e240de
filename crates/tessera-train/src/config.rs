//! Everything that decides a run, in one struct.
//!
//! Each key is documented at its field; `docs/reference/keys.md` is made from that.
//! Where values come from (defaults, file, environment, `--set`) is `resolve.rs`'s business.

pub(crate) mod features;
pub(crate) mod groups;
pub(crate) mod objective;
pub(crate) mod spectral;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tessera_checkpoint::{BestMetric, Retention};
use tessera_comm::{CommConfig, DeviceConfig};
use tessera_control::{LimitsConfig, TrackConfig};
use tessera_data::DataConfig;
use tessera_model::{Precision, Weights};
use tessera_nn::critic::CriticConfig;
use tessera_nn::loss::BalancerConfig;
use tessera_nn::parameters::Stage;
use tessera_nn::prior::PriorConfig;
use tessera_nn::{ModelConfig, Output};

use self::features::FeaturesConfig;
use self::objective::{AdversarialConfig, LossConfig, PerceptualConfig};
use self::spectral::SpectralConfig;

use crate::engine::optim::OptimizerConfig;
use crate::engine::schedule::ScheduleConfig;
use crate::error::TrainError;
use crate::task::kind::TaskKind;
use crate::task::probe::config::ProbeConfig;

/// The whole configuration of a run.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// What is trained.
    pub task: TaskKind,
    /// Key of all randomness: initial values, order of samples.
    pub seed: u64,
    /// Where samples come from.
    pub data: DataConfig,
    /// Encoder, quantiser, decoder.
    pub model: ModelConfig,
    /// What an autoencoder's output is trained on.
    pub loss: LossConfig,
    /// The spectra that `loss.mel` and `loss.stft` compare.
    pub spectral: SpectralConfig,
    /// The network whose features `loss.perceptual` compares.
    pub perceptual: PerceptualConfig,
    /// The network that `loss.adversarial` trains against the autoencoder.
    pub critic: CriticConfig,
    /// How the two are trained against one another.
    pub adversarial: AdversarialConfig,
    /// How losses of the output are balanced, where `loss.balanced` is true.
    pub balancer: BalancerConfig,
    /// What a head reads and what it is, with `task = "probe"`.
    pub probe: ProbeConfig,
    /// A model of tokens, with `task = "prior"`.
    pub prior: PriorConfig,
    /// AdamW.
    pub optimizer: OptimizerConfig,
    /// Learning rate over steps.
    pub schedule: ScheduleConfig,
    /// Length and size of the training.
    pub train: LoopConfig,
    /// What is kept for a resume.
    pub checkpoint: CheckpointConfig,
    /// Evaluation on the test split.
    pub eval: EvalConfig,
    /// What is written down.
    pub metrics: MetricsConfig,
    /// How ranks talk to one another.
    pub comm: CommConfig,
    /// How long workers may do nothing, in seconds; the launcher keeps to it, a bare mpirun does not.
    /// What goes beyond ends the run with 4, with the worker named. A phase's limit is a floor: ten
    /// times the longest that the phase has taken before in this run counts where that is more.
    pub limits: LimitsConfig,
}

/// The `[train]` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LoopConfig {
    /// Optimiser steps of the whole run, 1 to 2^40: the length of the schedule.
    pub steps: u64,
    /// Checkpoint after this step and leave with exit code 75; 0: off. No effect if the run is past
    /// it.
    pub stop_at: u64,
    /// Samples a step, over all ranks together, 1 to 2^40. Ranks may hold unequal or empty parts.
    pub global_batch: u64,
    /// Most samples of a rank's part that are computed at once, up to 2^40; 0: all of them. Fewer take less memory and more
    /// time, and the step is that of the whole part up to rounding.
    pub micro_batch: u64,
    /// Whether what the blocks of a network compute within is computed again for the backward pass, instead of being kept:
    /// less memory for a third more time. Gradients are the same bit for bit.
    pub recompute: bool,
    /// Decay of a moving average of the weights, in [0, 1); 0: none is made. 0.999 averages over about 1000 steps, the
    /// first of which count less. It takes the memory of the weights once more.
    pub ema_decay: f64,
    /// Steps in a row that may be left out because loss or gradient are not finite; the next one
    /// ends the run with 5. On a GPU a value above 0 costs a wait in each step.
    pub max_skipped_steps: u64,
    /// Kinds of parameters and activations.
    pub precision: Precision,
    /// Where ranks compute.
    pub device: DeviceConfig,
    /// Threads that each rank computes with on the CPU, 1 to 1024; 0: `OMP_NUM_THREADS` where it is set, else
    /// the rank's share of the cores and of the CPU quota of its container, at most `SLURM_CPUS_PER_TASK`.
    pub threads: u64,
}

impl Default for LoopConfig {
    fn default() -> Self {
        Self {
            steps: 2000,
            stop_at: 0,
            global_batch: 256,
            micro_batch: 0,
            recompute: false,
            ema_decay: 0.0,
            max_skipped_steps: 0,
            precision: Precision::Fp32,
            device: DeviceConfig::Auto,
            threads: 0,
        }
    }
}

/// The `[checkpoint]` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointConfig {
    /// Steps between two checkpoints; 0: only at the end or when stopped.
    pub every: u64,
    /// Newest checkpoints to keep, 1 to 2^40.
    pub keep: u64,
    /// Checkpoints of steps that are multiples of this are kept too; 0: off.
    pub keep_every: u64,
    /// Best checkpoints to keep too, among those of steps with an evaluation.
    pub keep_best: u64,
    /// What "best" means, on the test split.
    pub best_metric: BestMetric,
    /// Saves that may fail in a row before the run ends, 1 to 2^40.
    pub max_failures: u64,
    /// Least size of a file in MiB, unless it is the only one: a small state is one file, however many ranks there
    /// are; 0 to 2^20. 0: each rank writes one.
    pub file_mib: u64,
}

impl CheckpointConfig {
    /// Which checkpoints are kept.
    pub(crate) fn retention(&self) -> Retention {
        let Self { keep: last, keep_every: every, keep_best: best, best_metric: metric, .. } =
            *self;
        Retention { last, every, best, metric }
    }
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        let best_metric = BestMetric::Mse;
        Self {
            every: 500,
            keep: 3,
            keep_every: 0,
            keep_best: 0,
            best_metric,
            max_failures: 5,
            file_mib: 64,
        }
    }
}

/// The `[eval]` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EvalConfig {
    /// Steps between two evaluations on the test split; 0: none during training.
    pub every: u64,
    /// Samples a batch, over all ranks together, 1 to 2^40. It does not change the result.
    pub batch: u64,
    /// Which weights are for use: to be evaluated, shown, and to begin another training from.
    pub weights: Weights,
    /// Features that outputs and inputs are compared by, as sets.
    pub features: FeaturesConfig,
}

impl Default for EvalConfig {
    fn default() -> Self {
        Self {
            every: 500,
            batch: 500,
            weights: Weights::Average,
            features: FeaturesConfig::default(),
        }
    }
}

/// The `[metrics]` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MetricsConfig {
    /// Steps between two rows of metrics, 1 to 2^40; each row is the mean over its interval. Ranks
    /// compare their whole state as often.
    pub every: u64,
    /// Steps between two pictures of reconstructions; 0: none.
    pub images_every: u64,
    /// Trackers that get the rows while the run goes on.
    pub track: TrackConfig,
}

impl Default for MetricsConfig {
    fn default() -> Self {
        Self { every: 10, images_every: 500, track: TrackConfig::default() }
    }
}

impl TrainConfig {
    /// Rejects values that would only fail later. Looks at no file.
    ///
    /// # Errors
    ///
    /// [`TrainError::BadInput`] or [`TrainError::Data`] with the key and what it may be.
    pub fn validate(&self) -> Result<(), TrainError> {
        self.data.validate()?;
        self.model.validate_quantizers().map_err(TrainError::BadInput)?;
        self.probe.validate().map_err(TrainError::BadInput)?;
        self.optimizer.validate().map_err(TrainError::BadInput)?;
        let parts: Vec<_> = self.task.parts().iter().map(|stage| groups::name(*stage)).collect();
        if let Some(part) =
            self.model.init_parts.iter().find(|part| !parts.contains(&part.as_str()))
        {
            return Err(TrainError::BadInput(format!(
                "model.init_parts should be any of {}, found \"{part}\"",
                parts.join(", ")
            )));
        }
        let groups = self.optimizer.groups.validate(&self.stages(), self.train.steps);
        groups.map_err(TrainError::BadInput)?;
        if self.task == TaskKind::Autoencoder {
            objective::validate(self).map_err(TrainError::BadInput)?;
            self.spectral.validate().map_err(TrainError::BadInput)?;
            self.eval.features.validate().map_err(TrainError::BadInput)?;
        }
        self.schedule.validate(self.train.steps).map_err(TrainError::BadInput)?;
        self.comm.validate().map_err(TrainError::BadInput)?;
        self.limits.validate().map_err(TrainError::BadInput)?;
        self.metrics.track.validate().map_err(TrainError::BadInput)?;
        for (key, value) in [
            ("train.steps", self.train.steps),
            ("train.global_batch", self.train.global_batch),
            ("checkpoint.keep", self.checkpoint.keep),
            ("checkpoint.max_failures", self.checkpoint.max_failures),
            ("eval.batch", self.eval.batch),
            ("metrics.every", self.metrics.every),
        ] {
            if !(1..=1 << 40).contains(&value) {
                return Err(TrainError::BadInput(format!(
                    "{key} should be from 1 to 2^40, found {value}"
                )));
            }
        }
        if self.train.micro_batch > 1 << 40 {
            return Err(TrainError::BadInput(format!(
                "train.micro_batch should be from 0 (a rank's whole part) to 2^40, found {}",
                self.train.micro_batch
            )));
        }
        if !(0.0..1.0).contains(&self.train.ema_decay) {
            return Err(TrainError::BadInput(format!(
                "train.ema_decay should be from 0 (no average) to below 1, found {}",
                self.train.ema_decay
            )));
        }
        if self.checkpoint.file_mib > 1 << 20 {
            return Err(TrainError::BadInput(format!(
                "checkpoint.file_mib should be from 0 to 2^20, found {}",
                self.checkpoint.file_mib
            )));
        }
        if self.train.threads > 1024 {
            return Err(TrainError::BadInput(format!(
                "train.threads should be from 0 (automatic) to 1024, found {}",
                self.train.threads
            )));
        }
        Ok(())
    }

    /// The stages that are trained, or could be were they not frozen: the groups of the parameters.
    pub(crate) fn stages(&self) -> Vec<Stage> {
        let mut stages = self.task.stages().to_vec();
        if self.task == TaskKind::Autoencoder && self.loss.has_critic() {
            stages.push(Stage::Critic);
        }
        stages
    }

    /// The same without the values of keys that nothing reads.
    #[must_use]
    pub(crate) fn without_idle_keys(&self) -> Self {
        let mut config = self.clone();
        config.model.quantizer = config.model.quantizer.without_idle_keys();
        for quantizer in &mut config.model.coarser_quantizers {
            *quantizer = quantizer.without_idle_keys();
        }
        config
    }

    /// SHA-256 of the configuration as JSON, in hex: what ranks compare at start.
    pub fn hash(&self) -> String {
        let json = serde_json::to_vec(self).expect("a configuration is plain data");
        tessera_checkpoint::sha256_hex(&json)
    }
}
