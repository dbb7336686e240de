//! The configuration with where each value came from; of several runs, in what they differ.

use maud::{Markup, html};

use super::named;
use crate::chart::scrolled;
use crate::read::{Origin, Run, Setting};

/// The section; none where no run has a configuration.
pub(super) fn section(runs: &[Run]) -> Option<Markup> {
    if runs.iter().all(|run| run.config.settings.is_empty()) {
        return None;
    }
    Some(html! {
        @if runs.len() > 1 { (differences(runs)) }
        @for (at, run) in runs.iter().enumerate() {
            @if runs.len() > 1 { h3 { (named(at, runs)) } }
            (of_run(run))
        }
    })
}

/// Keys whose values differ, or that not all runs have.
fn differences(runs: &[Run]) -> Markup {
    let mut keys: Vec<&str> = Vec::new();
    for setting in runs.iter().flat_map(|run| &run.config.settings) {
        let value = Some(setting.value.as_str());
        let differs = runs.iter().any(|run| run.config.value(&setting.key) != value);
        if differs && !keys.contains(&setting.key.as_str()) {
            keys.push(&setting.key);
        }
    }
    if keys.is_empty() {
        return html! { p { "All runs have the same configuration." } };
    }
    let table = html! {
        table {
            caption { "The " (keys.len()) " keys in which the runs differ." }
            thead { tr { th scope="col" { "Key" } @for at in 0..runs.len() { th scope="col" class="text" { (named(at, runs)) } } } }
            tbody { @for key in keys { tr {
                th scope="row" { code { (key) } }
                @for run in runs { td class="text" {
                    @match run.config.value(key) { Some(value) => code { (value) }, None => span class="quiet" { "not there" } }
                } }
            } } }
        }
    };
    html! { h3 { "Differences" } (scrolled("Differences of the configurations", table)) }
}

fn of_run(run: &Run) -> Markup {
    let settings = &run.config.settings;
    let set: Vec<&Setting> = settings.iter().filter(|one| one.origin != Origin::Default).collect();
    let all: Vec<&Setting> = settings.iter().collect();
    html! {
        @if set.is_empty() { p { "Every value is the program's default." } }
        @else { (scrolled("Values that are set", table("Values that are set; all others are the program's defaults.", &set))) }
        details {
            summary { "All " (all.len()) " keys" }
            (scrolled("All keys", table("Every key of the resolved configuration.", &all)))
        }
    }
}

fn table(caption: &str, settings: &[&Setting]) -> Markup {
    html! {
        table {
            caption { (caption) }
            thead { tr { th scope="col" { "Key" } th scope="col" class="text" { "Value" } th scope="col" class="text" { "From" } } }
            tbody { @for setting in settings { tr {
                th scope="row" { code { (setting.key) } }
                td class="text" { code { (setting.value) } }
                td class="text" { span class="quiet" { (setting.origin.words()) } }
            } } }
        }
    }
}
