//! Writing a model folder, and reading one: nothing is believed whose hash does not hold.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tch::Device;
use tessera_checkpoint::{Storage, patiently};

use crate::error::ModelError;
use crate::file::{FORMAT, Level, ModelFile, VERSION};
use crate::opened::OpenModel;
use crate::tables::{read_tables, write_tables};
use crate::tensors::{self, Values};

/// Name of the file that says what a model is.
pub const CONFIG_FILE: &str = "config.json";
/// Name of the file with its weights.
pub const WEIGHTS_FILE: &str = "model.safetensors";

/// A model that can be written into a folder.
pub trait Stored {
    /// What there is to know of it.
    fn file(&self) -> &ModelFile;

    /// The values of its weights.
    fn values(&self) -> BTreeMap<String, Values>;
}

/// Writes a model folder, all of it or nothing: into a folder beside, which then gets the name. A model folder that is
/// there is replaced; the same model gives the same bytes.
///
/// # Errors
///
/// [`ModelError::NotOne`] if something else is there; those of the storage.
pub fn write(storage: &Storage, path: &Path, model: &dyn Stored) -> Result<(), ModelError> {
    let is_there = path.exists();
    if is_there && !is_empty(path) && read_file(path).is_err() {
        let problem = "is there, and is no model folder: choose another name for it";
        return Err(ModelError::not_one(path, problem));
    }
    let (partial, aside) = (beside(path, "partial"), beside(path, "old"));
    for left in [&partial, &aside] {
        if left.exists() {
            storage.remove_folder(left)?;
        }
    }
    storage.make_folder(&partial)?;
    let written =
        fill(storage, &partial, model).and_then(|()| keep_tables(storage, path, &partial, model));
    if written.is_err() {
        // The first error is the one to report.
        let _ = storage.remove_folder(&partial);
    }
    written?;
    if is_there {
        storage.rename(path, &aside)?;
    }
    let named = storage.rename(&partial, path);
    if named.is_err() && is_there {
        // The one before comes back; the first error is the one to report.
        let _ = storage.rename(&aside, path);
    }
    named?;
    storage.sync_folder(&parent(path))?;
    if is_there {
        storage.remove_folder(&aside)?;
    }
    Ok(())
}

fn fill(storage: &Storage, folder: &Path, model: &dyn Stored) -> Result<(), ModelError> {
    storage.write(&folder.join(WEIGHTS_FILE), &tensors::to_bytes(&model.values()))?;
    let mut config = serde_json::to_vec_pretty(model.file()).expect("a model file is plain data");
    config.push(b'\n');
    storage.write(&folder.join(CONFIG_FILE), &config)?;
    Ok(storage.sync_folder(folder)?)
}

/// Tables that were counted for this very model stay.
fn keep_tables(
    storage: &Storage,
    from: &Path,
    to: &Path,
    model: &dyn Stored,
) -> Result<(), ModelError> {
    if model.file().prior().is_some() {
        return Ok(());
    }
    // Damaged ones are of no use to anybody.
    match read_tables(from, model.file()).ok().flatten() {
        Some(tables) => write_tables(storage, to, model.file(), &tables),
        None => Ok(()),
    }
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none())
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// A name beside `path` that no person gives.
fn beside(path: &Path, end: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    parent(path).join(format!(".{name}.{end}"))
}

/// Opens a model folder.
///
/// # Errors
///
/// [`ModelError::Damaged`] where the hash does not hold, and those of [`read_file`].
pub fn open(path: &Path, device: Device) -> Result<OpenModel, ModelError> {
    let (file, values) = read(path)?;
    let model = OpenModel::build(file, path, device, |_| Ok(values))?;
    if model.file.autoencoder().levels != Level::of(&model.vqvae) {
        let problem = "its levels are not those of its model";
        return Err(ModelError::damaged(path, CONFIG_FILE, problem));
    }
    Ok(model)
}

/// What a model folder holds, every byte of it as it was written.
pub(crate) fn read(path: &Path) -> Result<(ModelFile, BTreeMap<String, Values>), ModelError> {
    let file = read_file(path)?;
    let weights = path.join(WEIGHTS_FILE);
    let bytes = patiently(|| fs::read(&weights)).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => ModelError::damaged(path, WEIGHTS_FILE, "it is missing"),
        _ => ModelError::Unreadable { path: weights.clone(), source },
    })?;
    let values = tensors::from_bytes(&bytes)
        .map_err(|problem| ModelError::damaged(path, WEIGHTS_FILE, problem))?;
    if file.hash_with(&crate::hash::hashes(&values)) != file.hash {
        let problem = format!("what is in it and in {CONFIG_FILE} does not have the hash there");
        return Err(ModelError::damaged(path, WEIGHTS_FILE, problem));
    }
    Ok((file, values))
}

/// Reads `config.json` of a model folder; looks at no other file.
///
/// # Errors
///
/// [`ModelError::NotOne`], [`ModelError::OtherVersion`], [`ModelError::Damaged`] or [`ModelError::Unreadable`].
pub fn read_file(path: &Path) -> Result<ModelFile, ModelError> {
    let config = path.join(CONFIG_FILE);
    let bytes = patiently(|| fs::read(&config)).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            ModelError::not_one(path, what_it_is(path))
        }
        _ => ModelError::Unreadable { path: config.clone(), source },
    })?;
    let value: Value = serde_json::from_slice(&bytes)
        .map_err(|error| ModelError::damaged(path, CONFIG_FILE, error))?;
    if value["format"] != FORMAT {
        let problem = "is no model folder: its config.json is of another program";
        return Err(ModelError::not_one(path, problem));
    }
    if value["version"] != VERSION {
        let found = value["version"].as_u64().and_then(|version| version.try_into().ok());
        let tessera = value["tessera"].as_str().unwrap_or_default().to_owned();
        let (folder, found) = (path.to_owned(), found.unwrap_or(0));
        return Err(ModelError::OtherVersion { folder, found, tessera });
    }
    serde_json::from_value(value).map_err(|error| ModelError::damaged(path, CONFIG_FILE, error))
}

/// What a path that is no model folder is instead, and what to do.
fn what_it_is(path: &Path) -> &'static str {
    if !path.exists() {
        "does not exist: name a model folder, which `tessera export` writes"
    } else if path.join("config.toml").is_file() {
        "is a run folder: give it as --run, or its folder model/"
    } else if path.join("manifest.json").is_file() {
        "is a checkpoint or a data set: name a model folder, which `tessera export` writes"
    } else {
        "is no model folder, it has no config.json: name one that `tessera export` wrote"
    }
}
