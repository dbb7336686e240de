//! When the rows of a run were written: rows hold no time, TensorBoard's events of the same step do.
//!
//! A row has to have the same time whenever it is sent: a server that gets it twice then sees that it is the same.
//! Where there is no event of a step, its time is that of the row before and the steps between them, `step_ms` each.

use std::fs::{self, File};
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

/// What an event file is recognized by.
const FILE_PREFIX: &str = "events.out.tfevents.";

/// A step, and when its row was written.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    /// Optimiser steps.
    pub step: u64,
    /// Seconds since 1970.
    pub seconds: f64,
}

/// When the run in `run_dir` began, in seconds since 1970: the time of its first event, or else of its configuration.
pub(crate) fn started(run_dir: &Path) -> Option<f64> {
    let first = Events::open(&run_dir.join("tensorboard")).and_then(|mut events| events.next());
    let of_config = || {
        let changed = run_dir.join("config.toml").metadata().ok()?.modified().ok()?;
        Some(changed.duration_since(UNIX_EPOCH).ok()?.as_secs_f64())
    };
    first.map(|moment| moment.seconds).or_else(of_config)
}

/// Gives the time of one step after another.
#[derive(Debug)]
pub(crate) struct Clock {
    folder: PathBuf,
    events: Option<Events>,
    last: Moment,
}

impl Clock {
    /// A clock of the run in `run_dir` that stands at `last`.
    pub(crate) fn new(run_dir: &Path, last: Moment) -> Self {
        Self { folder: run_dir.join("tensorboard"), events: None, last }
    }

    /// The time of a step, which is not before that of the call before; a step takes `step_ms` where no event says
    /// more.
    pub(crate) fn at(&mut self, step: u64, step_ms: Option<f64>) -> Moment {
        let num_steps = step.saturating_sub(self.last.step) as f64;
        let reckoned = self.last.seconds + num_steps * step_ms.unwrap_or(0.0).max(0.0) / 1000.0;
        let seconds = self.of_event(step).unwrap_or(reckoned);
        // Servers keep milliseconds.
        let seconds = (seconds * 1000.0).floor() / 1000.0;
        self.last = Moment { step, seconds };
        self.last
    }

    fn of_event(&mut self, step: u64) -> Option<f64> {
        if self.events.as_ref().is_none_or(Events::is_replaced) {
            self.events = Events::open(&self.folder);
        }
        self.events.as_mut()?.at(step)
    }
}

/// An event file, read forward.
#[derive(Debug)]
struct Events {
    path: PathBuf,
    reader: BufReader<File>,
    inode: u64,
    /// The event that was read last.
    last: Option<Moment>,
}

impl Events {
    fn open(folder: &Path) -> Option<Self> {
        let names = fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
        let is_events = |path: &PathBuf| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(FILE_PREFIX))
        };
        let path = names.filter(is_events).max()?;
        let file = File::open(&path).ok()?;
        let inode = file.metadata().ok()?.ino();
        Some(Self { path, reader: BufReader::new(file), inode, last: None })
    }

    fn is_replaced(&self) -> bool {
        !self.path.metadata().is_ok_and(|now| now.ino() == self.inode)
    }

    /// The time of the first event of a step, which may be read again until an event of a later one is.
    fn at(&mut self, step: u64) -> Option<f64> {
        while self.last.is_none_or(|last| last.step < step) {
            self.last = Some(self.next()?);
        }
        self.last.filter(|last| last.step == step).map(|last| last.seconds)
    }

    /// The next event, if it is whole; else the reader stays where it is.
    fn next(&mut self) -> Option<Moment> {
        let start = self.reader.stream_position().ok()?;
        let found = self.read_event();
        if found.is_none() {
            self.reader.seek(SeekFrom::Start(start)).ok()?;
        }
        found
    }

    fn read_event(&mut self) -> Option<Moment> {
        let mut length = [0; 12];
        self.reader.read_exact(&mut length).ok()?;
        let length = u64::from_le_bytes(*length.first_chunk()?);
        // Time and step are the first two fields; a picture behind them may be large.
        let mut head = [0; 24];
        let num_head = usize::try_from(length.min(head.len() as u64)).ok()?;
        self.reader.read_exact(&mut head[..num_head]).ok()?;
        let behind = length - num_head as u64;
        let mut checksum = [0; 4];
        self.reader.seek_relative(i64::try_from(behind).ok()?).ok()?;
        self.reader.read_exact(&mut checksum).ok()?;
        moment(&head[..num_head])
    }
}

/// Time (field 1, a double) and step (field 2, a varint, left out where it is 0) of an event.
fn moment(event: &[u8]) -> Option<Moment> {
    let (&key, rest) = event.split_first()?;
    if key != 0x09 {
        return None;
    }
    let (seconds, rest) = rest.split_first_chunk::<8>()?;
    let mut step = 0;
    if let Some((0x10, varint)) = rest.split_first() {
        for (at, byte) in varint.iter().enumerate().take(10) {
            step |= u64::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                break;
            }
        }
    }
    Some(Moment { step, seconds: f64::from_le_bytes(*seconds) })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn event(seconds: f64, step: u64) -> Vec<u8> {
        let mut data = vec![0x09];
        data.extend(seconds.to_le_bytes());
        data.extend([0x10, (step & 0x7f) as u8 | 0x80, (step >> 7) as u8]);
        data.extend([0x2a, 100]);
        data.extend([7; 100]);
        let mut record = (data.len() as u64).to_le_bytes().to_vec();
        record.extend([0; 4]);
        record.extend(data);
        record.extend([0; 4]);
        record
    }

    #[test]
    fn a_step_has_the_time_of_its_first_event_and_else_that_of_the_steps_before() {
        let run = tempfile::tempdir().unwrap();
        let start = Moment { step: 0, seconds: 1000.0 };
        let mut clock = Clock::new(run.path(), start);
        // 100 steps of 20 ms.
        assert_eq!(clock.at(100, Some(20.0)).seconds, 1002.0);
        fs::create_dir(run.path().join("tensorboard")).unwrap();
        let path = run.path().join("tensorboard/events.out.tfevents.1.here");
        let mut bytes = event(2000.0, 200);
        bytes.extend(event(2001.0, 200));
        bytes.extend(event(2005.5, 300));
        fs::write(&path, &bytes).unwrap();
        assert_eq!(clock.at(200, Some(20.0)).seconds, 2000.0);
        assert_eq!(clock.at(250, Some(20.0)).seconds, 2001.0, "50 steps later");
        assert_eq!(clock.at(300, Some(20.0)).seconds, 2005.5);
        assert_eq!(clock.at(300, None).seconds, 2005.5, "an evaluation after the same step");
        // An event of which only a part is there yet is none.
        let whole = event(2010.25, 400);
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(&whole[..30]).unwrap();
        assert_eq!(clock.at(400, Some(10.0)).seconds, 2006.5);
        file.write_all(&whole[30..]).unwrap();
        assert_eq!(clock.at(400, None).seconds, 2010.25);
    }
}
