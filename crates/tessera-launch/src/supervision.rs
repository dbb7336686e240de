//! What became of the workers: a state machine over what they said and when.
//!
//! Pure: time comes in as an argument, and nothing here touches a process. The first failure wins,
//! because a rank that fails takes its peers down, and theirs are only echoes. Two corrections:
//! a peer that reports a lost worker gives way to the worker that is seen lost, and an mpirun that
//! was itself killed explains every loss.

mod arrival;
mod late;
mod verdict;

use std::time::{Duration, Instant};

use tessera_control::{Call, ExitCode, LimitsConfig, Message, Phase};

pub(crate) use verdict::Verdict;

/// A worker whose peer hangs is suspected after this much silence: it beats once a second.
const SUSPICIOUS: Duration = Duration::from_secs(5);

/// What is known about one rank.
#[derive(Debug, Clone)]
struct Worker {
    host: String,
    pid: u32,
    phase: Option<Phase>,
    step: u64,
    /// Parts of the phase's work done.
    part: u64,
    call: Option<Call>,
    heard: Instant,
    /// When phase, step, part or collective were last others than before.
    moved: Instant,
    outcome: Option<(ExitCode, String)>,
    connected: bool,
    /// The network has ended its connection, and it was not heard since.
    broken: Option<arrival::Break>,
}

impl Worker {
    /// Takes note of what it is doing; whether that is something else than before.
    fn does(&mut self, heartbeat: &Message) -> bool {
        let Message::Heartbeat { phase, step, part, call } = heartbeat else { return false };
        let place = |worker: &Self| {
            (worker.phase, worker.step, worker.part, sequence(worker.call.as_ref()))
        };
        let before = place(self);
        (self.phase, self.step, self.part) = (Some(*phase), *step, *part);
        self.call.clone_from(call);
        place(self) != before
    }

    /// Whether its main thread waits for others.
    fn waits(&self) -> bool {
        let in_call = self.call.as_ref().is_some_and(|call| call.waiting);
        in_call || self.phase == Some(Phase::Reduce)
    }
}

/// Whether it has not met its peers, as far as it has told.
fn is_to_meet(worker: &Worker) -> bool {
    matches!(worker.phase, None | Some(Phase::Meet))
}

fn sequence(call: Option<&Call>) -> Option<u64> {
    call.map(|call| call.sequence)
}

/// Why a run did not go well.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fault {
    /// A worker said so itself; where it hangs, who had been silent then, and for how many seconds.
    Reported { rank: usize, silent: Option<(usize, u64)> },
    /// A worker's connection ended without an outcome.
    Lost { rank: usize },
    /// A worker is silent while its connection stands.
    Silent { rank: usize, seconds: u64 },
    /// A worker speaks, but its main thread does not move.
    Stuck { rank: usize, seconds: u64 },
    /// All workers wait in the same collective.
    AllWait { seconds: u64 },
    /// Ranks that never said hello, although there was time, or mpirun has ended.
    Absent { ranks: Vec<usize> },
    /// A worker sees another world than the one asked for.
    WrongWorld { rank: usize, world_size: usize },
    /// mpirun itself was killed.
    MpirunKilled { signal: i32 },
    /// A person asked three times.
    Interrupted,
}

/// Everything known about the workers of a run.
#[derive(Debug)]
pub(crate) struct Supervision {
    workers: Vec<Option<Worker>>,
    started: Instant,
    limits: Limits,
    /// The longest that any worker has stayed in one place of a phase.
    longest: [Duration; Phase::NUM],
    window: late::Window,
    fault: Option<Fault>,
    detail: Option<String>,
    /// How long the start had taken when it was last said whom it waits for.
    said: Duration,
}

/// How long workers may do nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Without a word: workers speak every second.
    pub(crate) silence: Duration,
    /// Over which waits are compared, if at all.
    pub(crate) late: Option<Duration>,
    /// In one place of each phase; more where this run has taken longer before.
    pub(crate) stuck: [Duration; Phase::NUM],
}

impl Limits {
    /// Those of a configuration; `silence` and `stuck` go before it. Meeting and the set-up keep their own.
    pub(crate) fn new(
        config: &LimitsConfig,
        silence: Option<Duration>,
        stuck: Option<Duration>,
    ) -> Self {
        let of = Duration::from_secs_f64;
        let mut limits = Self {
            silence: silence.unwrap_or_else(|| of(config.silence_seconds)),
            late: (config.late_seconds > 0.0).then(|| of(config.late_seconds)),
            stuck: config.of_phases().map(of),
        };
        if let Some(stuck) = stuck {
            let all = limits.stuck.iter_mut().zip(Phase::ALL);
            all.filter(|(_, phase)| !matches!(phase, Phase::Meet | Phase::Start))
                .for_each(|(limit, _)| *limit = stuck);
        }
        limits
    }
}

/// A worker that stays in one place so many times longer than any has before in this run, and
/// longer than the limit, is stuck.
const LEARNED: u32 = 10;

impl Supervision {
    /// Nobody has said anything yet.
    pub(crate) fn new(world_size: usize, limits: Limits, now: Instant) -> Self {
        let workers = vec![None; world_size];
        let longest = [Duration::ZERO; Phase::NUM];
        let window = late::Window::new(now);
        let said = Duration::ZERO;
        Self { workers, started: now, limits, longest, window, fault: None, detail: None, said }
    }

    /// Takes note of a message of `rank`: a line for a person, where it is back after a break.
    pub(crate) fn hear(&mut self, rank: usize, message: &Message, now: Instant) -> Option<String> {
        if let Message::Hello { world_size, host, pid, .. } = message {
            if *world_size != self.workers.len() || rank >= self.workers.len() {
                self.blame(Fault::WrongWorld { rank, world_size: *world_size });
                return None;
            }
            if self.workers[rank].is_some() {
                return self.come_back(rank, now);
            }
            self.workers[rank] = Some(Worker {
                host: host.clone(),
                pid: *pid,
                phase: None,
                step: 0,
                part: 0,
                call: None,
                heard: now,
                moved: now,
                outcome: None,
                connected: true,
                broken: None,
            });
            if self.all_ready() {
                // Now they can meet; those that came early have waited for this one.
                let others = self.workers.iter_mut().flatten();
                others.filter(|w| is_to_meet(w)).for_each(|worker| worker.moved = now);
            }
            return None;
        }
        let worker = self.workers.get_mut(rank).and_then(Option::as_mut)?;
        worker.heard = now;
        match message {
            Message::Heartbeat { .. } => {
                let before = worker.phase;
                if worker.does(message) {
                    if let Some(phase) = before {
                        let longest = &mut self.longest[phase as usize];
                        *longest = (*longest).max(now.saturating_duration_since(worker.moved));
                    }
                    worker.moved = now;
                }
            }
            Message::Progress { step, .. } => worker.step = *step,
            Message::Outcome { code, message, step } => {
                worker.step = *step;
                worker.outcome = Some((*code, message.clone()));
                if !matches!(code, ExitCode::Done | ExitCode::Stopped) {
                    let hangs = *code == ExitCode::Hang;
                    // Now: at the end mpirun may wake up a stopped worker to end it.
                    let silent = hangs.then(|| self.most_silent(now)).flatten();
                    self.blame(Fault::Reported { rank, silent });
                }
            }
            Message::Hello { .. } | Message::Notice { .. } => {}
        }
        None
    }

    /// Takes note of the last thing that each worker was doing, whenever that was: of the heartbeat
    /// that `record` knows of its rank.
    pub(crate) fn recall(&mut self, record: impl Fn(usize) -> Option<Message>) {
        for (rank, worker) in self.workers.iter_mut().enumerate() {
            if let (Some(worker), Some(record)) = (worker, record(rank)) {
                worker.does(&record);
            }
        }
    }

    /// Takes note that the connection of `rank` has ended in order, or that its process has.
    pub(crate) fn close(&mut self, rank: usize) {
        let Some(worker) = self.workers.get_mut(rank).and_then(Option::as_mut) else { return };
        worker.connected = false;
        worker.broken = None;
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
            if worker.connected && worker.outcome.is_none() && silent > self.limits.silence {
                return self.blame(Fault::Silent { rank, seconds: silent.as_secs() });
            }
        }
        if self.check_away(now) {
            return;
        }
        if let Some(fault) = self.stuck(now) {
            return self.blame(fault);
        }
        let limit = self.limits.stuck[Phase::Meet as usize];
        let absent = self.absent();
        if !absent.is_empty() && now.saturating_duration_since(self.started) > limit {
            self.blame(Fault::Absent { ranks: absent });
        }
    }

    /// The worker that has been silent for the longest, and for how many seconds, where that is long.
    fn most_silent(&self, now: Instant) -> Option<(usize, u64)> {
        let all = self.workers.iter().enumerate();
        let silent = all.filter_map(|(rank, worker)| {
            let worker = worker.as_ref().filter(|w| w.connected && w.outcome.is_none())?;
            Some((rank, now.saturating_duration_since(worker.heard)))
        });
        let (rank, silent) = silent.max_by_key(|(_, silent)| *silent)?;
        (silent > SUSPICIOUS).then_some((rank, silent.as_secs()))
    }

    /// Who does not move although it speaks: the one that others wait for, where there is one.
    fn stuck(&self, now: Instant) -> Option<Fault> {
        let all_ready = self.all_ready();
        let over = |worker: &Worker| {
            let phase = worker.phase.filter(|_| worker.connected && worker.outcome.is_none())?;
            if phase == Phase::Meet && !all_ready {
                return None; // who is missing has a limit of its own
            }
            let floor = self.limits.stuck[phase as usize];
            // Workers meet once, so there is nothing to be learned from.
            let learned = if phase == Phase::Meet { 0 } else { LEARNED };
            let limit = floor.max(self.longest[phase as usize] * learned);
            let still = now.saturating_duration_since(worker.moved);
            (still > limit).then_some(still.as_secs())
        };
        let still: Vec<Option<u64>> =
            self.workers.iter().map(|worker| worker.as_ref().and_then(over)).collect();
        let seconds = still.iter().flatten().copied().max()?;
        // Workers that meet wait for one another, as long as none has got further.
        let all_meet = self.workers.iter().flatten().all(is_to_meet);
        let waits =
            |rank: usize| all_meet || self.workers[rank].as_ref().is_some_and(Worker::waits);
        let culprit = (0..self.workers.len()).find(|&rank| still[rank].is_some() && !waits(rank));
        match culprit.or_else(|| self.behind()) {
            Some(rank) => Some(Fault::Stuck { rank, seconds }),
            None if still.iter().all(Option::is_some) => Some(Fault::AllWait { seconds }),
            None => None,
        }
    }

    /// The worker whose last collective comes before that of the others.
    fn behind(&self) -> Option<usize> {
        let calls = || {
            let all = self.workers.iter().enumerate();
            all.filter_map(|(rank, worker)| Some((rank, sequence(worker.as_ref()?.call.as_ref())?)))
        };
        let (rank, least) = calls().min_by_key(|(_, sequence)| *sequence)?;
        calls().any(|(_, other)| other > least).then_some(rank)
    }

    /// The launcher itself did not run for a while, so silence until `now` means nothing.
    pub(crate) fn forgive(&mut self, now: Instant) {
        for worker in self.workers.iter_mut().flatten() {
            worker.heard = now;
            worker.moved = now;
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
        use Fault::{Absent, AllWait, Interrupted, Silent, Stuck};
        matches!(
            self.fault,
            Some(Silent { .. } | Stuck { .. } | AllWait { .. } | Absent { .. } | Interrupted)
        )
    }

    /// Whether no worker at all has said hello.
    pub(crate) fn none_came(&self) -> bool {
        self.workers.iter().all(Option::is_none)
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
        let Some(Fault::Silent { rank, .. } | Fault::Stuck { rank, .. }) = self.fault else {
            return None;
        };
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
