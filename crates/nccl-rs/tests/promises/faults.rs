//! What goes wrong is an error in time, with the function and NCCL's words, and never a hang.

use std::time::{Duration, Instant};

use nccl_rs::{Communicator, DataType, DevicePointer, Error, Library, Op, ReduceOp, Stream};

use crate::stand_in::{at, load, lonely_id, options, ranks, short};

fn alone(library: &Library) -> Communicator {
    Communicator::init(library, lonely_id(library), 1, 0, &short(), || Ok(())).unwrap()
}

fn sum(comm: &Communicator) -> Result<f32, Error> {
    let mut value = [1.0f32];
    // SAFETY: the buffer outlives the wait in all tests whose operation is carried out; the
    // stand-in touches none of which the operation is refused, stalled or hung.
    unsafe {
        comm.all_reduce(at(&mut value), 1, DataType::F32, ReduceOp::Sum, Stream::DEFAULT)?
            .wait()?;
    }
    Ok(value[0])
}

#[test]
fn a_refused_call_carries_nccls_code_and_words() {
    let comm = alone(&load(&["REFUSE=\"ncclAllReduce\"", "CODE=5"]));
    let error = sum(&comm).unwrap_err();
    assert_eq!(
        error.to_string(),
        "ncclAllReduce failed with NCCL code 5, invalid usage: the stand-in refuses ncclAllReduce"
    );
    assert_eq!(comm.failure(), Some(error.clone()));
    // Nothing else reaches NCCL, and the first error stays.
    assert_eq!(sum(&comm), Err(error.clone()));
    assert_eq!(comm.finish(), Err(error));
}

/// A code that came after this crate was written.
#[test]
fn an_unknown_code_is_an_error_like_any_other() {
    let comm = alone(&load(&["REFUSE=\"ncclAllReduce\"", "CODE=93"]));
    assert!(matches!(sum(&comm), Err(Error::Nccl { code: 93, .. })));
}

#[test]
fn an_operation_of_a_group_that_is_refused_is_named() {
    let comm = alone(&load(&["REFUSE=\"ncclBroadcast\"", "CODE=4"]));
    let mut value = [1.0f32];
    let buffer = at(&mut value);
    let kind = DataType::F32;
    let ops = vec![
        Op::AllReduce { send: buffer, receive: buffer, count: 1, kind, op: ReduceOp::Sum },
        Op::Broadcast { send: buffer, receive: buffer, count: 1, kind, root: 0 },
    ];
    // SAFETY: the buffer outlives the wait.
    let answer = unsafe { comm.submit(ops, Stream::DEFAULT) }.unwrap().wait();
    assert!(matches!(answer, Err(Error::Nccl { op: "ncclBroadcast", code: 4, .. })), "{answer:?}");
}

#[test]
fn an_error_that_shows_while_a_call_is_polled_is_that_calls() {
    let comm = alone(&load(&["BREAK=\"ncclAllReduce\"", "CODE=6"]));
    let error = sum(&comm).unwrap_err();
    assert!(matches!(error, Error::Nccl { op: "ncclAllReduce", code: 6, .. }), "{error}");
}

#[test]
fn an_error_between_two_calls_is_found_without_asking() {
    let comm = alone(&load(&["DIE_AFTER=1"]));
    assert_eq!(comm.failure(), None);
    // The stand-in may already show the error while the call is polled.
    let _ = sum(&comm);
    let limit = Instant::now() + Duration::from_secs(20);
    while comm.failure().is_none() && Instant::now() < limit {
        std::thread::yield_now();
    }
    assert!(matches!(comm.failure(), Some(Error::Nccl { code: 6, .. })), "{:?}", comm.failure());
    comm.abort().unwrap();
}

#[test]
fn what_stays_in_progress_ends_at_the_deadline_and_can_be_aborted() {
    let comm = alone(&load(&["STALL=\"ncclAllReduce\""]));
    let deadline = short().deadline;
    let error = Error::Deadline { op: "ncclAllReduce", waited: deadline };
    assert_eq!(sum(&comm), Err(error.clone()));
    comm.abort().unwrap();
    assert_eq!(comm.failure(), Some(error));
}

#[test]
fn a_call_that_never_returns_is_given_up_with_its_name() {
    let comm = alone(&load(&["HANG=\"ncclAllReduce\""]));
    let answer = sum(&comm);
    assert!(matches!(answer, Err(Error::Stuck { op: "ncclAllReduce", .. })), "{answer:?}");
    // The thread is lost in NCCL, so an abort says so at once.
    assert!(matches!(comm.abort(), Err(Error::Stuck { .. })));
}

#[test]
fn an_id_that_never_comes_is_given_up() {
    let library = load(&["HANG=\"ncclGetUniqueId\""]);
    let answer = library.unique_id(Duration::from_millis(100));
    assert!(matches!(answer, Err(Error::Stuck { op: "ncclGetUniqueId", .. })), "{answer:?}");
}

#[test]
fn a_rank_that_never_comes_is_a_deadline_of_the_start() {
    let library = load(&[]);
    let mut options = short();
    options.init_deadline = options.deadline;
    let id = lonely_id(&library);
    let answer = Communicator::init(&library, id, 2, 0, &options, || Ok(()));
    let expected = Error::Deadline { op: "ncclCommInitRankConfig", waited: options.deadline };
    assert_eq!(answer.map(drop), Err(expected));
}

#[test]
fn a_peer_that_leaves_ends_the_others_operation_with_an_error() {
    let answers = ranks(&load(&[]), 2, &options(), |comm| match comm.rank() {
        1 => comm.abort().map(|()| 0.0),
        _ => sum(&comm),
    });
    assert_eq!(answers[1], Ok(0.0));
    assert!(matches!(answers[0], Err(Error::Nccl { code: 6, .. })), "{answers:?}");
}

/// As a watchdog does: the main thread waits for an operation that never ends.
#[test]
fn an_abort_from_another_thread_ends_the_wait() {
    let library = load(&["STALL=\"ncclAllReduce\""]);
    let comm =
        Communicator::init(&library, lonely_id(&library), 1, 0, &options(), || Ok(())).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| sum(&comm));
        // Either it is polled already, or the abort is first in the queue: both end the same.
        comm.abort().unwrap();
        let answer = waiting.join().unwrap();
        assert!(matches!(answer, Err(Error::Aborted { .. })), "{answer:?}");
    });
}

#[test]
fn a_revoked_communicator_takes_no_operation_but_can_be_split() {
    let answers = ranks(&load(&[]), 2, &options(), |comm| {
        comm.revoke()?;
        assert!(matches!(sum(&comm), Err(Error::Aborted { op: "ncclAllReduce" })));
        let again = comm.split(Some(0), 0, &options())?.unwrap();
        let total = sum(&again)?;
        again.finish()?;
        comm.finish()?;
        Ok(total)
    });
    assert_eq!(answers, [Ok(2.0), Ok(2.0)]);
}

#[test]
fn dropping_without_an_end_aborts_and_does_not_hang() {
    let answers = ranks(&load(&["STALL=\"ncclAllReduce\""]), 2, &short(), |comm| {
        let mut value = vec![1.0f32];
        // SAFETY: leaked below, and the stand-in stalls before it touches it.
        let _late = unsafe {
            comm.all_reduce(at(&mut value), 1, DataType::F32, ReduceOp::Sum, Stream::DEFAULT)?
        };
        std::mem::forget(value);
        drop(comm);
        Ok(())
    });
    assert_eq!(answers, [Ok(()), Ok(())]);
}

#[test]
fn arguments_that_cannot_be_right_never_reach_nccl() {
    let comm = alone(&load(&["HANG=\"ncclBroadcast\""]));
    let mut value = [1.0f32];
    // SAFETY: neither is carried out.
    let (root, null) = unsafe {
        (
            comm.broadcast(at(&mut value), 1, DataType::F32, 1, Stream::DEFAULT),
            comm.broadcast(DevicePointer(0), 1, DataType::F32, 0, Stream::DEFAULT),
        )
    };
    let text = |answer: Result<_, Error>| answer.map(drop).unwrap_err().to_string();
    assert_eq!(text(root), "ncclBroadcast: there is no rank 1 among 1");
    assert_eq!(text(null), "ncclBroadcast: a null pointer cannot hold 1 elements");
    comm.finish().unwrap();
}

#[test]
fn a_thread_that_cannot_be_set_up_is_an_error_with_the_callers_words() {
    let library = load(&[]);
    let set_up = || Err("no CUDA device 3".to_owned());
    let answer = Communicator::init(&library, lonely_id(&library), 1, 0, &short(), set_up);
    let text = answer.map(drop).unwrap_err().to_string();
    assert_eq!(text, "the communication thread could not be set up: no CUDA device 3");
}
