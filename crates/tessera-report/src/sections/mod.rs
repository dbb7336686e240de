//! What is on the page, section by section. One run and several go the same way: of several each has a letter.

mod atlas;
mod cells;
mod codebook;
mod configuration;
mod curves;
mod evaluation;
mod history;
mod reconstructions;
mod samples;
mod summary;
mod sweep;

use maud::{Markup, html};

pub(crate) use codebook::Prepared;

use crate::chart::STYLES;
use crate::page::{Page, Section};
use crate::read::Run;
use crate::sweep::SweepView;

/// The letter of a run among several; empty where it is alone.
pub(crate) fn letter(at: usize, of: usize) -> String {
    if of < 2 {
        return String::new();
    }
    let first = char::from(b'A' + (at % 26) as u8);
    if at < 26 { first.to_string() } else { format!("{first}{}", at / 26) }
}

/// The letter and the name of a run; the name alone where it is alone.
fn named(at: usize, runs: &[Run]) -> Markup {
    let letter = letter(at, runs.len());
    html! {
        @if !letter.is_empty() { span class=(format!("letter ink{}", at % STYLES)) { (letter) } " " }
        (runs[at].name)
    }
}

/// A part of a section for each run, below its name where there are several.
fn of_each(runs: &[Run], part: impl Fn(usize, &Run) -> Option<Markup>) -> Option<Markup> {
    let parts: Vec<(usize, Markup)> =
        runs.iter().enumerate().filter_map(|(at, run)| Some((at, part(at, run)?))).collect();
    if parts.is_empty() {
        return None;
    }
    Some(html! {
        @for (at, part) in parts {
            @if runs.len() > 1 { h3 { (named(at, runs)) } }
            (part)
        }
    })
}

/// The heading of the page and what stands below it.
pub(crate) fn title(given: Option<&str>, runs: &[Run], sweeps: &[SweepView]) -> (String, Markup) {
    let names: Vec<&str> = match sweeps {
        [] => runs.iter().map(|run| run.name.as_str()).collect(),
        sweeps => sweeps.iter().map(|sweep| sweep.name.as_str()).collect(),
    };
    let what = match (sweeps.len(), runs.len()) {
        (0, 1) => "Run",
        (0, _) => "Runs",
        (1, _) => "Sweep",
        _ => "Sweeps",
    };
    let title = given.map_or_else(|| format!("{what} {}", names.join(", ")), str::to_owned);
    (title, summary::about(runs, sweeps))
}

/// All sections that have something to show.
pub(crate) fn all(
    page: &Page,
    runs: &[Run],
    sweeps: &[SweepView],
    prepared: &Prepared,
) -> Vec<Section> {
    for (at, run) in runs.iter().enumerate() {
        tell_damage(page, &letter(at, runs.len()), run);
    }
    let parts: [(&'static str, &'static str, Option<Markup>); 10] = [
        ("sweep", "Sweep", sweep::section(page, sweeps)),
        ("summary", "Summary", Some(summary::section(runs))),
        ("curves", "Curves", curves::section(page, runs)),
        ("evaluation", "Evaluation", evaluation::section(page, runs)),
        ("reconstructions", "Reconstructions", reconstructions::section(page, runs)),
        ("samples", "Samples", samples::section(page, runs)),
        ("codebook", "Codebook", codebook::section(page, runs, prepared)),
        ("history", "Failures, restarts and ranks", history::section(page, runs)),
        ("configuration", "Configuration", configuration::section(runs)),
        ("reproduce", "Environment and command", history::environment(runs)),
    ];
    parts
        .into_iter()
        .filter_map(|(anchor, heading, content)| {
            Some(Section { anchor, heading, content: content? })
        })
        .collect()
}

/// Rows that could not be read.
fn tell_damage(page: &Page, letter: &str, run: &Run) {
    for (file, rows) in [("metrics.jsonl", &run.rows), ("eval.jsonl", &run.evaluations)] {
        if rows.damaged > 0 {
            page.note(format!(
                "{letter}{}{file}: {} of {} lines are no rows and are left out, the first is line {}.",
                if letter.is_empty() { "" } else { ": " },
                rows.damaged,
                rows.num + rows.damaged,
                rows.first_damaged.unwrap_or(0),
            ));
        }
    }
}
