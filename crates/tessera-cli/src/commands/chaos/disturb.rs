//! One run under `tessera launch`, and what can be done to it from outside.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::Setting;

/// A run that is to be disturbed.
pub(super) struct Run<'a> {
    setting: &'a Setting<'a>,
    pub(super) folder: PathBuf,
    nproc: usize,
    launch: Vec<String>,
    set: Vec<String>,
    faults: String,
    shell: Option<&'static str>,
    temporary: Option<PathBuf>,
    unread: bool,
    worker: Option<PathBuf>,
}

/// How a run has ended.
pub(super) struct Ended {
    /// Exit code; none after a signal.
    pub(super) code: Option<i32>,
    pub(super) stderr: String,
    /// Seconds since 1970 when the launcher had ended.
    at: f64,
}

impl Ended {
    /// Seconds from the fault to the end of the launcher and all workers, where it told its time.
    pub(super) fn seconds_since_fault(&self) -> Option<f64> {
        let lines = self.stderr.lines();
        let at =
            lines.filter_map(|line| line.trim().strip_prefix("fault on purpose at ")).next()?;
        at.parse::<f64>().ok().map(|fault| self.at - fault)
    }

    /// Lines that tell an error.
    pub(super) fn errors(&self) -> usize {
        self.stderr.lines().filter(|line| line.starts_with("error:")).count()
    }

    /// What it said last.
    pub(super) fn last_line(&self) -> String {
        let error = self.stderr.lines().rev().find(|line| line.starts_with("error:"));
        error.or(self.stderr.lines().last()).unwrap_or_default().to_owned()
    }
}

impl<'a> Run<'a> {
    /// A run in `folder`.
    pub(super) fn new(setting: &'a Setting<'a>, folder: &Path) -> Self {
        let (launch, set) = (Vec::new(), Vec::new());
        let (folder, nproc) = (folder.to_owned(), setting.nproc);
        let (shell, temporary, unread, worker) = (None, None, false, None);
        Self {
            setting,
            folder,
            nproc,
            launch,
            set,
            faults: String::new(),
            shell,
            temporary,
            unread,
            worker,
        }
    }

    /// With these faults in its workers.
    pub(super) fn with_faults(self, faults: String) -> Self {
        Self { faults, ..self }
    }

    /// On so many workers.
    pub(super) fn with_nproc(self, nproc: usize) -> Self {
        Self { nproc, ..self }
    }

    /// With one more option of the launcher.
    pub(super) fn with_option(mut self, words: &[&str]) -> Self {
        self.launch.extend(words.iter().map(|&word| word.to_owned()));
        self
    }

    /// With one more setting.
    pub(super) fn with_setting(mut self, setting: &str) -> Self {
        self.set.push(setting.to_owned());
        self
    }

    /// Started by this line of a shell, which finds the command as `"$@"`.
    pub(super) fn through(self, line: &'static str) -> Self {
        Self { shell: Some(line), ..self }
    }

    /// With this folder for temporary files.
    pub(super) fn with_temporary(self, folder: PathBuf) -> Self {
        Self { temporary: Some(folder), ..self }
    }

    /// With this program as its worker.
    pub(super) fn with_worker(self, worker: PathBuf) -> Self {
        Self { worker: Some(worker), ..self }
    }

    /// With nobody who reads what it prints.
    pub(super) fn unread(self) -> Self {
        Self { unread: true, ..self }
    }

    /// Starts it.
    pub(super) fn start(&self) -> Result<Running, String> {
        let log = self.folder.with_extension(format!("{}.log", nanoseconds()));
        let open = || File::create(&log).map_err(|error| format!("{}: {error}", log.display()));
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = match self.shell {
            None => Command::new(program),
            Some(line) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", line, "sh"]).arg(program);
                shell
            }
        };
        command.args(["launch", "--nproc", &self.nproc.to_string()]).args(&self.launch);
        command.args(["--", "train", "--config"]).arg(self.setting.config);
        command.arg("--run-dir").arg(&self.folder);
        // Each rank writes, however small its part of a save is.
        command.args(["--set", "checkpoint.file_mib=0"]);
        for setting in self.setting.set.iter().chain(&self.set) {
            command.args(["--set", setting]);
        }
        command.env("TESSERA_FAULTS", &self.faults);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(open()?);
        if let Some(folder) = &self.temporary {
            command.env("TMPDIR", folder);
        }
        if let Some(worker) = &self.worker {
            command.env(tessera_launch::WORKER, worker);
        }
        if self.unread {
            let (reader, writer) = std::io::pipe().map_err(|error| error.to_string())?;
            drop(reader);
            let other = writer.try_clone().map_err(|error| error.to_string())?;
            command.stdout(writer).stderr(other);
        }
        let child = command.spawn().map_err(|error| error.to_string())?;
        let deadline = Instant::now() + self.setting.limit;
        Ok(Running { child, log, folder: self.folder.clone(), deadline })
    }

    /// Runs it to its end.
    pub(super) fn to_end(&self) -> Result<Ended, String> {
        self.start()?.end()
    }
}

/// A run on its way.
pub(super) struct Running {
    child: Child,
    log: PathBuf,
    folder: PathBuf,
    deadline: Instant,
}

impl Running {
    /// Waits until a row of this step has been written, or the run has ended.
    pub(super) fn wait_for_step(&mut self, step: u64) -> Result<(), String> {
        while self.last_step() < step && self.child.try_wait().is_ok_and(|end| end.is_none()) {
            self.pause()?;
        }
        Ok(())
    }

    /// The last step that has a row.
    pub(super) fn last_step(&self) -> u64 {
        let text = fs::read_to_string(self.folder.join("metrics.jsonl")).unwrap_or_default();
        let step = |line: &str| {
            serde_json::from_str::<serde_json::Value>(line).ok()?.get("step")?.as_u64()
        };
        text.lines().rev().find_map(step).unwrap_or(0)
    }

    /// Sends a signal to the launcher.
    pub(super) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            let _ = kill_process(pid, signal); // it may have ended
        }
    }

    /// Process id of the launcher.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether the launcher has ended.
    pub(super) fn has_ended(&mut self) -> Result<bool, String> {
        let status = self.child.try_wait().map_err(|error| error.to_string())?;
        Ok(status.is_some())
    }

    /// Waits a little, not past the limit.
    pub(super) fn pause(&self) -> Result<(), String> {
        if Instant::now() > self.deadline {
            return Err("it hangs: no end within the limit".to_owned());
        }
        std::thread::sleep(Duration::from_millis(5));
        Ok(())
    }

    /// Waits for the end of the launcher alone: others may be at work in the same folder.
    pub(super) fn end_alone(mut self) -> Result<Ended, String> {
        let status = loop {
            match self.child.try_wait().map_err(|error| error.to_string())? {
                Some(status) => break status,
                None => self.pause()?,
            }
        };
        let at = unix_seconds();
        let stderr = fs::read_to_string(&self.log).unwrap_or_default();
        let _ = fs::remove_file(&self.log);
        Ok(Ended { code: status.code(), stderr, at })
    }

    /// Waits for the end of the launcher and of every process that it has started.
    pub(super) fn end(self) -> Result<Ended, String> {
        let folder = self.folder.clone();
        let ended = self.end_alone()?;
        let gone_by = Instant::now() + Duration::from_secs(5);
        while let Some(left) = process_of(&folder) {
            if Instant::now() > gone_by {
                return Err(format!("a process is left behind: {left}"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(ended)
    }
}

impl Drop for Running {
    /// A run that was given up leaves nothing behind: its processes die with the launcher.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process whose command line names the run folder.
fn process_of(folder: &Path) -> Option<String> {
    let needle = folder.as_os_str().as_encoded_bytes();
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let Ok(words) = fs::read(entry.path().join("cmdline")) else { continue };
        let pid = entry.file_name();
        let is_own = pid.to_str() == Some(&std::process::id().to_string());
        if !is_own && words.split(|&byte| byte == 0).any(|word| word == needle) {
            return Some(String::from_utf8_lossy(&words).replace('\0', " "));
        }
    }
    None
}

fn unix_seconds() -> f64 {
    nanoseconds() as f64 / 1e9
}

fn nanoseconds() -> u128 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos())
}
