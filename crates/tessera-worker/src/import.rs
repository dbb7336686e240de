//! `tessera import`: weights of another program as a model folder. One process does it.

use serde_json::json;
use tessera_apply::{ApplyError, ImportOptions, Imported};
use tessera_checkpoint::Storage;
use tessera_control::ExitCode;

use crate::apply::{in_training_words, told};
use crate::arguments::apply::ImportArguments;
use crate::session::refuse;
use crate::{answer_alone, logging, threads};

/// Writes the model folder.
pub(crate) fn run(arguments: &ImportArguments) -> ExitCode {
    logging::to_stderr();
    threads::compute_with(1);
    let ImportArguments { from, out, size, length, json } = arguments;
    let options = ImportOptions { size: *size, length: *length };
    let imported = tessera_apply::import(from, &options).and_then(|imported| {
        tessera_model::write(&Storage::new(), out, &imported.model).map_err(ApplyError::from)?;
        Ok(imported)
    });
    match imported {
        Ok(imported) => {
            let file = &imported.model.file;
            let answer = json!({
                "path": out,
                "of": imported.of,
                "hash": file.hash,
                "shape": file.autoencoder().shape,
                "model": imported.table,
            });
            answer_alone(&told(*json, &answer, &in_words(&imported, out)))
        }
        Err(error) => refuse(&in_training_words(error)),
    }
}

fn in_words(imported: &Imported, out: &std::path::Path) -> String {
    let file = &imported.model.file;
    let mut table = imported.table.clone();
    table["init_from"] = json!(out);
    let table = toml::to_string(&json!({ "model": table })).unwrap_or_default();
    format!(
        "{}  made of {}, hash {}\nTo train on, name your data, and set:\n\n{table}",
        out.display(),
        imported.of,
        file.hash
    )
}
