//! Why a command ends without its result: one line for a person, one code for a script.

use std::sync::mpsc::channel;
use std::time::Duration;

use tessera_control::{ExitCode, not_written, tell, unread, write_result};
use tessera_launch::LaunchError;

/// An error on its way to `main`, which prints it as `error: MESSAGE` and exits with the code.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Exit code of the command.
    pub(crate) code: ExitCode,
    /// One line that says what to do; empty if everything was said on stderr already.
    pub(crate) message: String,
    /// Whether nobody reads the result any more: the command then ends by SIGPIPE, without a word.
    pub(crate) unread: bool,
}

impl Failure {
    /// A failure with `code`.
    pub(crate) fn new(code: ExitCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), unread: false }
    }

    /// A failure that the user's input caused; nothing was changed.
    pub(crate) fn bad_input(message: impl Into<String>) -> Self {
        Self::new(ExitCode::BadInput, message)
    }
}

/// A result that could not be written to standard output.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self { unread: unread(&error), ..Self::bad_input(not_written(&error)) }
    }
}

/// A launch that did not come as far as running workers.
impl From<LaunchError> for Failure {
    fn from(error: LaunchError) -> Self {
        match error {
            LaunchError::Refused { code } => Self::new(code, ""), // The worker has said why.
            error => Self::new(error.exit_code(), error.to_string()),
        }
    }
}

/// Prints what a run ended with. The run's own code counts, whether or not anybody reads this.
pub(crate) fn print_ending(text: &str) {
    match write_result(text) {
        Err(error) if !unread(&error) => tell(format_args!("warning: {}", not_written(&error))),
        _ => {}
    }
}

/// How long whoever reads standard output may take for a last line.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// The same for a last line, which is no result: whoever does not read it is not waited for.
pub(crate) fn print_last_line(text: &str) {
    let (done, is_done) = channel();
    let text = text.to_owned();
    let print = move || {
        let _ = done.send(write_result(&text)); // nobody waits any more
    };
    let _ = std::thread::Builder::new().name("ending".into()).spawn(print);
    if let Ok(Err(error)) = is_done.recv_timeout(LAST_WORDS)
        && !unread(&error)
    {
        tell(format_args!("warning: {}", not_written(&error)));
    }
}
