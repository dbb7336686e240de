//! What has come of a sweep: a table, the best configuration, which parameters matter, and pictures.

mod pictures;
mod table;

use std::path::{Path, PathBuf};

use fanova::{FanovaOptions, RandomForestOptions};

use crate::STATE;
use crate::error::SweepError;
use crate::schedule::Schedule;
use crate::store::{About, Store, Trial, best};
use crate::trial::run_dir;

pub use pictures::draw;
pub use table::{Row, State, Table};

/// Trials below which no importance is told.
const FEW: usize = 8;

/// A sweep that is looked at.
#[derive(Debug)]
pub struct Review {
    /// What it is about.
    pub about: About,
    /// Its trials, in the order in which they began.
    pub trials: Vec<Trial>,
    /// Its rungs.
    pub schedule: Schedule,
}

impl Review {
    /// Reads the state of the sweep in `folder`.
    ///
    /// # Errors
    ///
    /// [`SweepError::Folder`] if there is none.
    pub fn read(folder: &Path) -> Result<Self, SweepError> {
        let found = Store::open(&folder.join(STATE))?;
        let Some((store, about)) = found else {
            let problem = "it holds no sweep: name the folder of one".to_owned();
            return Err(SweepError::Folder { folder: folder.to_owned(), problem });
        };
        Self::of(&store, &about)
    }

    fn of(store: &Store, about: &About) -> Result<Self, SweepError> {
        let trials = store.trials(about.sweep.trials.num_runs())?;
        let schedule = Schedule::new(&about.sweep.search, about.steps);
        Ok(Self { about: about.clone(), trials, schedule })
    }

    /// The trial that is best at the highest rung that any has come to.
    pub fn best(&self) -> Option<usize> {
        best(&self.trials, &self.about.sweep.metric)
    }

    /// How much of the metric's variance at the first rung each parameter explains by itself (Hutter et
    /// al. 2014), the largest first; nothing where trials are few or all alike.
    pub fn importances(&self) -> Vec<(String, f64)> {
        let (space, metric) = (&self.about.sweep.space, &self.about.sweep.metric);
        let arrived: Vec<(&Trial, f64)> = self
            .trials
            .iter()
            .filter_map(|trial| Some((trial, trial.figure(0, &metric.name)?)))
            .collect();
        let costs: Vec<f64> = arrived.iter().map(|(_, value)| *value).collect();
        if costs.len() < FEW || costs.iter().all(|cost| *cost == costs[0]) {
            return Vec::new();
        }
        let columns: Vec<Vec<f64>> = space
            .parameters
            .iter()
            .map(|parameter| {
                let unit = |trial: &Trial| {
                    let value = trial.point.get(&parameter.key)?;
                    parameter.domain.unit_of(value)
                };
                arrived.iter().map(|(trial, _)| unit(trial).unwrap_or(-1.0)).collect()
            })
            .collect();
        let forest = RandomForestOptions::new().seed(0);
        let columns: Vec<&[f64]> = columns.iter().map(Vec::as_slice).collect();
        let Ok(mut fitted) = FanovaOptions::new().random_forest(forest).fit(columns, &costs) else {
            return Vec::new();
        };
        let keys = space.parameters.iter().map(|parameter| parameter.key.clone()).enumerate();
        let mut all: Vec<(String, f64)> =
            keys.map(|(at, key)| (key, fitted.quantify_importance(&[at]).mean)).collect();
        all.retain(|(_, share)| share.is_finite());
        all.sort_by(|a, b| b.1.total_cmp(&a.1));
        all
    }

    /// The best trial's configuration, to be trained as it is.
    ///
    /// # Errors
    ///
    /// [`SweepError::File`] if its run folder cannot be read.
    pub fn best_config(&self, folder: &Path) -> Result<Option<String>, SweepError> {
        let Some(best) = self.best() else { return Ok(None) };
        let trials = &self.about.sweep.trials;
        let path = run_dir(folder, best, (trials.folds > 0).then_some(0)).join("config.toml");
        let text = std::fs::read_to_string(&path).map_err(SweepError::file("read", &path))?;
        let mut table: toml::Table =
            text.parse().map_err(|error: toml::de::Error| SweepError::Spec {
                place: path.display().to_string(),
                problem: error.message().to_owned(),
            })?;
        // What the sweep itself had set.
        for (name, key) in
            [("train", "stop_at"), ("checkpoint", "keep"), ("data", "folds"), ("data", "fold")]
        {
            if let Some(toml::Value::Table(inner)) = table.get_mut(name) {
                inner.remove(key);
            }
        }
        if let Some(toml::Value::Table(eval)) = table.get_mut("eval") {
            eval.insert("every".to_owned(), (self.about.eval_every as i64).into());
        }
        let metric = &self.about.sweep.metric.name;
        let trial = &self.trials[best];
        let rung = trial.last_rung().expect("the best one has come to a rung");
        let (steps, value) = (self.schedule.rungs[rung], trial.figure(rung, metric));
        Ok(Some(format!(
            "# Trial {best}, the best of {}: {metric} {} after {steps} steps.\n\n{table}",
            self.trials.len(),
            value.unwrap_or(f64::NAN),
        )))
    }
}

/// Every decision of the sweep in `folder` with its reason, in order: trial, rung, steps, reason.
///
/// # Errors
///
/// [`SweepError::Folder`] if there is none.
pub fn decisions(folder: &Path) -> Result<Vec<(usize, usize, u64, String)>, SweepError> {
    match Store::open(&folder.join(STATE))? {
        Some((store, _)) => store.decisions(),
        None => Review::read(folder).map(|_| Vec::new()),
    }
}

/// Writes `table.csv` and `best.toml` into the sweep's folder.
///
/// # Errors
///
/// [`SweepError::File`].
pub(crate) fn write(store: &Store, about: &About, folder: &Path) -> Result<(), SweepError> {
    let result = Review::of(store, about)?;
    let put = |name: &str, text: String| {
        let path: PathBuf = folder.join(name);
        std::fs::write(&path, text).map_err(SweepError::file("write", path))
    };
    put("table.csv", Table::of(&result).csv())?;
    match result.best_config(folder)? {
        Some(text) => put("best.toml", text),
        None => Ok(()),
    }
}
