//! The state of a sweep: one SQLite file, written before anything is done.
//!
//! A decision is written down before a trial is started or sent on, and a result when its run has ended.
//! What was decided and has no result is on its way, or was when the sweep was killed: it is then taken
//! up again as it was.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::SweepError;
use crate::schedule::Standing;
use crate::space::Point;
use crate::spec::{Metric, Sweep};

/// Version of the tables, and of what they mean: before 2, rungs went down from the whole training.
const VERSION: i64 = 2;

const TABLES: &str = "
CREATE TABLE sweep (version INTEGER NOT NULL, spec TEXT NOT NULL, base TEXT NOT NULL,
    steps INTEGER NOT NULL, eval_every INTEGER NOT NULL, seconds REAL NOT NULL);
CREATE TABLE trial (number INTEGER PRIMARY KEY, point TEXT NOT NULL);
CREATE TABLE decision (number INTEGER PRIMARY KEY, unix_seconds REAL NOT NULL,
    trial INTEGER NOT NULL REFERENCES trial (number), rung INTEGER NOT NULL,
    steps INTEGER NOT NULL, reason TEXT NOT NULL, UNIQUE (trial, rung));
CREATE TABLE result (trial INTEGER NOT NULL REFERENCES trial (number), rung INTEGER NOT NULL,
    fold INTEGER NOT NULL, unix_seconds REAL NOT NULL, seconds REAL NOT NULL,
    code INTEGER NOT NULL, message TEXT NOT NULL, figures TEXT NOT NULL,
    PRIMARY KEY (trial, rung, fold));
";

/// The state of a sweep.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
}

/// What a sweep is about, fixed at its beginning.
#[derive(Debug, Clone, PartialEq)]
pub struct About {
    /// The sweep.
    pub sweep: Sweep,
    /// The base configuration as it was resolved: one line of JSON.
    pub base: String,
    /// Optimiser steps of a whole training.
    pub steps: u64,
    /// `eval.every` of the base.
    pub eval_every: u64,
}

/// A run that was decided on: one of a trial's folds, to one rung.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Job {
    /// Number of the trial, from 0.
    pub trial: usize,
    /// The rung.
    pub rung: usize,
    /// The fold, from 0.
    pub fold: u64,
    /// Optimiser steps at the rung.
    pub steps: u64,
}

/// How a run has ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The launcher's exit code: 0 or 75 where the run has come to its rung.
    pub code: i32,
    /// Why it failed; empty where it did not.
    pub message: String,
    /// Figures of the evaluation at the rung, and `parameters`.
    pub figures: Map<String, Value>,
    /// Seconds that it took.
    pub seconds: f64,
}

/// A trial, and what has become of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Trial {
    /// Its point.
    pub point: Point,
    /// Rungs that it was sent to.
    pub decided: usize,
    /// The outcomes of its folds at each rung; only the last rung may lack some.
    pub outcomes: Vec<Vec<Option<Outcome>>>,
}

impl Trial {
    /// Whether a run of it has failed: then why.
    pub fn failure(&self) -> Option<&Outcome> {
        self.outcomes.iter().flatten().flatten().find(|outcome| !outcome.message.is_empty())
    }

    /// A figure at a rung, the mean over folds; none where one is missing or failed.
    pub fn figure(&self, rung: usize, name: &str) -> Option<f64> {
        let folds = self.outcomes.get(rung)?;
        let mut sum = 0.0;
        for outcome in folds {
            let outcome = outcome.as_ref().filter(|outcome| outcome.message.is_empty())?;
            sum += outcome.figures.get(name)?.as_f64()?;
        }
        Some(sum / folds.len() as f64)
    }

    /// The last rung that it has come to with all folds.
    pub fn last_rung(&self) -> Option<usize> {
        let whole = |folds: &Vec<Option<Outcome>>| folds.iter().all(Option::is_some);
        self.outcomes.iter().take_while(|folds| whole(folds)).count().checked_sub(1)
    }

    /// How it stands for the schedule.
    pub fn standing(&self, metric: &Metric) -> Standing {
        let rungs = self.last_rung().map_or(0, |last| last + 1);
        let cost = |rung| {
            self.figure(rung, &metric.name)
                .map(|value| metric.cost(value))
                .filter(|cost| cost.is_finite())
        };
        let costs = (0..rungs).map(|rung| cost(rung).unwrap_or(f64::INFINITY)).collect();
        Standing { costs, decided: self.decided }
    }
}

/// The number of the best trial so far: of those that have come furthest, the one of the lowest cost; one that failed is
/// none.
pub(crate) fn best(trials: &[Trial], metric: &Metric) -> Option<usize> {
    let standings = trials.iter().map(|trial| trial.standing(metric).costs).enumerate();
    let reached = standings.filter_map(|(number, costs)| {
        let cost = costs.last().copied().filter(|cost| cost.is_finite())?;
        Some((costs.len(), cost, number))
    });
    let best = reached.min_by(|a, b| b.0.cmp(&a.0).then(a.1.total_cmp(&b.1)).then(a.2.cmp(&b.2)));
    best.map(|(_, _, number)| number)
}

impl Store {
    /// Makes the file of a new sweep.
    ///
    /// # Errors
    ///
    /// [`SweepError::Store`].
    pub fn create(path: &Path, about: &About) -> Result<Self, SweepError> {
        let connection = connect(path)?;
        connection.execute_batch(&format!("BEGIN; {TABLES}"))?;
        let spec = serde_json::to_string(&about.sweep).expect("a sweep is plain data");
        connection.execute(
            "INSERT INTO sweep VALUES (?1, ?2, ?3, ?4, ?5, 0)",
            params![VERSION, spec, about.base, about.steps as i64, about.eval_every as i64],
        )?;
        connection.execute_batch("COMMIT")?;
        Ok(Self { connection })
    }

    /// Opens the file of a sweep that was begun; `None` where there is none yet.
    ///
    /// # Errors
    ///
    /// [`SweepError::Store`], or [`SweepError::Folder`] if the file is of another version.
    pub fn open(path: &Path) -> Result<Option<(Self, About)>, SweepError> {
        if !path.exists() {
            return Ok(None);
        }
        let connection = connect(path)?;
        let tables = "SELECT count(*) FROM sqlite_schema WHERE name = 'sweep'";
        let made: i64 = connection.query_row(tables, [], |row| row.get(0))?;
        if made == 0 {
            return Ok(None); // killed while it was being made
        }
        let columns = "SELECT version, spec, base, steps, eval_every FROM sweep";
        let (version, spec, base, steps, eval_every): (i64, String, String, i64, i64) = connection
            .query_row(columns, [], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
            })?;
        let unknown = |problem: String| SweepError::Folder { folder: path.to_owned(), problem };
        if version != VERSION {
            return Err(unknown(format!(
                "its version is {version}, this program knows {VERSION}: choose another folder, or use the tessera \
                 that made it"
            )));
        }
        let sweep = serde_json::from_str(&spec).map_err(|error| unknown(error.to_string()))?;
        let about = About { sweep, base, steps: steps as u64, eval_every: eval_every as u64 };
        Ok(Some((Self { connection }, about)))
    }

    /// Writes down a new trial.
    ///
    /// # Errors
    ///
    /// [`SweepError::Store`].
    pub fn add_trial(
        &mut self,
        number: usize,
        point: &Point,
        steps: u64,
        reason: &str,
    ) -> Result<(), SweepError> {
        let both = self.connection.transaction()?;
        let text = serde_json::to_string(point).expect("a point is plain data");
        both.execute("INSERT INTO trial VALUES (?1, ?2)", params![number as i64, text])?;
        decide(&both, number, 0, steps, reason)?;
        both.commit()?;
        Ok(())
    }

    /// Writes down that a trial goes on.
    ///
    /// # Errors
    ///
    /// [`SweepError::Store`].
    pub fn promote(
        &mut self,
        trial: usize,
        rung: usize,
        steps: u64,
        reason: &str,
    ) -> Result<(), SweepError> {
        decide(&self.connection, trial, rung, steps, reason)
    }

    /// Writes down how a run has ended.
    ///
    /// # Errors
    ///
    /// [`SweepError::Store`].
    pub fn finish(&mut self, job: &Job, outcome: &Outcome) -> Result<(), SweepError> {
        let figures = serde_json::to_string(&outcome.figures).expect("figures are plain data");
        let Job { trial, rung, fold, .. } = *job;
        let Outcome { code, ref message, seconds, .. } = *outcome;
        let (trial, rung, fold) = (trial as i64, rung as i64, fold as i64);
        self.connection.execute(
            "INSERT INTO result VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            params![trial, rung, fold, unix_seconds(), seconds, code, message, figures],
        )?;
        Ok(())
    }

    /// Seconds that the sweep has gone on, over all its starts.
    ///
    /// # Errors
    ///
    /// [`SweepError::Store`].
    pub fn seconds(&self) -> Result<f64, SweepError> {
        Ok(self.connection.query_row("SELECT seconds FROM sweep", [], |row| row.get(0))?)
    }

    /// Writes down how long the sweep has gone on.
    ///
    /// # Errors
    ///
    /// [`SweepError::Store`].
    pub fn set_seconds(&self, seconds: f64) -> Result<(), SweepError> {
        self.connection.execute("UPDATE sweep SET seconds = ?1", params![seconds])?;
        Ok(())
    }

    /// All trials, in the order in which they began.
    ///
    /// # Errors
    ///
    /// [`SweepError::Store`].
    pub fn trials(&self, num_folds: u64) -> Result<Vec<Trial>, SweepError> {
        let mut trials = Vec::new();
        let mut rows = self.connection.prepare("SELECT point FROM trial ORDER BY number")?;
        let points = rows.query_map([], |row| row.get::<_, String>(0))?;
        for point in points {
            let point = serde_json::from_str(&point?).map_err(unreadable)?;
            trials.push(Trial { point, decided: 0, outcomes: Vec::new() });
        }
        let mut rows =
            self.connection.prepare("SELECT trial, rung FROM decision ORDER BY number")?;
        let decisions =
            rows.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))?;
        for decision in decisions {
            let (trial, rung) = decision?;
            let trial = &mut trials[trial as usize];
            trial.decided = rung as usize + 1;
            trial.outcomes.push(vec![None; num_folds as usize]);
        }
        let columns = "SELECT trial, rung, fold, seconds, code, message, figures FROM result";
        let mut rows = self.connection.prepare(columns)?;
        let mut rows = rows.query([])?;
        while let Some(row) = rows.next()? {
            let (trial, rung, fold): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let figures = serde_json::from_str(&row.get::<_, String>(6)?).map_err(unreadable)?;
            let (seconds, code, message) = (row.get(3)?, row.get(4)?, row.get(5)?);
            let outcome = Outcome { code, message, figures, seconds };
            trials[trial as usize].outcomes[rung as usize][fold as usize] = Some(outcome);
        }
        Ok(trials)
    }

    /// Runs that were decided on and have no outcome, in the order of the decisions.
    ///
    /// # Errors
    ///
    /// [`SweepError::Store`].
    pub fn open_jobs(&self, num_folds: u64) -> Result<Vec<Job>, SweepError> {
        let mut rows =
            self.connection.prepare("SELECT trial, rung, steps FROM decision ORDER BY number")?;
        let mut rows = rows.query([])?;
        let found = "SELECT 1 FROM result WHERE trial = ?1 AND rung = ?2 AND fold = ?3";
        let mut found = self.connection.prepare(found)?;
        let mut jobs = Vec::new();
        while let Some(row) = rows.next()? {
            let (trial, rung, steps): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            for fold in 0..num_folds {
                let key = params![trial, rung, fold as i64];
                if found.query_row(key, |_| Ok(())).optional()?.is_none() {
                    let (trial, rung, steps) = (trial as usize, rung as usize, steps as u64);
                    jobs.push(Job { trial, rung, fold, steps });
                }
            }
        }
        Ok(jobs)
    }

    /// Every decision with its reason, in order: trial, rung, steps, reason.
    ///
    /// # Errors
    ///
    /// [`SweepError::Store`].
    pub fn decisions(&self) -> Result<Vec<(usize, usize, u64, String)>, SweepError> {
        let columns = "SELECT trial, rung, steps, reason FROM decision ORDER BY number";
        let mut rows = self.connection.prepare(columns)?;
        let decisions = rows.query_map([], |row| {
            let (trial, rung, steps): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            Ok((trial as usize, rung as usize, steps as u64, row.get(3)?))
        })?;
        Ok(decisions.collect::<Result<_, _>>()?)
    }
}

fn connect(path: &Path) -> Result<Connection, SweepError> {
    let connection = Connection::open(path)?;
    // A kill of the process loses nothing, nor does one of the machine.
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.busy_timeout(std::time::Duration::from_secs(10))?;
    Ok(connection)
}

fn decide(
    connection: &Connection,
    trial: usize,
    rung: usize,
    steps: u64,
    reason: &str,
) -> Result<(), SweepError> {
    connection.execute(
        "INSERT INTO decision (unix_seconds, trial, rung, steps, reason) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![unix_seconds(), trial as i64, rung as i64, steps as i64, reason],
    )?;
    Ok(())
}

fn unreadable(error: serde_json::Error) -> SweepError {
    SweepError::Store(rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

fn unix_seconds() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn about() -> About {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("base.toml");
        std::fs::write(&path, "").unwrap();
        let sweep = Sweep::read(&path, &["a=1,2".to_owned()]).unwrap();
        About { sweep, base: "{}".to_owned(), steps: 90, eval_every: 30 }
    }

    fn outcome(mse: f64) -> Outcome {
        let figures = json!({ "mse": mse }).as_object().unwrap().clone();
        Outcome { code: 75, message: String::new(), figures, seconds: 1.0 }
    }

    #[test]
    fn what_was_decided_and_has_no_outcome_is_there_after_the_file_was_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sweep.db");
        assert!(Store::open(&path).unwrap().is_none());
        let about = about();
        let mut store = Store::create(&path, &about).unwrap();
        let point = |a: i64| Point::from([("a".to_owned(), json!(a))]);
        store.add_trial(0, &point(1), 10, "the first").unwrap();
        store.add_trial(1, &point(2), 10, "the next").unwrap();
        let job = |trial, rung, fold, steps| Job { trial, rung, fold, steps };
        store.finish(&job(0, 0, 0, 10), &outcome(0.5)).unwrap();
        store.finish(&job(0, 0, 1, 10), &outcome(0.25)).unwrap();
        store.finish(&job(1, 0, 1, 10), &outcome(0.75)).unwrap();
        store.promote(0, 1, 30, "best of one").unwrap();
        assert!(store.promote(0, 1, 30, "twice").is_err());
        store.set_seconds(12.5).unwrap();
        drop(store);

        let (store, found) = Store::open(&path).unwrap().unwrap();
        assert_eq!(found, about);
        assert_eq!(store.seconds().unwrap(), 12.5);
        assert_eq!(
            store.open_jobs(2).unwrap(),
            [job(1, 0, 0, 10), job(0, 1, 0, 30), job(0, 1, 1, 30)]
        );
        let trials = store.trials(2).unwrap();
        assert_eq!((&trials[0].point, trials[0].decided), (&point(1), 2));
        assert_eq!(trials[0].figure(0, "mse"), Some(0.375), "the mean of both folds");
        assert_eq!(trials[1].figure(0, "mse"), None);
        let standing = Standing { costs: vec![-0.375], decided: 2 };
        let metric = Metric { name: "mse".into(), goal: crate::spec::Goal::Maximize };
        assert_eq!(trials[0].standing(&metric), standing);
        assert_eq!(store.decisions().unwrap()[2], (0, 1, 30, "best of one".to_owned()));
    }

    /// A copy of a file of version 2: four trials of ASHA, rungs of 2 and 6 steps, one trial failed. Made
    /// smaller by `PRAGMA journal_mode=DELETE; PRAGMA page_size=512; VACUUM`.
    fn of_version_2() -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sweep.db");
        let fixture = Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap())
            .join("tests/fixtures/sweep-v2.db");
        std::fs::copy(fixture, &path).unwrap();
        (folder, path)
    }

    #[test]
    fn a_file_of_version_2_is_read() {
        let (_folder, path) = of_version_2();
        let (store, about) = Store::open(&path).unwrap().unwrap();
        assert_eq!(
            (about.steps, about.eval_every, about.sweep.space.parameters.len()),
            (6, 500, 2)
        );
        assert_eq!(about.sweep.search.strategy, crate::spec::Strategy::Asha);
        about.sweep.validate(about.steps).unwrap();
        let trials = store.trials(1).unwrap();
        let stands: Vec<(usize, Option<f64>)> =
            trials.iter().map(|trial| (trial.decided, trial.figure(0, "mse"))).collect();
        let expected = [
            (1, None),
            (1, Some(0.035390231758356094)),
            (2, Some(0.03539009019732475)),
            (2, Some(0.03290853649377823)),
        ];
        assert_eq!(stands, expected);
        assert_eq!(trials[0].failure().map(|failure| failure.code), Some(5));
        assert_eq!(trials[0].point["optimizer.learning_rate"], json!(1e30));
        assert_eq!(best(&trials, &about.sweep.metric), Some(3));
        assert!(store.open_jobs(1).unwrap().is_empty());
        assert_eq!(store.decisions().unwrap().len(), 6);
        // It is the sweep that it was, also where its base is given by another name.
        let mut now = about.clone();
        now.sweep.base = "elsewhere/link.toml".into();
        now.base = about.base.replace("base.toml:", "elsewhere/link.toml:");
        assert_ne!(now.base, about.base);
        assert_eq!(crate::identity::difference(&about, &now), None);
        now.base = about.base.replace("\"code_dim\":4", "\"code_dim\":8");
        let told = crate::identity::difference(&about, &now).unwrap();
        assert_eq!(told.0, "the base's model.quantizer.code_dim");
    }

    #[test]
    fn a_file_of_another_version_is_refused_with_what_to_do() {
        let (_folder, path) = of_version_2();
        connect(&path).unwrap().execute("UPDATE sweep SET version = 1", []).unwrap();
        let told = Store::open(&path).unwrap_err().to_string();
        assert!(told.contains("its version is 1, this program knows 2: choose another"), "{told}");
    }

    #[test]
    fn a_run_that_failed_costs_more_than_any_other_and_is_kept_with_its_cause() {
        let failed = Outcome { code: 3, message: "worker lost".into(), ..outcome(0.5) };
        let outcomes = vec![vec![Some(outcome(0.5)), Some(failed.clone())]];
        let trial = Trial { point: Point::new(), decided: 1, outcomes };
        assert_eq!(trial.failure(), Some(&failed));
        assert_eq!(trial.standing(&Metric::default()).costs, [f64::INFINITY]);
        let missing = Metric { name: "other".into(), ..Metric::default() };
        assert_eq!(trial.standing(&missing).costs, [f64::INFINITY]);
    }
}
