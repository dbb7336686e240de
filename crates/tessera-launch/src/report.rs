//! `RUN/failures/`: what was known of every worker when a run failed.

use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use tessera_control::ExitCode;

use crate::run::Attempt;
use crate::supervision::WorkerReport;

/// One failure.
#[derive(Debug, Serialize)]
pub(crate) struct FailureReport {
    unix_seconds: f64,
    /// How often the workers had been started again before.
    restarts: u32,
    world_size: usize,
    exit_code: Option<ExitCode>,
    message: String,
    workers: Vec<WorkerReport>,
}

impl FailureReport {
    /// What an attempt has left.
    pub(crate) fn of(attempt: &Attempt, restarts: u32, world_size: usize) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            unix_seconds: since.map_or(0.0, |since| since.as_secs_f64()),
            restarts,
            world_size,
            exit_code: None,
            message: String::new(),
            workers: attempt.workers.clone(),
        }
    }

    /// Writes the report into the run folder; a folder that cannot be written costs the report.
    pub(crate) fn write(mut self, run_dir: &Path, code: ExitCode, message: &str) {
        self.exit_code = Some(code);
        message.clone_into(&mut self.message);
        let folder = run_dir.join("failures");
        let name = format!("{:.3}.json", self.unix_seconds);
        let text = serde_json::to_vec_pretty(&self).expect("a report is plain data");
        let written = fs::create_dir_all(&folder).and_then(|()| {
            let partial = folder.join(format!(".{name}.tmp"));
            fs::write(&partial, text)?;
            fs::rename(partial, folder.join(&name))
        });
        match written {
            Ok(()) => tracing::debug!(report = %folder.join(&name).display(), "failure told"),
            Err(error) => tracing::warn!(%error, "cannot write into {}", folder.display()),
        }
    }
}
