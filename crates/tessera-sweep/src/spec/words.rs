//! Values as words of the command line.

use serde_json::Value;

use super::POINTS;
use super::file::plain;
use crate::space::Domain;

/// What ranges are called.
const CALLS: [&str; 4] = ["log", "range", "int", "logint"];

/// Whether the words begin like a range.
pub(super) fn is_call(words: &str) -> bool {
    words.split_once('(').is_some_and(|(name, _)| CALLS.contains(&name))
}

/// `name` and arguments of `name(a,b,...)`.
pub(super) fn call(words: &str) -> Option<(&str, Vec<&str>)> {
    let (name, rest) = words.split_once('(').filter(|(name, _)| CALLS.contains(name))?;
    Some((name, rest.strip_suffix(')')?.split(',').map(str::trim).collect()))
}

/// The range that a call names.
pub(super) fn ranged(name: &str, arguments: &[&str]) -> Result<Domain, String> {
    let wrong =
        || format!("expected {name}(low,high) or {name}(low,high,points), found {arguments:?}");
    let integer = name.ends_with("int");
    let log = name.starts_with("log");
    let number = |text: &str| match integer {
        true => text.parse::<i64>().map(|number| number as f64).map_err(|_| wrong()),
        false => text.parse::<f64>().map_err(|_| wrong()),
    };
    let every = if integer && !log { 0 } else { POINTS };
    let (low, high, points) = match arguments {
        [low, high] => (number(low)?, number(high)?, every),
        [low, high, points] => (number(low)?, number(high)?, points.parse().map_err(|_| wrong())?),
        _ => return Err(wrong()),
    };
    Ok(Domain::Range { low, high, log, integer, points })
}

/// The parts between commas that stand in no brackets and no quotes.
pub(super) fn parts(words: &str) -> Vec<&str> {
    let (mut found, mut start, mut depth, mut quote) = (Vec::new(), 0, 0_i32, None);
    for (at, letter) in words.char_indices() {
        match (quote, letter) {
            (Some(open), letter) if letter == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(letter),
            (None, '[' | '{') => depth += 1,
            (None, ']' | '}') => depth -= 1,
            (None, ',') if depth == 0 => {
                found.push(words[start..at].trim());
                start = at + 1;
            }
            (None, _) => {}
        }
    }
    found.push(words[start..].trim());
    found
}

/// A TOML value, or else the words themselves. No key holds a date: it is the name of something.
pub(super) fn value_of(words: &str) -> Value {
    let table = format!("value = {words}").parse::<toml::Table>();
    match table.ok().as_ref().and_then(|table| table.get("value")) {
        Some(value) if !value.is_datetime() => plain(value),
        _ => Value::String(words.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_date_is_a_name() {
        assert_eq!(value_of("2026-11-26"), Value::from("2026-11-26"));
        assert_eq!(value_of("2026"), Value::from(2026));
    }
}
