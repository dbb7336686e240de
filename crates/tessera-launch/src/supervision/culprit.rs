//! Who a hang is blamed on: the workers that the others wait for, and so nobody waits with.
//!
//! Training is in step, so one worker that does not move makes all others stand still as well, and
//! after the same time. They differ in what they do: the others wait in a collective. Where a
//! worker does not tell of its collectives its place has to do: whoever is elsewhere than most, or
//! a step behind. Where nothing tells, nobody is named.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tessera_control::Phase;

use super::{Fault, LEARNED, Supervision, Worker, sequence};

/// What is known of a worker's main thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doing {
    /// It waits for others.
    Waits,
    /// It does something that no other worker has a part in.
    Works,
    /// Either: it tells of no collectives, and is where it may well wait.
    Unknown,
}

impl Worker {
    pub(super) fn doing(&self) -> Doing {
        match (&self.call, self.phase) {
            (Some(call), _) if call.waiting => Doing::Waits,
            (_, Some(Phase::Reduce)) => Doing::Waits,
            // A batch comes from storage and from no other worker.
            (Some(_), _) | (None, Some(Phase::Data)) => Doing::Works,
            _ => Doing::Unknown,
        }
    }
}

impl Supervision {
    /// Who does not move although it speaks, where some worker has stayed in one place for too long.
    pub(super) fn stuck(&self, now: Instant) -> Option<Fault> {
        let all_ready = self.all_ready();
        let still = |rank: usize| {
            let worker = self.worker(rank)?;
            let phase = worker.phase.filter(|_| worker.connected && worker.outcome.is_none())?;
            if phase == Phase::Meet && !all_ready {
                return None; // who is missing has a limit of its own
            }
            // Workers meet once, so there is nothing to be learned from.
            let learned = if phase == Phase::Meet { 0 } else { LEARNED };
            let limit =
                self.limits.stuck[phase as usize].max(self.longest[phase as usize] * learned);
            let still = now.saturating_duration_since(worker.moved);
            Some((rank, still, still > limit))
        };
        let open: Vec<(usize, Duration, bool)> =
            (0..self.workers.len()).filter_map(still).collect();
        let too_long = open.iter().filter(|(_, _, is_over)| *is_over);
        let longest = too_long.map(|(_, still, _)| *still).max()?;
        let seconds = longest.as_secs();
        // Whoever hangs stands first, the others a step and a heartbeat later.
        let stopped = open.iter().filter(|(_, still, _)| *still * 2 >= longest);
        let stopped: Vec<usize> = stopped.map(|(rank, ..)| *rank).collect();
        let ranks = if stopped.len() == open.len() {
            self.culprits(&stopped)
        } else {
            // Others move: nobody waits for these, unless they say so.
            let over = open.iter().filter(|(_, _, is_over)| *is_over).map(|(rank, ..)| *rank);
            let over: Vec<usize> = over.filter(|&rank| !self.does(rank, Doing::Waits)).collect();
            if over.is_empty() { self.behind(open.iter().map(|(rank, ..)| *rank)) } else { over }
        };
        if !ranks.is_empty() {
            return Some(Fault::Stuck { ranks, seconds });
        }
        (stopped.len() == self.workers.len()).then_some(Fault::AllWait { seconds })
    }

    /// Of workers that all stand still, those that the others wait for; nobody where that is not known.
    fn culprits(&self, standing: &[usize]) -> Vec<usize> {
        let (waiting, working, unknown) = self.divide(standing);
        match (waiting.is_empty(), working.is_empty(), unknown.is_empty()) {
            _ if self.workers.len() == 1 => standing.to_vec(),
            (false, true, true) => self.behind(waiting.into_iter()),
            (false, true, false) => unknown,
            (true, true, _) => self.elsewhere(&unknown),
            // Nobody waits: each stands for a reason of its own.
            (true, false, true) => Vec::new(),
            _ => working,
        }
    }

    /// Of workers without an outcome, those that a worker waits for that has given up its wait.
    pub(super) fn not_there(&self) -> Vec<usize> {
        let open = |rank: &usize| self.worker(*rank).is_some_and(|w| w.outcome.is_none());
        let open: Vec<usize> = (0..self.workers.len()).filter(open).collect();
        let (waiting, working, unknown) = self.divide(&open);
        match (waiting.is_empty(), working.is_empty()) {
            (_, false) => working,
            (false, true) => unknown,
            (true, true) => self.elsewhere(&unknown),
        }
    }

    fn divide(&self, ranks: &[usize]) -> (Vec<usize>, Vec<usize>, Vec<usize>) {
        let are = |doing| ranks.iter().copied().filter(|&rank| self.does(rank, doing)).collect();
        (are(Doing::Waits), are(Doing::Works), are(Doing::Unknown))
    }

    /// Those that are in another phase or step than most; where no place has most of them, those
    /// that have done fewer steps.
    fn elsewhere(&self, ranks: &[usize]) -> Vec<usize> {
        let place = |rank: usize| {
            self.worker(rank).map(|worker| (worker.step, worker.phase.map(|phase| phase as u8)))
        };
        let mut counts = BTreeMap::new();
        for &rank in ranks {
            *counts.entry(place(rank)).or_insert(0) += 1;
        }
        let are = |wanted: &dyn Fn(usize) -> bool| {
            ranks.iter().copied().filter(|&rank| wanted(rank)).collect::<Vec<usize>>()
        };
        if let Some((most, _)) = counts.iter().find(|(_, count)| 2 * **count > ranks.len()) {
            return are(&|rank| place(rank) != *most);
        }
        let step = |rank: usize| self.worker(rank).map(|worker| worker.step);
        let least = ranks.iter().map(|&rank| step(rank)).min().flatten();
        let behind = are(&|rank| step(rank) == least);
        if behind.len() < ranks.len() { behind } else { Vec::new() }
    }

    /// The workers whose last collective comes before that of the others, unless they are more.
    fn behind(&self, ranks: impl Iterator<Item = usize>) -> Vec<usize> {
        let tells = |rank| Some((rank, sequence(self.worker(rank)?.call.as_ref())?));
        let calls: Vec<(usize, u64)> = ranks.filter_map(tells).collect();
        let least = calls.iter().map(|(_, sequence)| *sequence).min();
        let behind = calls.iter().filter(|(_, sequence)| Some(*sequence) == least);
        let behind: Vec<usize> = behind.map(|(rank, _)| *rank).collect();
        if 2 * behind.len() <= calls.len() { behind } else { Vec::new() }
    }

    fn worker(&self, rank: usize) -> Option<&Worker> {
        self.workers.get(rank)?.as_ref()
    }

    fn does(&self, rank: usize, doing: Doing) -> bool {
        self.worker(rank).is_some_and(|worker| worker.doing() == doing)
    }
}
