//! Pictures, sounds and films as elements of the page, as large as the page has room for.

use std::path::Path;

use maud::{Markup, html};

use crate::numbers::bytes;
use crate::page::Page;
use crate::picture::{Picture, data_uri};
use crate::sound::Sound;

/// Bytes of a film or a sound that goes into a page.
const MOST_MEDIA: u64 = 6_000_000;
/// Width up to which a picture's pixels are shown as squares.
const FINE: usize = 64;

/// A picture with what it shows.
pub(super) fn image(page: &Page, picture: &Picture, alt: &str) -> Markup {
    let shown = picture.shrunk(page.shrinks(picture.width));
    html! {
        img class=[(shown.width <= FINE).then_some("fine")] src=(shown.uri()) alt=(alt)
            width=(shown.width) height=(shown.height);
    }
}

/// A picture of a file. One that cannot be read is told.
pub(super) fn picture(page: &Page, path: &Path) -> Option<Picture> {
    if !page.has_pictures() {
        return None;
    }
    told(page, path, Picture::read(path))
}

/// A sound of a file. One that cannot be read is told.
pub(super) fn sound(page: &Page, path: &Path) -> Option<Sound> {
    if !page.has_pictures() {
        return None;
    }
    let read = std::fs::read(path).map_err(|error| error.to_string());
    told(page, path, read.and_then(|bytes| Sound::decode(&bytes)))
}

/// Something to listen to; it begins when it is asked to.
pub(super) fn player(page: &Page, sound: &Sound, name: &str) -> Markup {
    if !page.takes_sound() {
        return html! {};
    }
    html! { audio controls preload="metadata" aria-label=(name) src=(data_uri("audio/wav", &sound.wav())) {} }
}

/// A film that plays while it is opened.
pub(super) fn film(page: &Page, path: &Path, name: &str) -> Markup {
    if !page.has_pictures() || !page.takes_film() {
        return html! {};
    }
    let size = std::fs::metadata(path).map_or(0, |file| file.len());
    if size > MOST_MEDIA {
        page.note(format!("{} has {} and is left out.", path.display(), bytes(size)));
        return html! {};
    }
    let read = std::fs::read(path).map_err(|error| error.to_string());
    let Some(file) = told(page, path, read) else { return html! {} };
    html! {
        details class="film" {
            summary { "Play " (name) }
            img src=(data_uri("image/apng", &file)) alt=(format!("Moving picture: {name}"));
        }
    }
}

fn told<T>(page: &Page, path: &Path, read: Result<T, String>) -> Option<T> {
    read.map_err(|problem| page.note(format!("{} is left out: {problem}.", path.display()))).ok()
}

/// Two pictures over one another, between which the slider of their box moves a line.
pub(super) fn pair(page: &Page, [input, output]: [&Picture; 2], of: &str) -> Markup {
    html! {
        div class="pair" { (image(page, input, &format!("Input {of}"))) (image(page, output, &format!("Output {of}"))) }
    }
}

/// A box of pairs with the slider that moves the line in all of them.
pub(super) fn pairs(page: &Page, content: &Markup) -> Markup {
    let id = page.id();
    html! {
        div class="wipes" {
            p class="wipe" hidden {
                label for=(id) { "Input" }
                input type="range" id=(id) min="0" max="100" value="50" aria-label="How much of the outputs is shown, from the right";
                span aria-hidden="true" { "Output" }
            }
            (content)
        }
    }
}
