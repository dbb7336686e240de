//! Why the server ends, or does not start.

/// Why the server ended other than by a stop that was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// An option cannot be.
    #[error("option {name}: expected {expected}, got {came}")]
    Option {
        /// Name of the option.
        name: &'static str,
        /// What it has to be.
        expected: String,
        /// What it was.
        came: String,
    },
    /// The caller described a model that cannot be.
    #[error("the model's description is wrong: {0}")]
    Description(String),
    /// The system refused something.
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The model could not be loaded, did not pass its first batch, or panicked later.
    #[error("the model failed: {0}")]
    Engine(String),
    /// Requests were still unanswered at the deadline of a stop, and were cut off.
    #[error(
        "{connections} connections were still open {seconds} s after the stop and were cut off"
    )]
    Unfinished {
        /// Connections that were cut off.
        connections: usize,
        /// The deadline, in seconds.
        seconds: u64,
    },
}

impl ServeError {
    pub(crate) fn system(what: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::System { what, source }
    }
}
