//! Sweeps: trials are real runs, none is lost, and a sweep that is killed ends with the table of one that
//! was not.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::support::{self, run, start, tessera, wait_until};

/// A network so small that starting it is what takes time.
const TINY: &str = r#"
seed = 3
[data]
kind = "synthetic"
[data.synthetic]
height = 8
width = 8
num_train = 96
num_test = 16
[model.backbone]
kind = "conv2d"
channels = 8
residual_layers = 1
residual_channels = 4
[model.quantizer]
kind = "vector"
num_codes = 16
code_dim = 4
[train]
steps = 18
global_batch = 16
[checkpoint]
every = 2
[eval]
every = 6
batch = 16
[metrics]
every = 1
images_every = 0
"#;

struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("tiny.toml"), TINY).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `tessera sweep` of the tiny configuration, into this folder.
    fn sweep(&self, name: &str, more: &[&str]) -> Command {
        let mut command = tessera();
        command.args(["sweep", "--config"]).arg(self.path("tiny.toml"));
        command.arg("--dir").arg(self.path(name)).args(more);
        command
    }

    fn table(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name).join("table.csv")).unwrap()
    }
}

/// The column of this name, of all trials.
fn column(table: &str, name: &str) -> Vec<String> {
    let mut lines = table.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let at = lines.next().unwrap().iter().position(|head| *head == name).unwrap();
    lines.map(|cells| cells[at].to_owned()).collect()
}

fn kill(child: &mut Child, signal: Signal) {
    if child.try_wait().unwrap().is_none() {
        kill_process(Pid::from_child(child), signal).unwrap();
    }
    child.wait().unwrap();
}

/// Whether a process names the folder, or one in it, on its command line.
fn is_at_work(folder: &Path) -> bool {
    let needle = folder.to_str().unwrap();
    std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let words = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&words).contains(needle)
    })
}

/// Rows of all trials of a sweep together: how far it is.
fn rows(folder: &Path) -> usize {
    let trials = std::fs::read_dir(folder.join("trials"));
    let files =
        trials.into_iter().flatten().flatten().map(|entry| entry.path().join("metrics.jsonl"));
    files.map(|file| std::fs::read_to_string(file).map_or(0, |text| text.lines().count())).sum()
}

const RATES: &str = "optimizer.learning_rate=log(1e-4,1e-1,3)";
const CODES: &str = "model.quantizer.num_codes=4,16";

#[test]
fn a_grid_trains_every_point_and_its_best_is_ready_to_train() {
    let place = Place::new();
    let (code, stdout, stderr) = run(&mut place.sweep("grid", &["--set", RATES, "--set", CODES]));
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    let table = place.table("grid");
    let rates = ["0.0001", "0.00316228", "0.1"];
    let points: BTreeSet<(String, String)> = column(&table, "optimizer.learning_rate")
        .into_iter()
        .zip(column(&table, "model.quantizer.num_codes"))
        .collect();
    let expected: BTreeSet<(String, String)> = rates
        .iter()
        .flat_map(|rate| ["4", "16"].map(|codes| ((*rate).to_owned(), codes.to_owned())))
        .collect();
    assert_eq!(points, expected);
    assert!(column(&table, "state").iter().all(|state| state == "done"), "{table}");
    let errors: Vec<f64> = column(&table, "mse").iter().map(|mse| mse.parse().unwrap()).collect();
    assert!(errors.is_sorted(), "the best one first: {errors:?}");
    // A trial is a run like any other: trained alone, its best configuration ends with the same error.
    let best = place.path("grid/best.toml");
    let alone = place.path("alone");
    let mut command = tessera();
    command.args(["launch", "--nproc", "1", "--", "train", "--config"]).arg(&best);
    let (code, _, stderr) = run(command.arg("--run-dir").arg(&alone));
    assert_eq!(code, Some(0), "{stderr}");
    let rows = std::fs::read_to_string(alone.join("eval.jsonl")).unwrap();
    let last: serde_json::Value = serde_json::from_str(rows.lines().next_back().unwrap()).unwrap();
    let away = (last["mse"].as_f64().unwrap() / errors[0] - 1.0).abs();
    // On another number of threads the last digits differ.
    assert!(away < 1e-3, "{last} {errors:?}");

    let (code, stdout, stderr) = run(tessera().args(["sweep", "report"]).arg(place.path("grid")));
    assert_eq!(code, Some(0), "{stderr}");
    for picture in ["parameters.svg", "parallel.svg", "pareto.svg", "curves.svg"] {
        let text = std::fs::read_to_string(place.path("grid/pictures").join(picture)).unwrap();
        assert!(text.starts_with("<svg") && text.trim_end().ends_with("</svg>"), "{picture}");
        assert!(stdout.contains(picture));
    }
    let (code, csv, _) = run(tessera().args(["sweep", "report", "--csv"]).arg(place.path("grid")));
    assert_eq!((code, csv), (Some(0), table));
}

/// Kills the sweep, by SIGKILL and by SIGTERM in turn, so many times, each time a few rows further on.
fn killed(place: &Place, name: &str, more: &[&str], times: usize) {
    let folder = place.path(name);
    let mut resume: Vec<&str> = more.to_vec();
    for time in 0..times {
        let before = rows(&folder);
        let mut child = start(&mut place.sweep(name, &resume));
        if time == 0 {
            resume.push("--resume");
        }
        // Uneven, so that it is hit in different places of a trial.
        let further = 1 + (time * 7) % 11;
        wait_until("the sweep goes on", || {
            rows(&folder) >= before + further || child.try_wait().unwrap().is_some()
        });
        kill(&mut child, if time % 2 == 0 { Signal::KILL } else { Signal::TERM });
    }
    let (code, stdout, stderr) = run(&mut place.sweep(name, &resume));
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    assert!(!is_at_work(&folder), "a process is left");
}

/// Every step of every trial, bit for bit; the first that differs is told, and what any trial has failed with.
fn same_runs(place: &Place, name: &str, whole: &str) {
    for name in [whole, name] {
        let table = place.table(name);
        let logs = std::fs::read_dir(place.path(name).join("logs")).unwrap();
        let logs: String =
            logs.map(|log| std::fs::read_to_string(log.unwrap().path()).unwrap()).collect();
        assert!(!table.contains(",failed,"), "{name}: {table}{logs}");
    }
    let trials = std::fs::read_dir(place.path(whole).join("trials")).unwrap();
    let mut trials: Vec<_> = trials.map(|entry| entry.unwrap().file_name()).collect();
    trials.sort();
    for trial in trials {
        let [ours, theirs] = [name, whole].map(|name| {
            support::rows(&place.path(name).join("trials").join(&trial), "metrics.jsonl")
        });
        assert_eq!(ours.len(), theirs.len(), "rows of trial {trial:?}");
        for (ours, theirs) in ours.iter().zip(&theirs) {
            assert_eq!(ours, theirs, "trial {trial:?}");
        }
    }
}

#[test]
fn killed_three_times_asha_decides_and_ends_as_it_would_have() {
    let place = Place::new();
    let asha = ["--strategy", "asha", "--trials", "6", "--min-steps", "2", "--parallel", "1"];
    let more =
        [&["--set", "optimizer.learning_rate=log(1e-4,1e-1)", "--set", CODES][..], &asha].concat();
    let (code, stdout, stderr) = run(&mut place.sweep("whole", &more));
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    killed(&place, "killed", &more, 3);
    same_runs(&place, "killed", "whole");
    assert_eq!(place.table("killed"), place.table("whole"));
    let decisions = |name: &str| {
        run(tessera().args(["sweep", "report", "--decisions"]).arg(place.path(name))).1
    };
    assert_eq!(decisions("killed"), decisions("whole"));
    // 18 steps, down by three: rungs of 2, 6 and 18; most trials are stopped early.
    let steps = column(&place.table("whole"), "steps");
    let at = |rung: &str| steps.iter().filter(|steps| *steps == rung).count();
    assert_eq!((at("2") + at("6") + at("18"), steps.len()), (6, 6), "{steps:?}");
    // One of three goes on from each rung, so one or two from the first.
    assert!(at("2") >= 3 && at("6") + at("18") >= 1, "{steps:?}");
}

#[test]
fn stopped_while_its_trials_start_a_sweep_loses_none_and_calls_none_failed() {
    let place = Place::new();
    let mut more = vec!["--set", RATES, "--set", "train.steps=2", "--parallel", "2"];
    let trials = place.path("stopped").join("trials");
    let any_has = |name: &str| {
        let folders = std::fs::read_dir(&trials).into_iter().flatten().flatten();
        folders.map(|entry| entry.path().join(name)).any(|path| path.exists())
    };
    // A launcher; a worker that may write; one that has met the others; one that has made a step.
    for file in [".", "config.toml", "logs", "metrics.jsonl"] {
        let mut child = start(&mut place.sweep("stopped", &more));
        if !more.contains(&"--resume") {
            more.push("--resume");
        }
        wait_until("a trial is so far", || {
            (is_at_work(&trials) && any_has(file)) || child.try_wait().unwrap().is_some()
        });
        kill(&mut child, Signal::TERM);
        assert!(!is_at_work(&trials), "a process is left");
    }
    let (code, stdout, stderr) = run(&mut place.sweep("stopped", &more));
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    let table = place.table("stopped");
    assert_eq!(column(&table, "state"), ["done"; 3], "{table}");
}

/// A sweep of this many trials, eight at a time.
fn do_not_meet(num: usize) {
    let place = Place::new();
    let trials = num.to_string();
    let rates = "optimizer.learning_rate=log(1e-4,1e-1)";
    let more = ["--set", rates, "--set", "train.steps=2", "--strategy", "sobol", "--trials"];
    let more = [&more[..], &[&trials, "--parallel", "8"]].concat();
    let (code, stdout, stderr) = run(&mut place.sweep("many", &more));
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    let table = place.table("many");
    let trials: BTreeSet<usize> =
        column(&table, "trial").iter().map(|trial| trial.parse().unwrap()).collect();
    assert_eq!(trials, (0..num).collect());
    assert!(column(&table, "state").iter().all(|state| state == "done"), "{table}");
    let rates: BTreeSet<String> = column(&table, "optimizer.learning_rate").into_iter().collect();
    assert_eq!(rates.len(), num);
    assert!(!is_at_work(&place.path("many")), "a process is left");
}

#[test]
fn twelve_trials_eight_at_a_time_do_not_meet_and_none_is_lost() {
    do_not_meet(12);
}

mod full {
    use super::*;

    #[test]
    fn killed_with_two_trials_at_a_time_a_grid_ends_with_the_same_table() {
        let place = Place::new();
        let more = ["--set", RATES, "--set", CODES, "--parallel", "2"];
        let (code, stdout, stderr) = run(&mut place.sweep("whole", &more));
        assert_eq!(code, Some(0), "{stdout}{stderr}");
        killed(&place, "killed", &more, 3);
        same_runs(&place, "killed", "whole");
        assert_eq!(place.table("killed"), place.table("whole"));
    }

    #[test]
    fn fifty_trials_eight_at_a_time_do_not_meet_and_none_is_lost() {
        do_not_meet(50);
    }
}

#[test]
fn a_trial_that_fails_is_kept_with_its_cause_and_the_others_go_on() {
    let place = Place::new();
    // One code is too few, and the first trial is good: the configuration is refused when its turn comes.
    let more = ["--set", "model.quantizer.num_codes=4,1,8"];
    let (code, stdout, stderr) = run(&mut place.sweep("failing", &more));
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    let table = place.table("failing");
    let last = table.lines().next_back().unwrap();
    assert!(
        last.starts_with("1,failed,0,1,") && last.contains("model.quantizer.num_codes"),
        "{table}"
    );
    assert_eq!(column(&table, "state")[..2], ["done", "done"]);
    // More trials or another budget may be asked for; anything else is another sweep.
    let other = ["--set", "model.quantizer.num_codes=4,8", "--resume"];
    let (code, _, stderr) = run(&mut place.sweep("failing", &other));
    assert!(code == Some(2) && stderr.contains("it holds another sweep"), "{stderr}");
    let (code, _, stderr) = run(&mut place.sweep("failing", &more));
    assert!(code == Some(2) && stderr.contains("add --resume"), "{stderr}");
}

#[test]
fn folds_measure_each_sample_once_and_the_metric_is_their_mean() {
    let place = Place::new();
    let file = r#"
base = "tiny.toml"
[[parameters]]
key = "model.quantizer.num_codes"
values = [4, 16]
[trials]
folds = 3
[report]
size = "bits_per_token"
"#;
    std::fs::write(place.path("folds.toml"), file).unwrap();
    let mut command = tessera();
    command.args(["sweep", "--config"]).arg(place.path("folds.toml"));
    let (code, stdout, stderr) = run(command.arg("--dir").arg(place.path("folds")));
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    let mut mean = 0.0;
    for fold in 0..3 {
        let rows = place.path(&format!("folds/trials/0000/fold-{fold}/eval.jsonl"));
        let rows = std::fs::read_to_string(rows).unwrap();
        let last: serde_json::Value =
            serde_json::from_str(rows.lines().next_back().unwrap()).unwrap();
        assert_eq!(last["samples"], 32, "a third of the 96 that there are to train on");
        mean += last["mse"].as_f64().unwrap() / 3.0;
    }
    let table = place.table("folds");
    let row = column(&table, "trial").iter().position(|trial| trial == "0").unwrap();
    let told: f64 = column(&table, "mse")[row].parse().unwrap();
    assert!((told - mean).abs() < 1e-12, "{told} {mean}");
    let best = std::fs::read_to_string(place.path("folds/best.toml")).unwrap();
    assert!(!best.contains("fold"), "{best}");
}

#[test]
fn mistakes_are_told_before_anything_is_started() {
    let place = Place::new();
    for (more, words) in [
        (&["--set", "model.quantizer.num_cods=4,8"][..], "num_cods"),
        (&["--set", "model.quantizer.num_codes=1,8"], "model.quantizer.num_codes"),
        (&["--set", "train.seed=1,2"], "train.seed"),
        (&["--set", "seed=1"], "nothing is varied"),
        (&["--set", "seed=1,2", "--strategy", "asha", "--trials", "4"], "search.min_steps"),
        (&["--set", "seed=1,2", "--strategy", "random"], "search.trials"),
        (&["--set", "seed=1,2", "--parallel", "0"], "--parallel 0"),
    ] {
        let (code, stdout, stderr) = run(&mut place.sweep("bad", more));
        assert_eq!(code, Some(2), "{more:?}: {stdout}{stderr}");
        assert!(stderr.contains(words), "{words}: {stderr}");
        assert!(!place.path("bad/trials").exists());
    }
    let (code, _, stderr) =
        run(&mut place.sweep("bad", &["--set", "seed=1,2", "--minimize", "error"]));
    assert_eq!(code, Some(2), "{stderr}");
    assert!(
        stderr.contains("no figure \"error\": there are") && stderr.contains("mse"),
        "{stderr}"
    );
    assert!(!place.path("bad/trials").exists(), "refused before the first trial");
    let (code, _, stderr) = run(tessera().args(["sweep", "report"]).arg(place.path(".")));
    assert!(code == Some(2) && stderr.contains("holds no sweep"), "{stderr}");
}
