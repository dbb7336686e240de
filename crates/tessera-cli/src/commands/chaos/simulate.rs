//! `tessera chaos --simulate N`: the real launcher with N ranks that one process plays.
//!
//! What is measured is the launcher's own: processor time, memory, descriptors, and how long it takes from
//! what happens to its verdict. Only mpirun and the ranks are played ([`super::players`]); the network is this
//! host's loopback.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde::Serialize;
use tessera_control::ExitCode;

use super::players::{Happened, PLAYERS, RANKS_A_HOST, Scenario, What, host_of, unix_seconds};
use crate::failure::Failure;

/// Seconds from what happens to the verdict, beside a limit that has to pass first.
const VERDICT: f64 = 5.0;
/// Seconds that a worker of the simulation may be silent.
const SILENCE: u64 = 5;
/// How often the launcher starts all again in a storm of restarts.
const RESTARTS: u32 = 5;
/// Time between two looks at the launcher.
const LOOK: Duration = Duration::from_millis(50);
/// Ticks a second in `/proc/PID/stat`, whatever the kernel counts in (`USER_HZ`).
const TICKS: f64 = 100.0;
/// Descriptors that may be more after a storm of restarts.
const SPARE_FILES: usize = 16;

/// What a scenario has come to.
#[derive(Debug, Serialize)]
struct Row {
    scenario: What,
    ranks: usize,
    /// From what happens to the verdict; of a start, from mpirun's to that all ranks are taken; of restarts, the
    /// longest from a death until all are back.
    seconds: f64,
    /// How long that may be.
    limit_seconds: f64,
    /// Processor time of the launcher while all ranks live and speak, of one core.
    cpu_percent: f64,
    /// Of the whole launch, in seconds.
    cpu_seconds: f64,
    /// Most memory of the launcher.
    peak_mib: f64,
    /// Most descriptors of the launcher.
    descriptors: usize,
    exit_code: Option<i32>,
    /// What is not as it should be; empty: nothing.
    problem: String,
    /// The launcher's last line.
    said: String,
}

/// Plays all scenarios; 1 if one was not as it should be.
pub(super) fn run(ranks: usize, json: bool, limit: Duration) -> Result<ExitCode, Failure> {
    let mut out = std::io::stdout().lock();
    let root = std::env::temp_dir().join(format!("tessera-simulate-{}", std::process::id()));
    let mut rows = Vec::new();
    if !json {
        writeln!(
            out,
            "| {ranks} ranks | result | seconds | limit | CPU, % of a core | CPU, s | memory, MiB | descriptors | what \
             |\n|---|---|---|---|---|---|---|---|---|"
        )?;
    }
    for (what, hold_seconds, restarts) in [
        (What::Start, 5.0, 0),
        (What::Death, 3.0, 0),
        (What::SilentHost, 3.0, 0),
        (What::Restarts, 1.5, RESTARTS),
    ] {
        let folder = root.join(format!("{what:?}"));
        let scenario = Scenario { what, hold_seconds, restarts };
        let row = play(&folder, scenario, ranks, limit)
            .map_err(|problem| Failure::new(ExitCode::Failed, problem))?;
        if !json {
            writeln!(out, "{}", line(&row))?;
            out.flush()?;
        }
        rows.push(row);
    }
    let failed = rows.iter().filter(|row| !row.problem.is_empty()).count();
    if json {
        writeln!(out, "{}", serde_json::to_string(&rows).expect("plain data"))?;
    }
    if failed > 0 {
        let (tried, root) = (rows.len(), root.display());
        let message = format!("{failed} of {tried} scenarios were not as promised; logs in {root}");
        return Err(Failure::new(ExitCode::Failed, message));
    }
    let _ = fs::remove_dir_all(&root);
    Ok(ExitCode::Done)
}

fn line(row: &Row) -> String {
    let name = match row.scenario {
        What::Start => "start",
        What::Death => "a death",
        What::SilentHost => "a silent host",
        What::Restarts => "restarts",
    };
    let (result, what) = match row.problem.as_str() {
        // Where the folder was, nobody needs to know: it is gone.
        "" => ("ok", row.said.split("; run folder").next().unwrap_or_default()),
        problem => ("FAILED", problem),
    };
    let what = what.replace(['\n', '|'], " ");
    format!(
        "| {name} | {result} | {:.2} | {:.0} | {:.1} | {:.1} | {:.1} | {} | {what} |",
        row.seconds,
        row.limit_seconds,
        row.cpu_percent,
        row.cpu_seconds,
        row.peak_mib,
        row.descriptors
    )
}

/// A shell script that becomes a command.
fn script(path: &Path, words: &[&Path], end: &str) -> std::io::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let mut text = b"#!/bin/sh\nexec".to_vec();
    for word in words {
        text.extend_from_slice(b" '");
        for &byte in word.as_os_str().as_bytes() {
            match byte {
                b'\'' => text.extend_from_slice(br"'\''"),
                byte => text.push(byte),
            }
        }
        text.push(b'\'');
    }
    text.extend_from_slice(end.as_bytes());
    text.push(b'\n');
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

/// A launcher that is looked at; it does not outlive this.
struct Launcher {
    child: Child,
    looks: Vec<Look>,
}

impl Drop for Launcher {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The launcher at one moment.
#[derive(Debug, Clone, Copy)]
struct Look {
    unix_seconds: f64,
    cpu_seconds: f64,
    descriptors: usize,
    peak_mib: f64,
}

impl Look {
    fn at(pid: u32) -> Option<Self> {
        let of = |name: &str| format!("/proc/{pid}/{name}");
        let stat = fs::read_to_string(of("stat")).ok()?;
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
        let (user, system): (f64, f64) =
            (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        let status = fs::read_to_string(of("status")).ok()?;
        let peak = status.lines().find(|line| line.starts_with("VmHWM:"))?;
        let peak_kib: f64 = peak.split_whitespace().nth(1)?.parse().ok()?;
        Some(Self {
            unix_seconds: unix_seconds(),
            cpu_seconds: (user + system) / TICKS,
            descriptors: fs::read_dir(of("fd")).ok()?.count(),
            peak_mib: peak_kib / 1024.0,
        })
    }
}

/// Plays one scenario with the real launcher.
fn play(folder: &Path, scenario: Scenario, ranks: usize, limit: Duration) -> Result<Row, String> {
    let said = |action: &str| {
        let action = action.to_owned();
        move |error: std::io::Error| format!("cannot {action}: {error}")
    };
    let run_dir = folder.join("run");
    fs::create_dir_all(&run_dir).map_err(said("make a folder"))?;
    let program = std::env::current_exe().map_err(said("find the own executable"))?;
    let (mpirun, worker) = (folder.join("mpirun"), folder.join("worker"));
    script(&mpirun, &[&program, Path::new(PLAYERS), folder], " \"$@\"")
        .and_then(|()| script(&worker, &[Path::new("cat"), &folder.join("resolved.json")], ""))
        .map_err(said("write a script"))?;
    let resolved = serde_json::json!({
        "run_dir": run_dir.to_string_lossy(), "steps": 1000, "config": {}
    });
    let texts = [
        ("resolved.json", resolved.to_string() + "\n"),
        ("scenario.json", serde_json::to_string(&scenario).expect("plain data")),
    ];
    for (name, text) in texts {
        fs::write(folder.join(name), text).map_err(said("write a file"))?;
    }
    let log = folder.join("log");
    let file = fs::File::create(&log).map_err(said("write a log"))?;
    let mut command = Command::new(&program);
    command.args(["launch", "--nproc", &ranks.to_string(), "--silence", &SILENCE.to_string()]);
    command.args(["--max-restarts", &scenario.restarts.to_string(), "--mpirun"]).arg(&mpirun);
    command.args(["--", "train"]).env(tessera_launch::WORKER, &worker).stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(file);
    let child = command.spawn().map_err(said("start the launcher"))?;
    let mut launcher = Launcher { child, looks: Vec::new() };
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = launcher.child.try_wait().map_err(said("wait for the launcher"))? {
            break status;
        }
        if begun.elapsed() > limit {
            return Err(format!("the launcher did not end; its log is {}", log.display()));
        }
        launcher.looks.extend(Look::at(launcher.child.id()));
        std::thread::sleep(LOOK);
    };
    let ended = unix_seconds();
    let happened = happened(folder)?;
    let text = fs::read_to_string(&log).unwrap_or_default();
    let last = text.lines().last().unwrap_or_default().to_owned();
    Ok(judge(scenario, ranks, &launcher.looks, &happened, (status.code(), ended), last))
}

fn happened(folder: &Path) -> Result<Vec<Happened>, String> {
    let path: PathBuf = folder.join("events.jsonl");
    let text = fs::read_to_string(&path)
        .map_err(|error| format!("no rank was started: {}: {error}", path.display()))?;
    let lines = text.lines().map(serde_json::from_str);
    lines.collect::<Result<_, _>>().map_err(|error| error.to_string())
}

/// What the looks, and what happened meanwhile, say of the launcher.
fn judge(
    scenario: Scenario,
    ranks: usize,
    looks: &[Look],
    happened: &[Happened],
    (exit_code, ended): (Option<i32>, f64),
    said: String,
) -> Row {
    let when = |what: &str, restart: u32| {
        let found = happened.iter().find(|one| one.what == what && one.restart == restart);
        found.map(|one| one.unix_seconds)
    };
    let between = |from: Option<f64>, to: Option<f64>| {
        from.zip(to).map_or(f64::INFINITY, |(from, to)| to - from)
    };
    let (seconds, limit_seconds) = match scenario.what {
        What::Start => (between(when("begun", 0), when("here", 0)), VERDICT),
        What::Death => (between(when("fault", 0), Some(ended)), VERDICT),
        #[expect(clippy::cast_precision_loss, reason = "seconds")]
        What::SilentHost => (between(when("fault", 0), Some(ended)), SILENCE as f64 + VERDICT),
        What::Restarts => {
            let gaps = (0..scenario.restarts)
                .map(|restart| between(when("fault", restart), when("here", restart + 1)));
            (gaps.fold(0.0, f64::max), 2.0 * VERDICT) // a death and a start
        }
    };
    let steady: Vec<&Look> = match when("here", 0) {
        Some(here) => {
            let until = here + scenario.hold_seconds;
            looks.iter().filter(|l| (here + 0.5..until).contains(&l.unix_seconds)).collect()
        }
        None => Vec::new(),
    };
    let cpu_percent = match (steady.first(), steady.last()) {
        (Some(first), Some(last)) if last.unix_seconds > first.unix_seconds => {
            let took = last.unix_seconds - first.unix_seconds;
            100.0 * (last.cpu_seconds - first.cpu_seconds) / took
        }
        _ => 0.0,
    };
    let descriptors = looks.iter().map(|look| look.descriptors).max().unwrap_or(0);
    let of_first =
        happened.iter().find(|one| one.restart == 1).map_or(f64::INFINITY, |one| one.unix_seconds);
    let before = looks.iter().filter(|look| look.unix_seconds < of_first);
    let at_first = before.map(|look| look.descriptors).max().unwrap_or(0);
    let victim = scenario.victim(ranks);
    let (code, words) = match scenario.what {
        What::Start | What::Restarts => (0, String::new()),
        What::Death => (3, format!("worker lost: rank {victim} on host {}", host_of(victim))),
        What::SilentHost => (4, format!(" on host {}", host_of(victim))),
    };
    let problem = if exit_code != Some(code) || !said.contains(&words) {
        format!("ended with {exit_code:?} where {code} and {words:?} were expected: {said}")
    } else if seconds > limit_seconds {
        format!("took {seconds:.1} s, more than {limit_seconds} s")
    } else if descriptors > at_first + SPARE_FILES {
        format!("{at_first} descriptors at the first start, {descriptors} later")
    } else {
        String::new()
    };
    Row {
        scenario: scenario.what,
        ranks,
        seconds,
        limit_seconds,
        cpu_percent,
        cpu_seconds: looks.last().map_or(0.0, |look| look.cpu_seconds),
        peak_mib: looks.last().map_or(0.0, |look| look.peak_mib),
        descriptors,
        exit_code,
        problem,
        said,
    }
}

/// The fewest ranks with which every scenario has somebody left.
pub(super) const FEWEST: u64 = 2 * RANKS_A_HOST as u64;
