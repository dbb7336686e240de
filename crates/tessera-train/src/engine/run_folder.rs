//! The folder that a run writes to, and that all its ranks must see.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::engine::agreement::agree_on;
use crate::error::{MAKE_FOLDER, TrainError};
use tessera_checkpoint::Storage;
use tessera_comm::{Communicator, broadcast_bytes};
use tessera_control::lock::{self, holds};
use tessera_control::{Attempt, Lost, RunLock, one_line};

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

    /// `reconstructions/` or `samples/`: pictures of what the model does.
    pub fn pictures(&self, shown: &str) -> PathBuf {
        self.root.join(shown)
    }

    /// `logs/rank-R.jsonl`: what that rank has to say.
    pub fn log(&self, rank: usize) -> PathBuf {
        self.root.join("logs").join(format!("rank-{rank}.jsonl"))
    }

    /// `superseded/from-step-N-ATTEMPT/`: what a run that goes on after `step` steps had of later ones.
    pub fn superseded(&self, step: u64, attempt: &Attempt) -> PathBuf {
        self.root.join("superseded").join(format!("from-step-{step:08}-{attempt}"))
    }

    /// `model/`: the model folder, once the training has ended.
    pub fn model(&self) -> PathBuf {
        self.root.join("model")
    }

    /// `checkpoints/`.
    pub fn checkpoints(&self) -> PathBuf {
        self.root.join("checkpoints")
    }

    /// Takes the folder for this run, makes what is to be in it, and sees to it that every rank has the same one
    /// before its eyes. Collective.
    ///
    /// Rank 0 locks it for an attempt, all ranks read the lock. `on_lost` runs on a thread of rank 0's if another
    /// run is found to have the folder; it must end the process.
    ///
    /// # Errors
    ///
    /// [`TrainError::BadInput`] or [`TrainError::File`] if it cannot be written, another run is at work in it, or
    /// a rank sees another folder under the same name.
    pub fn take(
        comm: &dyn Communicator,
        run_dir: &Path,
        on_lost: impl FnOnce(&Lost) + Send + 'static,
    ) -> Result<Tenure, TrainError> {
        let folder = Self { root: run_dir.to_owned() };
        let locked = match comm.rank() {
            0 => folder.lock(on_lost).map(Some),
            _ => Ok(None),
        };
        let lock = agree_on(comm, locked)?;
        let name = lock.as_ref().map_or(String::new(), |lock| lock.attempt().to_string());
        let name = broadcast_bytes(comm, name.as_bytes())?;
        let attempt: Attempt =
            String::from_utf8_lossy(&name).parse().expect("rank 0 sends the name of its attempt");
        let same = if holds(&folder.root, &attempt).is_ok() && folder.root.is_dir() {
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
        Ok(Tenure { folder, attempt, lock })
    }

    fn lock(&self, on_lost: impl FnOnce(&Lost) + Send + 'static) -> Result<RunLock, TrainError> {
        let attempt = match Attempt::from_env().map_err(TrainError::BadInput)? {
            Some(attempt) => attempt,
            None => Attempt::draw().map_err(TrainError::file("read", Path::new("/dev/urandom")))?,
        };
        fs::create_dir_all(&self.root).map_err(TrainError::file(MAKE_FOLDER, &self.root))?;
        let mut lock = RunLock::take(&self.root, &attempt)?;
        self.make()?;
        lock.beat(on_lost)?;
        Ok(lock)
    }

    fn make(&self) -> Result<(), TrainError> {
        for folder in self.folders() {
            fs::create_dir_all(&folder).map_err(TrainError::file(MAKE_FOLDER, &folder))?;
        }
        Ok(())
    }

    /// The folder and those in it that every run has.
    fn folders(&self) -> [PathBuf; 4] {
        let logs = self.root.join("logs");
        [self.root.clone(), self.tensorboard(), logs, self.checkpoints()]
    }
}

/// A run folder that a run has, until this is dropped.
#[derive(Debug)]
pub struct Tenure {
    /// The folder.
    pub folder: RunFolder,
    /// Which start of which launch has it; the same on all ranks.
    pub attempt: Attempt,
    /// Of rank 0.
    lock: Option<RunLock>,
}

impl Tenure {
    /// Of a folder that a test has for itself.
    #[cfg(test)]
    pub(crate) fn without_lock(folder: RunFolder, attempt: Attempt) -> Self {
        Self { folder, attempt, lock: None }
    }

    /// Whether the folder is still this run's.
    ///
    /// # Errors
    ///
    /// [`TrainError::Lost`].
    pub fn check(&self) -> Result<(), TrainError> {
        Ok(holds(&self.folder.root, &self.attempt)?)
    }

    /// The same as [`Self::check`], for a thread that outlives this.
    pub(crate) fn checker(&self) -> impl Fn() -> Result<(), TrainError> + Send + use<> {
        let look = self.look();
        move || Ok(look()?)
    }

    /// Looks whether the folder is still this run's, wherever it is called.
    fn look(&self) -> impl Fn() -> Result<(), Lost> + Send + Sync + use<> {
        let (root, attempt) = (self.folder.root.clone(), self.attempt.clone());
        move || holds(&root, &attempt)
    }

    /// Gives the folder back, for a process that ends without dropping this.
    pub fn release(&self) {
        if let Some(lock) = &self.lock {
            lock.release();
        }
    }

    /// A file system that changes the folder as long as it is this run's.
    pub(crate) fn guard(&self, storage: Storage) -> Storage {
        let look = self.look();
        storage.guarded(move || look().map_err(|lost| lost.to_string()))
    }
}

/// What can be said about the run folder before anything is written: that it and the folders in it are there
/// or can be made, and that `never` finds it empty.
pub(crate) fn check(run_dir: &Path, resume: &Resume) -> Result<(), TrainError> {
    for folder in (RunFolder { root: run_dir.to_owned() }).folders() {
        check_place(&folder)?;
    }
    let attempt = Attempt::from_env().map_err(TrainError::BadInput)?;
    lock::refuse_held(run_dir, attempt.as_ref())?;
    let is_empty = fs::read_dir(run_dir).map_or(true, |mut entries| entries.next().is_none());
    // Workers that are started again find what the first ones have made.
    let is_first = attempt.is_none_or(|attempt| attempt.number() == 0);
    if *resume == Resume::Never && is_first && !is_empty {
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

/// Refuses a place that is no folder and where none can be made.
fn check_place(folder: &Path) -> Result<(), TrainError> {
    let refused = |what: String| {
        let what = one_line(&what);
        Err(TrainError::BadInput(format!("{what}: choose another folder as --run-dir")))
    };
    for path in folder.ancestors() {
        match path.metadata() {
            Ok(about) if about.is_dir() => return Ok(()),
            Ok(_) => return refused(format!("{} is a file", path.display())),
            Err(error) if path.is_symlink() => {
                let to = fs::read_link(path).unwrap_or_default();
                let (path, to) = (path.display(), to.display());
                return refused(format!(
                    "{path} is a link to {to}, which cannot be used ({error})"
                ));
            }
            // What is not there yet is to be made, or what is above it decides.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) if error.kind() == ErrorKind::NotADirectory => {}
            Err(error) => {
                let shown = path.to_string_lossy();
                let (start, more) = match shown.char_indices().nth(200) {
                    Some((end, _)) => (&shown[..end], "..."),
                    None => (&*shown, ""),
                };
                return refused(format!("{start}{more} cannot be used ({error})"));
            }
        }
    }
    Ok(())
}

/// Moves the pictures of steps past `last_step` into the folder `aside`.
pub(crate) fn cut_pictures(folder: &Path, last_step: u64, aside: &Path) -> Result<(), TrainError> {
    if !folder.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(folder).map_err(TrainError::file("read", folder))? {
        let path = entry.map_err(TrainError::file("read", folder))?.path();
        let step = path
            .file_stem()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_prefix("step-"))
            .and_then(|step| step.parse::<u64>().ok());
        if step.is_some_and(|step| step > last_step) {
            fs::create_dir_all(aside).map_err(TrainError::file(MAKE_FOLDER, aside))?;
            let target = aside.join(path.file_name().expect("it has a stem"));
            fs::rename(&path, target).map_err(TrainError::file("move", &path))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::resolve::{Resolved, resolve};

    fn refusal(run_dir: &Path) -> String {
        let error = check(run_dir, &Resume::Auto).unwrap_err();
        assert_eq!(error.code(), tessera_control::ExitCode::BadInput, "{error}");
        let message = error.to_string();
        assert!(!message.contains('\n') && message.len() < 500, "{message}");
        message
    }

    #[test]
    fn a_run_folder_that_cannot_be_made_is_refused_before_anything_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        check(&path("new/and/deeper"), &Resume::Auto).unwrap();
        symlink(path("gone/away"), path("link")).unwrap();
        assert!(refusal(&path("link")).contains("link is a link to "));
        assert!(refusal(&path("link/below")).contains("link is a link to "));
        symlink(path("circle"), path("circle")).unwrap();
        assert!(refusal(&path("circle")).contains("circle is a link to "));
        fs::write(path("file\nline"), "").unwrap();
        assert!(refusal(&path("file\nline")).contains("file\\nline is a file"));
        assert!(refusal(&path("file\nline/below")).contains("is a file"));
        assert!(refusal(&path(&"n".repeat(300))).contains("name too long"));
        assert!(refusal(&path(&vec!["n".repeat(199); 25].join("/"))).contains("name too long"));
    }

    #[test]
    fn what_lies_in_the_way_in_a_run_folder_is_refused_too() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("tensorboard"), "").unwrap();
        assert!(refusal(folder.path()).contains("tensorboard is a file"));
        fs::remove_file(folder.path().join("tensorboard")).unwrap();
        symlink("nowhere", folder.path().join("checkpoints")).unwrap();
        assert!(refusal(folder.path()).contains("checkpoints is a link to nowhere"));
    }

    #[test]
    fn names_of_any_bytes_survive_the_run_folder_and_the_way_to_the_workers() {
        use std::os::unix::ffi::OsStringExt;
        let folder = tempfile::tempdir().unwrap();
        let name = std::ffi::OsString::from_vec(b"caf\xe9\nseed = 9 #.toml".to_vec());
        let path = folder.path().join(name);
        std::fs::write(&path, "data.kind = 'synthetic'\nseed = 3\n").unwrap();
        let resolved = resolve(Some(&path), [], &[], Some(path.with_extension("run"))).unwrap();
        std::fs::write(folder.path().join("config.toml"), resolved.to_toml()).unwrap();
        assert_eq!(Resolved::of_run(folder.path()).unwrap().config, resolved.config);
        let line = serde_json::to_string(&resolved).unwrap();
        let heard: Resolved = serde_json::from_str(&line).unwrap();
        assert_eq!(heard.run_dir, resolved.run_dir);
    }
}
