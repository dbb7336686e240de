//! The fault matrix: faults of `tessera chaos`, once, on a short run. Each has its culprit named and its
//! exit code, and ends, resumed or started again, bit for bit like the undisturbed run. Here is one fault
//! of each way to end; `./launch/test.sh --full` tries all of them three times.

use tempfile::TempDir;

use crate::support::{run, tessera};

/// Runs the faults of these names.
fn chaos(faults: &[&str]) {
    let folder = TempDir::new().unwrap();
    let mut command = tessera();
    command.args(["chaos", "--config", "configs/smoke.toml", "--seed", "3", "--kills", "3"]);
    for setting in ["train.steps=30", "checkpoint.every=10", "eval.every=15"] {
        command.args(["--set", setting]);
    }
    command.args(["--faults", &faults.join(",")]).arg("--out").arg(folder.path());
    let (code, stdout, stderr) = run(&mut command);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    println!("{stdout}");
    let passed = stdout.lines().filter(|line| line.contains("| ok |")).count();
    assert_eq!(passed, faults.len(), "{stdout}");
}

#[test]
fn workers_that_die_or_stop() {
    chaos(&["kill-reduce", "stop"]);
}

#[test]
fn numbers_that_are_none() {
    chaos(&["nan"]);
}

#[test]
fn saves_and_signals() {
    chaos(&["save-kill", "bit-flip", "signal-usr1", "launcher-kill"]);
}

#[test]
fn storage_that_stands_still() {
    chaos(&["storage-stalls", "storage-deaf"]);
}

#[test]
fn one_run_killed_again_and_again() {
    chaos(&["many-kills"]);
}

#[test]
fn one_run_that_others_want() {
    chaos(&["many-rivals"]);
}
