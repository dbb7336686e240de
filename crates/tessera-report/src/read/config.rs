//! `config.toml` of a run: every value with where it came from.

use std::path::Path;

use crate::error::ReportError;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The program's own.
    Default,
    /// A file and its line.
    File(String),
    /// An environment variable.
    Environment(String),
    /// `--set` of the command line.
    CommandLine,
    /// Something else that the program names.
    Other(String),
    /// The file does not say.
    Unknown,
}

impl Origin {
    fn of(text: &str) -> Self {
        let is_line = |(path, line): (&str, &str)| {
            !path.is_empty() && !line.is_empty() && line.bytes().all(|byte| byte.is_ascii_digit())
        };
        match text {
            "" => Self::Unknown,
            "default" => Self::Default,
            "--set" => Self::CommandLine,
            text if text.starts_with("TESSERA__") => Self::Environment(text.to_owned()),
            text if text.rsplit_once(':').is_some_and(is_line) => Self::File(text.to_owned()),
            text => Self::Other(text.to_owned()),
        }
    }

    /// For a person.
    pub(crate) fn words(&self) -> String {
        match self {
            Self::Default => "default".to_owned(),
            Self::File(place) => format!("file {place}"),
            Self::Environment(name) => format!("environment {name}"),
            Self::CommandLine => "command line, --set".to_owned(),
            Self::Other(text) => text.clone(),
            Self::Unknown => "not known".to_owned(),
        }
    }
}

/// A key with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    /// The dotted key.
    pub(crate) key: String,
    /// The value as TOML.
    pub(crate) value: String,
    /// Where it came from.
    pub(crate) origin: Origin,
}

/// The configuration of a run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Config {
    /// Every key, in the order of the file.
    pub(crate) settings: Vec<Setting>,
}

impl Config {
    /// Reads the file at `path`; nothing where there is none.
    pub(crate) fn read(path: &Path) -> Result<Self, ReportError> {
        let text = match std::fs::read_to_string(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            read => read.map_err(ReportError::read(path))?,
        };
        text.parse::<toml::Table>().map_err(|error| ReportError::Content {
            path: path.to_owned(),
            line: error.span().map(|span| 1 + text[..span.start].matches('\n').count()),
            problem: error.message().to_owned(),
        })?;
        Ok(Self { settings: settings(&text) })
    }

    /// The value of a key as TOML.
    pub(crate) fn value(&self, key: &str) -> Option<&str> {
        let found = self.settings.iter().find(|setting| setting.key == key);
        found.map(|setting| setting.value.as_str())
    }

    /// The value of a key, without the quotes of a text.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        self.value(key).map(plain)
    }

    /// The file that the run was started with.
    pub(crate) fn file(&self) -> Option<&str> {
        self.settings.iter().find_map(|setting| match &setting.origin {
            Origin::File(place) => place.rsplit_once(':').map(|(path, _)| path),
            _ => None,
        })
    }
}

/// A value without the quotes of a text.
pub(crate) fn plain(value: &str) -> &str {
    value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value)
}

/// The settings of a text that is TOML: one a line, as the program writes it. Values over several lines, which a
/// person may have put there, are left out.
fn settings(text: &str) -> Vec<Setting> {
    let (mut all, mut table) = (Vec::new(), String::new());
    let mut parts: Vec<(String, usize)> = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("[[").and_then(|rest| rest.split("]]").next()) {
            let at = match parts.iter_mut().find(|(known, _)| known == name) {
                Some((_, number)) => {
                    *number += 1;
                    *number
                }
                None => {
                    parts.push((name.to_owned(), 0));
                    0
                }
            };
            table = format!("{name}.{at}.");
        } else if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            // A table within the newest part of a list is that part's.
            let list = parts.iter().find(|(list, _)| {
                name.strip_prefix(list.as_str()).is_some_and(|rest| rest.starts_with('.'))
            });
            table = match list {
                Some((list, number)) => format!("{list}.{number}{}.", &name[list.len()..]),
                None => format!("{name}."),
            };
        } else if !line.starts_with('#')
            && let Some((key, rest)) = line.split_once('=')
        {
            let (value, comment) = without_comment(rest);
            all.push(Setting {
                key: format!("{table}{}", key.trim()),
                value: value.trim().to_owned(),
                origin: Origin::of(comment.trim()),
            });
        }
    }
    all
}

/// A value and the comment behind it; a `#` in a text begins none.
fn without_comment(rest: &str) -> (&str, &str) {
    let (mut quote, mut escaped) = (None, false);
    for (at, letter) in rest.char_indices() {
        match (quote, letter) {
            (Some('"'), '\\') if !escaped => {
                escaped = true;
                continue;
            }
            (Some(open), letter) if open == letter && !escaped => quote = None,
            (None, '"' | '\'') => quote = Some(letter),
            (None, '#') => return (&rest[..at], &rest[at + 1..]),
            _ => {}
        }
        escaped = false;
    }
    (rest, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_has_its_origin() {
        let text = "seed = 0 # configs/a#b.toml:5\nname = \"a # \\\" b\" # --set\n\n[train]\nsteps = 4 # default\n\
                    rate = 1 # TESSERA__TRAIN__RATE\n\n[[data.mixture]]\nweight = 1.0 # a.toml:9\n\n\
                    [[data.mixture]]\nweight = 2.0\n\n[data.mixture.image]\nwidth = 3 # the model's [data]\n";
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        std::fs::write(&path, text).unwrap();
        let config = Config::read(&path).unwrap();
        let said: Vec<(&str, &str, String)> = config
            .settings
            .iter()
            .map(|one| (one.key.as_str(), one.value.as_str(), one.origin.words()))
            .collect();
        let wanted = [
            ("seed", "0", "file configs/a#b.toml:5"),
            ("name", "\"a # \\\" b\"", "command line, --set"),
            ("train.steps", "4", "default"),
            ("train.rate", "1", "environment TESSERA__TRAIN__RATE"),
            ("data.mixture.0.weight", "1.0", "file a.toml:9"),
            ("data.mixture.1.weight", "2.0", "not known"),
            ("data.mixture.1.image.width", "3", "the model's [data]"),
        ];
        assert_eq!(said, wanted.map(|(key, value, origin)| (key, value, origin.to_owned())));
        assert_eq!(config.file(), Some("configs/a#b.toml"));
        assert_eq!(
            (config.text("name"), config.text("train.steps")),
            (Some("a # \\\" b"), Some("4"))
        );
    }

    #[test]
    fn a_configuration_that_is_no_toml_is_told_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        std::fs::write(&path, "seed = 0\n\n[train\n").unwrap();
        let told = Config::read(&path).unwrap_err().to_string();
        assert!(told.contains("config.toml:3: "), "{told}");
    }
}
