//! What a run needs before it begins: what the worker brings, the data set, and everything that
//! can be found wrong before anything is written.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tessera_comm::{RankDevice, Watchdog};
use tessera_control::{Activity, Client};
use tessera_data::source::Source;
use tessera_data::{DataConfig, DataError, DataKind};

use crate::config::TrainConfig;
use crate::engine::clock::Clock;
use crate::engine::coordinator::{Begins, check_resumable};
use crate::engine::faults::Faults;
use crate::engine::run_folder::{self, Resume, RunFolder};
use crate::engine::trace::Trace;
use crate::engine::warm_start;
use crate::error::TrainError;
use crate::resolve::Resolved;
use crate::task::{self, Samples, Task};

/// What a worker brings to a run.
#[derive(Debug)]
pub struct Worker {
    /// Connection to the launcher, where there is one.
    pub control: Option<Arc<Client>>,
    /// Where this rank computes.
    pub device: RankDevice,
    /// Where the main thread is, for the heartbeat.
    pub activity: Arc<Activity>,
    /// Ends the process when the wait for a batch takes too long.
    pub watchdog: Watchdog,
    /// Set when this process was asked to stop.
    pub stop: Arc<AtomicBool>,
    /// What a test wants to go wrong.
    pub faults: Faults,
    /// Whether the phases of a step are timed on the device, one after another.
    pub profile: bool,
    /// Whether each phase of each step is noted in the run folder.
    pub trace: bool,
}

impl Worker {
    /// A clock for the run that begins now.
    ///
    /// # Errors
    ///
    /// [`TrainError::File`] if its laps are to be noted in the run folder and cannot be.
    pub(crate) fn clock(
        &self,
        run_dir: &Path,
        rank: usize,
        task: &dyn Task,
    ) -> Result<Clock, TrainError> {
        let clock = Clock::start(Arc::clone(&self.activity), task);
        let mut clock = clock.with_faults(self.faults.clone());
        if self.profile {
            clock = clock.waiting_for(self.device.clone());
        }
        if self.trace {
            clock = clock.with_trace(Trace::create(run_dir, rank)?);
        }
        Ok(clock)
    }
}

/// The splits of a run's data set.
pub(crate) struct Data {
    pub(crate) train: Arc<dyn Source>,
    /// `None` where there is none and none is wanted.
    pub(crate) test: Option<Arc<dyn Source>>,
}

impl Data {
    /// Identity of both splits.
    pub(crate) fn fingerprint(&self) -> String {
        let test = self.test.as_ref().map_or("none".to_owned(), |test| test.fingerprint());
        format!("{} {test}", self.train.fingerprint())
    }

    /// How samples came to the splits and what was left out, each line once.
    pub(crate) fn notes(&self) -> Vec<String> {
        let mut notes = self.train.notes();
        for note in self.test.iter().flat_map(|test| test.notes()) {
            if !notes.contains(&note) {
                notes.push(note);
            }
        }
        notes
    }
}

/// Everything that can be found wrong before anything is written: data, model, run folder, and
/// the checkpoint that the run would go on from.
///
/// # Errors
///
/// [`TrainError`] with exit code 2.
pub fn check(resolved: &Resolved, resume: &Resume) -> Result<(), TrainError> {
    let data = open_data(&resolved.config)?;
    run_folder::check(&resolved.run_dir, resume)?;
    let checkpoints = RunFolder { root: resolved.run_dir.clone() }.checkpoints();
    match check_resumable(&checkpoints, resume, &resolved.config, &data.fingerprint())? {
        Begins::Anew => warm_start::check(&resolved.config),
        Begins::Resumed => Ok(()),
    }
}

pub(crate) fn open_data(config: &TrainConfig) -> Result<Data, TrainError> {
    let train = tessera_data::source::open(&config.data, "train")?;
    let test = open_test(&config.data)?;
    let shape = train.shape();
    let best = config.checkpoint.keep_best;
    if test.is_none() && best > 0 {
        return Err(TrainError::BadInput(format!(
            "checkpoint.keep_best is {best}, but there is no split test to say which are best: set \
             it to 0, or data.holdout above 0"
        )));
    }
    if test.as_ref().is_some_and(|test| test.shape() != shape) {
        return Err(TrainError::BadInput(
            "the splits train and test have samples of other shapes: set data.image.height and \
             data.image.width"
                .to_owned(),
        ));
    }
    let samples = Samples::of(config.task, &*train)?;
    task::check(config, &samples).map_err(TrainError::BadInput)?;
    Ok(Data { train, test })
}

/// The split `test` of a data set; `None` where there is none and `data.holdout` is 0, which says
/// that none is wanted.
///
/// # Errors
///
/// [`TrainError::Data`]; [`TrainError::BadInput`] where there is none and one is wanted.
pub(crate) fn open_test(data: &DataConfig) -> Result<Option<Arc<dyn Source>>, TrainError> {
    match tessera_data::source::open(data, "test") {
        Err(DataError::NoSplit { .. }) if wants_no_test(data) => Ok(None),
        Err(error @ DataError::NoSplit { .. }) => Err(TrainError::BadInput(format!(
            "{error}; data.holdout = 0 trains without evaluations"
        ))),
        test => Ok(Some(test?)),
    }
}

/// Whether nothing is to be held out, of a mixture for itself or for each of its parts.
fn wants_no_test(data: &DataConfig) -> bool {
    let of_parts = || data.mixture.iter().all(|part| wants_no_test(&part.data));
    data.holdout == 0.0 || (data.kind == DataKind::Mixture && of_parts())
}
