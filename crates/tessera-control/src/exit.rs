//! How a run ended, as a number: the same for launcher, worker and command line.

use serde::{Deserialize, Serialize};

/// Exit code of `tessera` and `tessera-worker`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "i32", from = "i32")]
pub enum ExitCode {
    /// 0: the work is done.
    Done,
    /// 1: failed for a reason that no other code names.
    Failed,
    /// 2: bad input or configuration; nothing was changed.
    BadInput,
    /// 3: a worker was lost (killed, crashed, or its connection broke).
    WorkerLost,
    /// 4: ranks hung, or ranks disagreed.
    Hang,
    /// 5: a number that must be finite was not.
    Numeric,
    /// 6: data on disk is corrupt.
    DataCorrupt,
    /// 75: stopped on request after a checkpoint; the same command resumes.
    Stopped,
}

impl ExitCode {
    const ALL: [Self; 8] = [
        Self::Done,
        Self::Failed,
        Self::BadInput,
        Self::WorkerLost,
        Self::Hang,
        Self::Numeric,
        Self::DataCorrupt,
        Self::Stopped,
    ];

    /// The number that the process exits with.
    pub fn code(self) -> i32 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::BadInput => 2,
            Self::WorkerLost => 3,
            Self::Hang => 4,
            Self::Numeric => 5,
            Self::DataCorrupt => 6,
            Self::Stopped => 75,
        }
    }

    /// What the code means, in a few words for a person.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::BadInput => "bad input or config",
            Self::WorkerLost => "worker lost",
            Self::Hang => "hang or mismatch",
            Self::Numeric => "numeric",
            Self::DataCorrupt => "data corrupt",
            Self::Stopped => "stopped on request and resumable",
        }
    }
}

impl From<ExitCode> for i32 {
    fn from(code: ExitCode) -> Self {
        code.code()
    }
}

impl From<i32> for ExitCode {
    /// The code with this number; a number that is not ours is [`ExitCode::Failed`].
    fn from(number: i32) -> Self {
        Self::ALL.into_iter().find(|code| code.code() == number).unwrap_or(Self::Failed)
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(u8::try_from(code.code()).expect("every code of ours fits eight bits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_comes_back_from_its_number() {
        for code in ExitCode::ALL {
            assert_eq!(ExitCode::from(code.code()), code);
        }
        assert_eq!(ExitCode::from(139), ExitCode::Failed);
    }
}
