//! A file of lines that a thread writes: logs and traces, of which a storage that fails or stands still costs
//! lines, not the run.

use std::fmt;
use std::io;
use std::time::Duration;

use tessera_control::Writer;

use super::append::Appended;

/// Pieces that may wait to be written.
const MOST_WAITING: usize = 10_000;

/// A file of lines, and the thread that appends to it.
pub struct LineFile {
    writer: Writer<Piece>,
}

impl fmt::Debug for LineFile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("LineFile").finish_non_exhaustive()
    }
}

enum Piece {
    Lines(Vec<u8>),
    /// So many pieces are missing here.
    Gap(u64),
}

impl LineFile {
    /// Starts the thread. Where pieces could not be written, `gap` makes the line that says how many.
    ///
    /// # Errors
    ///
    /// If there can be no thread.
    pub fn start(
        mut file: Appended,
        gap: impl Fn(u64) -> Vec<u8> + Send + 'static,
    ) -> io::Result<Self> {
        let mut missing = 0;
        let write = move |piece| match piece {
            Piece::Gap(pieces) => missing += pieces,
            Piece::Lines(lines) => {
                if missing > 0 && file.append(&gap(missing)).is_ok() {
                    missing = 0;
                }
                if missing > 0 || file.append(&lines).is_err() {
                    missing += 1;
                }
            }
        };
        Ok(Self { writer: Writer::start("lines", MOST_WAITING, Piece::Gap, write)? })
    }

    /// Hands over whole lines; never waits.
    pub fn put(&self, lines: Vec<u8>) {
        self.writer.put(Piece::Lines(lines));
    }

    /// Waits until all lines are written or given up, for so long at most; whether they are.
    pub fn wait(&self, limit: Duration) -> bool {
        self.writer.wait(limit)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tessera_checkpoint::{Fate, Storage};

    use super::*;

    #[test]
    fn lines_that_a_full_disk_has_cost_are_counted_where_they_are_missing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let full = || Fate::Failed(io::ErrorKind::StorageFull.into());
        // "one" is written; "two", and then the gaps before "three" and "four", are not.
        let fates = Mutex::new(vec![Fate::Done, Fate::Short, full(), full()].into_iter());
        let storage =
            Storage::judged(move |_, _| fates.lock().unwrap().next().unwrap_or(Fate::Done));
        let file = Appended::open(&path).unwrap().on(storage);
        let log = LineFile::start(file, |lines| format!("{lines} lost\n").into_bytes()).unwrap();
        for line in ["one\n", "two\n", "three\n", "four\n", "five\n"] {
            log.put(line.into());
        }
        assert!(log.wait(Duration::from_secs(20)));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\n3 lost\nfive\n");
    }
}
