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

use crate::faults::{Faults, Point};
use crate::trace::Trace;

/// A part of a training step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lap {
    /// Waiting for the loader.
    DataWait,
    /// Bytes to a channels-last tensor.
    Input,
    /// Encoder, forward.
    Encode,
    /// Codes of the latents, their statistics.
    Quantize,
    /// Decoder and loss, forward.
    Decode,
    /// Decoder, backward.
    DecoderBackward,
    /// Encoder and quantiser, backward.
    EncoderBackward,
    /// The reduction over ranks, waiting for slower ranks included.
    Reduce,
    /// AdamW.
    Optimizer,
    /// The quantiser's own update: moving averages, dead codes.
    CodebookUpdate,
    /// Rows, pictures, evaluation and checkpoints.
    Other,
}

impl Lap {
    const ALL: [(Self, &'static str); 11] = [
        (Self::DataWait, "data wait"),
        (Self::Input, "input to tensor"),
        (Self::Encode, "encoder forward"),
        (Self::Quantize, "quantiser forward"),
        (Self::Decode, "decoder forward, loss"),
        (Self::DecoderBackward, "decoder backward"),
        (Self::EncoderBackward, "encoder, quantiser backward"),
        (Self::Reduce, "all-reduce, peers"),
        (Self::Optimizer, "AdamW"),
        (Self::CodebookUpdate, "codebook update"),
        (Self::Other, "logs, eval, checkpoint"),
    ];
}

/// Sums the time spent in each [`Lap`].
#[derive(Debug)]
pub struct Clock {
    activity: Arc<Activity>,
    last: Instant,
    total: [Duration; Lap::ALL.len()],
    window: [Duration; Lap::ALL.len()],
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
    /// A clock that runs from now; `activity` hears of the phases.
    pub fn start(activity: Arc<Activity>) -> Self {
        Self {
            activity,
            last: Instant::now(),
            total: Default::default(),
            window: Default::default(),
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
        if let Some(trace) = &mut self.trace {
            trace.span(Lap::ALL[lap as usize].1, self.last, now, self.activity.step());
        }
        let spent = now - self.last;
        self.last = now;
        self.total[lap as usize] += spent;
        self.window[lap as usize] += spent;
        let next = match lap {
            Lap::Input => Point::Forward,
            Lap::Decode => Point::Backward,
            Lap::EncoderBackward => Point::Reduce,
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
        let ms = |lap: Lap| self.window[lap as usize].as_secs_f64() * 1e3 / steps;
        let all = self.window.iter().sum::<Duration>().as_secs_f64() * 1e3 / steps;
        let times = StepTimes {
            step_ms: all - ms(Lap::Other),
            comm_ms: ms(Lap::Reduce),
            data_wait_ms: ms(Lap::DataWait),
        };
        self.window = Default::default();
        self.window_steps = 0;
        times
    }

    /// A table of milliseconds a step and shares, over all steps so far.
    pub fn table(&self) -> String {
        let steps = self.num_steps.max(1) as f64;
        let all = self.total.iter().sum::<Duration>().as_secs_f64().max(f64::MIN_POSITIVE);
        let mut text = format!("{:<24}{:>12}{:>9}\n", "phase", "ms a step", "share");
        for (lap, name) in Lap::ALL {
            let seconds = self.total[lap as usize].as_secs_f64();
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

    #[test]
    fn the_table_names_every_lap_in_order() {
        for (place, (lap, _)) in Lap::ALL.into_iter().enumerate() {
            assert_eq!(lap as usize, place);
        }
        let mut clock = Clock::start(Arc::default());
        clock.lap(Lap::Reduce);
        clock.step_done(1);
        let times = clock.take_window();
        assert!((times.step_ms - times.comm_ms).abs() < 1e-9);
        assert_eq!(clock.table().lines().count(), 2 + Lap::ALL.len());
    }
}
