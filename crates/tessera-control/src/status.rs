//! `RUN/status.json`: how the run stands, for whoever looks into the folder.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{ExitCode, Process};

/// Figures of a row of `metrics.jsonl` that are measured, and so differ between two runs that compute the same.
pub const MEASURED: [&str; 6] =
    ["samples_per_second", "step_ms", "comm_ms", "data_wait_ms", "memory_mib", "gpu_memory_mib"];

/// Name of the file in the run folder.
const FILE_NAME: &str = "status.json";

/// Whether a run still goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Workers are, or were when they last could write, at work.
    Running,
    /// All steps are done.
    Done,
    /// Stopped on request after a checkpoint.
    Stopped,
    /// Ended by an error.
    Failed,
}

impl RunState {
    /// The exit code that a state stands for by itself; a failure has one of its own.
    pub fn exit_code(self) -> Option<ExitCode> {
        match self {
            Self::Running | Self::Failed => None,
            Self::Done => Some(ExitCode::Done),
            Self::Stopped => Some(ExitCode::Stopped),
        }
    }
}

/// The content of `RUN/status.json`, written by rank 0, and by the launcher when rank 0 is gone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunStatus {
    /// How the run stands.
    pub state: RunState,
    /// Exit code, once the run has ended.
    pub exit_code: Option<ExitCode>,
    /// Optimiser steps done.
    pub step: u64,
    /// Number of workers.
    pub world_size: usize,
    /// Why it ended, in one line; empty while it runs.
    pub message: String,
    /// The process of rank 0, while the run goes on; older versions did not say.
    #[serde(default)]
    pub process: Option<Process>,
    /// Which start of which launch it is about; older versions did not say.
    #[serde(default)]
    pub attempt: Option<String>,
}

impl RunStatus {
    /// The file that holds the status of `run_dir`.
    pub fn file(run_dir: &Path) -> PathBuf {
        run_dir.join(FILE_NAME)
    }

    /// Writes the status into `run_dir`, whole or not at all; where the disk is full, over the status that is
    /// there, which takes no more space.
    ///
    /// # Errors
    ///
    /// Whatever the file system answers.
    pub fn write(&self, run_dir: &Path) -> io::Result<()> {
        let path = Self::file(run_dir);
        match replace_json(&path, self) {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
                ) =>
            {
                overwrite(&path, self).map_err(|_| error)
            }
            written => written,
        }
    }

    /// Reads the status of `run_dir`; `None` where there is none yet.
    ///
    /// # Errors
    ///
    /// If the file is there but cannot be read as a status.
    pub fn read(run_dir: &Path) -> io::Result<Option<Self>> {
        match std::fs::read(Self::file(run_dir)) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Writes a value as JSON into a file, whole or not at all: no reader ever sees half of it.
///
/// # Errors
///
/// Whatever the file system answers; the file is then as it was.
pub fn replace_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_vec_pretty(value)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let partial = path.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
    let written = std::fs::write(&partial, text).and_then(|()| std::fs::rename(&partial, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&partial);
    }
    written
}

/// Writes a value over what a file holds, in one piece and within the file's first block, which it has already.
fn overwrite(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let mut text = serde_json::to_vec_pretty(value)?;
    let file = File::options().write(true).open(path)?;
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    if text.len().max(length) > BLOCK_BYTES || length == 0 {
        return Err(io::ErrorKind::StorageFull.into());
    }
    text.resize(text.len().max(length), b' '); // spaces behind a value are nothing in JSON
    file.write_all_at(&text, 0)
}

/// Bytes that a file takes at least on most file systems.
const BLOCK_BYTES: usize = 4096;

/// The end of a file of rows that holds its last one.
const TAIL_BYTES: u64 = 64 * 1024;

/// The last whole row of a file of JSON lines, if there is one; a line that is still being written is none.
pub fn last_row<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES))).ok()?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail).ok()?;
    parse_last_row(&String::from_utf8_lossy(&tail))
}

fn parse_last_row<T: DeserializeOwned>(tail: &str) -> Option<T> {
    let whole = &tail[..tail.rfind('\n')?];
    serde_json::from_str(whole.lines().next_back()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Row {
        step: u64,
    }

    #[test]
    fn a_status_of_an_older_version_is_read() {
        let text = r#"{"state":"running","exit_code":null,"step":7,"world_size":2,"message":""}"#;
        let status: RunStatus = serde_json::from_str(text).unwrap();
        assert_eq!((status.step, status.process), (7, None));
    }

    #[test]
    fn a_status_takes_the_place_of_a_longer_or_shorter_one_without_more_space() {
        let folder = std::env::temp_dir().join(format!("tessera-status-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let status = |message: &str| RunStatus {
            state: RunState::Failed,
            exit_code: Some(ExitCode::Failed),
            step: 7,
            world_size: 2,
            message: message.to_owned(),
            process: None,
            attempt: None,
        };
        let path = RunStatus::file(&folder);
        assert!(overwrite(&path, &status("")).is_err(), "there is none to be overwritten");
        status("a long message").write(&folder).unwrap();
        for message in ["short", &"long ".repeat(100)] {
            overwrite(&path, &status(message)).unwrap();
            assert_eq!(RunStatus::read(&folder).unwrap(), Some(status(message)));
        }
        assert!(overwrite(&path, &status(&"long ".repeat(1000))).is_err(), "more than a block");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_row_that_is_still_being_written_is_not_shown() {
        let row = r#"{"step":10,"loss":0.5,"perplexity":3.0,"samples_per_second":9.0,"more":1}"#;
        let tail = format!("{row}\n{{\"step\":20,\"lo");
        assert_eq!(parse_last_row(&tail).map(|row: Row| row.step), Some(10));
        assert!(parse_last_row::<Row>("{\"step\"").is_none());
    }
}
