//! The configuration, resolved once before any worker starts.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use serde::Deserialize;
use tessera_control::{ExitCode, LimitsConfig, TrackConfig};

use crate::LaunchError;
use crate::listener::{Event, Stream, forward_lines};
use crate::session::Session;

/// What the worker resolved; everything but four values is opaque to the launcher.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Resolved {
    /// The worker's line, which every worker gets as it is.
    pub(crate) line: String,
    /// The run folder.
    pub(crate) run_dir: PathBuf,
    /// Optimiser steps of the whole run.
    pub(crate) steps: u64,
    /// How long workers may do nothing.
    pub(crate) limits: LimitsConfig,
    /// Trackers beside the run.
    pub(crate) track: TrackConfig,
}

#[derive(Deserialize)]
struct Head {
    #[serde(with = "tessera_control::path_json")]
    run_dir: PathBuf,
    steps: u64,
    config: Config,
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    limits: LimitsConfig,
    #[serde(default)]
    metrics: Metrics,
}

#[derive(Default, Deserialize)]
struct Metrics {
    #[serde(default)]
    track: TrackConfig,
}

/// Runs `WORKER resolve --nproc N ARGS...` with these variables; its stderr goes to the user as it is.
///
/// # Errors
///
/// [`LaunchError::Refused`] with the worker's own code, [`LaunchError::StoppedEarly`] on a signal.
pub(crate) fn resolve(
    worker: &Path,
    world_size: usize,
    args: &[OsString],
    variables: &[(OsString, OsString)],
    sender: &Sender<Event>,
    events: &Receiver<Event>,
) -> Result<Resolved, LaunchError> {
    let mut arguments: Vec<OsString> =
        vec!["resolve".into(), "--nproc".into(), world_size.to_string().into()];
    arguments.extend(args.iter().cloned());
    let mut session = Session::start(worker, &arguments, variables, &[], &[], Stdio::inherit())?;
    if let Some(stdout) = session.child().stdout.take() {
        forward_lines(stdout, Stream::Out, sender.clone())
            .map_err(LaunchError::system("start a thread"))?;
    }
    let mut last = String::new();
    loop {
        match events.recv_timeout(Duration::from_secs(1)) {
            Ok(Event::Line { text, .. }) if !text.trim().is_empty() => last = text,
            Ok(Event::EndOfStream) | Err(RecvTimeoutError::Disconnected) => break,
            Ok(Event::Signal(_)) => return Err(LaunchError::StoppedEarly),
            Ok(_) | Err(RecvTimeoutError::Timeout) => {}
        }
    }
    let status =
        session.child().wait().map_err(LaunchError::system("wait for `tessera-worker resolve`"))?;
    match status.code() {
        Some(0) => parse(last),
        Some(code) => Err(LaunchError::Refused { code: ExitCode::from(code) }),
        None => Err(LaunchError::Resolve { problem: format!("ended by {status}") }),
    }
}

fn parse(line: String) -> Result<Resolved, LaunchError> {
    let head: Head = serde_json::from_str(&line).map_err(|error| LaunchError::Resolve {
        problem: format!("printed no resolved configuration ({error})"),
    })?;
    let Head { run_dir, steps, config: Config { limits, metrics } } = head;
    Ok(Resolved { line, run_dir, steps, limits, track: metrics.track })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_launcher_does_not_know_is_kept() {
        let line =
            r#"{"run_dir":"runs/a b","steps":7,"config":{"seed":0,"limits":{"late_seconds":9}}}"#;
        let resolved = parse(line.into()).unwrap();
        assert_eq!((resolved.run_dir, resolved.steps), (PathBuf::from("runs/a b"), 7));
        assert_eq!(resolved.limits, LimitsConfig { late_seconds: 9.0, ..LimitsConfig::default() });
        assert_eq!((&resolved.line, resolved.track), (&line.to_owned(), TrackConfig::default()));
        let line = r#"{"run_dir":"a","steps":7,"config":{"metrics":{"every":1,"track":{"to":["wandb"]}}}}"#;
        assert_eq!(parse(line.into()).unwrap().track.to, ["wandb"]);
        // A name that is not UTF-8 comes as its bytes.
        let line = r#"{"run_dir":[114,233],"steps":7,"config":{}}"#;
        let run_dir = parse(line.into()).unwrap().run_dir;
        assert_eq!(std::os::unix::ffi::OsStrExt::as_bytes(run_dir.as_os_str()), b"r\xe9");
        assert!(parse("hello".into()).is_err());
    }
}
