//! A run: set-up, the loop over steps, evaluation, checkpoints, the end.
//!
//! Everything that ranks must decide alike hangs on numbers they share: the step, the
//! configuration, and the reduced scalars. A stop that any rank was asked for travels in the
//! reduction of step s and is acted on after step s + 1, everywhere.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tessera_comm::{Communicator, Uploads};
use tessera_control::{Phase, RunState, RunStatus, SignOfLife};
use tessera_data::source::Source;
use tessera_data::{Batch, DataError, Loader};

use super::agreement::agree_on;
use super::batch::{load_options, training_batches};
use super::checkpoint;
use super::checkpoint::saver::Saver;
use super::clock::{Clock, Lap};
use super::coordinator::{agree_on_run, choose_checkpoint};
use super::evaluate::{Split, evaluate};
use super::figures::{Figure, Row};
use super::memory;
use super::metrics::reporter::Reporter;
use super::metrics::tensorboard::Beginning;
use super::metrics::{self, Launcher};
use super::run_folder::{Resume, Tenure};
use super::saving;
use super::scalars::{Arriving, StepInput};
use super::setup::{Worker, open_data};
use super::step::Stepped;
use super::training::Training;
use super::warm_start;
use crate::config::groups::rate_name;
use crate::config::{LoopConfig, TrainConfig};
use crate::error::TrainError;
use crate::resolve::Resolved;
use crate::task::{Asked, Samples, Sizes, Task};

/// How a run ended well.
#[derive(Debug, Clone, PartialEq)]
pub struct Ending {
    /// Done, or stopped on request after a checkpoint.
    pub state: RunState,
    /// Optimiser steps done.
    pub step: u64,
    /// Where the time went.
    pub profile: String,
}

/// Trains. Collective: every rank calls it with the same configuration.
///
/// # Errors
///
/// [`TrainError`]; its code is the process's exit code.
pub fn train(
    comm: &dyn Communicator,
    worker: &Worker,
    tenure: &Tenure,
    resolved: &Resolved,
    resume: &Resume,
) -> Result<Ending, TrainError> {
    let folder = &tenure.folder;
    let config = &resolved.config;
    let data = agree_on(comm, open_data(config))?;
    let (fingerprint, notes) = (data.fingerprint(), data.notes());
    agree_on_run(comm, config, &fingerprint)?;

    let mut training = {
        let samples = Samples::of(config.task, &*data.train).map_err(TrainError::from);
        let samples = agree_on(comm, samples)?;
        agree_on(comm, Training::new(config, samples, worker.device.device))?
    };
    training.uploads = agree_on(comm, Uploads::new(&worker.device).map_err(TrainError::from))?;
    let choice = choose_checkpoint(comm, tenure, resume, config, &fingerprint)?;
    let (mut step, mut told) = (0, choice.notices);
    if let Some(path) = &choice.path {
        step = checkpoint::restore_all(comm, path, &training)?.step;
    } else {
        told.extend(warm_start::load(comm, &mut training, config)?);
        checkpoint::broadcast_state(comm, &training)?;
        if let Some(average) = &training.average {
            average.restart(training.task.parameters());
        }
    }
    let ranks = (comm.rank(), comm.world_size());
    let opened = match comm.rank() {
        0 => open_reports(worker, tenure, resolved, step, comm.world_size()).map(Some),
        _ => Ok(None),
    };
    let reporter = agree_on(comm, opened)?;
    let rows = reporter.as_ref().map(Reporter::durable);
    let (device, storage) = (worker.device.clone(), worker.faults.storage());
    let saver = Saver::start(ranks, device, tenure, &config.checkpoint, storage, rows);
    let clock = worker.clock(&folder.root, comm.rank(), &*training.task);
    let clock = agree_on(comm, clock)?;
    let sizes = training.task.sizes();
    let run = Run {
        comm,
        worker,
        tenure,
        config,
        fingerprint,
        training,
        shown: Arc::clone(data.test.as_ref().unwrap_or(&data.train)),
        test: data.test.map(|source| Split {
            name: "test".into(),
            source,
            batch: config.eval.batch,
            load: load_options(config.task, &config.data),
        }),
        num_train: data.train.num_samples(),
        sizes,
        saver: agree_on(comm, saver)?,
        evaluated: None,
        skipped_in_row: 0,
        counts: Vec::new(),
        reporter,
        clock,
        step,
        stop_seen: false,
    };
    run.notice(format!("model: {}", run.sizes));
    for note in notes {
        run.notice(format!("data: {note}"));
    }
    if run.test.is_none() {
        run.notice(
            "nothing is evaluated: there is no split test and data.holdout is 0, so eval.every \
             counts for nothing and pictures show samples of the split train"
                .to_owned(),
        );
    }
    for notice in told {
        run.notice(notice);
    }
    // Whoever watches the folder sees that the run goes on, however far its rows lie apart.
    let is_first = comm.rank() == 0;
    let _alive = is_first.then(|| SignOfLife::start(&RunStatus::file(&folder.root)));
    run.steps(data.train).map_err(|error| match worker.activity.step() {
        0 => error,
        _ => error.once_begun(),
    })
}

/// Opens everything that rank 0 reports to, and says that the run goes on after `step` steps.
fn open_reports(
    worker: &Worker,
    tenure: &Tenure,
    resolved: &Resolved,
    step: u64,
    world_size: usize,
) -> Result<Reporter, TrainError> {
    let folder = &tenure.folder;
    metrics::write_config(folder, resolved)?;
    let beginning = Beginning::of(resolved);
    let sinks = metrics::open(tenure, step, &worker.faults.rows(), &beginning)?;
    let status = saving::status_of(tenure, RunState::Running, step, world_size, "");
    status.write(&folder.root).map_err(TrainError::file("write the status of", &folder.root))?;
    let steps = resolved.config.train.steps;
    let control = worker.control.clone();
    let launcher = control.clone().map(|control| Launcher { control, steps });
    Reporter::start(&folder.root, sinks, launcher, tenure.checker(), move |text| {
        saving::tell(control.as_deref(), text);
    })
}

/// A run between its set-up and its end.
pub(super) struct Run<'a> {
    pub(super) comm: &'a dyn Communicator,
    pub(super) worker: &'a Worker,
    /// The run folder, as long as it is this run's.
    pub(super) tenure: &'a Tenure,
    pub(super) config: &'a TrainConfig,
    pub(super) fingerprint: String,
    pub(super) training: Training,
    /// `None`: there is none, and nothing is evaluated.
    test: Option<Split>,
    /// Whose first samples pictures show.
    pub(super) shown: Arc<dyn Source>,
    /// Samples of the train split.
    num_train: u64,
    /// How large the model is.
    pub(super) sizes: Sizes,
    pub(super) saver: Saver,
    /// The last evaluation of this run.
    pub(super) evaluated: Option<Row>,
    /// Steps left out since the last one that was not.
    pub(super) skipped_in_row: u64,
    /// How often each code was taken in the last logging interval.
    counts: Vec<f64>,
    /// Rank 0's.
    pub(super) reporter: Option<Reporter>,
    pub(super) clock: Clock,
    /// Steps done.
    pub(super) step: u64,
    /// Whether reduced scalars told of a stop.
    stop_seen: bool,
}

impl Run<'_> {
    fn steps(mut self, source: Arc<dyn Source>) -> Result<Ending, TrainError> {
        let TrainConfig { train, metrics, eval, checkpoint, .. } = self.config;
        if self.step >= train.steps {
            self.notice(format!("nothing to do: all {} steps are done", train.steps));
            return self.end(RunState::Done);
        }
        let device = self.worker.device.clone();
        let mut loader = training_batches(source, self.config, self.step, self.comm, device)?;
        let mut pending: Option<Arriving> = None;
        self.clock.enter(Phase::Data);
        while let Some(batch) = self.next_batch(&mut loader) {
            let mut batch = batch?;
            self.clock.lap(Lap::DataWait);
            // Steps that were skipped have not begun anything.
            if !self.training.optimizer.has_begun() {
                self.training.begin(self.comm, &batch)?;
                self.clock.lap(Lap::Other);
            }
            let input = StepInput {
                step: self.step,
                stop: self.worker.stop.load(Ordering::Relaxed),
                compare_state: self.step.is_multiple_of(metrics.every),
                num_skipped: batch.num_skipped,
                // On a CPU it costs nothing; a GPU has to be waited for.
                check_finite: train.max_skipped_steps > 0 || self.worker.device.is_cpu(),
                saves: self.saver.flags(),
            };
            let earlier = match self.training.step(self.comm, &mut batch, input, &mut self.clock)? {
                Stepped::Done(scalars) => {
                    self.skipped_in_row = 0;
                    pending.replace(Arriving::fetch(self.step, &scalars, &self.worker.device)?)
                }
                Stepped::Skipped(found) => {
                    self.skip(found)?;
                    pending.take()
                }
            };
            self.look_at(earlier)?;
            self.step += 1;
            self.clock.step_done(self.step);
            self.still_ours()?;
            let is_last = self.step == train.steps;
            let is_stop = self.stop_seen || self.step == train.stop_at;

            if self.is_due(metrics.every) {
                self.look_at(pending.take())?;
                self.report(&batch);
            }
            if self.is_due(eval.every)
                && let Some(test) = &self.test
            {
                self.clock.enter(Phase::Evaluate);
                let (activity, all) = (&self.worker.activity, Asked::default());
                let figures = self.training.with(eval.weights, |task| {
                    evaluate(self.comm, task, test, self.step, all, activity)
                })?;
                self.look_at_figures(&figures)?;
                if let Some(reporter) = &mut self.reporter {
                    reporter.evaluation(&figures);
                }
                self.evaluated = Some(figures);
            }
            if self.is_due(metrics.images_every)
                && let Some(reporter) = &mut self.reporter
            {
                let on_corrupt = self.config.data.on_corrupt;
                let show = |task: &dyn Task| task.show(&*self.shown, on_corrupt);
                for exhibit in self.training.with(eval.weights, show)? {
                    reporter.exhibit(self.step, exhibit);
                }
                reporter.histograms(self.step, self.training.histograms(&self.counts));
            }
            if self.is_due(checkpoint.every) || is_last || is_stop {
                self.look_at(pending.take())?;
                self.save(is_last || is_stop)?;
            }
            loader.recycle(batch);
            self.clock.lap(Lap::Other);
            if is_last || is_stop {
                let state = if is_last { RunState::Done } else { RunState::Stopped };
                if let Some(reporter) = self.reporter.as_mut().filter(|_| is_last) {
                    reporter.done(self.step);
                }
                return self.end(state);
            }
            self.clock.enter(Phase::Data);
        }
        unreachable!("the plan goes to the last step")
    }

    /// The next batch, waited for no longer than a collective.
    fn next_batch<M>(&self, loader: &mut Loader<M>) -> Option<Result<Batch<M>, DataError>> {
        let _armed = self.worker.watchdog.arm("the wait for a batch", self.step);
        loader.next()
    }

    /// Ends rank 0's part in a run whose folder another one has now, as soon as its reporter has seen that:
    /// no step looks at the storage itself.
    fn still_ours(&self) -> Result<(), TrainError> {
        self.reporter.as_ref().map_or(Ok(()), Reporter::still_ours)
    }

    fn is_due(&self, every: u64) -> bool {
        every > 0 && self.step.is_multiple_of(every)
    }

    /// Reads the scalars of an earlier step; every rank does so at the same place.
    fn look_at(&mut self, scalars: Option<Arriving>) -> Result<(), TrainError> {
        if let Some(scalars) = scalars {
            let deadline = Duration::from_secs_f64(self.config.comm.timeout_seconds);
            let losses = self.training.task.losses();
            let reduced = scalars.read(losses, self.comm.world_size(), deadline);
            let reduced = reduced.map_err(|error| self.with_state(error))?;
            self.stop_seen |= reduced.stop;
            if let Some(saved) = self.saver.hear(&reduced.saves) {
                self.saved(saved)?;
            }
        }
        Ok(())
    }

    fn report<M>(&mut self, batch: &Batch<M>) {
        let means = self.training.window.take();
        let times = self.clock.take_window();
        let global = self.config.train.global_batch;
        let samples_seen = self.step * global;
        let TrainConfig { optimizer, schedule, train: LoopConfig { steps, .. }, .. } = self.config;
        let learning_rate = optimizer.learning_rate * schedule.factor(self.step - 1, *steps);
        let samples_per_second = global as f64 * 1e3 / times.step_ms;
        let losses = || self.training.task.losses().iter().zip(&means.losses);
        // 0 times what is no number would be none either.
        let weighted = losses().filter(|(loss, _)| loss.weight > 0.0);
        let loss = weighted.map(|(loss, &mean)| loss.weight * mean).sum();
        let train = |name: &'static str, value: f64| Figure::number(name, value).charted("train");
        let speed = |name: &'static str, value: f64| Figure::number(name, value).charted("speed");
        let mut figures = vec![
            Figure::count("epoch", (batch.global.end - 1) / self.num_train),
            Figure::count("samples_seen", samples_seen),
            train("loss", loss).shown(5),
        ];
        figures.extend(losses().map(|(loss, &mean)| train(loss.name, mean)));
        figures.extend(self.training.task.figures(&means.numbers, &means.vector));
        figures.extend([
            Figure::count("samples_skipped", means.samples_skipped).charted("train"),
            train("learning_rate", learning_rate),
        ]);
        let rates = self.training.optimizer.rates(self.step - 1).into_iter();
        let own = rates.filter(|(stage, _)| optimizer.groups.of(*stage).has_own_rate());
        figures.extend(own.map(|(stage, rate)| train(rate_name(stage), rate)));
        figures.extend([
            train("grad_norm", means.grad_norm),
            speed("samples_per_second", samples_per_second).in_unit("samples/s"),
            speed("step_ms", times.step_ms).in_unit("ms"),
            speed("comm_ms", times.comm_ms).in_unit("ms"),
            speed("data_wait_ms", times.data_wait_ms).in_unit("ms"),
        ]);
        figures.extend(memory::figures(&self.worker.device));
        figures.push(Figure::count("world_size", self.comm.world_size() as u64));
        self.counts = means.vector;
        let row = Row { step: self.step, figures };
        // All ranks have the same row.
        if let Some(reporter) = &mut self.reporter {
            let (step, figures) = (row.step, row.words(" "));
            tracing::info!(step, figures, learning_rate, samples_per_second, "step done");
            reporter.row(&row);
        }
    }

    fn end(mut self, state: RunState) -> Result<Ending, TrainError> {
        self.clock.enter(Phase::Finish);
        let message = match state {
            RunState::Done => format!("done after {} steps", self.step),
            _ => format!("stopped after step {}; the same command resumes", self.step),
        };
        if state == RunState::Done {
            self.leave_model();
        }
        self.write_status(state, self.step, &message);
        tracing::info!(step = self.step, "{}", message);
        // All durable work is done; after this ranks only leave.
        self.see_reports_through()?;
        self.clock.finish_trace();
        Ok(Ending { state, step: self.step, profile: self.clock.table() })
    }
}
