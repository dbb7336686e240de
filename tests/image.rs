//! The image for CPUs: built as docker/Dockerfile.cpu says, and trained in, alone and on two hosts
//! (`launch/test-image.sh`).

use std::path::Path;
use std::process::Command;

use rustix::process::geteuid;
use tempfile::TempDir;

use crate::resume::assert_close;
use crate::support::{root, rows, run, steps_logged, tessera};

/// What the image cannot be built without, where it is missing.
fn missing() -> Option<String> {
    let answers = |program: &str, word: &str| {
        Command::new(program).arg(word).output().is_ok_and(|output| output.status.success())
    };
    if answers("docker", "info") {
        return None;
    }
    if !geteuid().is_root() {
        return Some("no Docker engine, and without one it needs root".into());
    }
    let programs = [("buildah", "--version"), ("debootstrap", "--version"), ("ip", "-V")];
    let program = programs.into_iter().find(|(program, word)| !answers(program, word))?.0;
    Some(format!(
        "no Docker engine, and {program} is missing (apt-get install buildah debootstrap)"
    ))
}

#[test]
fn the_image_for_cpus_trains_alone_and_on_two_hosts() {
    if let Some(missing) = missing() {
        println!("skipped: {missing}");
        return;
    }
    let folder = TempDir::new().unwrap();
    let mut command = Command::new(root().join("launch/test-image.sh"));
    let program = tessera();
    let programs = Path::new(program.get_program()).parent().unwrap();
    command.arg(folder.path()).env("CARGO_TARGET_DIR", programs.parent().unwrap());
    let (code, stdout, stderr) = run(&mut command);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    let runs = folder.path().join("runs");
    for name in ["alone", "hosts"] {
        assert_eq!(steps_logged(&runs.join(name)), 60, "{stderr}");
    }
    // Two workers on one host and one on each of two: the same figures, but for their numbers of threads.
    let [alone, hosts] = ["alone", "hosts"].map(|name| rows(&runs.join(name), "eval.jsonl"));
    assert_eq!((alone.len(), hosts.len()), (2, 2), "{stderr}");
    for (alone, hosts) in alone.iter().zip(&hosts) {
        assert_close(alone, hosts);
    }
    // The first rank was not where the launcher was.
    let first = std::fs::read_dir(runs.join("hosts/tensorboard")).unwrap().next().unwrap().unwrap();
    assert_eq!(first.path().extension().unwrap(), "host1");
}
