//! Whether a run that says that it goes on still does.
//!
//! The launcher writes `workers.json` each second, and rank 0 touches `status.json` every few seconds. The
//! time is measured here, between two looks at which the files differ: clocks of other hosts do not count.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use tessera_control::{RunState, RunStatus};

use super::RESTART;

/// What a run writes again and again.
const FILES: [&str; 4] = ["status.json", "workers.json", "metrics.jsonl", "eval.jsonl"];
/// After so long without a sign a run is lost.
const SILENT: Duration = Duration::from_secs(60);
/// The same of one whose set-up still goes on, or of an older version, which gives fewer signs.
const SILENT_AT_FIRST: Duration = Duration::from_secs(300);

/// When a run folder was last seen to change.
pub(in crate::commands) struct Pulse {
    seen: [Option<(SystemTime, u64)>; FILES.len()],
    since: Instant,
}

impl Pulse {
    /// Begins to watch.
    pub(in crate::commands) fn of(run_dir: &Path, now: Instant) -> Self {
        Self { seen: look(run_dir), since: now }
    }

    /// Looks again, and says why the run is taken for lost, if it is.
    pub(in crate::commands) fn lost(
        &mut self,
        run_dir: &Path,
        status: Option<&RunStatus>,
        now: Instant,
    ) -> Option<String> {
        let seen = look(run_dir);
        if seen != self.seen {
            *self = Self { seen, since: now };
        }
        if status.is_some_and(|status| status.state != RunState::Running) {
            return None;
        }
        let silent = now.saturating_duration_since(self.since);
        let seconds = silent.as_secs();
        const DO: &str = "the command that started it resumes from the newest checkpoint";
        match status.and_then(|status| status.process.as_ref()) {
            // Its launcher may be about to start it again.
            Some(process) if process.lives() == Some(false) && silent >= RESTART => Some(format!(
                "process {} on this host, rank 0 of the run, is gone, and nothing was written for \
                 {seconds} s; {DO}",
                process.pid
            )),
            Some(process) if silent >= SILENT => Some(format!(
                "nothing was written for {seconds} s by process {} on host {}, rank 0 of the run; {DO}",
                process.pid, process.host
            )),
            None if silent >= SILENT_AT_FIRST => {
                Some(format!("nothing was written for {seconds} s; {DO}"))
            }
            _ => None,
        }
    }
}

fn look(run_dir: &Path) -> [Option<(SystemTime, u64)>; FILES.len()] {
    FILES.map(|name| {
        let about = run_dir.join(name).metadata().ok()?;
        Some((about.modified().ok()?, about.len()))
    })
}

#[cfg(test)]
mod tests {
    use tessera_control::Process;

    use super::*;

    fn running(process: Option<Process>) -> RunStatus {
        let (state, message) = (RunState::Running, String::new());
        let attempt = None;
        RunStatus { state, exit_code: None, step: 7, world_size: 1, message, process, attempt }
    }

    #[test]
    fn a_run_whose_process_is_gone_is_lost_soon_and_one_elsewhere_after_a_minute() {
        let run = tempfile::tempdir().unwrap();
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let lost = |process: Option<Process>, seconds| {
            let mut pulse = Pulse::of(run.path(), start);
            pulse.lost(run.path(), Some(&running(process)), after(seconds))
        };
        let alive = Process::own();
        // Another process that had the id of this one.
        let gone = Process { started: alive.started + 1, ..alive.clone() };
        let away = Process { place: "elsewhere".into(), host: "node7".into(), ..alive.clone() };
        assert_eq!(lost(Some(gone.clone()), 11), None);
        assert!(lost(Some(gone), 12).unwrap().contains("is gone"));
        assert_eq!(lost(Some(away.clone()), 59), None);
        assert!(lost(Some(away), 60).unwrap().contains("for 60 s by process"));
        assert!(lost(Some(alive), 60).is_some(), "a stopped process gives no sign either");
        assert_eq!(lost(None, 299), None);
        assert!(lost(None, 300).is_some());
    }

    #[test]
    fn each_change_of_a_file_and_an_end_that_was_told_count() {
        let run = tempfile::tempdir().unwrap();
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let status = running(Some(Process { place: "elsewhere".into(), ..Process::own() }));
        let mut pulse = Pulse::of(run.path(), start);
        std::fs::write(run.path().join("metrics.jsonl"), "{}\n").unwrap();
        assert_eq!(pulse.lost(run.path(), Some(&status), after(70)), None);
        assert_eq!(pulse.lost(run.path(), Some(&status), after(129)), None);
        assert!(pulse.lost(run.path(), Some(&status), after(130)).is_some());
        let done = RunStatus { state: RunState::Done, ..status };
        assert_eq!(pulse.lost(run.path(), Some(&done), after(900)), None);
    }
}
