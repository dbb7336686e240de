//! Several ranks in one process, one a thread: what the tests of exactness run on.
//!
//! A collective is a meeting: every rank lays down what it calls and its tensor, the last one to
//! come computes the answer in order of ranks, all take it away. So sums are the same on every
//! rank and in every run, and a rank that calls something else is an error that names both.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tch::{Kind, Tensor};

use super::{Communicator, InFlight, check_layout};
use crate::CommError;

/// What ranks must agree on: operation, root, kind and size.
#[derive(Debug, Clone, PartialEq)]
struct Call {
    op: &'static str,
    root: usize,
    kind: Kind,
    size: Vec<i64>,
}

#[derive(Debug, Default)]
struct Meeting {
    round: u64,
    calls: Vec<Option<(Call, Tensor)>>,
    answer: Option<Tensor>,
    collected: usize,
    num_left: usize,
    broken: bool,
}

/// One rank among threads of this process.
#[derive(Debug)]
pub struct Threads {
    rank: usize,
    world_size: usize,
    deadline: Duration,
    shared: Arc<(Mutex<Meeting>, Condvar)>,
}

impl Threads {
    /// The ranks of a world of `world_size`; a collective fails after `deadline`.
    pub fn world(world_size: usize, deadline: Duration) -> Vec<Self> {
        let mut meeting = Meeting::default();
        meeting.calls.resize_with(world_size, || None);
        let shared = Arc::new((Mutex::new(meeting), Condvar::new()));
        let rank = |rank| Self { rank, world_size, deadline, shared: Arc::clone(&shared) };
        (0..world_size).map(rank).collect()
    }

    /// Runs `work` on every rank of a new world, each on its own thread; answers in rank order.
    ///
    /// # Panics
    ///
    /// If a rank panics.
    pub fn run<T: Send>(
        world_size: usize,
        deadline: Duration,
        work: impl Fn(Self) -> Result<T, CommError> + Sync,
    ) -> Vec<Result<T, CommError>> {
        let work = &work;
        std::thread::scope(|scope| {
            let ranks: Vec<_> = Self::world(world_size, deadline)
                .into_iter()
                .map(|comm| scope.spawn(move || work(comm)))
                .collect();
            ranks.into_iter().map(|rank| rank.join().expect("a rank panicked")).collect()
        })
    }

    fn meet(&self, op: &'static str, root: usize, tensor: &Tensor) -> Result<Tensor, CommError> {
        check_layout(op, tensor)?;
        let call = Call { op, root, kind: tensor.kind(), size: tensor.size() };
        let limit = Instant::now() + self.deadline;
        let mut meeting = self.lock();

        // The round before may still be collecting its answer.
        meeting = self.wait(meeting, op, limit, |meeting| meeting.answer.is_none())?;
        if let Some((other, _)) = meeting.calls.iter().flatten().next()
            && *other != call
        {
            let expected = format!("{other:?}");
            meeting.broken = true;
            self.shared.1.notify_all();
            return Err(CommError::Mismatch {
                rank: self.rank,
                found: format!("{call:?}"),
                expected,
            });
        }
        meeting.calls[self.rank] = Some((call, tensor.shallow_clone()));
        let round = meeting.round;
        if meeting.calls.iter().all(Option::is_some) {
            let calls: Vec<_> = meeting.calls.iter_mut().filter_map(Option::take).collect();
            meeting.answer = Some(answer(&calls));
            meeting.round += 1;
            self.shared.1.notify_all();
        }
        meeting = self.wait(meeting, op, limit, |meeting| meeting.round > round)?;
        let taken = meeting.answer.as_ref().expect("the round has an answer").copy();
        meeting.collected += 1;
        if meeting.collected == self.world_size {
            meeting.collected = 0;
            meeting.answer = None;
            self.shared.1.notify_all();
        }
        Ok(taken)
    }

    fn lock(&self) -> MutexGuard<'_, Meeting> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(
        &self,
        mut meeting: MutexGuard<'a, Meeting>,
        op: &'static str,
        limit: Instant,
        ready: impl Fn(&Meeting) -> bool,
    ) -> Result<MutexGuard<'a, Meeting>, CommError> {
        while !ready(&meeting) {
            if meeting.broken || meeting.num_left > 0 {
                return Err(CommError::PeerLeft { op });
            }
            let left = limit.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let arrived = meeting.calls.iter().flatten().count();
                meeting.broken = true;
                self.shared.1.notify_all();
                return Err(CommError::Deadline {
                    op,
                    arrived,
                    world_size: self.world_size,
                    waited: self.deadline,
                });
            }
            let waited = self.shared.1.wait_timeout(meeting, left);
            meeting = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(meeting)
    }
}

/// What a collective answers, from the calls in order of ranks.
fn answer(calls: &[(Call, Tensor)]) -> Tensor {
    let (call, first) = &calls[0];
    match call.op {
        "all_reduce" => {
            let mut sum = first.copy();
            for (_, tensor) in &calls[1..] {
                sum += tensor;
            }
            sum
        }
        "broadcast" => calls[call.root].1.copy(),
        _ => Tensor::stack(&calls.iter().map(|(_, tensor)| tensor).collect::<Vec<_>>(), 0),
    }
}

impl Communicator for Threads {
    fn rank(&self) -> usize {
        self.rank
    }

    fn carrier(&self) -> String {
        "threads".to_owned()
    }

    fn world_size(&self) -> usize {
        self.world_size
    }

    fn all_reduce(&self, mut tensor: Tensor) -> Result<InFlight, CommError> {
        let sum = self.meet("all_reduce", 0, &tensor)?;
        tensor.copy_(&sum);
        Ok(InFlight::done(tensor))
    }

    fn broadcast(&self, mut tensor: Tensor, root: usize) -> Result<InFlight, CommError> {
        let theirs = self.meet("broadcast", root, &tensor)?;
        tensor.copy_(&theirs);
        Ok(InFlight::done(tensor))
    }

    fn all_gather(&self, tensor: &Tensor) -> Result<Tensor, CommError> {
        self.meet("all_gather", 0, tensor)
    }

    fn barrier(&self) -> Result<(), CommError> {
        self.meet("barrier", 0, &Tensor::from_slice(&[0u8])).map(drop)
    }

    fn num_collectives(&self) -> u64 {
        self.lock().round
    }

    fn finish(self: Box<Self>) -> Result<(), CommError> {
        self.barrier()
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.lock().num_left += 1;
        self.shared.1.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(20);

    #[test]
    fn every_collective_gives_every_rank_the_same() {
        let answers = Threads::run(4, DEADLINE, |comm| {
            let mine = Tensor::from_slice(&[comm.rank() as f32, 1.0]);
            let sum: Vec<f32> = Vec::try_from(comm.all_reduce(mine.copy())?.wait()?)?;
            let third: Vec<f32> = Vec::try_from(comm.broadcast(mine.copy(), 2)?.wait()?)?;
            let all: Vec<f32> = Vec::try_from(comm.all_gather(&mine)?.flatten(0, -1))?;
            comm.barrier()?;
            Ok((sum, third, all))
        });
        for answer in answers {
            let (sum, third, all) = answer.expect("no rank fails");
            assert_eq!(sum, [6.0, 4.0]); // 0 + 1 + 2 + 3, and four ones
            assert_eq!(third, [2.0, 1.0]);
            assert_eq!(all, [0.0, 1.0, 1.0, 1.0, 2.0, 1.0, 3.0, 1.0]);
        }
    }

    #[test]
    fn a_rank_that_calls_something_else_is_an_error_and_no_hang() {
        let answers = Threads::run(2, DEADLINE, |comm| {
            let ones = Tensor::from_slice(&vec![1.0f32; 2 + comm.rank()]);
            comm.all_reduce(ones)?.wait().map(drop)
        });
        assert!(answers.iter().all(Result::is_err), "{answers:?}");
        assert!(answers.iter().any(|answer| matches!(answer, Err(CommError::Mismatch { .. }))));
    }

    #[test]
    fn a_rank_that_never_comes_is_a_deadline_and_no_hang() {
        let mut world = Threads::world(2, Duration::from_millis(50));
        let _absent = world.pop();
        let present = world.pop().expect("two ranks");
        assert!(matches!(
            present.barrier(),
            Err(CommError::Deadline { arrived: 1, world_size: 2, .. })
        ));
    }

    #[test]
    fn a_rank_that_left_is_told_to_the_others() {
        let answers =
            Threads::run(
                3,
                DEADLINE,
                |comm| {
                    if comm.rank() == 1 { Ok(()) } else { comm.barrier() }
                },
            );
        assert!(matches!(answers[0], Err(CommError::PeerLeft { .. })));
        assert!(matches!(answers[2], Err(CommError::PeerLeft { .. })));
    }
}
