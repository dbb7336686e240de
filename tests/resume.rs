//! A run that was stopped or killed and resumed ends like one that was not: the same rows (times
//! aside) and the same tensors, bit for bit; on another number of ranks to 1e-9 in fp64.

use std::path::Path;
use std::process::Child;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    checkpoints, processes_of, rows, run, start, steps_logged, tensors, train, wait_until,
};

const STEPS: u64 = 240;
/// Long enough to be stopped in the middle, with a checkpoint every 23 steps that no interval of
/// the metrics divides.
const LONG: [&str; 4] =
    ["train.steps=240", "checkpoint.every=23", "eval.every=90", "metrics.images_every=0"];

/// Runs to the end, which must come with `code`.
fn train_to(code: i32, nproc: usize, run_dir: &Path, settings: &[&str]) -> String {
    let (found, _, stderr) = run(&mut train(nproc, run_dir, settings));
    assert_eq!(found, Some(code), "{stderr}");
    stderr
}

fn undisturbed(settings: &[&str]) -> TempDir {
    let folder = TempDir::new().unwrap();
    train_to(0, 2, folder.path(), settings);
    folder
}

fn assert_same_run(expected: &Path, found: &Path, last_step: u64) {
    for file in ["metrics.jsonl", "eval.jsonl"] {
        let (expected, found) = (rows(expected, file), rows(found, file));
        assert_eq!(expected.len(), found.len(), "{file}");
        for (expected, found) in expected.iter().zip(&found) {
            assert_eq!(expected, found, "{file}");
        }
    }
    let (expected, found) = (tensors(expected, last_step), tensors(found, last_step));
    assert!(expected.keys().eq(found.keys()));
    for (name, value) in &expected {
        assert!(*value == found[name], "{name} differs");
    }
}

/// One of the 45 steps from here, that no one chose.
fn any_step(from: u64) -> u64 {
    let nanoseconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos();
    let step = from + u64::from(nanoseconds) % 45;
    println!("disturbed when step {step} is logged");
    step
}

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

fn code_of(mut child: Child) -> Option<i32> {
    let mut status = None;
    wait_until("the launcher ends", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap().code()
}

#[test]
fn stopped_twice_by_stop_at_and_resumed_is_bitwise_the_undisturbed_run() {
    let settings = ["checkpoint.every=20"];
    let expected = undisturbed(&settings);
    let folder = TempDir::new().unwrap();
    train_to(75, 2, folder.path(), &["checkpoint.every=20", "train.stop_at=17"]);
    let told = train_to(75, 2, folder.path(), &["checkpoint.every=20", "train.stop_at=33"]);
    assert!(told.contains("resuming from step 17"), "{told}");
    train_to(0, 2, folder.path(), &settings);
    assert_same_run(expected.path(), folder.path(), 60);
}

/// One run, disturbed three times.
#[test]
fn stopped_by_signals_and_killed_at_any_moment_and_resumed_is_bitwise_the_undisturbed_run() {
    let expected = undisturbed(&LONG);
    let folder = TempDir::new().unwrap();
    for (sent, from) in [(Signal::USR1, 15), (Signal::TERM, 70), (Signal::KILL, 130)] {
        let mut launcher = start(&mut train(2, folder.path(), &LONG));
        let step = any_step(from);
        wait_until("the step is logged, and a checkpoint there", || {
            let saved = sent != Signal::KILL || !checkpoints(folder.path()).is_empty();
            steps_logged(folder.path()) >= step && saved
        });
        signal(&launcher, sent);
        if sent == Signal::KILL {
            launcher.wait().unwrap();
            wait_until("all processes are gone", || processes_of(folder.path()).is_empty());
        } else {
            assert_eq!(code_of(launcher), Some(75));
        }
    }
    let told = train_to(0, 2, folder.path(), &LONG);
    assert!(told.contains("resuming from step"), "{told}");
    assert_same_run(expected.path(), folder.path(), STEPS);
}

/// Equal up to 1e-9 in every number; what counts ranks is not compared.
pub(crate) fn assert_close(expected: &Value, found: &Value) {
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => {
            assert!(expected.keys().eq(found.keys()));
            for (key, value) in expected {
                if key != "world_size" {
                    assert_close(value, &found[key]);
                }
            }
        }
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            assert!((a - b).abs() < 1e-9, "{a} {b}");
        }
        (a, b) => assert_eq!(a, b),
    }
}

#[test]
fn resumed_on_other_numbers_of_ranks_sees_the_same_samples_and_agrees_to_1e_9_in_fp64() {
    let fp64 = "train.precision=fp64";
    let expected = undisturbed(&[fp64]);
    let folder = TempDir::new().unwrap();
    train_to(75, 3, folder.path(), &[fp64, "train.stop_at=13"]);
    train_to(75, 1, folder.path(), &[fp64, "train.stop_at=41"]);
    train_to(0, 4, folder.path(), &[fp64]);
    let (ours, theirs) =
        (rows(expected.path(), "metrics.jsonl"), rows(folder.path(), "metrics.jsonl"));
    assert_eq!(ours.len(), 12); // 60 steps, a row each 5
    assert_eq!(ours.len(), theirs.len());
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_close(ours, theirs);
    }
}
