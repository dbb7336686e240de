//! A sweep file as it is written.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;
use tessera_control::shipped_name;

use super::{Budget, Metric, POINTS, Report, Search, Sweep, Trials};
use crate::space::{Domain, Parameter, Space};

/// A sweep file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    base: PathBuf,
    #[serde(default)]
    set: toml::Table,
    #[serde(default)]
    parameters: Vec<WrittenParameter>,
    #[serde(default)]
    forbidden: Vec<toml::Table>,
    #[serde(default)]
    search: Search,
    #[serde(default)]
    metric: Metric,
    #[serde(default)]
    budget: Budget,
    #[serde(default)]
    trials: Trials,
    #[serde(default)]
    report: Report,
}

/// A parameter as it is written: one of the five kinds of values.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenParameter {
    key: String,
    values: Option<Vec<toml::Value>>,
    range: Option<[f64; 2]>,
    log_range: Option<[f64; 2]>,
    integers: Option<[i64; 2]>,
    log_integers: Option<[i64; 2]>,
    #[serde(default)]
    points: usize,
    #[serde(default)]
    when: toml::Table,
}

impl WrittenParameter {
    fn domain(&self) -> Result<Domain, String> {
        let numbers = |[low, high]: [i64; 2]| [low as f64, high as f64];
        let of = |[low, high]: [f64; 2], log, integer, points| {
            let points = if self.points == 0 { points } else { self.points };
            Domain::Range { low, high, log, integer, points }
        };
        let kinds = [
            self.values.as_ref().map(|values| Domain::Values(values.iter().map(plain).collect())),
            self.range.map(|range| of(range, false, false, POINTS)),
            self.log_range.map(|range| of(range, true, false, POINTS)),
            self.integers.map(|range| of(numbers(range), false, true, 0)),
            self.log_integers.map(|range| of(numbers(range), true, true, POINTS)),
        ];
        let mut kinds = kinds.into_iter().flatten();
        match (kinds.next(), kinds.next()) {
            (Some(domain), None) => Ok(domain),
            _ => Err(format!(
                "{} should have one of values, range, log_range, integers and log_integers",
                self.key
            )),
        }
    }
}

pub(super) fn plain(value: &toml::Value) -> Value {
    serde_json::to_value(value).expect("TOML is plain data")
}

/// A table of keys and values, or lists of values, as it is written.
fn together(table: &toml::Table) -> BTreeMap<String, Vec<Value>> {
    let values = |value: &toml::Value| match value {
        toml::Value::Array(values) => values.iter().map(plain).collect(),
        one => vec![plain(one)],
    };
    leaves(table).into_iter().map(|(key, value)| (key, values(&value))).collect()
}

/// Dotted keys and their values, also of tables within tables.
fn leaves(table: &toml::Table) -> BTreeMap<String, toml::Value> {
    let mut found = BTreeMap::new();
    for (key, value) in table {
        match value {
            toml::Value::Table(inner) => {
                found.extend(
                    leaves(inner).into_iter().map(|(rest, value)| (format!("{key}.{rest}"), value)),
                );
            }
            value => {
                found.insert(key.clone(), value.clone());
            }
        }
    }
    found
}

impl File {
    /// The sweep; paths count from `folder`.
    pub(super) fn into_sweep(self, folder: &Path) -> Result<Sweep, String> {
        let mut parameters = Vec::new();
        for written in &self.parameters {
            let (key, domain) = (written.key.clone(), written.domain()?);
            parameters.push(Parameter { key, domain, when: together(&written.when) });
        }
        let forbidden = self.forbidden.iter().map(together).collect();
        let set =
            leaves(&self.set).iter().map(|(key, value)| (key.clone(), plain(value))).collect();
        let File { base, search, metric, budget, trials, report, .. } = self;
        let base = if shipped_name(&base).is_some() { base } else { folder.join(base) };
        let space = Space { parameters, forbidden };
        Ok(Sweep { base, set, space, search, metric, budget, trials, report })
    }
}

/// What a TOML error says, with its line, in one line.
pub(super) fn place_in(text: &str, error: &toml::de::Error) -> String {
    let line = error.span().map_or(1, |span| text[..span.start].lines().count().max(1));
    format!("line {line}: {}", error.message().replace('\n', " "))
}
