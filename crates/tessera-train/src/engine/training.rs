//! What a training step reads and writes: the task, its optimiser, and the buffer that is summed
//! over ranks.

use tch::{Device, Kind};
use tessera_comm::{Piece, Reducer, Uploads};
use tessera_model::Weights;
use tessera_nn::parameters::Stage;

use super::average::Average;
use super::metrics::histogram::Histogram;
use super::optim::AdamW;
use super::scalars;
use super::window::Window;
use crate::config::TrainConfig;
use crate::error::TrainError;
use crate::task::autoencoder::fit::CODEBOOK;
use crate::task::{self, Samples, Task};

/// The piece of the buffer that has the gradients, behind those of the task.
pub(crate) const GRADIENTS: &str = "gradients";
/// The last piece: losses, stop flag, desync check.
pub(crate) const SCALARS: &str = "scalars";

/// What a training step reads and writes.
#[derive(Debug)]
pub struct Training {
    /// What is trained: the replica.
    pub task: Box<dyn Task>,
    /// Its optimiser.
    pub optimizer: AdamW,
    /// The average of its weights, where one is wanted.
    pub average: Option<Average>,
    /// Sums of the current logging interval.
    pub window: Window,
    /// What brings batches to the device of the model.
    pub uploads: Uploads,
    pub(crate) reducer: Reducer,
    /// Stages that begin from another training, whole: the first batch has nothing to tell of them.
    pub(crate) taken: Vec<Stage>,
    /// Most samples of a pass; 0: all of a rank's.
    pub(crate) micro_batch: u64,
}

impl Training {
    /// What a configuration trains, for samples like these, before its first step.
    ///
    /// # Errors
    ///
    /// [`TrainError::BadInput`] if it cannot be trained on them.
    pub fn new(config: &TrainConfig, samples: Samples, device: Device) -> Result<Self, TrainError> {
        Ok(Self::of(task::build(config, samples, device)?, config))
    }

    /// A task before its first step.
    pub fn of(task: Box<dyn Task>, config: &TrainConfig) -> Self {
        let device = task.parameters().flat().device();
        let optimizer =
            AdamW::new(&config.optimizer, &config.schedule, config.train.steps, task.parameters());
        let decay = config.train.ema_decay;
        let average = (decay > 0.0).then(|| Average::new(decay, task.parameters()));
        let kind = task.parameters().flat().kind();
        let num_losses = task.losses().len();
        let mut pieces = task.pieces();
        pieces.push(Piece { name: GRADIENTS, len: task.parameters().trained_len() });
        pieces.push(Piece { name: SCALARS, len: scalars::len(num_losses) });
        let reducer = Reducer::new(pieces, kind, device);
        let window = Window::new(num_losses, task.totals(), device);
        let micro_batch = config.train.micro_batch;
        let uploads = Uploads::none();
        let taken = Vec::new();
        Self { task, optimizer, average, window, uploads, reducer, taken, micro_batch }
    }

    /// Does something with the weights that are for use; the training goes on with those it had.
    pub(crate) fn with<T>(&self, weights: Weights, what: impl FnOnce(&dyn Task) -> T) -> T {
        let average = self.average.as_ref().filter(|_| weights == Weights::Average);
        let swap = || {
            if let Some(average) = average {
                average.swap(self.task.parameters());
            }
        };
        swap();
        let done = what(&*self.task);
        swap();
        done
    }

    /// How often each code was taken, level by level, by what was counted ([`Window`]); how the weights are spread, and a codebook that is no
    /// parameter.
    pub(crate) fn histograms(&self, counts: &[f64]) -> Vec<Histogram> {
        // Before the first logging interval ends nothing is counted.
        let counts = if counts.is_empty() { Vec::new() } else { self.task.usage(counts) };
        let usage = counts
            .into_iter()
            .enumerate()
            .map(|(level, counts)| Histogram::of_counts(format!("usage/level-{level}"), counts));
        let state = self.task.state();
        let codebooks = state
            .iter()
            .filter(|(name, _)| name.ends_with(CODEBOOK))
            .map(|(name, tensor)| (name.as_str(), tensor.shallow_clone()));
        let weights = self.task.parameters().named_views().chain(codebooks);
        let weights = weights
            .filter_map(|(name, tensor)| Histogram::of_values(format!("weights/{name}"), &tensor));
        usage.chain(weights).collect()
    }

    /// Kind of the parameters that the optimiser moves.
    pub(crate) fn kind(&self) -> Kind {
        self.task.parameters().flat().kind()
    }

    /// Where the model is.
    pub(crate) fn device(&self) -> Device {
        self.task.parameters().flat().device()
    }
}
