//! What has come of a sweep: a table, the best configuration, which parameters matter, and pictures.

mod forest;
mod pictures;
mod table;

use std::path::{Path, PathBuf};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use self::forest::Forest;
use crate::STATE;
use crate::error::SweepError;
use crate::sampler::unit;
use crate::schedule::Schedule;
use crate::store::{About, Store, Trial, best};
use crate::trial::run_dir;

pub use pictures::draw;
pub use table::{Row, State, Table};

/// Trials below which no importance is told.
const FEW: usize = 8;
/// Share of the variance below which what a forest explains is no more than chance.
const NOTHING: f64 = 0.1;

/// Which parameters matter.
#[derive(Debug, Clone, PartialEq)]
pub struct Importances {
    /// How much of the metric's variance each parameter explains by itself, by its key, the largest first.
    pub shares: Vec<(String, f64)>,
    /// How well the forest that says so predicts trials that it was not grown from: R^2, out of bag.
    pub r_squared: f64,
}

impl Importances {
    /// Whether the forest predicts nothing, so that the shares say nothing.
    pub fn are_void(&self) -> bool {
        self.r_squared < NOTHING
    }
}

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
    /// al. 2014), over the whole space and all trials that did not fail; `None` where trials are few or
    /// all alike. A trial where a parameter is not active gets a value drawn evenly there, of which nothing
    /// can be learned.
    pub fn importances(&self) -> Option<Importances> {
        let (space, metric) = (&self.about.sweep.space, &self.about.sweep.metric);
        let arrived: Vec<(&Trial, f64)> = self
            .trials
            .iter()
            .filter_map(|trial| Some((trial, trial.figure(0, &metric.name)?)))
            .collect();
        let values: Vec<f64> = arrived.iter().map(|(_, value)| *value).collect();
        if values.len() < FEW || values.iter().all(|value| *value == values[0]) {
            return None;
        }
        let mut random = ChaCha8Rng::seed_from_u64(0);
        let mut columns: Vec<Vec<f64>> = Vec::new();
        for parameter in &space.parameters {
            let mut place = |trial: &Trial| {
                let value = trial.point.get(&parameter.key);
                let found = value.and_then(|value| parameter.domain.unit_of(value));
                found.unwrap_or_else(|| {
                    let drawn = parameter.domain.at(unit(&mut random));
                    parameter.domain.unit_of(&drawn).expect("one of its values")
                })
            };
            columns.push(arrived.iter().map(|(trial, _)| place(trial)).collect());
        }
        let forest = Forest::grow(&columns, &values);
        let keys = space.parameters.iter().map(|parameter| parameter.key.clone());
        let mut shares: Vec<(String, f64)> = keys.zip(forest.shares()).collect();
        shares.sort_by(|a, b| b.1.total_cmp(&a.1));
        Some(Importances { shares, r_squared: forest.r_squared })
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::space::Point;
    use crate::spec::{Search, Sweep};
    use crate::store::Outcome;

    /// 64 trials of a kind, and of a size that one of two kinds has; what they cost.
    fn review(cost: impl Fn(&Point) -> f64) -> Review {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sweep.toml");
        let file = r#"
            base = "base.toml"
            [[parameters]]
            key = "kind"
            values = ["a", "b"]
            [[parameters]]
            key = "size"
            range = [0.0, 1.0]
            when = { kind = "a" }
        "#;
        std::fs::write(&path, file).unwrap();
        let sweep = Sweep::read(&path, &[]).unwrap();
        let trial = |at: usize| {
            let units = [(at % 2) as f64 / 2.0, (at / 2) as f64 / 32.0];
            let point = sweep.space.at(&units).unwrap();
            let figures = json!({ "mse": cost(&point) }).as_object().unwrap().clone();
            let outcome = Outcome { code: 0, message: String::new(), figures, seconds: 1.0 };
            Trial { point, decided: 1, outcomes: vec![vec![Some(outcome)]] }
        };
        let trials = (0..64).map(trial).collect();
        let schedule = Schedule::new(&Search::default(), 90);
        let about = About { sweep, base: String::new(), steps: 90, eval_every: 30 };
        Review { about, trials, schedule }
    }

    /// The kind decides alone. Which trials have a size says the kind, too, and must not count for it.
    #[test]
    fn a_parameter_explains_nothing_where_it_is_not_active() {
        let cost = |point: &Point| f64::from(u8::from(point["kind"] == "b"));
        let found = review(cost).importances().unwrap();
        assert_eq!(found.shares[0].0, "kind");
        assert!(found.shares[0].1 > 0.95 && found.shares[1].1 < 0.05, "{found:?}");
        assert!(found.r_squared > 0.95 && !found.are_void(), "{found:?}");
    }

    #[test]
    fn importances_of_chance_are_void() {
        let digits = |value: Option<&Value>| {
            value.map_or(0.5, |value| (value.as_f64().unwrap() * 1e4).sin())
        };
        let found = review(|point| digits(point.get("size"))).importances().unwrap();
        assert!(found.are_void(), "{found:?}");
        assert_eq!(review(|_| 1.0).importances(), None);
    }
}
