//! Whether two sweeps are one and the same: by what is trained, not by how its files are named.
//!
//! The base configuration counts as the worker resolves it. Its path does not, nor where each value was
//! written, so that a sweep goes on from another folder, through a link, or with comments added.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::spec::Sweep;
use crate::store::About;

/// Parts of a sweep that change no decision that was made.
const FREE: [&str; 4] = ["base", "search.trials", "budget", "report"];

/// The first thing in which two sweeps differ: what it is, and its values before and now.
pub(crate) fn difference(before: &About, now: &About) -> Option<(String, String, String)> {
    let whole = |about: &About| {
        let mut leaves = of_sweep(&about.sweep);
        leaves.extend([
            ("train.steps".to_owned(), Value::from(about.steps)),
            ("eval.every".to_owned(), Value::from(about.eval_every)),
        ]);
        leaves
    };
    let told = |key: String, before: Option<&Value>, now: Option<&Value>| {
        let words = |value: Option<&Value>| value.map_or("nothing".to_owned(), Value::to_string);
        (key, words(before), words(now))
    };
    let (old, new) = (whole(before), whole(now));
    let key = old.keys().chain(new.keys()).find(|key| old.get(*key) != new.get(*key));
    if let Some(key) = key {
        return Some(told(key.clone(), old.get(key), new.get(key)));
    }
    let (old, new) = (Base::of(&before.base), Base::of(&now.base));
    let mut keys = old.values.keys().chain(new.values.keys());
    // What one of them does not have is a key that another version has: its default is as good as nothing.
    let differs = |key: &&String| match (old.values.get(*key), new.values.get(*key)) {
        (Some(old), Some(new)) => old != new,
        (Some(_), None) => old.is_written(key),
        (None, _) => new.is_written(key),
    };
    let key = keys.find(differs)?;
    Some(told(format!("the base's {key}"), old.values.get(key), new.values.get(key)))
}

fn of_sweep(sweep: &Sweep) -> BTreeMap<String, Value> {
    let mut leaves = BTreeMap::new();
    flatten(&serde_json::to_value(sweep).expect("a sweep is plain data"), "", &mut leaves);
    let is_free = |key: &str| {
        FREE.iter().any(|free| {
            key.strip_prefix(free).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    };
    leaves.retain(|key, _| !is_free(key));
    leaves
}

/// A base configuration as the worker resolved it.
struct Base {
    values: BTreeMap<String, Value>,
    /// Where each value that is no default was written.
    origins: Value,
}

impl Base {
    /// From the worker's line; one that is none has no values.
    fn of(line: &str) -> Self {
        let line: Value = serde_json::from_str(line).unwrap_or_default();
        let mut values = BTreeMap::new();
        flatten(&line["config"], "", &mut values);
        Self { values, origins: line["origins"].clone() }
    }

    fn is_written(&self, key: &str) -> bool {
        self.origins.get(key).is_some()
    }
}

/// Dotted keys and values that are no tables; parts of a list of tables by their number.
fn flatten(value: &Value, key: &str, found: &mut BTreeMap<String, Value>) {
    let dotted =
        |name: &str| if key.is_empty() { name.to_owned() } else { format!("{key}.{name}") };
    match value {
        Value::Object(inner) => {
            inner.iter().for_each(|(name, value)| flatten(value, &dotted(name), found));
        }
        Value::Array(parts) if parts.iter().any(Value::is_object) => {
            let parts = parts.iter().enumerate();
            parts.for_each(|(at, part)| flatten(part, &dotted(&at.to_string()), found));
        }
        value => drop(found.insert(key.to_owned(), value.clone())),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn about(base: &str, words: &[&str], config: &str, origins: &str) -> About {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("base.toml");
        std::fs::write(&path, "").unwrap();
        let sets: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        let mut sweep = Sweep::read(&path, &sets).unwrap();
        sweep.base = Path::new(base).to_owned();
        let base = format!(
            r#"{{"run_dir":"runs/{base}","steps":90,"config":{config},"origins":{origins}}}"#
        );
        About { sweep, base, steps: 90, eval_every: 30 }
    }

    const VARIED: [&str; 2] = ["b.c=1", "a=1,2"];
    const CONFIG: &str = r#"{"b":{"c":0,"kind":"x"},"d":0.5}"#;

    #[test]
    fn the_name_of_the_base_and_where_its_values_stand_are_no_part_of_a_sweep() {
        let before = about("configs/base.toml", &VARIED, CONFIG, r#"{"d":"configs/base.toml:7"}"#);
        let mut now = about("/work/link.toml", &VARIED, CONFIG, r#"{"d":"/work/link.toml:9"}"#);
        assert_eq!(difference(&before, &now), None);
        // Nor are how many trials there are to be, what may be spent and what the report shows.
        now.sweep.search.trials = 7;
        now.sweep.budget.steps = 1000;
        now.sweep.report.size = "mse".to_owned();
        assert_eq!(difference(&before, &now), None);
    }

    #[test]
    fn what_differs_is_named() {
        let before = about("base.toml", &VARIED, CONFIG, "{}");
        let told = |now: About| {
            let (key, before, now) = difference(&before, &now).unwrap();
            format!("{key} {before} {now}")
        };
        let other = |words: &[&str]| about("base.toml", words, CONFIG, "{}");
        assert_eq!(told(other(&["b.c=2", "a=1,2"])), "set.b.c 1 2");
        assert_eq!(told(other(&["a=1,2"])), "set.b.c 1 nothing");
        let of_a = "space.parameters.0.domain.Values [1,2] [1,3]";
        assert_eq!(told(other(&["b.c=1", "a=1,3"])), of_a);
        let base = r#"{"b":{"c":0,"kind":"y"},"d":0.5}"#;
        assert_eq!(told(about("base.toml", &VARIED, base, "{}")), r#"the base's b.kind "x" "y""#);
        assert_eq!(told(About { steps: 91, ..before.clone() }), "train.steps 90 91");
    }

    #[test]
    fn a_key_that_another_version_has_counts_where_it_was_written() {
        let before = about("base.toml", &VARIED, CONFIG, "{}");
        let config = r#"{"b":{"c":0,"kind":"x"},"d":0.5,"new":1}"#;
        assert_eq!(difference(&before, &about("base.toml", &VARIED, config, "{}")), None);
        let written = about("base.toml", &VARIED, config, r#"{"new":"base.toml:3"}"#);
        let told = difference(&before, &written).unwrap();
        assert_eq!(told, ("the base's new".to_owned(), "nothing".to_owned(), "1".to_owned()));
        assert!(difference(&written, &before).is_some());
    }
}
