//! What is known of every worker, in the run folder: `workers.json` while the run goes on, and a file
//! in `failures/` when it has failed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tessera_control::{Attempt, Call, ExitCode, Phase, replace_json};

/// What is known of a worker.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkerReport {
    /// Its rank.
    pub rank: usize,
    /// Which start of the workers it is of; older versions did not say.
    #[serde(default)]
    pub attempt: String,
    /// Name of its host; empty before it has said hello.
    pub host: String,
    /// Process id on that host.
    pub pid: u32,
    /// What its main thread is doing.
    pub phase: Option<Phase>,
    /// Optimiser steps done.
    pub step: u64,
    /// The last collective that it has called.
    pub call: Option<Call>,
    /// Seconds since it was heard last.
    pub silent_seconds: f64,
    /// Seconds since phase, step or collective changed.
    pub still_seconds: f64,
    /// Share of its time that it waits in collectives, where that is known: over the last
    /// `limits.late_seconds`.
    #[serde(default)]
    pub waiting_share: Option<f64>,
    /// Whether its connection stands.
    pub connected: bool,
    /// Its exit code, once it has told it.
    pub exit_code: Option<ExitCode>,
    /// Its last words.
    pub message: String,
}

/// One failure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FailureReport {
    /// When, in seconds since 1970.
    pub unix_seconds: f64,
    /// Which start of the workers; older versions did not say.
    #[serde(default)]
    pub attempt: Option<String>,
    /// How often the workers had been started again before.
    pub restarts: u32,
    /// Workers.
    pub world_size: usize,
    /// The run's exit code.
    pub exit_code: Option<ExitCode>,
    /// Why, in one line.
    pub message: String,
    /// Every worker.
    pub workers: Vec<WorkerReport>,
}

impl FailureReport {
    /// What an attempt has left: its workers.
    pub(crate) fn of(
        workers: Vec<WorkerReport>,
        name: &Attempt,
        restarts: u32,
        world_size: usize,
    ) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            unix_seconds: since.map_or(0.0, |since| since.as_secs_f64()),
            attempt: Some(name.to_string()),
            restarts,
            world_size,
            exit_code: None,
            message: String::new(),
            workers,
        }
    }

    /// Writes the report into the run folder; a folder that cannot be written costs the report.
    pub(crate) fn write(mut self, run_dir: &Path, code: ExitCode, message: &str) {
        self.exit_code = Some(code);
        message.clone_into(&mut self.message);
        let folder = run_dir.join("failures");
        let path = folder.join(format!("{:.3}.json", self.unix_seconds));
        if let Err(error) = fs::create_dir_all(&folder).and_then(|()| replace_json(&path, &self)) {
            tracing::warn!(%error, "cannot write into {}", folder.display());
        }
    }
}

/// The newest failure of a run.
pub fn last_failure(run_dir: &Path) -> Option<FailureReport> {
    let entries = fs::read_dir(run_dir.join("failures")).ok()?.flatten().map(|entry| entry.path());
    let newest = entries.filter(|path| path.extension().is_some_and(|end| end == "json")).max()?;
    serde_json::from_slice(&fs::read(newest).ok()?).ok()
}

/// Keeps what is known of the workers for whoever looks into the run folder.
pub(crate) fn write_workers(run_dir: &Path, workers: &[WorkerReport]) {
    if run_dir.is_dir()
        && let Err(error) = replace_json(&workers_file(run_dir), &workers)
    {
        tracing::debug!(%error, "workers.json is not written");
    }
}

/// What was known of the workers when the launcher last wrote it down: each second.
pub fn read_workers(run_dir: &Path) -> Option<Vec<WorkerReport>> {
    serde_json::from_slice(&fs::read(workers_file(run_dir)).ok()?).ok()
}

fn workers_file(run_dir: &Path) -> PathBuf {
    run_dir.join("workers.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_the_newest_failure_counts() {
        let run = tempfile::tempdir().unwrap();
        let worker = WorkerReport {
            rank: 3,
            phase: Some(Phase::Reduce),
            exit_code: Some(ExitCode::Hang),
            ..WorkerReport::default()
        };
        write_workers(run.path(), std::slice::from_ref(&worker));
        assert_eq!(read_workers(run.path()).unwrap(), std::slice::from_ref(&worker));
        assert_eq!(last_failure(run.path()), None);
        for unix_seconds in [1_700_000_000.5, 1_700_000_001.25] {
            let report = FailureReport {
                unix_seconds,
                attempt: None,
                restarts: 1,
                world_size: 4,
                exit_code: None,
                message: String::new(),
                workers: vec![worker.clone()],
            };
            report.write(run.path(), ExitCode::WorkerLost, "worker lost");
        }
        let last = last_failure(run.path()).unwrap();
        assert_eq!(
            (last.unix_seconds, last.exit_code),
            (1_700_000_001.25, Some(ExitCode::WorkerLost))
        );
        assert_eq!(fs::read_dir(run.path()).unwrap().count(), 2, "no half-written file");
    }
}
