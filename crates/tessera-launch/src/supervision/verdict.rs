//! What is said of a run at its end: the verdict, and a report of every worker.

use std::time::Instant;

use tessera_control::{Call, ExitCode, Phase};

use super::culprit::Doing;
use super::{Fault, Supervision, Worker, arrival};
use crate::report::WorkerReport;

/// Of workers that share the blame so many are named, and the others counted.
const MOST_NAMED: usize = 3;

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

impl Supervision {
    /// The verdict over what is known now; to be asked at the end.
    pub(crate) fn verdict(&self) -> Verdict {
        let step = self.workers.iter().flatten().map(|worker| worker.step).max().unwrap_or(0);
        let detail = self.detail.as_ref().map_or(String::new(), |detail| format!(" ({detail})"));
        let (code, message) = match &self.fault {
            Some(Fault::Reported { rank, silent }) => self.reported(*rank, *silent),
            Some(Fault::Lost { rank }) => {
                (ExitCode::WorkerLost, format!("worker lost: {}{detail}", self.describe(*rank)))
            }
            Some(Fault::Silent { rank, seconds }) => {
                let who = self.describe(*rank);
                (ExitCode::Hang, format!("hang: nothing heard for {seconds} s from {who}{detail}"))
            }
            Some(Fault::Stuck { ranks, seconds }) => {
                let who = self.describe_all(ranks);
                (ExitCode::Hang, format!("hang: no progress for {seconds} s of {who}{detail}"))
            }
            Some(Fault::AllWait { seconds }) => (ExitCode::Hang, self.all_stand(*seconds)),
            Some(Fault::Absent { ranks }) => {
                let ranks = arrival::ranks(ranks);
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
        let told = matches!(
            self.fault,
            Some(
                Fault::Reported { .. }
                    | Fault::Lost { .. }
                    | Fault::Stuck { .. }
                    | Fault::AllWait { .. }
            )
        );
        let (code, message) = match self.mismatch().filter(|_| told) {
            Some(mismatch) => (ExitCode::Hang, format!("{mismatch} ({message})")),
            None => (code, message),
        };
        let agreed = matches!(self.fault, None | Some(Fault::Reported { .. }));
        let unexplained = matches!(self.fault, Some(Fault::Absent { .. }));
        Verdict { code, message, step, agreed, unexplained }
    }

    /// Code and last words of a worker.
    fn told(&self, rank: usize) -> Option<(ExitCode, String)> {
        self.workers[rank].as_ref().and_then(|worker| worker.outcome.clone())
    }

    fn agreed(&self) -> (ExitCode, String) {
        match (self.agreed_code(), self.told(0)) {
            (Some(_), Some(outcome)) => outcome,
            _ => (ExitCode::Hang, "mismatch: some workers are done and others stopped".into()),
        }
    }

    /// The workers that others hang for: the silent one, or those that are not where the others wait.
    fn suspect(&self, silent: Option<(usize, u64)>) -> Option<String> {
        if let Some((rank, seconds)) = silent {
            return Some(format!("nothing heard for {seconds} s from {}", self.describe(rank)));
        }
        let ranks = self.not_there();
        (!ranks.is_empty()).then(|| format!("not there yet: {}", self.describe_all(&ranks)))
    }

    /// What is said where all workers stand still and nobody is known to be the one.
    fn all_stand(&self, seconds: u64) -> String {
        let workers = || self.workers.iter().flatten();
        if workers().all(|worker| worker.doing() == Doing::Works) {
            let places: Vec<String> = workers().map(place).collect();
            let same = places.windows(2).all(|pair| pair[0] == pair[1]);
            let first = places.first().map_or("", String::as_str);
            let words = if same {
                format!("all are in {first}")
            } else {
                self.describe_all(&self.all_ranks())
            };
            return format!(
                "hang: no progress for {seconds} s of any worker, and none waits for another: {words}"
            );
        }
        let call = workers().filter_map(|worker| worker.call.as_ref()).find(|call| call.waiting);
        let call = call.map_or(String::new(), |call| format!(" in {call}"));
        format!("hang: all workers wait{call} for {seconds} s: look at the network between them")
    }

    fn all_ranks(&self) -> Vec<usize> {
        (0..self.workers.len()).collect()
    }

    fn reported(&self, rank: usize, silent: Option<(usize, u64)>) -> (ExitCode, String) {
        let (code, message) =
            self.told(rank).unwrap_or((ExitCode::Failed, "failed without a reason".into()));
        // What a rank repeats of another one is that one's: `rank 0: ...` from rank 1.
        let repeats = message.strip_prefix("rank ").and_then(|rest| rest.split_once(": "));
        let repeats = repeats.is_some_and(|(other, _)| other.parse::<usize>().is_ok());
        let message = if repeats { message } else { format!("rank {rank}: {message}") };
        if code != ExitCode::Hang {
            return (code, message);
        }
        if let Some(suspect) = self.suspect(silent) {
            return (code, format!("{message}; {suspect}"));
        }
        // Of a disagreement every rank tells its own side; one that cannot is where it is.
        let others = (0..self.workers.len()).filter(|&other| other != rank);
        let sides = others.filter_map(|other| match self.told(other) {
            Some((ExitCode::Hang, text)) => {
                Some(text.rsplit_once("; ").map_or(text.clone(), |(_, side)| side.to_owned()))
            }
            Some(_) => None,
            None => Some(self.describe(other)),
        });
        let sides: String = sides.map(|side| format!("; {side}")).collect();
        (code, message + &sides)
    }

    pub(super) fn describe(&self, rank: usize) -> String {
        let Some(worker) = self.workers.get(rank).and_then(Option::as_ref) else {
            return format!("rank {rank}");
        };
        format!("rank {rank} on host {}, pid {}, {}", worker.host, worker.pid, place(worker))
    }

    /// The first few of several.
    fn describe_all(&self, ranks: &[usize]) -> String {
        let (named, more) = ranks.split_at(ranks.len().min(MOST_NAMED));
        let named: Vec<String> = named.iter().map(|&rank| self.describe(rank)).collect();
        let more =
            if more.is_empty() { String::new() } else { format!("; and {} more", more.len()) };
        named.join("; ") + &more
    }

    /// Two workers that have called the collective of one number in different ways.
    fn mismatch(&self) -> Option<String> {
        let calls: Vec<(usize, &Call)> = self
            .workers
            .iter()
            .enumerate()
            .filter_map(|(rank, worker)| Some((rank, worker.as_ref()?.call.as_ref()?)))
            .collect();
        let differ = |a: &Call, b: &Call| {
            let both = a.sequence == b.sequence && a.waiting && b.waiting;
            both && (&a.op, a.count, &a.kind) != (&b.op, b.count, &b.kind)
        };
        let (first, ours) = calls.first()?;
        let (other, theirs) = calls.iter().find(|(_, call)| differ(ours, call))?;
        Some(format!("mismatch: rank {first} is in {ours}, rank {other} in {theirs}"))
    }

    /// What is known of each worker, for a report.
    pub(crate) fn report(&self, now: Instant) -> Vec<WorkerReport> {
        let all = self.workers.iter().enumerate();
        all.map(|(rank, worker)| {
            let Some(worker) = worker else { return WorkerReport { rank, ..Default::default() } };
            WorkerReport {
                rank,
                attempt: String::new(), // who writes this down knows it
                host: worker.host.clone(),
                pid: worker.pid,
                phase: worker.phase,
                step: worker.step,
                call: worker.call.clone(),
                silent_seconds: now.saturating_duration_since(worker.heard).as_secs_f64(),
                still_seconds: now.saturating_duration_since(worker.moved).as_secs_f64(),
                waiting_share: self.window.shares.get(rank).copied(),
                connected: worker.connected,
                exit_code: worker.outcome.as_ref().map(|(code, _)| *code),
                message: worker.outcome.as_ref().map_or(String::new(), |(_, text)| text.clone()),
            }
        })
        .collect()
    }
}

/// Where a worker is.
fn place(worker: &Worker) -> String {
    let Some(phase) = worker.phase.map(Phase::name) else { return "before its first step".into() };
    let call = worker.call.as_ref().filter(|call| call.waiting);
    let call = call.map_or(String::new(), |call| format!(", in {call}"));
    format!("phase {phase}, step {}{call}", worker.step)
}
