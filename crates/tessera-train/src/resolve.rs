//! From defaults, a file, the environment and `--set` to one configuration.
//!
//! Later sources go before earlier ones, in that order. Every key is checked where it stands: an
//! unknown one is refused with its place and the nearest key that exists, a value of the wrong
//! type with its place and the type that is wanted. The origin of each value is kept and written
//! beside it in the run folder's `config.toml`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use config::{Config, Environment, Source};
use serde::{Deserialize, Serialize};
use toml::Value;
use toml::de::{DeTable, DeValue};

use crate::config::TrainConfig;
use crate::error::TrainError;

/// A configuration with where each value comes from, and the folder that the run writes to.
///
/// The launcher resolves once and hands this to its workers as one line of JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Resolved {
    /// The folder that the run writes to.
    pub run_dir: PathBuf,
    /// Optimiser steps of the run, for the launcher's progress bar.
    pub steps: u64,
    /// The values.
    pub config: TrainConfig,
    /// Dotted key to origin, such as `configs/smoke.toml:7`; a key that is missing is a default.
    pub origins: BTreeMap<String, String>,
}

/// One value from one place.
#[derive(Debug)]
struct Entry {
    key: String,
    value: Value,
    origin: String,
}

/// Resolves a configuration; looks at no file but `file`.
///
/// * `sets`: `a.b=c` each, as after `--set`.
/// * `environment`: all variables; those that begin with `TESSERA__` are keys, `__` for a dot.
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
    let mut entries = Vec::new();
    if let Some(file) = file {
        entries.extend(from_file(file)?);
    }
    entries.extend(from_environment(environment)?);
    for set in sets {
        entries.push(from_set(set)?);
    }

    let chosen = defaults_for(&entries)?;
    let defaults = Value::try_from(&chosen).expect("defaults are plain data");
    let mut builder = Config::builder().add_source(Config::try_from(&chosen).map_err(bad_config)?);
    let mut origins = BTreeMap::new();
    for entry in entries {
        check(&entry, &defaults)?;
        check_word(&entry, &chosen)?;
        builder =
            builder.set_override(&entry.key, source_value(entry.value)).map_err(bad_config)?;
        origins.insert(entry.key, entry.origin);
    }
    let config: TrainConfig =
        builder.build().and_then(Config::try_deserialize).map_err(bad_config)?;
    config.validate()?;
    let run_dir = run_dir.unwrap_or_else(|| {
        let name = file.and_then(Path::file_stem).unwrap_or_else(|| "default".as_ref());
        Path::new("runs").join(name)
    });
    Ok(Resolved { run_dir, steps: config.train.steps, config, origins })
}

/// The defaults for the kinds that these entries choose: which keys a table has, and so which
/// defaults, hangs on its `kind`. Outer tables come first; of two for one table the later counts.
fn defaults_for(entries: &[Entry]) -> Result<TrainConfig, TrainError> {
    let mut kinds: BTreeMap<(usize, &str), (&str, &str)> = BTreeMap::new();
    for Entry { key, value, origin } in entries {
        if let (Some(table), Value::String(kind)) = (key.strip_suffix(".kind"), value) {
            kinds.insert((table.matches('.').count(), table), (kind, origin));
        }
    }
    let mut config = TrainConfig::default();
    for ((_, table), (kind, origin)) in kinds {
        let mut tree = serde_json::to_value(&config).expect("a configuration is plain data");
        let place = tree.pointer_mut(&format!("/{}", table.replace('.', "/")));
        let Some(place) = place else { continue }; // an unknown key, refused with its place later
        *place = serde_json::json!({ "kind": kind });
        config = serde_json::from_value(tree)
            .map_err(|error| bad_word(origin, &format!("{table}.kind"), &error))?;
    }
    Ok(config)
}

fn source_value(value: Value) -> config::Value {
    match value {
        Value::Integer(number) => number.into(),
        Value::Float(number) => number.into(),
        Value::Boolean(value) => value.into(),
        Value::String(text) => text.into(),
        Value::Array(values) => {
            values.into_iter().map(source_value).collect::<Vec<config::Value>>().into()
        }
        Value::Datetime(_) | Value::Table(_) => unreachable!("check lets leaves through"),
    }
}

fn bad_config(error: config::ConfigError) -> TrainError {
    TrainError::BadInput(format!("configuration: {}", error.to_string().replace('\n', " ")))
}

fn from_file(path: &Path) -> Result<Vec<Entry>, TrainError> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        TrainError::BadInput(format!("cannot read the configuration {}: {error}", path.display()))
    })?;
    let table = DeTable::parse(&text).map_err(|error| {
        let line = line_of(&text, error.span().map_or(0, |span| span.start));
        let words = error.message().replace('\n', " ");
        TrainError::BadInput(format!("{}:{line}: not TOML: {words}", path.display()))
    })?;
    let mut entries = Vec::new();
    flatten(table.get_ref(), "", &mut |key, span_start, value| {
        let origin = format!("{}:{}", path.display(), line_of(&text, span_start));
        entries.push(Entry { key, value, origin });
    });
    Ok(entries)
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at.min(text.len())].matches('\n').count() + 1
}

/// Calls `leaf` with the dotted key, the place in the text and the value of each leaf.
fn flatten(table: &DeTable<'_>, prefix: &str, leaf: &mut dyn FnMut(String, usize, Value)) {
    for (key, value) in table {
        let dotted = format!("{prefix}{}", key.get_ref());
        match value.get_ref() {
            DeValue::Table(inner) => flatten(inner, &format!("{dotted}."), leaf),
            other => leaf(dotted, key.span().start, plain(other)),
        }
    }
}

/// The value without its places in the text; a number that does not fit is told as text, which
/// the check of types refuses.
fn plain(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::Boolean(value) => Value::Boolean(*value),
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or_else(|_| Value::String(number.to_string()), Value::Integer),
        DeValue::Float(number) => {
            number.as_str().parse().map_or_else(|_| Value::String(number.to_string()), Value::Float)
        }
        DeValue::Datetime(date) => Value::Datetime(*date),
        DeValue::Array(values) => {
            Value::Array(values.iter().map(|value| plain(value.get_ref())).collect())
        }
        DeValue::Table(_) => Value::Table(toml::Table::new()),
    }
}

fn from_environment(
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Vec<Entry>, TrainError> {
    let ours: Vec<(String, String)> =
        environment.into_iter().filter(|(name, _)| name.starts_with("TESSERA__")).collect();
    let values = Environment::with_prefix("TESSERA")
        .prefix_separator("__")
        .separator("__")
        .source(Some(ours.into_iter().collect()))
        .collect()
        .map_err(bad_config)?;
    let mut entries = Vec::with_capacity(values.len());
    let sorted: BTreeMap<_, _> = values.into_iter().collect();
    for (key, value) in sorted {
        let origin = format!("TESSERA__{}", key.replace('.', "__").to_uppercase());
        entries.push(Entry { value: from_text(&value.to_string()), key, origin });
    }
    Ok(entries)
}

fn from_set(set: &str) -> Result<Entry, TrainError> {
    let Some((key, value)) = set.split_once('=') else {
        return Err(TrainError::BadInput(format!(
            "--set needs KEY=VALUE, such as train.steps=100, found '{set}'"
        )));
    };
    Ok(Entry { key: key.trim().to_owned(), value: from_text(value.trim()), origin: "--set".into() })
}

/// A TOML value where the text is one, and the text itself otherwise: `--set data.path=shards`.
fn from_text(text: &str) -> Value {
    toml::from_str::<toml::Table>(&format!("value = {text}"))
        .ok()
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| Value::String(text.to_owned()))
}

/// Refuses an unknown key and a value of the wrong type.
fn check(entry: &Entry, defaults: &Value) -> Result<(), TrainError> {
    let Entry { key, value, origin } = entry;
    let mut expected = defaults;
    for part in key.split('.') {
        match expected.get(part) {
            Some(inner) => expected = inner,
            None => {
                let nearest = nearest_key(key, defaults);
                let kind = expected.get("kind").and_then(Value::as_str);
                let of_kind = kind.map_or(String::new(), |kind| format!(" of kind \"{kind}\""));
                return Err(TrainError::BadInput(format!(
                    "{origin}: unknown key '{key}'{of_kind}: did you mean '{nearest}'?"
                )));
            }
        }
    }
    let fits = match (expected, value) {
        (Value::Float(_), Value::Integer(_)) => true,
        (Value::Table(_), _) => false,
        // All lists are of whole numbers.
        (Value::Array(_), Value::Array(values)) => values.iter().all(Value::is_integer),
        _ => expected.same_type(value),
    };
    if !fits {
        let wanted = match expected.type_str() {
            "integer" => "a whole number",
            "float" => "a number",
            "string" => "a text in quotes",
            "boolean" => "true or false",
            "array" => "a list of whole numbers, such as [8, 5, 5]",
            _ => "keys below it",
        };
        return Err(TrainError::BadInput(format!(
            "{origin}: {key} should be {wanted}, found {} {value}",
            value.type_str()
        )));
    }
    Ok(())
}

/// Refuses a word that is none of a few, with those few, which serde tells.
fn check_word(entry: &Entry, defaults: &TrainConfig) -> Result<(), TrainError> {
    let Entry { key, value: Value::String(word), origin } = entry else { return Ok(()) };
    if key.ends_with(".kind") {
        return Ok(()); // as `defaults_for` has found it
    }
    let mut tree = serde_json::to_value(defaults).expect("a configuration is plain data");
    if let Some(place) = tree.pointer_mut(&format!("/{}", key.replace('.', "/"))) {
        *place = word.as_str().into();
    }
    let fits: Result<TrainConfig, _> = serde_json::from_value(tree);
    fits.map(drop).map_err(|error| bad_word(origin, key, &error))
}

fn bad_word(origin: &str, key: &str, error: &serde_json::Error) -> TrainError {
    let words = error.to_string().replace('`', "\"");
    TrainError::BadInput(format!("{origin}: {key}: {words}"))
}

/// The existing key that looks most like `key`: the likeness of whole keys counts, and that of
/// their last parts, so that a right name in the wrong table is found.
fn nearest_key(key: &str, defaults: &Value) -> String {
    let last = |key: &str| key.rsplit('.').next().unwrap_or(key).to_owned();
    let likeness = |known: &str| {
        strsim::normalized_damerau_levenshtein(key, known)
            + strsim::normalized_damerau_levenshtein(&last(key), &last(known))
    };
    let mut keys = Vec::new();
    walk(defaults, "", &mut |key, _| keys.push(key.to_owned()));
    keys.into_iter()
        .max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
        .expect("a configuration has keys")
}

/// Calls `leaf` with each dotted key and value below `value`; values before tables.
fn walk(value: &Value, prefix: &str, leaf: &mut dyn FnMut(&str, &Value)) {
    let Value::Table(table) = value else { return };
    for (key, inner) in table.iter().filter(|(_, inner)| !inner.is_table()) {
        leaf(&format!("{prefix}{key}"), inner);
    }
    for (key, inner) in table.iter().filter(|(_, inner)| inner.is_table()) {
        walk(inner, &format!("{prefix}{key}."), leaf);
    }
}

impl Resolved {
    /// The run folder's `config.toml`: every value, with its origin as a comment.
    pub fn to_toml(&self) -> String {
        let tree = Value::try_from(&self.config).expect("a configuration is plain data");
        let mut text = String::from("# Fully resolved; behind each value where it comes from.\n");
        let mut table = String::new();
        walk(&tree, "", &mut |key, value| {
            let (parent, name) = key.rsplit_once('.').unwrap_or(("", key));
            if parent != table {
                table = parent.to_owned();
                let _ = write!(text, "\n[{table}]\n");
            }
            let origin = self.origins.get(key).map_or("default", String::as_str);
            let _ = writeln!(text, "{name} = {value} # {origin}");
        });
        text
    }

    /// Reads a run folder's `config.toml` back.
    ///
    /// # Errors
    ///
    /// [`TrainError::BadInput`] if there is none, or it is no configuration.
    pub fn of_run(run_dir: &Path) -> Result<Self, TrainError> {
        let path = run_dir.join("config.toml");
        if !path.is_file() {
            return Err(TrainError::BadInput(format!(
                "{} is no run folder: it has no config.toml",
                run_dir.display()
            )));
        }
        resolve(Some(&path), [], &[], Some(run_dir.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tessera_nn::QuantizerConfig;

    fn write(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.toml");
        std::fs::write(&path, text).unwrap();
        (folder, path)
    }

    fn refusal(text: &str, sets: &[&str]) -> String {
        let (_folder, path) = write(text);
        let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
        resolve(Some(&path), [], &sets, None).unwrap_err().to_string()
    }

    #[test]
    fn later_sources_go_before_earlier_ones_and_origins_are_kept() {
        let (_folder, path) = write("seed = 3\n[train]\nsteps = 7\nglobal_batch = 8\n");
        let environment = [
            ("TESSERA__TRAIN__GLOBAL_BATCH".to_owned(), "16".to_owned()),
            ("TESSERA__TRAIN__STEPS".to_owned(), "9".to_owned()),
            ("TESSERA_WORLD_SIZE".to_owned(), "2".to_owned()),
        ];
        let sets = ["train.steps=11".to_owned(), "data.path=some/where".to_owned()];
        let resolved = resolve(Some(&path), environment, &sets, None).unwrap();
        let TrainConfig { seed, train, data, .. } = &resolved.config;
        assert_eq!((*seed, train.steps, train.global_batch), (3, 11, 16));
        assert_eq!(data.path, Path::new("some/where"));
        assert_eq!(resolved.origins["seed"], format!("{}:1", path.display()));
        assert_eq!(resolved.origins["train.global_batch"], "TESSERA__TRAIN__GLOBAL_BATCH");
        assert_eq!(resolved.origins["train.steps"], "--set");
        assert_eq!(resolved.run_dir, Path::new("runs/run"));
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_place_and_the_nearest() {
        let message = refusal("[train]\nsteps = 7\n\n[model.quantizer]\nnum_code = 5\n", &[]);
        assert!(
            message.contains("run.toml:5: unknown key 'model.quantizer.num_code'"),
            "{message}"
        );
        assert!(message.contains("'model.quantizer.num_codes'"), "{message}");
        let message = refusal("", &["train.learning_rate=0.1"]);
        assert!(message.contains("'optimizer.learning_rate'"), "{message}");
    }

    #[test]
    fn a_value_of_the_wrong_type_is_refused_with_what_is_wanted() {
        let message = refusal("[train]\nsteps = 2.5\n", &[]);
        assert!(message.contains("run.toml:2: train.steps should be a whole number"), "{message}");
        assert!(refusal("train = 5", &[]).contains("keys below it"));
        assert!(
            refusal("", &["train.steps=many"]).contains("--set: train.steps should be a whole")
        );
        assert!(refusal("", &["train.steps"]).contains("KEY=VALUE"));
        assert!(refusal("a = [", &[]).contains("run.toml:1: not TOML"));
    }

    #[test]
    fn values_out_of_range_and_unknown_kinds_are_refused() {
        let none = ["data.kind=synthetic", "train.global_batch=0"];
        assert!(refusal("", &none).contains("train.global_batch should be"));
        let none = ["data.kind=synthetic", "model.quantizer.decay=1.0"];
        assert!(refusal("", &none).contains("model.quantizer.decay should be"));
        let message = refusal("", &["model.backbone.kind=conv9d"]);
        assert!(message.contains("conv9d") && !message.contains('\n'), "{message}");
        let file = "[model.quantizer]\nkind = 'fsk'\nlevels = [8, 5]\n";
        let message = refusal(file, &[]);
        assert!(message.contains("run.toml:2: model.quantizer.kind: unknown variant"), "{message}");
        assert!(message.contains("\"fsq\""), "{message}");
    }

    #[test]
    fn the_kind_of_a_table_says_which_keys_it_has() {
        let file = "data.kind = 'synthetic'\n[model.quantizer]\nkind = 'fsq'\nlevels = [8, 5, 5]\n";
        let (_folder, path) = write(file);
        let config = resolve(Some(&path), [], &[], None).unwrap().config;
        let QuantizerConfig::FiniteScalar(fsq) = &config.model.quantizer else {
            panic!("{:?}", config.model.quantizer)
        };
        assert_eq!(fsq.levels, [8, 5, 5]);
        let message = refusal(&format!("{file}decay = 0.9\n"), &[]);
        assert!(
            message.contains("unknown key 'model.quantizer.decay' of kind \"fsq\""),
            "{message}"
        );
        let message = refusal(file, &["model.quantizer.levels=[8, 1.5]"]);
        assert!(message.contains("a list of whole numbers"), "{message}");
        let message = refusal(file, &["model.quantizer.levels=[8, 1]"]);
        assert!(message.contains("model.quantizer.levels should be one or more"), "{message}");
    }

    #[test]
    fn tables_may_hold_tables_with_kinds_of_their_own() {
        let file = "data.kind = 'synthetic'\n[model.quantizer]\nkind = 'residual'\n\
                    num_codes = [64, 32, 16, 8]\n[model.quantizer.quantizer]\nkind = 'simvq'\n\
                    code_dim = 4\n";
        let (folder, path) = write(file);
        let resolved = resolve(Some(&path), [], &[], Some(folder.path().to_owned())).unwrap();
        let QuantizerConfig::Residual(residual) = &resolved.config.model.quantizer else {
            panic!("{:?}", resolved.config.model.quantizer)
        };
        assert_eq!(residual.num_codes, [64, 32, 16, 8]);
        assert!(matches!(&*residual.quantizer, QuantizerConfig::SimVq(part) if part.code_dim == 4));
        std::fs::write(folder.path().join("config.toml"), resolved.to_toml()).unwrap();
        assert_eq!(Resolved::of_run(folder.path()).unwrap().config, resolved.config);
        let message = refusal(file, &["model.quantizer.num_codes=[1]"]);
        assert!(message.contains("model.quantizer.num_codes should be empty, or 4"), "{message}");
    }

    #[test]
    fn what_is_written_to_the_run_folder_reads_back_the_same() {
        let (folder, path) = write("data.kind = 'synthetic'\noptimizer.learning_rate = 1\n");
        let resolved = resolve(Some(&path), [], &[], Some(folder.path().to_owned())).unwrap();
        let text = resolved.to_toml();
        let origin = format!("learning_rate = 1.0 # {}:2", path.display());
        assert!(text.contains(&origin), "{text}");
        assert!(text.contains("num_codes = 512 # default"), "{text}");
        std::fs::write(folder.path().join("config.toml"), text).unwrap();
        assert_eq!(Resolved::of_run(folder.path()).unwrap().config, resolved.config);
    }

    #[test]
    fn a_word_that_is_none_of_a_few_is_told_with_those_few() {
        let told = refusal("", &["comm.backend=foo"]);
        assert!(
            told.contains(
                "comm.backend: unknown variant \"foo\", expected one of \"auto\", \"nccl\""
            ),
            "{told}"
        );
        let told = refusal("", &["train.precision=fp16"]);
        assert!(told.contains("train.precision: unknown variant \"fp16\""), "{told}");
        let told = refusal("[model.quantizer]\ndistance = 'l2'\n", &[]);
        let place = "run.toml:2: model.quantizer.distance: unknown variant \"l2\", expected";
        assert!(told.contains(place), "{told}");
    }
}
