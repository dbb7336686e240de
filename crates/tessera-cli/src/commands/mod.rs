//! One module a command.

pub(crate) mod chaos;
pub(crate) mod checkpoint;
pub(crate) mod completions;
pub(crate) mod data;
pub(crate) mod doctor;
mod dry_run;
pub(crate) mod in_session;
pub(crate) mod inspect;
pub(crate) mod launch;
mod on_end;
pub(crate) mod reference;
pub(crate) mod report;
pub(crate) mod sweep;
pub(crate) mod trace;
pub(crate) mod track;
pub(crate) mod watch;
pub(crate) mod worker;
