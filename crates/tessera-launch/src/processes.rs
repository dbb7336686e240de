//! The processes of a session, read from `/proc`.
//!
//! Open MPI gives each worker a process group of its own, so a signal to mpirun's group does not
//! reach them; the session is what they all share.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

/// How long killed processes may take to be gone.
const PATIENCE: Duration = Duration::from_secs(5);

/// What `/proc/PID/stat` says about a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProcessState {
    /// `R`, `S`, `D`, `T` (stopped), `Z` (ended, not reaped), ...
    pub(crate) letter: char,
    /// Id of the session.
    pub(crate) session: i32,
}

/// The state of process `pid` on this host; `None` if there is none.
pub(crate) fn state_of(pid: i32) -> Option<ProcessState> {
    parse_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Kills every process of `session` and returns when none is left, or after a few seconds.
///
/// The orphans among them are ours to reap, since the launcher is their subreaper.
pub(crate) fn end_session(session: Pid) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let members = members(session);
        for &(pid, letter) in &members {
            if letter == 'Z' {
                let _ = waitpid(Some(pid), WaitOptions::NOHANG);
            } else {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        if members.is_empty() {
            return;
        }
        if Instant::now() > deadline {
            tracing::warn!(session = session.as_raw_nonzero(), "processes do not end when killed");
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn members(session: Pid) -> Vec<(Pid, char)> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let mut members = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(raw) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let (Some(pid), Some(state)) = (Pid::from_raw(raw), state_of(raw)) else { continue };
        if state.session == session.as_raw_nonzero().get() {
            members.push((pid, state.letter));
        }
    }
    members
}

/// The name in parentheses may hold spaces and parentheses, so the fields start after the last one.
fn parse_stat(stat: &str) -> Option<ProcessState> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let letter = fields.next()?.chars().next()?;
    let session = fields.nth(2)?.parse().ok()?; // Parent and group lie between.
    Some(ProcessState { letter, session })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let stat = "42 (a) (b c) T 7 41 40 0 -1 4194560";
        assert_eq!(parse_stat(stat), Some(ProcessState { letter: 'T', session: 40 }));
    }

    #[test]
    fn the_own_process_is_running_and_no_process_is_not_there() {
        let own = state_of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(matches!(own.letter, 'R' | 'S'));
        assert_eq!(state_of(i32::MAX), None);
    }
}
