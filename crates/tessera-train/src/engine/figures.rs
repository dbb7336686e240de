//! Named numbers on their way to rows, TensorBoard and the screen.
//!
//! The engine and the task each know some of the figures of a step or of an evaluation; whoever writes or draws them
//! knows none by name. A figure says itself which of the places it belongs to.

use serde::ser::{Serialize, SerializeMap, Serializer};

/// What a figure is worth.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A number; `null` in a file where it is not finite.
    Number(f64),
    /// A number of things.
    Count(u64),
    /// Numbers, such as one of each level.
    Numbers(Vec<f64>),
    /// Numbers of things.
    Counts(Vec<u64>),
    /// Numbers of things in rows of equal length.
    Table(Vec<Vec<u64>>),
    /// A name.
    Text(String),
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Number(number) => number.serialize(serializer),
            Self::Count(count) => count.serialize(serializer),
            Self::Numbers(numbers) => numbers.serialize(serializer),
            Self::Counts(counts) => counts.serialize(serializer),
            Self::Table(rows) => rows.serialize(serializer),
            Self::Text(text) => text.serialize(serializer),
        }
    }
}

/// A named number, with what a reader has to know of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// Its key in a row, such as `grad_norm`.
    pub name: &'static str,
    /// What it is.
    pub value: Value,
    /// What it is counted in, such as `ms`; empty for a plain number.
    pub unit: &'static str,
    /// The group of TensorBoard's charts that has one of it, such as `train`.
    pub chart: Option<&'static str>,
    /// Digits behind the point where a person reads it in a line; none: the line leaves it out.
    pub digits: Option<usize>,
}

impl Figure {
    /// A number that rows alone have.
    pub fn number(name: &'static str, value: f64) -> Self {
        Self { name, value: Value::Number(value), unit: "", chart: None, digits: None }
    }

    /// A number of things that rows alone have.
    pub fn count(name: &'static str, value: u64) -> Self {
        Self { value: Value::Count(value), ..Self::number(name, 0.0) }
    }

    /// Numbers that rows alone have.
    pub fn numbers(name: &'static str, value: Vec<f64>) -> Self {
        Self { value: Value::Numbers(value), ..Self::number(name, 0.0) }
    }

    /// Numbers of things that rows alone have.
    pub fn counts(name: &'static str, value: Vec<u64>) -> Self {
        Self { value: Value::Counts(value), ..Self::number(name, 0.0) }
    }

    /// Rows of numbers of things, for rows and for a person who asks.
    pub fn table(name: &'static str, value: Vec<Vec<u64>>) -> Self {
        Self { value: Value::Table(value), ..Self::number(name, 0.0) }
    }

    /// A name that rows alone have.
    pub fn text(name: &'static str, value: impl Into<String>) -> Self {
        Self { value: Value::Text(value.into()), ..Self::number(name, 0.0) }
    }

    /// The same, counted in `unit`.
    #[must_use]
    pub fn in_unit(self, unit: &'static str) -> Self {
        Self { unit, ..self }
    }

    /// The same, with a chart in this group.
    #[must_use]
    pub fn charted(self, group: &'static str) -> Self {
        Self { chart: Some(group), ..self }
    }

    /// The same, in lines for a person with so many digits.
    #[must_use]
    pub fn shown(self, digits: usize) -> Self {
        Self { digits: Some(digits), ..self }
    }

    /// It as one number, if it is one.
    pub fn as_number(&self) -> Option<f64> {
        match self.value {
            Value::Number(number) => Some(number),
            Value::Count(count) => Some(count as f64),
            Value::Numbers(_) | Value::Counts(_) | Value::Table(_) | Value::Text(_) => None,
        }
    }

    /// Name, number and unit for a person; none where lines leave it out.
    pub fn words(&self) -> Option<String> {
        let (digits, number) = (self.digits?, self.as_number()?);
        let space = if self.unit.is_empty() { "" } else { " " };
        Some(format!("{} {number:.digits$}{space}{}", self.name.replace('_', " "), self.unit))
    }
}

/// The figures of an interval of steps, or of an evaluation, in the order of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Optimiser steps done.
    pub step: u64,
    /// Everything else.
    pub figures: Vec<Figure>,
}

impl Row {
    /// The figure of this name.
    pub fn get(&self, name: &str) -> Option<&Figure> {
        self.figures.iter().find(|figure| figure.name == name)
    }

    /// The number of this name; NaN if there is none.
    pub fn number(&self, name: &str) -> f64 {
        self.get(name).and_then(Figure::as_number).unwrap_or(f64::NAN)
    }

    /// All that a person reads in a line, with this between two figures.
    pub fn words(&self, between: &str) -> String {
        self.figures.iter().filter_map(Figure::words).collect::<Vec<_>>().join(between)
    }
}

impl Serialize for Row {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1 + self.figures.len()))?;
        map.serialize_entry("step", &self.step)?;
        for figure in &self.figures {
            map.serialize_entry(figure.name, &figure.value)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_an_object_in_its_order_and_a_line_for_a_person() {
        let row = Row {
            step: 7,
            figures: vec![
                Figure::text("split", "test"),
                Figure::number("mse", 0.012_345_6).charted("eval").shown(5),
                Figure::number("psnr", f64::NAN).in_unit("dB").shown(2),
                Figure::counts("level_codes_used", vec![3, 4]),
                Figure::count("codes_used", 7).shown(0),
            ],
        };
        let json = r#"{"step":7,"split":"test","mse":0.0123456,"psnr":null,"level_codes_used":[3,4],"codes_used":7}"#;
        assert_eq!(serde_json::to_string(&row).unwrap(), json);
        assert_eq!(row.words(", "), "mse 0.01235, psnr NaN dB, codes used 7");
        assert_eq!((row.number("codes_used"), row.number("split").is_nan()), (7.0, true));
    }
}
