//! What a file, the environment and `--set` say, key by key, each with its place.

use std::path::Path;

use toml::Value;
use toml::de::{DeTable, DeValue};

use super::layers::Entry;
use super::schema::joined;
use super::value::Written;
use crate::error::TrainError;

/// What environment variables that are keys begin with.
const PREFIX: &str = "TESSERA__";

/// The keys of a TOML file.
pub(super) fn from_file(path: &Path) -> Result<Vec<Entry>, TrainError> {
    let text = match super::shipped::text_of(path)? {
        Some(text) => text.to_owned(),
        None => std::fs::read_to_string(path).map_err(|error| {
            let path = path.display();
            TrainError::BadInput(format!("cannot read the configuration {path}: {error}"))
        })?,
    };
    let table = DeTable::parse(&text).map_err(|error| {
        let line = line_of(&text, error.span().map_or(0, |span| span.start));
        let words = error.message().replace('\n', " ");
        TrainError::BadInput(format!("{}:{line}: not TOML: {words}", path.display()))
    })?;
    let mut entries = Vec::new();
    flatten(table.get_ref(), "", &mut |key, span_start, value| {
        let origin = format!("{}:{}", path.display(), line_of(&text, span_start));
        entries.push(Entry { key, written: Written::Toml(value), origin });
    });
    Ok(entries)
}

/// The keys of the environment: those of variables that begin with `TESSERA__`.
pub(super) fn from_environment(
    environment: impl IntoIterator<Item = (String, String)>,
) -> Vec<Entry> {
    let mut entries = Vec::new();
    for (name, value) in environment {
        let Some(key) = name.strip_prefix(PREFIX) else { continue };
        let key = key.to_lowercase().replace("__", ".");
        entries.push(Entry { key, written: Written::Text(value), origin: name });
    }
    // A list before its parts, and the same order every time.
    entries.sort_by(|a, b| a.origin.cmp(&b.origin));
    entries
}

/// One `--set`. Spaces before the `=` stand for those behind it.
pub(super) fn from_set(set: &str) -> Result<Entry, TrainError> {
    let Some((key, value)) = set.split_once('=') else {
        return Err(TrainError::BadInput(format!(
            "--set needs KEY=VALUE, such as train.steps=100, found '{set}'"
        )));
    };
    let value = if key.ends_with(' ') { value.trim() } else { value };
    let (key, written) = (key.trim().to_owned(), Written::Text(value.to_owned()));
    Ok(Entry { key, written, origin: "--set".into() })
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at.min(text.len())].matches('\n').count() + 1
}

/// Calls `leaf` with the dotted key, the place in the text and the value of each leaf. A table
/// without keys is a leaf; so is each part of a list of tables before its keys, and the list, as
/// an empty one, before its parts.
fn flatten(table: &DeTable<'_>, prefix: &str, leaf: &mut dyn FnMut(String, usize, Value)) {
    for (key, value) in table {
        let dotted = joined(prefix, key.get_ref());
        flatten_value(dotted, key.span().start, value.get_ref(), leaf);
    }
}

fn flatten_value(
    key: String,
    start: usize,
    value: &DeValue<'_>,
    leaf: &mut dyn FnMut(String, usize, Value),
) {
    match value {
        DeValue::Table(inner) if inner.is_empty() => leaf(key, start, plain(value)),
        DeValue::Table(inner) => flatten(inner, &key, leaf),
        DeValue::Array(parts) if parts.iter().any(|part| part.get_ref().is_table()) => {
            leaf(key.clone(), start, Value::Array(Vec::new()));
            for (number, part) in parts.iter().enumerate() {
                let (key, start) = (format!("{key}.{number}"), part.span().start);
                if part.get_ref().is_table() {
                    leaf(key.clone(), start, Value::Table(toml::Table::new()));
                }
                flatten_value(key, start, part.get_ref(), leaf);
            }
        }
        other => leaf(key, start, plain(other)),
    }
}

/// The value without its places in the text; a number that does not fit is told as text, which
/// the check of types refuses.
fn plain(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::Boolean(value) => Value::Boolean(*value),
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or_else(|_| Value::String(number.to_string()), Value::Integer),
        DeValue::Float(number) => {
            number.as_str().parse().map_or_else(|_| Value::String(number.to_string()), Value::Float)
        }
        DeValue::Datetime(date) => Value::Datetime(*date),
        DeValue::Array(values) => {
            Value::Array(values.iter().map(|value| plain(value.get_ref())).collect())
        }
        // Those with keys are gone through.
        DeValue::Table(_) => Value::Table(toml::Table::new()),
    }
}
