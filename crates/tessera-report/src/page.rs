//! The page around the sections: its head with the content policy, and what all sections share.
//!
//! The policy lets nothing be fetched: pictures and sound are in the page, and its style and the one script, which
//! moves the line between inputs and outputs, are named by their hashes. Without scripts both lie side by side.

use std::cell::{Cell, RefCell};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest, Sha256};

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// How much of what a run has shown is in the page. Each is smaller than the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fidelity {
    /// Everything.
    Whole,
    /// Films are left out but the newest of the first run; large pictures have half their sides.
    Half,
    /// No films, few sounds, large pictures of a quarter of their sides.
    Quarter,
    /// No pictures, sounds or films.
    Words,
    /// The same, and short tables.
    Short,
}

impl Fidelity {
    pub(crate) const ALL: [Self; 5] =
        [Self::Whole, Self::Half, Self::Quarter, Self::Words, Self::Short];

    /// What is left out, for a person; nothing where all is there.
    fn words(self) -> Option<&'static str> {
        match self {
            Self::Whole => None,
            Self::Half => {
                Some("large pictures have half their width, and films but one are left out")
            }
            Self::Quarter => Some(
                "large pictures have a quarter of their width, films and most sounds are left out",
            ),
            Self::Words => Some("pictures, sounds and films are left out"),
            Self::Short => Some("pictures, sounds and films are left out, and tables are short"),
        }
    }
}

/// What the sections share.
#[derive(Debug)]
pub(crate) struct Page {
    next: Cell<usize>,
    films: Cell<usize>,
    sounds: Cell<usize>,
    /// How much is shown.
    pub(crate) fidelity: Fidelity,
    has_several: bool,
    notes: RefCell<Vec<String>>,
}

impl Page {
    pub(crate) fn new(fidelity: Fidelity, has_several: bool) -> Self {
        let [next, films, sounds] = [0; 3].map(Cell::new);
        Self { next, films, sounds, fidelity, has_several, notes: RefCell::default() }
    }

    /// A heading within what a section has of one run: `depth` 0 or 1, below the run's name where there are several.
    pub(crate) fn heading(&self, depth: usize, content: &Markup) -> Markup {
        match depth + usize::from(self.has_several) {
            0 => html! { h3 { (content) } },
            1 => html! { h4 { (content) } },
            _ => html! { h5 { (content) } },
        }
    }

    /// A name that no other element has.
    pub(crate) fn id(&self) -> String {
        self.next.set(self.next.get() + 1);
        format!("i{}", self.next.get())
    }

    /// Tells the reader of the page something that went wrong.
    pub(crate) fn note(&self, text: String) {
        self.notes.borrow_mut().push(text);
    }

    /// What the reader was told.
    pub(crate) fn notes(self) -> Vec<String> {
        self.notes.into_inner()
    }

    /// Rows of a table at most.
    pub(crate) fn most_rows(&self) -> usize {
        if self.fidelity < Fidelity::Short { 128 } else { 12 }
    }

    /// Whether there are pictures.
    pub(crate) fn has_pictures(&self) -> bool {
        self.fidelity < Fidelity::Words
    }

    /// By how much a picture of this width is made smaller.
    pub(crate) fn shrinks(&self, width: usize) -> usize {
        match self.fidelity {
            Fidelity::Half if width > 96 => 2,
            Fidelity::Quarter if width > 96 => 4,
            Fidelity::Quarter if width > 48 => 2,
            _ => 1,
        }
    }

    /// Whether one more film has room.
    pub(crate) fn takes_film(&self) -> bool {
        self.films.set(self.films.get() + 1);
        self.fidelity == Fidelity::Whole
            || (self.fidelity == Fidelity::Half && self.films.get() == 1)
    }

    /// Whether one more sound has room.
    pub(crate) fn takes_sound(&self) -> bool {
        self.sounds.set(self.sounds.get() + 1);
        self.fidelity < Fidelity::Quarter
            || (self.fidelity == Fidelity::Quarter && self.sounds.get() <= 4)
    }
}

/// A section: its anchor, its heading, and what is in it.
pub(crate) struct Section {
    pub(crate) anchor: &'static str,
    pub(crate) heading: &'static str,
    pub(crate) content: Markup,
}

/// The whole page as HTML.
pub(crate) fn whole(
    title: &str,
    about: &Markup,
    sections: &[Section],
    fidelity: Fidelity,
    notes: &[String],
) -> String {
    let hash = |text: &str| BASE64_STANDARD.encode(Sha256::digest(text.as_bytes()));
    let [style, script] = [STYLE, SCRIPT].map(hash);
    let policy = format!(
        "default-src 'none'; img-src data:; media-src data:; style-src 'sha256-{style}'; script-src 'sha256-{script}'; \
         base-uri 'none'; form-action 'none'"
    );
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(policy);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="referrer" content="no-referrer";
                link rel="icon" href="data:,";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { (title) }
                    (about)
                    nav aria-label="On this page" {
                        ul { @for section in sections { li { a href=(format!("#{}", section.anchor)) { (section.heading) } } } }
                    }
                }
                main {
                    @if fidelity.words().is_some() || !notes.is_empty() {
                        section aria-label="What this page leaves out" {
                            @if let Some(words) = fidelity.words() {
                                p { "So that the page stays below its size limit, " (words) "." }
                            }
                            @for note in notes { p { (note) } }
                        }
                    }
                    @for section in sections {
                        section id=(section.anchor) aria-labelledby=(format!("{}-h", section.anchor)) {
                            h2 id=(format!("{}-h", section.anchor)) { (section.heading) }
                            (section.content)
                        }
                    }
                }
                footer {
                    p { "Written by tessera report " (env!("CARGO_PKG_VERSION")) ". This page holds all that it shows and fetches nothing." }
                }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    };
    page.into_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn style_and_script_cannot_end_their_elements() {
        assert!(!STYLE.contains("</") && !SCRIPT.contains("</") && !SCRIPT.contains("<!--"));
        assert!(!STYLE.contains("url(") && !STYLE.contains("@import"));
    }
}
