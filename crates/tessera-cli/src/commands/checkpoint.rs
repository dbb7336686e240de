//! `tessera checkpoint`: what can be done with checkpoints as files.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use tessera_checkpoint::upgrade::{Upgraded, upgrade};
use tessera_checkpoint::{Storage, checkpoint_at, list};
use tessera_control::ExitCode;

use super::inspect::failure;
use crate::failure::Failure;

/// What is to be done.
#[derive(Debug, Args)]
pub(crate) struct CheckpointArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write checkpoints of an older version anew in the newest one; the old ones are kept in `superseded/`.
    Upgrade {
        /// A checkpoint folder, its manifest.json, or a run folder for all of its checkpoints.
        path: PathBuf,
    },
}

/// Does it.
pub(crate) fn run(args: &CheckpointArgs) -> Result<ExitCode, Failure> {
    let Command::Upgrade { path } = &args.command;
    let all = match list(&path.join("checkpoints")) {
        Ok(all) if !all.is_empty() => {
            tessera_control::lock::refuse_held(path, None)
                .map_err(|error| Failure::bad_input(error.to_string()))?;
            all.into_iter().map(|(_, path)| path).collect()
        }
        _ => vec![checkpoint_at(path).map_err(failure)?],
    };
    let mut out = io::stdout().lock();
    for folder in all {
        match upgrade(&Storage::new(), &folder).map_err(failure)? {
            Upgraded::Already => writeln!(out, "{}  is of the newest version", folder.display())?,
            Upgraded::From { version, path } => {
                writeln!(out, "{}  upgraded from version {version}", path.display())?;
            }
        }
    }
    Ok(ExitCode::Done)
}
