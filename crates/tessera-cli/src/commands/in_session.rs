//! The hidden command through which the launcher starts mpirun.

use std::ffi::OsString;

use clap::Args;
use tessera_control::ExitCode;

use crate::failure::Failure;

/// A program, and the launcher whose death ends it.
#[derive(Debug, Args)]
pub(crate) struct InSessionArgs {
    /// Process id of the launcher.
    #[arg(long)]
    parent: i32,
    /// Number of a signal that the program is not to hear.
    #[arg(long, value_name = "NUMBER")]
    block: Vec<i32>,
    /// The program and its arguments.
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Becomes the program.
pub(crate) fn run(args: &InSessionArgs) -> Result<ExitCode, Failure> {
    match tessera_launch::trampoline(args.parent, &args.block, &args.command) {
        Ok(never) => match never {},
        Err(error) => Err(Failure::new(error.exit_code(), error.to_string())),
    }
}
