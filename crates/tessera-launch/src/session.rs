//! A child in a session of its own that dies with the launcher.
//!
//! `std` runs no code of ours between fork and exec without `unsafe`, so the launcher starts
//! itself once more: [`Trampoline`] sets what must be set and becomes the program.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::SigSet;
use rustix::process::{
    Pid, Signal, getppid, kill_process, set_child_subreaper, set_parent_process_death_signal,
    setsid,
};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::{LaunchError, files, processes};

/// How long a killed child may take to be gone, and between two looks.
const UNTIL_DEAD: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(2);

/// Name of the hidden command that calls [`Trampoline::jump`]:
/// `tessera __in-session --parent PID [--block SIGNAL]... [--core CORE]... [--files N] [--gently] -- PROGRAM ARGS...`.
pub const TRAMPOLINE: &str = "__in-session";

/// How a child is to live.
#[derive(Debug, Default)]
pub struct Trampoline {
    /// Process id of its parent, with whose death it ends.
    pub parent: i32,
    /// Whether it is then asked to end (SIGTERM), not killed.
    pub gently: bool,
    /// Numbers of signals that it will not hear.
    pub blocked: Vec<i32>,
    /// Cores that it may use; none: all that its parent may.
    pub cores: Vec<usize>,
    /// How many files it may have open; `None`: as many as its parent.
    pub files: Option<u64>,
}

impl Trampoline {
    /// Becomes `command` in a new session. Returns only if that is impossible.
    ///
    /// # Errors
    ///
    /// [`LaunchError::NotLaunched`] if `parent` is not, or no longer, the parent of this process;
    /// [`LaunchError::System`] if the program cannot be started.
    pub fn jump(&self, command: &[OsString]) -> Result<std::convert::Infallible, LaunchError> {
        let Some((program, arguments)) = command.split_first() else {
            return Err(LaunchError::NotLaunched);
        };
        setsid().map_err(|error| LaunchError::system("start a session")(error.into()))?;
        let end = if self.gently { Signal::TERM } else { Signal::KILL };
        set_parent_process_death_signal(Some(end))
            .map_err(|error| LaunchError::system("ask for the parent's death")(error.into()))?;
        // A parent that died before the line above sends no signal any more.
        if getppid().map(|pid| pid.as_raw_nonzero().get()) != Some(self.parent) {
            return Err(LaunchError::NotLaunched);
        }
        self.block()?;
        self.bind()?;
        if let Some(files) = self.files {
            files::lower(files).map_err(LaunchError::system("limit the open files"))?;
        }
        let refused = Command::new(program).args(arguments).exec();
        Err(LaunchError::system(format!("start {}", program.to_string_lossy()))(refused))
    }

    fn block(&self) -> Result<(), LaunchError> {
        let refused = |error: nix::Error| LaunchError::system("block signals")(error.into());
        let mut set = SigSet::empty();
        for &signal in &self.blocked {
            set.add(nix::sys::signal::Signal::try_from(signal).map_err(refused)?);
        }
        set.thread_block().map_err(refused)
    }

    fn bind(&self) -> Result<(), LaunchError> {
        if self.cores.is_empty() {
            return Ok(());
        }
        let mut set = CpuSet::new();
        self.cores.iter().for_each(|&core| set.set(core));
        sched_setaffinity(None, &set)
            .map_err(|error| LaunchError::system("choose cores")(error.into()))
    }
}

/// A running child and everything in its session.
///
/// Dropping it kills and reaps them all.
#[derive(Debug)]
pub(crate) struct Session {
    child: Child,
    pid: Pid,
    status: Option<ExitStatus>,
}

impl Session {
    /// Starts `program` in a session of its own, with the `variables` but without those `removed`, and with the
    /// signals `blocked` kept from it.
    ///
    /// To be called from the main thread: the child dies with the *thread* that started it.
    pub(crate) fn start(
        program: &Path,
        arguments: &[OsString],
        variables: &[(OsString, OsString)],
        removed: &[&str],
        blocked: &[i32],
        stderr: Stdio,
    ) -> Result<Self, LaunchError> {
        // Orphans of the session become ours, so that none is left unreaped.
        set_child_subreaper(Some(rustix::process::getpid()))
            .map_err(|error| LaunchError::system("become a subreaper")(error.into()))?;
        let executable =
            std::env::current_exe().map_err(LaunchError::system("find the own executable"))?;
        let mut command = Command::new(executable);
        for name in removed {
            command.env_remove(name);
        }
        let child = command
            .args([TRAMPOLINE, "--parent", &std::process::id().to_string()])
            .args(blocked.iter().flat_map(|signal| ["--block".to_owned(), signal.to_string()]))
            .args(files::before().iter().flat_map(|n| ["--files".to_owned(), n.to_string()]))
            .arg("--")
            .arg(program)
            .args(arguments)
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .map_err(LaunchError::system(format!("start {}", program.display())))?;
        let pid = Pid::from_child(&child);
        Ok(Self { child, pid, status: None })
    }

    /// The child, for its pipes.
    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// How the child ended; `None` while it runs.
    pub(crate) fn status(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().ok().flatten();
        }
        self.status
    }

    /// Sends SIGUSR1 to the child alone; mpirun forwards it to the workers.
    pub(crate) fn ask_to_stop(&mut self) {
        if self.status().is_none() {
            let _ = kill_process(self.pid, Signal::USR1);
        }
    }

    /// Kills and reaps the child and all of its session.
    pub(crate) fn end(&mut self) {
        if self.status().is_none() {
            let _ = self.child.kill(); // mpirun first, so that it reports nothing about the rest
            // A process that waits for storage may not die before that answers.
            let deadline = Instant::now() + UNTIL_DEAD;
            while self.status().is_none() && Instant::now() < deadline {
                std::thread::sleep(LOOK);
            }
        }
        processes::end_session(self.pid);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.end();
    }
}

/// An environment variable, owned.
pub(crate) fn variable(name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> (OsString, OsString) {
    (name.as_ref().to_owned(), value.as_ref().to_owned())
}
