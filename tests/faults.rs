//! What ends a run, and how it ends: with its own exit code, in words that name the culprit, and
//! with no process left.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tessera_control::{ExitCode, RunState, RunStatus};

use crate::support::{
    checkpoints, data_settings, errors, flip_bit, mpirun, packed, processes_of, run, steps_logged,
    tessera, train, wait_until, worker_pid,
};

/// Longer than any test waits; a checkpoint only when stopped.
const ENDLESS: [&str; 5] = [
    "train.steps=1000000",
    "checkpoint.every=0",
    "eval.every=0",
    "metrics.images_every=0",
    "metrics.every=1",
];

/// A run in the background.
struct Running {
    folder: TempDir,
    child: Child,
}

impl Running {
    /// Starts what `command` makes of the run folder, and waits for its first steps.
    fn start(command: impl FnOnce(&Path) -> Command) -> Self {
        let folder = TempDir::new().unwrap();
        let mut command = command(&folder.path().join("run"));
        let stderr = File::create(folder.path().join("stderr")).unwrap();
        let stdout = File::create(folder.path().join("stdout")).unwrap();
        let child = command.stdout(stdout).stderr(stderr).spawn().unwrap();
        let mut running = Self { folder, child };
        wait_until("the run makes steps", || {
            let ended = running.child.try_wait().unwrap();
            assert!(ended.is_none(), "ended early: {}", running.stderr());
            steps_logged(&running.run_dir()) >= 3
        });
        running
    }

    /// Workers under `tessera launch`.
    fn launched(nproc: usize) -> Self {
        Self::start(|run_dir| train(nproc, run_dir, &ENDLESS))
    }

    /// Two workers under a bare mpirun.
    fn bare(settings: &[&str]) -> Self {
        Self::start(|run_dir| {
            let mut command = mpirun(2);
            command.args(["train", "--config", "configs/smoke.toml", "--run-dir"]).arg(run_dir);
            for setting in ENDLESS.iter().chain(settings) {
                command.args(["--set", setting]);
            }
            command
        })
    }

    fn run_dir(&self) -> std::path::PathBuf {
        self.folder.path().join("run")
    }

    fn stderr(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("stderr")).unwrap()
    }

    fn worker(&self, rank: usize) -> i32 {
        worker_pid(&self.run_dir(), rank)
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    fn status(&self) -> RunStatus {
        RunStatus::read(&self.run_dir()).unwrap().unwrap()
    }

    /// Waits for the end; code and stderr. Nobody may be left.
    fn end(&mut self) -> (Option<i32>, String) {
        let mut status = None;
        wait_until("the run ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        self.assert_gone();
        (status.unwrap().code(), self.stderr())
    }

    /// No process of the run stays.
    fn assert_gone(&self) {
        let start = Instant::now();
        wait_until("all processes are gone", || processes_of(&self.run_dir()).is_empty());
        println!("gone after {:.1} s", start.elapsed().as_secs_f64());
    }

    /// Stopped in good order: 75, one checkpoint, of the last step, and a status that says so.
    fn assert_stopped(&mut self) {
        let (code, stderr) = self.end();
        assert_eq!(code, Some(75), "{stderr}");
        let status = self.status();
        assert_eq!((status.state, status.exit_code), (RunState::Stopped, Some(ExitCode::Stopped)));
        assert_eq!(checkpoints(&self.run_dir()), [status.step], "{stderr}");
        assert_eq!(steps_logged(&self.run_dir()), status.step);
        assert_eq!(errors(&stderr), [""; 0], "{stderr}");
    }
}

impl Drop for Running {
    /// A failed test leaves no run behind either: workers die with mpirun, mpirun with us.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn send(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

fn parent_of(pid: i32) -> i32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields = stat.rsplit_once(')').unwrap().1;
    fields.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_second_run_is_refused_by_name_and_one_that_has_lost_its_folder_writes_nothing_more() {
    let mut running = Running::launched(2);
    let (run_dir, holder) = (running.run_dir(), running.worker(0));
    let attempt = running.status().attempt.unwrap();
    let mut alone = tessera();
    alone.args(["train", "--config", "configs/smoke.toml", "--run-dir"]).arg(&run_dir);
    for mut second in [train(1, &run_dir, &[]), alone] {
        let (code, _, stderr) = run(&mut second);
        assert_eq!(code, Some(2), "{stderr}");
        let told = errors(&stderr);
        let words = format!(" is in use by process {holder} on host ");
        assert!(told[0].contains(&words) && told[0].contains(&attempt), "{stderr}");
        assert!(told[0].contains("wait for that run or stop it"), "{stderr}");
    }
    assert_eq!(running.status().attempt.as_ref(), Some(&attempt), "it goes on as it was");

    // Another run takes the folder, as on storage whose locks end at the host.
    let lock = run_dir.join("run.lock");
    let other = std::fs::read_to_string(&lock).unwrap().replace(&attempt, "0123456789ab-0");
    std::fs::write(&lock, &other).unwrap();
    let (code, stderr) = running.end();
    assert_eq!(code, Some(1), "{stderr}");
    let told = errors(&stderr);
    assert!(told[0].contains("this run has lost its folder "), "{stderr}");
    assert!(told[0].contains("nothing more is written"), "{stderr}");
    assert_eq!(running.status().state, RunState::Running, "that is the other one's to say");
    assert_eq!(std::fs::read_to_string(&lock).unwrap(), other);
    assert!(!run_dir.join("failures").exists());
}

#[test]
fn a_killed_worker_ends_the_run_with_3_and_is_named() {
    let mut running = Running::launched(3);
    let victim = running.worker(1);
    send(victim, Signal::KILL);
    let (code, stderr) = running.end();
    assert_eq!(code, Some(3), "{stderr}");
    let told = errors(&stderr);
    assert_eq!(told.len(), 1, "{stderr}");
    assert!(told[0].starts_with("error: worker lost: rank 1 on host "), "{stderr}");
    assert!(told[0].contains(&format!("pid {victim}")), "{stderr}");
    let status = running.status();
    assert_eq!((status.state, status.exit_code), (RunState::Failed, Some(ExitCode::WorkerLost)));
    assert!(status.message.contains("rank 1"), "{status:?}");
}

#[test]
fn a_killed_mpirun_ends_the_run_with_3() {
    let mut running = Running::launched(2);
    send(parent_of(running.worker(0)), Signal::KILL);
    let (code, stderr) = running.end();
    assert_eq!(code, Some(3), "{stderr}");
    assert!(errors(&stderr)[0].contains("mpirun was killed by signal 9"), "{stderr}");
}

#[test]
fn a_killed_launcher_leaves_no_process_and_a_status_that_can_be_read() {
    let mut running = Running::launched(2);
    assert!(processes_of(&running.run_dir()).len() >= 4, "launcher, mpirun, two workers");
    send(running.pid(), Signal::KILL);
    running.child.wait().unwrap();
    running.assert_gone();
    // Nobody was left to write the end down; that the run is over shows in its processes.
    assert_eq!(running.status().state, RunState::Running);
}

#[test]
fn a_killed_bare_mpirun_leaves_no_worker() {
    let mut running = Running::bare(&[]);
    running.worker(1);
    send(running.pid(), Signal::KILL);
    running.child.wait().unwrap();
    running.assert_gone();
}

#[test]
fn a_stopped_worker_is_a_hang_and_named() {
    let mut running = Running::start(|run_dir| {
        let mut command = tessera();
        command.args(["launch", "--nproc", "2", "--silence", "3", "--", "train", "--config"]);
        command.args(["configs/smoke.toml", "--run-dir"]).arg(run_dir);
        for setting in ENDLESS {
            command.args(["--set", setting]);
        }
        command
    });
    send(running.worker(1), Signal::STOP);
    let (code, stderr) = running.end();
    assert_eq!(code, Some(4), "{stderr}");
    assert!(errors(&stderr)[0].contains("nothing heard for 3 s from rank 1 on host"), "{stderr}");
    assert!(errors(&stderr)[0].contains("the process is stopped"), "{stderr}");
    assert_eq!(running.status().exit_code, Some(ExitCode::Hang));
}

#[test]
fn a_collective_past_its_deadline_is_named_by_the_rank_that_waits() {
    let mut running = Running::bare(&["comm.timeout_seconds=2"]);
    send(running.worker(1), Signal::STOP);
    let (code, stderr) = running.end();
    assert_eq!(code, Some(4), "{stderr}");
    let said = "rank 0 of 2 waited 2 s in all_reduce number ";
    // The other may say the same once mpirun has woken it up to end it.
    assert!(errors(&stderr)[0].contains(said), "{stderr}");
    let log = std::fs::read_to_string(running.run_dir().join("logs/rank-0.jsonl")).unwrap();
    assert!(log.lines().any(|line| line.contains(said)), "{log}");
    let status = running.status();
    assert_eq!((status.state, status.exit_code), (RunState::Failed, Some(ExitCode::Hang)));
}

#[test]
fn every_signal_to_the_launcher_ends_with_one_checkpoint_and_75() {
    for signal in [Signal::TERM, Signal::INT, Signal::USR1] {
        let mut running = Running::launched(2);
        send(running.pid(), signal);
        running.assert_stopped();
    }
}

#[test]
fn a_signal_to_a_single_worker_stops_all_of_them() {
    for (rank, signal) in [(0, Signal::INT), (1, Signal::TERM)] {
        let mut running = Running::launched(2);
        send(running.worker(rank), signal);
        running.assert_stopped();
    }
}

#[test]
fn sigusr1_to_a_bare_mpirun_ends_with_one_checkpoint_and_75() {
    let mut running = Running::bare(&[]);
    send(running.pid(), Signal::USR1);
    running.assert_stopped();
}

#[test]
fn sigusr1_to_a_single_process_without_mpi_ends_with_one_checkpoint_and_75() {
    let mut running = Running::start(|run_dir| {
        let mut command = tessera();
        command.args(["train", "--config", "configs/smoke.toml", "--run-dir"]).arg(run_dir);
        for setting in ENDLESS {
            command.args(["--set", setting]);
        }
        command
    });
    send(running.pid(), Signal::USR1);
    running.assert_stopped();
}

#[test]
fn a_sample_that_is_damaged_under_the_run_ends_it_with_6_and_names_the_shard() {
    let folder = TempDir::new().unwrap();
    let shards = packed(folder.path());
    flip_bit(&shards.join("train-00001.safetensors"), -1); // the last pixel of sample 3 of it
    let [kind, path, batch] = data_settings(&shards);
    let settings = [&kind, &path, &batch, "data.verify=never"];
    for nproc in [1, 2] {
        let run_dir = folder.path().join(format!("run-{nproc}"));
        let (code, _, stderr) = run(&mut train(nproc, &run_dir, &settings));
        assert_eq!(code, Some(6), "{stderr}");
        let told = errors(&stderr);
        assert_eq!(told.len(), 1, "{stderr}");
        assert!(told[0].contains("sample 3 of shard "), "{stderr}");
        assert!(told[0].contains("train-00001.safetensors"), "{stderr}");
        let verify = format!("run `tessera data verify {}`", shards.display());
        assert!(told[0].contains(&verify), "{stderr}");
        assert!(processes_of(&run_dir).is_empty());
        let status = RunStatus::read(&run_dir).unwrap().unwrap();
        assert_eq!(status.exit_code, Some(ExitCode::DataCorrupt));
    }
}

#[test]
fn a_loss_that_is_not_finite_ends_the_run_with_5_and_names_the_step() {
    let folder = TempDir::new().unwrap();
    let (code, _, stderr) =
        run(&mut train(3, folder.path(), &["optimizer.learning_rate=1e30", "metrics.every=1"]));
    assert_eq!(code, Some(5), "{stderr}");
    let told = errors(&stderr);
    assert_eq!(told.len(), 1, "{stderr}");
    // The first update, by 1e30, comes after the loss of step 1.
    assert!(told[0].contains("loss of step 2 is "), "{stderr}");
    assert!(told[0].contains("lower optimizer.learning_rate"), "{stderr}");
    assert!(checkpoints(folder.path()).is_empty(), "nothing was saved of it");
    let rows = std::fs::read_to_string(folder.path().join("metrics.jsonl")).unwrap();
    let rows: Vec<Value> = rows.lines().map(|row| serde_json::from_str(row).unwrap()).collect();
    assert_eq!(rows.len(), 1, "only the row of step 1: {rows:?}");
}
