//! Where every step's time went, as events that Perfetto and Chrome show.
//!
//! `RUN/trace/rank-R.jsonl` has an event a line, in the Trace Event Format; `tessera trace` merges
//! the files of all ranks.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::engine::metrics::{Appended, LineFile};
use crate::error::TrainError;

/// How long the end of a run waits for the last events, if it is a good one.
const AT_END: Duration = Duration::from_secs(5);

/// A rank's events, on their way to its file.
#[derive(Debug)]
pub struct Trace {
    out: LineFile,
    /// Lines that were not handed to the file yet.
    lines: Vec<u8>,
    rank: usize,
    /// The same moment on both clocks.
    start: (Instant, f64),
}

/// A complete event.
#[derive(Serialize)]
struct Span<'a> {
    name: &'a str,
    ph: &'static str,
    /// Microseconds since 1970, so that ranks of several hosts have one scale.
    ts: f64,
    dur: f64,
    pid: usize,
    tid: usize,
    args: Step,
}

#[derive(Serialize)]
struct Step {
    step: u64,
}

impl Trace {
    /// Opens the file of a rank in a run folder; one that is there is replaced.
    ///
    /// # Errors
    ///
    /// [`TrainError::File`].
    pub fn create(run_dir: &Path, rank: usize) -> Result<Self, TrainError> {
        let folder = run_dir.join("trace");
        let path = folder.join(format!("rank-{rank}.jsonl"));
        let out = fs::create_dir_all(&folder)
            .and_then(|()| File::create(&path))
            .and_then(|_| Appended::open(&path))
            .and_then(|file| LineFile::start(file, |_| Vec::new()))
            .map_err(TrainError::file("make", &path))?;
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let start = (Instant::now(), since.map_or(0.0, |since| since.as_secs_f64() * 1e6));
        Ok(Self { out, lines: Vec::new(), rank, start })
    }

    /// Notes what the time between two moments was spent on. A disk that takes no more, or stands still,
    /// costs the trace, not the run.
    pub(crate) fn span(&mut self, name: &str, from: Instant, to: Instant, step: u64) {
        let ts = self.start.1 + (from - self.start.0).as_secs_f64() * 1e6;
        let dur = (to - from).as_secs_f64() * 1e6;
        let span = Span { name, ph: "X", ts, dur, pid: self.rank, tid: 0, args: Step { step } };
        serde_json::to_writer(&mut self.lines, &span).expect("an event is plain data");
        self.lines.push(b'\n');
    }

    /// Sends what was noted to the file.
    pub(crate) fn flush(&mut self) {
        self.out.put(std::mem::take(&mut self.lines));
    }

    /// Sees to it that the file has everything, if the storage takes it.
    pub(crate) fn finish(&mut self) {
        self.flush();
        self.out.wait(AT_END);
    }
}

impl Drop for Trace {
    /// A run that fails does not wait for its trace.
    fn drop(&mut self) {
        self.flush();
    }
}
