//! Where the time of a step goes.
//!
//! The main thread laps the clock at the end of each phase. On a CPU the phases are the work
//! itself; on a GPU they are what the host waits for, which is little, unless the clock
//! [waits for the device](Clock::waiting_for) at each lap: then they are the device's work, one
//! phase after another, and a step takes longer than without.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tessera_comm::RankDevice;
use tessera_control::{Activity, Phase};

use super::faults::{Faults, Point};
use super::trace::Trace;
use crate::task::{self, Half, Task};

/// A part of a training step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lap {
    /// Waiting for the loader.
    DataWait,
    /// Bytes to the device.
    Input,
    /// A look at all parts of a batch before the first pass.
    Survey,
    /// The reduction over ranks, waiting for slower ranks included.
    Reduce,
    /// AdamW.
    Optimizer,
    /// The task's own update.
    Update,
    /// Rows, pictures, evaluation and checkpoints.
    Other,
    /// A phase of the task's pass, by its number.
    Pass(usize),
}

impl Lap {
    /// Where its time is booked, among those of a task with so many phases; in the order of a step.
    fn place(self, num_phases: usize) -> usize {
        match self {
            Self::DataWait => 0,
            Self::Input => 1,
            Self::Survey => 2,
            Self::Pass(phase) => 3 + phase,
            Self::Reduce => 3 + num_phases,
            Self::Optimizer => 4 + num_phases,
            Self::Update => 5 + num_phases,
            Self::Other => 6 + num_phases,
        }
    }

    /// The names of all, in their places.
    fn names(phases: &[task::Phase], update: &'static str) -> Vec<&'static str> {
        let before = ["data wait", "input to device", "survey"].into_iter();
        let behind = ["all-reduce, peers", "AdamW", update, "logs, eval, checkpoint"];
        before.chain(phases.iter().map(|phase| phase.name)).chain(behind).collect()
    }
}

/// Sums the time spent in each [`Lap`].
#[derive(Debug)]
pub struct Clock {
    activity: Arc<Activity>,
    last: Instant,
    phases: &'static [task::Phase],
    names: Vec<&'static str>,
    total: Vec<Duration>,
    window: Vec<Duration>,
    num_steps: u64,
    window_steps: u64,
    device: Option<RankDevice>,
    pub(crate) faults: Faults,
    trace: Option<Trace>,
}

/// Steps between two flushes of a trace.
const FLUSH: u64 = 20;
/// Longest wait for the device at a lap; a monitor of the communicator's is faster.
const DEADLINE: Duration = Duration::from_secs(3600);

/// Milliseconds a step, mean over a logging interval.
#[derive(Debug, Clone, Copy)]
pub struct StepTimes {
    /// The whole step; without rows, pictures, evaluation and checkpoints.
    pub step_ms: f64,
    /// Its reduction over ranks.
    pub comm_ms: f64,
    /// Its wait for data.
    pub data_wait_ms: f64,
}

impl Clock {
    /// A clock for this task that runs from now; `activity` hears of the phases.
    pub fn start(activity: Arc<Activity>, task: &dyn Task) -> Self {
        let names = Lap::names(task.phases(), task.update_phase());
        Self {
            activity,
            last: Instant::now(),
            phases: task.phases(),
            total: vec![Duration::ZERO; names.len()],
            window: vec![Duration::ZERO; names.len()],
            names,
            num_steps: 0,
            window_steps: 0,
            device: None,
            faults: Faults::default(),
            trace: None,
        }
    }

    /// The same clock, which also notes each lap.
    pub fn with_trace(self, trace: Trace) -> Self {
        Self { trace: Some(trace), ..self }
    }

    /// The same clock, at whose points faults happen.
    pub(crate) fn with_faults(self, faults: Faults) -> Self {
        Self { faults, ..self }
    }

    /// The same clock, which waits for the device at each lap.
    pub fn waiting_for(self, device: RankDevice) -> Self {
        Self { device: Some(device), ..self }
    }

    /// Tells the launcher what the time from now on is spent on.
    pub fn enter(&self, phase: Phase) {
        self.activity.enter(phase);
        match phase {
            Phase::Data => self.faults.reach(Point::Data, self.activity.step()),
            Phase::Checkpoint => self.faults.reach(Point::Checkpoint, self.activity.step()),
            _ => {}
        }
    }

    /// Books the time since the last lap.
    pub fn lap(&mut self, lap: Lap) {
        if let Some(device) = &self.device {
            // A device that has failed is told by whatever uses it next.
            let _ = device.mark().and_then(|mark| mark.wait(DEADLINE));
        }
        let now = Instant::now();
        let place = lap.place(self.phases.len());
        if let Some(trace) = &mut self.trace {
            trace.span(self.names[place], self.last, now, self.activity.step());
        }
        let spent = now - self.last;
        self.last = now;
        self.total[place] += spent;
        self.window[place] += spent;
        let half = match lap {
            Lap::Pass(phase) => self.phases[phase].ends,
            _ => None,
        };
        let next = match lap {
            Lap::Input => Point::Forward,
            _ if half == Some(Half::Forward) => Point::Backward,
            _ if half == Some(Half::Backward) => Point::Reduce,
            Lap::Reduce => Point::Optimizer,
            _ => return,
        };
        self.faults.reach(next, self.activity.step());
    }

    /// Notes that `step` optimiser steps are done.
    pub fn step_done(&mut self, step: u64) {
        self.num_steps += 1;
        self.window_steps += 1;
        self.activity.set_step(step);
        if let Some(trace) = &mut self.trace
            && step.is_multiple_of(FLUSH)
        {
            trace.flush();
        }
    }

    /// A run has ended well: its trace is to be whole.
    pub(crate) fn finish_trace(&mut self) {
        if let Some(trace) = &mut self.trace {
            trace.finish();
        }
    }

    /// The means since the last call, and starts the next interval.
    pub fn take_window(&mut self) -> StepTimes {
        let steps = self.window_steps.max(1) as f64;
        let in_place = |lap: Lap| self.window[lap.place(self.phases.len())];
        let ms = |lap: Lap| in_place(lap).as_secs_f64() * 1e3 / steps;
        let all = self.window.iter().sum::<Duration>().as_secs_f64() * 1e3 / steps;
        let times = StepTimes {
            step_ms: all - ms(Lap::Other),
            comm_ms: ms(Lap::Reduce),
            data_wait_ms: ms(Lap::DataWait),
        };
        self.window.fill(Duration::ZERO);
        self.window_steps = 0;
        times
    }

    /// A table of milliseconds a step and shares, over all steps so far.
    pub fn table(&self) -> String {
        let steps = self.num_steps.max(1) as f64;
        let all = self.total.iter().sum::<Duration>().as_secs_f64().max(f64::MIN_POSITIVE);
        let mut text = format!("{:<24}{:>12}{:>9}\n", "phase", "ms a step", "share");
        // What a run never does has no row: a survey, mostly.
        let taken = self.names.iter().zip(&self.total).filter(|(_, total)| !total.is_zero());
        for (name, total) in taken {
            let seconds = total.as_secs_f64();
            let (ms, share) = (seconds * 1e3 / steps, 100.0 * seconds / all);
            let _ = writeln!(text, "{name:<24}{ms:>12.3}{share:>8.1}%");
        }
        let _ = writeln!(text, "{:<24}{:>12.3}{:>8.1}%", "total", all * 1e3 / steps, 100.0);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHASES: [task::Phase; 2] = [
        task::Phase { name: "there", ends: Some(Half::Forward) },
        task::Phase { name: "back", ends: Some(Half::Backward) },
    ];

    #[test]
    fn every_lap_has_its_place_and_its_name() {
        let names = Lap::names(&PHASES, "update");
        let laps = [Lap::DataWait, Lap::Input, Lap::Survey, Lap::Pass(0), Lap::Pass(1)];
        let laps = laps.into_iter().chain([Lap::Reduce, Lap::Optimizer, Lap::Update, Lap::Other]);
        let places: Vec<usize> = laps.map(|lap| lap.place(2)).collect();
        assert_eq!(places, (0..names.len()).collect::<Vec<_>>());
        assert_eq!((names[3], names[4], names[7]), ("there", "back", "update"));
    }
}
