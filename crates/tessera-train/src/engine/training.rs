//! What a training step reads and writes: the task, its optimiser, and the buffer that is summed
//! over ranks.

use tch::{Device, Kind};
use tessera_comm::{Piece, Reducer, Uploads};
use tessera_data::SampleShape;

use super::checkpoint::saver;
use super::optim::AdamW;
use super::scalars;
use super::window::Window;
use crate::config::TrainConfig;
use crate::task::{self, Task};

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
    /// Sums of the current logging interval.
    pub window: Window,
    /// What brings batches to the device of the model.
    pub uploads: Uploads,
    pub(crate) reducer: Reducer,
    /// Most samples of a pass; 0: all of a rank's.
    pub(crate) micro_batch: u64,
}

/// What differs from step to step, apart from the batch.
#[derive(Debug, Clone, Copy)]
pub struct StepInput {
    /// The step, from 0.
    pub step: u64,
    /// Factor of the schedule on the learning rate.
    pub factor: f64,
    /// Whether this rank was asked to stop.
    pub stop: bool,
    /// Whether ranks compare their whole state in this step.
    pub compare_state: bool,
    /// Samples of this rank's part that could not be read.
    pub num_skipped: u64,
    /// Whether to look, before anything is changed, if loss and gradient are finite.
    pub check_finite: bool,
    /// How far this rank is with the save on its way.
    pub saves: [f64; saver::NUMBERS],
}

impl Training {
    /// What a configuration trains, for samples of this shape, before its first step.
    pub fn new(config: &TrainConfig, shape: SampleShape, device: Device) -> Self {
        let task = task::build(config, shape, device);
        let optimizer = AdamW::new(&config.optimizer, task.parameters());
        let kind = task.parameters().flat().kind();
        let num_losses = task.losses().len();
        let mut pieces = task.pieces();
        pieces.push(Piece { name: GRADIENTS, len: task.parameters().len() });
        pieces.push(Piece { name: SCALARS, len: scalars::len(num_losses) });
        let reducer = Reducer::new(pieces, kind, device);
        let window = Window::new(num_losses, task.totals(), device);
        let micro_batch = config.train.micro_batch;
        Self { task, optimizer, window, uploads: Uploads::none(), reducer, micro_batch }
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
