//! The hidden command through which a launcher starts mpirun, and a sweep its launchers.

use std::ffi::OsString;

use clap::Args;
use tessera_control::ExitCode;

use crate::failure::Failure;

/// A program, and the process whose death ends it.
#[derive(Debug, Args)]
pub(crate) struct InSessionArgs {
    /// Process id of its parent.
    #[arg(long)]
    parent: i32,
    /// Number of a signal that the program is not to hear.
    #[arg(long, value_name = "NUMBER")]
    block: Vec<i32>,
    /// Number of a core that the program may use; all without.
    #[arg(long, value_name = "NUMBER")]
    core: Vec<usize>,
    /// How many files the program may have open.
    #[arg(long, value_name = "NUMBER")]
    files: Option<u64>,
    /// Ask the program to end where it would be killed.
    #[arg(long)]
    gently: bool,
    /// The program and its arguments.
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Becomes the program.
pub(crate) fn run(args: &InSessionArgs) -> Result<ExitCode, Failure> {
    let trampoline = tessera_launch::Trampoline {
        parent: args.parent,
        gently: args.gently,
        blocked: args.block.clone(),
        cores: args.core.clone(),
        files: args.files,
    };
    match trampoline.jump(&args.command) {
        Ok(never) => match never {},
        Err(error) => Err(error.into()),
    }
}
