//! One line of JSON on the control connection, in either direction.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{ExitCode, Phase, Secrets};

/// What a worker tells the launcher. The first line of a connection is [`Message::Hello`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Message {
    /// Who is speaking on this connection.
    Hello {
        /// The secret from [`crate::variables::CONTROL_TOKEN`], which is taken from the launcher's own host
        /// alone; workers leave it out and send `proof`.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        token: String,
        /// What only somebody who knows the secret can make of this connection's challenge
        /// ([`crate::proof`]).
        #[serde(default, skip_serializing_if = "String::is_empty")]
        proof: String,
        /// The attempt that the worker was started for; `None`: it was not told.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        attempt: Option<String>,
        /// Rank of the worker.
        rank: usize,
        /// Number of workers, as the worker's environment tells it.
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
        /// Figures of the logging interval for a person, such as `loss 0.04200 perplexity 13.0`.
        words: String,
        /// The same by name.
        figures: BTreeMap<String, f64>,
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

/// A message as it stands on the line: those that must not get lost are numbered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Numbered {
    /// The running number of this worker's messages, from 1; none for a hello and heartbeats, which the
    /// next one makes up for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
    /// What is said.
    #[serde(flatten)]
    pub message: Message,
}

/// What the launcher tells a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Reply {
    /// The first line of a connection.
    Challenge {
        /// Digits that no other connection was given.
        challenge: String,
    },
    /// The hello was taken.
    Welcome {
        /// How long the launcher waits for a word, and so how long the worker tries to come back when the
        /// connection breaks.
        silence_seconds: f64,
        /// The highest number of this worker's messages that was heard, over all its connections.
        heard: u64,
        /// Variables of the launcher's environment for this worker, none but in the first welcome.
        #[serde(default, skip_serializing_if = "Secrets::is_empty")]
        environment: Secrets,
    },
    /// The hello was not taken; the connection ends.
    Refused {
        /// Why, in one line.
        why: String,
    },
    /// All messages up to this number were heard.
    Heard {
        /// That number.
        number: u64,
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
        let numbered = Numbered { number: Some(3), message };
        let line = serde_json::to_string(&numbered).expect("plain data");
        assert!(line.starts_with(r#"{"number":3,"type":"outcome","code":75,"#), "{line}");
        assert_eq!(serde_json::from_str::<Numbered>(&line).expect("own output"), numbered);
    }

    #[test]
    fn a_hello_without_proof_and_a_heartbeat_without_new_fields_are_messages() {
        let line = r#"{"type":"hello","token":"t","rank":1,"world_size":2,"host":"h","pid":3}"#;
        let Numbered { number, message } = serde_json::from_str(line).expect("a message");
        assert_eq!(number, None);
        let (token, proof, attempt) = ("t".to_owned(), String::new(), None);
        let (rank, world_size, host, pid) = (1, 2, "h".to_owned(), 3);
        assert_eq!(message, Message::Hello { token, proof, attempt, rank, world_size, host, pid });
        let line = r#"{"type":"heartbeat","phase":"compute","step":7}"#;
        let Numbered { message, .. } = serde_json::from_str(line).expect("a message");
        let expected = Message::Heartbeat { phase: Phase::Compute, step: 7, part: 0, call: None };
        assert_eq!(message, expected);
        let welcome = r#"{"type":"welcome","silence_seconds":60.0,"heard":2}"#;
        let environment = Secrets::default();
        let expected = Reply::Welcome { silence_seconds: 60.0, heard: 2, environment };
        assert_eq!(serde_json::from_str::<Reply>(welcome).expect("a reply"), expected);
        assert_eq!(serde_json::to_string(&expected).expect("plain data"), welcome);
    }
}
