//! Every key that the reference tells of arrives, from a file, from the environment and from
//! `--set`, and comes back from a run folder.

use serde_json::Value as Json;

use super::read;
use crate::config::TrainConfig;
use crate::reference;

/// A key of the reference, and what a configuration needs around it.
struct Key {
    /// Table, as it is called: `data.mixture` for its parts.
    table: String,
    name: String,
    /// The kind of its table that has it.
    kind: Option<String>,
    /// A value that is not the default, as a file has it.
    toml: String,
}

impl Key {
    /// As one of all: of a list of tables the first.
    fn dotted(&self) -> String {
        let table = self.table.replace("data.mixture", "data.mixture.0");
        if table.is_empty() { self.name.clone() } else { format!("{table}.{}", self.name) }
    }

    /// All settings that are needed, dotted, as a file has them.
    fn settings(&self) -> Vec<(String, String)> {
        let mut all = vec![(self.dotted(), self.toml.clone())];
        if let Some(kind) = &self.kind {
            all.push((format!("{}.kind", self.table), format!("\"{kind}\"")));
        }
        if self.table == "data.mixture" {
            // What each part needs.
            all.push(("data.mixture.0.weight".into(), "1".into()));
            all.push(("data.mixture.0.data.kind".into(), "\"idx\"".into()));
            all.dedup_by_key(|(key, _)| key.clone());
        }
        all
    }

    /// The file that sets it.
    fn file(&self) -> String {
        let mut text = String::new();
        for (key, value) in self.settings() {
            if self.table != "data.mixture" {
                text += &format!("{key} = {value}\n");
            } else if let Some(field) = key.strip_prefix("data.mixture.0.") {
                let head = if text.is_empty() { "[[data.mixture]]\n" } else { "" };
                text += &format!("{head}{field} = {value}\n");
            }
        }
        text
    }

    fn value(&self) -> Json {
        let table: toml::Table = format!("value = {}", self.toml).parse().unwrap();
        serde_json::to_value(&table["value"]).unwrap()
    }
}

/// A value of the kind that the reference tells, other than the default.
fn other_than(default: &str, kind: &str, meaning: &str) -> Option<String> {
    let words = |text: &str| -> Vec<String> {
        let parts = text.split('`').skip(1).step_by(2);
        parts.filter(|part| part.starts_with('"')).map(str::to_owned).collect()
    };
    Some(match kind {
        "whole number" => (default.parse::<i64>().unwrap() + 1).to_string(),
        "number" => match default.parse::<f64>() {
            Ok(number) => format!("{:?}", number + 0.25),
            Err(_) => "0.25".to_owned(),
        },
        "true or false" => (default != "true").to_string(),
        "text" => "\"2026-11-26\"".to_owned(),
        "list" => "[7, 5]".to_owned(),
        "list of texts" => "[\"a\", \"b\"]".to_owned(),
        "one of" => {
            let values =
                meaning.split("<br>").skip(1).flat_map(|line| words(line).into_iter().take(1));
            values.into_iter().find(|word| word != default)?
        }
        named if named.starts_with("one of ") => {
            words(named).into_iter().find(|word| word != default)?
        }
        table if table.starts_with("table ") || table.starts_with("tables ") => return None,
        other => panic!("the test knows no value of the kind {other:?}"),
    })
}

/// The keys of the reference.
fn keys() -> Vec<Key> {
    let (mut table, mut kind, mut found) = (String::new(), None, Vec::new());
    for line in reference::keys().lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            table = heading.trim_matches(['`', '[', ']']).replace("Top", "");
            kind = None;
        } else if let Some(heading) = line.strip_prefix("### `kind = \"") {
            kind = Some(heading.split('"').next().unwrap().to_owned());
        } else if let Some(row) = line.strip_prefix("| `") {
            let cells: Vec<&str> = row.splitn(4, " | ").collect();
            let [name, default, of, meaning] = cells[..] else { panic!("{line}") };
            let name = name.trim_end_matches('`').to_owned();
            let Some(toml) = other_than(default.trim_matches(['`', ' ']), of, meaning) else {
                continue;
            };
            found.push(Key { table: table.clone(), name, kind: kind.clone(), toml });
        }
    }
    found
}

#[test]
fn every_key_of_the_reference_arrives_from_a_file_from_the_environment_and_from_set() {
    let keys = keys();
    assert!(keys.len() > 130, "the search went astray: {} keys", keys.len());
    for must in ["data.mixture.0.weight", "model.quantizer.levels", "data.path", "seed"] {
        assert!(keys.iter().any(|key| key.dotted() == must), "{must} is not looked at");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    let default = serde_json::to_value(TrainConfig::default()).unwrap();
    for key in &keys {
        let dotted = key.dotted();
        std::fs::write(&path, key.file()).unwrap();
        let variables: Vec<(String, String)> = key
            .settings()
            .iter()
            .map(|(key, value)| {
                let name = format!("TESSERA__{}", key.replace('.', "__").to_uppercase());
                (name, value.clone())
            })
            .collect();
        let sets: Vec<String> =
            key.settings().iter().map(|(key, value)| format!("{key}={value}")).collect();
        let pointer = format!("/{}", dotted.replace('.', "/"));
        let value = key.value();
        if key.kind.is_none() {
            assert_ne!(default.pointer(&pointer), Some(&value), "{dotted}: the test sets nothing");
        }
        let mut last = None;
        for (way, resolved) in [
            ("file", read(Some(&path), [], &[], None)),
            ("environment", read(None, variables, &[], None)),
            ("--set", read(None, [], &sets, None)),
        ] {
            let resolved = resolved.unwrap_or_else(|error| panic!("{dotted}, {way}: {error}"));
            let plain = serde_json::to_value(&resolved.config).unwrap();
            assert_eq!(plain.pointer(&pointer), Some(&value), "{dotted}, {way}");
            assert!(resolved.origins.contains_key(&dotted), "{dotted}, {way}");
            last = Some(resolved);
        }
        let resolved = last.expect("there are three ways");
        std::fs::write(&path, resolved.to_toml()).unwrap();
        let back = read(Some(&path), [], &[], None).unwrap();
        assert_eq!(back.config, resolved.config, "{dotted}");
    }
}

#[test]
fn a_value_that_no_key_can_have_is_refused_wherever_it_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    for mut key in keys() {
        let dotted = key.dotted();
        key.toml = "[[2026-11-26]]".to_owned();
        if ["data.path", "data.member", "data.remote.cache"].contains(&&*dotted) {
            key.toml = "2026-11-26".to_owned(); // in a file a date is no text
        }
        std::fs::write(&path, key.file()).unwrap();
        let told = read(Some(&path), [], &[], None).unwrap_err().to_string();
        let is_told = told.contains(&format!("{dotted} should be ")) && !told.contains('\n');
        assert!(is_told, "{dotted}: {told}");
    }
}
