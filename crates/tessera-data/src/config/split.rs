//! `data.split`: which folders, archives or arrays are which split, by their paths.

use glob::Pattern;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which folders of `kind = "folder"`, archives of `"webdataset"` or arrays of `"npy"` are which
/// split, each by its path below `data.path`, with `*` for any part of a name. Where both lists are
/// empty, names say it, if all folders right below `path` (or all archives, or arrays) are named
/// `train`, `training`, `trainval`, `test`, `testing`, `val`, `valid`, `validation`, `dev`, `eval`
/// or `evaluation`, with anything behind a `-`, `_`, `.` or a digit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SplitConfig {
    /// What is the split `train`, such as `["photos", "more/*"]`; empty: all that `test` does not
    /// name. `["*"]` with an empty `test`: no folder is a split, and `holdout` decides.
    pub train: Vec<String>,
    /// What is the split `test`; empty, with `train` given: a part of that, as `holdout` says.
    pub test: Vec<String>,
}

impl SplitConfig {
    /// Whether names decide.
    pub(crate) fn is_empty(&self) -> bool {
        self.train.is_empty() && self.test.is_empty()
    }

    /// Rejects what is no path with wildcards.
    pub(crate) fn check(&self) -> Result<(), (&'static str, String)> {
        entries("split.train", &self.train)?;
        entries("split.test", &self.test)?;
        Ok(())
    }
}

/// One entry of `data.split`.
pub(crate) struct Entry<'a> {
    pub(crate) text: &'a str,
    /// Its parts, between slashes.
    parts: Vec<(&'a str, Pattern)>,
    /// Whether a path was found that it names.
    pub(crate) used: bool,
}

/// The entries of a list; the error is the key and what is wrong with it.
pub(crate) fn entries<'a>(
    key: &'static str,
    texts: &'a [String],
) -> Result<Vec<Entry<'a>>, (&'static str, String)> {
    let entry = |text: &'a String| {
        let plain = text.trim_start_matches("./").trim_end_matches('/');
        if plain.is_empty() || plain.starts_with('/') {
            let problem = format!("holds {text:?}: give paths below data.path, or * for all");
            return Err((key, problem));
        }
        let part = |part: &'a str| match Pattern::new(part) {
            Ok(pattern) => Ok((part, pattern)),
            Err(error) => {
                let problem = format!("holds {text:?}, which is no name or pattern: {}", error.msg);
                Err((key, problem))
            }
        };
        let parts = plain.split('/').map(part).collect::<Result<_, _>>()?;
        Ok(Entry { text, parts, used: false })
    };
    texts.iter().map(entry).collect()
}

/// How many bytes of a path the entry that goes farthest names.
pub(crate) fn longest(entries: &mut [Entry<'_>], path: &str) -> Option<usize> {
    let mut longest = None;
    for entry in entries {
        let mut parts = path.split('/');
        let mut length = 0;
        let matches = entry.parts.iter().all(|(text, pattern)| {
            parts.next().is_some_and(|part| {
                length += part.len() + 1;
                part == *text || pattern.matches(part)
            })
        });
        if matches {
            entry.used = true;
            longest = longest.max(Some(length - 1));
        }
    }
    longest
}
