//! From defaults, a file, the environment and `--set` to one configuration.
//!
//! Later sources go before earlier ones, in that order. Every key is checked where it stands: an
//! unknown one is refused with its place and the nearest key that exists, a value of the wrong
//! type with its place and the type that is wanted. What a text means is a matter of its key's
//! type, which the schema of the configuration tells (`schema.rs`). The origin of each value is
//! kept and written beside it in the run folder's `config.toml`.

mod layers;
mod schema;
mod shipped;
mod sources;
mod value;

#[cfg(test)]
mod every_key;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tessera_control::path_json;
use tessera_data::DataConfig;
use toml::Value;

use self::layers::{Entry, Layers};
use self::schema::joined;
pub use self::shipped::shipped_names;
use self::value::Written;
use crate::config::TrainConfig;
use crate::error::TrainError;

/// A configuration with where each value comes from, and the folder that the run writes to.
///
/// The launcher resolves once and hands this to its workers as one line of JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Resolved {
    /// The folder that the run writes to.
    #[serde(with = "path_json")]
    pub run_dir: PathBuf,
    /// Optimiser steps of the run, for the launcher's progress bar.
    pub steps: u64,
    /// The values.
    pub config: TrainConfig,
    /// Dotted key to origin, such as `configs/smoke.toml:7`; a key that is missing is a default.
    pub origins: BTreeMap<String, String>,
}

/// Resolves a configuration; looks at no file but `file`.
///
/// * `environment`: all variables; those that begin with `TESSERA__` are keys, `__` for a dot.
/// * `sets`: `a.b=c` each, as after `--set`.
/// * `run_dir`: `None` stands for `runs/` and the name of the file.
///
/// # Errors
///
/// [`TrainError::BadInput`] with the place of the first mistake.
pub fn resolve(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
    sets: &[String],
    run_dir: Option<PathBuf>,
) -> Result<Resolved, TrainError> {
    let resolved = read(file, environment, sets, run_dir)?;
    resolved.config.validate()?;
    Ok(resolved)
}

/// A `[data]` table with settings laid over it, `data.a=b` each.
///
/// # Errors
///
/// [`TrainError::BadInput`] or [`TrainError::Data`] with the place of the first mistake.
pub fn resolve_data(base: &DataConfig, sets: &[String]) -> Result<DataConfig, TrainError> {
    resolve_over(base, sets).map(|config| config.data)
}

/// A configuration of nothing but a `[data]` table, with settings laid over it.
pub(crate) fn resolve_over(base: &DataConfig, sets: &[String]) -> Result<TrainConfig, TrainError> {
    let written = Written::Toml(Value::try_from(base).expect("a configuration is plain data"));
    let origin = "the model's [data]".to_owned();
    let mut layers = Layers::default();
    layers.add(vec![Entry { key: "data".to_owned(), written, origin }])?;
    layers.add(sets.iter().map(|set| sources::from_set(set)).collect::<Result<_, _>>()?)?;
    let (tree, _) = layers.finish()?;
    let config: TrainConfig = serde_json::from_value(tree)
        .map_err(|error| TrainError::BadInput(format!("configuration: {error}")))?;
    config.validate()?;
    Ok(config)
}

/// What [`resolve`] reads, without a look at whether values are in range.
fn read(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
    sets: &[String],
    run_dir: Option<PathBuf>,
) -> Result<Resolved, TrainError> {
    let mut layers = Layers::default();
    if let Some(file) = file {
        layers.add(sources::from_file(file)?)?;
    }
    layers.add(sources::from_environment(environment))?;
    layers.add(sets.iter().map(|set| sources::from_set(set)).collect::<Result<_, _>>()?)?;
    let (tree, origins) = layers.finish()?;
    let config: TrainConfig = serde_json::from_value(tree)
        .map_err(|error| TrainError::BadInput(format!("configuration: {error}")))?;
    let run_dir = run_dir.unwrap_or_else(|| {
        let name = file.and_then(Path::file_stem).unwrap_or_else(|| "default".as_ref());
        Path::new("runs").join(shipped::plain(name))
    });
    Ok(Resolved { run_dir, steps: config.train.steps, config, origins })
}

impl Resolved {
    /// The run folder's `config.toml`: every value, with its origin as a comment.
    pub fn to_toml(&self) -> String {
        let tree = Value::try_from(&self.config).expect("a configuration is plain data");
        let mut text = String::from("# Fully resolved; behind each value where it comes from.\n");
        let tree = tree.as_table().expect("a configuration is a table");
        self.write_table(tree, ("", ""), &mut text, String::new());
        text
    }

    /// The keys that somebody has set, with their values, in the order of their names.
    pub(crate) fn set_keys(&self) -> Vec<(String, Value)> {
        let tree = Value::try_from(&self.config).expect("a configuration is plain data");
        let value_of = |key: &str| key.split('.').try_fold(&tree, |place, part| place.get(part));
        let with_value = |key: &String| Some((key.clone(), value_of(key)?.clone()));
        self.origins.keys().filter_map(with_value).collect()
    }

    /// Writes the table at `key`, whose name in headings is `name`: its values, below `heading`,
    /// then the tables in it, and its lists of tables.
    fn write_table(
        &self,
        table: &toml::Table,
        (key, name): (&str, &str),
        text: &mut String,
        mut heading: String,
    ) {
        let is_value = |value: &Value| match value {
            Value::Table(_) => false,
            Value::Array(parts) => !parts.iter().any(Value::is_table),
            _ => true,
        };
        for (field, value) in table.iter().filter(|(_, value)| is_value(value)) {
            text.push_str(&std::mem::take(&mut heading));
            let origin = self.origins.get(&joined(key, field)).map_or("default", String::as_str);
            let _ = writeln!(text, "{field} = {value} # {}", origin.replace(char::is_control, " "));
        }
        for (field, value) in table.iter().filter(|(_, value)| !is_value(value)) {
            let (key, name) = (joined(key, field), joined(name, field));
            match value {
                Value::Table(inner) => {
                    self.write_table(inner, (&key, &name), text, format!("\n[{name}]\n"));
                }
                list => {
                    let parts = list.as_array().into_iter().flatten().filter_map(Value::as_table);
                    for (number, part) in parts.enumerate() {
                        let key = format!("{key}.{number}");
                        let _ = write!(text, "\n[[{name}]]\n");
                        self.write_table(part, (&key, &name), text, String::new());
                    }
                }
            }
        }
    }

    /// Reads a run folder's `config.toml` back.
    ///
    /// # Errors
    ///
    /// [`TrainError::BadInput`] if there is none, or it is no configuration.
    pub fn of_run(run_dir: &Path) -> Result<Self, TrainError> {
        Self::of_run_with(run_dir, &[])
    }

    /// The same with these settings, `key=value` each, laid over it.
    ///
    /// # Errors
    ///
    /// Those of [`Self::of_run`], and [`TrainError::BadInput`] for a setting that cannot be.
    pub fn of_run_with(run_dir: &Path, sets: &[String]) -> Result<Self, TrainError> {
        let path = run_dir.join("config.toml");
        if !path.is_file() {
            return Err(TrainError::BadInput(format!(
                "{} is no run folder: it has no config.toml",
                run_dir.display()
            )));
        }
        resolve(Some(&path), [], sets, Some(run_dir.to_owned()))
    }
}
