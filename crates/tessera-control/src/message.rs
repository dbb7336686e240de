//! One line of JSON on the control connection, from a worker to the launcher.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{ExitCode, Phase};

/// What a worker tells the launcher. The first line of a connection is [`Message::Hello`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Message {
    /// Who is speaking on this connection.
    Hello {
        /// The secret from [`crate::variables::CONTROL_TOKEN`].
        token: String,
        /// Rank of the worker.
        rank: usize,
        /// Number of workers, as the worker's communicator sees it.
        world_size: usize,
        /// Name of the worker's host.
        host: String,
        /// Process id on that host.
        pid: u32,
    },
    /// The worker lives: sent every second by a thread of its own.
    Heartbeat {
        /// What the worker's main thread is doing.
        phase: Phase,
        /// Optimiser steps done.
        step: u64,
        /// Parts of the phase's work done, where it has any: batches of an evaluation.
        #[serde(default)]
        part: u64,
        /// The last collective that the worker has called, where it tells.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        call: Option<Call>,
    },
    /// The run folder is that of this attempt now; sent by rank 0 once, before it writes there.
    Holds {
        /// The attempt.
        attempt: String,
    },
    /// How far training is; sent by rank 0 at each logging interval.
    Progress {
        /// Optimiser steps done.
        step: u64,
        /// Optimiser steps of the whole schedule.
        steps: u64,
        /// Training loss, mean of the logging interval.
        loss: f64,
        /// Codebook perplexity of the logging interval.
        perplexity: f64,
        /// Samples a second over all ranks.
        samples_per_second: f64,
    },
    /// A line that a person wants to see once, such as which checkpoint was resumed.
    Notice {
        /// The line, without a line end.
        text: String,
    },
    /// How this worker ended; its last line.
    Outcome {
        /// Exit code of the worker.
        code: ExitCode,
        /// Why, in one line.
        message: String,
        /// Optimiser steps done.
        step: u64,
    },
}

/// A collective, as a worker called it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Which one.
    pub op: String,
    /// Its running number on this worker.
    pub sequence: u64,
    /// Elements.
    pub count: u64,
    /// Kind of the elements; empty where there are none.
    pub kind: String,
    /// Whether the worker is still in it.
    pub waiting: bool,
    /// Milliseconds that the worker has spent in collectives since its start, this one included.
    #[serde(default)]
    pub waited_ms: u64,
}

impl fmt::Display for Call {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { op, sequence, count, kind, .. } = self;
        write!(formatter, "{op} number {sequence}")?;
        if !kind.is_empty() {
            write!(formatter, " of {count} {kind}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_format_is_one_tagged_object() {
        let message = Message::Outcome {
            code: ExitCode::Stopped,
            message: "stopped at step 7".into(),
            step: 7,
        };
        let line = serde_json::to_string(&message).expect("plain data");
        assert_eq!(line, r#"{"type":"outcome","code":75,"message":"stopped at step 7","step":7}"#);
        assert_eq!(serde_json::from_str::<Message>(&line).expect("own output"), message);
    }
}
