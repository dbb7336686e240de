//! Words on stderr that nobody waits for: a thread writes them, once [`tell_behind`] was called.
//!
//! A terminal that was stopped (Ctrl-S) or a pipe that nobody empties keeps that thread alone. Lines stay in
//! their order up to a bound and are counted past it; a newer picture of the progress takes the place of an
//! older one.

use std::fmt;
use std::io::{self, Write};
use std::sync::OnceLock;
use std::time::Duration;

use crate::Writer;

/// Lines that may wait.
const MOST_LINES: usize = 10_000;

static BEHIND: OnceLock<Writer<Word>> = OnceLock::new();

/// What is to be put on stderr.
enum Word {
    Line(Vec<u8>),
    /// A line that has to be written in a way of its own, such as above a bar.
    Above(Box<dyn FnOnce() + Send>),
    /// A picture of the progress.
    Picture(Box<dyn FnOnce() + Send>),
}

impl fmt::Debug for Word {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Word")
    }
}

/// From now on words on stderr are written by a thread; where there can be none, nothing changes.
pub fn tell_behind() {
    let gap = |left_out: u64| {
        let line = format!("{left_out} lines are left out here: nobody took what was written\n");
        Word::Line(line.into_bytes())
    };
    let write = |word| match word {
        Word::Line(line) => {
            let _ = io::stderr().lock().write_all(&line);
        }
        Word::Above(run) | Word::Picture(run) => run(),
    };
    if BEHIND.get().is_none()
        && let Ok(writer) = Writer::start("stderr", MOST_LINES, gap, write)
    {
        let _ = BEHIND.set(writer); // the first one stays
    }
}

/// Puts text on stderr as it is, in one piece.
pub(crate) fn put_line(text: Vec<u8>) {
    match BEHIND.get() {
        Some(writer) => writer.put(Word::Line(text)),
        None => {
            let _ = io::stderr().lock().write_all(&text);
        }
    }
}

/// Lets `write` put a line on stderr.
pub fn tell_above(write: impl FnOnce() + Send + 'static) {
    match BEHIND.get() {
        Some(writer) => writer.put(Word::Above(Box::new(write))),
        None => write(),
    }
}

/// Lets `draw` draw on stderr, in place of an older picture that was not begun.
pub fn draw_newest(draw: impl FnOnce() + Send + 'static) {
    match BEHIND.get() {
        Some(writer) => {
            let picture = Word::Picture(Box::new(draw));
            writer.put_newest(picture, |word| matches!(word, Word::Picture(_)));
        }
        None => draw(),
    }
}

/// Waits until all words are written, for so long at most; whether they are.
pub fn all_told(limit: Duration) -> bool {
    BEHIND.get().is_none_or(|writer| writer.wait(limit))
}

/// Standard error, by way of the thread where there is one; each write is one line or several whole ones.
#[derive(Debug, Clone, Copy, Default)]
pub struct Stderr;

impl Write for Stderr {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        put_line(text.to_owned());
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
