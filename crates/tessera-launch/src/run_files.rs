//! The run folder as the launcher writes to it: from a thread, which a storage that stands still keeps alone.
//!
//! What is known of the workers is replaced each second, the newest in place of one that was not begun. The last
//! words of a start of the workers, `status.json` and a report in `failures/`, get a limited time.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, SystemTime};

use tessera_control::lock::holds;
use tessera_control::{Attempt, ExitCode, RunLock, RunState, RunStatus, Writer};

use crate::LaunchError;
use crate::report::{FailureReport, WorkerReport, write_workers};
use crate::supervision::Verdict;

/// How long the storage may take for the last words of a start of the workers.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What the thread does with the run folder.
enum Job {
    Workers(Vec<WorkerReport>),
    Words(Box<dyn FnOnce(&Path) + Send>),
}

/// A run folder, and the thread that reads and writes there.
pub(crate) struct RunFiles {
    writer: Writer<Job>,
    run_dir: PathBuf,
}

/// Whether somebody still waits for what a job does.
#[derive(Clone, Default)]
struct GivenUp(Arc<AtomicBool>);

impl GivenUp {
    fn is_so(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// How a start of the workers has ended, as far as the launcher knows.
pub(crate) struct LastWords {
    /// Which start of which launch.
    pub(crate) name: Attempt,
    /// Whether its workers have had the run folder.
    pub(crate) had_folder: bool,
    pub(crate) verdict: Verdict,
    pub(crate) mpirun_code: Option<i32>,
    /// When the workers were started.
    pub(crate) begun: SystemTime,
    pub(crate) report: FailureReport,
}

impl RunFiles {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// [`LaunchError::System`] if there can be none.
    pub(crate) fn start(run_dir: &Path) -> Result<Self, LaunchError> {
        let folder = run_dir.to_owned();
        let write = move |job| match job {
            Job::Workers(workers) => write_workers(&folder, &workers),
            Job::Words(run) => run(&folder),
        };
        let nothing = |_: u64| Job::Words(Box::new(|_: &Path| ()));
        let writer = Writer::start("run-folder", usize::MAX, nothing, write)
            .map_err(LaunchError::system("start a thread"))?;
        Ok(Self { writer, run_dir: run_dir.to_owned() })
    }

    /// Keeps what is known of the workers for whoever looks into the run folder, when the storage takes it.
    pub(crate) fn workers(&self, workers: Vec<WorkerReport>) {
        self.writer.put_newest(Job::Workers(workers), |job| matches!(job, Job::Workers(_)));
    }

    /// Brings the verdict and `RUN/status.json` together, and leaves a report of a failure: the code that
    /// counts, and its words. Where the storage does not answer these are the verdict's, and that is told.
    pub(crate) fn last_words(&self, words: LastWords) -> (ExitCode, String) {
        let (code, message) = (words.verdict.code, words.verdict.message.clone());
        self.ask(LAST_WORDS, move |run_dir, given_up| settle(run_dir, words, given_up))
            .unwrap_or_else(|| {
                self.tell_given_up("status.json and failures/ do not say how this ended");
                (code, message)
            })
    }

    /// Says in `RUN/status.json` that a run that has failed is started again.
    pub(crate) fn goes_on(&self, name: &Attempt, message: String) {
        let name = name.clone();
        let written = self.ask(LAST_WORDS, move |run_dir, given_up| {
            if holds(run_dir, &name).is_err() {
                return; // it is another run's
            }
            let Ok(Some(status)) = RunStatus::read(run_dir) else { return };
            let state = RunState::Running;
            let (exit_code, process) = (None, None);
            let status = RunStatus { state, exit_code, message, process, ..status };
            write_status(&status, run_dir, given_up);
        });
        if written.is_none() {
            self.tell_given_up("status.json does not say that it is started again");
        }
    }

    /// Says in `RUN/status.json` that a run that was to be started again could not be.
    pub(crate) fn failed(&self, name: &Attempt, code: ExitCode, message: String) {
        let name = name.clone();
        let written = self.ask(LAST_WORDS, move |run_dir, given_up| {
            if holds(run_dir, &name).is_err() {
                return; // it is another run's
            }
            let Ok(Some(status)) = RunStatus::read(run_dir) else { return };
            let (state, exit_code, process) = (RunState::Failed, Some(code), None);
            let status = RunStatus { state, exit_code, message, process, ..status };
            write_status(&status, run_dir, given_up);
        });
        if written.is_none() {
            self.tell_given_up("status.json does not say how this ended");
        }
    }

    /// Lets the thread do something, for so long at most; `None` where it has not by then.
    fn ask<T: Send + 'static>(
        &self,
        limit: Duration,
        run: impl FnOnce(&Path, &GivenUp) -> T + Send + 'static,
    ) -> Option<T> {
        let given_up = GivenUp::default();
        let theirs = given_up.clone();
        let (answer, answered) = channel();
        self.writer.put(Job::Words(Box::new(move |run_dir: &Path| {
            if !theirs.is_so() {
                let _ = answer.send(run(run_dir, &theirs)); // who has asked may have left
            }
        })));
        let answer = answered.recv_timeout(limit).ok();
        given_up.0.store(answer.is_none(), Ordering::Release);
        answer
    }

    fn tell_given_up(&self, what: &str) {
        let (run_dir, seconds) = (self.run_dir.display(), LAST_WORDS.as_secs());
        tracing::warn!("the storage of {run_dir} has not answered for {seconds} s: {what}");
    }
}

/// Whether the launcher may write its last words of a start of the workers into the run folder.
enum Access {
    /// It was these workers' and is nobody else's.
    Theirs,
    /// They never had it: the launcher has locked it itself.
    Locked(RunLock),
    /// It is not there, or another run's.
    None,
}

impl Access {
    fn to(run_dir: &Path, name: &Attempt, had_folder: bool) -> Self {
        if had_folder && holds(run_dir, name).is_ok() {
            return Self::Theirs;
        }
        // Where nothing was begun there is nothing to be said about it.
        if had_folder || !RunStatus::file(run_dir).exists() {
            return Self::None;
        }
        RunLock::take(run_dir, name).map_or(Self::None, Self::Locked)
    }

    fn is_ours(&self) -> bool {
        match self {
            Self::Theirs => true,
            Self::Locked(lock) => lock.is_held(),
            Self::None => false,
        }
    }
}

/// Rank 0 writes the status; where it could not, the launcher does. Where the last lines of the control
/// connections were lost but mpirun and the file agree on a good end, it was one.
fn settle(run_dir: &Path, words: LastWords, given_up: &GivenUp) -> (ExitCode, String) {
    let LastWords { name, had_folder, verdict, mpirun_code, begun, report } = words;
    let access = Access::to(run_dir, &name, had_folder);
    let written = RunStatus::read(run_dir).ok().flatten();
    let fresh = status_time(run_dir).is_some_and(|at| at >= begun);
    if let Some(status) = &written
        && fresh
        && !verdict.agreed
        && matches!(status.state, RunState::Done | RunState::Stopped)
        && let Some(code) = status.exit_code
        && mpirun_code == Some(code.code())
    {
        return (code, status.message.clone());
    }
    let (code, message) = (verdict.code, verdict.message);
    let is_running = written.as_ref().is_some_and(|status| status.state == RunState::Running);
    let good = matches!(code, ExitCode::Done | ExitCode::Stopped);
    let told = written.is_some() && fresh && !is_running;
    // What is refused before anything has begun leaves the folder as it is.
    let has_begun = (fresh || report.restarts > 0) && is_running;
    let refused = code == ExitCode::BadInput && !has_begun;
    let is_missing = if good { is_running } else { !told && !refused };
    if is_missing && access.is_ours() {
        let state = match code {
            ExitCode::Done => RunState::Done,
            ExitCode::Stopped => RunState::Stopped,
            _ => RunState::Failed,
        };
        let status = RunStatus {
            state,
            exit_code: Some(code),
            step: verdict.step.max(written.map_or(0, |status| status.step)),
            world_size: report.world_size,
            message: message.clone(),
            process: None,
            attempt: Some(name.to_string()),
        };
        write_status(&status, run_dir, given_up);
    }
    if !good && code != ExitCode::BadInput && !given_up.is_so() && access.is_ours() {
        report.write(run_dir, code, &message);
    }
    (code, message)
}

/// When the status of a run was last written.
fn status_time(run_dir: &Path) -> Option<SystemTime> {
    run_dir.join("status.json").metadata().ok()?.modified().ok()
}

fn write_status(status: &RunStatus, run_dir: &Path, given_up: &GivenUp) {
    // A storage that was away may answer when others have written what holds since.
    if given_up.is_so() {
        return;
    }
    if let Err(error) = status.write(run_dir) {
        tracing::warn!(%error, "cannot write status.json into the run folder");
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Instant;

    use super::*;

    fn words(code: ExitCode, restarts: u32) -> LastWords {
        let message = "rank 1 was lost".to_owned();
        let verdict =
            Verdict { code, message: message.clone(), step: 7, agreed: false, unexplained: false };
        let report = FailureReport {
            unix_seconds: 1.5,
            attempt: None,
            restarts,
            world_size: 2,
            exit_code: None,
            message: String::new(),
            workers: Vec::new(),
        };
        let (name, mpirun_code, begun) = (name(), Some(1), SystemTime::now());
        LastWords { name, had_folder: true, verdict, mpirun_code, begun, report }
    }

    fn name() -> Attempt {
        "9f3a07c2b1d4-0".parse().unwrap()
    }

    /// A run folder that workers have had.
    fn folder() -> tempfile::TempDir {
        let run = tempfile::tempdir().unwrap();
        RunLock::take(run.path(), &name()).unwrap();
        running().write(run.path()).unwrap();
        run
    }

    fn running() -> RunStatus {
        RunStatus {
            state: RunState::Running,
            exit_code: None,
            step: 5,
            world_size: 2,
            message: String::new(),
            process: None,
            attempt: None,
        }
    }

    #[test]
    fn a_status_never_stays_running_when_its_workers_have_gone() {
        for (code, restarts, state) in [
            (ExitCode::WorkerLost, 0, RunState::Failed),
            // The status of an earlier launch is no business of one that was refused.
            (ExitCode::BadInput, 0, RunState::Running),
            (ExitCode::BadInput, 1, RunState::Failed),
            (ExitCode::Done, 0, RunState::Done),
        ] {
            let run = folder();
            let old = SystemTime::now() - Duration::from_secs(60);
            fs::File::options()
                .write(true)
                .open(RunStatus::file(run.path()))
                .unwrap()
                .set_modified(old)
                .unwrap();
            let files = RunFiles::start(run.path()).unwrap();
            let (told, _) = files.last_words(words(code, restarts));
            assert_eq!(told, code);
            let status = RunStatus::read(run.path()).unwrap().unwrap();
            assert_eq!(status.state, state, "{code:?} after {restarts} restarts");
        }
        let run = folder();
        let files = RunFiles::start(run.path()).unwrap();
        files.failed(&name(), ExitCode::Failed, "1 of 2 hosts answer".to_owned());
        let status = RunStatus::read(run.path()).unwrap().unwrap();
        assert_eq!((status.state, status.exit_code), (RunState::Failed, Some(ExitCode::Failed)));
    }

    #[test]
    fn a_storage_that_stands_still_is_given_up_and_writes_nothing_late() {
        let run = folder();
        let files = RunFiles::start(run.path()).unwrap();
        let (go, goes) = channel::<()>();
        files.writer.put(Job::Words(Box::new(move |_: &Path| {
            let _ = goes.recv();
        })));
        let begun = Instant::now();
        for _ in 0..100 {
            files.workers(vec![WorkerReport::default()]);
        }
        let late = files.ask(Duration::from_millis(20), |run_dir, given_up| {
            settle(run_dir, words(ExitCode::WorkerLost, 0), given_up)
        });
        assert!(late.is_none() && begun.elapsed() < LAST_WORDS);
        assert_eq!(files.writer.num_waiting(), 3, "the newest of the workers, and the last words");
        drop(go);
        assert!(files.writer.wait(Duration::from_secs(20)));
        assert_eq!(RunStatus::read(run.path()).unwrap(), Some(running()));
        assert!(!run.path().join("failures").exists());
    }
}
