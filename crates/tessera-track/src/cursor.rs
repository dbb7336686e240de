//! What a tracker was sent of a run, in a file that is written whole after each batch.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tessera_checkpoint::sha256_hex;

use crate::TrackError;
use crate::source::Position;

const FORMAT: &str = "tessera-track";
const VERSION: u32 = 1;

/// Letters and digits of a run's id in a tracker.
const ALPHABET: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// The content of a cursor's file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cursor {
    /// `tessera-track`.
    pub format: String,
    /// 1.
    pub version: u32,
    /// Where it goes, for a person: server and experiment, or entity and project.
    pub target: String,
    /// The run's id in the tracker, drawn once.
    pub id: String,
    /// How often the run went back to before what was sent, each time as a new run in the tracker.
    pub generation: u32,
    /// When the first row is taken to begin, in seconds since 1970.
    pub started: f64,
    /// What was sent.
    pub position: Position,
    /// The last step that was final when something was sent.
    pub final_step: Option<u64>,
    /// SHA-256 of the configuration that was sent.
    pub config_sha256: String,
    /// How the run had ended, if the tracker was told.
    pub told_ending: Option<String>,
    /// Of W&B: what was written.
    pub wandb: Written,
    /// Of MLflow: the run there.
    pub mlflow: Option<ServerRun>,
}

/// A log of W&B.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Written {
    /// Name of the run's folder.
    pub folder: String,
    /// Bytes of the log, what is said at the end left out.
    pub bytes: u64,
    /// Records in them.
    pub num_records: i64,
    /// The last value of each figure.
    pub summary: Map<String, Value>,
}

/// A run of an MLflow server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServerRun {
    /// Id of its experiment.
    pub experiment_id: String,
    /// Its id.
    pub run_id: String,
    /// Where its artifacts are.
    pub artifact_uri: String,
}

/// A cursor, and the lock that nobody else has.
#[derive(Debug)]
pub(crate) struct CursorFile {
    path: PathBuf,
    _lock: File,
    pub(crate) cursor: Cursor,
}

impl CursorFile {
    /// Reads the cursor of `tracker` and `target` in `folder`, or begins one of a run that began at `started`, and
    /// writes it: nothing is made under an id that could be lost.
    pub(crate) fn open(
        folder: &Path,
        tracker: &str,
        target: &str,
        started: Option<f64>,
    ) -> Result<Self, TrackError> {
        fs::create_dir_all(folder).map_err(TrackError::file("make", folder))?;
        let name = format!("{tracker}-{}", &sha256_hex(target.as_bytes())[..12]);
        let lock_path = folder.join(format!("{name}.lock"));
        let lock = File::options().create(true).append(true).open(&lock_path);
        let lock = lock.map_err(TrackError::file("open", &lock_path))?;
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) => return Err(TrackError::Held { path: lock_path }),
            // A file system without locks is taken as it is.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        let path = folder.join(format!("{name}.json"));
        match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut cursor = Cursor::begin(target)?;
                cursor.started = started.map_or(cursor.started, f64::floor);
                let file = Self { path, _lock: lock, cursor };
                file.save()?;
                Ok(file)
            }
            Err(error) => Err(TrackError::file("read", &path)(error)),
            Ok(bytes) => Ok(Self { cursor: understood(&path, &bytes)?, path, _lock: lock }),
        }
    }

    /// Writes the cursor, whole or not at all, so that it survives a loss of power.
    pub(crate) fn save(&self) -> Result<(), TrackError> {
        let text = serde_json::to_vec_pretty(&self.cursor).expect("a cursor is plain data");
        let partial = self.path.with_extension("json.tmp");
        let write = || {
            let mut file = File::create(&partial)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&partial, &self.path)
        };
        write().map_err(TrackError::file("write", &self.path))
    }
}

fn understood(path: &Path, bytes: &[u8]) -> Result<Cursor, TrackError> {
    let refused = |what: String| {
        let path = path.display();
        let to_do = "remove it to send everything anew, as another run";
        Err(TrackError::Refused(format!("{path} {what}: {to_do}")))
    };
    match serde_json::from_slice::<Cursor>(bytes) {
        Ok(cursor) if cursor.format != FORMAT || cursor.version != VERSION => {
            refused(format!("is of version {}, not {VERSION}", cursor.version))
        }
        Ok(cursor) => Ok(cursor),
        Err(error) => refused(format!("is no cursor ({error})")),
    }
}

impl Cursor {
    fn begin(target: &str) -> Result<Self, TrackError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Self {
            format: FORMAT.to_owned(),
            version: VERSION,
            target: target.to_owned(),
            id: draw()?,
            generation: 0,
            started: now.as_secs() as f64,
            position: Position::default(),
            final_step: None,
            config_sha256: String::new(),
            told_ending: None,
            wandb: Written::default(),
            mlflow: None,
        })
    }

    /// The same for another run in the tracker, since this one went back to before what was sent.
    pub(crate) fn begin_anew(&mut self) -> Result<(), TrackError> {
        let generation = self.generation + 1;
        *self = Self { generation, started: self.started, ..Self::begin(&self.target)? };
        Ok(())
    }

    /// The run's name in the tracker.
    pub(crate) fn run_name(&self, name: &str) -> String {
        match self.generation {
            0 => name.to_owned(),
            times => format!("{name} (went back {times})"),
        }
    }
}

fn draw() -> Result<String, TrackError> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes)
        .map_err(|error| TrackError::Refused(format!("no id can be drawn: {error}")))?;
    let letter = |byte: &u8| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()]);
    Ok(bytes.iter().map(letter).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_keeps_its_id_and_two_processes_never_have_it_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let open = |target| CursorFile::open(folder.path(), "mlflow", target, Some(7.5));
        let first = open("http://a, b").unwrap();
        let id = first.cursor.id.clone();
        assert_eq!((id.len(), first.cursor.started), (8, 7.0));
        let held = open("http://a, b").unwrap_err();
        assert!(matches!(held, TrackError::Held { .. }), "{held}");
        let other = open("http://a, c").unwrap();
        assert_ne!(other.cursor.id, id);
        drop(first);
        let mut again = open("http://a, b").unwrap();
        assert_eq!(again.cursor.id, id);
        again.cursor.begin_anew().unwrap();
        assert_ne!(again.cursor.id, id);
        assert_eq!(again.cursor.run_name("demo"), "demo (went back 1)");
        let path = again.path.clone();
        drop(again);
        fs::write(&path, "{}").unwrap();
        let refused = open("http://a, b").unwrap_err();
        assert!(refused.to_string().contains("remove it to send everything anew"), "{refused}");
    }
}
