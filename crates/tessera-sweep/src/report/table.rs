//! The table of a sweep: a row a trial, the best first, the same however often the sweep was killed.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::Value;

use super::Review;

/// How a trial stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It has come to the end.
    Done,
    /// It was not sent further.
    Stopped,
    /// It was decided on and has not arrived.
    Open,
    /// A run of it has failed.
    Failed,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Stopped => "stopped",
            Self::Open => "open",
            Self::Failed => "failed",
        }
    }
}

/// A trial.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Its number, from 0.
    pub trial: usize,
    /// How it stands.
    pub state: State,
    /// Optimiser steps of the last rung that it has come to; 0 before the first.
    pub steps: u64,
    /// Its values, in the order of [`Table::parameters`]; none where one is not active.
    pub values: Vec<Option<Value>>,
    /// Its figures there, in the order of [`Table::figures`].
    pub figures: Vec<Option<f64>>,
    /// Why it failed; empty where it did not.
    pub message: String,
}

/// A row a trial.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// Keys of the parameters.
    pub parameters: Vec<String>,
    /// Names of the figures, the metric first.
    pub figures: Vec<String>,
    /// The trials, the best first.
    pub rows: Vec<Row>,
}

impl Table {
    /// The table of a sweep.
    pub fn of(result: &Review) -> Self {
        let metric = &result.about.sweep.metric;
        let keys = result.about.sweep.space.parameters.iter();
        let parameters: Vec<String> = keys.map(|parameter| parameter.key.clone()).collect();
        let outcomes =
            result.trials.iter().flat_map(|trial| trial.outcomes.iter().flatten().flatten());
        let names: BTreeSet<&String> = outcomes
            .flat_map(|outcome| &outcome.figures)
            .filter(|(name, value)| value.is_number() && *name != "step")
            .map(|(name, _)| name)
            .collect();
        let mut figures: Vec<String> = names.into_iter().cloned().collect();
        figures.sort_by_key(|name| *name != metric.name);

        let last = result.schedule.rungs.len();
        let mut rows: Vec<Row> = Vec::new();
        for (number, trial) in result.trials.iter().enumerate() {
            let good = |rung: &usize| {
                trial.outcomes[*rung].iter().flatten().all(|outcome| outcome.message.is_empty())
            };
            let arrived = trial.last_rung().map_or(0, |rung| rung + 1);
            let reached = (0..arrived).take_while(good).last();
            let state = match (trial.failure(), reached) {
                (Some(_), _) => State::Failed,
                (None, reached) if reached.map_or(0, |rung| rung + 1) < trial.decided => {
                    State::Open
                }
                (None, Some(rung)) if rung + 1 == last => State::Done,
                (None, _) => State::Stopped,
            };
            rows.push(Row {
                trial: number,
                state,
                steps: reached.map_or(0, |rung| result.schedule.rungs[rung]),
                values: parameters.iter().map(|key| trial.point.get(key).cloned()).collect(),
                figures: figures
                    .iter()
                    .map(|name| reached.and_then(|rung| trial.figure(rung, name)))
                    .collect(),
                message: trial.failure().map_or(String::new(), |outcome| outcome.message.clone()),
            });
        }
        let cost = |row: &Row| {
            let value = row.figures.first().copied().flatten();
            value.map_or(f64::INFINITY, |value| metric.cost(value))
        };
        rows.sort_by(|a, b| {
            let failed = (a.state == State::Failed).cmp(&(b.state == State::Failed));
            failed
                .then(b.steps.cmp(&a.steps))
                .then(cost(a).total_cmp(&cost(b)))
                .then(a.trial.cmp(&b.trial))
        });
        Self { parameters, figures, rows }
    }

    /// As comma-separated values (RFC 4180, with plain line ends).
    pub fn csv(&self) -> String {
        let mut text = String::new();
        let head = ["trial", "state", "steps"].into_iter().map(str::to_owned);
        let head = head.chain(self.parameters.iter().cloned()).chain(self.figures.iter().cloned());
        line(&mut text, head.chain(["message".to_owned()]));
        for row in &self.rows {
            let first = [row.trial.to_string(), row.state.name().to_owned(), row.steps.to_string()];
            let figures =
                row.figures.iter().map(|figure| figure.map_or(String::new(), |f| f.to_string()));
            let cells = first.into_iter().chain(row.values.iter().map(shown)).chain(figures);
            line(&mut text, cells.chain([row.message.clone()]));
        }
        text
    }

    /// As a table for a person: the metric alone of all figures, `num` rows at most.
    pub fn text(&self, num: usize) -> String {
        let mut lines: Vec<Vec<String>> = Vec::new();
        let short = |key: &String| key.rsplit('.').next().unwrap_or(key).to_owned();
        let head = ["trial", "state", "steps"].into_iter().map(str::to_owned);
        let metric = self.figures.first().cloned();
        lines.push(head.chain(metric).chain(self.parameters.iter().map(short)).collect());
        for row in self.rows.iter().take(num) {
            let mut cells =
                vec![row.trial.to_string(), row.state.name().to_owned(), row.steps.to_string()];
            if let Some(value) = row.figures.first() {
                cells.push(value.map_or(String::new(), |value| format!("{value:.6}")));
            }
            cells.extend(row.values.iter().map(shown));
            lines.push(cells);
        }
        let columns = lines[0].len();
        let width =
            |at: usize| lines.iter().map(|line| line[at].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for line in &lines {
            let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
            text.push('\n');
        }
        if self.rows.len() > num {
            let _ = writeln!(text, "and {} more", self.rows.len() - num);
        }
        text
    }
}

fn shown(value: &Option<Value>) -> String {
    match value {
        None => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
    }
}

fn line(text: &mut String, cells: impl Iterator<Item = String>) {
    let quoted = cells.map(|cell| {
        let plain = !cell.contains([',', '"', '\n', '\r']);
        if plain { cell } else { format!("\"{}\"", cell.replace('"', "\"\"")) }
    });
    text.push_str(&quoted.collect::<Vec<_>>().join(","));
    text.push('\n');
}
