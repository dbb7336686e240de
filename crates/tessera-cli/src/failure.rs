//! Why a command ends without its result: one line for a person, one code for a script.

use tessera_control::ExitCode;

/// An error on its way to `main`, which prints it as `error: MESSAGE` and exits with the code.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Exit code of the command.
    pub(crate) code: ExitCode,
    /// One line that says what to do; empty if everything was said on stderr already.
    pub(crate) message: String,
}

impl Failure {
    /// A failure with `code`.
    pub(crate) fn new(code: ExitCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// A failure that the user's input caused; nothing was changed.
    pub(crate) fn bad_input(message: impl Into<String>) -> Self {
        Self::new(ExitCode::BadInput, message)
    }
}

/// Standard output that nobody reads any more, or that is full, is a failure like any other.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(ExitCode::Failed, format!("cannot write to standard output: {error}"))
    }
}
