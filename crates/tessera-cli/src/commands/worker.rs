//! `tessera train` and `tessera eval`: becoming the sibling `tessera-worker`.
//!
//! The same process goes on under the same id, so both work under a bare mpirun, and the worker
//! alone knows its arguments, `--help` included.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use clap::Args;
use tessera_control::ExitCode;

use crate::failure::Failure;

/// Arguments that the worker reads; `--help` lists them.
#[derive(Debug, Args)]
pub(crate) struct WorkerArgs {
    /// Passed on to the worker as they are.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    pub(crate) args: Vec<OsString>,
}

/// Becomes `tessera-worker COMMAND ARGS...`; returns only if that is impossible.
pub(crate) fn run(command: &str, args: &WorkerArgs) -> Result<ExitCode, Failure> {
    let worker = tessera_launch::find_worker()?;
    tessera_launch::check_libraries(&worker)?;
    let refused = Command::new(&worker)
        .arg(command)
        .args(&args.args)
        .envs(tessera_launch::waiting_of_threads())
        .exec();
    let message = format!("cannot start {}: {refused}; run `tessera doctor`", worker.display());
    Err(Failure::new(ExitCode::Failed, message))
}
