//! A worker's connections, to its peers and to its launcher, from start to end.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tch::Device;
use tessera_comm::{
    CommConfig, Communicator, Connection, DeviceConfig, Environment, Hang, Watchdog, connect,
};
use tessera_control::{
    Activity, Call, Client, ExitCode, LimitsConfig, Message, Phase, Process, RunState, RunStatus,
    Secrets, not_written, tell, unread, variables, write_result,
};
use tessera_train::{Faults, RunFolder, TrainError, Worker};

use crate::threads::{self, Threads};

/// What a thread needs to tell how the worker ends when the main thread cannot.
#[derive(Debug, Default)]
struct LastWords {
    control: OnceLock<Arc<Client>>,
    activity: Arc<Activity>,
    rank: OnceLock<(usize, usize)>,
    run_dir: OnceLock<PathBuf>,
    said: AtomicBool,
}

impl LastWords {
    /// Says hello to the launcher, where there is one, as this rank of so many; looks for it as long as
    /// `limits` has workers meet.
    fn introduce(
        &self,
        rank: usize,
        world_size: usize,
        limits: &LimitsConfig,
    ) -> Result<(), TrainError> {
        let _ = self.rank.set((rank, world_size));
        self.activity.keep_record(rank);
        let lost = || tessera_comm::exit_now(ExitCode::WorkerLost.code());
        let (patience, activity) =
            (Duration::from_secs_f64(limits.meet_seconds), Arc::clone(&self.activity));
        let take = |secrets: Secrets| tessera_comm::set_variables(&secrets.0);
        let control = Client::from_env(rank, world_size, patience, activity, take, lost)
            .map_err(|error| TrainError::BadInput(error.to_string()))?;
        if let Some(control) = control {
            let _ = self.control.set(Arc::new(control));
        }
        Ok(())
    }

    /// Whether nobody has said anything yet. The first words count: what breaks after a watchdog
    /// has given up is its doing.
    fn is_first(&self) -> bool {
        !self.said.swap(true, Ordering::AcqRel)
    }

    fn say(&self, code: ExitCode, message: &str) {
        let (rank, world_size) = self.rank.get().copied().unwrap_or((0, 1));
        let step = self.activity.step();
        // A run that was refused before it began has nothing to say about the one in the folder.
        if let (0, Some(run_dir)) = (rank, self.run_dir.get())
            && matches!(
                RunStatus::read(run_dir),
                Ok(Some(RunStatus { state: RunState::Running, .. }))
            )
        {
            let message = message.to_owned();
            let state = RunState::Failed;
            let (exit_code, process) = (Some(code), Some(Process::own()));
            let status = RunStatus { state, exit_code, step, world_size, message, process };
            let _ = status.write(run_dir);
        }
        if let Some(control) = self.control.get() {
            control.send(self.activity.heartbeat()); // where this worker was
            control.send(Message::Outcome { code, message: message.into(), step });
            control.close();
        }
    }
}

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
        end_on_panic(Arc::clone(&last_words));
        if let Some((rank, world_size)) = told_by_environment() {
            last_words.introduce(rank, world_size, limits).map_err(|error| refuse(&error))?;
        }
        let theirs = Arc::clone(&last_words);
        match connect(config, device, move |hang| report_hang(hang, &theirs)) {
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
        let watchdog = Watchdog::start(timeout, move |hang| report_hang(hang, &theirs));
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

    /// From now on a failure is written into this run folder, once it is there.
    pub(crate) fn watch_run(&self, run_dir: &Path) {
        let _ = self.last_words.run_dir.set(run_dir.to_owned());
    }

    /// Starts the log of this rank, and says how many threads compute.
    pub(crate) fn log_to(&self, folder: &RunFolder) -> Result<(), TrainError> {
        let rank = self.comm.rank();
        let path = folder.log(rank);
        let file = File::options()
            .append(true)
            .create(true)
            .open(&path)
            .map_err(|source| TrainError::File { action: "open", path, source })?;
        crate::logging::start(file, rank, rank == 0 && self.worker.control.is_none());
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
            return error.code();
        }
        tracing::error!(target: crate::logging::OUTCOME, error = message, "run failed");
        // A peer's error is told by that peer; the launcher tells what it hears.
        if self.worker.control.is_none() && !matches!(error, TrainError::Peer { .. }) {
            tell(format_args!("error: {message}"));
        }
        self.last_words.say(error.code(), &message);
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
        last_words.say(error.code(), &error.to_string());
    }
    error.code()
}

fn report_hang(hang: &Hang, last_words: &LastWords) {
    let (rank, world_size) = last_words.rank.get().copied().unwrap_or((0, 1));
    if !last_words.is_first() {
        return;
    }
    let cause = hang.cause.as_deref().unwrap_or(
        "a peer, or the storage, is stuck or gone; raise comm.timeout_seconds if it is only slow",
    );
    let message = format!(
        "rank {rank} of {world_size} waited {:.0} s in {} number {} after step {}: {cause}",
        hang.waited.as_secs_f64(),
        hang.op,
        hang.sequence,
        last_words.activity.step()
    );
    tracing::error!(target: crate::logging::OUTCOME, error = message, "hang");
    tell(format_args!("error: {message}"));
    last_words.say(ExitCode::from(hang.exit_code()), &message);
}

/// A panic of the main thread ends the process, after it has been told.
fn end_on_panic(last_words: Arc<LastWords>) {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        print(panic);
        if std::thread::current().name() == Some("main") {
            let message = panic.to_string().replace('\n', " ");
            tracing::error!(error = message, "panic");
            last_words.say(ExitCode::Failed, &message);
            tessera_comm::exit_now(ExitCode::Failed.code());
        }
    }));
}
