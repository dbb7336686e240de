//! Figures of an entry under the names that trackers show: those of TensorBoard's charts.

use serde_json::{Map, Value};

use crate::source::Entry;

/// Figures of `metrics.jsonl` that are about speed.
const SPEED: [&str; 4] = ["samples_per_second", "step_ms", "comm_ms", "data_wait_ms"];

/// Those that are about memory.
const MEMORY: [&str; 2] = ["memory_mib", "gpu_memory_mib"];

/// A value that a tracker can take.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Figure {
    /// As it is in the row.
    Number(serde_json::Number),
    /// Not finite.
    NotANumber,
    /// Words.
    Text(String),
}

/// All figures of an entry, `step` left out, in the order of their names.
///
/// Fields of `metrics.jsonl` are `train/FIELD`, `speed/FIELD` or `memory/FIELD`, those of `eval.jsonl` `eval/FIELD`. Of a list each
/// number has its place behind a slash; lists of lists are left out.
pub(crate) fn figures(entry: &Entry) -> Vec<(String, Figure)> {
    let mut found = Vec::new();
    for (name, value) in fields(&entry.metrics) {
        let part = match name.as_str() {
            name if SPEED.contains(&name) => "speed",
            name if MEMORY.contains(&name) => "memory",
            _ => "train",
        };
        add(&mut found, format!("{part}/{name}"), value);
    }
    for (name, value) in fields(&entry.evaluation) {
        add(&mut found, format!("eval/{name}"), value);
    }
    found
}

fn fields(row: &Map<String, Value>) -> impl Iterator<Item = (&String, &Value)> {
    row.iter().filter(|(name, _)| *name != "step")
}

fn add(found: &mut Vec<(String, Figure)>, name: String, value: &Value) {
    match value {
        Value::Number(number) => found.push((name, Figure::Number(number.clone()))),
        Value::Null => found.push((name, Figure::NotANumber)),
        Value::String(text) => found.push((name, Figure::Text(text.clone()))),
        Value::Array(values) => {
            for (place, value) in values.iter().enumerate() {
                if value.is_number() || value.is_null() {
                    add(found, format!("{name}/{place}"), value);
                }
            }
        }
        Value::Bool(_) | Value::Object(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_have_the_names_of_tensorboards_charts() {
        let row = |value: Value| value.as_object().cloned().unwrap();
        let entry = Entry {
            step: 7,
            seconds: 1.0,
            metrics: row(
                json!({"step": 7, "loss": null, "step_ms": 2.5, "level_codes_used": [3, 4]}),
            ),
            evaluation: row(json!({"step": 7, "split": "test", "confusion": [[1, 0], [0, 1]]})),
            exhibits: Vec::new(),
        };
        let number = |value: Value| match value {
            Value::Number(number) => Figure::Number(number),
            _ => unreachable!(),
        };
        let expected = [
            ("train/level_codes_used/0", number(json!(3))),
            ("train/level_codes_used/1", number(json!(4))),
            ("train/loss", Figure::NotANumber),
            ("speed/step_ms", number(json!(2.5))),
            ("eval/split", Figure::Text("test".to_owned())),
        ];
        assert_eq!(figures(&entry), expected.map(|(name, figure)| (name.to_owned(), figure)));
    }
}
