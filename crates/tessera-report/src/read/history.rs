//! What happened to a run: its starts, its failures, and what its logs warned of.
//!
//! Logs are read line by line; lines of rows (`step done`), which are nearly all of a long log, are not parsed.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind};
use std::path::{Path, PathBuf};

use serde_json::Value;
use tessera_launch::{FailureReport, WorkerReport};

use super::json;
use crate::error::ReportError;

/// Warnings and errors that are told.
const MOST_TOLD: usize = 40;

/// A start of the workers, as rank 0 logged it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Attempt {
    pub(crate) unix_seconds: f64,
    pub(crate) world_size: Option<u64>,
    pub(crate) device: Option<String>,
    pub(crate) threads: Option<u64>,
    pub(crate) started_by: Option<String>,
    /// The first and the last step that it logged.
    pub(crate) steps: Option<(u64, u64)>,
    /// When it was heard last.
    pub(crate) last_seconds: f64,
}

/// A line of a log that is a warning or an error.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Told {
    pub(crate) unix_seconds: f64,
    pub(crate) rank: u64,
    pub(crate) level: String,
    pub(crate) message: String,
}

/// What happened to a run.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// Starts, in order.
    pub(crate) attempts: Vec<Attempt>,
    /// Failures, in order.
    pub(crate) failures: Vec<FailureReport>,
    /// What is known of the workers.
    pub(crate) workers: Vec<WorkerReport>,
    /// Warnings and errors of all ranks, the first of them.
    pub(crate) told: Vec<Told>,
    /// How many there are more.
    pub(crate) num_untold: usize,
    /// Checkpoints that were saved.
    pub(crate) saved: u64,
    /// What the program said of the model's size.
    pub(crate) model: Option<String>,
    /// Versions of the program, as checkpoints name them.
    pub(crate) versions: BTreeSet<String>,
}

impl History {
    /// Reads logs, failures and workers of the run in `folder`.
    pub(crate) fn read(folder: &Path) -> Result<Self, ReportError> {
        let mut history = Self::default();
        for path in files(&folder.join("failures"), "json")? {
            history.failures.extend(json::<FailureReport>(&path)?);
        }
        history.failures.sort_by(|a, b| a.unix_seconds.total_cmp(&b.unix_seconds));
        history.workers = json(&folder.join("workers.json"))?.unwrap_or_default();
        for path in files(&folder.join("logs"), "jsonl")? {
            history.read_log(&path)?;
        }
        history.told.sort_by(|a, b| a.unix_seconds.total_cmp(&b.unix_seconds));
        for path in checkpoints(folder)? {
            let manifest: Value = json(&path.join("manifest.json"))?.unwrap_or_default();
            history.versions.extend(manifest["tessera"].as_str().map(str::to_owned));
        }
        Ok(history)
    }

    fn read_log(&mut self, path: &Path) -> Result<(), ReportError> {
        let file = File::open(path).map_err(ReportError::read(path))?;
        let mut file = BufReader::with_capacity(1 << 18, file);
        let is_first = path.file_stem().is_some_and(|stem| stem == "rank-0");
        // Of lines of rows only the first and the last of each start are parsed.
        let (mut line, mut row, mut is_after_start) = (String::new(), String::new(), false);
        loop {
            line.clear();
            match file.read_line(&mut line) {
                Ok(0) => break,
                Err(error) if error.kind() == ErrorKind::InvalidData => continue,
                read => read.map_err(ReportError::read(path))?,
            };
            if line.contains("\"message\":\"step done\"") {
                if is_first && is_after_start {
                    self.heard(&line);
                    is_after_start = false;
                }
                std::mem::swap(&mut line, &mut row);
                continue;
            }
            let Ok(event) = serde_json::from_str::<Value>(&line) else { continue };
            if is_first && event["message"] == "worker started" {
                self.heard(&row);
                row.clear();
                is_after_start = true;
            }
            self.take(&event, is_first);
        }
        if is_first {
            self.heard(&row);
        }
        Ok(())
    }

    /// A row of the newest start.
    fn heard(&mut self, line: &str) {
        let Ok(event) = serde_json::from_str::<Value>(line) else { return };
        let Some(attempt) = self.attempts.last_mut() else { return };
        if let Some(step) = event["step"].as_u64() {
            let first = attempt.steps.map_or(step, |(first, _)| first);
            attempt.steps = Some((first, step));
        }
        let seconds = event["unix_seconds"].as_f64().unwrap_or(0.0);
        attempt.last_seconds = attempt.last_seconds.max(seconds);
    }

    fn take(&mut self, event: &Value, is_first: bool) {
        let unix_seconds = event["unix_seconds"].as_f64().unwrap_or(0.0);
        let text = |name: &str| event[name].as_str().map(str::to_owned);
        let message = text("message").unwrap_or_default();
        if is_first {
            if let Some(attempt) = self.attempts.last_mut() {
                attempt.last_seconds = attempt.last_seconds.max(unix_seconds);
            }
            match message.as_str() {
                "worker started" => self.attempts.push(Attempt {
                    unix_seconds,
                    world_size: event["world_size"].as_u64(),
                    device: text("device"),
                    threads: event["threads"].as_u64(),
                    started_by: text("started_by"),
                    steps: None,
                    last_seconds: unix_seconds,
                }),
                "checkpoint saved" => self.saved += 1,
                _ => {}
            }
        }
        let level = text("level").unwrap_or_default();
        if let Some(size) = message.strip_prefix("model: ") {
            self.model = Some(size.to_owned());
        } else if matches!(level.as_str(), "WARN" | "ERROR") {
            if self.told.len() == MOST_TOLD {
                self.num_untold += 1;
                return;
            }
            let rank = event["rank"].as_u64().unwrap_or(0);
            self.told.push(Told { unix_seconds, rank, level, message });
        }
    }

    /// Seconds from the first start to the last word of rank 0, without the time between starts.
    pub(crate) fn seconds(&self) -> Option<f64> {
        let of = |attempt: &Attempt| attempt.last_seconds - attempt.unix_seconds;
        (!self.attempts.is_empty()).then(|| self.attempts.iter().map(of).sum())
    }
}

fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>, ReportError> {
    let mut all = listed(folder)?;
    all.retain(|path| path.extension().is_some_and(|end| end == extension));
    Ok(all)
}

fn checkpoints(folder: &Path) -> Result<Vec<PathBuf>, ReportError> {
    let mut all = listed(&folder.join("checkpoints"))?;
    let is_whole = |path: &PathBuf| {
        path.file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| name.starts_with("step-"))
    };
    all.retain(is_whole);
    Ok(all)
}

fn listed(folder: &Path) -> Result<Vec<PathBuf>, ReportError> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        read => read.map_err(ReportError::read(folder))?,
    };
    let mut all: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    all.sort();
    Ok(all)
}
