//! The places that rank 0 reports to: JSON lines, TensorBoard, pictures, the launcher.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tessera_checkpoint::Storage;
use tessera_control::{Client, Message};

use super::MetricSink;
use super::histogram::Histogram;
use super::jsonl::JsonLines;
use super::kept::{Entry, Takes};
use super::picture::{self, Exhibit};
use super::replace_file::replace_file;
use super::tensorboard::{Beginning, EventWriter};
use crate::engine::figures::{Figure, Row};
use crate::engine::run_folder::{RunFolder, Tenure, cut_pictures};
use crate::error::{MAKE_FOLDER, TrainError};
use crate::resolve::Resolved;

/// Writes `config.toml`, whole or not at all.
///
/// # Errors
///
/// [`TrainError::File`] if it cannot be written.
pub(crate) fn write_config(folder: &RunFolder, resolved: &Resolved) -> Result<(), TrainError> {
    let path = folder.config();
    replace_file(&path, resolved.to_toml().as_bytes()).map_err(TrainError::file("write", &path))
}

/// A place in the run folder that rank 0 reports to.
pub(crate) struct Sink {
    /// What it holds, for a person.
    pub(super) unit: &'static str,
    pub(super) takes: Takes,
    pub(super) target: Box<dyn MetricSink>,
}

/// Opens all sinks in the folder of a run that goes on after `last_step` steps, the dearest first; what they
/// hold of later steps is moved to `superseded/` in the run folder.
///
/// # Errors
///
/// [`TrainError::File`] if one cannot be opened.
pub(crate) fn open(
    tenure: &Tenure,
    last_step: u64,
    storage: &Storage,
    beginning: &Beginning,
) -> Result<Vec<Sink>, TrainError> {
    let folder = &tenure.folder;
    let aside = folder.superseded(last_step, &tenure.attempt);
    let lines = |path: PathBuf| {
        let lines = JsonLines::open(&path, Some(last_step), Some(&aside));
        lines.map(|lines| lines.on(storage.clone())).map_err(TrainError::file("open", &path))
    };
    for shown in picture::SHOWN {
        cut_pictures(&folder.pictures(shown), last_step, &aside.join(shown))?;
    }
    let path = folder.tensorboard();
    let events = EventWriter::open_after(&path, last_step, &aside.join("tensorboard"), beginning);
    let events = events.map_err(TrainError::file("open", &path))?;
    let rows = Rows {
        metrics: lines(folder.metrics())?,
        evaluations: lines(folder.evaluations())?,
        root: folder.root.clone(),
    };
    let events = TensorBoard { events: events.on(storage.clone()), folder: path };
    let is_exhibit: Takes = |entry| matches!(entry, Entry::Exhibit(..));
    Ok(vec![
        Sink {
            unit: "rows",
            takes: |entry| matches!(entry, Entry::Row(_) | Entry::Evaluation(_)),
            target: Box::new(rows),
        },
        Sink { unit: "events of TensorBoard", takes: |_| true, target: Box::new(events) },
        Sink { unit: "pictures", takes: is_exhibit, target: Box::new(Pictures(folder.clone())) },
    ])
}

fn sync_folder(folder: &Path) -> Result<(), TrainError> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(TrainError::file("sync", folder))
}

/// `metrics.jsonl` and `eval.jsonl`.
struct Rows {
    metrics: JsonLines,
    evaluations: JsonLines,
    root: PathBuf,
}

impl MetricSink for Rows {
    fn row(&mut self, row: &Row) -> Result<(), TrainError> {
        self.metrics.write(row).map_err(TrainError::file("write", self.metrics.path()))
    }

    fn evaluation(&mut self, evaluation: &Row) -> Result<(), TrainError> {
        let written = self.evaluations.write(evaluation);
        written.map_err(TrainError::file("write", self.evaluations.path()))
    }

    fn sync(&mut self) -> Result<(), TrainError> {
        for lines in [&self.metrics, &self.evaluations] {
            lines.sync().map_err(TrainError::file("sync", lines.path()))?;
        }
        sync_folder(&self.root)
    }
}

/// `reconstructions/`, or `samples/` of a prior.
struct Pictures(RunFolder);

impl MetricSink for Pictures {
    fn exhibit(&mut self, step: u64, exhibit: &Exhibit) -> Result<(), TrainError> {
        let folder = self.0.pictures(exhibit.shows());
        fs::create_dir_all(&folder).map_err(TrainError::file(MAKE_FOLDER, &folder))?;
        let path = folder.join(format!("step-{step}.{}", exhibit.extension()));
        replace_file(&path, exhibit.bytes()).map_err(TrainError::file("write", &path))
    }

    fn sync(&mut self) -> Result<(), TrainError> {
        // Each was synced as it was written.
        let there = picture::SHOWN.map(|shown| self.0.pictures(shown));
        there.iter().filter(|folder| folder.is_dir()).try_for_each(|folder| sync_folder(folder))
    }
}

/// The event file.
struct TensorBoard {
    events: EventWriter,
    folder: PathBuf,
}

impl TensorBoard {
    /// A point of each chart.
    fn points(&mut self, row: &Row) -> Result<(), TrainError> {
        for figure in &row.figures {
            let Some((chart, value)) = figure.chart.zip(figure.as_number()) else { continue };
            // Of an interval whose steps were all skipped there is no point to draw.
            if value.is_finite() {
                self.events.scalar(row.step, &format!("{chart}/{}", figure.name), value as f32);
            }
        }
        self.flush()
    }

    fn flush(&mut self) -> Result<(), TrainError> {
        let flushed = self.events.flush();
        flushed.map_err(TrainError::file("write", self.events.path()))
    }
}

impl MetricSink for TensorBoard {
    fn row(&mut self, row: &Row) -> Result<(), TrainError> {
        self.points(row)
    }

    fn evaluation(&mut self, evaluation: &Row) -> Result<(), TrainError> {
        self.points(evaluation)
    }

    fn exhibit(&mut self, step: u64, exhibit: &Exhibit) -> Result<(), TrainError> {
        match exhibit {
            Exhibit::Picture(picture) => self.events.image(step, picture.shows, picture),
            // A tag is of one kind: the spectrograms of the sound have the other.
            Exhibit::Sound(sound) => {
                self.events.audio(step, &format!("{}_sound", sound.shows), sound);
            }
            Exhibit::Film(_) => return Ok(()),
        }
        self.flush()
    }

    fn histograms(&mut self, step: u64, histograms: &[Histogram]) -> Result<(), TrainError> {
        histograms.iter().for_each(|histogram| self.events.histogram(step, histogram));
        self.flush()
    }

    fn done(&mut self, step: u64) -> Result<(), TrainError> {
        self.events.done(step);
        self.flush()
    }

    fn sync(&mut self) -> Result<(), TrainError> {
        self.events.sync().map_err(TrainError::file("sync", self.events.path()))?;
        sync_folder(&self.folder)
    }
}

/// The launcher, which draws the progress bar.
pub(crate) struct Launcher {
    pub(crate) control: Arc<Client>,
    /// Steps of the whole run.
    pub(crate) steps: u64,
}

impl MetricSink for Launcher {
    fn row(&mut self, row: &Row) -> Result<(), TrainError> {
        if !row.number("loss").is_finite() {
            return Ok(()); // every step was skipped; a line about each has been sent
        }
        let shown = row.figures.iter().filter(|figure| figure.digits.is_some());
        let named = |figure: &Figure| Some((figure.name.to_owned(), figure.as_number()?));
        self.control.send(Message::Progress {
            step: row.step,
            steps: self.steps,
            words: row.words(" "),
            figures: shown.filter_map(named).collect(),
            samples_per_second: row.number("samples_per_second"),
        });
        Ok(())
    }

    fn evaluation(&mut self, evaluation: &Row) -> Result<(), TrainError> {
        let (step, words) = (evaluation.step, evaluation.words(", "));
        self.control.send(Message::Notice { text: format!("step {step}: test {words}") });
        Ok(())
    }
}
