//! `metrics.jsonl` as curves, in one pass and in bounded memory.
//!
//! A row is read without making a value of it: names are compared with those of the row before, numbers go
//! into their curves. A last line that is half written is normal for a run that goes on; other lines that are
//! no rows are counted.

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind};
use std::path::Path;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::buckets::Buckets;
use crate::error::ReportError;

/// Numbers of a list that become curves; longer lists are no curves.
const MOST_PARTS: usize = 64;
/// Curves of a run, so that a file with a new name in every row takes no more memory.
const MOST_CURVES: usize = 512;

/// One field over the steps.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Curve {
    /// Its name in the rows; of a part of a list `NAME.NUMBER`.
    pub(crate) name: String,
    /// Its values.
    pub(crate) values: Buckets,
}

/// All fields over the steps.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Rows {
    /// The curves, in the order in which their fields came.
    pub(crate) curves: Vec<Curve>,
    /// Rows that were read.
    pub(crate) num: u64,
    /// Lines that are no rows, the last one left out where it is half written.
    pub(crate) damaged: u64,
    /// The first of them, from 1.
    pub(crate) first_damaged: Option<u64>,
    /// Whether the last line is half written.
    pub(crate) is_cut: bool,
    /// Step of the last row.
    pub(crate) last_step: u64,
}

impl Rows {
    /// Reads the file at `path`; no rows where there is none.
    pub(crate) fn read(path: &Path) -> Result<Self, ReportError> {
        let file = match File::open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            opened => opened.map_err(ReportError::read(path))?,
        };
        let mut file = BufReader::with_capacity(1 << 20, file);
        let (mut rows, mut line, mut number) = (Self::default(), Vec::new(), 0);
        let mut row = Row::default();
        loop {
            line.clear();
            if file.read_until(b'\n', &mut line).map_err(ReportError::read(path))? == 0 {
                rows.curves.retain(|curve| !curve.values.all.is_empty());
                return Ok(rows);
            }
            number += 1;
            let is_whole = line.ends_with(b"\n");
            if line.trim_ascii().is_empty() {
                continue;
            }
            row.begin();
            let mut json = serde_json::Deserializer::from_slice(&line);
            let read = (&mut row).deserialize(&mut json).and_then(|()| json.end());
            match (read, row.step) {
                (Ok(()), Some(step)) => rows.take(step, &row),
                _ if !is_whole => rows.is_cut = true,
                _ => {
                    rows.damaged += 1;
                    rows.first_damaged.get_or_insert(number);
                }
            }
        }
    }

    fn take(&mut self, step: u64, row: &Row) {
        self.num += 1;
        self.last_step = step;
        for (at, value) in &row.values {
            while self.curves.len() <= *at {
                let name = row.names[self.curves.len()].clone();
                self.curves.push(Curve { name, values: Buckets::default() });
            }
            self.curves[*at].values.push(step, *value);
        }
    }

    /// The curve of a field.
    pub(crate) fn curve(&self, name: &str) -> Option<&Curve> {
        self.curves.iter().find(|curve| curve.name == name && !curve.values.all.is_empty())
    }

    /// The curves of the parts of a list.
    pub(crate) fn parts(&self, name: &str) -> Vec<&Curve> {
        let part = |curve: &&Curve| {
            curve.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'))
        };
        self.curves.iter().filter(part).collect()
    }

    /// The last value of a field.
    pub(crate) fn last(&self, name: &str) -> Option<f64> {
        self.curve(name).and_then(|curve| curve.values.last)
    }
}

/// The row that is being read, and all names so far.
#[derive(Default)]
struct Row {
    names: Vec<String>,
    step: Option<u64>,
    values: Vec<(usize, Option<f64>)>,
    /// Where the next name is likely to be.
    next: usize,
}

impl Row {
    fn begin(&mut self) {
        self.step = None;
        self.values.clear();
        self.next = 0;
    }

    /// The place of a name among the names; none where there are too many.
    fn place(&mut self, name: &str) -> Option<usize> {
        let at = match self.names.get(self.next) {
            Some(known) if known == name => self.next,
            _ => match self.names.iter().position(|known| known == name) {
                Some(at) => at,
                None if self.names.len() < MOST_CURVES => {
                    self.names.push(name.to_owned());
                    self.names.len() - 1
                }
                None => return None,
            },
        };
        self.next = at + 1;
        Some(at)
    }

    fn take(&mut self, key: Key, field: Field) {
        match (key, field) {
            (Key::Step, Field::Number(Some(step))) => {
                self.step = (step >= 0.0 && step.fract() == 0.0).then_some(step as u64);
            }
            (Key::At(at), Field::Number(value)) => self.values.push((at, value)),
            (Key::At(at), Field::List(list)) if list.len() <= MOST_PARTS => {
                for (part, value) in list.into_iter().enumerate() {
                    let name = format!("{}.{part}", self.names[at]);
                    if let Some(at) = self.place(&name) {
                        self.values.push((at, value));
                    }
                }
            }
            _ => {}
        }
    }
}

/// Which field it is.
enum Key {
    Step,
    At(usize),
    Ignored,
}

/// Looks a name up without keeping it.
struct KeySeed<'a>(&'a mut Row);

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = Key;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Key, D::Error> {
        json.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed<'_> {
    type Value = Key;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Key, E> {
        Ok(match name {
            "step" => Key::Step,
            name => self.0.place(name).map_or(Key::Ignored, Key::At),
        })
    }
}

/// What a field holds.
enum Field {
    Number(Option<f64>),
    List(Vec<Option<f64>>),
    Other,
}

impl<'de> DeserializeSeed<'de> for &mut Row {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for &mut Row {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a row")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key_seed(KeySeed(self))? {
            let field = map.next_value_seed(FieldSeed)?;
            self.take(key, field);
        }
        Ok(())
    }
}

struct FieldSeed;

impl<'de> DeserializeSeed<'de> for FieldSeed {
    type Value = Field;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Field, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for FieldSeed {
    type Value = Field;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_f64<E>(self, value: f64) -> Result<Field, E> {
        Ok(Field::Number(Some(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Field, E> {
        Ok(Field::Number(Some(value as f64)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Field, E> {
        Ok(Field::Number(Some(value as f64)))
    }

    fn visit_unit<E>(self) -> Result<Field, E> {
        Ok(Field::Number(None))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Field, E> {
        Ok(Field::Other)
    }

    fn visit_str<E>(self, _: &str) -> Result<Field, E> {
        Ok(Field::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Field, A::Error> {
        let (mut numbers, mut are_numbers) = (Vec::new(), true);
        while let Some(part) = list.next_element_seed(FieldSeed)? {
            match part {
                Field::Number(value) => numbers.push(value),
                _ => are_numbers = false,
            }
        }
        Ok(if are_numbers { Field::List(numbers) } else { Field::Other })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Field, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Field::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_rows_are_counted_and_half_a_last_line_is_not_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let text = "{\"step\":10,\"loss\":0.5,\"level_perplexity\":[3.0,null]}\n{\"step\":20,\"lo\n\n\
                    {\"step\":30,\"loss\":null,\"level_perplexity\":[4.0,5.0],\"new\":1}\n7\n{\"step\":4";
        std::fs::write(&path, text).unwrap();
        let rows = Rows::read(&path).unwrap();
        assert_eq!((rows.num, rows.damaged, rows.first_damaged), (2, 2, Some(2)));
        assert!(rows.is_cut);
        assert_eq!(rows.last_step, 30);
        let names: Vec<&str> = rows.curves.iter().map(|curve| curve.name.as_str()).collect();
        assert_eq!(names, ["loss", "level_perplexity.0", "level_perplexity.1", "new"]);
        assert_eq!(rows.last("loss"), None);
        assert_eq!(rows.parts("level_perplexity").len(), 2);
    }

    #[test]
    fn a_run_without_rows_has_none() {
        let rows = Rows::read(Path::new("/nowhere/metrics.jsonl")).unwrap();
        assert_eq!(rows, Rows::default());
    }
}
