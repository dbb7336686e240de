//! A run whose launcher keeps trackers supplied; and the command that does it afterwards.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::support::{rows, run, tessera, train};

#[test]
fn a_run_is_in_its_trackers_when_it_ends_and_is_sent_once() {
    let folder = TempDir::new().unwrap();
    let run_dir = folder.path().join("run");
    let settings = ["train.steps=40", "metrics.track.to=[\"wandb\", \"trackio\"]"];
    let (code, _, stderr) = run(&mut train(1, &run_dir, &settings));
    assert_eq!(code, Some(0), "{stderr}");
    for name in ["wandb", "trackio"] {
        let log = fs::read_to_string(run_dir.join(format!("logs/track-{name}.log"))).unwrap();
        assert!(log.contains("sent; "), "{log}");
    }
    let table = || fs::read_to_string(run_dir.join("track/trackio/run.csv")).unwrap();
    // A head, and a row for each step that has one; evaluations join the row of their step.
    let all = rows(&run_dir, "metrics.jsonl").len();
    assert_eq!(table().lines().count(), 1 + all);
    let offline = || -> Vec<(PathBuf, u64)> {
        let folders = fs::read_dir(run_dir.join("track/wandb")).unwrap();
        let files = folders.flat_map(|folder| fs::read_dir(folder.unwrap().path()).unwrap());
        let paths = files.map(|file| file.unwrap().path());
        let logs = paths.filter(|path| path.extension().is_some_and(|end| end == "wandb"));
        logs.map(|path| (path.clone(), path.metadata().unwrap().len())).collect()
    };
    let before = (table(), offline());
    assert_eq!(before.1.len(), 1, "{before:?}");

    for name in ["wandb", "trackio"] {
        let (code, stdout, stderr) = run(tessera().args(["track", "--to", name]).arg(&run_dir));
        assert_eq!(code, Some(0), "{stdout}{stderr}");
    }
    assert!((table(), offline()) == before, "what was sent is not sent again");
    let mut nowhere = tessera();
    nowhere.args(["track", "--to", "wandb"]).arg(folder.path().join("none"));
    let (code, _, stderr) = run(&mut nowhere);
    assert_eq!(code, Some(2), "{stderr}");
}
