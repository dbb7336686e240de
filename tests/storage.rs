//! Storage that fails, and processes that end in the middle of a save: older checkpoints stay, the
//! training goes on or goes on again, and ends as if nothing had been.

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::support::{checkpoints, errors, rows, run, tensors, tessera, train};

const SETTINGS: [&str; 3] = ["checkpoint.every=20", "checkpoint.keep=9", "eval.every=0"];

/// One worker without mpirun.
fn alone(run_dir: &Path, settings: &[&str]) -> Command {
    let mut command = tessera();
    command.args(["train", "--config", "configs/smoke.toml", "--run-dir"]).arg(run_dir);
    for setting in SETTINGS.iter().chain(settings) {
        command.args(["--set", setting]);
    }
    command
}

fn undisturbed() -> TempDir {
    let folder = TempDir::new().unwrap();
    let (code, _, stderr) = run(&mut alone(folder.path(), &[]));
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(checkpoints(folder.path()), [20, 40, 60]);
    folder
}

/// Names in the folder of checkpoints that are not those of checkpoints.
fn leftovers(run_dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(run_dir.join("checkpoints")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| !name.starts_with("step-")).collect()
}

fn assert_all_good(run_dir: &Path) {
    let (code, stdout, stderr) = run(tessera().arg("verify").arg(run_dir));
    assert_eq!(code, Some(0), "{stdout}{stderr}");
}

/// Each operation of the save of step 40: making, writing, syncing, renaming, removing.
#[test]
fn a_worker_killed_at_any_operation_of_a_save_loses_nothing() {
    let expected = undisturbed();
    let (rows_expected, tensors_expected) =
        (rows(expected.path(), "metrics.jsonl"), tensors(expected.path(), 60));
    let mut killed = 0;
    for nth in 1.. {
        let folder = TempDir::new().unwrap();
        let fault = format!("at=save,step=40,nth={nth},do=kill");
        // The one save of that step: a later one meets no fault.
        let mut first = alone(folder.path(), &["train.stop_at=40"]);
        let (code, _, stderr) = run(first.env("TESSERA_FAULTS", &fault));
        if code == Some(75) {
            assert_eq!(checkpoints(folder.path()), [20, 40]);
            break;
        }
        assert_eq!(code, None, "ended by a signal: {stderr}");
        killed += 1;
        let left = checkpoints(folder.path());
        assert!(left == [20] || left == [20, 40], "{nth}: {left:?}");
        assert_all_good(folder.path());
        let (code, _, stderr) = run(&mut alone(folder.path(), &[]));
        assert_eq!(code, Some(0), "{nth}: {stderr}");
        assert!(rows(folder.path(), "metrics.jsonl") == rows_expected, "{nth}");
        assert!(tensors(folder.path(), 60) == tensors_expected, "{nth}");
        assert_eq!(
            (checkpoints(folder.path()), leftovers(folder.path())),
            (vec![20, 40, 60], vec![])
        );
    }
    println!("killed at each of {killed} operations");
    // A folder, four files with three operations each, a report removed, syncs, a rename.
    assert!(killed >= 16, "{killed}");
}

#[test]
fn a_disk_that_fails_once_costs_one_checkpoint_and_nothing_else() {
    let expected = undisturbed();
    for (nproc, fault, words) in [
        (2, "rank=1,at=write,step=40,nth=1,do=enospc", "No space left on device"),
        (2, "rank=0,at=rename,step=40,nth=1,do=eio", "Input/output error"),
        (1, "at=write,step=40,nth=1,do=short", "only half of it was written"),
        (2, "rank=1,at=sync,step=40,nth=1,do=eio", "Input/output error"),
    ] {
        let folder = TempDir::new().unwrap();
        let mut command = train(nproc, folder.path(), &SETTINGS);
        let (code, _, stderr) = run(command.env("TESSERA_FAULTS", fault));
        assert_eq!(code, Some(0), "{fault}: {stderr}");
        let told = "the checkpoint of step 40 could not be saved: ";
        assert!(stderr.contains(told) && stderr.contains(words), "{fault}: {stderr}");
        assert_eq!(checkpoints(folder.path()), [20, 60], "{fault}");
        assert_eq!(leftovers(folder.path()), [""; 0], "{fault}");
        assert_all_good(folder.path());
        if nproc == 1 {
            assert!(tensors(folder.path(), 60) == tensors(expected.path(), 60), "{fault}");
        }
    }
}

#[test]
fn a_disk_that_goes_on_failing_ends_the_run_with_its_name() {
    let folder = TempDir::new().unwrap();
    let settings = ["checkpoint.every=10", "checkpoint.max_failures=3"];
    let mut command = train(2, folder.path(), &settings);
    let fault = "rank=1,at=write,step=20,do=enospc";
    let (code, _, stderr) = run(command.env("TESSERA_FAULTS", fault));
    assert_eq!(code, Some(2), "{stderr}");
    let told = errors(&stderr);
    assert!(told[0].contains("No space left on device") && told[0].contains("rank 1"), "{stderr}");
    assert!(told[0].contains("free some space"), "{stderr}");
    assert_eq!(checkpoints(folder.path()), [10], "the one before is untouched");
    assert_all_good(folder.path());
    // The same command, once there is space, goes on from there.
    let (code, _, stderr) = run(&mut train(2, folder.path(), &settings));
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("resuming from step 10"), "{stderr}");
}

/// A write of thirteen seconds: the save that is due meanwhile is left out after ten.
#[test]
fn a_slow_disk_costs_a_checkpoint_and_does_not_stop_the_run() {
    let folder = TempDir::new().unwrap();
    let fault = "rank=1,at=write,step=20,nth=1,do=slow,ms=13000";
    let (code, _, stderr) = run(train(2, folder.path(), &SETTINGS).env("TESSERA_FAULTS", fault));
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("storage is slow"), "{stderr}");
    assert_eq!(checkpoints(folder.path()), [20, 60], "{stderr}");
    assert_all_good(folder.path());
}
