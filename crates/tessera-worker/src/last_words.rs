//! How a worker ends when it does not end well: the launcher hears it first, then whoever reads stderr, and what
//! goes to storage is written by threads that nobody waits for longer than a moment.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tessera_comm::Hang;
use tessera_control::{
    Activity, Client, ExitCode, LimitsConfig, Message, Process, RunState, RunStatus, Secrets,
    Stderr, tell,
};
use tessera_train::{Tenure, TrainError};

use crate::{logging, nccl};

/// How long last words may take, all of them together. The process ends within two seconds.
const LIMIT: Duration = Duration::from_millis(1500);

/// How long a run that ends well waits until it has given its folder back.
const GIVE_BACK: Duration = Duration::from_secs(5);

/// What a thread needs to tell how the worker ends when the main thread cannot.
#[derive(Debug, Default)]
pub(crate) struct LastWords {
    pub(crate) control: OnceLock<Arc<Client>>,
    pub(crate) activity: Arc<Activity>,
    pub(crate) rank: OnceLock<(usize, usize)>,
    /// The run folder, while it is this run's.
    pub(crate) tenure: OnceLock<Arc<Tenure>>,
    said: AtomicBool,
}

impl LastWords {
    /// Says hello to the launcher, where there is one, as this rank of so many; looks for it as long as
    /// `limits` has workers meet.
    pub(crate) fn introduce(
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
    pub(crate) fn is_first(&self) -> bool {
        !self.said.swap(true, Ordering::AcqRel)
    }

    /// Says why this worker ends: to the launcher, on stderr where that `is_told`, to the log by `log`, and in
    /// the run's status. Returns soon, whatever storage and network do.
    pub(crate) fn say(&self, code: ExitCode, message: &str, is_told: bool, log: impl FnOnce()) {
        let deadline = Instant::now() + LIMIT;
        let left = || deadline.saturating_duration_since(Instant::now());
        let step = self.activity.step();
        if let Some(control) = self.control.get() {
            control.send(self.activity.heartbeat()); // where this worker was
            control.send(Message::Outcome { code, message: message.into(), step });
        }
        if is_told {
            tell(format_args!("error: {message}"));
        }
        log();
        let written = self.write_status(code, message, step);
        if let Some(control) = self.control.get() {
            control.close_within(left());
        }
        if let Some(written) = written {
            let _ = written.recv_timeout(left());
        }
        logging::finish(left());
    }

    /// Gives the run folder back, if it is this worker's and the storage answers.
    pub(crate) fn give_folder_back(&self) {
        let Some(tenure) = self.tenure.get().map(Arc::clone) else { return };
        if let Some(through) = on_thread(move || tenure.release()) {
            let _ = through.recv_timeout(GIVE_BACK);
        }
    }

    /// Writes the run's status and gives the folder back, from a thread that hangs up when it is through. `None`
    /// where that is not this worker's business.
    fn write_status(&self, code: ExitCode, message: &str, step: u64) -> Option<Receiver<()>> {
        let (rank, world_size) = self.rank.get().copied().unwrap_or((0, 1));
        let tenure = Arc::clone(self.tenure.get().filter(|_| rank == 0)?);
        let message = message.to_owned();
        on_thread(move || {
            let run_dir = &tenure.folder.root;
            // A folder that is another run's now keeps that run's words.
            if tenure.check().is_ok()
                && matches!(
                    RunStatus::read(run_dir),
                    Ok(Some(RunStatus { state: RunState::Running, .. }))
                )
            {
                let state = RunState::Failed;
                let (exit_code, process) = (Some(code), Some(Process::own()));
                let attempt = Some(tenure.attempt.to_string());
                let status =
                    RunStatus { state, exit_code, step, world_size, message, process, attempt };
                let _ = status.write(run_dir);
            }
            tenure.release();
        })
    }

    /// Says that a wait has outlasted its deadline.
    pub(crate) fn of_hang(&self, hang: &Hang) {
        let (rank, world_size) = self.rank.get().copied().unwrap_or((0, 1));
        if !self.is_first() {
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
            self.activity.step()
        );
        let says = nccl::ask_about_hang(hang);
        let message = nccl::with_words(message, says.as_ref());
        self.say(ExitCode::from(hang.exit_code()), &message, true, || {
            tracing::error!(target: logging::OUTCOME, error = message, "hang");
            nccl::log(says);
        });
    }
}

/// Does something on a thread of its own, which hangs up when it is through; `None` where there can be none.
fn on_thread(run: impl FnOnce() + Send + 'static) -> Option<Receiver<()>> {
    let (through, hangs_up) = channel::<()>();
    let run = move || {
        run();
        drop(through);
    };
    let thread = std::thread::Builder::new().name("last-words".into()).spawn(run);
    thread.ok().map(|_| hangs_up)
}

/// A panic of the main thread ends the process, after it has been told.
pub(crate) fn end_on_panic(last_words: Arc<LastWords>) {
    std::panic::set_hook(Box::new(move |panic| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("<unnamed>");
        let mut text = format!("thread '{name}' {panic}\n");
        let trace = Backtrace::capture();
        if trace.status() == BacktraceStatus::Captured {
            text += &format!("{trace}\n");
        }
        let _ = Stderr.write_all(text.as_bytes()); // as the usual hook says it, but without a wait
        if name == "main" {
            let message = panic.to_string().replace('\n', " ");
            last_words.say(ExitCode::Failed, &message, false, || {
                tracing::error!(error = message, "panic");
            });
            tessera_comm::exit_now(ExitCode::Failed.code());
        }
    }));
}

#[cfg(test)]
mod tests {
    use tessera_comm::Solo;
    use tessera_train::RunFolder;

    use super::*;

    #[test]
    fn last_words_do_not_wait_for_storage_that_does_not_answer() {
        let name = format!("tessera-last-words-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        // Whoever opens a pipe to read it waits for a writer.
        let pipe = RunStatus::file(&folder);
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let words = LastWords::default();
        words.rank.set((0, 1)).unwrap();
        let tenure = RunFolder::take(&Solo::default(), &folder, |_| ()).unwrap();
        words.tenure.set(Arc::new(tenure)).unwrap();
        let (begun, mut is_logged) = (Instant::now(), false);
        words.say(ExitCode::Failed, "a reason", false, || is_logged = true);
        // Not for ever; LIMIT and more, since the machine may be busy.
        assert!(begun.elapsed() < Duration::from_secs(10) && is_logged);
        // The thread that waits for the pipe ends with it.
        drop(std::fs::File::options().write(true).open(&pipe));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
