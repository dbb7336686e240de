//! Programs that code and decode, run with a deadline in a folder of their own.
//!
//! No shell is asked, and the only file names that a program gets are those that this crate makes up: its
//! folder is where it runs. What it writes is bounded, a file as well as what it says.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::error::BaselineError;

/// How long a program may take for one item.
const DEADLINE: Duration = Duration::from_secs(300);
/// Most bytes of a file that a program writes.
const MOST_BYTES: u64 = 1 << 30;
/// Bytes of the end of what a program says that are kept.
const KEPT: usize = 4096;

/// A program, and who has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tool {
    /// What it is called.
    pub(crate) program: &'static str,
    /// The Debian package that has it.
    pub(crate) package: &'static str,
}

impl Tool {
    /// Says how to get it, if it is not there.
    pub(crate) fn missing(self) -> Option<String> {
        let Self { program, package } = self;
        let folders = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&folders).any(|folder| is_program(&folder.join(program)));
        (!found).then(|| format!("{program} is not installed: Debian's package {package} has it"))
    }

    /// Runs it in a folder.
    pub(crate) fn run(self, words: &[&str], folder: &Path) -> Result<(), BaselineError> {
        self.run_until(words, folder, DEADLINE)
    }

    fn run_until(
        self,
        words: &[&str],
        folder: &Path,
        deadline: Duration,
    ) -> Result<(), BaselineError> {
        let mut child = Command::new(self.program)
            .args(words)
            .current_dir(folder)
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| self.failed(format!("does not start: {error}")))?;
        bound(&child);
        let said = listen(&mut child);
        let ended = wait(&mut child, deadline).map_err(|error| self.failed(error.to_string()))?;
        let Some(status) = ended else {
            return Err(self.failed(format!("not done in {} seconds", deadline.as_secs_f32())));
        };
        if status.success() {
            return Ok(());
        }
        // Its end has closed what it speaks through; a child of its own may hold it open.
        let said = said.recv_timeout(Duration::from_secs(1)).unwrap_or_default();
        let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
        Err(self.failed(format!("{status}: {}", last.trim())))
    }

    fn failed(self, problem: String) -> BaselineError {
        BaselineError::Tool { program: self.program, problem }
    }
}

/// A folder that is gone when this is, with files of fixed names.
#[derive(Debug)]
pub(crate) struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    pub(crate) fn new() -> Result<Self, BaselineError> {
        let folder = tempfile::Builder::new().prefix("tessera-baseline-").tempdir();
        let make = BaselineError::file("make a folder in", &std::env::temp_dir());
        Ok(Self { folder: folder.map_err(make)? })
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), BaselineError> {
        let path = self.folder.path().join(name);
        std::fs::write(&path, bytes).map_err(BaselineError::file("write", &path))
    }

    /// What a program has written.
    pub(crate) fn read(&self, name: &str) -> Result<Vec<u8>, BaselineError> {
        let path = self.folder.path().join(name);
        let file = File::open(&path).map_err(BaselineError::file("open", &path))?;
        let mut bytes = Vec::new();
        let read = file.take(MOST_BYTES).read_to_end(&mut bytes);
        read.map_err(BaselineError::file("read", &path))?;
        Ok(bytes)
    }
}

fn is_program(path: &PathBuf) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
}

/// A program that has ended by now needs no bound, so that nothing is said if this fails.
fn bound(child: &Child) {
    let most = Rlimit { current: Some(MOST_BYTES), maximum: Some(MOST_BYTES) };
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let bounded = pid.map(|pid| prlimit(Some(pid), Resource::Fsize, most));
    tracing::trace!(?bounded, "a bound of what a program writes");
}

/// Reads all that a program says, and sends the end of it.
fn listen(child: &mut Child) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    let mut pipe = child.stderr.take().expect("it was asked for");
    std::thread::spawn(move || {
        let (mut kept, mut piece) = (Vec::new(), [0; KEPT]);
        while let Ok(len @ 1..) = pipe.read(&mut piece) {
            kept.extend_from_slice(&piece[..len]);
            kept.drain(..kept.len().saturating_sub(KEPT));
        }
        // Nobody listens where the program did what it should.
        let _ = sender.send(String::from_utf8_lossy(&kept).into_owned());
    });
    receiver
}

/// Its end, or `None` if it has none in time and was ended.
fn wait(child: &mut Child, deadline: Duration) -> std::io::Result<Option<ExitStatus>> {
    let (begin, mut pause) = (Instant::now(), Duration::from_micros(500));
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if begin.elapsed() >= deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn tool(program: &'static str) -> Tool {
        Tool { program, package: "coreutils" }
    }

    #[test]
    fn a_program_runs_in_its_folder() {
        let bench = Bench::new().expect("a folder");
        bench.write("in", b"as it is").expect("room");
        tool("cp").run(&["in", "out"], bench.path()).expect("it copies");
        assert_eq!(bench.read("out").expect("written"), b"as it is");
    }

    #[test]
    fn a_failure_has_the_last_line_that_was_said() {
        let bench = Bench::new().expect("a folder");
        let error = tool("cat").run(&["absent"], bench.path()).expect_err("there is none");
        let said = error.to_string();
        assert_eq!(said, "cat: exit status: 1: cat: absent: No such file or directory");
    }

    #[test]
    fn a_program_that_takes_too_long_is_ended() {
        let bench = Bench::new().expect("a folder");
        let begin = Instant::now();
        let ended = tool("sleep").run_until(&["60"], bench.path(), Duration::from_millis(20));
        assert!(ended.expect_err("it sleeps").to_string().contains("not done in 0.02 seconds"));
        assert!(begin.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn a_program_that_is_not_there_is_named_with_its_package() {
        let absent = Tool { program: "tessera-no-such-program", package: "none" };
        let words = absent.missing().expect("there is none of this name");
        let expected = "tessera-no-such-program is not installed: Debian's package none has it";
        assert_eq!(words, expected);
        assert!(tool("cat").missing().is_none());
        let bench = Bench::new().expect("a folder");
        assert!(absent.run(&[], bench.path()).is_err());
    }
}
