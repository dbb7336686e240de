//! What a person sees of a sweep: on a terminal a line for each run, and one for the sweep with the best trial so
//! far; elsewhere a line for each run that ends.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde::Deserialize;
use tessera_control::last_row;

use crate::schedule::Schedule;
use crate::spec::Metric;
use crate::store::{Job, Outcome, Trial, best};
use crate::trial::Running;

/// Time between two looks at the rows of the runs.
const EVERY: Duration = Duration::from_millis(500);

#[derive(Deserialize)]
struct Row {
    step: u64,
    loss: f64,
}

/// Draws on stderr.
#[derive(Debug)]
pub(crate) struct Display {
    bars: Option<Bars>,
    metric: Metric,
    rungs: Vec<u64>,
}

/// On a terminal: a line for each run, and below them one for the whole sweep.
#[derive(Debug)]
struct Bars {
    all: MultiProgress,
    sweep: ProgressBar,
    runs: RefCell<Runs>,
}

#[derive(Debug, Default)]
struct Runs {
    lines: BTreeMap<usize, ProgressBar>,
    looked: Option<Instant>,
}

/// A bar in the style of a template that is written here.
fn bar(length: u64, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template);
    ProgressBar::new(length).with_style(style.expect("a template of ours"))
}

impl Display {
    pub(crate) fn new(metric: &Metric, schedule: &Schedule) -> Self {
        let bars = std::io::stderr().is_terminal().then(|| {
            let all = MultiProgress::new();
            let sweep = all.add(bar(0, "{prefix:12} {bar:24} {pos}/{len} {msg}  {elapsed}"));
            sweep.set_prefix("trials");
            Bars { all, sweep, runs: RefCell::default() }
        });
        Self { bars, metric: metric.clone(), rungs: schedule.rungs.clone() }
    }

    /// Prints a line.
    pub(crate) fn say(&self, line: &str) {
        let write = || {
            let _ = writeln!(std::io::stderr().lock(), "{line}");
        };
        match &self.bars {
            Some(bars) => bars.all.suspend(write),
            None => write(),
        }
    }

    /// Shows how a run has ended.
    pub(crate) fn ended(&self, job: &Job, outcome: &Outcome, folds: bool) {
        let Job { trial, fold, steps, .. } = job;
        let fold = if folds { format!(" fold {fold}") } else { String::new() };
        let name = &self.metric.name;
        let value = outcome.figures.get(name).and_then(serde_json::Value::as_f64);
        if !outcome.message.is_empty() {
            self.say(&format!(
                "trial {trial}{fold} failed with {}: {}",
                outcome.code, outcome.message
            ));
        } else if let Some(value) = value {
            self.say(&format!("trial {trial}{fold} step {steps} {name} {value:.6}"));
        }
    }

    /// Shows how the sweep stands, which is to have so many trials.
    pub(crate) fn stands(&self, trials: &[Trial], wanted: usize) {
        let Some(Bars { sweep, .. }) = &self.bars else { return };
        sweep.set_length(wanted as u64);
        sweep.set_position(num_arrived(trials) as u64);
        sweep.set_message(standing(trials, &self.metric, &self.rungs));
    }

    /// Shows how far the runs are.
    pub(crate) fn draw(&self, running: &[Running]) {
        let Some(bars) = &self.bars else { return };
        let mut shown = bars.runs.borrow_mut();
        if shown.looked.is_some_and(|at| at.elapsed() < EVERY) {
            return;
        }
        shown.looked = Some(Instant::now());
        bars.sweep.tick();
        shown.lines.retain(|slot, line| {
            let runs = running.iter().any(|run| run.slot == *slot);
            if !runs {
                line.finish_and_clear();
            }
            runs
        });
        let length = *self.rungs.last().expect("there is a last rung");
        for run in running {
            let line = shown.lines.entry(run.slot).or_insert_with(|| {
                let line = bar(length, "{prefix:12} {bar:24} {pos}/{len} {msg}");
                bars.all.insert_before(&bars.sweep, line)
            });
            line.set_prefix(format!("trial {}", run.job.trial));
            let row: Option<Row> = last_row(&run.run_dir.join("metrics.jsonl"));
            line.set_position(row.as_ref().map_or(0, |row| row.step));
            let loss = row.map_or("starting".to_owned(), |row| format!("loss {:.5}", row.loss));
            line.set_message(format!("of {} now, {loss}", run.job.steps));
        }
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        if let Some(bars) = &self.bars {
            bars.sweep.abandon(); // stays, as the last that was known
        }
    }
}

/// Trials that are where they were sent, or have failed.
fn num_arrived(trials: &[Trial]) -> usize {
    let arrived = |trial: &&Trial| {
        trial.failure().is_some() || trial.last_rung().is_some_and(|rung| rung + 1 == trial.decided)
    };
    trials.iter().filter(arrived).count()
}

/// The best trial with its values, and how many have failed.
fn standing(trials: &[Trial], metric: &Metric, rungs: &[u64]) -> String {
    let num_failed = trials.iter().filter(|trial| trial.failure().is_some()).count();
    let mut words = Vec::new();
    if num_failed > 0 {
        words.push(format!("{num_failed} failed"));
    }
    if let Some(best) = best(trials, metric) {
        let trial = &trials[best];
        let rung = trial.last_rung().expect("the best one has come to a rung");
        let value = trial.figure(rung, &metric.name).expect("and has the metric there");
        // The last part of a key is what people call it.
        let point = trial
            .point
            .iter()
            .map(|(key, value)| format!(" {}={value}", key.rsplit('.').next().unwrap_or(key)));
        let point: String = point.collect();
        let (name, steps) = (&metric.name, rungs[rung]);
        words.push(format!("best {name} {value:.6} at step {steps}: trial {best},{point}"));
    }
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn trial(decided: usize, outcomes: Vec<Vec<Option<Outcome>>>) -> Trial {
        let point = BTreeMap::from([("model.quantizer.num_codes".to_owned(), json!(64))]);
        Trial { point, decided, outcomes }
    }

    fn outcome(mse: f64, message: &str) -> Option<Outcome> {
        let figures = json!({ "mse": mse }).as_object().expect("an object").clone();
        Some(Outcome { code: 0, message: message.to_owned(), figures, seconds: 1.0 })
    }

    #[test]
    fn the_sweeps_line_counts_all_starts_and_takes_the_mean_over_folds() {
        let trials = [
            trial(1, vec![vec![outcome(0.25, ""), outcome(0.75, "")]]),
            // The better fold alone does not make the better trial.
            trial(1, vec![vec![outcome(0.125, ""), outcome(1.5, "")]]),
            trial(1, vec![vec![outcome(0.0, "a bug"), None]]),
            trial(1, vec![vec![outcome(0.0, ""), None]]),
        ];
        assert_eq!(num_arrived(&trials), 3);
        let said = standing(&trials, &Metric::default(), &[60]);
        assert_eq!(said, "1 failed, best mse 0.500000 at step 60: trial 0, num_codes=64");
        assert_eq!(standing(&[], &Metric::default(), &[60]), "");
    }

    /// A trial that has come further goes before one with a lower error early on.
    #[test]
    fn the_best_is_one_of_those_that_have_come_furthest() {
        let trials = [
            trial(2, vec![vec![outcome(0.5, "")], vec![outcome(0.25, "")]]),
            trial(1, vec![vec![outcome(0.125, "")]]),
            trial(2, vec![vec![outcome(0.0625, "")], vec![None]]),
        ];
        assert_eq!(num_arrived(&trials), 2);
        let said = standing(&trials, &Metric::default(), &[20, 60]);
        assert_eq!(said, "best mse 0.250000 at step 60: trial 0, num_codes=64");
    }
}
