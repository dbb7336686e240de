//! What a sweep is: a file, or a base configuration and words on the command line.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tessera_control::shipped_name;

use crate::error::SweepError;
use crate::space::{Domain, Parameter, Space};

mod figures;
mod file;
mod words;

pub use self::figures::FIGURES;

/// Points that a grid takes of a range that does not say.
const POINTS: usize = 5;

/// A sweep, with everything said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sweep {
    /// The configuration that all trials begin with.
    pub base: PathBuf,
    /// What all trials set alike, by configuration key.
    pub set: BTreeMap<String, Value>,
    /// What they vary.
    pub space: Space,
    /// How points are chosen.
    pub search: Search,
    /// What is to become good.
    pub metric: Metric,
    /// How much may be spent.
    pub budget: Budget,
    /// How each trial is run.
    pub trials: Trials,
    /// What the report shows.
    pub report: Report,
}

/// The `[search]` table: how points are chosen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Search {
    /// `"grid"`, `"random"`, `"sobol"` and `"tpe"` train every trial to its end; `"halving"` and
    /// `"asha"` stop bad ones early.
    pub strategy: Strategy,
    /// Where `"halving"` and `"asha"` take new points from: `"grid"`, `"random"`, `"sobol"`, `"tpe"`.
    pub sampler: Sampler,
    /// Trials; 0, with grids: all points.
    pub trials: usize,
    /// Key of all that is drawn.
    pub seed: u64,
    /// `"halving"` and `"asha"`: optimiser steps of the first rung.
    pub min_steps: u64,
    /// `"halving"` and `"asha"`: one in so many goes on, to so many times the steps.
    pub factor: u64,
}

/// How trials are chosen and how long they are trained.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// Every point of the grid.
    #[default]
    Grid,
    /// Points drawn evenly; of a finite space none comes twice.
    Random,
    /// Points of a scrambled Sobol sequence (Owen 1995; Burley 2020).
    Sobol,
    /// Tree-structured Parzen estimators (Bergstra et al. 2011), one a parameter.
    Tpe,
    /// Synchronous successive halving (Jamieson and Talwalkar 2016).
    Halving,
    /// Asynchronous successive halving (Li et al. 2020).
    Asha,
}

impl Strategy {
    /// The names, in the order of the documentation.
    pub const NAMES: [&str; 6] = ["grid", "random", "sobol", "tpe", "halving", "asha"];

    /// Whether trials are compared at rungs on the way, and bad ones stopped there.
    pub fn has_rungs(self) -> bool {
        matches!(self, Self::Halving | Self::Asha)
    }

    /// That of a name.
    pub fn named(name: &str) -> Option<Self> {
        serde_json::from_value(Value::from(name)).ok()
    }
}

/// Where new points come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sampler {
    /// The grid, in an order drawn from the seed.
    Grid,
    /// See [`Strategy::Random`].
    #[default]
    Random,
    /// See [`Strategy::Sobol`].
    Sobol,
    /// See [`Strategy::Tpe`].
    Tpe,
}

impl Default for Search {
    fn default() -> Self {
        Self {
            strategy: Strategy::Grid,
            sampler: Sampler::Random,
            trials: 0,
            seed: 0,
            min_steps: 0,
            factor: 3,
        }
    }
}

/// The `[metric]` table: what is to become good.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Metric {
    /// A figure of an evaluation: `"mse"`, `"psnr"`, `"ssim"`, `"perplexity"`, ...
    pub name: String,
    /// Whether small or large is good.
    pub goal: Goal,
}

/// Whether small or large is good.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// Small is good.
    #[default]
    Minimize,
    /// Large is good.
    Maximize,
}

impl Default for Metric {
    fn default() -> Self {
        Self { name: "mse".to_owned(), goal: Goal::Minimize }
    }
}

impl Metric {
    /// The metric as a cost: small is good.
    pub fn cost(&self, value: f64) -> f64 {
        match self.goal {
            Goal::Minimize => value,
            Goal::Maximize => -value,
        }
    }
}

/// The `[budget]` table: how much may be spent; 0 is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Budget {
    /// Optimiser steps of all trials together.
    pub steps: u64,
    /// Seconds; nothing new is begun after that.
    pub seconds: f64,
}

/// The `[trials]` table: how each trial is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Trials {
    /// Workers of a trial.
    pub workers: usize,
    /// Parts of the training data of which each is the test data once; 0: the data's own split.
    pub folds: u64,
    /// How often a trial whose workers fail is started again.
    pub max_restarts: u32,
}

impl Default for Trials {
    fn default() -> Self {
        Self { workers: 1, folds: 0, max_restarts: 1 }
    }
}

impl Trials {
    /// Runs that a trial has.
    pub fn num_runs(&self) -> u64 {
        self.folds.max(1)
    }
}

/// The `[report]` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Report {
    /// What the metric is set against: `"parameters"`, the model's, or a figure of an evaluation.
    pub size: String,
}

impl Default for Report {
    fn default() -> Self {
        Self { size: "parameters".to_owned() }
    }
}

impl Sweep {
    /// Reads a sweep file, or takes a configuration of a run as the base of a sweep, and then what
    /// `sets` say, each `key=value`, `key=value,value,...`, or `key=log(low,high,points)` with `log`,
    /// `range`, `int` or `logint`.
    ///
    /// # Errors
    ///
    /// [`SweepError::Spec`] with the place of the first mistake.
    pub fn read(path: &Path, sets: &[String]) -> Result<Self, SweepError> {
        let place = path.display().to_string();
        // One that the program brings is of a run.
        let mut sweep = match shipped_name(path) {
            Some(_) => Self::over(path),
            None => Self::read_file(path, &place)?,
        };
        for set in sets {
            sweep
                .set(set)
                .map_err(|problem| SweepError::Spec { place: format!("--set {set}"), problem })?;
        }
        Ok(sweep)
    }

    fn read_file(path: &Path, place: &str) -> Result<Self, SweepError> {
        let refused = |problem: String| SweepError::Spec { place: place.to_owned(), problem };
        let text = std::fs::read_to_string(path).map_err(|error| {
            refused(format!("cannot be read ({error}): name a sweep file or a configuration"))
        })?;
        let table: toml::Table =
            toml::from_str(&text).map_err(|error| refused(file::place_in(&text, &error)))?;
        if table.contains_key("base") {
            let file: file::File =
                toml::from_str(&text).map_err(|error| refused(file::place_in(&text, &error)))?;
            let folder = path.parent().unwrap_or(Path::new(""));
            file.into_sweep(folder).map_err(refused)
        } else if let Some(key) =
            ["parameters", "search"].into_iter().find(|key| table.contains_key(*key))
        {
            Err(refused(format!("[{key}] is of a sweep, which should name its base = \"CONFIG\"")))
        } else {
            Ok(Self::over(path))
        }
    }

    /// A sweep over a base configuration that varies nothing yet.
    fn over(base: &Path) -> Self {
        Self {
            base: base.to_owned(),
            set: BTreeMap::new(),
            space: Space::default(),
            search: Search::default(),
            metric: Metric::default(),
            budget: Budget::default(),
            trials: Trials::default(),
            report: Report::default(),
        }
    }

    /// Takes one `key=...` of the command line: it goes before what the file says of that key.
    fn set(&mut self, text: &str) -> Result<(), String> {
        let Some((key, words)) = text.split_once('=') else {
            return Err("expected key=value, as in train.steps=100".to_owned());
        };
        let (key, words) = (key.trim(), words.trim());
        self.set.remove(key);
        let domain = match words::call(words) {
            Some((name, arguments)) => words::ranged(name, &arguments)?,
            None if words::is_call(words) => {
                return Err("a bracket is open: write log(low,high,points)".to_owned());
            }
            None => {
                let values: Vec<Value> =
                    words::parts(words).into_iter().map(words::value_of).collect();
                match &values[..] {
                    [one] => {
                        self.space.parameters.retain(|parameter| parameter.key != key);
                        self.set.insert(key.to_owned(), one.clone());
                        return Ok(());
                    }
                    _ => Domain::Values(values),
                }
            }
        };
        match self.space.parameters.iter_mut().find(|parameter| parameter.key == key) {
            Some(parameter) => parameter.domain = domain,
            None => {
                let (key, when) = (key.to_owned(), BTreeMap::new());
                self.space.parameters.push(Parameter { key, domain, when });
            }
        }
        Ok(())
    }

    /// What is wrong, if anything. `steps`: optimiser steps of a whole training.
    ///
    /// # Errors
    ///
    /// [`SweepError::Spec`] or [`SweepError::Space`] in one line.
    pub fn validate(&self, steps: u64) -> Result<(), SweepError> {
        self.space.validate()?;
        for (key, name) in [("metric.name", &self.metric.name), ("report.size", &self.report.size)]
        {
            if !FIGURES.contains(&name.as_str()) {
                let (name, known) = (name.clone(), FIGURES.join(", "));
                return Err(SweepError::Metric { key, name, known });
            }
        }
        let refused =
            |problem: String| Err(SweepError::Spec { place: "the sweep".to_owned(), problem });
        if let Some(key) =
            ["train.stop_at", "eval.every", "data.fold", "data.folds"].into_iter().find(|key| {
                self.set.contains_key(*key)
                    || self.space.parameters.iter().any(|one| one.key == *key)
            })
        {
            return refused(format!("{key} is the sweep's own: leave it out"));
        }
        if self.space.parameters.iter().any(|parameter| parameter.key == "train.steps") {
            return refused(
                "train.steps cannot be varied: trials are compared after as many steps".to_owned(),
            );
        }
        let Search { strategy, sampler, trials, min_steps, factor, .. } = self.search;
        let grid = strategy == Strategy::Grid || (sampler == Sampler::Grid && strategy.has_rungs());
        if trials == 0 && !grid {
            return refused("search.trials should say how many trials there are to be".to_owned());
        }
        if strategy.has_rungs() {
            if !(1..=steps).contains(&min_steps) {
                return refused(format!(
                    "search.min_steps should be from 1 to train.steps, {steps}, found {min_steps}"
                ));
            }
            if factor < 2 {
                return refused(format!("search.factor should be 2 or more, found {factor}"));
            }
        }
        if self.trials.workers == 0 {
            return refused("trials.workers should be 1 or more".to_owned());
        }
        if self.trials.folds == 1 {
            return refused("trials.folds should be 0, or 2 or more".to_owned());
        }
        let first = if min_steps > 0 && strategy.has_rungs() { min_steps } else { steps };
        let least = first.saturating_mul(self.trials.num_runs());
        if (1..least).contains(&self.budget.steps) {
            return refused(format!(
                "budget.steps should be {least}, what one trial takes, or more, found {}",
                self.budget.steps
            ));
        }
        if !(self.budget.seconds >= 0.0 && self.budget.seconds.is_finite()) {
            return refused(format!(
                "budget.seconds should be 0 or more, found {}",
                self.budget.seconds
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
