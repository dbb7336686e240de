//! What a run needs before it begins: what the worker brings, the data set, and everything that
//! can be found wrong before anything is written.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tessera_comm::{RankDevice, Watchdog};
use tessera_control::{Activity, Client};
use tessera_data::Modality;
use tessera_data::source::Source;

use crate::clock::Clock;
use crate::config::TrainConfig;
use crate::coordinator::resumable_checkpoint;
use crate::error::TrainError;
use crate::faults::Faults;
use crate::resolve::Resolved;
use crate::run_folder::{self, Resume, RunFolder};
use crate::trace::Trace;

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
    pub(crate) fn clock(&self, run_dir: &Path, rank: usize) -> Result<Clock, TrainError> {
        let mut clock = Clock::start(Arc::clone(&self.activity)).with_faults(self.faults.clone());
        if self.profile {
            clock = clock.waiting_for(self.device.clone());
        }
        if self.trace {
            clock = clock.with_trace(Trace::create(run_dir, rank)?);
        }
        Ok(clock)
    }
}

/// The two splits of a run's data set.
pub(crate) struct Data {
    pub(crate) train: Arc<dyn Source>,
    pub(crate) test: Arc<dyn Source>,
}

impl Data {
    /// Identity of both splits.
    pub(crate) fn fingerprint(&self) -> String {
        format!("{} {}", self.train.fingerprint(), self.test.fingerprint())
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
    resumable_checkpoint(&checkpoints, resume, &resolved.config, &data.fingerprint()).map(|_| ())
}

pub(crate) fn open_data(config: &TrainConfig) -> Result<Data, TrainError> {
    let train = tessera_data::source::open(&config.data, "train")?;
    let test = tessera_data::source::open(&config.data, "test")?;
    let shape = train.shape();
    if shape.modality != Modality::Image {
        return Err(TrainError::BadInput(
            "the data are audio or video, the models here take pictures: train on a data set of \
             modality \"image\""
                .to_owned(),
        ));
    }
    if test.shape() != shape {
        return Err(TrainError::BadInput(
            "the splits train and test have samples of other shapes: set data.image.height and \
             data.image.width"
                .to_owned(),
        ));
    }
    config
        .model
        .validate(i64::from(shape.height), i64::from(shape.width))
        .map_err(TrainError::BadInput)?;
    Ok(Data { train, test })
}
