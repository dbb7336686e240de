//! What a worker is doing, for whoever asks: its heartbeat, and after its death its launcher.

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use crate::{Call, Message, variables};

/// Bytes of a record: longer than any, so that nothing of a longer one is left behind a shorter.
const RECORD_BYTES: usize = 384;

fn record_of(folder: &OsStr, rank: usize) -> PathBuf {
    Path::new(folder).join(format!("rank-{rank}"))
}

/// The last record of a worker in a folder of records: a heartbeat.
pub fn read_record(folder: &Path, rank: usize) -> Option<Message> {
    let text = std::fs::read(record_of(folder.as_os_str(), rank)).ok()?;
    serde_json::from_slice(&text).ok()
}

/// What a worker's main thread is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Connecting with the peers, over MPI and NCCL: the first phase of a worker.
    Meet,
    /// Set-up, before the first step.
    Start,
    /// Waiting for a batch.
    Data,
    /// Forward and backward pass.
    Compute,
    /// A collective.
    Reduce,
    /// Evaluation.
    Evaluate,
    /// Writing a checkpoint.
    Checkpoint,
    /// Leaving.
    Finish,
}

impl Phase {
    /// How many there are.
    pub const NUM: usize = 8;

    /// All of them.
    pub const ALL: [Self; Self::NUM] = [
        Self::Meet,
        Self::Start,
        Self::Data,
        Self::Compute,
        Self::Reduce,
        Self::Evaluate,
        Self::Checkpoint,
        Self::Finish,
    ];

    /// Its name, as on the control connection.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Meet => "meet",
            Self::Start => "start",
            Self::Data => "data",
            Self::Compute => "compute",
            Self::Reduce => "reduce",
            Self::Evaluate => "evaluate",
            Self::Checkpoint => "checkpoint",
            Self::Finish => "finish",
        }
    }
}

/// Where the main thread is, readable from any thread.
#[derive(Default)]
pub struct Activity {
    phase: AtomicU8,
    step: AtomicU64,
    part: AtomicU64,
    last_call: OnceLock<Box<LastCall>>,
    record: OnceLock<File>,
}

type LastCall = dyn Fn() -> Option<Call> + Send + Sync;

impl fmt::Debug for Activity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (phase, step) = (self.phase(), self.step());
        formatter
            .debug_struct("Activity")
            .field("phase", &phase)
            .field("step", &step)
            .finish_non_exhaustive()
    }
}

impl Activity {
    /// Notes that the main thread enters `phase`.
    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
        self.part.store(0, Ordering::Relaxed);
        self.write_record();
    }

    /// Notes that `step` optimiser steps are done.
    pub fn set_step(&self, step: u64) {
        self.step.store(step, Ordering::Relaxed);
        self.write_record();
    }

    /// Notes that another part of the phase's work is done, such as a batch of an evaluation.
    pub fn part_done(&self) {
        self.part.fetch_add(1, Ordering::Relaxed);
    }

    /// From now on heartbeats tell what `last_call` says: the last collective of this worker.
    pub fn tell_calls(&self, last_call: impl Fn() -> Option<Call> + Send + Sync + 'static) {
        let _ = self.last_call.set(Box::new(last_call)); // the first one stays
    }

    /// From now on what this worker is doing is also kept in the folder that the environment names,
    /// where there is one: it can be read there after the worker was killed.
    pub fn keep_record(&self, rank: usize) {
        let Some(folder) = std::env::var_os(variables::RECORDS) else { return };
        // On other hosts than the launcher's there is no such folder.
        if let Ok(file) = File::create(record_of(&folder, rank)) {
            let _ = self.record.set(file);
            self.write_record();
        }
    }

    /// Brings the record up to date: one small write to a file in memory.
    pub fn write_record(&self) {
        let Some(file) = self.record.get() else { return };
        let mut line = serde_json::to_vec(&self.heartbeat()).expect("messages are plain data");
        line.resize(line.len().max(RECORD_BYTES), b' ');
        let _ = file.write_all_at(&line, 0);
    }

    /// A heartbeat of this moment.
    pub fn heartbeat(&self) -> Message {
        let call = self.last_call.get().and_then(|last_call| last_call());
        let part = self.part.load(Ordering::Relaxed);
        Message::Heartbeat { phase: self.phase(), step: self.step(), part, call }
    }

    /// What the main thread is doing.
    pub fn phase(&self) -> Phase {
        Phase::ALL[usize::from(self.phase.load(Ordering::Relaxed))]
    }

    /// Optimiser steps done.
    pub fn step(&self) -> u64 {
        self.step.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_tells_the_last_phase_and_step() {
        let folder = std::env::temp_dir().join(format!("tessera-record-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let activity = Activity::default();
        let file = File::create(record_of(folder.as_os_str(), 3)).unwrap();
        activity.record.set(file).unwrap();
        activity.set_step(1_000_000);
        activity.enter(Phase::Checkpoint);
        activity.set_step(7);
        activity.enter(Phase::Data);
        let expected = Message::Heartbeat { phase: Phase::Data, step: 7, part: 0, call: None };
        assert_eq!(read_record(&folder, 3), Some(expected));
        assert_eq!(read_record(&folder, 4), None);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
