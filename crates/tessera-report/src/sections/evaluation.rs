//! Rows of `eval.jsonl`: the last of each run in a table, all of them over steps, and lists of the last one.

use maud::{Markup, html};
use serde_json::Value;

use super::{letter, named, of_each};
use crate::chart::{Bar, Line, LineChart, bars, scrolled};
use crate::names::{FIRST, label, with_unit};
use crate::numbers::{long, short};
use crate::page::Page;
use crate::read::{Buckets, Run};

/// Fields that are not measured.
const NOT_MEASURED: [&str; 5] =
    ["step", "samples", "feature_samples", "mel_windows", "stft_windows"];
/// Lists over something else than levels: field, and what its entries are numbered by.
const LISTS: [(&str, &str); 4] = [
    ("psnr_by_frame", "frame"),
    ("difference_psnr_by_frame", "frame"),
    ("ssim_by_frame", "frame"),
    ("token_nats", "position"),
];
/// What needs no prior.
const FLOORS: [&str; 4] =
    ["nats_position_and_class", "nats_position", "nats_unigram", "nats_uniform"];

/// The section; none where nothing was evaluated.
pub(super) fn section(page: &Page, runs: &[Run]) -> Option<Markup> {
    if runs.iter().all(|run| run.last_evaluation.is_empty()) {
        return None;
    }
    let names = scalars(runs);
    let drawn: Vec<Markup> = names.iter().filter_map(|name| over_steps(page, runs, name)).collect();
    let lists: Vec<Markup> = LISTS.iter().map(|(name, of)| list(page, runs, name, of)).collect();
    let floors = of_each(runs, |_, run| floors(page, run));
    Some(html! {
        (scrolled("Figures of the last evaluation", last(runs, &names)))
        @if !drawn.is_empty() {
            h3 { "Over the training" }
            div class="charts" { @for chart in &drawn { (chart) } }
        }
        @if lists.iter().any(|list| !list.0.is_empty()) {
            h3 { "Within a sample" }
            div class="charts" { @for list in &lists { (list) } }
        }
        @if let Some(floors) = floors { h3 { "Beside what needs no prior" } (floors) }
        @if let Some(matrix) = of_each(runs, |_, run| confusion(run)) { h3 { "Classes" } (matrix) }
    })
}

/// Names of the numbers that were measured, the most looked at first.
fn scalars(runs: &[Run]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let all = runs.iter().flat_map(|run| &run.last_evaluation);
    let measured = all.filter(|(name, value)| {
        (value.is_number() || value.is_null()) && !NOT_MEASURED.contains(&name.as_str())
    });
    for (name, _) in measured {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names.sort_by_key(|name| FIRST.iter().position(|first| first == name).unwrap_or(FIRST.len()));
    names
}

fn last(runs: &[Run], names: &[String]) -> Markup {
    let about = |run: &Run| {
        let number = |name: &str| run.evaluated(name).map_or("?".to_owned(), short);
        let split = run.last_evaluation.get("split").and_then(Value::as_str).unwrap_or("?");
        format!("step {}, {} samples of {split}", number("step"), number("samples"))
    };
    html! {
        table {
            thead { tr {
                th scope="col" { "Last evaluation" }
                @for (at, run) in runs.iter().enumerate() {
                    th scope="col" { @if runs.len() > 1 { (named(at, runs)) ": " } (about(run)) }
                }
            } }
            tbody { @for name in names { tr {
                th scope="row" { (with_unit(name)) }
                @for run in runs { td { (run.evaluated(name).map_or(String::new(), long)) } }
            } } }
        }
    }
}

fn over_steps(page: &Page, runs: &[Run], name: &str) -> Option<Markup> {
    let lines = runs.iter().enumerate().filter_map(|(at, run)| {
        let curve = run.evaluations.curve(name).filter(|curve| curve.values.all.len() > 1)?;
        let letter = letter(at, runs.len());
        let called = if letter.is_empty() { label(name) } else { format!("{letter} {}", run.name) };
        Some(Line { end: letter, name: called, style: at, buckets: curve.values.all.clone() })
    });
    let lines: Vec<Line> = lines.collect();
    if lines.is_empty() {
        return None;
    }
    Some(
        LineChart { title: &with_unit(name), x_name: "step", lines, log_from: Some(50.0) }
            .draw(page),
    )
}

/// A list of the last evaluation over the number of its entries.
fn list(page: &Page, runs: &[Run], name: &str, of: &str) -> Markup {
    let lines = runs.iter().enumerate().filter_map(|(at, run)| {
        let values = run.evaluated_list(name);
        let mut buckets = Buckets::default();
        values.iter().enumerate().for_each(|(at, value)| buckets.push(at as u64, Some(*value)));
        let letter = letter(at, runs.len());
        let called = if letter.is_empty() { label(name) } else { format!("{letter} {}", run.name) };
        (values.len() > 1).then_some(Line {
            end: letter,
            name: called,
            style: at,
            buckets: buckets.all,
        })
    });
    LineChart { title: &with_unit(name), x_name: of, lines: lines.collect(), log_from: None }
        .draw(page)
}

/// Nats a token of a prior beside those of tables.
fn floors(page: &Page, run: &Run) -> Option<Markup> {
    let measured = run.evaluated("nats_per_token")?;
    let mut all = vec![Bar { name: "this prior".to_owned(), value: measured, is_first: true }];
    for name in FLOORS {
        if let Some(value) = run.evaluated(name) {
            all.push(Bar { name: label(name), value, is_first: false });
        }
    }
    let least = all[1..].iter().map(|bar| bar.value).fold(f64::INFINITY, f64::min);
    let says = match least {
        least if !least.is_finite() => String::new(),
        least if measured < least => format!("{} below the best of them", short(least - measured)),
        least => {
            format!("{} above the best of them: it has learned nothing", short(measured - least))
        }
    };
    let chart = bars(page, "Nats per token", &says, "nats", &all);
    Some(html! { div class="charts" { (chart) } })
}

/// Which class was taken for which.
fn confusion(run: &Run) -> Option<Markup> {
    let rows: Vec<Vec<u64>> = run
        .last_evaluation
        .get("confusion")?
        .as_array()?
        .iter()
        .map(|row| row.as_array().into_iter().flatten().filter_map(Value::as_u64).collect())
        .collect();
    let table = html! {
        table class="matrix" {
            caption { "Samples of the class of a row that were taken for the class of a column." }
            thead { tr { th scope="col" { "class" } @for class in 0..rows.len() { th scope="col" { (class) } } } }
            tbody { @for (class, row) in rows.iter().enumerate() { tr {
                th scope="row" { (class) }
                @for (other, num) in row.iter().enumerate() {
                    td { @if class == other { strong { (num) } } @else if *num > 0 { (num) } @else { span class="quiet" { "·" } } }
                }
            } } }
        }
    };
    Some(scrolled("Confusion of classes", table))
}
