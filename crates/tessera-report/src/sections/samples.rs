//! What a prior draws, and how good it is beside real samples and what needs no prior.

use maud::{Markup, html};
use serde_json::Value;

use super::cells::{film, image, picture, player, sound};
use super::of_each;
use crate::chart::{Bar, bars, scrolled};
use crate::numbers::{percent, short};
use crate::page::Page;
use crate::picture::Picture;
use crate::read::{Exhibit, Judged, Run, Samples};

/// Sounds and films of a set of samples that are shown.
const MOST_SINGLE: usize = 4;

/// A column of a judgement.
type Figure = (&'static str, fn(&crate::read::JudgedSet) -> Option<f64>);

/// The section; none where no run has samples.
pub(super) fn section(page: &Page, runs: &[Run]) -> Option<Markup> {
    of_each(runs, |_, run| of_run(page, run))
}

fn of_run(page: &Page, run: &Run) -> Option<Markup> {
    let has = (page.has_pictures() && !(run.samples.is_empty() && run.drawn.is_empty()))
        || !run.judged.is_empty();
    has.then(|| {
        html! {
            @if page.has_pictures() {
                @if let Some(newest) = run.samples.last() { (while_training(page, newest)) }
                @for samples in &run.drawn { (drawn(page, run, samples)) }
            }
            @for judged in &run.judged { (judgement(page, judged)) }
        }
    })
}

/// Samples that the training drew, after the last step that it did so.
fn while_training(page: &Page, exhibit: &Exhibit) -> Markup {
    let sheet = exhibit.picture.as_ref().and_then(|path| picture(page, path));
    let cells = sheet.as_ref().and_then(cells);
    let sounds = exhibit.sound.as_ref().and_then(|path| sound(page, path));
    let is_film = exhibit.film.is_some();
    let parts = match (&cells, &sounds) {
        (Some(cells), Some(sound)) => sound.cut(cells.len()),
        _ => None,
    };
    let class = if is_film {
        "cells eight"
    } else if sounds.is_some() {
        "cells wide"
    } else {
        "cells"
    };
    let name = |at: usize| match is_film {
        true => format!("Sample {}, moment {}", at / 8 + 1, at % 8 + 1),
        false => format!("Sample {}", at + 1),
    };
    html! {
        p class="quiet" { "Drawn by the training after step " (short(exhibit.step as f64)) ", the same draws each time, in turn of each class." }
        @if is_film { p class="quiet" { "Eight pictures one after the other are one film, from its first moment to its last." } }
        @match (&cells, &sheet) {
            (Some(cells), _) => div class=(class) {
                @for (at, cell) in cells.iter().enumerate() {
                    div {
                        (image(page, cell, &name(at)))
                        @if let Some(parts) = &parts { (player(page, &parts[at], &name(at))) }
                    }
                }
            },
            (None, Some(sheet)) => (image(page, sheet, "Samples")),
            (None, None) => "",
        }
        @if let (None, Some(sound)) = (&parts, &sounds) { (player(page, sound, "All samples, one after the other")) }
        @if let Some(path) = &exhibit.film { (film(page, path, "all samples")) }
    }
}

fn cells(sheet: &Picture) -> Option<Vec<Picture>> {
    let cut = sheet.sheet()?;
    let all = cut.cells.into_iter().map(|cell| sheet.cut(cell).native());
    Some(all.filter(|cell| cell.pixels.iter().any(|value| *value != 128)).collect())
}

/// A set of samples that was drawn from the run.
fn drawn(page: &Page, run: &Run, samples: &Samples) -> Markup {
    let grid = samples.grid.as_ref().and_then(|path| picture(page, path));
    let about = &samples.about;
    let guidance = about.sampling.pointer("/guidance/scale").and_then(Value::as_f64);
    let temperature = about.sampling.pointer("/filter/temperature").and_then(Value::as_f64);
    let shown = |path: &std::path::PathBuf| {
        path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
    };
    html! {
        (page.heading(0, &html! {
            (short(about.num_samples as f64)) " samples in " code { (if samples.name.is_empty() { &run.name } else { &samples.name }) }
        }))
        p class="quiet" {
            "Seed " (about.seed)
            @if let Some(temperature) = temperature { ", temperature " (short(temperature)) }
            @if let Some(guidance) = guidance { ", guidance " (short(guidance)) }
            @if let Some(nats) = about.nats_per_token { ", " (short(nats)) " nats per token" }
            "."
        }
        @if let Some(grid) = grid { (image(page, &grid, "The first samples side by side")) }
        @if !samples.sounds.is_empty() { div class="cells wide" {
            @for path in samples.sounds.iter().take(MOST_SINGLE) {
                @if let Some(sound) = sound(page, path) { (player(page, &sound, &format!("Sample {}", shown(path)))) }
            }
        } }
        @for path in samples.films.iter().take(MOST_SINGLE) { (film(page, path, &format!("sample {}", shown(path)))) }
    }
}

/// What was said of samples, beside what needs no prior and what cannot be better.
fn judgement(page: &Page, judged: &Judged) -> Markup {
    let about = &judged.about;
    let figures: [Figure; 7] = [
        ("Fréchet", |set| set.frechet),
        ("Accuracy", |set| set.accuracy),
        ("Precision", |set| set.precision),
        ("Recall", |set| set.recall),
        ("Density", |set| set.density),
        ("Coverage", |set| set.coverage),
        ("Diversity", |set| set.diversity),
    ];
    let known: Vec<Figure> = figures
        .into_iter()
        .filter(|(_, of)| about.sets.iter().any(|set| of(set).is_some()))
        .collect();
    let frechet = about.sets.iter().enumerate().filter_map(|(at, set)| {
        Some(Bar { name: set.name.clone(), value: set.frechet?, is_first: at == 0 })
    });
    let frechet: Vec<Bar> = frechet.collect();
    let table = html! {
        table {
            thead { tr { th scope="col" { "Against held-out samples" } @for (name, _) in &known { th scope="col" { (name) } } } }
            tbody { @for (at, set) in about.sets.iter().enumerate() { tr {
                th scope="row" { @if at == 0 { strong { (set.name) } } @else { (set.name) } }
                @for (_, of) in &known { td { (of(set).map_or(String::new(), short)) } }
            } } }
        }
    };
    let nearest = judged.nearest.as_ref().and_then(|path| picture(page, path));
    html! {
        (page.heading(0, &html! { "Judged" @if !judged.name.is_empty() { " in " code { (judged.name) } } }))
        p class="quiet" {
            (short(about.num_samples as f64)) " samples by features of " (about.features)
            ". The first row is judged; training samples say what cannot be better, the others what needs no prior."
        }
        div class="charts" { (bars(page, "Fréchet distance to held-out samples", "less is nearer", "", &frechet)) }
        (scrolled("Figures of the judgement", table))
        @if let Some(copies) = &about.copies {
            p {
                (short(copies.exact as f64)) " of the samples have the codes of one of " (short(copies.num_training as f64)) " training samples"
                @if let Some(near) = copies.near_by_features { "; " (percent(near)) " are as near to one by features as a copy would be" }
                @if let (Some(apart), Some(held_out)) = (copies.codes_apart, copies.codes_apart_held_out) {
                    "; on the mean " (short(apart)) " codes differ from the nearest one, of held-out samples " (short(held_out))
                }
                "."
            }
        }
        @if let Some(nearest) = nearest {
            details { summary { "Samples beside the training samples nearest to them" }
                (image(page, &nearest, "Samples, each beside the training sample that is nearest to it")) }
        }
    }
}
