//! What a run shows: pictures, sounds and films by step, samples that were drawn from it, and what was said of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::json;
use crate::error::ReportError;

/// Folders of a run in which no samples are looked for.
const NOT_SAMPLES: [&str; 8] = [
    "checkpoints",
    "logs",
    "model",
    "reconstructions",
    "superseded",
    "tensorboard",
    "trace",
    "atlas",
];

/// What was shown after a step.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Exhibit {
    pub(crate) step: u64,
    pub(crate) picture: Option<PathBuf>,
    pub(crate) sound: Option<PathBuf>,
    pub(crate) film: Option<PathBuf>,
}

/// A set of samples that was drawn from the run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Samples {
    /// Its folder, from the run's.
    pub(crate) name: String,
    /// Some of them side by side.
    pub(crate) grid: Option<PathBuf>,
    /// Sounds and films of single ones.
    pub(crate) sounds: Vec<PathBuf>,
    pub(crate) films: Vec<PathBuf>,
    pub(crate) about: AboutSamples,
}

/// `samples.json`, as far as a report tells it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct AboutSamples {
    pub(crate) seed: u64,
    pub(crate) num_samples: u64,
    pub(crate) nats_per_token: Option<f64>,
    #[serde(default)]
    pub(crate) sampling: serde_json::Value,
}

/// A judgement.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Judged {
    /// Its folder, from the run's.
    pub(crate) name: String,
    /// Samples beside the training samples nearest to them.
    pub(crate) nearest: Option<PathBuf>,
    pub(crate) about: AboutJudged,
}

/// `judge.json`, as far as a report tells it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct AboutJudged {
    pub(crate) features: String,
    pub(crate) num_samples: u64,
    pub(crate) sets: Vec<JudgedSet>,
    pub(crate) copies: Option<Copies>,
}

/// A set of samples and its figures against held-out ones.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct JudgedSet {
    pub(crate) name: String,
    pub(crate) frechet: Option<f64>,
    pub(crate) accuracy: Option<f64>,
    pub(crate) precision: Option<f64>,
    pub(crate) recall: Option<f64>,
    pub(crate) density: Option<f64>,
    pub(crate) coverage: Option<f64>,
    pub(crate) diversity: Option<f64>,
}

/// How much of the samples is copied.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Copies {
    pub(crate) num_training: u64,
    pub(crate) exact: u64,
    pub(crate) near_by_features: Option<f64>,
    pub(crate) codes_apart: Option<f64>,
    pub(crate) codes_apart_held_out: Option<f64>,
}

/// Exhibits of a folder, by step.
pub(super) fn list(folder: &Path) -> Result<Vec<Exhibit>, ReportError> {
    let mut by_step: BTreeMap<u64, Exhibit> = BTreeMap::new();
    for path in entries(folder)? {
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let Some(step) = stem.strip_prefix("step-").and_then(|step| step.parse().ok()) else {
            continue;
        };
        let exhibit = by_step.entry(step).or_insert(Exhibit { step, ..Exhibit::default() });
        match path.extension().and_then(|end| end.to_str()) {
            Some("png") => exhibit.picture = Some(path),
            Some("wav") => exhibit.sound = Some(path),
            Some("apng") => exhibit.film = Some(path),
            _ => {}
        }
    }
    Ok(by_step.into_values().collect())
}

/// Sets of samples in the run's folder, or in folders in it.
pub(super) fn drawn(run: &Path) -> Result<Vec<Samples>, ReportError> {
    let mut all = Vec::new();
    for folder in folders(run)? {
        let Some(about) = json(&folder.join("samples.json"))? else { continue };
        all.push(Samples {
            name: below(run, &folder),
            grid: Some(folder.join("grid.png")).filter(|path| path.is_file()),
            sounds: entries(&folder.join("sounds"))?,
            films: entries(&folder.join("films"))?,
            about,
        });
    }
    Ok(all)
}

/// Judgements in the run's folder, or in folders in it.
pub(super) fn judged(run: &Path) -> Result<Vec<Judged>, ReportError> {
    let mut all = Vec::new();
    for folder in folders(run)? {
        let Some(about) = json(&folder.join("judge.json"))? else { continue };
        let nearest = Some(folder.join("nearest.png")).filter(|path| path.is_file());
        all.push(Judged { name: below(run, &folder), nearest, about });
    }
    Ok(all)
}

fn below(run: &Path, folder: &Path) -> String {
    folder.strip_prefix(run).unwrap_or(folder).display().to_string()
}

/// The run's folder and those in it that may hold samples.
fn folders(run: &Path) -> Result<Vec<PathBuf>, ReportError> {
    let is_sought = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or(".");
        path.is_dir() && !name.starts_with('.') && !NOT_SAMPLES.contains(&name)
    };
    let mut all = vec![run.to_owned()];
    all.extend(entries(run)?.into_iter().filter(is_sought));
    Ok(all)
}

/// What is in a folder, by name; nothing where it is not there.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, ReportError> {
    let mut all = Vec::new();
    match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(all),
        read => {
            for entry in read.map_err(ReportError::read(folder))? {
                all.push(entry.map_err(ReportError::read(folder))?.path());
            }
        }
    }
    all.sort();
    Ok(all)
}
