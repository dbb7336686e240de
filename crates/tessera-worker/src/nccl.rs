//! What NCCL itself says of a hang, in the last words of a worker.
//!
//! It is asked by whoever tells of the hang, after nobody else can, and never for anything else.

use std::time::Duration;

use tessera_comm::{Hang, NcclSays, aside, ask_nccl};
use tessera_train::TrainError;

/// What the last words of a worker take at most: NCCL is asked for 1.5 s of it.
pub(crate) const LONGEST_WORDS: Duration = Duration::from_secs(3);
/// What a log that stands still may delay the end of a process.
const LOGGED_WITHIN: Duration = Duration::from_millis(300);

/// What NCCL says of a hang, if it carries what was waited for.
pub(crate) fn ask_about_hang(hang: &Hang) -> Option<NcclSays> {
    hang.over_nccl.then(ask_nccl).flatten()
}

/// What NCCL says of an error, if that is a wait over NCCL that took too long.
pub(crate) fn ask_about_error(error: &TrainError) -> Option<NcclSays> {
    error.is_hang_over_nccl().then(ask_nccl).flatten()
}

/// A message, and behind it what NCCL finds wrong.
pub(crate) fn with_words(message: String, says: Option<&NcclSays>) -> String {
    match says.and_then(|says| says.short.as_ref()) {
        Some(short) => format!("{message} (NCCL's RAS says: {short})"),
        None => message,
    }
}

/// Writes the whole answer to this rank's log.
pub(crate) fn log(says: Option<NcclSays>) {
    let Some(NcclSays { text, .. }) = says else { return };
    // The process is about to end, whatever the disk does.
    aside(LOGGED_WITHIN, move || tracing::warn!(answer = text, "what NCCL's RAS says"));
}
