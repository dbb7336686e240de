//! Trackers beside a run: a `tessera track --follow` for each, which no worker and no end waits for.
//!
//! A child writes its lines to `RUN/logs/track-NAME.log` itself, so that the launcher touches no storage for it. At
//! the end of the run each gets a last turn of limited length; what is not sent by then, a later command sends.

use std::cell::RefCell;
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tessera_control::TrackConfig;

use crate::child::Child;

/// How long the last turn of all of them may take.
const LAST_TURN: Duration = Duration::from_secs(10);
/// Between two looks whether they have ended.
const LOOK: Duration = Duration::from_millis(20);
/// What is added to their nice value.
const NICE: i32 = 10;

/// The trackers of one run.
#[derive(Debug)]
pub(crate) struct Trackers {
    config: TrackConfig,
    run_dir: PathBuf,
    children: RefCell<Vec<(String, Child)>>,
}

impl Trackers {
    /// Those that the configuration names; none runs yet.
    pub(crate) fn new(config: &TrackConfig, run_dir: &Path) -> Self {
        let (config, run_dir) = (config.clone(), run_dir.to_owned());
        Self { config, run_dir, children: RefCell::default() }
    }

    /// Starts them, once the workers have the run folder; does nothing at a second call. To be called from the main
    /// thread: they end with the *thread* that started them.
    pub(crate) fn start(&self) {
        let mut children = self.children.borrow_mut();
        if !children.is_empty() {
            return;
        }
        for name in &self.config.to {
            let started =
                File::options().write(true).open("/dev/null").map_err(|error| error.to_string());
            let started = started.and_then(|nowhere| {
                let child = Child::start(&self.arguments(name), &[], &[], &nowhere);
                child.map_err(|error| error.to_string())
            });
            match started {
                Ok(child) => {
                    child.yield_to_others(NICE);
                    children.push((name.clone(), child));
                }
                Err(error) => tracing::warn!("{name} gets no rows while the run goes on: {error}"),
            }
        }
    }

    fn arguments(&self, name: &str) -> Vec<OsString> {
        let log = self.run_dir.join(format!("logs/track-{name}.log"));
        let mut arguments: Vec<OsString> =
            ["track", "--follow", "--to", name].map(OsString::from).into();
        arguments.extend(["--live".into(), log.into()]);
        for (option, value) in [("--project", &self.config.project), ("--uri", &self.config.uri)] {
            if !value.is_empty() {
                arguments.extend([option.into(), value.into()]);
            }
        }
        if self.config.eager {
            arguments.push("--eager".into());
        }
        arguments.extend(["--".into(), self.run_dir.clone().into()]);
        arguments
    }

    /// Lets each take its last turn, for a limited time.
    pub(crate) fn end(&self) {
        let mut children = self.children.borrow_mut();
        for (_, child) in children.iter_mut() {
            child.ask_to_stop();
        }
        let deadline = Instant::now() + LAST_TURN;
        let is_open = |children: &mut Vec<(String, Child)>| {
            children.iter_mut().any(|(_, child)| child.status().is_none())
        };
        while is_open(&mut children) && Instant::now() < deadline {
            std::thread::sleep(LOOK);
        }
        for (name, mut child) in children.drain(..) {
            let run = self.run_dir.display();
            if child.status().is_none_or(|status| !status.success()) {
                tracing::warn!(
                    "{name} has not got all rows ({run}/logs/track-{name}.log): `tessera track --to {name} {run}` \
                     sends the rest"
                );
            }
            child.abandon();
        }
    }
}

impl Drop for Trackers {
    /// A launch that fails waits for nothing.
    fn drop(&mut self) {
        self.children.borrow_mut().drain(..).for_each(|(_, child)| child.abandon());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tracker_is_told_where_rows_go_and_where_its_words_go() {
        let config = TrackConfig {
            to: vec!["mlflow".to_owned()],
            project: "demo".to_owned(),
            uri: "http://127.0.0.1:5000".to_owned(),
            eager: true,
        };
        let trackers = Trackers::new(&config, Path::new("runs/a"));
        let words = "track --follow --to mlflow --live runs/a/logs/track-mlflow.log --project demo --uri \
                     http://127.0.0.1:5000 --eager -- runs/a";
        assert_eq!(trackers.arguments("mlflow"), words.split_whitespace().collect::<Vec<_>>());
        trackers.end(); // none was started
    }
}
