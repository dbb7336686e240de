//! The second phase of a save: all parts are there, and the checkpoint becomes visible.

use std::path::{Path, PathBuf};

use crate::error::CheckpointError;
use crate::folder::{folder_name, list, set_aside};
use crate::load::verify;
use crate::manifest::Manifest;
use crate::part::{Save, read_report, report_file};
use crate::retention::Retention;
use crate::storage::Storage;

/// A checkpoint that is visible now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Its folder.
    pub path: PathBuf,
    /// Older checkpoints that were removed.
    pub removed: Vec<u64>,
}

/// Makes the checkpoint whose `num_parts` parts lie in the folder of `save` visible: verifies every part,
/// writes the manifest last, and renames the folder. Then removes the checkpoints that `retention` gives up; one
/// that cannot be removed is left, with a warning.
///
/// # Errors
///
/// [`CheckpointError`]; then all checkpoints are as they were, and [`discard`] removes what was
/// written of this one.
pub fn commit(
    storage: &Storage,
    checkpoints: &Path,
    save: &Save,
    num_parts: usize,
    mut draft: Manifest,
    retention: &Retention,
) -> Result<Committed, CheckpointError> {
    let step = draft.step;
    assert_eq!(step, save.step, "the manifest is of this save");
    let partial = save.folder(checkpoints);
    draft.attempt = Some(save.attempt.clone());
    draft.files = (0..num_parts)
        .map(|part| read_report(save, &partial, part))
        .collect::<Result<_, CheckpointError>>()?;
    for (file, bytes) in draft.to_files() {
        storage.write(&partial.join(file), &bytes)?;
    }
    verify(&partial)?;
    for part in 0..num_parts {
        storage.remove_file(&report_file(&partial, part))?;
    }
    storage.sync_folder(&partial)?;
    let path = checkpoints.join(folder_name(step));
    if path.exists() {
        // The same step was saved before, by a run that a resume has superseded.
        set_aside(storage, checkpoints, &path)?;
    }
    storage.rename(&partial, &path)?;
    storage.sync_folder(checkpoints)?;
    let removed = remove_expired(storage, checkpoints, retention);
    Ok(Committed { path, removed })
}

/// Removes what was written of a save that does not become visible; no other save's.
///
/// # Errors
///
/// [`CheckpointError::File`].
pub fn discard(storage: &Storage, checkpoints: &Path, save: &Save) -> Result<(), CheckpointError> {
    let partial = save.folder(checkpoints);
    if partial.exists() { storage.remove_folder(&partial) } else { Ok(()) }
}

fn remove_expired(storage: &Storage, checkpoints: &Path, retention: &Retention) -> Vec<u64> {
    let all = match list(checkpoints) {
        Ok(all) => all,
        Err(error) => {
            tracing::warn!(%error, "old checkpoints are kept");
            return Vec::new();
        }
    };
    let mut removed = Vec::new();
    for step in retention.expired(&all) {
        match storage.remove_folder(&checkpoints.join(folder_name(step))) {
            Ok(()) => removed.push(step),
            Err(error) => tracing::warn!(%error, "an old checkpoint is kept"),
        }
    }
    removed
}
