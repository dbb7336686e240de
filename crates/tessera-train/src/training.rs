//! What a training step reads and writes: the replica, its optimiser, and the buffer that is
//! summed over ranks.

use tessera_comm::{Piece, Reducer, Uploads};
use tessera_nn::VqVae;
use tessera_nn::quantize::Sums;

use crate::checkpoint::saver;
use crate::metrics::window::Window;
use crate::optim::AdamW;
use crate::scalars;

/// What a training step reads and writes.
#[derive(Debug)]
pub struct Training {
    /// The replica.
    pub model: VqVae,
    /// Its optimiser.
    pub optimizer: AdamW,
    /// Sums of the current logging interval.
    pub window: Window,
    /// What brings batches to the device of the model.
    pub uploads: Uploads,
    pub(crate) reducer: Reducer,
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
    /// A training of `model`, from the first step of `optimizer`.
    pub fn new(model: VqVae, optimizer: AdamW) -> Self {
        let (kind, device) = (model.kind(), model.device());
        let lens = model.quantizer.lens();
        let pieces = vec![
            Piece { name: "counts", len: lens.counts },
            Piece { name: "statistics", len: lens.statistics },
            Piece { name: "distribution", len: lens.distribution },
            Piece { name: "gradients", len: model.parameters.len() },
            Piece { name: "scalars", len: scalars::LEN },
        ];
        let reducer = Reducer::new(pieces, kind, device);
        let window = Window::new(&model.quantizer.num_codes(), device);
        let uploads = Uploads::none();
        Self { window, uploads, model, optimizer, reducer }
    }

    /// What the quantiser sums over ranks, in the buffer that is reduced.
    pub(crate) fn sums(reducer: &Reducer) -> Sums {
        Sums {
            counts: reducer.piece("counts"),
            statistics: reducer.piece("statistics"),
            distribution: reducer.piece("distribution"),
        }
    }
}
