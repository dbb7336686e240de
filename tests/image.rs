//! The image for CPUs: built as docker/Dockerfile.cpu says, and trained in, alone and on two hosts
//! (`launch/test-image.sh`), in `./launch/test.sh --full`. Always: what the files of `docker/` name is there.

use std::collections::BTreeSet;

use crate::support::root;

/// Every file that a `COPY` takes from the repository exists, and every stage that is copied from.
#[test]
fn the_files_that_the_images_are_made_of_are_there() {
    for name in ["Dockerfile", "Dockerfile.cpu"] {
        let text = std::fs::read_to_string(root().join("docker").join(name)).unwrap();
        let mut stages = BTreeSet::new();
        let mut copied = 0;
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                ["FROM", _, "AS", stage] => drop(stages.insert(stage)),
                ["COPY", ref rest @ ..] => {
                    let stage = rest.iter().find_map(|word| word.strip_prefix("--from="));
                    if let Some(stage) = stage {
                        assert!(stages.contains(stage), "{name}: no stage {stage}");
                        continue;
                    }
                    let files: Vec<&&str> =
                        rest.iter().filter(|word| !word.starts_with("--")).collect();
                    for file in &files[..files.len() - 1] {
                        // Made before a build that takes it (launch/test-image.sh).
                        let made = **file == "docker/prebuilt";
                        assert!(made || root().join(file).exists(), "{name} copies {file}");
                        copied += 1;
                    }
                }
                _ => {}
            }
        }
        assert!(copied >= 4, "{name}: {copied}");
    }
}

/// The hosts of the compose file are those that the launcher is told to use, and its files exist.
#[test]
fn the_hosts_of_the_compose_file_are_those_of_its_command() {
    let text = std::fs::read_to_string(root().join("docker/compose.yaml")).unwrap();
    let command = text.lines().find(|line| line.contains("launch --hosts")).unwrap();
    let hosts = command.split("--hosts ").nth(1).unwrap().split(' ').next().unwrap();
    for host in hosts.split(',') {
        let host = host.split(':').next().unwrap();
        assert!(text.contains(&format!("hostname: {host}\n")), "{host}");
    }
    let file = text.lines().find_map(|line| line.trim().strip_prefix("dockerfile: ")).unwrap();
    assert!(root().join(file).is_file(), "{file}");
    let config = command.split("TESSERA_CONFIG:-").nth(1).unwrap().split('}').next().unwrap();
    assert!(root().join(config).is_file(), "{config}");
}

mod full {
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
        let first =
            std::fs::read_dir(runs.join("hosts/tensorboard")).unwrap().next().unwrap().unwrap();
        assert_eq!(first.path().extension().unwrap(), "host1");
    }
}
