//! How ranks tell one another whether each of them could do its part.

use serde::{Deserialize, Serialize};
use tessera_comm::{Communicator, all_gather_bytes};
use tessera_control::ExitCode;

use crate::error::TrainError;

/// What a rank reports when ranks agree on whether all of them succeeded.
#[derive(Debug, Serialize, Deserialize)]
enum Report {
    Ok(Vec<u8>),
    Failed { code: ExitCode, message: String },
}

/// Exchanges `mine` over all ranks: everybody's bytes, or an error on every rank if one failed.
///
/// # Errors
///
/// The rank's own error, or [`TrainError::Peer`] with that of the first rank that failed.
pub(crate) fn agree(
    comm: &dyn Communicator,
    mine: Result<Vec<u8>, TrainError>,
) -> Result<Vec<Vec<u8>>, TrainError> {
    let report = match &mine {
        Ok(bytes) => Report::Ok(bytes.clone()),
        Err(error) => Report::Failed { code: error.code(), message: error.to_string() },
    };
    let reports =
        all_gather_bytes(comm, &serde_json::to_vec(&report).expect("a report is plain data"))?;
    mine?;
    let mut all = Vec::with_capacity(reports.len());
    for (rank, report) in reports.iter().enumerate() {
        match serde_json::from_slice(report).expect("every rank sends a report") {
            Report::Ok(bytes) => all.push(bytes),
            Report::Failed { code, message } => {
                return Err(TrainError::Peer { rank, code, message });
            }
        }
    }
    Ok(all)
}

/// Lets all ranks know whether each of them could do its part: the rank's own value, or an error
/// on every rank if one failed. Collective.
///
/// # Errors
///
/// The rank's own error, or [`TrainError::Peer`] with that of the first rank that failed.
pub fn agree_on<T>(comm: &dyn Communicator, mine: Result<T, TrainError>) -> Result<T, TrainError> {
    match mine {
        Ok(value) => agree(comm, Ok(Vec::new())).map(|_| value),
        Err(error) => Err(agree(comm, Err(error)).expect_err("this rank failed")),
    }
}
