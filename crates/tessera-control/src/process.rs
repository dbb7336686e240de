//! Which process writes a run's status, so that whoever reads it later can tell whether it still lives.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

/// Time between two signs of life.
const EVERY: Duration = Duration::from_secs(5);

/// A process, by what no other one has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Name of its host.
    pub host: String,
    /// Its id there.
    pub pid: u32,
    /// When it began, in ticks since the host did: ids are given again.
    pub started: u64,
    /// Where its id holds: one start of one host, and one namespace of ids.
    pub place: String,
}

impl Process {
    /// This process.
    pub fn own() -> Self {
        let pid = std::process::id();
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Self { host, pid, started: started(pid).unwrap_or(0), place: place() }
    }

    /// Whether it runs, or ran, under this kernel: perhaps in another namespace of ids.
    pub fn is_of_this_boot(&self) -> bool {
        let boot = |place: &str| place.split(' ').next().map(str::to_owned);
        boot(&self.place).filter(|id| !id.is_empty()) == boot(&place())
    }

    /// Whether it lives; `None` where that cannot be seen from here.
    pub fn lives(&self) -> Option<bool> {
        (self.place == place()).then(|| started(self.pid) == Some(self.started))
    }
}

/// When a process of this host began; `None` if there is none, or only what its parent has not collected.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; behind it the state is the third field, the start the 22nd.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    fields.nth(18)?.parse().ok().filter(|_| state != "Z")
}

fn place() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let space = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    format!("{} {}", boot.trim(), space.display())
}

/// Shows that this process lives by a file's time of change, from a thread of its own, until it is dropped.
#[derive(Debug)]
pub struct SignOfLife {
    ended: Arc<AtomicBool>,
}

impl SignOfLife {
    /// Begins to touch `file` every few seconds. A file that is not there, or storage that hangs, costs the
    /// sign alone.
    pub fn start(file: &Path) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let (file, until) = (file.to_owned(), Arc::clone(&ended));
        let touch = move || {
            loop {
                std::thread::park_timeout(EVERY);
                if until.load(Ordering::Acquire) {
                    return;
                }
                let opened = fs::File::options().write(true).open(&file);
                let _ = opened.and_then(|file| file.set_modified(SystemTime::now()));
            }
        };
        let _ = std::thread::Builder::new().name("sign-of-life".into()).spawn(touch);
        Self { ended }
    }
}

impl Drop for SignOfLife {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_has_ended_or_whose_id_was_given_again_does_not_live() {
        let own = Process::own();
        assert_eq!(own.lives(), Some(true));
        assert_eq!(Process { started: own.started + 1, ..own.clone() }.lives(), Some(false));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        let theirs = Process { pid, started: started(pid).unwrap_or(1), ..own.clone() };
        child.wait().unwrap();
        assert_eq!(theirs.lives(), Some(false));
        assert_eq!(Process { place: "elsewhere".into(), ..own }.lives(), None);
    }
}
