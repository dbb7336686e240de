//! `tessera completions` and `tessera man`: what shells and `man` know of the commands, from the commands.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, Command};
use clap_complete::Shell;
use tessera_control::ExitCode;

use crate::failure::Failure;

/// For which shell.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell, as in `source <(tessera completions bash)`.
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// Where the pages go.
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Folder for the pages, tessera.1 and one for each command, as in `~/.local/share/man/man1`.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Prints the completions.
pub(crate) fn run(args: &CompletionsArgs, mut command: Command) -> Result<ExitCode, Failure> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut command, "tessera", &mut text);
    std::io::stdout().lock().write_all(&text)?;
    Ok(ExitCode::Done)
}

/// Writes the pages.
pub(crate) fn pages(args: &ManArgs, mut command: Command) -> Result<ExitCode, Failure> {
    let folder = &args.folder;
    let refused = |path: &Path, error: std::io::Error| {
        Failure::bad_input(format!("cannot write {}: {error}", path.display()))
    };
    std::fs::create_dir_all(folder).map_err(|error| refused(folder, error))?;
    command.build();
    page(&command, folder, &refused)?;
    Ok(ExitCode::Done)
}

fn page(
    command: &Command,
    folder: &Path,
    refused: &dyn Fn(&Path, std::io::Error) -> Failure,
) -> Result<(), Failure> {
    let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
    let path = folder.join(format!("{name}.1"));
    let mut text = Vec::new();
    clap_mangen::Man::new(command.clone())
        .title(name)
        .render(&mut text)
        .and_then(|()| std::fs::write(&path, text))
        .map_err(|error| refused(&path, error))?;
    for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set()) {
        if inner.get_name() != "help" {
            page(inner, folder, refused)?;
        }
    }
    Ok(())
}
