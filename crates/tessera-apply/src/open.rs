//! One model on all ranks.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use tch::Device;
use tessera_comm::{Communicator, all_gather_bytes, broadcast_bytes};
use tessera_model::{
    ModelError, ModelFile, ModelPath, OpenModel, OpenPrior, Stored, Weights, Which,
    find_checkpoint, open_checkpoint, open_prior_checkpoint,
};

use crate::agreement::agree_on;
use crate::error::ApplyError;

/// Opens a model on every rank, the same on all of them: which checkpoint is the newest one of a run, rank 0 says.
/// Collective.
///
/// # Errors
///
/// [`ApplyError::Model`]; [`ApplyError::BadInput`] where a rank sees another model than rank 0.
pub fn open(
    comm: &dyn Communicator,
    path: &ModelPath,
    device: Device,
) -> Result<OpenModel, ApplyError> {
    let of_checkpoint = |path: &Path, weights| open_checkpoint(path, weights, device);
    open_as(comm, path, || path.open(device), of_checkpoint)
}

/// Opens a prior on every rank, as [`open`] does an autoencoder. Collective.
///
/// # Errors
///
/// As [`open`].
pub fn open_prior(
    comm: &dyn Communicator,
    path: &ModelPath,
    device: Device,
) -> Result<OpenPrior, ApplyError> {
    let of_checkpoint = |path: &Path, weights| open_prior_checkpoint(path, weights, device);
    open_as(comm, path, || path.open_prior(device), of_checkpoint)
}

/// Opens a model of some kind: from its folder, or from the checkpoint of a run that rank 0 finds. Collective.
fn open_as<T: Stored>(
    comm: &dyn Communicator,
    path: &ModelPath,
    of_folder: impl FnOnce() -> Result<T, ModelError>,
    of_checkpoint: impl FnOnce(&Path, Option<Weights>) -> Result<T, ModelError>,
) -> Result<T, ApplyError> {
    let opened = match path {
        ModelPath::Model(_) => of_folder(),
        ModelPath::Run { folder, which, weights } => {
            of_checkpoint(&found_by_first(comm, folder, *which)?, *weights)
        }
    };
    let model = agree_on(comm, opened.map_err(ApplyError::from))?;
    check_same(comm, model.file())?;
    Ok(model)
}

/// The checkpoint that rank 0 finds. Collective.
fn found_by_first(
    comm: &dyn Communicator,
    folder: &Path,
    which: Which,
) -> Result<PathBuf, ApplyError> {
    let found = match comm.rank() {
        0 => find_checkpoint(folder, which).map_err(ApplyError::from),
        _ => Ok(PathBuf::new()),
    };
    let found = agree_on(comm, found)?;
    let found = broadcast_bytes(comm, found.as_os_str().as_bytes())?;
    Ok(PathBuf::from(OsString::from_vec(found)))
}

/// Refuses models that differ between ranks. Collective.
fn check_same(comm: &dyn Communicator, file: &ModelFile) -> Result<(), ApplyError> {
    let hashes = all_gather_bytes(comm, file.hash.as_bytes())?;
    let is_same = match hashes[0] == file.hash.as_bytes() {
        true => Ok(()),
        false => Err(ApplyError::BadInput(format!(
            "rank {} sees another model than rank 0: put it where all hosts see the same files",
            comm.rank()
        ))),
    };
    agree_on(comm, is_same)
}
