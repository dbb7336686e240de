//! What a launch says before it trains, and to a script while it trains; what a shell is offered.

use std::fs;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{root, run, tessera};

#[test]
fn a_dry_run_tells_what_a_training_takes_and_leaves_nothing() {
    let folder = TempDir::new().unwrap();
    let run_dir = folder.path().join("runs/dry");
    let launch = |more: &[&str]| {
        let mut command = tessera();
        command.current_dir(root()).args(["launch", "--nproc", "2", "--dry-run"]).args(more);
        command.args(["--", "train", "--config", "@smoke", "--set", "train.steps=1000"]);
        run(command.arg("--run-dir").arg(&run_dir))
    };
    let (code, stdout, stderr) = launch(&["--json"]);
    assert_eq!(code, Some(0), "{stderr}");
    let told: Value = serde_json::from_str(&stdout).unwrap();
    assert!(told["model"].as_str().unwrap().starts_with("10,569 parameters"), "{told}");
    let whole = |name: &str| told[name].as_u64().unwrap();
    assert_eq!((whole("workers"), whole("steps"), whole("global_batch")), (2, 1000, 32));
    // Every 20 steps one, of which three stay; every 30 an evaluation, every 5 a row.
    assert_eq!((whole("checkpoints_written"), whole("checkpoints_kept")), (50, 3));
    assert_eq!((whole("evaluations"), whole("rows")), (33, 200));
    let expected = 3 * whole("checkpoint_bytes") + 200 * whole("row_bytes");
    assert_eq!(whole("files_bytes"), expected);
    let number = |name: &str| told[name].as_f64().unwrap();
    assert!((number("seconds") - number("step_ms")).abs() < 1e-6 * number("step_ms"), "{told}");
    assert!(number("memory_mib") > 10.0, "{told}");
    let (code, stdout, stderr) = launch(&[]);
    assert_eq!(code, Some(0), "{stderr}");
    for word in
        ["model   10,569 parameters", "memory  ", "for 1,000 steps of 32 samples", "files   "]
    {
        assert!(stdout.contains(word), "no {word}: {stdout}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "something is left");
}

#[test]
fn a_script_gets_progress_and_the_end_as_lines_of_json_or_nothing_at_all() {
    let folder = TempDir::new().unwrap();
    let launch = |show: &str, more: &[&str]| {
        let mut command = tessera();
        command.current_dir(root()).args(["launch", show, "--nproc", "1", "--", "train"]);
        command.args(["--config", "@smoke"]).args(more);
        run(command.arg("--run-dir").arg(folder.path().join(show)))
    };
    // On a busy machine there may be words about a worker that is late.
    let is_quiet = |said: &str| !said.contains("step ") && !said.contains("model: ");
    let (code, stdout, stderr) = launch("--json", &[]);
    assert!(code == Some(0) && is_quiet(&stderr), "{stderr}");
    let lines: Vec<Value> =
        stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |event: &str| lines.iter().filter(|line| line["event"] == event).collect::<Vec<_>>();
    let progress = of("progress");
    // Every 5 steps.
    assert_eq!((progress.len(), &progress[11]["step"]), (12, &60.into()));
    assert!(progress[0]["figures"]["loss"].as_f64().unwrap() > 0.0, "{}", progress[0]);
    assert!(of("notice").iter().any(|line| line["text"].as_str().unwrap().contains("psnr")));
    let last = lines.last().unwrap();
    assert_eq!((&last["event"], &last["code"]), (&"end".into(), &0.into()));

    let (code, stdout, stderr) = launch("--quiet", &[]);
    assert_eq!((code, stdout.as_str()), (Some(0), ""));
    assert!(is_quiet(&stderr), "{stderr}");
    let (code, stdout, stderr) = launch("--json", &["--set", "train.steps=0"]);
    assert_eq!((code, stdout.as_str()), (Some(2), ""));
    assert!(stderr.starts_with("error: train.steps should be"), "{stderr}");
}

#[test]
fn a_shell_is_offered_keys_and_values_also_behind_launch() {
    let offered = |words: &[&str]| {
        let mut command = tessera();
        command.env("TESSERA_COMPLETE", "bash").env("_CLAP_IFS", "\n");
        command.env("_CLAP_COMPLETE_INDEX", words.len().to_string());
        let (code, stdout, stderr) = run(command.args(["--", "tessera"]).args(words));
        assert_eq!(code, Some(0), "{stderr}");
        stdout
    };
    assert_eq!(offered(&["train", "--set", "optimizer.le"]), "optimizer.learning_rate=");
    let launched = ["launch", "--nproc", "2", "--", "train", "--set", "eval.weights="];
    assert_eq!(offered(&launched), "eval.weights=average\neval.weights=trained");
    assert_eq!(offered(&["train", "--config", "@smo"]), "@smoke");
    assert_eq!(offered(&["sweep", "--set", "train.st"]), "train.steps=\ntrain.stop_at=");
    assert_eq!(offered(&["launch", "--dry"]), "--dry-run");
    let said = run(tessera().args(["completions", "zsh"]));
    assert!(said.1.starts_with("#compdef tessera\n") && said.1.contains("TESSERA_COMPLETE=zsh"));
}
