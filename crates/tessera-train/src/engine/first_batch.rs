//! What a task learns from the first global batch before the first step. The same for every number of ranks. Where that
//! step is skipped, the next batch is the first one: everything is set anew.

use tessera_comm::{Communicator, Reducer};
use tessera_data::Batch;

use super::batch::part_of;
use super::training::Training;
use crate::error::TrainError;

impl Training {
    /// Lets the task begin from the first global batch. Collective: one sum. A rank without samples joins with zeros.
    ///
    /// # Errors
    ///
    /// [`TrainError::Comm`].
    pub fn begin<M: AsRef<[u8]>>(
        &mut self,
        comm: &dyn Communicator,
        batch: &Batch<M>,
    ) -> Result<(), TrainError> {
        let _no_grad = tch::no_grad_guard();
        let mut whole = part_of(batch, self.device());
        whole.step = 0;
        let pieces = self.task.first_pieces(&whole);
        let mut reducer = Reducer::new(pieces, self.kind(), self.device());
        for part in whole.split(self.micro_batch) {
            self.task.first_look(&part, &reducer);
        }
        reducer.all_reduce(comm)?;
        self.task.begin(&whole, &reducer, &self.taken);
        self.task.refresh();
        if let Some(average) = &self.average {
            average.restart(self.task.parameters());
        }
        Ok(())
    }
}
