//! Communicators that share a thread, since one was split off from the other: what one waits for
//! does not keep the others from their end.
//!
//! The stand-in stalls sums and carries broadcasts out. A job that was submitted first is first in
//! the thread's order, so an abort meets an operation that is in progress or about to be.

use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use nccl_rs::{Communicator, DataType, Error, Library, Options, ReduceOp, Stream, Submitted};

use crate::stand_in::{at, load, lonely_id, options, short};

/// Enough for an abort on a loaded machine, and far less than an operation is given.
const ABORT: Duration = Duration::from_secs(5);

fn with_stall() -> Library {
    load(&["STALL=\"ncclAllReduce\""])
}

/// A communicator of one rank, whose operations are given 20 s.
fn parent(library: &Library) -> Communicator {
    let options = Options { abort_deadline: ABORT, ..options() };
    Communicator::init(library, lonely_id(library), 1, 0, &options, || Ok(())).unwrap()
}

fn child(parent: &Communicator) -> Communicator {
    let options = Options { abort_deadline: ABORT, ..options() };
    parent.split(Some(0), 0, &options).unwrap().unwrap()
}

/// An operation that stays in progress.
fn stalled(comm: &Communicator) -> Submitted {
    let leaked: *mut f32 = Box::leak(Box::new(1.0));
    // SAFETY: leaked, and the stand-in stalls before it touches it.
    unsafe { comm.all_reduce(leaked.into(), 1, DataType::F32, ReduceOp::Sum, Stream::DEFAULT) }
        .unwrap()
}

/// An operation that is carried out.
fn works(comm: &Communicator) -> Result<(), Error> {
    let mut value = [1.0f32];
    // SAFETY: the buffer outlives the wait, and the stand-in works on host memory.
    unsafe { comm.broadcast(at(&mut value), 1, DataType::F32, 0, Stream::DEFAULT)?.wait() }
}

fn is_aborted(answer: &Result<(), Error>) -> bool {
    matches!(answer, Err(Error::Aborted { .. }))
}

#[test]
fn a_child_is_aborted_while_its_parents_operation_is_polled() {
    let parent = parent(&with_stall());
    let child = child(&parent);
    let pending = stalled(&parent);
    assert_eq!(child.abort(), Ok(()));
    assert_eq!(parent.failure(), None, "the parent's operation goes on");
    assert_eq!(parent.abort(), Ok(()));
    let answer = pending.wait();
    assert!(is_aborted(&answer), "{answer:?}");
}

#[test]
fn a_parent_is_aborted_while_its_childs_operation_is_polled() {
    let parent = parent(&with_stall());
    let child = child(&parent);
    let pending = stalled(&child);
    assert_eq!(parent.abort(), Ok(()));
    assert_eq!(child.failure(), None, "the child's operation goes on");
    assert_eq!(child.abort(), Ok(()));
    let answer = pending.wait();
    assert!(is_aborted(&answer), "{answer:?}");
}

#[test]
fn of_two_children_one_is_aborted_and_the_other_goes_on() {
    let parent = parent(&with_stall());
    let [first, second] = [child(&parent), child(&parent)];
    let pending = stalled(&first);
    // In order behind what stalls; served once that has been given up.
    let behind = std::thread::scope(|scope| {
        let behind = scope.spawn(|| works(&second));
        assert_eq!(first.abort(), Ok(()));
        behind.join().unwrap()
    });
    assert_eq!(behind, Ok(()));
    let answer = pending.wait();
    assert!(is_aborted(&answer), "{answer:?}");
    assert_eq!(works(&parent), Ok(()));
    assert_eq!(second.finish(), Ok(()));
    assert_eq!(parent.finish(), Ok(()));
}

#[test]
fn a_child_is_dropped_or_revoked_while_its_parents_operation_is_polled() {
    let parent = parent(&with_stall());
    let [dropped, revoked] = [child(&parent), child(&parent)];
    let pending = stalled(&parent);
    let start = Instant::now();
    drop(dropped);
    assert_eq!(revoked.revoke(), Ok(()));
    assert!(start.elapsed() < ABORT, "neither waits for the 20 s of the parent's operation");
    assert_eq!(parent.abort(), Ok(()));
    let answer = pending.wait();
    assert!(is_aborted(&answer), "{answer:?}");
    assert_eq!(works(&revoked), Err(Error::Aborted { op: "ncclBroadcast" }));
    assert_eq!(revoked.finish(), Ok(()));
}

#[test]
fn a_child_that_finishes_behind_its_parents_operation_does_so_once_that_is_aborted() {
    let parent = parent(&with_stall());
    let child = child(&parent);
    let pending = stalled(&parent);
    std::thread::scope(|scope| {
        let finishing = scope.spawn(|| child.finish());
        assert_eq!(parent.abort(), Ok(()));
        assert_eq!(finishing.join().unwrap(), Ok(()));
    });
    let answer = pending.wait();
    assert!(is_aborted(&answer), "{answer:?}");
}

/// The child's own deadline is shorter than what the parent's operation takes to give up, which is
/// no reason to call the thread lost.
#[test]
fn an_operation_behind_another_communicators_is_not_stuck() {
    let library = with_stall();
    let options = Options { deadline: Duration::from_secs(2), ..options() };
    let parent =
        Communicator::init(&library, lonely_id(&library), 1, 0, &options, || Ok(())).unwrap();
    let child = parent.split(Some(0), 0, &short()).unwrap().unwrap();
    let pending = stalled(&parent);
    assert_eq!(works(&child), Ok(()));
    let deadline = options.deadline;
    assert_eq!(pending.wait(), Err(Error::Deadline { op: "ncclAllReduce", waited: deadline }));
    assert_eq!(child.finish(), Ok(()));
    assert_eq!(parent.abort(), Ok(()));
}

#[test]
fn an_error_of_a_child_is_found_while_its_parents_operation_is_polled() {
    let parent = parent(&load(&["STALL=\"ncclAllReduce\"", "DIE_BESIDE"]));
    let child = child(&parent);
    let pending = stalled(&parent);
    let limit = Instant::now() + ABORT;
    while child.failure().is_none() && Instant::now() < limit {
        std::thread::yield_now();
    }
    let failure = child.failure();
    let op = "ncclCommGetAsyncError";
    assert!(matches!(&failure, Some(Error::Nccl { op: at, .. }) if *at == op), "{failure:?}");
    assert_eq!(parent.abort(), Ok(()));
    let answer = pending.wait();
    assert!(is_aborted(&answer), "{answer:?}");
}

#[test]
fn a_job_that_panics_is_an_error_and_the_thread_goes_on() {
    let parent = parent(&load(&[]));
    let answer: Result<(), _> = parent.run("a job", || panic!("of this test")).wait();
    assert_eq!(answer, Err(Error::Panicked { op: "a job" }));
    assert_eq!(works(&parent), Ok(()));
    assert_eq!(parent.finish(), Ok(()));
}

#[test]
fn a_thread_that_comes_back_is_not_lost_any_more() {
    let library = load(&[]);
    let options = Options { abort_deadline: Duration::from_millis(300), ..short() };
    let comm =
        Communicator::init(&library, lonely_id(&library), 1, 0, &options, || Ok(())).unwrap();
    let (end, ends) = channel();
    let nap = comm.run("a nap", move || {
        let _ = ends.recv();
        Ok(())
    });
    let answer = nap.wait();
    assert!(matches!(answer, Err(Error::Stuck { op: "a nap", .. })), "{answer:?}");
    assert!(matches!(comm.abort(), Err(Error::Stuck { .. })));
    end.send(()).unwrap();
    let limit = Instant::now() + Duration::from_secs(20);
    while comm.abort().is_err() && Instant::now() < limit {
        std::thread::yield_now();
    }
    assert_eq!(comm.abort(), Ok(()));
}
