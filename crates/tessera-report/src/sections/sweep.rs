//! A sweep: its trials, the best first, and the metric against each parameter.

use maud::{Markup, html};
use serde_json::Value;
use tessera_sweep::report::{Row, State};
use tessera_sweep::{Domain, Goal, Parameter};

use crate::chart::{Axis, Mark, Parallel, Path, Scatter, scrolled};
use crate::numbers::{long, percent, short};
use crate::page::Page;
use crate::sweep::SweepView;

/// Trials in the table.
const MOST: usize = 200;

/// The section; none where no sweep was given.
pub(super) fn section(page: &Page, sweeps: &[SweepView]) -> Option<Markup> {
    if sweeps.is_empty() {
        return None;
    }
    Some(html! {
        @for sweep in sweeps {
            @if sweeps.len() > 1 { h3 { (sweep.name) } }
            (of_sweep(page, sweep, sweeps.len() > 1))
        }
    })
}

fn of_sweep(page: &Page, sweep: &SweepView, has_name: bool) -> Markup {
    let metric = &sweep.review.about.sweep.metric;
    let goal = if metric.goal == Goal::Minimize { "small is good" } else { "large is good" };
    let failed = sweep.table.rows.iter().filter(|row| row.state == State::Failed).count();
    html! {
        p {
            (sweep.table.rows.len()) " trials of up to " (short(sweep.review.about.steps as f64)) " steps, by "
            code { (metric.name) } " (" (goal) ")" @if failed > 0 { "; " (failed) " failed" } "."
        }
        (scrolled("Trials", table(page, sweep)))
        div class="charts" {
            (parallel(page, sweep))
            @for (at, parameter) in sweep.review.about.sweep.space.parameters.iter().enumerate() {
                (scatter(page, sweep, at, parameter))
            }
        }
        @if let Some(importances) = sweep.review.importances().filter(|importances| !importances.are_void()) {
            @let matter = "Which parameters matter";
            @if has_name { h4 { (matter) } } @else { h3 { (matter) } }
            table {
                caption { "Share of the metric's variance that a parameter explains by itself; a forest says so whose R² is " (short(importances.r_squared)) "." }
                tbody { @for (key, share) in &importances.shares { tr { th scope="row" { code { (key) } } td { (percent(*share)) } } } }
            }
        }
    }
}

fn shown(value: Option<&Value>) -> String {
    match value {
        None => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) if number.is_f64() => {
            short(number.as_f64().unwrap_or(f64::NAN))
        }
        Some(value) => value.to_string(),
    }
}

fn state(row: &Row) -> &'static str {
    match row.state {
        State::Done => "done",
        State::Stopped => "stopped",
        State::Open => "open",
        State::Failed => "failed",
    }
}

fn table(page: &Page, sweep: &SweepView) -> Markup {
    let most = if page.most_rows() < MOST / 2 { page.most_rows() } else { MOST };
    let rows = &sweep.table.rows;
    let has_messages = rows.iter().any(|row| !row.message.is_empty());
    html! {
        table {
            caption {
                "The best first" @if rows.len() > most { "; " (rows.len() - most) " more are in table.csv" } "."
            }
            thead { tr {
                th scope="col" { "Trial" } th scope="col" class="text" { "State" } th scope="col" { "Steps" }
                @if let Some(name) = sweep.table.figures.first() { th scope="col" { (name) } }
                @for key in &sweep.table.parameters { th scope="col" { code { (key) } } }
                @if has_messages { th scope="col" class="text" { "Why it failed" } }
            } }
            tbody { @for row in rows.iter().take(most) { tr {
                th scope="row" { (row.trial) } td class="text" { (state(row)) } td { (short(row.steps as f64)) }
                @if let Some(figure) = row.figures.first() { td { (figure.map_or(String::new(), long)) } }
                @for value in &row.values { td { (shown(value.as_ref())) } }
                @if has_messages { td class="text" { (row.message) } }
            } } }
        }
    }
}

/// Where the value of a parameter is on its axis.
fn place(parameter: &Parameter, value: &Value) -> Option<f64> {
    match &parameter.domain {
        Domain::Values(values) => {
            values.iter().position(|known| known == value).map(|at| at as f64)
        }
        Domain::Range { .. } => value.as_f64(),
    }
}

/// The names of a parameter's values, where it has some, and whether ratios count.
fn names(parameter: &Parameter) -> (Vec<String>, bool) {
    match &parameter.domain {
        Domain::Values(values) => (values.iter().map(|value| shown(Some(value))).collect(), false),
        Domain::Range { log, .. } => (Vec::new(), *log),
    }
}

/// Whether figures lie so far apart that ratios count.
fn is_broad(least: f64, most: f64) -> bool {
    least > 0.0 && most / least > 20.0
}

/// All parameters and the metric at once; nothing of a single parameter, whose chart says it all.
fn parallel(page: &Page, sweep: &SweepView) -> Markup {
    let parameters = &sweep.review.about.sweep.space.parameters;
    let rows: Vec<&Row> = sweep
        .table
        .rows
        .iter()
        .filter(|row| row.figures.first().copied().flatten().is_some())
        .collect();
    if parameters.len() < 2 || rows.is_empty() {
        return html! {};
    }
    let metric = &sweep.review.about.sweep.metric.name;
    let figures = || rows.iter().filter_map(|row| row.figures.first().copied().flatten());
    let (least, most) = (figures().fold(f64::INFINITY, f64::min), figures().fold(0.0, f64::max));
    let mut axes: Vec<Axis<'_>> = parameters
        .iter()
        .map(|parameter| {
            let (names, is_log) = names(parameter);
            let name = parameter.key.rsplit('.').next().unwrap_or(&parameter.key);
            Axis { name, is_log, names }
        })
        .collect();
    axes.push(Axis { name: metric, is_log: is_broad(least, most), names: Vec::new() });
    let path = |(rank, row): (usize, &&Row)| {
        let values = parameters.iter().zip(&row.values);
        let mut values: Vec<Option<f64>> =
            values.map(|(parameter, value)| place(parameter, value.as_ref()?)).collect();
        values.push(row.figures.first().copied().flatten());
        Path { values, name: if rank < 3 { row.trial.to_string() } else { String::new() } }
    };
    Parallel {
        title: "All parameters at once",
        says: "a line a trial; the best three are thick and have their numbers",
        description: &format!(
            "{} trials across {} parameters; the table above has all numbers.",
            rows.len(),
            parameters.len()
        ),
        axes,
        paths: rows.iter().enumerate().map(path).collect(),
        table: table(page, sweep),
    }
    .draw(page)
}

/// The metric against one parameter.
fn scatter(page: &Page, sweep: &SweepView, at: usize, parameter: &Parameter) -> Markup {
    let last = sweep.review.schedule.rungs.last().copied().unwrap_or(0);
    let mut points: Vec<(&Row, f64, f64)> = Vec::new();
    for row in &sweep.table.rows {
        let figure = row.figures.first().copied().flatten();
        if let (Some(x), Some(y)) =
            (row.values[at].as_ref().and_then(|value| place(parameter, value)), figure)
        {
            points.push((row, x, y));
        }
    }
    if points.is_empty() {
        return html! {};
    }
    let marks = points.iter().enumerate().map(|(rank, (row, x, y))| Mark {
        x: *x,
        y: *y,
        radius: 4.0,
        is_hollow: row.steps < last,
        name: if rank < 3 { row.trial.to_string() } else { String::new() },
    });
    let marks: Vec<Mark> = marks.collect();
    let (names, x_log) = names(parameter);
    let metric = &sweep.review.about.sweep.metric.name;
    let least = points.iter().map(|(_, _, y)| *y).fold(f64::INFINITY, f64::min);
    let most = points.iter().map(|(_, _, y)| *y).fold(f64::NEG_INFINITY, f64::max);
    let title = format!("{metric} against {}", parameter.key);
    let description = format!("{} trials; the numbers are in the table below.", marks.len());
    let table = html! {
        table {
            thead { tr { th scope="col" { "Trial" } th scope="col" { code { (parameter.key) } } th scope="col" { (metric) } } }
            tbody { @for (row, _, y) in points.iter().take(page.most_rows()) { tr {
                th scope="row" { (row.trial) } td { (shown(row.values[at].as_ref())) } td { (long(*y)) }
            } } }
        }
    };
    Scatter {
        title: &title,
        says: "a point a trial, the best three with their numbers; rings did not come to the end",
        description: &description,
        marks,
        axes: Some((&parameter.key, x_log, is_broad(least, most))),
        names,
        table,
    }
    .draw(page)
}
