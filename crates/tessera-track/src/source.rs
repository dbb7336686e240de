//! What there is to send of a run: rows, evaluations and exhibits, merged in the order of their steps.
//!
//! Nothing is sent twice because a [`Position`] says what was; nothing is sent that a resume may take back, because
//! [`Limits`] say which steps are final.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::TrackError;
use crate::lines::{Lines, Mark};
use crate::times::{Clock, Moment};

/// Folders of a run that hold exhibits.
const SHOWN: [&str; 2] = ["reconstructions", "samples"];

/// What was made after one step.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    /// Optimiser steps done.
    pub(crate) step: u64,
    /// Seconds since 1970.
    pub(crate) seconds: f64,
    /// The row of `metrics.jsonl`.
    pub(crate) metrics: Map<String, Value>,
    /// The row of `eval.jsonl`.
    pub(crate) evaluation: Map<String, Value>,
    /// Pictures, sound and film.
    pub(crate) exhibits: Vec<Exhibit>,
}

/// What a file of an exhibit holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// PNG.
    Picture,
    /// WAV.
    Sound,
    /// Animated PNG.
    Film,
}

/// A file to look at or to listen to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Exhibit {
    pub(crate) step: u64,
    /// The folder that it is in, which says what it shows.
    pub(crate) shows: &'static str,
    pub(crate) kind: Kind,
    pub(crate) path: PathBuf,
}

impl Exhibit {
    /// The file's name.
    pub(crate) fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

/// Steps that may be sent, these included; `None`: none yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) rows: Option<u64>,
    pub(crate) exhibits: Option<u64>,
}

/// What was sent.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Position {
    /// The last row of `metrics.jsonl`.
    pub metrics: Option<Mark>,
    /// The last row of `eval.jsonl`.
    pub evaluation: Option<Mark>,
    /// The step of the last exhibits.
    pub exhibits: Option<u64>,
    /// The time of the last of these.
    pub moment: Option<Moment>,
}

impl Position {
    /// The step of the last row.
    pub(crate) fn last_step(&self) -> Option<u64> {
        let steps = [&self.metrics, &self.evaluation].map(|mark| mark.as_ref().map(|at| at.step));
        steps.into_iter().max().flatten()
    }

    /// The place behind the last rows of at most `step` that are there now.
    pub(crate) fn after(&self, run_dir: &Path, step: u64) -> Result<Self, TrackError> {
        Ok(Self {
            metrics: Lines::last_through(&run_dir.join("metrics.jsonl"), step)?,
            evaluation: Lines::last_through(&run_dir.join("eval.jsonl"), step)?,
            exhibits: self.exhibits.map(|at| at.min(step)),
            moment: self.moment,
        })
    }
}

/// Reads a run forward.
#[derive(Debug)]
pub(crate) struct Source {
    run_dir: PathBuf,
    metrics: Lines,
    evaluation: Lines,
    exhibits: VecDeque<Exhibit>,
    clock: Clock,
    position: Position,
}

impl Source {
    /// Reads on behind `position`; `None` where a row that was sent is gone. The clock of a run of which nothing was
    /// sent stands at `started`, in seconds since 1970.
    pub(crate) fn open(
        run_dir: &Path,
        position: &Position,
        started: f64,
    ) -> Result<Option<Self>, TrackError> {
        let lines =
            |name: &str, mark: &Option<Mark>| Lines::behind(&run_dir.join(name), mark.as_ref());
        let metrics = lines("metrics.jsonl", &position.metrics)?;
        let evaluation = lines("eval.jsonl", &position.evaluation)?;
        let (Some(metrics), Some(evaluation)) = (metrics, evaluation) else { return Ok(None) };
        let moment = position.moment.unwrap_or(Moment { step: 0, seconds: started });
        Ok(Some(Self {
            run_dir: run_dir.to_owned(),
            metrics,
            evaluation,
            exhibits: VecDeque::new(),
            clock: Clock::new(run_dir, moment),
            position: position.clone(),
        }))
    }

    /// Whether a file of rows was replaced since it was opened.
    pub(crate) fn is_replaced(&self) -> Result<bool, TrackError> {
        Ok(self.metrics.is_replaced()? || self.evaluation.is_replaced()?)
    }

    /// What was read up to now.
    pub(crate) fn position(&self) -> &Position {
        &self.position
    }

    /// Looks which exhibits may be sent by now.
    pub(crate) fn look_for_exhibits(&mut self, limits: Limits) -> Result<(), TrackError> {
        let Some(last) = limits.exhibits else { return Ok(()) };
        let mut found = Vec::new();
        for shows in SHOWN {
            let folder = self.run_dir.join(shows);
            let names = match fs::read_dir(&folder) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                names => names.map_err(TrackError::file("read", &folder))?,
            };
            for name in names {
                let path = name.map_err(TrackError::file("read", &folder))?.path();
                found.extend(exhibit(shows, path));
            }
        }
        let is_new = |step: u64| self.position.exhibits.is_none_or(|sent| step > sent);
        found.retain(|exhibit| exhibit.step <= last && is_new(exhibit.step));
        found.sort();
        self.exhibits = found.into();
        Ok(())
    }

    /// All that was made after the next step of which something may be sent.
    pub(crate) fn next(&mut self, limits: Limits) -> Result<Option<Entry>, TrackError> {
        let may = |step: &u64| limits.rows.is_some_and(|last| *step <= last);
        let of_metrics = self.metrics.peek()?.filter(may);
        let of_evaluation = self.evaluation.peek()?.filter(may);
        let of_exhibits = self.exhibits.front().map(|exhibit| exhibit.step);
        let steps = [of_metrics, of_evaluation, of_exhibits];
        let Some(step) = steps.into_iter().flatten().min() else { return Ok(None) };
        let mut entry = Entry {
            step,
            seconds: 0.0,
            metrics: Map::new(),
            evaluation: Map::new(),
            exhibits: Vec::new(),
        };
        if of_metrics == Some(step)
            && let Some(line) = self.metrics.take()
        {
            (entry.metrics, self.position.metrics) = (line.row, Some(line.mark));
        }
        if of_evaluation == Some(step)
            && let Some(line) = self.evaluation.take()
        {
            (entry.evaluation, self.position.evaluation) = (line.row, Some(line.mark));
        }
        while self.exhibits.front().is_some_and(|exhibit| exhibit.step == step) {
            entry.exhibits.extend(self.exhibits.pop_front());
            self.position.exhibits = Some(step);
        }
        let step_ms = entry.metrics.get("step_ms").and_then(Value::as_f64);
        let moment = self.clock.at(step, step_ms);
        (entry.seconds, self.position.moment) = (moment.seconds, Some(moment));
        Ok(Some(entry))
    }
}

/// What a file of this name is, if it is one.
fn exhibit(shows: &'static str, path: PathBuf) -> Option<Exhibit> {
    let kind = match path.extension()?.to_str()? {
        "png" => Kind::Picture,
        "wav" => Kind::Sound,
        "apng" => Kind::Film,
        _ => return None,
    };
    let step = path.file_stem()?.to_str()?.strip_prefix("step-")?.parse().ok()?;
    Some(Exhibit { step, shows, kind, path })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(rows: u64, exhibits: u64) -> Limits {
        Limits { rows: Some(rows), exhibits: Some(exhibits) }
    }

    fn take(source: &mut Source, limits: Limits) -> Vec<(u64, [usize; 3])> {
        source.look_for_exhibits(limits).unwrap();
        let mut found = Vec::new();
        while let Some(entry) = source.next(limits).unwrap() {
            let Entry { step, metrics, evaluation, exhibits, .. } = entry;
            found.push((step, [metrics.len(), evaluation.len(), exhibits.len()]));
        }
        found
    }

    #[test]
    fn what_one_step_made_comes_together_once_and_no_later_step_than_may() {
        let run = tempfile::tempdir().unwrap();
        let path = run.path();
        fs::write(path.join("metrics.jsonl"), "{\"step\":10}\n{\"step\":20}\n{\"step\":30}\n")
            .unwrap();
        fs::write(path.join("eval.jsonl"), "{\"step\":15}\n{\"step\":20}\n").unwrap();
        fs::create_dir(path.join("reconstructions")).unwrap();
        for name in ["step-20.png", "step-20.wav", "step-40.png", ".step-20.png.tmp", "other.png"] {
            fs::write(path.join("reconstructions").join(name), "").unwrap();
        }
        let mut source = Source::open(path, &Position::default(), 0.0).unwrap().unwrap();
        assert_eq!(take(&mut source, Limits { rows: None, exhibits: None }), []);
        assert_eq!(take(&mut source, all(15, 15)), [(10, [1, 0, 0]), (15, [0, 1, 0])]);
        let mut again = Source::open(path, source.position(), 0.0).unwrap().unwrap();
        let rest = [(20, [1, 1, 2]), (30, [1, 0, 0]), (40, [0, 0, 1])];
        assert_eq!(take(&mut again, all(99, 99)), rest);
        assert_eq!(take(&mut again, all(99, 99)), []);
        // Rows at once, exhibits once they are final: as an entry of their own.
        let mut eager = Source::open(path, &Position::default(), 0.0).unwrap().unwrap();
        let rows = [(10, [1, 0, 0]), (15, [0, 1, 0]), (20, [1, 1, 0]), (30, [1, 0, 0])];
        assert_eq!(take(&mut eager, all(u64::MAX, 15)), rows);
        assert_eq!(take(&mut eager, all(u64::MAX, 20)), [(20, [0, 0, 2])]);
    }
}
