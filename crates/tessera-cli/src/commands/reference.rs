//! `tessera reference`: the pages of the book that are made from the code.

use std::path::{Path, PathBuf};
use std::process::Command as Process;

use clap::{Args, Command};
use clap_markdown::MarkdownOptions;
use tessera_control::ExitCode;

use crate::failure::Failure;

/// Where the pages go.
#[derive(Debug, Args)]
pub(crate) struct ReferenceArgs {
    /// Folder for commands.md and keys.md.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Those that `tessera-worker` knows the arguments of.
pub(super) const OF_THE_WORKER: [&str; 18] = [
    "train",
    "eval",
    "export",
    "import",
    "encode",
    "decode",
    "compress",
    "decompress",
    "reconstruct",
    "features",
    "atlas",
    "tables",
    "serve",
    "rate-distortion",
    "sample",
    "judge",
    "inpaint",
    "bench",
];

/// Writes the pages.
pub(crate) fn run(args: &ReferenceArgs, mut command: Command) -> Result<ExitCode, Failure> {
    let folder = &args.folder;
    std::fs::create_dir_all(folder).map_err(|error| refused(folder, &error))?;
    for name in OF_THE_WORKER {
        command = command.mut_subcommand(name, |inner| inner.hide(true));
    }
    let options = MarkdownOptions::new()
        .title("Commands".to_owned())
        .show_footer(false)
        .show_table_of_contents(false);
    let ours = clap_markdown::help_markdown_command_custom(&command, &options);
    let theirs = of_the_worker("commands")?;
    // Its page begins with the program, which is ours.
    let theirs = theirs.split_once("\n## `tessera train`").map_or("", |(_, rest)| rest);
    let commands = format!("{ours}\n## `tessera train`{theirs}");
    write(&folder.join("commands.md"), &commands)?;
    write(&folder.join("keys.md"), &of_the_worker("keys")?)?;
    Ok(ExitCode::Done)
}

fn of_the_worker(what: &str) -> Result<String, Failure> {
    let failed = |message: String| Failure::new(ExitCode::Failed, message);
    let worker = tessera_launch::find_worker().map_err(|error| failed(error.to_string()))?;
    let output = Process::new(&worker).args(["reference", what]).output();
    let output = output.map_err(|error| failed(format!("{}: {error}", worker.display())))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    // Lines end where their text does, and pages with one newline. The table of exit codes is a block of its own.
    let lines = text.trim().lines().map(str::trim_end).map(|line| match line {
        "Exit codes:" => "Exit codes:\n".to_owned(),
        _ if line.trim_start().starts_with(|c: char| c.is_ascii_digit()) => format!("    {line}"),
        _ => line.to_owned(),
    });
    let lines: Vec<String> = lines.collect();
    std::fs::write(path, lines.join("\n") + "\n").map_err(|error| refused(path, &error))
}

fn refused(path: &Path, error: &std::io::Error) -> Failure {
    Failure::bad_input(format!("cannot write {}: {error}", path.display()))
}
