//! Against nccl-rs' stand-in, on the host: the order of calls, and what happens when they fail.

use std::path::{Path, PathBuf};

use super::*;
use crate::{Piece, Reducer, Threads};

const DEADLINE: Duration = Duration::from_secs(20);

include!("../../../nccl-rs/tests/stand_in/compile.rs");

fn stand_in(defines: &[&str]) -> PathBuf {
    compile(&tempfile::tempdir().unwrap().keep(), defines)
}

fn run<T: Send>(
    defines: &[&str],
    timeout: Duration,
    work: impl Fn(Nccl) -> Result<T, CommError> + Sync,
) -> Vec<Result<T, CommError>> {
    let path = stand_in(defines);
    Threads::run(2, DEADLINE, |boot| {
        let library = Library::open(&path);
        work(Nccl::init(&boot, library, &RankDevice::cpu(), timeout, |_| ())?)
    })
}

#[test]
fn every_collective_gives_every_rank_the_same() {
    let answers = run(&[], DEADLINE, |comm| {
        let mine = Tensor::from_slice(&[comm.rank() as f64, 1.0]);
        let sum: Vec<f64> = Vec::try_from(comm.all_reduce(mine.copy())?.wait()?)?;
        let first: Vec<f64> = Vec::try_from(comm.broadcast(mine.copy(), 1)?.wait()?)?;
        let all: Vec<f64> = Vec::try_from(comm.all_gather(&mine)?.flatten(0, -1))?;
        comm.barrier()?;
        Box::new(comm).finish()?;
        Ok((sum, first, all))
    });
    for answer in answers {
        let (sum, first, all) = answer.expect("no rank fails");
        assert_eq!((sum, first), (vec![1.0, 2.0], vec![1.0, 1.0]));
        assert_eq!(all, [0.0, 1.0, 1.0, 1.0]);
    }
}

#[test]
fn parts_sent_early_and_the_rest_are_each_summed_once() {
    let pieces = || {
        let piece = |name, len| Piece { name, len };
        vec![piece("counts", 3), piece("gradients", 40), piece("scalars", 2)]
    };
    let answers = run(&[], DEADLINE, |comm| {
        let mut reducer = Reducer::new(pieces(), Kind::Double, Device::Cpu);
        let whole = [("counts", 1.0), ("gradients", 10.0), ("scalars", 100.0)];
        for (name, value) in whole {
            let _ = reducer.piece(name).fill_(value * (1.0 + comm.rank() as f64));
        }
        let before = comm.num_collectives();
        reducer.send_early(&comm, reducer.span("counts", "counts"))?;
        let gradients = reducer.span("gradients", "gradients");
        reducer.send_early(&comm, gradients.start + 32..gradients.end)?;
        reducer.all_reduce(&comm)?;
        let calls = comm.num_collectives() - before;
        let mut sums = Vec::new();
        for (name, _) in whole {
            sums.push(Vec::<f64>::try_from(reducer.piece(name))?);
        }
        Box::new(comm).finish()?;
        Ok((calls, sums))
    });
    for answer in answers {
        let (calls, sums) = answer.expect("no rank fails");
        assert_eq!(calls, 3); // two early, and one group for all that was left
        assert_eq!(sums, [vec![3.0; 3], vec![30.0; 40], vec![300.0; 2]]);
    }
}

#[test]
fn a_refusal_of_nccl_is_an_error_of_the_rank_with_its_words() {
    let defines = ["REFUSE=\"ncclBroadcast\"", "CODE=3"];
    for answer in run(&defines, DEADLINE, |_| Ok(())) {
        let text = answer.unwrap_err().to_string();
        assert!(text.contains("ncclBroadcast failed with NCCL code 3, internal error"), "{text}");
    }
}

#[test]
fn an_operation_that_never_ends_is_an_error_after_the_deadline() {
    let short = Duration::from_millis(400);
    for answer in run(&["STALL=\"ncclAllReduce\""], short, |_| Ok(())) {
        let error = answer.unwrap_err();
        let late = nccl_rs::Error::Deadline { op: "ncclAllReduce", waited: short };
        assert!(matches!(&error, CommError::Nccl { error, .. } if *error == late), "{error}");
    }
}

/// Rank 1 comes to the sum once rank 0 was seen to wait in it.
#[test]
fn a_rank_tells_which_collective_it_waits_in() {
    let (seen, sees) = std::sync::mpsc::channel();
    let sees = Mutex::new(sees);
    let answers = run(&[], DEADLINE, |comm| {
        let calls = comm.calls().expect("NCCL tells");
        let before = comm.num_collectives();
        if comm.rank() == 1 {
            assert!(!calls.last().expect("there was a first one").waiting);
            sees.lock().unwrap().recv_timeout(DEADLINE).expect("rank 0 waits");
        }
        let sum = comm.all_reduce(Tensor::ones([3], (Kind::Double, Device::Cpu)))?;
        if comm.rank() == 0 {
            let call = calls.last().expect("it has begun");
            seen.send(()).unwrap();
            let place = (call.op, call.sequence, call.count, call.kind);
            assert_eq!(place, ("all_reduce", before, 3, "f64"));
            assert!(call.waiting);
        }
        let _ = sum.wait()?;
        assert!(!calls.last().expect("it has ended").waiting);
        Box::new(comm).finish()
    });
    for answer in answers {
        answer.expect("no rank fails");
    }
}

/// As on a device: the stream passes what NCCL has accepted a while ago.
#[test]
fn the_monitor_publishes_the_oldest_that_the_stream_has_not_passed() {
    let library = Library::open(&stand_in(&[])).unwrap();
    let id = library.unique_id(DEADLINE).unwrap();
    let ranks = Ranks::init(&library, id, 1, 0, &Options::default(), || Ok(())).unwrap();
    let (ranks, calls) = (Arc::new(ranks), Arc::new(Calls::untimed()));
    let monitor = Monitor::start(&ranks, Arc::clone(&calls), None, DEADLINE, |_| ());
    let passed = [0, 1].map(|sequence| {
        let passed = Passed::default();
        calls.begin("all_reduce", sequence, 5, "f32");
        monitor.expect("all_reduce", sequence, passed.clone());
        passed
    });
    let becomes = |sequence, waiting| {
        let limit = std::time::Instant::now() + DEADLINE;
        let is = || calls.last().is_some_and(|c| (c.sequence, c.waiting) == (sequence, waiting));
        while !is() && std::time::Instant::now() < limit {
            std::thread::yield_now();
        }
        assert!(is(), "{:?} instead of {sequence}, {waiting}", calls.last());
    };
    becomes(0, true);
    passed[0].set(None);
    becomes(1, true);
    passed[1].set(None);
    becomes(1, false);
}

#[test]
fn a_rank_without_nccl_is_told_to_all() {
    let path = stand_in(&[]);
    let answers = Threads::run(2, DEADLINE, |boot| {
        let path = if boot.rank() == 1 { Path::new("/nowhere/libnccl.so.2") } else { &path };
        let library = Library::open(path);
        Nccl::init(&boot, library, &RankDevice::cpu(), DEADLINE, |_| ()).map(drop)
    });
    assert!(matches!(answers[0], Err(CommError::PeerDevice { rank: 1 })), "{answers:?}");
    let text = answers[1].as_ref().unwrap_err().to_string();
    assert!(text.contains("NCCL was not found; tried /nowhere"), "{text}");
}
