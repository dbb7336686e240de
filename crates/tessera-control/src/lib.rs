//! What the launcher and its workers say to one another.
//!
//! The exit codes ([`ExitCode`]), the variables that a worker is
//! started with ([`variables`]), the lines on the control connection ([`Message`], [`Client`]),
//! the outcome left in the run folder ([`RunStatus`]), how long workers may do nothing
//! ([`LimitsConfig`]), and which trackers run beside them ([`TrackConfig`]). Also what both have to know of their surroundings: how many cores there are
//! ([`usable_cores`]), who still lives ([`Process`]), names of any bytes ([`path_json`]), streams that
//! nobody reads ([`tell`], [`write_result`]) and storage that does not answer ([`Writer`]). The launcher links no torch and the
//! worker draws nothing, so what they have in common lives here, below both.
//!
//! The formats are written down in `docs/formats.md`.

mod activity;
mod attempt;
mod behind;
mod client;
mod cores;
mod ended;
mod exit;
mod limits;
pub mod lock;
mod message;
pub mod path_json;
mod process;
mod proof;
mod secrets;
mod status;
mod streams;
mod track;
mod writer;

pub use activity::{Activity, Phase, read_record};
pub use attempt::{Attempt, NotAnAttempt};
pub use behind::{Stderr, all_told, draw_newest, tell_above, tell_behind};
pub use client::{Client, ControlError};
pub use cores::{Quota, allowed_cores, quotas, usable_cores};
pub use ended::ended_by;
pub use exit::ExitCode;
pub use limits::LimitsConfig;
pub use lock::{Holder, LockError, Lost, RunLock};
pub use message::{Call, Message, Numbered, Reply};
pub use process::{Process, SignOfLife};
pub use proof::{draw_secret, is_proof, is_secret, proof};
pub use secrets::Secrets;
pub use status::{MEASURED, RunState, RunStatus, last_row, replace_json};
pub use streams::{
    end_unread, hear_of_children, is_coloured, is_ignored, not_written, one_line, painted, tell,
    unread, write_result,
};
pub use track::TrackConfig;
pub use writer::Writer;

/// What stands before the name of a configuration that the program brings, as in `--config @fashion_mnist`.
pub const SHIPPED_MARK: char = '@';

/// The name of a configuration that the program brings, where a path is one.
pub fn shipped_name(path: &std::path::Path) -> Option<&str> {
    path.to_str()?.strip_prefix(SHIPPED_MARK)
}

/// Environment variables that the launcher sets for its workers.
///
/// One underscore after `TESSERA`: two (`TESSERA__`) mark configuration keys.
pub mod variables {
    /// Where the launcher's control connection is: `HOST:PORT`, several with commas between them, which a worker
    /// tries in turn.
    pub const CONTROL: &str = "TESSERA_CONTROL";
    /// Secret that the first line on the control connection proves to know.
    pub const CONTROL_TOKEN: &str = "TESSERA_CONTROL_TOKEN";
    /// Set by a shell that asks what may follow: its name. Not one of a run.
    pub const COMPLETE: &str = "TESSERA_COMPLETE";
    /// Number of workers that the launcher asked for.
    pub const WORLD_SIZE: &str = "TESSERA_WORLD_SIZE";
    /// Folder on the launcher's host where each worker keeps a record of what it is doing.
    pub const RECORDS: &str = "TESSERA_RECORDS";
    /// Which start of the workers this is ([`crate::Attempt`]): other ones have other names.
    pub const ATTEMPT: &str = "TESSERA_ATTEMPT";
    /// Names, with commas between, of the user's settings that the launcher has sent to the workers on all hosts:
    /// each of them has to find the same values.
    pub const FORWARDED: &str = "TESSERA_FORWARDED";
    /// How often the launcher has started the workers again; not set at the first start.
    pub const RESTART: &str = "TESSERA_RESTART";
    /// The configuration as the launcher resolved it: one line of JSON, opaque to the launcher.
    pub const RESOLVED: &str = "TESSERA_RESOLVED";
}
