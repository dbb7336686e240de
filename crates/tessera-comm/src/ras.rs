//! What NCCL itself says of a hang.
//!
//! Since 2.24 NCCL's RAS knows how many operations each rank has launched and which processes still
//! answer, and tells whoever asks on its host. It is asked on the way to the end of a process, so
//! its answer has one short deadline, and none is no error.

use std::time::Duration;

use nccl_rs::ras::{self, Answer, Detail};

/// For the whole conversation. NCCL itself waits for silent processes in whole seconds.
const DEADLINE: Duration = Duration::from_millis(1500);
/// Longest short form: it goes into one line beside others.
const SHORT_BYTES: usize = 300;

/// What NCCL says of the ranks of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NcclSays {
    /// What it finds wrong, in a few words; none if that is nothing.
    pub short: Option<String>,
    /// All of it.
    pub text: String,
}

impl From<Answer> for NcclSays {
    fn from(answer: Answer) -> Self {
        let findings: Vec<&str> = answer.findings().collect();
        let mut short = findings.join(" / ");
        if short.len() > SHORT_BYTES {
            let end = (0..=SHORT_BYTES).rev().find(|&at| short.is_char_boundary(at));
            short.truncate(end.unwrap_or(0));
            short.push_str(" ...");
        }
        Self { short: (!short.is_empty()).then_some(short), text: answer.text }
    }
}

/// Asks NCCL's RAS on this host, where it is there; 1.5 s at the most.
pub fn ask_nccl() -> Option<NcclSays> {
    let address = ras::address()?;
    match ras::ask(&address, Detail::Verbose, DEADLINE) {
        Ok(answer) => Some(answer.into()),
        Err(error) => {
            tracing::debug!(%error, "NCCL's RAS gave no answer");
            None
        }
    }
}
