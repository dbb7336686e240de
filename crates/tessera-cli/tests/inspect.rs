//! `tessera inspect`, `tessera watch`, `tessera doctor` and `tessera completions` on folders made by hand.

#![allow(clippy::unwrap_used)] // clippy takes helpers outside a test function for no test

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use tempfile::TempDir;
use tessera_control::{ExitCode, RunState, RunStatus};

/// Something that happens to a file.
type Damage = fn(&Path);

fn tessera(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tessera")).args(words).env("RUST_LOG", "off").output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A checkpoint of two files under `run/checkpoints`.
fn write_checkpoint(run: &Path, step: u64) -> PathBuf {
    let folder = run.join(format!("checkpoints/step-{step:08}"));
    fs::create_dir_all(&folder).unwrap();
    let mut files = Vec::new();
    for (name, tensor) in
        [("state-1.safetensors", "encoder.weight"), ("state-2.safetensors", "codes")]
    {
        let data = [0u8; 24];
        let view = TensorView::new(Dtype::F32, vec![2, 3], &data).unwrap();
        let bytes = safetensors::serialize([(tensor, view)], None).unwrap();
        fs::write(folder.join(name), &bytes).unwrap();
        let sha256 = sha256_of(&bytes);
        files.push(serde_json::json!({
            "name": name, "bytes": bytes.len(), "sha256": sha256, "tensors": [tensor]
        }));
    }
    let manifest = serde_json::json!({
        "format": "tessera-checkpoint", "version": 1, "step": step, "samples_seen": step * 256,
        "world_size": 2, "tessera": "0.1.0", "config_hash": "ab12", "config": {"seed": 0},
        "data_fingerprint": "cd34",
        "files": files, "written_by_a_later_version": true
    });
    fs::write(folder.join("manifest.json"), manifest.to_string()).unwrap();
    let hash = sha256_of(manifest.to_string().as_bytes());
    fs::write(folder.join("manifest.sha256"), format!("{hash}  manifest.json\n")).unwrap();
    folder
}

fn sha256_of(bytes: &[u8]) -> String {
    tessera_checkpoint::sha256_hex(bytes)
}

#[test]
fn a_run_folder_stands_for_its_newest_whole_checkpoint() {
    let run = TempDir::new().unwrap();
    write_checkpoint(run.path(), 500);
    let newest = write_checkpoint(run.path(), 1000);
    fs::create_dir(run.path().join("checkpoints/step-00001500")).unwrap(); // never finished

    for path in [run.path().to_owned(), newest.clone(), newest.join("manifest.json")] {
        let output = tessera(&["inspect", path.to_str().unwrap(), "--json"]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["step"], 1000);
        assert_eq!(report["world_size"], 2);
        assert_eq!(report["intact"], true);
        let tensors = report["tensors"].as_array().unwrap();
        assert_eq!(tensors.len(), 2);
        assert_eq!(tensors[0]["name"], "codes");
        assert_eq!(tensors[0]["dtype"], "F32");
        assert_eq!(tensors[0]["shape"], serde_json::json!([2, 3]));
        assert_eq!(tensors[0]["file"], "state-2.safetensors");
    }
    let plain = text(&tessera(&["inspect", newest.to_str().unwrap()]).stdout);
    assert!(plain.contains("step 1000, 256000 samples seen\nwritten by 2 workers"), "{plain}");
    assert!(plain.contains("  encoder.weight  F32  [2, 3]\n"), "{plain}");
}

#[test]
fn one_flipped_bit_one_lost_byte_and_one_lost_file_are_found() {
    let damages: [(&str, Damage); 3] = [
        ("its SHA-256 is not the manifest's", |file| {
            let mut bytes = fs::read(file).unwrap();
            *bytes.last_mut().unwrap() ^= 1;
            fs::write(file, bytes).unwrap();
        }),
        ("bytes where the manifest says", |file| {
            let bytes = fs::read(file).unwrap();
            fs::write(file, &bytes[1..]).unwrap();
        }),
        ("cannot be read", |file| fs::remove_file(file).unwrap()),
    ];
    for (problem, damage) in damages {
        let run = TempDir::new().unwrap();
        let folder = write_checkpoint(run.path(), 1);
        damage(&folder.join("state-2.safetensors"));
        let output = tessera(&["inspect", folder.to_str().unwrap()]);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(6), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(stderr.contains("state-2.safetensors: ") && stderr.contains(problem), "{stderr}");
        assert!(text(&output.stdout).contains("intact"), "the other file is still intact");
    }
}

#[test]
fn what_is_no_checkpoint_is_refused_in_one_line() {
    let folder = TempDir::new().unwrap();
    let dataset = folder.path().join("data");
    fs::create_dir(&dataset).unwrap();
    fs::write(dataset.join("manifest.json"), r#"{"format":"tessera-dataset","version":1}"#)
        .unwrap();
    let later = folder.path().join("later");
    fs::create_dir(&later).unwrap();
    let manifest = r#"{"format":"tessera-checkpoint","version":9}"#;
    fs::write(later.join("manifest.json"), manifest).unwrap();
    let missing = folder.path().join("missing");

    let said = [
        (folder.path(), "is no checkpoint and has none"),
        (missing.as_path(), "does not exist"),
        (dataset.as_path(), "tessera data inspect"),
        (later.as_path(), "format version 9"),
    ];
    for (path, words) in said {
        let output = tessera(&["inspect", path.to_str().unwrap()]);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(words) && stderr.lines().count() == 1, "{stderr}");
    }
}

#[test]
fn watching_a_run_that_has_ended_shows_its_last_row_and_gives_its_code() {
    let run = TempDir::new().unwrap();
    let path = run.path().to_str().unwrap();
    assert_eq!(tessera(&["watch", "--run", path]).status.code(), Some(2));

    let rows = r#"{"step":10,"loss":0.5,"perplexity":8.0,"samples_per_second":99.0,"epoch":0}"#;
    fs::write(run.path().join("metrics.jsonl"), format!("{rows}\n")).unwrap();
    let status = RunStatus {
        state: RunState::Stopped,
        exit_code: Some(ExitCode::Stopped),
        step: 12,
        world_size: 2,
        message: "stopped at step 12".into(),
        process: None,
        attempt: None,
    };
    status.write(run.path()).unwrap();
    let output = tessera(&["watch", "--run", path]);
    assert_eq!(output.status.code(), Some(75));
    let shown = text(&output.stdout);
    assert!(shown.contains("step 10 loss 0.50000 perplexity 8.0 99 samples/s\n"), "{shown}");
    assert!(shown.contains("after step 12: stopped at step 12\n"), "{shown}");
}

#[test]
fn the_doctor_answers_in_json_and_agrees_with_its_code() {
    let output = tessera(&["doctor", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let expected = if report["healthy"] == true { 0 } else { 1 };
    assert_eq!(output.status.code(), Some(expected), "{}", text(&output.stderr));
    let names: Vec<&str> = report["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| finding["name"].as_str().unwrap())
        .collect();
    for name in ["mpirun", "libtorch", "worker", "gpus", "nccl", "/dev/shm"] {
        assert!(names.contains(&name), "{names:?}");
    }
}

/// The worker is named, so that no other one on the path can answer.
#[test]
fn a_missing_worker_is_one_line_with_the_command_that_builds_it() {
    for words in [&["train", "--help"][..], &["eval"], &["launch", "--nproc", "1", "--", "train"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_tessera"))
            .args(words)
            .env("TESSERA_WORKER", "/nowhere/tessera-worker")
            .output()
            .unwrap();
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains("cargo build --release"), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
}

#[test]
fn all_checkpoints_of_a_run_are_verified_and_two_are_compared() {
    let run = TempDir::new().unwrap();
    let first = write_checkpoint(run.path(), 500);
    let second = write_checkpoint(run.path(), 1000);
    let path = |folder: &Path| folder.to_str().unwrap().to_owned();
    let output = tessera(&["verify", &path(run.path())]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let told = text(&output.stdout);
    assert_eq!(told.lines().count(), 2, "{told}");
    assert!(told.contains("good: step 500, 2 tensors"), "{told}");

    let output = tessera(&["diff", &path(&first), &path(&second)]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "0 tensors differ, 2 are bit for bit the same\n");

    // The last value of the tensor "codes" becomes 1.
    let file = first.join("state-2.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    let at = bytes.len() - 4;
    bytes[at..].copy_from_slice(&1f32.to_le_bytes());
    let old = sha256_of(&fs::read(&file).unwrap());
    fs::write(&file, &bytes).unwrap();
    let output = tessera(&["verify", &path(run.path())]);
    assert_eq!(output.status.code(), Some(6));
    assert!(text(&output.stdout).contains("step-00000500  DAMAGED"), "{}", text(&output.stdout));
    assert!(text(&output.stdout).contains("good: step 1000"), "the other is good all the same");
    assert!(
        text(&output.stderr).contains("state-2.safetensors: its SHA-256 is not the manifest's")
    );

    let manifest = fs::read_to_string(first.join("manifest.json")).unwrap();
    let manifest = manifest.replace(&old, &sha256_of(&bytes));
    fs::write(first.join("manifest.json"), &manifest).unwrap();
    let hash = sha256_of(manifest.as_bytes());
    fs::write(first.join("manifest.sha256"), format!("{hash}  manifest.json\n")).unwrap();
    let output = tessera(&["diff", &path(&first), &path(&second)]);
    assert_eq!(output.status.code(), Some(1));
    let told = text(&output.stdout);
    assert!(told.contains("codes  1 of 6 values differ, by at most 1.000e0"), "{told}");
    assert!(told.contains("1 tensors differ, 1 are bit for bit the same"), "{told}");
}

#[test]
fn shells_read_their_script_and_man_knows_every_command() {
    let output = tessera(&["completions", "bash"]);
    let script = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(script.ends_with("-F _tessera tessera\n"), "{script}");
    // A shell reads it.
    let mut bash = std::process::Command::new("bash");
    let read = bash.args(["-n", "-c", &script]).output().unwrap();
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    assert_eq!(tessera(&["completions", "cmd"]).status.code(), Some(2));

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    assert_eq!(tessera(&["man", path]).status.code(), Some(0));
    let page = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    assert!(page("tessera.1").contains("tessera\\-launch(1)"));
    assert!(page("tessera-launch.1").contains("\\-\\-max\\-restarts"));
    assert!(page("tessera-sweep-report.1").contains("\\-\\-decisions"));
    assert!(!folder.path().join("tessera-__in-session.1").exists());
}
