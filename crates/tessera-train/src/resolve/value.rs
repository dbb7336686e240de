//! From what a person wrote to the value of a key: the type of the key decides what it means.
//!
//! In a file a value has a type of its own. In the environment and after `--set` it is plain text:
//! a key that holds text takes it as it is, whatever it looks like, and any other key reads it.

use serde_json::Value as Json;
use toml::Value;

use super::schema::Wanted;

/// A value as it was written.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Written {
    /// In a file, or within a list or a table.
    Toml(Value),
    /// In the environment, or after `--set`.
    Text(String),
}

impl Written {
    /// The value for a key that holds one; `None` if it is not what is wanted.
    pub(super) fn read(&self, wanted: &Wanted) -> Option<Json> {
        match (self, wanted) {
            (Self::Toml(value), _) => typed(value, wanted),
            (Self::Text(text), Wanted::Text) => Some(unquoted(text).into()),
            (Self::Text(text), Wanted::Word(words)) => {
                let word = unquoted(text.trim());
                words.contains(&&*word).then(|| word.into())
            }
            (Self::Text(text), _) => {
                let text = text.trim();
                parsed(text).and_then(|value| typed(&value, wanted)).or_else(|| plain(text, wanted))
            }
        }
    }

    /// Keys and values of a table.
    pub(super) fn table(&self) -> Option<toml::Table> {
        match self.structure()? {
            Value::Table(table) => Some(table),
            _ => None,
        }
    }

    /// The parts of a list of tables.
    pub(super) fn tables(&self) -> Option<Vec<toml::Table>> {
        let Value::Array(parts) = self.structure()? else { return None };
        let table = |part| match part {
            Value::Table(table) => Some(table),
            _ => None,
        };
        parts.into_iter().map(table).collect()
    }

    fn structure(&self) -> Option<Value> {
        match self {
            Self::Toml(value) => Some(value.clone()),
            Self::Text(text) => parsed(text.trim()),
        }
    }

    /// What was found, in one line.
    pub(super) fn words(&self) -> String {
        let words = match self {
            Self::Toml(value) => value.to_string(),
            Self::Text(text) => match parsed(text.trim()) {
                Some(value) => value.to_string(),
                None => format!("\"{text}\""),
            },
        };
        words.replace(char::is_control, " ")
    }

    /// Whether it is a whole number above this one.
    pub(super) fn is_above(&self, most: i64) -> bool {
        match self {
            Self::Toml(Value::Integer(number)) => *number > most,
            // One that is too large for TOML is told as text, see `sources.rs`.
            Self::Toml(Value::String(text)) | Self::Text(text) => {
                text.trim().parse::<u128>().is_ok_and(|number| number > most as u128)
            }
            Self::Toml(_) => false,
        }
    }
}

/// A value of TOML as the key wants it.
fn typed(value: &Value, wanted: &Wanted) -> Option<Json> {
    match (wanted, value) {
        (Wanted::Whole { least, most }, Value::Integer(number)) => {
            (least..=most).contains(&number).then(|| (*number).into())
        }
        (Wanted::Number, Value::Integer(number)) => finite(*number as f64),
        (Wanted::Number, Value::Float(number)) => finite(*number),
        (Wanted::Truth, Value::Boolean(truth)) => Some((*truth).into()),
        (Wanted::Text, Value::String(text)) => Some(text.as_str().into()),
        (Wanted::Word(words), Value::String(word)) => {
            words.contains(&word.as_str()).then(|| word.as_str().into())
        }
        (Wanted::List(of), Value::Array(values)) => {
            values.iter().map(|value| typed(value, of)).collect::<Option<Vec<_>>>().map(Json::from)
        }
        _ => None,
    }
}

/// Numbers as others write them: `.5`, `007`.
fn plain(text: &str, wanted: &Wanted) -> Option<Json> {
    match wanted {
        Wanted::Whole { .. } => typed(&Value::Integer(text.parse().ok()?), wanted),
        Wanted::Number => finite(text.parse().ok()?),
        _ => None,
    }
}

/// A configuration travels as JSON, which has no other numbers.
fn finite(number: f64) -> Option<Json> {
    number.is_finite().then(|| number.into())
}

/// The text without its quotes, where it stands in quotes as a whole, as TOML has them.
fn unquoted(text: &str) -> String {
    match parsed(text) {
        Some(Value::String(inner)) if text.starts_with(['"', '\'']) => inner,
        _ => text.to_owned(),
    }
}

/// One value of TOML, or of JSON.
fn parsed(text: &str) -> Option<Value> {
    let table = toml::from_str::<toml::Table>(&format!("value = {text}")).ok();
    let table = table.filter(|table| table.len() == 1);
    table.and_then(|mut table| table.remove("value")).or_else(|| serde_json::from_str(text).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str, wanted: &Wanted) -> Option<Json> {
        Written::Text(text.to_owned()).read(wanted)
    }

    #[test]
    fn a_key_that_holds_text_takes_any() {
        let plain = [
            "2026-11-26",
            "12:30:00",
            "007",
            "1e5",
            "-1",
            "true",
            "nan",
            "a=b",
            "{a=1}",
            "[1, 2]",
            "[x",
            "it's",
            "say \"hi\"",
            "'a' and 'b'",
            "日本語/ñ",
            "a # b",
            "C:\\new",
            " a ",
            "",
            "s3://b/k",
            "x-{000..009}.tar",
            "'",
            "a\nb",
        ];
        for name in plain {
            assert_eq!(text(name, &Wanted::Text), Some(name.into()), "{name:?}");
        }
        // Quotes around the whole of it are TOML's.
        for (quoted, name) in
            [("\"a b\"", "a b"), ("'a\\b'", "a\\b"), ("'\"a\"'", "\"a\""), ("\"\"", "")]
        {
            assert_eq!(text(quoted, &Wanted::Text), Some(name.into()), "{quoted:?}");
        }
    }

    #[test]
    fn other_keys_read_the_text() {
        let whole = Wanted::Whole { least: 0, most: 99 };
        for (written, value) in [("7", 7), (" 7 ", 7), ("0x10", 16), ("1_0", 10), ("007", 7)] {
            assert_eq!(text(written, &whole), Some(value.into()), "{written:?}");
        }
        for wrong in ["-1", "100", "1.0", "", "a", "'7'", "true", "1\nb = 2", "[1]"] {
            assert_eq!(text(wrong, &whole), None, "{wrong:?}");
        }
        for (written, value) in [("2", 2.0), (".5", 0.5), ("-1e-3", -0.001), ("+1.", 1.0)] {
            assert_eq!(text(written, &Wanted::Number), Some(value.into()), "{written:?}");
        }
        for wrong in ["nan", "inf", "-inf", "1e999", "1,5", "2026-11-26"] {
            assert_eq!(text(wrong, &Wanted::Number), None, "{wrong:?}");
        }
        assert_eq!(text("true", &Wanted::Truth), Some(true.into()));
        assert_eq!(text("yes", &Wanted::Truth), None);
        let words = Wanted::Word(vec!["mse", "psnr"]);
        assert_eq!(text("\"psnr\"", &words), Some("psnr".into()));
        assert_eq!(text("mad", &words), None);
        let list = Wanted::List(Box::new(whole));
        assert_eq!(text("[8, 5,]", &list), Some(serde_json::json!([8, 5])));
        assert_eq!(text("[8, -5]", &list), None);
        assert_eq!(text("8", &list), None);
    }

    #[test]
    fn tables_are_read_as_toml_or_json() {
        let of = |text: &str| Written::Text(text.to_owned()).tables().map(|parts| parts.len());
        assert_eq!(of("[{a = 1}, {a = 2}]"), Some(2));
        assert_eq!(of("[{\"a\": 1}]"), Some(1));
        assert_eq!(of("[]"), Some(0));
        assert_eq!((of("[1]"), of("{a = 1}"), of("a")), (None, None, None));
    }
}
