//! The NCCL path of the whole program, with nccl-rs' stand-in for NCCL on the host's memory. What
//! NCCL and a GPU add can be seen on one alone: `launch/gpu-check.sh`.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{errors, processes_of, rows, run, tensors, tessera, train};

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

/// Answers everybody as NCCL's RAS does, until the tests end; where.
fn ras(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let Ok(mut to) = stream.try_clone() else { continue };
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                let (words, is_last) = match line.split(' ').next() {
                    Some("CLIENT") => ("SERVER PROTOCOL 2\n", false),
                    Some("TIMEOUT") => ("OK\n", false),
                    _ => (answer, true),
                };
                if to.write_all(words.as_bytes()).is_err() || is_last {
                    break;
                }
            }
        }
    });
    address
}

/// The heartbeats of the two that wait tell so, and the launcher has heard it.
#[test]
fn over_nccl_the_rank_that_the_others_wait_for_is_named() {
    let folder = TempDir::new().unwrap();
    let run_dir = folder.path().join("run");
    let library = compile(folder.path(), &[]);
    let mut command = tessera();
    command.args(["launch", "--stuck", "5", "--nproc", "3", "--", "train"]);
    command.args(["--config", "configs/smoke.toml", "--run-dir"]).arg(&run_dir);
    for setting in ["comm.backend=nccl", "train.device=cpu", "train.global_batch=6"] {
        command.args(["--set", setting]);
    }
    command.env("TESSERA_NCCL_ON_HOST", "1").env("NCCL_RS_LIBRARY", library);
    command.env("TESSERA_FAULTS", "rank=1,step=5,at=data,do=slow,ms=600000");
    let (code, _, stderr) = run(&mut command);
    assert_eq!(code, Some(4), "{stderr}");
    let told = errors(&stderr);
    let [line] = told[..] else { panic!("{stderr}") };
    assert!(line.starts_with("error: hang: no progress for "), "{line}");
    assert!(line.contains(" s of rank 1 on host "), "{line}");
    assert!(line.contains("phase data, step 5") && !line.contains("; rank"), "{line}");

    let report = std::fs::read_dir(run_dir.join("failures")).unwrap().next().unwrap().unwrap();
    let report = std::fs::read_to_string(report.path()).unwrap();
    let report: Value = serde_json::from_str(&report).unwrap();
    let calls = report["workers"].as_array().unwrap().iter().map(|worker| &worker["call"]);
    let calls: Vec<_> = calls.map(|call| (call["sequence"].as_u64(), &call["waiting"])).collect();
    let [(first, waits), (second, works), (third, waits_too)] = calls[..] else {
        panic!("{report}")
    };
    assert_eq!([waits, works, waits_too], [true, false, true], "{report}");
    assert!(first == third && first > second, "{report}");
    assert_eq!(report["workers"][0]["call"]["op"], "all_reduce");
    assert_eq!(processes_of(&run_dir), [""; 0]);
}

#[test]
fn a_call_that_never_returns_ends_the_run_with_4_and_its_name() {
    let folder = TempDir::new().unwrap();
    let run_dir = folder.path().join("run");
    let library = compile(folder.path(), &["HANG=\"ncclGroupEnd\"", "FAULTY_RANK=1"]);
    let settings = ["train.steps=1000000", "checkpoint.every=0", "comm.timeout_seconds=15"];
    let ras = ras("NCCL version 2.28.9\n\nErrors\n======\n\nWarnings\n========\n\n\
                   #0-0 (27a0) MISMATCH\n  Rank 1 has launched up to operation 41 -- GPU 1\n\n");
    let mut command = over_nccl(2, &run_dir, &library, &settings);
    let (code, _, stderr) = run(command.env("NCCL_RAS_ADDR", ras));
    assert_eq!(code, Some(4), "{stderr}");
    // Rank 1 is lost in the call, and rank 0 waits for it: whoever is first tells.
    assert!(stderr.contains("ncclGroupEnd"), "{stderr}");
    let words = "(NCCL's RAS says: #0-0 (27a0) MISMATCH / Rank 1 has launched up to operation 41";
    assert!(stderr.contains(words), "{stderr}");
    let logs = [0, 1].map(|rank| {
        std::fs::read_to_string(run_dir.join(format!("logs/rank-{rank}.jsonl"))).unwrap()
    });
    assert!(logs.iter().any(|log| log.contains("NCCL version 2.28.9\\n\\nErrors")), "{logs:?}");
    assert_eq!(processes_of(&run_dir), [""; 0]);
}
