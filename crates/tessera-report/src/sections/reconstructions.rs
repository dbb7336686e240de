//! What the model makes of inputs: each pair with a line to move between them, and the pairs over the training.

use maud::{Markup, html};

use super::cells::{film, image, pair, pairs, picture, player, sound};
use super::of_each;
use crate::numbers::short;
use crate::page::Page;
use crate::picture::{Picture, Sheet};
use crate::read::{Exhibit, Run};

/// Parts of a sheet: inputs, outputs, differences.
const PARTS: usize = 3;
/// Inputs that are shown over the training, and steps of it.
const FOLLOWED: usize = 4;
const STEPS: usize = 8;

/// The section; none where no run has reconstructions.
pub(super) fn section(page: &Page, runs: &[Run]) -> Option<Markup> {
    if !page.has_pictures() {
        return None;
    }
    of_each(runs, |_, run| of_run(page, run))
}

fn of_run(page: &Page, run: &Run) -> Option<Markup> {
    let newest = run.reconstructions.last()?;
    let shown = newest.picture.as_ref().and_then(|path| picture(page, path));
    let content = match shown.as_ref().and_then(|shown| Some((shown, cut(shown)?))) {
        Some((_, triples)) if newest.sound.is_some() => sounds(page, newest, &triples),
        Some((_, triples)) => pictures(page, newest, &triples),
        None => html! {
            @if let Some(shown) = &shown { (image(page, shown, "Inputs, outputs and their differences")) }
            @if let Some(path) = &newest.sound { @if let Some(sound) = sound(page, path) { (player(page, &sound, "Inputs, each followed by its output")) } }
        },
    };
    Some(html! {
        p class="quiet" { "Samples of the test split after step " (short(newest.step as f64)) "." }
        (content)
        @if let Some(path) = &newest.film { (film(page, path, "clips of the test split, outputs below inputs")) }
        (over_steps(page, &run.reconstructions))
    })
}

/// An input, its output and their difference.
struct Triple {
    parts: [Picture; PARTS],
    column: usize,
    row: usize,
}

/// The triples of a sheet; none where it is none.
fn cut(picture: &Picture) -> Option<Vec<Triple>> {
    let sheet = picture.sheet().filter(|sheet| sheet.rows.is_multiple_of(PARTS))?;
    let cell = |sheet: &Sheet, row: usize, column: usize| {
        picture.cut(sheet.cells[row * sheet.columns + column]).native()
    };
    let places =
        (0..sheet.rows / PARTS).flat_map(|row| (0..sheet.columns).map(move |column| (row, column)));
    let triple = |(row, column)| Triple {
        parts: [0, 1, 2].map(|part| cell(&sheet, row * PARTS + part, column)),
        column,
        row,
    };
    let all = places.map(triple).filter(|triple| !is_empty(&triple.parts));
    Some(all.collect())
}

/// Whether a place of the sheet has no sample.
fn is_empty(parts: &[Picture; PARTS]) -> bool {
    parts.iter().all(|part| part.pixels.iter().all(|value| *value == 128))
}

fn pictures(page: &Page, exhibit: &Exhibit, triples: &[Triple]) -> Markup {
    let is_film = exhibit.film.is_some();
    let class = "cells eight";
    let name = |at: usize, triple: &Triple| match is_film {
        true => format!("of clip {}, moment {}", triple.row + 1, triple.column + 1),
        false => (at + 1).to_string(),
    };
    let wiped = html! {
        div class=(class) {
            @for (at, triple) in triples.iter().enumerate() {
                (pair(page, [&triple.parts[0], &triple.parts[1]], &name(at, triple)))
            }
        }
    };
    html! {
        @if is_film { p class="quiet" { "Eight pictures one after the other are one clip, from its first moment to its last." } }
        (pairs(page, &wiped))
        details {
            summary { "Differences, 4 times as large" }
            div class=(class) {
                @for (at, triple) in triples.iter().enumerate() {
                    (image(page, &triple.parts[2], &format!("Difference {}", name(at, triple))))
                }
            }
        }
    }
}

fn sounds(page: &Page, exhibit: &Exhibit, triples: &[Triple]) -> Markup {
    let all = exhibit.sound.as_ref().and_then(|path| sound(page, path));
    let parts = all.as_ref().and_then(|sound| sound.cut(2 * triples.len()));
    let seconds = parts.as_ref().map(|parts| format!(" of {} s", short(parts[0].seconds())));
    let wiped = html! {
        div class="cells wide" {
            @for (at, triple) in triples.iter().enumerate() {
                div {
                    (pair(page, [&triple.parts[0], &triple.parts[1]], &format!("{}, a spectrogram", at + 1)))
                    @if let Some(parts) = &parts {
                        div class="heard" {
                            @for (part, name) in ["Input", "Output"].iter().enumerate() {
                                span { (name) }
                                (player(page, &parts[2 * at + part], &format!("{name} {}", at + 1)))
                            }
                        }
                    }
                }
            }
        }
    };
    html! {
        p class="quiet" {
            "Windows" (seconds.unwrap_or_default()) " as spectrograms: time goes right, frequency up, and 80 dB below a full sine is black."
        }
        (pairs(page, &wiped))
        @if let (None, Some(all)) = (&parts, &all) { (player(page, all, "Inputs, each followed by its output")) }
    }
}

/// The first samples at several steps, from the first to the last.
fn over_steps(page: &Page, exhibits: &[Exhibit]) -> Markup {
    let with_pictures: Vec<&Exhibit> =
        exhibits.iter().filter(|exhibit| exhibit.picture.is_some()).collect();
    if with_pictures.len() < 2 {
        return html! {};
    }
    let last = with_pictures.len() - 1;
    let num = with_pictures.len().min(STEPS);
    let mut columns: Vec<(u64, Vec<Triple>)> = Vec::new();
    for at in 0..num {
        let exhibit = with_pictures[at * last / (num - 1)];
        let shown = exhibit.picture.as_ref().and_then(|path| picture(page, path));
        if let Some(triples) = shown.as_ref().and_then(cut) {
            columns.push((exhibit.step, triples));
        }
    }
    let rows = columns.iter().map(|(_, triples)| triples.len()).min().unwrap_or(0);
    // Of films one moment of each clip, not eight of the first.
    let every = if exhibits.iter().any(|exhibit| exhibit.film.is_some()) { 8 } else { 1 };
    let followed: Vec<usize> = (0..rows).step_by(every).take(FOLLOWED).collect();
    if columns.len() < 2 || followed.is_empty() {
        return html! {};
    }
    let table = html! {
        table class="steps" {
            thead { tr {
                th scope="col" { "Input" }
                @for (step, _) in &columns { th scope="col" { "step " (short(*step as f64)) } }
            } }
            tbody { @for row in followed { tr {
                td { (image(page, &columns[0].1[row].parts[0], &format!("Input {}", row + 1))) }
                @for (step, triples) in &columns {
                    td { (image(page, &triples[row].parts[1], &format!("Output {} after step {step}", row + 1))) }
                }
            } } }
        }
    };
    html! { (page.heading(0, &html! { "Over the training" })) (crate::chart::scrolled("Outputs over the training", table)) }
}
