//! TensorBoard event files, written without TensorFlow or a protobuf compiler.
//!
//! A file is a sequence of TFRecords (`tfrecord.rs`), each an `Event` message (`event.rs`).
//! Scalars, PNG images, sounds and histograms are written, at the beginning the configuration, as a text and as hyperparameters, and at the
//! end of a run that is done that it has succeeded. There is no graph.
//!
//! A run has one event file. A resumed run cuts the events past its checkpoint and appends, so
//! the curves have no branches.

mod event;
mod tfrecord;

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use tessera_checkpoint::Storage;
use toml::Value;

use self::event::{
    audio_event, done_event, event_step, histogram_event, hparams_event, image_event, scalar_event,
    text_event, version_event,
};
use self::tfrecord::{first_record, frame};
use super::append::Appended;
use super::histogram::Histogram;
use super::picture::{EncodedPng, EncodedWav};
use super::replace_file::replace_file;
use crate::resolve::Resolved;

/// What TensorBoard recognizes an event file by.
const FILE_PREFIX: &str = "events.out.tfevents.";

/// What a run is told to be, at the beginning of its events.
#[derive(Debug, Clone, Default)]
pub struct Beginning {
    /// The configuration.
    pub config: String,
    /// Its keys that somebody has set.
    pub settings: Vec<(String, Setting)>,
    /// The run.
    pub name: String,
}

/// A value of a hyperparameter.
#[derive(Debug, Clone, PartialEq)]
pub enum Setting {
    /// A number.
    Number(f64),
    /// A text.
    Text(String),
    /// Yes or no.
    Flag(bool),
}

impl Beginning {
    /// That of a run.
    pub(crate) fn of(resolved: &Resolved) -> Self {
        let setting = |value: &Value| match value {
            Value::Integer(number) => Setting::Number(*number as f64),
            Value::Float(number) => Setting::Number(*number),
            Value::Boolean(flag) => Setting::Flag(*flag),
            Value::String(text) => Setting::Text(text.clone()),
            other => Setting::Text(other.to_string()),
        };
        let keys = resolved.set_keys();
        let name = resolved.run_dir.file_name().unwrap_or_default();
        Self {
            config: resolved.to_toml(),
            settings: keys.iter().map(|(key, value)| (key.clone(), setting(value))).collect(),
            name: name.to_string_lossy().into_owned(),
        }
    }

    /// The first events of a file.
    fn records(&self, wall_time: f64) -> Vec<u8> {
        let mut records = frame(&version_event(wall_time));
        if !self.config.is_empty() {
            // A block of code in Markdown.
            let lines: String = self.config.lines().map(|line| format!("    {line}\n")).collect();
            records.extend(frame(&text_event(wall_time, "config", &lines)));
            records.extend(frame(&hparams_event(wall_time, &self.name, &self.settings)));
        }
        records
    }
}

/// Appends events to the one event file of a run. Collected: see [`EventWriter::flush`].
#[derive(Debug)]
pub struct EventWriter {
    file: Appended,
    /// Events that were added since the last flush.
    added: Vec<u8>,
}

impl EventWriter {
    /// Starts the event file of a new run, named after `wall_time` and this host.
    ///
    /// * `wall_time`: seconds since 1970.
    ///
    /// # Errors
    ///
    /// Those of the file system, `AlreadyExists` among them.
    pub fn create(dir: &Path, wall_time: f64, beginning: &Beginning) -> io::Result<Self> {
        let path = dir.join(format!("{FILE_PREFIX}{}.{}", wall_time as u64, host_name()));
        let file = OpenOptions::new().append(true).create_new(true).open(&path)?;
        let mut file = Appended::over(file, &path)?;
        file.append(&beginning.records(wall_time))?;
        Ok(Self { file, added: Vec::new() })
    }

    /// The same events on a storage that a test may let fail.
    pub(crate) fn on(self, storage: Storage) -> Self {
        Self { file: self.file.on(storage), ..self }
    }

    /// The file's name.
    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    /// Opens the event file in `dir` after cutting every event whose step is past `last_step`.
    ///
    /// A torn or damaged record is cut with all that follows it, since nothing behind it can be
    /// read; the file as it was is first written to the folder `aside`, under a name that
    /// TensorBoard does not take for another run. A file with nothing to cut is not touched;
    /// without a file, one is created. Of several, the newest by name is taken.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    pub fn open_after(
        dir: &Path,
        last_step: u64,
        aside: &Path,
        beginning: &Beginning,
    ) -> io::Result<Self> {
        let Some(path) = newest_event_file(dir)? else {
            return Self::create(dir, now(), beginning);
        };
        let bytes = fs::read(&path)?;
        let mut kept = records_through(&bytes, last_step);
        if kept.is_empty() {
            kept = beginning.records(now());
        }
        if kept.len() != bytes.len() {
            let cut_bytes = bytes.len().saturating_sub(kept.len());
            tracing::info!(file = %path.display(), cut_bytes, last_step, "events cut");
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            fs::create_dir_all(aside)?;
            replace_file(&aside.join(name.replace("tfevents.", "")), &bytes)?;
            replace_file(&path, &kept)?;
        }
        Ok(Self { file: Appended::open(&path)?, added: Vec::new() })
    }

    /// Adds one point to the curve `tag`.
    pub fn scalar(&mut self, step: u64, tag: &str, value: f32) {
        self.added.extend(frame(&scalar_event(now(), step, tag, value)));
    }

    /// Adds one picture to the series `tag`.
    pub fn image(&mut self, step: u64, tag: &str, image: &EncodedPng) {
        self.added.extend(frame(&image_event(now(), step, tag, image)));
    }

    /// Adds one sound to the series `tag`.
    pub fn audio(&mut self, step: u64, tag: &str, sound: &EncodedWav) {
        self.added.extend(frame(&audio_event(now(), step, tag, sound)));
    }

    /// Adds one histogram to its series.
    pub fn histogram(&mut self, step: u64, histogram: &Histogram) {
        self.added.extend(frame(&histogram_event(now(), step, histogram)));
    }

    /// Adds that the run has succeeded, for the table of hyperparameters.
    pub fn done(&mut self, step: u64) {
        self.added.extend(frame(&done_event(now(), step)));
    }

    /// Hands everything that was added to the system, where TensorBoard sees it: all of it, or nothing, and
    /// then it has to be added again.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    pub fn flush(&mut self) -> io::Result<()> {
        self.file.append(&std::mem::take(&mut self.added))
    }

    /// Sees to it that what was flushed survives a loss of power.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
}

/// The readable records of `bytes` whose step is at most `last_step`.
fn records_through(mut bytes: &[u8], last_step: u64) -> Vec<u8> {
    let mut kept = Vec::with_capacity(bytes.len());
    while let Some((event, length)) = first_record(bytes) {
        if event_step(event).is_some_and(|step| step <= last_step) {
            kept.extend_from_slice(&bytes[..length]);
        }
        bytes = &bytes[length..];
    }
    kept
}

fn newest_event_file(dir: &Path) -> io::Result<Option<PathBuf>> {
    let mut newest = None;
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(FILE_PREFIX) {
            newest = newest.max(Some(path));
        }
    }
    Ok(newest)
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// This machine's name as far as it can stand in a file name.
fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let safe = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let name: String = name.chars().filter(safe).collect();
    if name.is_empty() { "localhost".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tessera_checkpoint::Fate;

    use super::*;
    use crate::engine::metrics::picture::ImageShape;

    fn open_after(dir: &Path, last_step: u64, aside: &Path) -> io::Result<EventWriter> {
        EventWriter::open_after(dir, last_step, aside, &Beginning::default())
    }

    fn event_file(dir: &Path) -> PathBuf {
        newest_event_file(dir).expect("folder").expect("one event file")
    }

    fn steps(path: &Path) -> Vec<u64> {
        let bytes = fs::read(path).expect("readable");
        let mut rest = bytes.as_slice();
        let mut steps = Vec::new();
        while let Some((event, length)) = first_record(rest) {
            steps.push(event_step(event).expect("a message"));
            rest = &rest[length..];
        }
        assert!(rest.is_empty(), "unreadable tail");
        steps
    }

    /// A run of three steps; the file starts with the version, which counts as step 0.
    fn run_of_three(dir: &Path) {
        let mut writer =
            EventWriter::create(dir, 1_500_000_000.0, &Beginning::default()).expect("creates");
        for step in 1..=3 {
            writer.scalar(step, "loss", 1.0);
        }
        writer.flush().expect("flushes");
    }

    #[test]
    fn events_past_the_checkpoint_are_cut_and_new_ones_follow_in_the_same_file() {
        let dir = tempfile::tempdir().expect("temporary folder");
        run_of_three(dir.path());
        let path = event_file(dir.path());
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        assert!(name.starts_with("events.out.tfevents.1500000000."), "{name}");

        let aside = tempfile::tempdir().expect("temporary folder");
        let mut writer = open_after(dir.path(), 2, aside.path()).expect("reopens");
        let whole = aside.path().join(name.replace("tfevents.", ""));
        assert_eq!(steps(&whole), [0, 1, 2, 3], "moved aside");
        let shape = ImageShape { height: 1, width: 1, channels: 1 };
        writer.image(4, "picture", &EncodedPng { png: vec![0; 200], shape, shows: "samples" });
        writer.flush().expect("writes");
        assert_eq!(steps(&path), [0, 1, 2, 4]);
        assert_eq!(fs::read_dir(dir.path()).expect("folder").count(), 1);
    }

    #[test]
    fn a_record_that_a_full_disk_has_torn_is_cut_back_before_it_is_tried_again() {
        let dir = tempfile::tempdir().expect("temporary folder");
        run_of_three(dir.path());
        let path = event_file(dir.path());
        let fates = Mutex::new(vec![Fate::Short, Fate::Short].into_iter());
        let storage =
            Storage::judged(move |_, _| fates.lock().unwrap().next().unwrap_or(Fate::Done));
        let mut writer = open_after(dir.path(), 3, dir.path()).expect("reopens").on(storage);
        for _ in 0..2 {
            writer.scalar(4, "loss", 1.0);
            writer.flush().expect_err("half of it");
            assert_eq!(steps(&path), [0, 1, 2, 3]);
        }
        for step in [4, 5] {
            writer.scalar(step, "loss", 1.0);
            writer.flush().expect("writes");
        }
        assert_eq!(steps(&path), [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn a_torn_last_record_is_cut_wherever_it_was_torn() {
        let dir = tempfile::tempdir().expect("temporary folder");
        run_of_three(dir.path());
        let path = event_file(dir.path());
        let whole = fs::read(&path).expect("readable");
        for cut in 1..20 {
            fs::write(&path, &whole[..whole.len() - cut]).expect("writable");
            drop(open_after(dir.path(), 3, &dir.path().join("aside")).expect("reopens"));
            assert_eq!(steps(&path), [0, 1, 2], "{cut} bytes missing");
        }
    }

    #[test]
    fn a_file_damaged_from_its_start_and_a_missing_one_begin_anew() {
        let dir = tempfile::tempdir().expect("temporary folder");
        drop(open_after(dir.path(), 5, &dir.path().join("aside")).expect("creates"));
        let path = event_file(dir.path());
        assert_eq!(steps(&path), [0]);
        fs::write(&path, b"no events").expect("writable");
        drop(open_after(dir.path(), 5, &dir.path().join("aside")).expect("reopens"));
        assert_eq!(steps(&path), [0]);
    }

    #[test]
    fn a_new_run_does_not_write_into_an_old_file() {
        let dir = tempfile::tempdir().expect("temporary folder");
        run_of_three(dir.path());
        let error = EventWriter::create(dir.path(), 1_500_000_000.0, &Beginning::default())
            .expect_err("exists");
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    }
}
