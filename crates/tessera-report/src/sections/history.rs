//! Starts, failures and ranks of a run, where it ran, and the command that does it again.

use maud::{Markup, html};
use tessera_launch::{FailureReport, WorkerReport};

use super::of_each;
use crate::chart::{Bar, bars, behind, scrolled};
use crate::numbers::{duration, percent, short, time};
use crate::page::Page;
use crate::read::{Attempt, Origin, Run, Told, plain};

/// The section; none where nothing is known.
pub(super) fn section(page: &Page, runs: &[Run]) -> Option<Markup> {
    of_each(runs, |_, run| {
        let history = &run.history;
        let nothing = history.attempts.is_empty()
            && history.failures.is_empty()
            && history.workers.is_empty();
        (!nothing).then(|| of_run(page, run))
    })
}

fn of_run(page: &Page, run: &Run) -> Markup {
    let history = &run.history;
    let (starts, failures) = (history.attempts.len(), history.failures.len());
    html! {
        p {
            @match starts { 0 => "No log tells of a start", 1 => "Started once", more => { "Started " (more) " times" } }
            @match failures { 0 => "; no failure.", 1 => "; one failure.", more => { "; " (more) " failures." } }
        }
        @if starts > 0 { (scrolled("Starts", attempts(&history.attempts))) }
        @for failure in &history.failures { (told(failure)) }
        @if !history.told.is_empty() { (behind("Warnings and errors of the logs", warnings(&history.told, history.num_untold))) }
        @if !history.workers.is_empty() { (ranks(page, &history.workers)) }
    }
}

fn attempts(all: &[Attempt]) -> Markup {
    html! {
        table {
            thead { tr { th scope="col" { "Start" } th scope="col" class="text" { "When" } th scope="col" { "Lasted" } th scope="col" { "Logged steps" }
                th scope="col" { "Ranks" } th scope="col" class="text" { "Device" } th scope="col" { "Threads" } } }
            tbody { @for (number, attempt) in all.iter().enumerate() { tr {
                th scope="row" { (number + 1) }
                td class="text" { (time(attempt.unix_seconds)) }
                td { (duration(attempt.last_seconds - attempt.unix_seconds)) }
                td { @if let Some((first, last)) = attempt.steps { (short(first as f64)) " to " (short(last as f64)) } @else { "none" } }
                td { (attempt.world_size.map_or(String::new(), |size| size.to_string())) }
                td class="text" { (attempt.device.as_deref().unwrap_or("")) }
                td { (attempt.threads.map_or(String::new(), |threads| threads.to_string())) }
            } } }
        }
    }
}

fn told(failure: &FailureReport) -> Markup {
    html! {
        p class="bad" { (time(failure.unix_seconds)) ": " (failure.message) }
        p class="quiet" {
            @if let Some(code) = failure.exit_code { "Exit code " (code as i32) "; " }
            (failure.restarts) " restarts before it."
        }
        (behind("Table: every worker when it failed", workers(&failure.workers)))
    }
}

fn warnings(all: &[Told], untold: usize) -> Markup {
    html! {
        table {
            @if untold > 0 { caption { (untold) " more are in the logs." } }
            thead { tr { th scope="col" class="text" { "When" } th scope="col" { "Rank" } th scope="col" class="text" { "Level" } th scope="col" class="text" { "Message" } } }
            tbody { @for told in all { tr {
                th scope="row" { (time(told.unix_seconds)) } td { (told.rank) } td class="text" { (told.level) } td class="text" { (told.message) }
            } } }
        }
    }
}

/// How long each rank has waited for the others.
fn ranks(page: &Page, all: &[WorkerReport]) -> Markup {
    let waited = all.iter().filter_map(|worker| {
        let value = worker.call.as_ref()?.waited_ms as f64 / 1000.0;
        Some(Bar { name: format!("rank {}, {}", worker.rank, worker.host), value, is_first: false })
    });
    let waited: Vec<Bar> = waited.take(64).collect();
    html! {
        div class="charts" {
            (bars(page, "Time in collectives since the last start", "seconds, waiting for the others included", "s", &waited))
        }
        (behind("Table: every rank", workers(all)))
    }
}

fn workers(all: &[WorkerReport]) -> Markup {
    html! {
        table {
            thead { tr { th scope="col" { "Rank" } th scope="col" class="text" { "Host" } th scope="col" { "Process" } th scope="col" class="text" { "Phase" }
                th scope="col" { "Step" } th scope="col" class="text" { "Last collective" } th scope="col" { "Share of time waiting" } th scope="col" { "Silent for" }
                th scope="col" { "Exit code" } th scope="col" class="text" { "Last words" } } }
            tbody { @for worker in all { tr {
                th scope="row" { (worker.rank) }
                td class="text" { (worker.host) }
                td { (worker.pid) }
                td class="text" { (worker.phase.map_or(String::new(), |phase| format!("{phase:?}").to_lowercase())) }
                td { (short(worker.step as f64)) }
                td class="text" { (worker.call.as_ref().map_or(String::new(), ToString::to_string)) }
                td { (worker.waiting_share.map_or(String::new(), percent)) }
                td { (short(worker.silent_seconds)) " s" }
                td { (worker.exit_code.map_or(String::new(), |code| (code as i32).to_string())) }
                td class="text" { (worker.message) }
            } } }
        }
    }
}

/// Where the runs ran, and the commands that do them again.
pub(super) fn environment(runs: &[Run]) -> Option<Markup> {
    of_each(runs, |_, run| Some(of_environment(run)))
}

fn of_environment(run: &Run) -> Markup {
    let last = run.history.attempts.last();
    let mut hosts: Vec<&str> =
        run.history.workers.iter().map(|worker| worker.host.as_str()).collect();
    let own = run
        .status
        .as_ref()
        .and_then(|status| status.process.as_ref())
        .map(|process| process.host.as_str());
    hosts.extend(own.filter(|_| hosts.is_empty()));
    hosts.sort_unstable();
    hosts.dedup();
    let mut versions: Vec<&str> = run.history.versions.iter().map(String::as_str).collect();
    versions.extend(run.model.as_ref().map(|model| model.tessera.as_str()));
    versions.sort_unstable();
    versions.dedup();
    let facts: [(&str, String); 7] = [
        ("Hosts", hosts.join(", ")),
        (
            "Ranks",
            run.status.as_ref().map_or(String::new(), |status| status.world_size.to_string()),
        ),
        ("Device", last.and_then(|attempt| attempt.device.clone()).unwrap_or_default()),
        (
            "Threads of a rank",
            last.and_then(|attempt| attempt.threads)
                .map_or(String::new(), |threads| threads.to_string()),
        ),
        ("Started by", last.and_then(|attempt| attempt.started_by.clone()).unwrap_or_default()),
        ("Tessera", versions.join(", ")),
        (
            "Model",
            run.model.as_ref().map_or(String::new(), |model| {
                format!("{} at step {}", model.hash, short(model.step as f64))
            }),
        ),
    ];
    html! {
        table { tbody { @for (name, value) in facts.iter().filter(|(_, value)| !value.is_empty()) { tr {
            th scope="row" { (name) } td class="text" { (value) }
        } } } }
        @if let Some(command) = command(run) {
            p { "The same training again, from the folder that the run was started in:" }
            pre tabindex="0" { code { (command) } }
        }
    }
}

/// The command of a run; none where its configuration does not say what it began with.
fn command(run: &Run) -> Option<String> {
    if run.config.settings.is_empty() {
        return None;
    }
    let (mut variables, mut words) = (Vec::new(), Vec::new());
    let ranks = run.status.as_ref().map_or(1, |status| status.world_size);
    words.push(match ranks {
        0 | 1 => "tessera train".to_owned(),
        ranks => format!("tessera launch --nproc {ranks} -- train"),
    });
    if let Some(file) = run.config.file() {
        words.push(format!("--config {}", quoted(file)));
    }
    for setting in &run.config.settings {
        match &setting.origin {
            Origin::Environment(name) => {
                variables.push(format!("{name}={}", quoted(plain(&setting.value))))
            }
            Origin::CommandLine => words.push(format!(
                "--set {}",
                quoted(&format!("{}={}", setting.key, plain(&setting.value)))
            )),
            _ => {}
        }
    }
    words.push(format!(
        "--run-dir {}",
        quoted(&format!("runs/{}-again", run.name.replace(' ', "-")))
    ));
    variables.append(&mut words);
    Some(variables.join(" \\\n  "))
}

/// A word of a shell.
fn quoted(word: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "_-./=:,+@%".contains(letter);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_shell_are_quoted_where_they_need_it() {
        let quoted = ["a/b-c.toml", "x=[1, 2]", "it's", ""].map(quoted);
        assert_eq!(quoted, ["a/b-c.toml", "'x=[1, 2]'", "'it'\\''s'", "''"]);
    }
}
