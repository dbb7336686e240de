//! The folder that a run writes to, and that all its ranks must see.

use std::fs;
use std::path::{Path, PathBuf};

use crate::coordinator::agree_on;
use crate::error::TrainError;
use tessera_comm::{Communicator, broadcast_bytes};

/// From which checkpoint a run goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resume {
    /// The newest one in the run folder whose hashes hold; from the start where there is none.
    Auto,
    /// From the start; the run folder must be empty.
    Never,
    /// This checkpoint, or the newest good one of this run.
    From(PathBuf),
}

impl std::str::FromStr for Resume {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "auto" => Self::Auto,
            "never" => Self::Never,
            path => Self::From(path.into()),
        })
    }
}

/// Paths in a run folder.
#[derive(Debug, Clone)]
pub struct RunFolder {
    /// The folder.
    pub root: PathBuf,
}

impl RunFolder {
    /// `config.toml`: the resolved configuration.
    pub fn config(&self) -> PathBuf {
        self.root.join("config.toml")
    }

    /// `metrics.jsonl`: a row a logging interval.
    pub fn metrics(&self) -> PathBuf {
        self.root.join("metrics.jsonl")
    }

    /// `eval.jsonl`: a row an evaluation during training.
    pub fn evaluations(&self) -> PathBuf {
        self.root.join("eval.jsonl")
    }

    /// `tensorboard/`: the event file.
    pub fn tensorboard(&self) -> PathBuf {
        self.root.join("tensorboard")
    }

    /// `reconstructions/`: pictures, input over output.
    pub fn reconstructions(&self) -> PathBuf {
        self.root.join("reconstructions")
    }

    /// `logs/rank-R.jsonl`: what that rank has to say.
    pub fn log(&self, rank: usize) -> PathBuf {
        self.root.join("logs").join(format!("rank-{rank}.jsonl"))
    }

    /// `checkpoints/`.
    pub fn checkpoints(&self) -> PathBuf {
        self.root.join("checkpoints")
    }

    /// Makes the folder and sees to it that every rank has the same one before its eyes.
    ///
    /// Rank 0 writes a nonce into it, all ranks read it.
    ///
    /// # Errors
    ///
    /// [`TrainError::BadInput`] or [`TrainError::File`] if it cannot be written, or a rank sees
    /// another folder under the same name.
    pub fn prepare(comm: &dyn Communicator, run_dir: &Path) -> Result<Self, TrainError> {
        let folder = Self { root: run_dir.to_owned() };
        let nonce_file = folder.root.join(".nonce");
        let nonce = format!("{}-{}", std::process::id(), nanoseconds());
        let made = match comm.rank() {
            0 => folder.make().and_then(|()| {
                fs::write(&nonce_file, &nonce).map_err(TrainError::file("write", &nonce_file))
            }),
            _ => Ok(()),
        };
        agree_on(comm, made)?;
        let expected = broadcast_bytes(comm, nonce.as_bytes())?;
        let seen = fs::read(&nonce_file).unwrap_or_default();
        let same = if seen == expected {
            Ok(())
        } else {
            Err(TrainError::BadInput(format!(
                "rank {} does not see rank 0's run folder at {}: put --run-dir on a file system \
                 that all hosts share",
                comm.rank(),
                folder.root.display()
            )))
        };
        agree_on(comm, same)?;
        if comm.rank() == 0 {
            let _ = fs::remove_file(&nonce_file);
        }
        Ok(folder)
    }

    fn make(&self) -> Result<(), TrainError> {
        for folder in [
            self.root.clone(),
            self.tensorboard(),
            self.reconstructions(),
            self.root.join("logs"),
            self.checkpoints(),
        ] {
            fs::create_dir_all(&folder).map_err(TrainError::file("make the folder", &folder))?;
        }
        Ok(())
    }
}

/// What can be said about the run folder before anything is written: that `never` finds it
/// empty, and that its nearest existing parent is a folder.
pub(crate) fn check(run_dir: &Path, resume: &Resume) -> Result<(), TrainError> {
    if run_dir.exists() && !run_dir.is_dir() {
        return Err(TrainError::BadInput(format!(
            "{} is a file: choose a folder as --run-dir",
            run_dir.display()
        )));
    }
    let is_empty = fs::read_dir(run_dir).map_or(true, |mut entries| entries.next().is_none());
    if *resume == Resume::Never && !is_empty {
        return Err(TrainError::BadInput(format!(
            "{} is not empty and --resume is never: choose another --run-dir, or --resume auto to \
             go on with the run in it",
            run_dir.display()
        )));
    }
    let existing = run_dir.ancestors().find(|path| path.exists()).unwrap_or(Path::new("."));
    let probe = existing.join(format!(".tessera-probe-{}.tmp", std::process::id()));
    let written = fs::write(&probe, b"").map_err(TrainError::file("write", run_dir));
    let _ = fs::remove_file(&probe);
    written
}

fn nanoseconds() -> u128 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos())
}

/// Deletes the pictures of steps past `last_step`.
pub(crate) fn cut_pictures(folder: &Path, last_step: u64) -> Result<(), TrainError> {
    for entry in fs::read_dir(folder).map_err(TrainError::file("read", folder))? {
        let path = entry.map_err(TrainError::file("read", folder))?.path();
        let step = path
            .file_stem()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_prefix("step-"))
            .and_then(|step| step.parse::<u64>().ok());
        if step.is_some_and(|step| step > last_step) {
            fs::remove_file(&path).map_err(TrainError::file("remove", &path))?;
        }
    }
    Ok(())
}
