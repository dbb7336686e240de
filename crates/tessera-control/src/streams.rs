//! What a program says to a person: lines on stderr, results on stdout, and what to do when nobody reads them.
//!
//! `println!` and `eprintln!` panic where the reader has gone (`tessera ... | head`) or the disk behind `>` is
//! full. Words on stderr that nobody reads are lost without harm. A result that nobody reads ends the program
//! by SIGPIPE, as it ends `cat`; a full disk is bad input.

use std::fmt::Display;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGCHLD, SIGPIPE};

use crate::behind::put_line;

/// Says a line on stderr, in one piece; control characters in it, such as the newline of a file's name, are
/// escaped, so that it stays one line.
pub fn tell(line: impl Display) {
    let line = painted(&one_line(&line.to_string()), is_coloured()) + "\n";
    put_line(line.into_bytes());
}

/// Whether what is written to stderr may have colours: on a terminal that has them, unless `NO_COLOR` is set (<https://no-color.org>).
pub fn is_coloured() -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_some_and(|terminal| terminal == "dumb");
    io::stderr().is_terminal() && !is_set("NO_COLOR") && !is_dumb
}

/// A line whose first word says how grave it is, in a colour where there may be any: `error:` red, `warning:` yellow.
pub fn painted(line: &str, is_coloured: bool) -> String {
    let colours = [("error:", "31"), ("warning:", "33")];
    let found = colours.iter().find(|(word, _)| is_coloured && line.starts_with(word));
    found.map_or_else(
        || line.to_owned(),
        |(word, colour)| format!("\x1b[1;{colour}m{word}\x1b[0m{}", &line[word.len()..]),
    )
}

/// The text with its control characters escaped.
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_control() {
            line.extend(letter.escape_default());
        } else {
            line.push(letter);
        }
    }
    line
}

/// Writes a result to stdout, in one piece.
///
/// # Errors
///
/// Whatever the system answers; see [`unread`] and [`not_written`].
pub fn write_result(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush())
}

/// Whether a write has failed because the reader has gone.
pub fn unread(error: &io::Error) -> bool {
    error.kind() == ErrorKind::BrokenPipe
}

/// What to say of a result that could not be written.
pub fn not_written(error: &io::Error) -> String {
    format!(
        "the result cannot be written to standard output ({error}): free some space, or send it elsewhere"
    )
}

/// Ends this process by SIGPIPE, as programs end whose output nobody reads any more.
pub fn end_unread() {
    let _ = signal_hook::low_level::emulate_default_handler(SIGPIPE);
}

/// Takes back what a parent may have left: where it ignores SIGCHLD, and so the kernel keeps no word of how a
/// child has ended, every wait for one would fail. Programs that are started afterwards find the default.
pub fn hear_of_children() {
    if is_ignored(SIGCHLD) {
        // A handler that does nothing: it takes the place of what was inherited, and does not outlive an exec.
        let _ = signal_hook::flag::register(SIGCHLD, Arc::new(AtomicBool::new(false)));
    }
}

/// Whether this process ignores a signal, as it does where its parent has.
pub fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    ignored_mask(&status).is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

fn ignored_mask(status: &str) -> Option<u64> {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_of_a_line_has_its_colour_where_there_may_be_one() {
        assert_eq!(painted("error: no disk", true), "\x1b[1;31merror:\x1b[0m no disk");
        assert_eq!(painted("warning: slow", true), "\x1b[1;33mwarning:\x1b[0m slow");
        for (line, is_coloured) in [("error: no disk", false), ("an error: no disk", true)] {
            assert_eq!(painted(line, is_coloured), line);
        }
    }

    #[test]
    fn a_name_with_a_newline_leaves_one_line() {
        assert_eq!(one_line("runs/a\nb\u{1b}[2J é"), "runs/a\\nb\\u{1b}[2J é");
    }

    #[test]
    fn a_reader_that_has_gone_is_told_from_a_full_disk() {
        assert!(unread(&ErrorKind::BrokenPipe.into()));
        let full = io::Error::from(ErrorKind::StorageFull);
        assert!(!unread(&full) && not_written(&full).contains("free some space"));
    }

    #[test]
    fn the_mask_of_ignored_signals_is_hexadecimal() {
        // Bit 0 is signal 1, SIGHUP.
        assert_eq!(ignored_mask("Name:\tx\nSigIgn:\t0000000000001001\n"), Some(0x1001));
    }
}
