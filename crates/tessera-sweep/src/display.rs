//! What a person sees of a sweep: on a terminal a line for each run and the best so far, elsewhere a line
//! for each run that ends.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde::Deserialize;
use tessera_control::last_row;

use crate::schedule::Schedule;
use crate::spec::Metric;
use crate::store::{Job, Outcome};
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
    bars: Option<MultiProgress>,
    metric: Metric,
    last_rung: usize,
    steps: u64,
    shown: RefCell<Shown>,
}

#[derive(Debug, Default)]
struct Shown {
    lines: BTreeMap<usize, ProgressBar>,
    looked: Option<Instant>,
    best: Option<(f64, usize)>,
}

impl Display {
    pub(crate) fn new(metric: &Metric, schedule: &Schedule) -> Self {
        let bars = std::io::stderr().is_terminal().then(MultiProgress::new);
        let last_rung = schedule.rungs.len() - 1;
        let steps = schedule.rungs[last_rung];
        Self { bars, metric: metric.clone(), last_rung, steps, shown: RefCell::default() }
    }

    /// Prints a line.
    pub(crate) fn say(&self, line: &str) {
        let write = || {
            let _ = writeln!(std::io::stderr().lock(), "{line}");
        };
        match &self.bars {
            Some(bars) => bars.suspend(write),
            None => write(),
        }
    }

    /// Shows how a run has ended.
    pub(crate) fn ended(&self, job: &Job, outcome: &Outcome, folds: bool) {
        let Job { trial, rung, fold, steps } = job;
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
            let cost = self.metric.cost(value);
            let mut shown = self.shown.borrow_mut();
            if *rung == self.last_rung && shown.best.is_none_or(|(best, _)| cost < best) {
                shown.best = Some((cost, *trial));
            }
        }
    }

    /// Shows how far the runs are.
    pub(crate) fn draw(&self, running: &[Running]) {
        let Some(bars) = &self.bars else { return };
        let mut shown = self.shown.borrow_mut();
        if shown.looked.is_some_and(|at| at.elapsed() < EVERY) {
            return;
        }
        shown.looked = Some(Instant::now());
        let best = shown.best.map_or(String::new(), |(cost, trial)| {
            format!("best {}: {:.6}, trial {trial}", self.metric.name, self.metric.cost(cost))
        });
        shown.lines.retain(|slot, line| {
            let runs = running.iter().any(|run| run.slot == *slot);
            if !runs {
                line.finish_and_clear();
            }
            runs
        });
        for run in running {
            let line = shown.lines.entry(run.slot).or_insert_with(|| {
                let line = bars.add(ProgressBar::new(self.steps));
                let style = ProgressStyle::with_template("{prefix:12} {bar:24} {pos}/{len} {msg}");
                line.set_style(style.unwrap_or(ProgressStyle::default_bar()));
                line
            });
            line.set_prefix(format!("trial {}", run.job.trial));
            let row: Option<Row> = last_row(&run.run_dir.join("metrics.jsonl"));
            line.set_position(row.as_ref().map_or(0, |row| row.step));
            let loss = row.map_or("starting".to_owned(), |row| format!("loss {:.5}", row.loss));
            line.set_message(format!("of {} now, {loss}  {best}", run.job.steps));
        }
    }
}
