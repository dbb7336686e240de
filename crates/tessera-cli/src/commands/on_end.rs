//! What is done when a launch has ended.

use std::io::{IsTerminal, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tessera_control::{ExitCode, ended_by, tell};

/// The word that is no command.
const BELL: &str = "bell";
/// How long a command may take: the launch has ended, and its exit code is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs the command; what goes wrong with it is said, and changes no exit code.
pub(super) fn tell_end(command: &str, code: ExitCode) {
    if command == BELL {
        let mut stderr = std::io::stderr();
        if stderr.is_terminal() {
            let _ = stderr.write_all(b"\x07"); // nobody is there to hear that nobody is there
        }
        return;
    }
    let started = Command::new("sh")
        .args(["-c", command])
        .env("TESSERA_EXIT_CODE", code.code().to_string())
        .stdin(Stdio::null())
        .spawn();
    let ended = |mut child: Child| ended_by(&mut child, Instant::now() + PATIENCE);
    let problem = match started.and_then(ended) {
        Ok(Some(status)) if status.success() => return,
        Ok(Some(status)) => format!("ended with {status}"),
        Ok(None) => format!("still runs after {} s, and is left alone", PATIENCE.as_secs()),
        Err(error) => format!("could not be started ({error})"),
    };
    tell(format_args!("warning: the command of --on-end {problem}"));
}
