//! Workers that are still to come, and those whose connection broke and who may come back.

use std::fmt::Write;
use std::time::{Duration, Instant};

use tessera_control::Phase;

use super::{Fault, Supervision, Worker};
use crate::listener::End;

/// Time between two lines about whom a start waits for.
const SAY_EVERY: Duration = Duration::from_secs(30);

/// A connection that the network has ended.
#[derive(Debug, Clone)]
pub(super) struct Break {
    since: Instant,
    reason: String,
}

impl Worker {
    /// Whether its connection broke and it was not heard since.
    fn is_away(&self) -> bool {
        self.broken.is_some() && self.outcome.is_none()
    }
}

impl Supervision {
    /// Takes note that a worker which was here has said hello again: a line for a person.
    pub(super) fn come_back(&mut self, rank: usize, now: Instant) -> Option<String> {
        let worker = self.workers.get_mut(rank).and_then(Option::as_mut)?;
        (worker.connected, worker.heard, worker.moved) = (true, now, now);
        let Some(Break { since, reason }) = worker.broken.take() else {
            let host = &worker.host; // it has noticed the break before us
            return Some(format!("rank {rank} on host {host} is back, over another connection"));
        };
        let away = now.saturating_duration_since(since).as_secs_f64();
        let host = &worker.host;
        Some(format!(
            "rank {rank} on host {host} is back: its connection had broken for {away:.1} s ({reason})"
        ))
    }

    /// Takes note of how the connection of `rank` has ended. A break is not yet a loss: the worker has as long
    /// to come back as it may be silent.
    pub(crate) fn disconnect(&mut self, rank: usize, end: End, now: Instant) {
        match (end, self.workers.get_mut(rank).and_then(Option::as_mut)) {
            (End::Broken(reason), Some(worker)) if worker.outcome.is_none() => {
                worker.connected = false;
                worker.broken = Some(Break { since: now, reason });
            }
            _ => self.close(rank),
        }
    }

    /// Rank, host and process id of the workers that are away.
    pub(crate) fn away(&self) -> impl Iterator<Item = (usize, &str, u32)> {
        let all = self.workers.iter().enumerate();
        let away = all.filter_map(|(rank, worker)| Some((rank, worker.as_ref()?)));
        away.filter(|(_, worker)| worker.is_away())
            .map(|(rank, worker)| (rank, worker.host.as_str(), worker.pid))
    }

    /// A worker that has been away for longer than it may be silent is lost.
    pub(super) fn check_away(&mut self, now: Instant) -> bool {
        let limit = self.limits.silence;
        let is_late = |worker: &&Worker| {
            worker.is_away() && now.saturating_duration_since(worker.heard) > limit
        };
        let late = |worker: &Option<Worker>| worker.as_ref().filter(is_late).is_some();
        let Some(rank) = self.workers.iter().position(late) else { return false };
        let broken = self.workers[rank].as_ref().and_then(|worker| worker.broken.clone());
        if let Some(Break { since, reason }) = broken {
            let seconds = now.saturating_duration_since(since).as_secs();
            self.explain(format!("its connection broke {seconds} s ago: {reason}"));
        }
        self.blame(Fault::Lost { rank });
        true
    }

    /// Whom the start waits for, every 30 s: who is not here, and what those do that are.
    pub(crate) fn waits_for(&mut self, now: Instant) -> Option<String> {
        let since = now.saturating_duration_since(self.started);
        if since < self.said + SAY_EVERY {
            return None;
        }
        self.said = since;
        let absent = self.absent();
        let phase_of = |worker: &Worker| worker.phase.unwrap_or(Phase::Meet);
        let of = |phase: Phase| -> Vec<usize> {
            let all = self.workers.iter().enumerate();
            let there = all.filter_map(|(rank, worker)| Some((rank, worker.as_ref()?)));
            there.filter(|(_, w)| phase_of(w) == phase).map(|(rank, _)| rank).collect()
        };
        if absent.is_empty() && of(Phase::Meet).is_empty() {
            return None;
        }
        let mut line = format!("start, {} s so far: ", since.as_secs());
        match absent.is_empty() {
            true => line.push_str("all workers are here"),
            false => {
                let _ = write!(line, "waiting for rank {}", ranks(&absent));
            }
        }
        for phase in Phase::ALL {
            let there = of(phase);
            if !there.is_empty() {
                let _ = write!(line, "; in phase {}: rank {}", phase.name(), ranks(&there));
            }
        }
        Some(line)
    }
}

/// Ranks in order, as a person writes them: `0, 2-7`.
pub(super) fn ranks(ranks: &[usize]) -> String {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for &rank in ranks {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == rank => *last = rank,
            _ => runs.push((rank, rank)),
        }
    }
    let words = runs.into_iter().map(|(first, last)| match last - first {
        0 => first.to_string(),
        1 => format!("{first}, {last}"),
        _ => format!("{first}-{last}"),
    });
    words.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_in_a_row_are_written_as_a_range() {
        assert_eq!(ranks(&[0, 2]), "0, 2");
        assert_eq!(ranks(&[0, 1, 2, 4, 5, 9, 10, 11, 12]), "0-2, 4, 5, 9-12");
        assert_eq!(ranks(&[]), "");
    }
}
