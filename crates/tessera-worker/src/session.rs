//! A worker's connections, to its peers and to its launcher, from start to end.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tch::Device;
use tessera_comm::{
    CommConfig, Communicator, Connection, DeviceConfig, Environment, Watchdog, connect,
};
use tessera_control::{
    Call, Client, ExitCode, Message, not_written, tell, unread, variables, write_result,
};
use tessera_train::metrics::Appended;
use tessera_train::{Faults, RunFolder, TrainError, Worker};

use crate::last_words::{self, LastWords};
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
    /// Connects to the peers and to the launcher, where there are any; computes with so many threads, 0 for
    /// as many as there are cores for.
    pub(crate) fn start(
        config: &CommConfig,
        device: DeviceConfig,
        threads: u64,
        stop: Arc<AtomicBool>,
    ) -> Result<Self, ExitCode> {
        let last_words = Arc::new(LastWords::default());
        let theirs = Arc::clone(&last_words);
        match connect(config, device, move |hang| theirs.of_hang(hang)) {
            Ok(connection) => {
                let over = Self::over(connection, config, threads, last_words, stop);
                over.map_err(|error| refuse(&error))
            }
            Err(error) => Err(refuse_alone(&error.into())),
        }
    }

    /// Tells the launcher, where there is one, and starts what watches this process.
    fn over(
        Connection { comm, device, environment }: Connection,
        config: &CommConfig,
        threads: u64,
        last_words: Arc<LastWords>,
        stop: Arc<AtomicBool>,
    ) -> Result<Self, TrainError> {
        let (rank, world_size) = (comm.rank(), comm.world_size());
        let _ = last_words.rank.set((rank, world_size));
        last_words::end_on_panic(Arc::clone(&last_words));

        let activity = Arc::clone(&last_words.activity);
        activity.keep_record(rank);
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
        let lost = || tessera_comm::exit_now(ExitCode::WorkerLost.code());
        let control = Client::from_env(rank, world_size, Arc::clone(&activity), lost)
            .map_err(|error| TrainError::BadInput(error.to_string()))?
            .map(Arc::new);
        if let Some(control) = &control {
            let _ = last_words.control.set(Arc::clone(control));
        }
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

    /// From now on a failure is written into this run folder, once it is there.
    pub(crate) fn watch_run(&self, run_dir: &Path) {
        let _ = self.last_words.run_dir.set(run_dir.to_owned());
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
        // A peer's error is told by that peer; the launcher tells what it hears.
        let is_told = self.worker.control.is_none() && !error.is_of_peer();
        self.last_words.say(error.code(), &message, is_told, || {
            tracing::error!(target: crate::logging::OUTCOME, error = message, "run failed");
        });
        error.code()
    }
}

/// Tells an error that came before there was anybody else to tell.
pub(crate) fn refuse(error: &TrainError) -> ExitCode {
    tell(format_args!("error: {error}"));
    error.code()
}

/// Tells an error of a process that could not be connected with its peers: to the launcher, if
/// there is one and the process knows its rank, and otherwise to whoever reads stderr.
fn refuse_alone(error: &TrainError) -> ExitCode {
    let rank = tessera_comm::rank_from_env();
    let world = std::env::var(variables::WORLD_SIZE).ok().and_then(|size| size.parse().ok());
    let lost = || tessera_comm::exit_now(ExitCode::WorkerLost.code());
    let control = rank.zip(world).and_then(|(rank, world_size)| {
        Client::from_env(rank, world_size, Arc::default(), lost).ok().flatten()
    });
    let Some(control) = control else { return refuse(error) };
    let (code, message) = (error.code(), error.to_string());
    control.send(Message::Outcome { code, message, step: 0 });
    control.close();
    error.code()
}
