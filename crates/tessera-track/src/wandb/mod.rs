//! W&B without its library: an offline run folder, which an unmodified `wandb sync` takes to a server.
//!
//! The folder is `wandb/offline-run-DATE-ID` with the log `run-ID.wandb` and `files/`. Records are appended, synced,
//! and only then does the cursor count them: after a kill the log is cut back to what the cursor counts, so it holds
//! whole records alone, each row once. What is said at the end (summary and exit) stands behind that and is cut off
//! when a resumed run goes on. No request is made here, and no account is needed.

mod log;
mod media;
mod record;

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::PathBuf;

use prost::Message;
use serde_json::{Map, Value, json};

use self::record::{
    Exit, FileItem, Files, History, Item, Items, Record, RunRecord, Step, Timestamp,
};
use crate::TrackError;
use crate::cursor::{Cursor, Written};
use crate::figures::{Figure, figures};
use crate::run::{Ending, Run};
use crate::source::Entry;
use crate::tracker::{Tracker, shell};

/// Writes run folders below a folder.
#[derive(Debug)]
pub(crate) struct Wandb {
    /// The folder that has `wandb/`.
    pub(crate) out: PathBuf,
    /// Empty: that of whoever syncs.
    pub(crate) entity: String,
    pub(crate) project: String,
}

/// Records on their way into a log.
struct Batch {
    start: u64,
    bytes: Vec<u8>,
    num_records: i64,
}

impl Batch {
    fn behind(written: &Written) -> Self {
        Self { start: written.bytes, bytes: Vec::new(), num_records: written.num_records }
    }

    fn add(&mut self, record: Record) {
        self.num_records += 1;
        let record = Record { num: self.num_records, ..record };
        log::frame(&mut self.bytes, self.start, &record.encode_to_vec());
    }
}

impl Wandb {
    fn folder(&self, cursor: &Cursor) -> PathBuf {
        self.out.join("wandb").join(&cursor.wandb.folder)
    }

    fn log(&self, cursor: &Cursor) -> PathBuf {
        self.folder(cursor).join(format!("run-{}.wandb", cursor.id))
    }

    /// Appends records to what the cursor counts; what stood behind that is gone.
    fn append(&self, cursor: &Cursor, batch: &Batch) -> Result<(), TrackError> {
        let path = self.log(cursor);
        let write = || -> io::Result<()> {
            let mut file = File::options().create(true).truncate(false).write(true).open(&path)?;
            if file.metadata()?.len() < batch.start {
                let text = "the log is shorter than what was written; remove the cursor beside it";
                return Err(io::Error::other(text));
            }
            file.set_len(batch.start)?;
            file.seek(SeekFrom::Start(batch.start))?;
            file.write_all(&batch.bytes)?;
            file.sync_all()
        };
        write().map_err(TrackError::file("write", &path))
    }

    /// Copies the model folder below `files/`, as links where the file system has them.
    fn copy_model(&self, run: &Run, cursor: &Cursor) -> Result<Vec<FileItem>, TrackError> {
        let files = self.folder(cursor).join("files");
        let mut copied = Vec::new();
        for (name, path) in run.model()? {
            let item = FileItem { path: format!("model/{name}") };
            let target = files.join(&item.path);
            let folder = target.parent().expect("it has a folder");
            fs::create_dir_all(folder).map_err(TrackError::file("make", folder))?;
            let copy = || -> io::Result<()> {
                if target.exists() {
                    fs::remove_file(&target)?;
                }
                fs::hard_link(&path, &target).or_else(|_| fs::copy(&path, &target).map(|_| ()))
            };
            copy().map_err(TrackError::file("write", &target))?;
            copied.push(item);
        }
        Ok(copied)
    }

    /// Writes the two files that people look into.
    fn write_files(&self, cursor: &Cursor, config: &Value) -> Result<(), TrackError> {
        let files = self.folder(cursor).join("files");
        let mut yaml = "wandb_version: 1\n".to_owned();
        for (key, value) in tables(config) {
            // JSON is YAML.
            yaml += &format!("{key}:\n  value: {value}\n");
        }
        let summary = Value::from(cursor.wandb.summary.clone()).to_string();
        for (name, text) in [("config.yaml", yaml), ("wandb-summary.json", summary)] {
            let path = files.join(name);
            fs::write(&path, text).map_err(TrackError::file("write", &path))?;
        }
        Ok(())
    }
}

/// The tables of a configuration, each a key of W&B's.
fn tables(config: &Value) -> impl Iterator<Item = (&String, &Value)> {
    config.as_object().into_iter().flatten()
}

fn items(config: &Value) -> Items {
    Items { update: tables(config).map(|(key, value)| Item::new(key, value)).collect() }
}

impl Tracker for Wandb {
    fn name(&self) -> &'static str {
        "wandb"
    }

    fn begin(&mut self, run: &Run, cursor: &mut Cursor) -> Result<(), TrackError> {
        let (config, text) = run.config()?;
        let config_sha256 = tessera_checkpoint::sha256_hex(text.as_bytes());
        // A log that was lost, or cut by somebody, is written again from the start.
        let is_there = cursor.wandb.bytes > 0
            && self.log(cursor).metadata().is_ok_and(|log| log.len() >= cursor.wandb.bytes);
        if is_there && cursor.config_sha256 == config_sha256 {
            return Ok(());
        }
        if !is_there {
            cursor.position = Default::default();
            let folder = format!("offline-run-{}-{}", date(cursor.started as i64), cursor.id);
            cursor.wandb = Written { folder, ..Written::default() };
            for name in ["files", "logs"] {
                let path = self.folder(cursor).join(name);
                fs::create_dir_all(&path).map_err(TrackError::file("make", &path))?;
            }
        }
        let mut batch = Batch::behind(&cursor.wandb);
        if is_there {
            batch.add(Record { config: Some(items(&config)), ..Record::default() });
        } else {
            batch.bytes.extend(log::HEADER);
            let run = RunRecord {
                run_id: cursor.id.clone(),
                entity: self.entity.clone(),
                project: self.project.clone(),
                config: Some(items(&config)),
                display_name: cursor.run_name(&run.name),
                start_time: Some(Timestamp { seconds: cursor.started as i64 }),
            };
            batch.add(Record { run: Some(run), ..Record::default() });
        }
        self.append(cursor, &batch)?;
        self.write_files(cursor, &config)?;
        (cursor.wandb.bytes, cursor.wandb.num_records) =
            (batch.start + batch.bytes.len() as u64, batch.num_records);
        cursor.config_sha256 = config_sha256;
        Ok(())
    }

    fn send(&mut self, cursor: &mut Cursor, entries: &[Entry]) -> Result<(), TrackError> {
        let files = self.folder(cursor).join("files");
        let mut batch = Batch::behind(&cursor.wandb);
        let mut summary = cursor.wandb.summary.clone();
        for entry in entries {
            let mut row = Map::new();
            for (key, figure) in figures(entry) {
                let value = match figure {
                    Figure::Number(number) => Value::Number(number),
                    Figure::NotANumber => "NaN".into(), // as W&B's own library writes it
                    Figure::Text(text) => text.into(),
                };
                row.insert(key, value);
            }
            let mut copied = Vec::new();
            for exhibit in &entry.exhibits {
                if let Some(media) = media::copy(&files, exhibit)? {
                    row.insert(media.key, media.value);
                    copied.push(FileItem { path: media.path });
                }
            }
            row.insert("_step".to_owned(), json!(entry.step));
            row.insert("_timestamp".to_owned(), json!(entry.seconds));
            row.insert("_runtime".to_owned(), json!(runtime(cursor, entry.seconds)));
            if !copied.is_empty() {
                batch.add(Record { files: Some(Files { files: copied }), ..Record::default() });
            }
            let items = row.iter().map(|(key, value)| Item::new(key, value)).collect();
            let step = Some(Step { num: entry.step as i64 });
            batch.add(Record { history: Some(History { items, step }), ..Record::default() });
            summary.extend(row);
        }
        self.append(cursor, &batch)?;
        let (bytes, num_records) = (batch.start + batch.bytes.len() as u64, batch.num_records);
        let folder = cursor.wandb.folder.clone();
        cursor.wandb = Written { folder, bytes, num_records, summary };
        Ok(())
    }

    fn close(
        &mut self,
        run: &Run,
        cursor: &mut Cursor,
        ending: Option<Ending>,
    ) -> Result<(), TrackError> {
        let mut batch = Batch::behind(&cursor.wandb);
        let summary = cursor.wandb.summary.iter();
        let update = summary.map(|(key, value)| Item::new(key, value)).collect();
        batch.add(Record { summary: Some(Items { update }), ..Record::default() });
        if ending == Some(Ending::Done) {
            let files = self.copy_model(run, cursor)?;
            if !files.is_empty() {
                batch.add(Record { files: Some(Files { files }), ..Record::default() });
            }
        }
        if let Some(ending) = ending {
            let exit_code = match ending {
                Ending::Done => 0,
                Ending::Stopped => 75,
                Ending::Failed => 1,
            };
            let last = cursor.position.moment.map_or(cursor.started, |moment| moment.seconds);
            let exit = Exit { exit_code, runtime: runtime(cursor, last) as i32 };
            batch.add(Record { exit: Some(exit), ..Record::default() });
        }
        self.append(cursor, &batch)?;
        self.write_files(cursor, &run.config()?.0)
    }

    fn where_to(&self, cursor: &Cursor) -> String {
        let folder = self.folder(cursor);
        format!("`wandb sync {}` takes it to the server", shell(&folder))
    }
}

fn runtime(cursor: &Cursor, seconds: f64) -> f64 {
    (seconds - cursor.started).max(0.0)
}

/// `YYYYMMDD_HHMMSS` in UTC of seconds since 1970.
fn date(seconds: i64) -> String {
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days to a date of the Gregorian calendar, in eras of 400 years that begin in March:
    // https://howardhinnant.github.io/date_algorithms.html#civil_from_days
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}{month:02}{day:02}_{hour:02}{minute:02}{second:02}")
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
