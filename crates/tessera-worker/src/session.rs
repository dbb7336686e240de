//! A worker's connections, to its peers and to its launcher, from start to end.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tch::Device;
use tessera_comm::{
    CommConfig, Communicator, Connection, DeviceConfig, Environment, Watchdog, connect,
};
use tessera_control::{
    Call, ExitCode, LimitsConfig, Lost, Message, Phase, not_written, tell, unread, variables,
    write_result,
};
use tessera_train::metrics::Appended;
use tessera_train::{Faults, RunFolder, Tenure, TrainError, Worker};

use crate::last_words::{self, LastWords};
use crate::nccl;
use crate::threads::{self, Threads};

/// A worker's connections.
pub(crate) struct Session {
    comm: Box<dyn Communicator>,
    worker: Worker,
    threads: Threads,
    environment: Environment,
    last_words: Arc<LastWords>,
}

impl Session {
    /// Connects to the launcher and to the peers, where there are any; computes with so many threads, 0 for
    /// as many as there are cores for.
    ///
    /// The launcher comes first: it knows then who is here while MPI and NCCL look for the others.
    pub(crate) fn start(
        config: &CommConfig,
        device: DeviceConfig,
        threads: u64,
        limits: &LimitsConfig,
        stop: Arc<AtomicBool>,
    ) -> Result<Self, ExitCode> {
        let last_words = Arc::new(LastWords::default());
        last_words::end_on_panic(Arc::clone(&last_words));
        if let Some((rank, world_size)) = told_by_environment() {
            last_words.introduce(rank, world_size, limits).map_err(|error| refuse(&error))?;
        }
        let theirs = Arc::clone(&last_words);
        match connect(config, device, move |hang| theirs.of_hang(hang)) {
            Ok(connection) => {
                let words = Arc::clone(&last_words);
                let over = Self::over(connection, config, threads, limits, words, stop);
                over.map_err(|error| refuse_alone(&error, &last_words))
            }
            Err(error) => Err(refuse_alone(&error.into(), &last_words)),
        }
    }

    /// Starts what watches this process.
    fn over(
        Connection { comm, device, environment }: Connection,
        config: &CommConfig,
        threads: u64,
        limits: &LimitsConfig,
        last_words: Arc<LastWords>,
        stop: Arc<AtomicBool>,
    ) -> Result<Self, TrainError> {
        let rank = comm.rank();
        match last_words.rank.get() {
            // Whoever started it has not said which rank it is.
            None => last_words.introduce(rank, comm.world_size(), limits)?,
            Some(&(told, _)) if told != rank => {
                return Err(TrainError::BadInput(format!(
                    "the environment says that this is rank {told}, MPI that it is rank {rank}: use the mpirun of \
                     the MPI that tessera-worker was built with"
                )));
            }
            Some(_) => {}
        }
        let activity = Arc::clone(&last_words.activity);
        activity.enter(Phase::Start);
        if let Some(calls) = comm.calls() {
            let theirs = Arc::clone(&activity);
            calls.tell(move || theirs.write_record());
            activity.tell_calls(move || {
                let call = calls.last()?;
                let (op, kind) = (call.op.to_owned(), call.kind.to_owned());
                let (sequence, count, waiting) = (call.sequence, call.count, call.waiting);
                let waited_ms = call.waited.as_millis().try_into().unwrap_or(u64::MAX);
                Some(Call { op, sequence, count, kind, waiting, waited_ms })
            });
        }
        let control = last_words.control.get().cloned();
        let threads = threads::choose(&*comm, threads)?;
        threads::compute_with(threads.count);
        tch::set_num_interop_threads(1);
        let theirs = Arc::clone(&last_words);
        let timeout = Duration::from_secs_f64(config.timeout_seconds);
        let watchdog = Watchdog::start(timeout, move |hang| theirs.of_hang(hang));
        let faults = Faults::from_env(rank).map_err(TrainError::BadInput)?;
        let worker = Worker {
            control,
            device,
            activity,
            watchdog,
            stop,
            faults,
            profile: false,
            trace: false,
        };
        Ok(Self { comm, worker, threads, environment, last_words })
    }

    pub(crate) fn comm(&self) -> &dyn Communicator {
        &*self.comm
    }

    /// From now on the phases of a step are timed on the device.
    pub(crate) fn profile(&mut self) {
        self.worker.profile = true;
    }

    /// From now on the phases of each step are noted in the run folder.
    pub(crate) fn trace(&mut self) {
        self.worker.trace = true;
    }

    pub(crate) fn device(&self) -> Device {
        self.worker.device.device
    }

    pub(crate) fn worker(&self) -> &Worker {
        &self.worker
    }

    /// Ends this process when another run has the run folder.
    pub(crate) fn on_lost(&self) -> impl FnOnce(&Lost) + Send + use<> {
        let last_words = Arc::clone(&self.last_words);
        move |lost| {
            let error = TrainError::from(lost.clone());
            if last_words.is_first() {
                let message = error.to_string();
                last_words.say(error.code(), &message, true, || {
                    tracing::error!(target: crate::logging::OUTCOME, error = message, "run failed");
                });
                tessera_comm::exit_now(error.code().code());
            }
        }
    }

    /// From now on the run folder is this run's: the launcher hears it, and a failure is written there.
    pub(crate) fn hold(&self, tenure: Tenure) -> Arc<Tenure> {
        let tenure = Arc::new(tenure);
        let _ = self.last_words.tenure.set(Arc::clone(&tenure));
        if let (0, Some(control)) = (self.comm.rank(), &self.worker.control) {
            control.send(Message::Holds { attempt: tenure.attempt.to_string() });
        }
        tenure
    }

    /// Starts the log of this rank, and says how many threads compute.
    pub(crate) fn log_to(&self, folder: &RunFolder) -> Result<(), TrainError> {
        let rank = self.comm.rank();
        let path = folder.log(rank);
        let to_stderr = rank == 0 && self.worker.control.is_none();
        Appended::open(&path)
            .and_then(|file| crate::logging::start(file, rank, to_stderr))
            .map_err(|source| TrainError::File { action: "open", path, source })?;
        let (threads, world_size) = (tch::get_num_threads(), self.comm.world_size());
        let threads_by = &self.threads.source;
        let device = self.worker.device.name();
        let started_by = &self.environment;
        tracing::info!(world_size, threads, threads_by, device, %started_by, "worker started");
        if let (0, Some(control)) = (rank, &self.worker.control) {
            let text =
                format!("{world_size} workers on {device}, {threads} threads each ({threads_by})");
            control.send(Message::Notice { text });
        }
        Ok(())
    }

    /// Says a line to whoever watches: through the launcher, or on stderr.
    pub(crate) fn say(&self, text: String) {
        match &self.worker.control {
            Some(control) => control.send(Message::Notice { text }),
            None => tell(format_args!("{text}")),
        }
    }

    /// Prints the result of rank 0 and leaves in good order; a result that cannot be written is bad input, and
    /// one that nobody reads ends the process by SIGPIPE.
    pub(crate) fn answer(self, text: &str, step: u64) -> ExitCode {
        let written = match self.comm.rank() {
            0 => write_result(text),
            _ => Ok(()),
        };
        match written {
            Ok(()) => self.finish(ExitCode::Done, step),
            Err(error) if unread(&error) => {
                self.finish(ExitCode::Done, step);
                tessera_control::end_unread();
                ExitCode::Failed
            }
            Err(error) => self.fail(&TrainError::BadInput(not_written(&error))),
        }
    }

    /// Leaves in good order.
    pub(crate) fn finish(self, code: ExitCode, step: u64) -> ExitCode {
        let message = code.meaning().to_owned();
        if let Some(control) = &self.worker.control {
            control.send(Message::Outcome { code, message, step });
        }
        let finished = self.comm.finish();
        self.last_words.give_folder_back();
        if let Some(control) = &self.worker.control {
            control.close();
        }
        match finished {
            Ok(()) => code,
            Err(error) => refuse(&error.into()),
        }
    }

    /// Reports an error and leaves without waiting for anybody.
    pub(crate) fn fail(self, error: &TrainError) -> ExitCode {
        let message = error.to_string();
        if !self.last_words.is_first() {
            tracing::debug!(error = message, "failed after the watchdog had given up");
            // Whoever was first is still telling, and ends the process.
            std::thread::sleep(nccl::LONGEST_WORDS);
            return error.code();
        }
        let says = nccl::ask_about_error(error);
        let message = nccl::with_words(message, says.as_ref());
        // A peer's error is told by that peer; the launcher tells what it hears.
        let is_told = self.worker.control.is_none() && !error.is_of_peer();
        self.last_words.say(error.code(), &message, is_told, || {
            tracing::error!(target: crate::logging::OUTCOME, error = message, "run failed");
            nccl::log(says);
        });
        error.code()
    }
}

/// Tells an error that came before there was anybody else to tell.
pub(crate) fn refuse(error: &TrainError) -> ExitCode {
    tell(format_args!("error: {error}"));
    error.code()
}

/// Rank and number of workers that a launcher and its mpirun have told this process.
fn told_by_environment() -> Option<(usize, usize)> {
    let world = std::env::var(variables::WORLD_SIZE).ok().and_then(|size| size.parse().ok());
    tessera_comm::rank_from_env().zip(world)
}

/// Tells an error of a process that could not be connected with its peers: to the launcher, if
/// it has said hello to one, and otherwise to whoever reads stderr.
fn refuse_alone(error: &TrainError, last_words: &LastWords) -> ExitCode {
    if last_words.control.get().is_none() {
        return refuse(error);
    }
    if last_words.is_first() {
        last_words.say(error.code(), &error.to_string(), false, || ());
    }
    error.code()
}
