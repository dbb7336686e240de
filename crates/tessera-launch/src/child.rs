//! Launchers as children: for whoever runs many trainings side by side.

use std::ffi::OsString;
use std::fs::File;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process, setpriority_process};
use tessera_control::ExitCode;

use crate::session::TRAMPOLINE;
use crate::{LaunchError, find_worker};

/// A launcher that runs beside this process.
///
/// When this process dies, the launcher's run is asked to stop with one checkpoint. Dropping it kills the
/// launcher and, with it, all that it has started.
#[derive(Debug)]
pub struct Child {
    child: std::process::Child,
}

impl Child {
    /// Starts this executable again with `arguments`, such as `launch --nproc 1 -- train ...`; what it
    /// prints goes to `log`. It and its workers may use `cores`; none: all.
    ///
    /// To be called from the main thread: the child is asked to stop when the *thread* that started it
    /// ends. The executable must hand its hidden command [`TRAMPOLINE`] to [`crate::Trampoline`].
    ///
    /// # Errors
    ///
    /// [`LaunchError::System`].
    pub fn start(
        arguments: &[OsString],
        variables: &[(OsString, OsString)],
        cores: &[usize],
        log: &File,
    ) -> Result<Self, LaunchError> {
        let executable =
            std::env::current_exe().map_err(LaunchError::system("find the own executable"))?;
        let to_log = || log.try_clone().map_err(LaunchError::system("write a log"));
        let child = Command::new(&executable)
            .args([TRAMPOLINE, "--gently", "--parent", &std::process::id().to_string()])
            .args(cores.iter().flat_map(|core| ["--core".to_owned(), core.to_string()]))
            .arg("--")
            .arg(&executable)
            .args(arguments)
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(to_log()?)
            .stderr(to_log()?)
            .spawn()
            .map_err(LaunchError::system(format!("start {}", executable.display())))?;
        Ok(Self { child })
    }

    /// How it has ended; `None` while it runs.
    pub fn status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Asks for one checkpoint and the end.
    pub fn ask_to_stop(&mut self) {
        if self.status().is_none() {
            let _ = kill_process(Pid::from_child(&self.child), Signal::USR1);
        }
    }
}

impl Child {
    /// Adds to its nice value, so that others come first; where that is refused, nothing changes.
    pub(crate) fn yield_to_others(&self, nice: i32) {
        let _ = setpriority_process(Some(Pid::from_child(&self.child)), nice);
    }

    /// Kills it where it still runs, and does not wait: storage that stands still may keep it.
    pub(crate) fn abandon(mut self) {
        if self.status().is_none() {
            let _ = self.child.kill();
            std::mem::forget(self);
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.status().is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Resolves the configuration of a training and starts nothing: the worker's line of JSON, with
/// `run_dir`, `steps` and `config`.
///
/// # Errors
///
/// [`LaunchError::Refused`] with the worker's code, once it has said why on stderr.
pub fn resolve_alone(world_size: usize, arguments: &[OsString]) -> Result<String, LaunchError> {
    let worker = find_worker()?;
    crate::check_libraries(&worker)?;
    let problem = |problem: String| LaunchError::Resolve { problem };
    let output = Command::new(Path::new(&worker))
        .args(["resolve", "--nproc", &world_size.to_string()])
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(LaunchError::system(format!("start {}", worker.display())))?;
    match output.status.code() {
        Some(0) => {
            let text = String::from_utf8_lossy(&output.stdout);
            let line = text.lines().rfind(|line| !line.trim().is_empty());
            line.map(str::to_owned).ok_or_else(|| problem("printed nothing".to_owned()))
        }
        Some(code) => Err(LaunchError::Refused { code: ExitCode::from(code) }),
        None => Err(problem(format!("ended by {}", output.status))),
    }
}
