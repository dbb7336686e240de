//! Probabilities of a model's codes, which compressed files are coded with: `tables.safetensors` of a model folder.
//!
//! They are no part of the model: a folder may have none, and other ones make other files, not other outputs. `level.0`,
//! `level.1`, .. are U32 `[1 or positions, K]`, one for each level of codes in the order of a token set, in parts of 2^24.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use tessera_checkpoint::{Storage, patiently};
use tessera_codec::{LevelShape, LevelTable, Tables};

use crate::error::ModelError;
use crate::file::{AutoencoderFile, ModelFile};
use crate::opened::ModelPath;

/// Name of the file.
pub const TABLES_FILE: &str = "tables.safetensors";
/// Value of the metadata key `format`.
const FORMAT: &str = "tessera-tables-1";

impl AutoencoderFile {
    /// Its levels of codes, in the order of a token set.
    pub fn code_levels(&self) -> Vec<LevelShape> {
        let of_level = |level: &crate::Level| {
            let positions = level.num_positions() as u32;
            let shape = |&num_codes: &i64| LevelShape { num_codes: num_codes as u32, positions };
            level.num_codes.iter().map(shape).collect::<Vec<_>>()
        };
        self.levels.iter().flat_map(of_level).collect()
    }
}

impl ModelPath {
    /// The folder where tables of this model are looked for: its own, or `model` of its run.
    pub fn tables_folder(&self) -> PathBuf {
        match self {
            Self::Run { folder, .. } => folder.join("model"),
            Self::Model(folder) => folder.clone(),
        }
    }
}

/// Writes tables of a model into its folder; those that are there are replaced.
///
/// # Errors
///
/// Those of the storage.
pub fn write_tables(
    storage: &Storage,
    folder: &Path,
    model: &ModelFile,
    tables: &Tables,
) -> Result<(), ModelError> {
    let bytes: Vec<(Vec<usize>, Vec<u8>)> = tables.levels().iter().map(bytes_of).collect();
    let views = bytes.iter().enumerate().map(|(number, (shape, bytes))| {
        let view = TensorView::new(Dtype::U32, shape.clone(), bytes);
        (format!("level.{number}"), view.expect("the shape is that of the bytes"))
    });
    let words = [("format", FORMAT), ("model", &model.hash), ("id", tables.id())];
    let words = words.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let file = safetensors::serialize(views, Some(HashMap::from(words)));
    // A reader sees the file before or the file after.
    let (path, partial) = (folder.join(TABLES_FILE), folder.join(".tables.partial"));
    storage.write(&partial, &file.expect("shapes are those of the bytes"))?;
    storage.rename(&partial, &path)?;
    Ok(storage.sync_folder(folder)?)
}

fn bytes_of(level: &LevelTable) -> (Vec<usize>, Vec<u8>) {
    let rows = 0..level.num_positions();
    let parts = rows.clone().flat_map(|row| level.probabilities(row));
    let shape = vec![rows.len(), level.num_codes() as usize];
    (shape, parts.flat_map(|part| part.to_le_bytes()).collect())
}

/// The tables of a model in a folder; none where there are none, or another model's.
///
/// # Errors
///
/// [`ModelError::Damaged`] if they are not as they were written, [`ModelError::Unreadable`].
pub fn read_tables(folder: &Path, model: &ModelFile) -> Result<Option<Tables>, ModelError> {
    let path = folder.join(TABLES_FILE);
    let bytes = match patiently(|| fs::read(&path)) {
        Ok(bytes) => bytes,
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            return Ok(None);
        }
        Err(source) => return Err(ModelError::Unreadable { path, source }),
    };
    parse(&bytes, model).map_err(|problem| {
        let problem = format!("{problem}: count them anew with `tessera tables`");
        ModelError::damaged(folder, TABLES_FILE, problem)
    })
}

fn parse(bytes: &[u8], model: &ModelFile) -> Result<Option<Tables>, String> {
    let no_file = |error| format!("it is no safetensors file ({error})");
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(no_file)?;
    let word = |key: &str| metadata.metadata().as_ref().and_then(|words| words.get(key));
    if word("format").map(String::as_str) != Some(FORMAT) {
        return Err("it has tables of another version".to_owned());
    }
    if word("model") != Some(&model.hash) {
        return Ok(None);
    }
    let file = SafeTensors::deserialize(bytes).map_err(no_file)?;
    let level = |(number, shape): (usize, &LevelShape)| {
        let name = format!("level.{number}");
        let view = file.tensor(&name).map_err(|_| format!("it has no tensor {name}"))?;
        let [positions, num_codes] = [shape.positions, shape.num_codes].map(|size| size as usize);
        let fits = match view.shape() {
            [rows, codes] => *codes == num_codes && [1, positions].contains(rows),
            _ => false,
        };
        if view.dtype() != Dtype::U32 || !fits {
            let (kind, found) = (view.dtype(), view.shape());
            return Err(format!(
                "{name} is {kind:?} {found:?}, expected U32 [1 or {positions}, {num_codes}]"
            ));
        }
        let (quads, _) = view.data().as_chunks::<4>();
        let parts: Vec<u32> = quads.iter().map(|quad| u32::from_le_bytes(*quad)).collect();
        let rows = parts.chunks_exact(num_codes).map(<[u32]>::to_vec).collect();
        LevelTable::from_probabilities(rows).map_err(|error| error.to_string())
    };
    let levels = model.autoencoder().code_levels();
    let levels: Result<Vec<LevelTable>, String> = levels.iter().enumerate().map(level).collect();
    let tables = Tables::new(levels?).map_err(|error| error.to_string())?;
    match word("id").is_some_and(|id| id == tables.id()) {
        true => Ok(Some(tables)),
        false => Err("its numbers do not have the hash that it says".to_owned()),
    }
}
