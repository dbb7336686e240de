//! A run folder as a report needs it. `docs/formats.md` says what each file holds.
//!
//! Reads and never writes; a run may go on meanwhile.

mod buckets;
mod config;
mod exhibits;
mod history;
mod model;
mod rows;

use std::path::Path;

use serde_json::{Map, Value};
use tessera_control::RunStatus;

pub(crate) use buckets::{Bucket, Buckets, join};
pub(crate) use config::{Config, Origin, Setting, plain};
pub(crate) use exhibits::{Exhibit, Judged, JudgedSet, Samples};
pub(crate) use history::{Attempt, History, Told};
pub(crate) use model::{Counted, Level, Model};
pub(crate) use rows::{Curve, Rows};

use crate::atlas::Atlas;
use crate::error::ReportError;

/// A run.
#[derive(Debug)]
pub(crate) struct Run {
    /// What it is called on the page.
    pub(crate) name: String,
    /// Its configuration.
    pub(crate) config: Config,
    /// How it stands, if it says so.
    pub(crate) status: Option<RunStatus>,
    /// Rows of `metrics.jsonl`.
    pub(crate) rows: Rows,
    /// Rows of `eval.jsonl` as curves.
    pub(crate) evaluations: Rows,
    /// The last row of `eval.jsonl`.
    pub(crate) last_evaluation: Map<String, Value>,
    /// Pictures, sounds and films of reconstructions, the oldest first.
    pub(crate) reconstructions: Vec<Exhibit>,
    /// The same of samples that a prior drew while it trained.
    pub(crate) samples: Vec<Exhibit>,
    /// Sets of samples in the folder.
    pub(crate) drawn: Vec<Samples>,
    /// Judgements in the folder.
    pub(crate) judged: Vec<Judged>,
    /// What happened to it.
    pub(crate) history: History,
    /// Its model, if there is one.
    pub(crate) model: Option<Model>,
    /// Its atlas, if there is one.
    pub(crate) atlas: Option<Atlas>,
}

impl Run {
    /// Whether a folder looks like that of a run.
    pub(crate) fn is_at(folder: &Path) -> bool {
        ["config.toml", "metrics.jsonl"].iter().any(|name| folder.join(name).is_file())
    }

    /// Reads the run in `folder`.
    pub(crate) fn read(folder: &Path, name: String) -> Result<Self, ReportError> {
        let status_file = RunStatus::file(folder);
        let status = RunStatus::read(folder).map_err(ReportError::read(&status_file))?;
        let evaluations = folder.join("eval.jsonl");
        Ok(Self {
            config: Config::read(&folder.join("config.toml"))?,
            status,
            rows: Rows::read(&folder.join("metrics.jsonl"))?,
            last_evaluation: last_row(&evaluations)?,
            evaluations: Rows::read(&evaluations)?,
            reconstructions: exhibits::list(&folder.join("reconstructions"))?,
            samples: exhibits::list(&folder.join("samples"))?,
            drawn: exhibits::drawn(folder)?,
            judged: exhibits::judged(folder)?,
            history: History::read(folder)?,
            model: Model::read(&folder.join("model"))?,
            atlas: Atlas::read(&folder.join("atlas"))?,
            name,
        })
    }

    /// Optimiser steps done, by whichever of its files knows most.
    pub(crate) fn step(&self) -> u64 {
        self.status.as_ref().map_or(0, |status| status.step).max(self.rows.last_step)
    }

    /// A number of the last evaluation.
    pub(crate) fn evaluated(&self, name: &str) -> Option<f64> {
        self.last_evaluation.get(name)?.as_f64()
    }

    /// A list of numbers of the last evaluation.
    pub(crate) fn evaluated_list(&self, name: &str) -> Vec<f64> {
        let list = self.last_evaluation.get(name).and_then(Value::as_array);
        list.into_iter().flatten().map(|value| value.as_f64().unwrap_or(f64::NAN)).collect()
    }
}

/// The last line that is a row.
fn last_row(path: &Path) -> Result<Map<String, Value>, ReportError> {
    match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Map::new()),
        read => {
            let text = read.map_err(ReportError::read(path))?;
            let mut rows = text.lines().rev();
            Ok(rows.find_map(|line| serde_json::from_str(line).ok()).unwrap_or_default())
        }
    }
}

/// A JSON file; none where it is not there.
pub(crate) fn json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, ReportError> {
    match std::fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        read => {
            let bytes = read.map_err(ReportError::read(path))?;
            serde_json::from_slice(&bytes).map(Some).map_err(ReportError::json(path))
        }
    }
}
