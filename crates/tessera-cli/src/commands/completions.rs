//! `tessera completions` and `tessera man`: what shells and `man` know of the commands, from the commands.
//!
//! A shell asks `tessera` itself what may follow. For commands that `tessera-worker` knows the arguments of, and for keys of the
//! configuration, that is asked in turn.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use clap::{Args, Command, ValueEnum};
use clap_complete::env::{CompleteEnv, Elvish, EnvCompleter, Fish, Powershell};
use tessera_control::{ExitCode, variables};

use super::reference::OF_THE_WORKER;

use crate::failure::Failure;

/// For which shell.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell, as in `source <(tessera completions bash)`.
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// Shells that there are completions for.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Elvish,
    Fish,
    Powershell,
    Zsh,
}

/// Where the pages go.
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Folder for the pages, tessera.1 and one for each command, as in `~/.local/share/man/man1`.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Prints what a shell has to know: whom it asks.
pub(crate) fn run(args: &CompletionsArgs) -> Result<ExitCode, Failure> {
    let program = std::env::current_exe()?;
    let program = program.to_string_lossy();
    let of_library = |shell: &dyn EnvCompleter| {
        let mut text = Vec::new();
        shell.write_registration(variables::COMPLETE, "tessera", "tessera", &program, &mut text)?;
        std::io::Result::Ok(text)
    };
    let ours = |script: &str| {
        let quoted = format!("'{}'", program.replace('\'', r"'\''"));
        script.replace("VARIABLE", variables::COMPLETE).replace("PROGRAM", &quoted).into_bytes()
    };
    let text = match args.shell {
        Shell::Bash => ours(include_str!("completions/tessera.bash")),
        Shell::Zsh => ours(include_str!("completions/tessera.zsh")),
        Shell::Elvish => of_library(&Elvish)?,
        Shell::Fish => of_library(&Fish)?,
        Shell::Powershell => of_library(&Powershell)?,
    };
    std::io::stdout().lock().write_all(&text)?;
    Ok(ExitCode::Done)
}

/// Answers a shell, and ends this process, where one has asked.
pub(crate) fn for_a_shell(command: impl Fn() -> Command) {
    if std::env::var_os(variables::COMPLETE).is_some_and(|shell| !shell.is_empty()) {
        let words: Vec<OsString> = std::env::args_os().skip(1).collect();
        // Bash and zsh say where the cursor is; in others it is behind the last word.
        let cursor = std::env::var(INDEX).ok().and_then(|index| index.parse().ok());
        if let Some((words, cursor)) = for_the_worker(&words, cursor)
            && let Ok(worker) = tessera_launch::find_worker()
        {
            let mut asked = std::process::Command::new(worker);
            asked.arg("--").args(words).env(INDEX, cursor.to_string());
            let _ = asked.exec(); // it knows nothing then
            std::process::exit(ExitCode::Failed.code());
        }
    }
    CompleteEnv::with_factory(command).var(variables::COMPLETE).complete();
}

/// The variable by which shells say which word the cursor is in.
const INDEX: &str = "_CLAP_COMPLETE_INDEX";

/// What the worker is asked, with the number of the word that the cursor is in, where it knows the answer: `words` begin with `--` and the
/// program.
fn for_the_worker(words: &[OsString], cursor: Option<usize>) -> Option<(Vec<OsString>, usize)> {
    let words = words.strip_prefix(&[OsString::from("--")])?;
    let cursor = cursor.unwrap_or(words.len().saturating_sub(1));
    let (program, command) = (words.first()?, words.get(1)?);
    if cursor < 2 {
        return None;
    }
    if OF_THE_WORKER.iter().any(|name| command == name) {
        return Some((words.to_vec(), cursor));
    }
    if command == "launch" {
        let behind = words.iter().position(|word| word == "--").filter(|at| *at < cursor)?;
        let inner = std::iter::once(program).chain(&words[behind + 1..]);
        return Some((inner.cloned().collect(), cursor - behind));
    }
    // A sweep sets what a training does.
    let is_setting = command == "sweep" && words.get(cursor - 1)? == "--set";
    let given = words.get(cursor).map_or_else(OsString::new, OsString::clone);
    let asked = [OsStr::new("train"), OsStr::new("--set"), &given].map(OsStr::to_owned);
    is_setting.then(|| (std::iter::once(program.clone()).chain(asked).collect(), 3))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(line: &str, cursor: Option<usize>) -> Option<(String, usize)> {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let (words, cursor) = for_the_worker(&words, cursor)?;
        let words: Vec<_> = words.iter().map(|word| word.to_str().unwrap()).collect();
        Some((words.join(" "), cursor))
    }

    #[test]
    fn the_worker_is_asked_about_its_own_commands_also_behind_launch() {
        let same = |line: &str, at| Some((line.to_owned(), at));
        assert_eq!(asked("-- tessera train --set tr", Some(3)), same("tessera train --set tr", 3));
        assert_eq!(
            asked("-- tessera launch --nproc 2 -- train --se", None),
            same("tessera train --se", 2)
        );
        assert_eq!(asked("-- tessera launch -- tr", Some(3)), same("tessera tr", 1));
        assert_eq!(asked("-- tessera sweep --set tr", None), same("tessera train --set tr", 3));
        for ours in ["-- tessera tr", "-- tessera launch --np", "-- tessera sweep --co", "--"] {
            assert_eq!(asked(ours, None), None, "{ours}");
        }
        assert_eq!(asked("-- tessera launch --nproc 2 -- train", Some(3)), None, "before the --");
    }
}
