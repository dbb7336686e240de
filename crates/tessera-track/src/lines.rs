//! A file of JSON rows that another process writes: read forward, row by row, in bounded memory.
//!
//! The writer appends whole rows in the order of their steps. When a run resumes, it cuts the rows past its
//! checkpoint by replacing the file. A [`Mark`] is the last row that was sent; with it a later start, or a look at
//! a replaced file, tells whether that row is still there.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tessera_checkpoint::sha256_hex;

use crate::TrackError;

/// A line of this length is no row of ours.
const MOST_BYTES: usize = 16 << 20;

/// A row that was sent, by what no other one has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Its step.
    pub step: u64,
    /// SHA-256 of its line in hex.
    pub sha256: String,
}

/// A row that was read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Line {
    pub(crate) step: u64,
    pub(crate) row: Map<String, Value>,
    pub(crate) mark: Mark,
}

/// A file of rows, and the place up to which it was read.
#[derive(Debug)]
pub(crate) struct Lines {
    path: PathBuf,
    open: Option<Open>,
    /// Read, and not yet taken.
    next: Option<(u64, Vec<u8>)>,
}

#[derive(Debug)]
struct Open {
    reader: BufReader<File>,
    inode: u64,
    bytes_read: u64,
    /// A row that is still being written.
    begun: Vec<u8>,
}

#[derive(Deserialize)]
struct RowStep {
    step: u64,
}

impl Lines {
    /// Opens `path` behind the row that `mark` names; `None` where that row is gone. A file that is not there yet
    /// has no rows yet.
    pub(crate) fn behind(path: &Path, mark: Option<&Mark>) -> Result<Option<Self>, TrackError> {
        let mut lines = Self { path: path.to_owned(), open: None, next: None };
        let Some(mark) = mark else { return Ok(Some(lines)) };
        let last = lines.skip_through(mark.step)?;
        Ok((last.as_ref() == Some(mark)).then_some(lines))
    }

    /// The last row of at most this step.
    pub(crate) fn last_through(path: &Path, step: u64) -> Result<Option<Mark>, TrackError> {
        Self { path: path.to_owned(), open: None, next: None }.skip_through(step)
    }

    fn skip_through(&mut self, step: u64) -> Result<Option<Mark>, TrackError> {
        let mut last = None;
        while self.peek()?.is_some_and(|found| found <= step) {
            last = self.next.take();
        }
        Ok(last.map(|(step, line)| Mark { step, sha256: sha256_hex(&line) }))
    }

    /// The step of the next whole row, if there is one by now.
    pub(crate) fn peek(&mut self) -> Result<Option<u64>, TrackError> {
        while self.next.is_none() {
            let read = self.read_line().map_err(TrackError::file("read", &self.path))?;
            let Some(line) = read else { break };
            match serde_json::from_slice::<RowStep>(&line) {
                Ok(RowStep { step }) => self.next = Some((step, line)),
                Err(error) => {
                    tracing::warn!(file = %self.path.display(), %error, "a line is no row, and is left out");
                }
            }
        }
        Ok(self.next.as_ref().map(|(step, _)| *step))
    }

    /// The row that [`Self::peek`] told of.
    pub(crate) fn take(&mut self) -> Option<Line> {
        let (step, bytes) = self.next.take()?;
        let row = serde_json::from_slice(&bytes).unwrap_or_default();
        let mark = Mark { step, sha256: sha256_hex(&bytes) };
        Some(Line { step, row, mark })
    }

    /// Whether the file is no longer the one that was read, or has lost what was read of it.
    pub(crate) fn is_replaced(&self) -> Result<bool, TrackError> {
        let Some(open) = &self.open else { return Ok(false) };
        match self.path.metadata() {
            Ok(now) => Ok(now.ino() != open.inode || now.len() < open.bytes_read),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(error) => Err(TrackError::file("look at", &self.path)(error)),
        }
    }

    /// A whole line, without its end.
    fn read_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.open.is_none() {
            let file = match File::open(&self.path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                file => file?,
            };
            let inode = file.metadata()?.ino();
            let reader = BufReader::with_capacity(1 << 16, file);
            self.open = Some(Open { reader, inode, bytes_read: 0, begun: Vec::new() });
        }
        let open = self.open.as_mut().expect("opened above");
        loop {
            let found = open.reader.fill_buf()?;
            if found.is_empty() {
                return Ok(None);
            }
            let end = found.iter().position(|&byte| byte == b'\n');
            let taken = end.unwrap_or(found.len());
            open.begun.extend_from_slice(&found[..taken]);
            let consumed = taken + usize::from(end.is_some());
            open.reader.consume(consumed);
            open.bytes_read += consumed as u64;
            if end.is_some() {
                return Ok(Some(std::mem::take(&mut open.begun)));
            }
            if open.begun.len() > MOST_BYTES {
                return Err(io::Error::other("a line of more than 16 MiB is no row of metrics"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::*;

    fn steps(lines: &mut Lines) -> Vec<u64> {
        let mut steps = Vec::new();
        while lines.peek().unwrap().is_some() {
            steps.push(lines.take().unwrap().step);
        }
        steps
    }

    #[test]
    fn rows_come_once_and_whole_while_the_file_grows_byte_by_byte() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut lines = Lines::behind(&path, None).unwrap().unwrap();
        assert!(steps(&mut lines).is_empty(), "there is no file yet");
        let mut file = File::create(&path).unwrap();
        let mut seen = Vec::new();
        for byte in b"{\"step\":10,\"loss\":0.5}\n{\"loss\":1,\"step\":20}\nno row\n{\"step\":30}\n"
        {
            file.write_all(&[*byte]).unwrap();
            seen.extend(steps(&mut lines));
        }
        assert_eq!(seen, [10, 20, 30]);
    }

    #[test]
    fn a_later_start_goes_on_behind_the_mark_and_tells_when_its_row_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        fs::write(&path, "{\"step\":10}\n{\"step\":20,\"a\":1}\n{\"step\":30}\n").unwrap();
        let mut lines = Lines::behind(&path, None).unwrap().unwrap();
        lines.peek().unwrap();
        let first = lines.take().unwrap().mark;
        lines.peek().unwrap();
        let second = lines.take().unwrap().mark;
        let mut again = Lines::behind(&path, Some(&second)).unwrap().unwrap();
        assert_eq!(steps(&mut again), [30]);
        assert_eq!(Lines::last_through(&path, 25).unwrap(), Some(second.clone()));
        // A resumed run replaces the file, and writes other rows of the same steps.
        fs::write(folder.path().join("new"), "{\"step\":10}\n{\"step\":20,\"a\":2}\n").unwrap();
        fs::rename(folder.path().join("new"), &path).unwrap();
        assert!(lines.is_replaced().unwrap());
        assert!(Lines::behind(&path, Some(&second)).unwrap().is_none());
        let mut kept = Lines::behind(&path, Some(&first)).unwrap().unwrap();
        assert_eq!(steps(&mut kept), [20]);
    }
}
