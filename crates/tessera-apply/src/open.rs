//! One model on all ranks.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use tch::Device;
use tessera_comm::{Communicator, all_gather_bytes, broadcast_bytes};
use tessera_model::{ModelPath, OpenModel, find_checkpoint, open_checkpoint};

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
    let opened = match path {
        ModelPath::Model(_) => path.open(device).map_err(ApplyError::from),
        ModelPath::Run { folder, which, weights } => {
            let found = match comm.rank() {
                0 => find_checkpoint(folder, *which).map_err(ApplyError::from),
                _ => Ok(PathBuf::new()),
            };
            let found = agree_on(comm, found)?;
            let found = broadcast_bytes(comm, found.as_os_str().as_bytes())?;
            let checkpoint = PathBuf::from(OsString::from_vec(found));
            open_checkpoint(&checkpoint, *weights, device).map_err(ApplyError::from)
        }
    };
    let model = agree_on(comm, opened)?;
    let hashes = all_gather_bytes(comm, model.file.hash.as_bytes())?;
    let is_same = match hashes[0] == model.file.hash.as_bytes() {
        true => Ok(()),
        false => Err(ApplyError::BadInput(format!(
            "rank {} sees another model than rank 0: put it where all hosts see the same files",
            comm.rank()
        ))),
    };
    agree_on(comm, is_same)?;
    Ok(model)
}
