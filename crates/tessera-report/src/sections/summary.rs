//! What a person wants to know first.

use maud::{Markup, html};
use tessera_control::RunState;

use super::named;
use crate::names::{FIRST, label, unit};
use crate::numbers::{duration, short, time};
use crate::read::{Run, plain};
use crate::sweep::SweepView;

/// Figures in large letters.
const KEY_FIGURES: usize = 6;

/// A line or two below the page's title.
pub(super) fn about(runs: &[Run], sweeps: &[SweepView]) -> Markup {
    html! {
        @for sweep in sweeps {
            p { (sweep.table.rows.len()) " trials; the best by " code { (sweep.review.about.sweep.metric.name) }
                " are shown in full." }
        }
        @if let ([run], []) = (runs, sweeps) {
            p class=[run.status.as_ref().filter(|status| status.state == RunState::Failed).map(|_| "bad")] { (state(run)) }
        }
    }
}

/// How a run stands, in a sentence.
fn state(run: &Run) -> String {
    let step = short(run.step() as f64);
    let of = run.config.text("train.steps").and_then(|steps| steps.parse().ok());
    let of = of.map_or(String::new(), |steps: f64| format!(" of {}", short(steps)));
    match &run.status {
        None => format!("At step {step}{of}; the run has no status.json."),
        Some(status) => match (status.state, status.exit_code) {
            (RunState::Running, _) => {
                format!(
                    "Running, or killed without a word: step {step}{of} when this page was written."
                )
            }
            (RunState::Done, _) => format!("Done: step {step}{of}."),
            (RunState::Stopped, _) => {
                format!("Stopped on request at step {step}{of}; it can be resumed.")
            }
            (RunState::Failed, code) => {
                let code =
                    code.map_or(String::new(), |code| format!(" with exit code {}", code as i32));
                format!("Failed{code} at step {step}{of}: {}", status.message)
            }
        },
    }
}

/// The section: large figures of a single run, then a table of facts.
pub(super) fn section(runs: &[Run]) -> Markup {
    let rows = facts(runs);
    html! {
        @if let [run] = runs { (key_figures(run)) }
        @if runs.len() > 1 { (scrolled_table(runs, &rows)) } @else {
            table { tbody { @for (name, values) in &rows { tr {
                th scope="row" { (name) } td class="text" { (values[0]) }
            } } } }
        }
    }
}

fn scrolled_table(runs: &[Run], rows: &[(String, Vec<String>)]) -> Markup {
    let table = html! {
        table {
            thead { tr { th scope="col" { "Fact" } @for at in 0..runs.len() { th scope="col" class="text" { (named(at, runs)) } } } }
            tbody { @for (name, values) in rows { tr { th scope="row" { (name) } @for value in values { td class="text" { (value) } } } } }
        }
    };
    crate::chart::scrolled("Facts of all runs", table)
}

fn key_figures(run: &Run) -> Markup {
    let mut found: Vec<(&str, f64)> =
        FIRST.iter().filter_map(|name| Some((*name, run.evaluated(name)?))).collect();
    if found.is_empty() {
        let last = ["loss", "perplexity", "codes_used", "bits_per_token", "samples_per_second"];
        found = last.iter().filter_map(|name| Some((*name, run.rows.last(name)?))).collect();
    }
    let num_codes: usize =
        run.model.iter().flat_map(|model| &model.levels).map(|level| level.num_codes).sum();
    html! {
        @if !found.is_empty() {
            dl class="key" {
                @for (name, value) in found.into_iter().take(KEY_FIGURES) {
                    div {
                        dt { (label(name)) }
                        dd { (short(value)) " "
                            @if name == "codes_used" && num_codes > 0 { small { "of " (short(num_codes as f64)) } }
                            @else if !unit(name).is_empty() { small { (unit(name)) } }
                        }
                    }
                }
            }
        }
    }
}

/// Rows of facts, each with a value a run; those that no run has are left out.
fn facts(runs: &[Run]) -> Vec<(String, Vec<String>)> {
    let mut rows: Vec<(String, Vec<String>)> = Vec::new();
    let mut add = |name: &str, of: &dyn Fn(&Run) -> Option<String>| {
        let values: Vec<String> = runs.iter().map(|run| of(run).unwrap_or_default()).collect();
        if values.iter().any(|value| !value.is_empty()) {
            rows.push((name.to_owned(), values));
        }
    };
    if runs.len() > 1 {
        add("State", &|run| Some(state(run)));
    }
    let set = |key: &'static str| move |run: &Run| run.config.text(key).map(str::to_owned);
    add("Task", &set("task"));
    add("Data", &|run| {
        let kind = run.config.text("data.kind")?;
        let path = run.config.text("data.path").filter(|path| !path.is_empty());
        Some(path.map_or(kind.to_owned(), |path| format!("{path} ({kind})")))
    });
    add("Samples", &|run| {
        let model = run.model.as_ref()?;
        Some(format!("{}: {}", model.modality.as_ref()?, model.shape))
    });
    add("Network", &|run| match run.config.text("task")? {
        "prior" => run.config.text("prior.network.block").map(|block| format!("{block} blocks")),
        "probe" => run.config.text("probe.head").map(|head| format!("{head} head")),
        _ => run.config.text("model.backbone.kind").map(str::to_owned),
    });
    add("Quantizer", &quantizer);
    add("Parameters", &|run| {
        let text = run.history.model.as_ref()?;
        Some(text.split(';').next().unwrap_or(text).to_owned())
    });
    for name in FIRST {
        add(&crate::names::with_unit(name), &|run| {
            (runs.len() > 1).then(|| run.evaluated(name)).flatten().map(short)
        });
    }
    add("Loss, last row", &|run| run.rows.last("loss").map(short));
    add("Batch", &|run| Some(format!("{} samples", run.config.text("train.global_batch")?)));
    add("Ranks", &|run| run.status.as_ref().map(|status| status.world_size.to_string()));
    add("Throughput, last row", &|run| {
        Some(format!("{} samples/s", short(run.rows.last("samples_per_second")?)))
    });
    add("Time", &|run| run.history.seconds().map(duration));
    add("Begun", &|run| run.history.attempts.first().map(|attempt| time(attempt.unix_seconds)));
    rows
}

/// The quantiser in a few words.
fn quantizer(run: &Run) -> Option<String> {
    if run.config.text("task").is_some_and(|task| task != "autoencoder") {
        return None;
    }
    let kind = plain(run.config.value("model.quantizer.kind")?);
    let sizes: Vec<String> = run
        .model
        .iter()
        .flat_map(|model| &model.levels)
        .map(|level| match level.dim {
            0 => short(level.num_codes as f64),
            dim => format!("{} × {dim}", short(level.num_codes as f64)),
        })
        .collect();
    Some(match sizes.is_empty() {
        true => kind.to_owned(),
        false => format!("{kind}: {}", sizes.join(", ")),
    })
}
