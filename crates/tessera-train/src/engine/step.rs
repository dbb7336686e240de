//! One optimiser step; every collective of a step, in order. There is one sum:
//!
//! 1. the task passes over this rank's samples, in one part or in several (`train.micro_batch`), and adds gradients and
//!    what else it sums to one buffer; where the communicator overlaps (NCCL), what is ready **begins to be summed** while
//!    the pass goes on
//! 2. where a loss is of the whole batch, what it is made of **is summed** in the middle of the pass, or, where there are
//!    several parts, after a survey of all of them: the one sum that the rest has to wait for
//! 3. **all-reduce** of what is left of gradients, the task's pieces, losses, stop flag and desync check: over MPI all of
//!    it, in one call
//! 4. where loss or gradient are not finite, no rank goes on; AdamW on the flat parameters, then the task's own update
//!    and the moving average of the weights
//!
//! A rank's loss is its sum over the *global* count, so sums over ranks and parts are exact means, and parts may be
//! unequal or empty. The reduced scalars of step s are looked at after step s + 1, at the same place on every rank, so no
//! rank waits for them.

use std::ops::Range;

use tch::Tensor;
use tessera_comm::{Communicator, HostBytes, Reducer};
use tessera_control::Phase;
use tessera_data::Batch;
use tessera_nn::Parameters;
use tessera_nn::parameters::Stage;

use super::batch::upload;
use super::clip::Norms;
use super::clock::{Clock, Lap};
use super::scalars::{self, NotFinite, StepInput};
use super::training::{GRADIENTS, SCALARS, Training};
use crate::error::TrainError;
use crate::task::{Task, Updated};

/// What became of a step, the same on every rank.
#[derive(Debug)]
pub enum Stepped {
    /// The reduced scalars and the gradient's norm, still a tensor: [`crate::read_scalars`] reads
    /// them a step later.
    Done(Tensor),
    /// Loss or gradient are not finite, and nothing was changed.
    Skipped(NotFinite),
}

impl Training {
    /// Runs one step on this rank's part of a global batch. A step whose loss or gradient is not
    /// finite changes nothing, where that is to be checked. On a GPU
    /// the batch's memory stays behind, and it gets that of the step before the last.
    ///
    /// # Errors
    ///
    /// [`TrainError::Comm`]; the run is over then.
    pub fn step(
        &mut self,
        comm: &dyn Communicator,
        batch: &mut Batch<HostBytes>,
        input: StepInput,
        clock: &mut Clock,
    ) -> Result<Stepped, TrainError> {
        let Self { task, optimizer, average, window, uploads, reducer, micro_batch, .. } = self;
        clock.enter(Phase::Compute);
        let whole = upload(uploads, batch, input.step)?;
        let parts = whole.split(*micro_batch);
        clock.lap(Lap::Input);

        reducer.clear_before(GRADIENTS);
        let largest = whole.num_global.div_ceil(comm.world_size() as u64);
        let surveyed = task.surveyed(input.step);
        let is_surveyed = *micro_batch > 0 && *micro_batch < largest && !surveyed.is_empty();
        let mut sums = Sums::new(reducer, comm, clock, surveyed);
        if is_surveyed {
            sums.survey(&**task, &parts)?;
        }
        let mut losses: Vec<Tensor> = Vec::new();
        for (number, part) in parts.iter().enumerate() {
            sums.begin_part(number == 0, number + 1 == parts.len());
            let of_part = task.pass(part, &mut sums)?;
            losses = match losses.is_empty() {
                true => of_part.iter().map(Tensor::detach).collect(),
                false => {
                    losses.iter().zip(&of_part).map(|(sum, loss)| sum + loss.detach()).collect()
                }
            };
        }

        clock.enter(Phase::Reduce);
        let layout_hash = reducer.layout_hash();
        let state = (&**task, average.as_ref());
        scalars::write(&mut reducer.piece(SCALARS), state, input, layout_hash, &losses);
        match clock.faults.of_sum(input.step) {
            None => reducer.all_reduce(comm)?,
            Some(fault) => fault.sum(reducer, comm)?,
        }
        clock.lap(Lap::Reduce);

        clock.enter(Phase::Compute);
        let (scalars, gradients) = (reducer.piece(SCALARS), reducer.piece(GRADIENTS));
        let norms = Norms::of(&gradients, task.parameters());
        let norm = norms.told();
        if input.check_finite
            && let Some(found) = scalars::not_finite(&scalars, &norm, &gradients, &**task)
        {
            window.add_skipped(&scalars);
            return Ok(Stepped::Skipped(found));
        }
        let at_rest = task.at_rest(input.step);
        optimizer.step(input.step, task.parameters().flat(), &gradients, &norms, &at_rest);
        clock.lap(Lap::Optimizer);
        let Updated { resets, numbers, vector } = task.update(&whole, reducer);
        for (id, rows) in &resets {
            optimizer.forget_rows(task.parameters(), *id, rows);
        }
        if let Some(average) = average {
            average.update(optimizer.count(), task.parameters());
            resets.iter().for_each(|(id, rows)| average.take_rows(task.parameters(), *id, rows));
        }
        task.parameters().refresh();
        window.add(&scalars, &norm, &numbers, &vector);
        clock.lap(Lap::Update);
        Ok(Stepped::Done(scalars::with_norm(&scalars, &norm)))
    }
}

/// Where a task leaves what is summed over ranks while it passes over its samples.
pub struct Sums<'a> {
    reducer: &'a mut Reducer,
    comm: &'a dyn Communicator,
    clock: &'a mut Clock,
    /// Pieces that losses of the whole batch are made of.
    surveyed: &'static [&'static str],
    turn: Turn,
}

/// What the task does just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// A look at one of several parts.
    Survey,
    /// A pass over one of them, or over all.
    Pass {
        /// The first.
        is_first: bool,
        /// The last: what is ready then is complete.
        is_last: bool,
        /// Whether the surveyed pieces are whole.
        is_surveyed: bool,
    },
}

impl<'a> Sums<'a> {
    fn new(
        reducer: &'a mut Reducer,
        comm: &'a dyn Communicator,
        clock: &'a mut Clock,
        surveyed: &'static [&'static str],
    ) -> Self {
        let turn = Turn::Pass { is_first: true, is_last: true, is_surveyed: false };
        Self { reducer, comm, clock, surveyed, turn }
    }

    /// Lets the task look at all parts, and sums what it has seen. Collective.
    fn survey(&mut self, task: &dyn Task, parts: &[crate::task::Part]) -> Result<(), TrainError> {
        self.turn = Turn::Survey;
        tch::no_grad(|| parts.iter().try_for_each(|part| task.survey(part, self)))?;
        self.clock.lap(Lap::Survey);
        self.clock.enter(Phase::Reduce);
        self.finish_surveyed()?;
        self.clock.lap(Lap::Reduce);
        self.clock.enter(Phase::Compute);
        self.turn = Turn::Pass { is_first: true, is_last: true, is_surveyed: true };
        Ok(())
    }

    fn begin_part(&mut self, first: bool, last: bool) {
        if let Turn::Pass { is_first, is_last, .. } = &mut self.turn {
            (*is_first, *is_last) = (first, last);
        }
    }

    /// A piece to add to. What does not count in this turn, since another one has it, is added to zeros that are
    /// thrown away.
    ///
    /// # Panics
    ///
    /// If the task has no such piece.
    pub fn piece(&self, name: &str) -> Tensor {
        let piece = self.reducer.piece(name);
        let counts = match self.turn {
            Turn::Survey => self.surveyed.contains(&name),
            Turn::Pass { is_surveyed, .. } => !(is_surveyed && self.surveyed.contains(&name)),
        };
        if counts { piece } else { piece.zeros_like() }
    }

    /// Adds the gradients of a stage, in the order of [`Parameters::leaves_of`].
    ///
    /// # Panics
    ///
    /// If the number of gradients is not that of the stage's parameters.
    pub fn add_gradients(&mut self, parameters: &Parameters, stage: Stage, gradients: &[Tensor]) {
        let flat = self.reducer.piece(GRADIENTS);
        match self.turn {
            Turn::Pass { is_first: true, .. } => {
                parameters.store_gradients(stage, gradients, &flat)
            }
            _ => parameters.add_gradients(stage, gradients, &flat),
        }
    }

    /// Says that this part adds no more to these pieces, which lie side by side: after the last part they begin to be
    /// summed, where that pays.
    ///
    /// # Errors
    ///
    /// [`TrainError::Comm`]; the run is over then.
    pub fn ready(&mut self, names: &[&str]) -> Result<(), TrainError> {
        let Turn::Pass { is_last: true, is_surveyed, .. } = self.turn else { return Ok(()) };
        let surveyed = self.surveyed;
        let is_sent = |name: &str| is_surveyed && surveyed.contains(&name);
        for side_by_side in names.split(|name| is_sent(name)) {
            if let (Some(first), Some(last)) = (side_by_side.first(), side_by_side.last()) {
                self.send(self.reducer.span(first, last))?;
            }
        }
        Ok(())
    }

    /// The same for the gradients of a stage.
    ///
    /// # Errors
    ///
    /// [`TrainError::Comm`]; the run is over then.
    pub fn ready_gradients(
        &mut self,
        parameters: &Parameters,
        stage: Stage,
    ) -> Result<(), TrainError> {
        let Turn::Pass { is_last: true, .. } = self.turn else { return Ok(()) };
        let start = self.reducer.span(GRADIENTS, GRADIENTS).start;
        let of_stage = parameters.trained_range_of(stage);
        if of_stage.is_empty() {
            return Ok(()); // frozen
        }
        self.send(start + of_stage.start..start + of_stage.end)
    }

    fn send(&mut self, part: Range<i64>) -> Result<(), TrainError> {
        Ok(self.reducer.send_early(self.comm, part)?)
    }

    /// Lets the [surveyed](Task::surveyed) pieces be summed over all ranks, all of them in one sum, where no survey has
    /// done it: [`Self::piece`] has them then. To be called once in a pass that needs them. Collective.
    ///
    /// # Errors
    ///
    /// [`TrainError::Comm`]; the run is over then.
    pub fn complete(&mut self) -> Result<(), TrainError> {
        let Turn::Pass { is_surveyed: false, .. } = self.turn else { return Ok(()) };
        self.clock.enter(Phase::Reduce);
        self.finish_surveyed()?;
        self.clock.lap(Lap::Reduce);
        self.clock.enter(Phase::Compute);
        Ok(())
    }

    /// Whether the surveyed pieces are complete, and a pass need not add to them.
    pub fn is_surveyed(&self) -> bool {
        matches!(self.turn, Turn::Pass { is_surveyed: true, .. })
    }

    /// A surveyed piece that is complete.
    ///
    /// # Panics
    ///
    /// If the task has no such piece, or does not survey it.
    pub fn whole(&self, name: &str) -> Tensor {
        assert!(self.surveyed.contains(&name), "{name} is not surveyed");
        self.reducer.piece(name)
    }

    fn finish_surveyed(&mut self) -> Result<(), TrainError> {
        if let (Some(first), Some(last)) = (self.surveyed.first(), self.surveyed.last()) {
            self.reducer.finish(self.comm, first, last)?;
        }
        Ok(())
    }

    /// Books the time since the last lap to this phase of the task.
    pub fn lap(&mut self, phase: usize) {
        if matches!(self.turn, Turn::Pass { .. }) {
            self.clock.lap(Lap::Pass(phase));
        }
    }
}
