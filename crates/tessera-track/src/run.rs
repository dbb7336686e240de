//! A run folder: its configuration, and how far it has come for good.

use std::path::{Path, PathBuf};
use std::{fs, io};

use serde_json::Value;
use tessera_control::{RunState, RunStatus};

use crate::TrackError;
use crate::source::Limits;

/// The model folder, in a run's.
const MODEL: &str = "model";

/// The folder of a run.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) dir: PathBuf,
    /// Name of the folder.
    pub(crate) name: String,
}

/// How a run has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// All steps are done.
    Done,
    /// Stopped on request; the same command goes on.
    Stopped,
    /// By an error, or without a word.
    Failed,
}

impl Ending {
    /// How the run in `run_dir` has ended, by its status; `None` where that says that it goes on.
    ///
    /// # Errors
    ///
    /// [`TrackError::File`] if the status cannot be read.
    pub fn of(run_dir: &Path) -> Result<Option<Self>, TrackError> {
        Ok(match status(run_dir)?.map(|status| status.state) {
            Some(RunState::Done) => Some(Self::Done),
            Some(RunState::Stopped) => Some(Self::Stopped),
            Some(RunState::Failed) => Some(Self::Failed),
            Some(RunState::Running) | None => None,
        })
    }
}

impl Run {
    /// The run in `dir`.
    pub(crate) fn open(dir: &Path) -> Result<Self, TrackError> {
        if !["status.json", "config.toml"].iter().any(|name| dir.join(name).is_file()) {
            return Err(TrackError::NoRun { path: dir.to_owned() });
        }
        let full = dir.canonicalize().map_err(TrackError::file("find", dir))?;
        let name = full.file_name().unwrap_or(full.as_os_str()).to_string_lossy().into_owned();
        Ok(Self { dir: dir.to_owned(), name })
    }

    /// The configuration, and its text; empty where there is none yet.
    pub(crate) fn config(&self) -> Result<(Value, String), TrackError> {
        let path = self.dir.join("config.toml");
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            text => text.map_err(TrackError::file("read", &path))?,
        };
        let config = toml::from_str(&text).map_err(|error| {
            let what = error.message().lines().next().unwrap_or_default().to_owned();
            TrackError::Refused(format!("{} cannot be understood: {what}", path.display()))
        })?;
        Ok((config, text))
    }

    /// Files of the model folder, with their names in it; none where the run has left no such folder.
    pub(crate) fn model(&self) -> Result<Vec<(String, PathBuf)>, TrackError> {
        let mut files = Vec::new();
        let mut folders = vec![(String::new(), self.dir.join(MODEL))];
        while let Some((within, folder)) = folders.pop() {
            let entries = match fs::read_dir(&folder) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                entries => entries.map_err(TrackError::file("read", &folder))?,
            };
            for entry in entries {
                let path = entry.map_err(TrackError::file("read", &folder))?.path();
                let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
                let name = format!("{within}{name}");
                match path.is_dir() {
                    true => folders.push((format!("{name}/"), path)),
                    false => files.push((name, path)),
                }
            }
        }
        files.sort();
        Ok(files)
    }

    /// The last step whose rows no resume takes back: that of the newest checkpoint, or of the end of the run.
    pub(crate) fn final_step(&self) -> Result<Option<u64>, TrackError> {
        let checkpoints = self.dir.join("checkpoints");
        let found = tessera_checkpoint::list(&checkpoints)
            .map_err(|error| TrackError::file("read", &checkpoints)(io::Error::other(error)))?;
        let saved = found.last().map(|(step, _)| *step);
        let ended = status(&self.dir)?
            .filter(|status| matches!(status.state, RunState::Done | RunState::Stopped));
        Ok(saved.max(ended.map(|status| status.step)))
    }

    /// What may be sent now: what is final, and with `eager` all rows that there are.
    pub(crate) fn limits(&self, eager: bool) -> Result<Limits, TrackError> {
        let exhibits = self.final_step()?;
        Ok(Limits { rows: if eager { Some(u64::MAX) } else { exhibits }, exhibits })
    }
}

fn status(run_dir: &Path) -> Result<Option<RunStatus>, TrackError> {
    RunStatus::read(run_dir).map_err(TrackError::file("read", &RunStatus::file(run_dir)))
}

/// The leaves of a configuration by their keys, such as `model.quantizer.kind`.
pub(crate) fn flatten(config: &Value) -> Vec<(String, Value)> {
    let mut leaves = Vec::new();
    add(&mut leaves, String::new(), config);
    leaves
}

fn add(leaves: &mut Vec<(String, Value)>, key: String, value: &Value) {
    let below = |part: &str| if key.is_empty() { part.to_owned() } else { format!("{key}.{part}") };
    match value {
        Value::Object(table) => {
            for (name, value) in table {
                add(leaves, below(name), value);
            }
        }
        Value::Array(parts) if parts.iter().any(Value::is_object) => {
            for (number, part) in parts.iter().enumerate() {
                add(leaves, below(&number.to_string()), part);
            }
        }
        leaf => leaves.push((key, leaf.clone())),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;

    /// A folder in memory, where there is such a place: everything is synced each time.
    pub(crate) fn folder() -> tempfile::TempDir {
        tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
    }

    /// Writes a status into a run folder.
    pub(crate) fn say(run_dir: &Path, state: RunState, step: u64) {
        let status = RunStatus {
            state,
            exit_code: None,
            step,
            world_size: 1,
            message: String::new(),
            process: None,
            attempt: None,
        };
        status.write(run_dir).unwrap();
    }

    #[test]
    fn a_step_is_final_by_a_checkpoint_or_a_good_end_and_never_by_a_failure() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(Run::open(folder.path()), Err(TrackError::NoRun { .. })));
        say(folder.path(), RunState::Running, 0);
        let run = Run::open(folder.path()).unwrap();
        assert_eq!(run.final_step().unwrap(), None);
        for name in ["step-00000020", ".step-00000040.a.1.partial", "superseded/step-00000060"] {
            fs::create_dir_all(folder.path().join("checkpoints").join(name)).unwrap();
        }
        assert_eq!(run.final_step().unwrap(), Some(20));
        say(folder.path(), RunState::Failed, 50);
        assert_eq!(run.limits(false).unwrap(), Limits { rows: Some(20), exhibits: Some(20) });
        assert_eq!(run.limits(true).unwrap(), Limits { rows: Some(u64::MAX), exhibits: Some(20) });
        say(folder.path(), RunState::Done, 50);
        assert_eq!(run.final_step().unwrap(), Some(50));
    }

    #[test]
    fn a_configuration_is_flattened_to_its_keys() {
        let config = json!({"seed": 1, "data": {"mixture": [{"weight": 2}], "axes": [1, 2]}});
        let flat = flatten(&config);
        let keys: Vec<&str> = flat.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["data.axes", "data.mixture.0.weight", "seed"]);
    }
}
