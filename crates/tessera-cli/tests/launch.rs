//! The launcher under the real mpirun, with workers that only speak its protocol.
//!
//! What is promised: the run's own exit code, the culprit by name, and no process left behind,
//! whoever of worker, mpirun and launcher is killed.

#![allow(clippy::unwrap_used)] // clippy takes helpers outside a test function for no test

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use tempfile::TempDir;
use tessera_control::{ExitCode, RunState, RunStatus};

fn fake_worker() -> String {
    std::env::var("CARGO_MANIFEST_DIR").unwrap() + "/tests/fake_worker.sh"
}
/// Far above what anything here takes, so that a slow machine fails nothing.
const PATIENCE: Duration = Duration::from_secs(40);

/// A launch whose workers do what `mode` says in fake_worker.sh.
struct Launch {
    run_dir: TempDir,
    launcher: Child,
}

impl Launch {
    fn start(mode: &str, options: &[&str], worker_args: &[&str]) -> Self {
        Self::start_in(&[], mode, options, worker_args)
    }

    /// The same with more variables.
    fn start_in(
        variables: &[(&str, &str)],
        mode: &str,
        options: &[&str],
        worker_args: &[&str],
    ) -> Self {
        Self::in_folder(variables, mode, options, worker_args, |run_dir| {
            ["stdout", "stderr"].map(|name| fs::File::create(run_dir.join(name)).unwrap().into())
        })
    }

    /// The same with these for stdout and stderr.
    fn start_with(
        mode: &str,
        options: &[&str],
        worker_args: &[&str],
        stdout: Stdio,
        stderr: Stdio,
    ) -> Self {
        Self::in_folder(&[], mode, options, worker_args, |_| [stdout, stderr])
    }

    fn in_folder(
        variables: &[(&str, &str)],
        mode: &str,
        options: &[&str],
        worker_args: &[&str],
        streams: impl FnOnce(&Path) -> [Stdio; 2],
    ) -> Self {
        let run_dir = TempDir::new().unwrap();
        let [stdout, stderr] = streams(run_dir.path());
        // Under nohup a SIGHUP is ignored, which the launcher would leave so; `env` becomes it.
        let launcher = Command::new("env")
            .args(["--default-signal=HUP", env!("CARGO_BIN_EXE_tessera"), "launch"])
            .args(options)
            .arg("--")
            .args(worker_args)
            .env("TESSERA_WORKER", fake_worker())
            .env("FAKE_RUN", run_dir.path())
            .env("FAKE_MODE", mode)
            .env_remove("RUST_LOG")
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .unwrap();
        Self { run_dir, launcher }
    }

    /// A training run of three workers.
    fn train(mode: &str) -> Self {
        Self::start(mode, &["--nproc", "3", "--silence", "3"], &["train", "--set", "a=b c"])
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.run_dir.path().join(name)).unwrap_or_default()
    }

    /// Process id of a worker that has said hello.
    fn worker(&self, rank: usize) -> i32 {
        let name = format!("pid.{rank}");
        wait_until("a worker starts", || !self.read(&name).is_empty());
        self.read(&name).trim().parse().unwrap()
    }

    fn all_workers(&self) -> [i32; 3] {
        [0, 1, 2].map(|rank| self.worker(rank))
    }

    fn signal(&self, signal: Signal) {
        send(i32::try_from(self.launcher.id()).unwrap(), signal);
    }

    /// Waits for the end; answers code, stdout and stderr, and checks that nobody is left.
    fn end(&mut self) -> (Option<i32>, String, String) {
        let mut status = None;
        let launcher = &mut self.launcher;
        wait_until("the launcher ends", || {
            status = launcher.try_wait().unwrap();
            status.is_some()
        });
        let left = processes_of(self.run_dir.path());
        assert!(left.is_empty(), "left behind: {left:?}");
        (status.unwrap().code(), self.read("stdout"), self.read("stderr"))
    }
}

impl Drop for Launch {
    fn drop(&mut self) {
        let _ = self.launcher.kill();
        let _ = self.launcher.wait();
    }
}

fn wait_until(what: &str, mut happened: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !happened() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn send(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// Everything that was started with this run folder in its environment: mpirun and the workers.
fn processes_of(run_dir: &Path) -> Vec<String> {
    let mark = format!("FAKE_RUN={}", run_dir.display());
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        if environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes()) {
            let words = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
            found.push(format!("{:?} {}", entry.file_name(), words.replace('\0', " ")));
        }
    }
    found
}

fn parent_of(pid: i32) -> i32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields = stat.rsplit_once(')').unwrap().1;
    fields.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_run_that_ends_well_gives_0_and_says_where_its_folder_is() {
    let mut launch = Launch::train("end");
    let (code, stdout, stderr) = launch.end();
    assert_eq!(code, Some(0), "{stderr}");
    let folder = launch.run_dir.path().display();
    assert_eq!(stdout, format!("done after 30 steps; run folder {folder}\n"));
    assert!(stderr.contains("resumed from nothing\n"), "{stderr}");
    assert!(stderr.contains("step 20/30 loss 0.50000 perplexity 9.5 100 samples/s"), "{stderr}");
    assert!(stderr.contains("a line of rank 2"), "{stderr}");

    assert_eq!(launch.read("resolve.args"), "resolve --nproc 3 --set a=b c\n");
    let resolved =
        format!(r#"{{"run_dir":"{folder}","steps":30,"config":{{"note":"it's; a \"test\""}}}}"#);
    for rank in 0..3 {
        assert_eq!(launch.read(&format!("args.{rank}")), "train --set a=b c\n");
        assert_eq!(launch.read(&format!("resolved.{rank}")).trim_end(), resolved);
    }
}

#[test]
fn a_command_at_the_end_knows_how_it_ended_and_changes_nothing() {
    for (mode, expected) in [("end", 0), ("numeric", 5)] {
        let command = "echo ended with $TESSERA_EXIT_CODE >&2; exit 3";
        let options = ["--nproc", "2", "--on-end", command];
        let (code, _, stderr) = Launch::start(mode, &options, &["train", "--set", "a=b c"]).end();
        assert_eq!(code, Some(expected), "{stderr}");
        assert!(stderr.contains(&format!("ended with {expected}\n")), "{stderr}");
        let said = "warning: the command of --on-end ended with exit status: 3";
        assert!(stderr.contains(said), "{stderr}");
    }
    let mut bell = Launch::start("end", &["--nproc", "2", "--on-end", "bell"], &["train"]);
    let (code, stdout, stderr) = bell.end();
    assert_eq!(code, Some(0), "{stderr}");
    assert!(!(stdout + &stderr).contains('\x07'), "no terminal");
}

#[test]
fn the_launcher_may_open_more_files_than_its_children() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(512), ..limit }).unwrap();
    let mut launch = Launch::train("wait");
    launch.all_workers();
    let limits = fs::read_to_string(format!("/proc/{}/limits", launch.launcher.id())).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let words: Vec<&str> = files.split_whitespace().collect();
    assert_eq!(words[3], words[4], "the soft limit is the hard one");
    assert_eq!(launch.read("files.0"), "512\n");
    launch.signal(Signal::TERM);
    assert_eq!(launch.end().0, Some(75));
}

#[test]
fn the_result_of_an_evaluation_is_all_that_stdout_gets() {
    let mut launch = Launch::start("end", &["--nproc", "2"], &["eval", "--json"]);
    let (code, stdout, stderr) = launch.end();
    assert_eq!((code, stdout.as_str()), (Some(0), "{\"mse\":0.25}\n"), "{stderr}");
    assert_eq!(launch.read("resolve.args"), "", "nothing is resolved for an evaluation");
}

#[test]
fn a_pbs_job_says_how_many_workers_there_are() {
    let folder = TempDir::new().unwrap();
    let nodefile = folder.path().join("17.server");
    fs::write(&nodefile, "localhost\nlocalhost\nlocalhost\n").unwrap();
    let job = [("PBS_JOBID", "17.server"), ("PBS_NODEFILE", nodefile.to_str().unwrap())];
    let mut launch = Launch::start_in(&job, "end", &[], &["train"]);
    let (code, _, stderr) = launch.end();
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("PBS job 17.server: 3 workers on 1 hosts"), "{stderr}");
    assert_eq!(launch.read("args.2"), "train\n");
    assert_eq!(launch.read("args.3"), "", "as many as the file has lines");
}

#[test]
fn mpirun_gets_the_arguments_that_it_is_to_get() {
    let arguments = "--mca btl self,tcp -x 'MORE=a b'";
    let options = ["--nproc", "2", "--verbose", "--mpirun-args", arguments];
    let mut launch = Launch::start("end", &options, &["eval"]);
    let (code, _, stderr) = launch.end();
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains(r#""--mca", "btl", "self,tcp", "-x", "MORE=a b""#), "{stderr}");
}

#[test]
fn every_signal_to_stop_becomes_one_checkpoint_and_75() {
    for signal in [Signal::TERM, Signal::INT, Signal::USR1, Signal::HUP] {
        let mut launch = Launch::train("wait");
        launch.all_workers();
        launch.signal(signal);
        let (code, stdout, stderr) = launch.end();
        assert_eq!(code, Some(75), "{signal:?}: {stderr}");
        assert!(stdout.starts_with("stopped at step 20; run folder"), "{stdout}");
    }
}

/// What a batch system does at the end of a job's time: everybody gets SIGTERM at once.
#[test]
fn a_sigterm_to_mpirun_as_well_does_not_keep_the_workers_from_saving() {
    let mut launch = Launch::train("slow");
    let workers = launch.all_workers();
    send(parent_of(workers[0]), Signal::TERM);
    launch.signal(Signal::TERM);
    let (code, _, stderr) = launch.end();
    assert_eq!(code, Some(75), "{stderr}");
}

#[test]
fn a_stop_waits_for_workers_that_are_not_ready() {
    let mut launch = Launch::train("late");
    wait_until("all have started", || {
        (0..3).all(|rank| !launch.read(&format!("early.{rank}")).is_empty())
    });
    launch.signal(Signal::USR1);
    wait_until("the launcher has noticed", || launch.read("stderr").contains("SIGUSR1: "));
    fs::write(launch.run_dir.path().join("go"), "").unwrap();
    let (code, _, stderr) = launch.end();
    assert_eq!(code, Some(75), "{stderr}");
}

#[test]
fn a_third_interrupt_ends_the_run_without_a_checkpoint() {
    let mut launch = Launch::train("stubborn");
    launch.all_workers();
    launch.signal(Signal::INT);
    wait_until("the stop is announced", || launch.read("stderr").contains("SIGINT: "));
    launch.signal(Signal::INT);
    wait_until("the warning is out", || launch.read("stderr").contains("again to end at once"));
    launch.signal(Signal::INT);
    let (code, _, stderr) = launch.end();
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("error: ended at once on request"), "{stderr}");
}

#[test]
fn a_killed_worker_is_named_and_written_into_the_run_folder() {
    let mut launch = Launch::train("wait");
    let victim = launch.all_workers()[1];
    send(victim, Signal::KILL);
    let (code, stdout, stderr) = launch.end();
    assert_eq!((code, stdout.as_str()), (Some(3), ""), "{stderr}");
    let error = stderr.lines().last().unwrap();
    assert!(error.starts_with("error: worker lost: rank 1 on host "), "{stderr}");
    let told = format!("pid {victim}, phase compute, step 20 (signal 9 (Killed)); run folder ");
    assert!(error.contains(&told), "{stderr}");
    assert!(!stderr.contains("-----"), "mpirun's banner is held back: {stderr}");

    let status = RunStatus::read(launch.run_dir.path()).unwrap().unwrap();
    assert_eq!((status.state, status.exit_code), (RunState::Failed, Some(ExitCode::WorkerLost)));
    assert_eq!((status.step, status.world_size), (20, 3));
    assert!(status.message.starts_with("worker lost: rank 1"), "{status:?}");
}

/// Takes the names of the launcher's next temporary files for pipes that nobody reads: whoever opens one to write
/// waits for ever, as for a file server that is away.
fn stall_storage(launch: &Launch) {
    for file in ["status", "workers"] {
        let name = format!(".{file}.json.{}.tmp", launch.launcher.id());
        let pipe = launch.run_dir.path().join(name);
        let made = || Command::new("mkfifo").arg(&pipe).stderr(Stdio::null()).status();
        // The name is taken while the launcher writes a file under it.
        wait_until("the pipe has the file's name", || made().unwrap().success());
    }
}

#[test]
fn storage_that_does_not_answer_keeps_the_launcher_from_nothing() {
    let mut launch = Launch::train("wait");
    let victim = launch.all_workers()[1];
    stall_storage(&launch);
    send(victim, Signal::KILL);
    let (code, _, stderr) = launch.end();
    assert_eq!(code, Some(3), "{stderr}");
    assert!(stderr.contains("error: worker lost: rank 1 on host "), "{stderr}");
    assert!(stderr.contains("has not answered for 5 s: status.json"), "{stderr}");

    let mut launch = Launch::train("stubborn");
    launch.all_workers();
    stall_storage(&launch);
    for words in ["SIGINT: ", "again to end at once", ""] {
        launch.signal(Signal::INT);
        wait_until("the signal is heard", || launch.read("stderr").contains(words));
    }
    let (code, _, stderr) = launch.end();
    assert_eq!(code, Some(1), "{stderr}");
}

/// A pipe that is full: what is written to it waits until somebody reads.
fn full_pipe() -> (std::io::PipeReader, std::io::PipeWriter) {
    use std::io::Write;
    let (reader, mut writer) = std::io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    while writer.write(&[b'\n'; 512]).is_ok() {}
    rustix::io::ioctl_fionbio(&writer, false).unwrap();
    (reader, writer)
}

#[test]
fn a_terminal_that_stands_still_keeps_the_launcher_from_nothing() {
    let (_reader, writer) = full_pipe();
    let mut launch = Launch::start_with(
        "wait",
        &["--nproc", "3"],
        &["train"],
        Stdio::from(writer.try_clone().unwrap()),
        Stdio::from(writer),
    );
    let victim = launch.all_workers()[1];
    send(victim, Signal::KILL);
    let (code, _, _) = launch.end();
    assert_eq!(code, Some(3));
    let status = RunStatus::read(launch.run_dir.path()).unwrap().unwrap();
    assert_eq!((status.state, status.exit_code), (RunState::Failed, Some(ExitCode::WorkerLost)));
}

#[test]
fn a_result_waits_for_whoever_reads_it_late() {
    use std::io::Read;
    let (mut reader, writer) = full_pipe();
    let stderr = Stdio::null();
    let mut launch =
        Launch::start_with("end", &["--nproc", "2"], &["eval", "--json"], writer.into(), stderr);
    wait_until("the workers have left", || {
        launch.run_dir.path().join("left.1").exists()
            && processes_of(launch.run_dir.path()).len() == 1
    });
    assert!(launch.launcher.try_wait().unwrap().is_none(), "the result is not read yet");
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text.trim_start(), "{\"mse\":0.25}\n");
    assert_eq!(launch.end().0, Some(0));
}

#[test]
fn what_a_failing_worker_says_goes_before_what_its_fall_breaks() {
    let mut launch = Launch::train("numeric");
    let (code, _, stderr) = launch.end();
    assert_eq!(code, Some(5), "{stderr}");
    assert!(stderr.contains("error: rank 1: loss is NaN at step 13; run folder"), "{stderr}");
}

#[test]
fn a_killed_mpirun_takes_its_workers_along() {
    let mut launch = Launch::train("wait");
    let workers = launch.all_workers();
    send(parent_of(workers[0]), Signal::KILL);
    let (code, _, stderr) = launch.end();
    assert_eq!(code, Some(3), "{stderr}");
    assert!(stderr.contains("mpirun was killed by signal 9"), "{stderr}");
}

#[test]
fn a_killed_launcher_leaves_nobody_behind() {
    let mut launch = Launch::train("wait");
    launch.all_workers();
    assert!(!processes_of(launch.run_dir.path()).is_empty());
    launch.launcher.kill().unwrap();
    launch.launcher.wait().unwrap();
    wait_until("all are gone", || processes_of(launch.run_dir.path()).is_empty());
}

#[test]
fn a_stopped_worker_is_a_hang_and_said_to_be_stopped() {
    let mut launch = Launch::train("wait");
    let victim = launch.all_workers()[2];
    send(victim, Signal::STOP);
    let (code, _, stderr) = launch.end();
    assert_eq!(code, Some(4), "{stderr}");
    assert!(stderr.contains("error: hang: nothing heard for 3 s from rank 2 on host"), "{stderr}");
    assert!(stderr.contains("the process is stopped"), "{stderr}");
}

#[test]
fn workers_that_never_arrive_are_named() {
    let mut launch = Launch::train("crash");
    let (code, _, stderr) = launch.end();
    assert_eq!(code, Some(3), "{stderr}");
    assert!(stderr.contains("never reached the launcher"), "{stderr}");
    assert!(stderr.contains("cannot load its libraries"), "the worker's own words: {stderr}");
}

#[test]
fn a_refused_configuration_starts_nothing_and_speaks_for_itself() {
    let mut launch = Launch::train("refuse");
    let (code, stdout, stderr) = launch.end();
    assert_eq!((code, stdout.as_str()), (Some(2), ""));
    assert_eq!(stderr, "error: unknown key trian.steps, did you mean train.steps?\n");
    assert_eq!(launch.read("args.0"), "", "no worker was started");
}

/// Runs `tessera launch` with these words and this path, and expects one line and code 2.
fn refused(words: &[&str], path: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_tessera"))
        .arg("launch")
        .args(words)
        .env("PATH", path)
        .env("TESSERA_WORKER", fake_worker())
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    stderr
}

#[test]
fn bad_input_is_one_line_that_says_what_to_do() {
    let path = std::env::var("PATH").unwrap();
    let nproc = refused(&["--nproc", "0", "--", "train"], &path);
    assert!(nproc.contains("--nproc 0") && nproc.contains("give 1 or more"), "{nproc}");
    let mpirun = refused(&["--nproc", "2", "--", "train"], "/nowhere");
    assert!(mpirun.contains("mpirun not found") && mpirun.contains("launch/setup.sh"), "{mpirun}");
    let command = refused(&["--nproc", "2", "--", "bake"], &path);
    assert!(command.contains("-- train ARGS"), "{command}");
    let hosts = refused(&["--hostfile", "/nowhere", "--", "train"], &path);
    assert!(hosts.contains("/nowhere"), "{hosts}");
    let quote = refused(&["--mpirun-args", "-x 'A", "--", "train"], &path);
    assert!(quote.contains("--mpirun-args") && quote.contains("quote"), "{quote}");
    let secret = refused(&["--env", "API_TOKEN=abc", "--", "train"], &path);
    assert!(secret.contains("give its name alone") && !secret.contains("abc"), "{secret}");

    let folder = TempDir::new().unwrap();
    let intel = folder.path().join("mpirun");
    fs::write(&intel, "#!/bin/sh\necho 'Intel(R) MPI Library for Linux* OS, Version 2021.8'\n")
        .unwrap();
    fs::set_permissions(&intel, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let intel = refused(&["--mpirun", intel.to_str().unwrap(), "--", "train"], &path);
    assert!(intel.contains("Intel MPI") && intel.contains("install Open MPI or MPICH"), "{intel}");
}
