//! Rows of `metrics.jsonl` over steps, in small charts by what they are about.

use maud::{Markup, html};

use super::{letter, named};
use crate::chart::{Line, LineChart};
use crate::names::{Group, group, label, with_unit};
use crate::numbers::short;
use crate::page::Page;
use crate::read::{Curve, Run};

/// From which ratio on losses have a log scale, and other curves.
const LOG_LOSS: f64 = 6.0;
const LOG_OTHER: f64 = 200.0;

/// The section; none where no run has rows.
pub(super) fn section(page: &Page, runs: &[Run]) -> Option<Markup> {
    let names = names(runs);
    if names.is_empty() {
        return None;
    }
    let num: u64 = runs.iter().map(|run| run.rows.num).sum();
    let is_long = runs.iter().any(|run| run.rows.curves.iter().any(|curve| curve.values.width > 1));
    Some(html! {
        p class="quiet" {
            (short(num as f64)) " rows"
            @if is_long { ". A line is the mean of some rows, the band around it goes from their least to their largest value" }
            @if runs.iter().any(|run| run.rows.is_cut) { "; the last row was being written" }
            "."
        }
        @if runs.len() > 1 {
            p { @for at in 0..runs.len() { (named(at, runs)) "\u{2003}" } }
        }
        @for part in Group::ALL {
            @let drawn = drawn(page, runs, part, &names);
            @if !drawn.is_empty() {
                h3 { (part.heading()) }
                div class="charts" { @for chart in drawn { (chart) } }
            }
        }
    })
}

/// Names of fields of all runs, in the order in which they come; parts of lists by the list's name.
fn names(runs: &[Run]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for curve in runs.iter().flat_map(|run| &run.rows.curves) {
        let name = curve.name.split('.').next().unwrap_or(&curve.name);
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    names
}

fn drawn(page: &Page, runs: &[Run], part: Group, names: &[String]) -> Vec<Markup> {
    let mut drawn = Vec::new();
    for name in names.iter().filter(|name| group(name) == Some(part)) {
        // What never happened is not worth a chart.
        let is_count = matches!(name.as_str(), "samples_skipped" | "codes_replaced");
        let is_zero = |run: &Run| {
            run.rows
                .curve(name)
                .is_none_or(|curve| curve.values.ends().is_some_and(|(_, high)| high.high.0 == 0.0))
        };
        if is_count && runs.iter().all(is_zero) {
            continue;
        }
        let log_from = Some(if part == Group::Loss { LOG_LOSS } else { LOG_OTHER });
        if name.starts_with("level_") {
            drawn.extend(levels(page, runs, name, log_from));
        } else if name == "step_ms" {
            drawn.extend(step_times(page, runs));
        } else {
            let log_from = log_from.filter(|_| !name.starts_with("learning_rate"));
            drawn.push(overlaid(page, runs, name, log_from));
        }
    }
    drawn
}

fn line(curve: &Curve, end: String, name: String, style: usize) -> Line {
    Line { end, name, style, buckets: curve.values.all.clone() }
}

/// A field of all runs in one chart.
fn overlaid(page: &Page, runs: &[Run], name: &str, log_from: Option<f64>) -> Markup {
    let lines = runs.iter().enumerate().filter_map(|(at, run)| {
        let letter = letter(at, runs.len());
        let curve = run.rows.curve(name)?;
        let called = if letter.is_empty() { label(name) } else { format!("{letter} {}", run.name) };
        Some(line(curve, letter, called, at))
    });
    let lines = lines.collect();
    LineChart { title: &with_unit(name), x_name: "step", lines, log_from }.draw(page)
}

/// A list of numbers, one a level: a chart a run, a line a level. One level alone says nothing new.
fn levels(page: &Page, runs: &[Run], name: &str, log_from: Option<f64>) -> Vec<Markup> {
    let mut drawn = Vec::new();
    for (at, run) in runs.iter().enumerate() {
        let parts = run.rows.parts(name);
        if parts.len() < 2 {
            continue;
        }
        let lines = parts.iter().enumerate();
        let lines = lines.map(|(level, curve)| {
            line(curve, (level + 1).to_string(), format!("level {}", level + 1), level)
        });
        let letter = letter(at, runs.len());
        let title = if letter.is_empty() {
            with_unit(name)
        } else {
            format!("{letter}: {}", with_unit(name))
        };
        drawn.push(
            LineChart { title: &title, x_name: "step", lines: lines.collect(), log_from }
                .draw(page),
        );
    }
    drawn
}

/// Where the time of a step goes: of one run in one chart, of several each part in its own.
fn step_times(page: &Page, runs: &[Run]) -> Vec<Markup> {
    const PARTS: [(&str, &str); 3] =
        [("step_ms", "step"), ("comm_ms", "sums"), ("data_wait_ms", "data")];
    let [run] = runs else {
        return PARTS.iter().map(|(name, _)| overlaid(page, runs, name, Some(LOG_OTHER))).collect();
    };
    let lines = PARTS.iter().enumerate().filter_map(|(at, (name, end))| {
        Some(line(run.rows.curve(name)?, (*end).to_owned(), label(name), at))
    });
    let title = "Time of a step, and of it in sums over ranks and waiting for data, ms";
    vec![
        LineChart { title, x_name: "step", lines: lines.collect(), log_from: Some(LOG_OTHER) }
            .draw(page),
    ]
}
