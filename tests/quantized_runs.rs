//! Quantisers of `configs/quantizers/`, small, as processes of mpirun: one of each family here, and all of them in
//! `./launch/test.sh --full`. `quantizers.rs` has all of them as threads.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::experiments::{SMALL, file};
use crate::support::{root, run, tensors, tessera, train_file};

const STEPS: u64 = 24;
/// Where a resumed run was stopped: no multiple of the steps between two replacements.
const STOP: u64 = 17;

/// `tessera launch --nproc N -- train` of a small experiment.
fn train(name: &str, nproc: usize, run_dir: &Path, more: &[&str]) -> Command {
    let steps = format!("train.steps={STEPS}");
    let less =
        ["metrics.images_every=0", "checkpoint.every=0", "train.global_batch=25", steps.as_str()];
    let settings = [&SMALL[..], &less, more].concat();
    train_file(&file(name), nproc, run_dir, &settings)
}

fn train_to(code: i32, name: &str, nproc: usize, run_dir: &Path, more: &[&str]) {
    let (found, _, stderr) = run(&mut train(name, nproc, run_dir, more));
    assert_eq!(found, Some(code), "{name}: {stderr}");
}

/// As two processes: stopped and resumed like never stopped, bit for bit. What it ends with.
fn resumed_in_processes(name: &str) -> BTreeMap<String, (String, Vec<usize>, Vec<u8>)> {
    let [two, resumed] = [(); 2].map(|()| TempDir::new().unwrap());
    train_to(0, name, 2, two.path(), &[]);
    train_to(75, name, 2, resumed.path(), &[&format!("train.stop_at={STOP}")]);
    train_to(0, name, 2, resumed.path(), &[]);
    let [two, resumed] = [&two, &resumed].map(|folder| tensors(folder.path(), STEPS));
    assert!(two.keys().eq(resumed.keys()), "{name}");
    for (tensor, value) in &two {
        assert!(*value == resumed[tensor], "{name}: {tensor} differs after a resume");
    }
    two
}

/// And two processes end like one, to 1e-9.
fn exact_in_processes(name: &str) {
    let one = TempDir::new().unwrap();
    train_to(0, name, 1, one.path(), &[]);
    let one = tensors(one.path(), STEPS);
    let two = resumed_in_processes(name);
    assert!(two.keys().eq(one.keys()), "{name}");
    for (tensor, value) in &two {
        // Counts of steps are whole numbers of another kind.
        if value.0 == "F64" {
            for (ours, theirs) in numbers(&value.2).zip(numbers(&one[tensor].2)) {
                assert!((ours - theirs).abs() < 1e-9, "{name}: {tensor}: {ours} {theirs}");
            }
        } else {
            assert!(*value == one[tensor], "{name}: {tensor} differs");
        }
    }
}

/// More levels have more bits and a smaller error, which dropout in training sees to; a level left
/// out is not counted.
#[test]
fn a_residual_quantizer_is_evaluated_with_the_levels_asked_for() {
    let folder = TempDir::new().unwrap();
    let small = ["train.steps=120", "train.global_batch=101", "optimizer.learning_rate=0.003"];
    train_to(0, "residual", 2, folder.path(), &small);
    let eval = |levels: &str| {
        let mut command = tessera();
        command.args(["eval", "--json", "--levels", levels, "--run"]).arg(folder.path());
        run(&mut command)
    };
    let figures: Vec<Value> = ["1", "2", "4"]
        .map(|levels| {
            let (code, stdout, stderr) = eval(levels);
            assert_eq!(code, Some(0), "{stderr}");
            serde_json::from_str(&stdout).unwrap()
        })
        .into();
    let number = |at: usize, key: &str| figures[at][key].as_f64().unwrap();
    for at in 1..3 {
        assert!(number(at, "bits_per_token") > number(at - 1, "bits_per_token"), "{figures:?}");
        assert!(number(at, "mse") < number(at - 1, "mse"), "{figures:?}");
    }
    assert_eq!(figures[1]["level_codes_used"][2], 0);
    let (code, _, stderr) = eval("5");
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("--levels should be from 1 to 4"), "{stderr}");
}

/// The numbers of a tensor of float64.
fn numbers(bytes: &[u8]) -> impl Iterator<Item = f64> {
    bytes.chunks_exact(8).map(|number| f64::from_le_bytes(number.try_into().unwrap()))
}

#[test]
fn a_quantizer_is_exact_in_processes() {
    exact_in_processes("ema_anchors");
}

/// Those of other families that keep most between two steps.
#[test]
fn two_of_other_families_are_resumed_in_processes() {
    for name in ["gradient_orthogonal", "residual_lfq"] {
        resumed_in_processes(name);
    }
}

mod full {
    use super::*;

    #[test]
    fn all_are_exact_in_processes_and_after_a_resume() {
        let names: Vec<String> = std::fs::read_dir(root().join("configs/quantizers"))
            .unwrap()
            .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
            .collect();
        assert!(names.len() >= 25, "{names:?}");
        for name in names {
            exact_in_processes(&name);
        }
    }
}
