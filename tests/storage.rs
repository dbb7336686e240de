//! Storage that fails, and processes that end in the middle of a save: older checkpoints stay, the
//! training goes on or goes on again, and ends as if nothing had been.

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::support::{checkpoints, errors, mounted, rows, run, tensors, tessera, train};

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

/// The operations of the save of step 10: making, writing, syncing, renaming, removing. All of them, or one of so many.
fn killed_at(every: usize) {
    const SHORT: [&str; 3] = ["train.steps=15", "checkpoint.every=5", "metrics.images_every=0"];
    let expected = TempDir::new().unwrap();
    let (code, _, stderr) = run(&mut alone(expected.path(), &SHORT));
    assert_eq!(code, Some(0), "{stderr}");
    let (rows_expected, tensors_expected) =
        (rows(expected.path(), "metrics.jsonl"), tensors(expected.path(), 15));
    let mut killed = 0;
    for nth in (1..).step_by(every) {
        let folder = TempDir::new().unwrap();
        let fault = format!("at=save,step=10,nth={nth},do=kill");
        // The one save of that step: a later one meets no fault.
        let [steps, every, images] = SHORT;
        let mut first = alone(folder.path(), &[steps, every, images, "train.stop_at=10"]);
        let (code, _, stderr) = run(first.env("TESSERA_FAULTS", &fault));
        if code == Some(75) {
            assert_eq!(checkpoints(folder.path()), [5, 10]);
            break;
        }
        assert_eq!(code, None, "ended by a signal: {stderr}");
        killed += 1;
        let left = checkpoints(folder.path());
        assert!(left == [5] || left == [5, 10], "{nth}: {left:?}");
        assert_all_good(folder.path());
        let (code, _, stderr) = run(&mut alone(folder.path(), &SHORT));
        assert_eq!(code, Some(0), "{nth}: {stderr}");
        assert!(rows(folder.path(), "metrics.jsonl") == rows_expected, "{nth}");
        assert!(tensors(folder.path(), 15) == tensors_expected, "{nth}");
        assert_eq!(
            (checkpoints(folder.path()), leftovers(folder.path())),
            (vec![5, 10, 15], vec![])
        );
    }
    println!("killed at {killed} operations");
    // A folder, four files with three operations each, a report removed, syncs, a rename.
    assert!(killed >= 16 / every, "{killed}");
}

#[test]
fn a_worker_killed_at_every_fifth_operation_of_a_save_loses_nothing() {
    killed_at(5);
}

mod full {
    use super::FAILS_ONCE;

    #[test]
    fn any_failure_of_a_disk_costs_one_checkpoint_and_nothing_else() {
        super::fails_once(&FAILS_ONCE);
    }

    #[test]
    fn a_worker_killed_at_any_operation_of_a_save_loses_nothing() {
        super::killed_at(1);
    }
}

/// Ranks, what fails, and what is said of it.
const FAILS_ONCE: [(usize, &str, &str); 4] = [
    (2, "rank=1,at=write,step=40,nth=1,do=enospc", "No space left on device"),
    (1, "at=write,step=40,nth=1,do=short", "only half of it was written"),
    (2, "rank=0,at=rename,step=40,nth=1,do=eio", "Input/output error"),
    (2, "rank=1,at=sync,step=40,nth=1,do=eio", "Input/output error"),
];

#[test]
fn a_disk_that_fails_once_costs_one_checkpoint_and_nothing_else() {
    fails_once(&FAILS_ONCE[..2]);
}

fn fails_once(faults: &[(usize, &str, &str)]) {
    let expected = undisturbed();
    for &(nproc, fault, words) in faults {
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
    assert_eq!(code, Some(1), "a launcher with --max-restarts starts it again: {stderr}");
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

/// Rows and events are refused, and half-written, for three tries; whole runs end alike.
#[test]
fn rows_that_the_disk_refuses_for_a_while_are_all_there_at_the_end() {
    let expected = undisturbed();
    for deed in ["enospc", "short"] {
        let folder = TempDir::new().unwrap();
        let fault = format!("rank=0,at=append,nth=4,times=4,do={deed}");
        let mut command = train(2, folder.path(), &SETTINGS);
        let (code, _, stderr) = run(command.env("TESSERA_FAULTS", fault));
        assert_eq!(code, Some(0), "{deed}: {stderr}");
        for words in ["are kept and tried again", "the storage takes rows again"] {
            assert_eq!(stderr.matches(words).count(), 1, "{deed}: {stderr}");
        }
        let steps = |run_dir: &Path| {
            let rows = rows(run_dir, "metrics.jsonl");
            rows.iter().map(|row| row["step"].as_u64()).collect::<Vec<_>>()
        };
        assert_eq!(steps(folder.path()), steps(expected.path()), "{deed}");
        // A save that is due meanwhile has failed.
        assert!(checkpoints(folder.path()).ends_with(&[60]), "{deed}");
        assert_all_good(folder.path());
    }
}

/// Rows that can never be written: no checkpoint is visible without those before it.
#[test]
fn a_checkpoint_is_not_visible_before_its_rows_are_durable() {
    let folder = TempDir::new().unwrap();
    // One row, in two files, until step 20; the next one comes long after the checkpoint of that step is whole.
    let slow =
        ["metrics.every=20", "eval.every=0", "metrics.images_every=0", "train.global_batch=256"];
    let mut command = alone(folder.path(), &[&slow[..], &["checkpoint.max_failures=2"]].concat());
    let fault = "at=append,nth=3,times=9999,do=enospc";
    let (code, _, stderr) = run(command.env("TESSERA_FAULTS", fault));
    assert_eq!(code, Some(1), "{stderr}");
    assert!(errors(&stderr)[0].contains("metrics.jsonl: No space left on device"), "{stderr}");
    assert_eq!(
        (checkpoints(folder.path()), rows(folder.path(), "metrics.jsonl").len()),
        (vec![20], 1)
    );
    let status = fs::read_to_string(folder.path().join("status.json")).unwrap();
    assert!(status.contains("\"failed\""), "{status}");
    let (code, _, stderr) = run(&mut alone(folder.path(), &slow));
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(rows(folder.path(), "metrics.jsonl").len(), 3);
}

/// Somebody fills the disk that the run writes to, and makes room again.
#[test]
fn a_disk_that_is_full_for_a_while_ends_nothing() {
    let folder = TempDir::new().unwrap();
    let disk = folder.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let settings = [
        "train.steps=200",
        "eval.every=0",
        "checkpoint.every=10",
        "checkpoint.max_failures=100",
        "metrics.images_every=0",
    ];
    let training = train(2, &disk, &settings);
    let script = "disk=$1; shift
        \"$@\" & pid=$!
        until [ -d \"$disk/checkpoints/step-00000020\" ]; do kill -0 $pid || exit 98; sleep 0.02; done
        cat /dev/zero >\"$disk/other\" 2>/dev/null
        until grep -q 'are kept and tried again' \"$disk/../log\"; do kill -0 $pid || break; sleep 0.02; done
        rm \"$disk/other\"
        wait $pid";
    let mut around = Command::new("sh");
    let log = fs::File::create(folder.path().join("log")).unwrap();
    around.args(["-c", script, "sh"]).arg(&disk).arg(training.get_program());
    around.args(training.get_args());
    let mut command = mounted(&disk, "size=900k", &around);
    let status = command.env_remove("RUST_LOG").stderr(log).status().unwrap();
    let stderr = fs::read_to_string(folder.path().join("log")).unwrap();
    if status.code() == Some(99) {
        return println!("skipped: {stderr}");
    }
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert!(stderr.contains("the storage takes rows again"), "{stderr}");
    let left: Vec<&str> = stderr.lines().filter(|line| line.starts_with("left: ")).collect();
    assert!(left.iter().any(|path| path.ends_with("/checkpoints/step-00000200")), "{left:?}");
}

/// A write of thirteen seconds: the save that is due meanwhile is left out after ten.
#[test]
fn a_slow_disk_costs_a_checkpoint_and_does_not_stop_the_run() {
    let folder = TempDir::new().unwrap();
    let fault = "rank=1,at=write,step=20,nth=1,do=slow,ms=22000";
    let (code, _, stderr) = run(train(2, folder.path(), &SETTINGS).env("TESSERA_FAULTS", fault));
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("storage is slow"), "{stderr}");
    assert_eq!(checkpoints(folder.path()), [20, 60], "{stderr}");
    assert_all_good(folder.path());
}
