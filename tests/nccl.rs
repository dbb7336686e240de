//! The NCCL path of the whole program, with nccl-rs' stand-in for NCCL on the host's memory. What
//! NCCL and a GPU add can be seen on one alone: `launch/gpu-check.sh`.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::support::{errors, processes_of, rows, run, tensors, train};

#[path = "../crates/nccl-rs/tests/stand_in/compile.rs"]
mod stand_in;
use stand_in::compile;

/// A run of the smoke configuration over NCCL on the host.
fn over_nccl(nproc: usize, run_dir: &Path, library: &Path, settings: &[&str]) -> Command {
    let settings: Vec<&str> =
        ["comm.backend=nccl", "train.device=cpu"].iter().chain(settings).copied().collect();
    let mut command = train(nproc, run_dir, &settings);
    command.env("TESSERA_NCCL_ON_HOST", "1").env("NCCL_RS_LIBRARY", library);
    command
}

/// Two addends have one sum, so nothing may differ.
#[test]
fn over_nccl_a_run_is_the_same_as_over_mpi() {
    let folder = TempDir::new().unwrap();
    let library = compile(folder.path(), &[]);
    // The second sums the distribution over codes in the middle of the step.
    for entropy in ["0.0", "0.1"] {
        let [nccl, mpi] = ["nccl", "mpi"].map(|name| folder.path().join(name).join(entropy));
        let entropy = format!("model.quantizer.entropy={entropy}");
        let settings = ["train.steps=6", "metrics.every=1", "checkpoint.every=0", &entropy];
        let (code, _, stderr) = run(&mut over_nccl(2, &nccl, &library, &settings));
        assert_eq!(code, Some(0), "{stderr}");
        let (code, _, stderr) = run(&mut train(2, &mpi, &settings));
        assert_eq!(code, Some(0), "{stderr}");
        assert_eq!(rows(&nccl, "metrics.jsonl"), rows(&mpi, "metrics.jsonl"));
        assert_eq!(tensors(&nccl, 6), tensors(&mpi, 6));
    }
}

#[test]
fn without_nccl_the_run_is_refused_and_what_was_tried_is_said() {
    let folder = TempDir::new().unwrap();
    let run_dir = folder.path().join("run");
    let nowhere = folder.path().join("libnccl.so.2");
    let (code, _, stderr) = run(&mut over_nccl(2, &run_dir, &nowhere, &[]));
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("NCCL was not found; tried"), "{stderr}");
    assert!(stderr.contains(nowhere.to_str().unwrap()), "{stderr}");
}

#[test]
fn nccl_between_processors_is_refused_with_what_to_set() {
    let folder = TempDir::new().unwrap();
    let settings = ["comm.backend=nccl", "train.device=cpu"];
    let (code, _, stderr) = run(&mut train(2, &folder.path().join("run"), &settings));
    assert_eq!(code, Some(2), "{stderr}");
    let told = errors(&stderr);
    assert!(told.iter().any(|line| line.contains("set comm.backend = \"mpi\"")), "{stderr}");
}

#[test]
fn a_gpu_that_is_not_there_is_refused_with_what_to_do() {
    let folder = TempDir::new().unwrap();
    let mut command = train(1, &folder.path().join("run"), &["train.device=cuda"]);
    let (code, _, stderr) = run(command.env("CUDA_VISIBLE_DEVICES", ""));
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("libtorch sees no GPU"), "{stderr}");
}

/// After 40 operations rank 1's communicator fails; rank 0 is told by NCCL, or by its deadline.
#[test]
fn a_communicator_that_fails_ends_the_run_in_time_with_its_words() {
    let folder = TempDir::new().unwrap();
    let run_dir = folder.path().join("run");
    let library = compile(folder.path(), &["DIE_AFTER=40", "FAULTY_RANK=1"]);
    let settings = ["train.steps=1000000", "checkpoint.every=0", "comm.timeout_seconds=15"];
    let (code, _, stderr) = run(&mut over_nccl(2, &run_dir, &library, &settings));
    assert_eq!(code, Some(3), "{stderr}");
    assert!(stderr.contains("remote process exited or there was a network error"), "{stderr}");
    assert_eq!(processes_of(&run_dir), [""; 0]);
}

#[test]
fn a_call_that_never_returns_ends_the_run_with_4_and_its_name() {
    let folder = TempDir::new().unwrap();
    let run_dir = folder.path().join("run");
    let library = compile(folder.path(), &["HANG=\"ncclGroupEnd\"", "FAULTY_RANK=1"]);
    let settings = ["train.steps=1000000", "checkpoint.every=0", "comm.timeout_seconds=15"];
    let (code, _, stderr) = run(&mut over_nccl(2, &run_dir, &library, &settings));
    assert_eq!(code, Some(4), "{stderr}");
    // Rank 1 is lost in the call, and rank 0 waits for it: whoever is first tells.
    assert!(stderr.contains("ncclGroupEnd"), "{stderr}");
    assert_eq!(processes_of(&run_dir), [""; 0]);
}
