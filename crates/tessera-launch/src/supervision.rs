//! What became of the workers: a state machine over what they said and when.
//!
//! Pure: time comes in as an argument, and nothing here touches a process. The first failure wins,
//! because a rank that fails takes its peers down, and theirs are only echoes. Two corrections:
//! a peer that reports a lost worker gives way to the worker that is seen lost, and an mpirun that
//! was itself killed explains every loss.

use std::time::{Duration, Instant};

use tessera_control::{ExitCode, Message, Phase};

/// How long workers may take to say hello.
const HELLO: Duration = Duration::from_secs(120);
/// A worker whose peer hangs is suspected after this much silence: it beats once a second.
const SUSPICIOUS: Duration = Duration::from_secs(5);

/// What is known about one rank.
#[derive(Debug, Clone)]
struct Worker {
    host: String,
    pid: u32,
    phase: Option<Phase>,
    step: u64,
    heard: Instant,
    outcome: Option<(ExitCode, String)>,
    connected: bool,
}

/// Why a run did not go well.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fault {
    /// A worker said so itself; where it hangs, whom it may be waiting for.
    Reported { rank: usize, suspect: Option<String> },
    /// A worker's connection ended without an outcome.
    Lost { rank: usize },
    /// A worker is silent while its connection stands.
    Silent { rank: usize, seconds: u64 },
    /// Ranks that never said hello, although there was time, or mpirun has ended.
    Absent { ranks: Vec<usize> },
    /// A worker sees another world than the one asked for.
    WrongWorld { rank: usize, world_size: usize },
    /// mpirun itself was killed.
    MpirunKilled { signal: i32 },
    /// A person asked three times.
    Interrupted,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) code: ExitCode,
    pub(crate) message: String,
    /// Most optimiser steps that any rank told of.
    pub(crate) step: u64,
    /// The ranks themselves agreed on this ending, so rank 0 has written it down.
    pub(crate) agreed: bool,
    /// The launcher has no words of the culprit: what mpirun printed last may help.
    pub(crate) unexplained: bool,
}

/// Everything known about the workers of a run.
#[derive(Debug)]
pub(crate) struct Supervision {
    workers: Vec<Option<Worker>>,
    started: Instant,
    silence: Duration,
    fault: Option<Fault>,
    detail: Option<String>,
}

impl Supervision {
    /// Nobody has said anything yet; a worker may be silent for `silence`.
    pub(crate) fn new(world_size: usize, silence: Duration, now: Instant) -> Self {
        let workers = vec![None; world_size];
        Self { workers, started: now, silence, fault: None, detail: None }
    }

    /// Takes note of a message of `rank`.
    pub(crate) fn hear(&mut self, rank: usize, message: &Message, now: Instant) {
        if let Message::Hello { world_size, host, pid, .. } = message {
            if *world_size != self.workers.len() || rank >= self.workers.len() {
                self.blame(Fault::WrongWorld { rank, world_size: *world_size });
                return;
            }
            self.workers[rank] = Some(Worker {
                host: host.clone(),
                pid: *pid,
                phase: None,
                step: 0,
                heard: now,
                outcome: None,
                connected: true,
            });
            return;
        }
        let Some(worker) = self.workers.get_mut(rank).and_then(Option::as_mut) else { return };
        worker.heard = now;
        match message {
            Message::Heartbeat { phase, step } => {
                worker.phase = Some(*phase);
                worker.step = *step;
            }
            Message::Progress { step, .. } => worker.step = *step,
            Message::Outcome { code, message, step } => {
                worker.step = *step;
                worker.outcome = Some((*code, message.clone()));
                if !matches!(code, ExitCode::Done | ExitCode::Stopped) {
                    let suspect = (*code == ExitCode::Hang).then(|| self.suspect(now)).flatten();
                    self.blame(Fault::Reported { rank, suspect });
                }
            }
            Message::Hello { .. } | Message::Notice { .. } => {}
        }
    }

    /// Takes note that the connection of `rank` has ended.
    pub(crate) fn close(&mut self, rank: usize) {
        let Some(worker) = self.workers.get_mut(rank).and_then(Option::as_mut) else { return };
        worker.connected = false;
        if worker.outcome.is_some() {
            return;
        }
        let echo = match self.fault {
            Some(Fault::Reported { rank, .. }) => self.code_of(rank) == Some(ExitCode::WorkerLost),
            _ => false,
        };
        if echo {
            self.fault = None;
        }
        self.blame(Fault::Lost { rank });
    }

    /// Looks at the clock: silent and absent workers. To be called when no message is waiting.
    pub(crate) fn check(&mut self, now: Instant) {
        for (rank, worker) in self.workers.iter().enumerate() {
            let Some(worker) = worker else { continue };
            let silent = now.saturating_duration_since(worker.heard);
            if worker.connected && worker.outcome.is_none() && silent > self.silence {
                return self.blame(Fault::Silent { rank, seconds: silent.as_secs() });
            }
        }
        let absent = self.absent();
        if !absent.is_empty() && now.saturating_duration_since(self.started) > HELLO {
            self.blame(Fault::Absent { ranks: absent });
        }
    }

    /// The launcher itself did not run for a while, so silence until `now` means nothing.
    pub(crate) fn forgive(&mut self, now: Instant) {
        for worker in self.workers.iter_mut().flatten() {
            worker.heard = now;
        }
    }

    /// mpirun ended through a signal that the launcher did not send.
    pub(crate) fn mpirun_killed(&mut self, signal: i32) {
        if matches!(self.fault, None | Some(Fault::Lost { .. })) && self.agreed_code().is_none() {
            self.fault = Some(Fault::MpirunKilled { signal });
        }
    }

    /// mpirun has ended and all that was said was heard: who is missing is lost.
    pub(crate) fn end(&mut self) {
        let absent = self.absent();
        if !absent.is_empty() {
            self.blame(Fault::Absent { ranks: absent });
        }
        let lost = self
            .workers
            .iter()
            .position(|worker| worker.as_ref().is_some_and(|w| w.outcome.is_none()));
        if let Some(rank) = lost {
            self.blame(Fault::Lost { rank });
        }
    }

    /// A person wants the run to end at once.
    pub(crate) fn interrupt(&mut self) {
        self.blame(Fault::Interrupted);
    }

    /// Adds what is known about the culprit from elsewhere, such as the signal that killed it.
    pub(crate) fn explain(&mut self, detail: String) {
        self.detail.get_or_insert(detail);
    }

    /// Whether every rank has said hello, and so may be sent signals.
    pub(crate) fn all_ready(&self) -> bool {
        self.workers.iter().all(Option::is_some)
    }

    /// Whether any connection is still open.
    pub(crate) fn any_connected(&self) -> bool {
        self.workers.iter().flatten().any(|worker| worker.connected)
    }

    /// Whether the run failed.
    pub(crate) fn failed(&self) -> bool {
        self.fault.is_some()
    }

    /// Whether waiting for the remaining workers is pointless.
    pub(crate) fn hopeless(&self) -> bool {
        matches!(self.fault, Some(Fault::Silent { .. } | Fault::Absent { .. } | Fault::Interrupted))
    }

    /// The rank that was lost without a word.
    pub(crate) fn lost_worker(&self) -> Option<usize> {
        match self.fault {
            Some(Fault::Lost { rank }) => Some(rank),
            _ => None,
        }
    }

    /// Host and process id of the worker that is silent.
    pub(crate) fn silent_worker(&self) -> Option<(&str, u32)> {
        let Some(Fault::Silent { rank, .. }) = self.fault else { return None };
        self.workers[rank].as_ref().map(|worker| (worker.host.as_str(), worker.pid))
    }

    /// The code that all ranks ended with, once they all have.
    pub(crate) fn agreed_code(&self) -> Option<ExitCode> {
        let first = self.code_of(0)?;
        (1..self.workers.len()).all(|rank| self.code_of(rank) == Some(first)).then_some(first)
    }

    /// Whether every rank has told its outcome.
    pub(crate) fn all_told(&self) -> bool {
        (0..self.workers.len()).all(|rank| self.code_of(rank).is_some())
    }

    /// The verdict over what is known now; to be asked at the end.
    pub(crate) fn verdict(&self) -> Verdict {
        let step = self.workers.iter().flatten().map(|worker| worker.step).max().unwrap_or(0);
        let detail = self.detail.as_ref().map_or(String::new(), |detail| format!(" ({detail})"));
        let (code, message) = match &self.fault {
            Some(Fault::Reported { rank, suspect }) => self.reported(*rank, suspect.as_deref()),
            Some(Fault::Lost { rank }) => {
                (ExitCode::WorkerLost, format!("worker lost: {}{detail}", self.describe(*rank)))
            }
            Some(Fault::Silent { rank, seconds }) => {
                let who = self.describe(*rank);
                (ExitCode::Hang, format!("hang: nothing heard for {seconds} s from {who}{detail}"))
            }
            Some(Fault::Absent { ranks }) => {
                let ranks = ranks.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
                let message =
                    format!("worker lost: rank {ranks} never reached the launcher{detail}");
                (ExitCode::WorkerLost, message)
            }
            Some(Fault::WrongWorld { rank, world_size }) => {
                let asked = self.workers.len();
                let message = format!(
                    "rank {rank} sees {world_size} workers where {asked} were asked for: \
                     use the mpirun of the MPI that tessera-worker was built with"
                );
                (ExitCode::BadInput, message)
            }
            Some(Fault::MpirunKilled { signal }) => (
                ExitCode::WorkerLost,
                format!(
                    "worker lost: mpirun was killed by signal {signal}, and all workers with it"
                ),
            ),
            Some(Fault::Interrupted) => {
                (ExitCode::Failed, "ended at once on request, without a checkpoint".into())
            }
            None => self.agreed(),
        };
        let agreed = matches!(self.fault, None | Some(Fault::Reported { .. }));
        let unexplained = matches!(self.fault, Some(Fault::Absent { .. }));
        Verdict { code, message, step, agreed, unexplained }
    }

    fn agreed(&self) -> (ExitCode, String) {
        let told = |rank: usize| self.workers[rank].as_ref().and_then(|w| w.outcome.clone());
        match (self.agreed_code(), told(0)) {
            (Some(_), Some(outcome)) => outcome,
            _ => (ExitCode::Hang, "mismatch: some workers are done and others stopped".into()),
        }
    }

    /// The worker that others hang for: the most silent one, or the one that is not where the
    /// others wait.
    fn suspect(&self, now: Instant) -> Option<String> {
        let open = |worker: &Worker| worker.connected && worker.outcome.is_none();
        let alive = || {
            let all = self.workers.iter().enumerate();
            all.filter_map(|(rank, worker)| Some((rank, worker.as_ref().filter(|w| open(w))?)))
        };
        if let Some((rank, worker)) = alive().min_by_key(|(_, worker)| worker.heard) {
            let silent = now.saturating_duration_since(worker.heard);
            if silent > SUSPICIOUS {
                let who = self.describe(rank);
                return Some(format!("nothing heard for {} s from {who}", silent.as_secs()));
            }
        }
        let waits = |worker: &Worker| worker.phase == Some(Phase::Reduce);
        let (rank, _) = alive().find(|(_, worker)| !waits(worker))?;
        Some(format!("not there yet: {}", self.describe(rank)))
    }

    fn reported(&self, rank: usize, suspect: Option<&str>) -> (ExitCode, String) {
        let worker = self.workers[rank].as_ref();
        let (code, message) = worker
            .and_then(|w| w.outcome.clone())
            .unwrap_or((ExitCode::Failed, "failed without a reason".into()));
        let suspect = suspect.map_or(String::new(), |suspect| format!("; {suspect}"));
        (code, format!("rank {rank}: {message}{suspect}"))
    }

    fn describe(&self, rank: usize) -> String {
        let Some(worker) = self.workers.get(rank).and_then(Option::as_ref) else {
            return format!("rank {rank}");
        };
        let phase = match worker.phase.and_then(|phase| serde_json::to_value(phase).ok()) {
            Some(serde_json::Value::String(phase)) => {
                format!("phase {phase}, step {}", worker.step)
            }
            _ => "before its first step".into(),
        };
        format!("rank {rank} on host {}, pid {}, {phase}", worker.host, worker.pid)
    }

    fn code_of(&self, rank: usize) -> Option<ExitCode> {
        let worker = self.workers.get(rank)?.as_ref()?;
        worker.outcome.as_ref().map(|(code, _)| *code)
    }

    fn absent(&self) -> Vec<usize> {
        (0..self.workers.len()).filter(|&rank| self.workers[rank].is_none()).collect()
    }

    /// The first fault wins.
    fn blame(&mut self, fault: Fault) {
        self.fault.get_or_insert(fault);
    }
}

#[cfg(test)]
#[path = "supervision_tests.rs"]
mod tests;
