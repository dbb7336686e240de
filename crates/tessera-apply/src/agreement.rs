//! How ranks tell one another whether each of them could do its part.

use serde::{Deserialize, Serialize};
use tessera_comm::{Communicator, all_gather_bytes};
use tessera_control::ExitCode;

use crate::error::ApplyError;

/// What a rank says of its part.
#[derive(Debug, Serialize, Deserialize)]
enum Report {
    Ok,
    Failed { code: ExitCode, message: String },
}

/// `mine`, if all ranks could do their part; on every rank an error otherwise. Collective.
///
/// # Errors
///
/// The rank's own error, or [`ApplyError::Peer`] with that of the first rank that failed.
pub fn agree_on<T>(comm: &dyn Communicator, mine: Result<T, ApplyError>) -> Result<T, ApplyError> {
    let report = match &mine {
        Ok(_) => Report::Ok,
        Err(error) => Report::Failed { code: error.code(), message: error.to_string() },
    };
    let report = serde_json::to_vec(&report).expect("a report is plain data");
    let reports = all_gather_bytes(comm, &report)?;
    let value = mine?;
    for (rank, report) in reports.iter().enumerate() {
        let report = serde_json::from_slice(report).expect("every rank sends a report");
        if let Report::Failed { code, message } = report {
            return Err(ApplyError::Peer { rank, code, message });
        }
    }
    Ok(value)
}
