//! Operations reach the library with the right arguments, in the right order.

use nccl_rs::{DataType, Op, ReduceOp, Stream};

use crate::stand_in::{at, load, options, ranks};

#[test]
fn all_reduce_sums_over_ranks() {
    let sums = ranks(&load(&[]), 3, &options(), |comm| {
        let mut values = [comm.rank() as f32, 1.0];
        // SAFETY: the buffer outlives the wait, and the stand-in works on host memory.
        unsafe {
            comm.all_reduce(at(&mut values), 2, DataType::F32, ReduceOp::Sum, Stream::DEFAULT)?
                .wait()?;
        }
        comm.finish()?;
        Ok(values)
    });
    for sum in sums {
        assert_eq!(sum.unwrap(), [3.0, 3.0]); // 0 + 1 + 2, and three ones
    }
}

#[test]
fn every_reduction_and_kind_is_the_one_that_was_asked_for() {
    let answers = ranks(&load(&[]), 2, &options(), |comm| {
        let mut answers = Vec::new();
        let of = [ReduceOp::Sum, ReduceOp::Product, ReduceOp::Max, ReduceOp::Min, ReduceOp::Mean];
        for op in of {
            let mut value = [if comm.rank() == 0 { 3i64 } else { 5 }];
            // SAFETY: as above.
            unsafe {
                comm.all_reduce(at(&mut value), 1, DataType::I64, op, Stream::DEFAULT)?.wait()?;
            }
            answers.push(value[0]);
        }
        let mut value = [200u8];
        // SAFETY: as above.
        unsafe {
            comm.all_reduce(at(&mut value), 1, DataType::U8, ReduceOp::Max, Stream::DEFAULT)?
                .wait()?;
        }
        answers.push(i64::from(value[0]));
        comm.finish()?;
        Ok(answers)
    });
    for answer in answers {
        assert_eq!(answer.unwrap(), [8, 15, 5, 3, 4, 200]);
    }
}

/// 100,000 doubles do not fit into one message of the stand-in.
#[test]
fn reduce_scatter_all_gather_and_broadcast_place_their_parts() {
    const COUNT: usize = 100_000;
    let answers = ranks(&load(&[]), 2, &options(), |comm| {
        let mine = comm.rank() as f64;
        let mut whole: Vec<f64> = (0..2 * COUNT).map(|i| i as f64 + mine).collect();
        let (mut part, mut all) = (vec![0.0; COUNT], vec![0.0; 2 * COUNT]);
        let mut theirs = vec![mine; COUNT];
        let kind = DataType::F64;
        // SAFETY: as above.
        unsafe {
            let (send, receive) = (at(&mut whole), at(&mut part));
            comm.reduce_scatter(send, receive, COUNT, kind, ReduceOp::Sum, Stream::DEFAULT)?
                .wait()?;
            comm.all_gather(at(&mut part), at(&mut all), COUNT, kind, Stream::DEFAULT)?.wait()?;
            comm.broadcast(at(&mut theirs), COUNT, kind, 1, Stream::DEFAULT)?.wait()?;
        }
        comm.finish()?;
        Ok((all, theirs))
    });
    for answer in answers {
        let (all, theirs) = answer.unwrap();
        // Element i of the sum is i + (i + 1).
        assert!(all.iter().enumerate().all(|(i, &sum)| sum == 2.0 * i as f64 + 1.0));
        assert_eq!(theirs, vec![1.0; COUNT]);
    }
}

/// Every rank sends before it receives, more than a mailbox holds: alone each would wait.
#[test]
fn sends_and_receives_of_a_group_do_not_wait_for_one_another() {
    const COUNT: usize = 50_000;
    let answers = ranks(&load(&[]), 3, &options(), |comm| {
        let (rank, world) = (comm.rank(), comm.world_size());
        let mut mine = vec![rank as i32; COUNT];
        let mut theirs = vec![-1; COUNT];
        let kind = DataType::I32;
        let ops = vec![
            Op::Send { from: at(&mut mine), count: COUNT, kind, peer: (rank + 1) % world },
            Op::Recv { to: at(&mut theirs), count: COUNT, kind, peer: (rank + world - 1) % world },
        ];
        // SAFETY: as above.
        unsafe { comm.submit(ops, Stream::DEFAULT)?.wait()? };
        comm.finish()?;
        Ok(theirs)
    });
    let from: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
    assert_eq!(from, [vec![2; COUNT], vec![0; COUNT], vec![1; COUNT]]);
}

#[test]
fn operations_submitted_without_waiting_are_carried_out_in_order() {
    let answers = ranks(&load(&[]), 2, &options(), |comm| {
        let mut value = [1.0f64];
        let submitted: Vec<_> = (0..20)
            // SAFETY: as above.
            .map(|_| unsafe {
                comm.all_reduce(at(&mut value), 1, DataType::F64, ReduceOp::Sum, Stream::DEFAULT)
            })
            .collect();
        for one in submitted {
            one?.wait()?;
        }
        comm.finish()?;
        Ok(value[0])
    });
    for answer in answers {
        assert_eq!(answer.unwrap(), f64::from(1 << 20)); // doubled twenty times
    }
}

#[test]
fn a_split_divides_the_ranks_by_color_and_orders_them_by_key() {
    let answers = ranks(&load(&[]), 4, &options(), |comm| {
        // Ranks 3, 2, 1 in this order; rank 0 in none.
        let color = (comm.rank() > 0).then_some(7);
        let part = comm.split(color, -(comm.rank() as i32), &options())?;
        let answer = match part {
            None => None,
            Some(part) => {
                let mut first = [comm.rank() as i32];
                // SAFETY: as above.
                unsafe {
                    part.broadcast(at(&mut first), 1, DataType::I32, 0, Stream::DEFAULT)?.wait()?;
                }
                let seen = (part.rank(), part.world_size(), first[0]);
                part.finish()?;
                Some(seen)
            }
        };
        comm.finish()?;
        Ok(answer)
    });
    let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
    assert_eq!(answers, [None, Some((2, 3, 3)), Some((1, 3, 3)), Some((0, 3, 3))]);
}
