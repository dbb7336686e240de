//! `tessera chaos`: lets things go wrong on purpose, and checks that nothing is lost.
//!
//! First the run is made undisturbed. Then, for every fault and round, it is made again and
//! disturbed: the launcher has to end it with the right code and name the culprit, or to see it
//! through; and after a resume rows of metrics and all tensors have to be those of the undisturbed
//! run, bit for bit.

mod catalogue;
mod disturb;
mod network;
pub(crate) mod players;
mod rivals;
mod simulate;
mod surroundings;
mod trouble;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use tessera_checkpoint::{Checkpoint, CheckpointError, diff, newest_good};
use tessera_control::{ExitCode, MEASURED};

use crate::failure::Failure;
use catalogue::{CASES, Case, Draws};
use disturb::Run;

/// Let workers, storage and launcher fail on purpose, and check that nothing is lost.
#[derive(Debug, Args)]
pub(crate) struct ChaosArgs {
    /// Configuration file (TOML) of the run that is disturbed; a short one.
    #[arg(long, value_name = "FILE", required_unless_present = "simulate")]
    config: Option<PathBuf>,
    /// Set a key over the file, as often as wanted.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Names of faults, with commas between them; a beginning stands for all that begin so; `all`
    /// for all; `list` prints them.
    #[arg(long, value_name = "NAMES", default_value = "all")]
    faults: String,
    /// Which ranks, steps and bits are hit.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How often each fault is tried, each time at another place.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    /// Kills of the one run of `many-kills`, and what happens to that of `many-rivals`.
    #[arg(long, value_name = "N", default_value_t = 10)]
    kills: u64,
    /// Workers of a run.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..))]
    nproc: u64,
    /// Folder for the runs; those of faults that were passed are removed. A temporary one without.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Play so many ranks in one process instead, and measure the launcher: its processor time, memory,
    /// descriptors, and how long its verdict takes after a start, a death, a silent host, and restarts.
    #[arg(long, value_name = "RANKS", value_parser = clap::value_parser!(u64).range(simulate::FEWEST..=100_000))]
    simulate: Option<u64>,
    /// Print what was measured as JSON.
    #[arg(long, requires = "simulate")]
    json: bool,
    /// Longest time that a run may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    limit: u64,
}

/// Runs the matrix; 1 if any fault was not passed.
pub(crate) fn run(args: &ChaosArgs) -> Result<ExitCode, Failure> {
    if let Some(ranks) = args.simulate {
        return simulate::run(ranks as usize, args.json, Duration::from_secs(args.limit));
    }
    let mut out = std::io::stdout().lock();
    if args.faults == "list" {
        for case in CASES {
            writeln!(out, "{:<16} {}", case.name, case.meaning)?;
        }
        return Ok(ExitCode::Done);
    }
    let cases = chosen(&args.faults)?;
    let root = match &args.out {
        Some(path) => path.clone(),
        None => std::env::temp_dir().join(format!("tessera-chaos-{}", std::process::id())),
    };
    std::fs::create_dir_all(&root)
        .map_err(|error| Failure::bad_input(format!("cannot make {}: {error}", root.display())))?;
    let config = args.config.as_deref().expect("clap asks for it where nothing is simulated");
    let setting = Setting {
        config,
        set: &args.set,
        nproc: args.nproc as usize,
        kills: args.kills,
        limit: Duration::from_secs(args.limit),
    };
    let expected = Undisturbed::make(&setting, &root.join("undisturbed"))?;
    writeln!(
        out,
        "undisturbed: {} steps, {} workers, {:.1} s",
        expected.steps, args.nproc, expected.seconds
    )?;
    writeln!(out, "\n| fault | round | result | seconds | what |\n|---|---|---|---|---|")?;
    let (mut tried, mut failed) = (0, 0);
    for round in 0..args.rounds {
        for case in &cases {
            let folder = root.join(format!("{}-{round}", case.name));
            let mut draws = Draws::new(args.seed, case.name, round);
            let begun = Instant::now();
            let result = case.run(&setting, &expected, &folder, &mut draws);
            let seconds = begun.elapsed().as_secs_f64();
            tried += 1;
            let (word, what) = match result {
                Ok(what) => {
                    let _ = std::fs::remove_dir_all(&folder);
                    ("ok", what)
                }
                Err(what) => {
                    failed += 1;
                    ("FAILED", format!("{what} (run folder {})", folder.display()))
                }
            };
            let what = what.replace(['\n', '|'], " ");
            writeln!(out, "| {} | {round} | {word} | {seconds:.1} | {what} |", case.name)?;
            out.flush()?;
        }
    }
    writeln!(out, "\n{tried} runs disturbed, {failed} of them not as promised")?;
    if failed > 0 {
        let message = format!("{failed} of {tried} faults were not passed");
        return Err(Failure::new(ExitCode::Failed, message));
    }
    if args.out.is_none() {
        let _ = std::fs::remove_dir_all(&root);
    }
    Ok(ExitCode::Done)
}

fn chosen(names: &str) -> Result<Vec<&'static Case>, Failure> {
    if names == "all" {
        return Ok(CASES.iter().collect());
    }
    let mut cases = Vec::new();
    for name in names.split(',').map(str::trim) {
        let before = cases.len();
        cases.extend(CASES.iter().filter(|case| case.name.starts_with(name)));
        if cases.len() == before || name.is_empty() {
            let known: Vec<&str> = CASES.iter().map(|case| case.name).collect();
            let known = known.join(", ");
            return Err(Failure::bad_input(format!("no fault {name:?}: there are {known}")));
        }
    }
    Ok(cases)
}

/// What is run.
struct Setting<'a> {
    config: &'a Path,
    set: &'a [String],
    nproc: usize,
    kills: u64,
    limit: Duration,
}

/// The run that all others have to end like.
struct Undisturbed {
    folder: PathBuf,
    last: Checkpoint,
    steps: u64,
    seconds: f64,
}

/// The newest good checkpoint of a run, and what was wrong with newer ones.
fn last_good(folder: &Path) -> Result<(Option<Checkpoint>, Vec<CheckpointError>), String> {
    let told = |error: CheckpointError| error.to_string();
    let (found, refused) = newest_good(&folder.join("checkpoints"), |_| true).map_err(told)?;
    let read = found.map(|found| Checkpoint::read(&found.path)).transpose().map_err(told)?;
    Ok((read, refused))
}

impl Undisturbed {
    fn make(setting: &Setting<'_>, folder: &Path) -> Result<Self, Failure> {
        let begun = Instant::now();
        let ended = Run::new(setting, folder).to_end().map_err(|problem| {
            Failure::bad_input(format!("the undisturbed run cannot be made: {problem}"))
        })?;
        if ended.code != Some(0) {
            let message = format!("the undisturbed run fails: {}", ended.last_line());
            return Err(Failure::bad_input(message));
        }
        let seconds = begun.elapsed().as_secs_f64();
        let made = Self::of(folder).map_err(Failure::bad_input)?;
        let steps = made.steps;
        if steps < 10 {
            return Err(Failure::bad_input(format!(
                "a run of {steps} steps is too short to be disturbed: set train.steps to 10 or more"
            )));
        }
        Ok(Self { seconds, ..made })
    }

    /// What a run that has ended has left.
    fn of(folder: &Path) -> Result<Self, String> {
        let (last, _) = last_good(folder)?;
        let last = last.ok_or("the undisturbed run has left no checkpoint")?;
        let steps = last.manifest.step;
        Ok(Self { folder: folder.to_owned(), last, steps, seconds: 0.0 })
    }

    /// The largest difference of a number in the last state or in a row of another run, on any number
    /// of workers, relative to that number where it is larger than one.
    fn distance(&self, folder: &Path) -> Result<f64, String> {
        let other = Self::of(folder)?;
        let difference = diff(&self.last, &other.last);
        let tensors = difference.tensors.iter();
        let tensors = tensors.map(|tensor| match tensor.form {
            None => tensor.max_abs,
            Some(_) => f64::INFINITY,
        });
        let mut away = tensors.fold(0.0, f64::max);
        for file in ["metrics.jsonl", "eval.jsonl"] {
            let (ours, theirs) = (rows(&self.folder, file)?, rows(folder, file)?);
            if ours.len() != theirs.len() {
                return Err(format!("{file} has {} rows, not {}", theirs.len(), ours.len()));
            }
            for (ours, theirs) in ours.iter().zip(&theirs) {
                let ours = ours.as_object().into_iter().flatten();
                let ours = ours.filter(|(key, _)| *key != "world_size");
                for (key, ours) in ours.filter_map(|(key, value)| Some((key, value.as_f64()?))) {
                    let theirs = theirs[key].as_f64().ok_or(format!("{file} has no {key}"))?;
                    away = away.max((ours - theirs).abs() / ours.abs().max(1.0));
                }
            }
        }
        Ok(away)
    }

    /// Whether a run has ended in the same state, with the same rows.
    fn check(&self, folder: &Path) -> Result<(), String> {
        let (found, refused) = last_good(folder)?;
        if let Some(error) = refused.first() {
            return Err(format!("a checkpoint cannot be loaded: {error}"));
        }
        let found = found.ok_or("there is no checkpoint")?;
        if found.manifest.step != self.steps {
            return Err(format!("it ended at step {}, not {}", found.manifest.step, self.steps));
        }
        let difference = diff(&self.last, &found);
        if let Some(tensor) = difference.tensors.first() {
            let (name, count) = (&tensor.name, difference.tensors.len());
            return Err(format!("{count} tensors differ, such as {name}"));
        }
        for file in ["metrics.jsonl", "eval.jsonl"] {
            let (ours, theirs) = (rows(&self.folder, file)?, rows(folder, file)?);
            if ours.len() != theirs.len() {
                let (ours, theirs) = (ours.len(), theirs.len());
                return Err(format!("{file} has {theirs} rows, not {ours}"));
            }
            if let Some(at) = (0..ours.len()).find(|&at| ours[at] != theirs[at]) {
                return Err(format!("row {} of {file} differs", at + 1));
            }
        }
        Ok(())
    }
}

/// Rows of a file of a run, without what is measured.
fn rows(folder: &Path, file: &str) -> Result<Vec<serde_json::Value>, String> {
    let text = std::fs::read_to_string(folder.join(file)).unwrap_or_default();
    let mut rows = Vec::new();
    for line in text.lines() {
        let mut row: serde_json::Value =
            serde_json::from_str(line).map_err(|error| format!("{file}: {error}"))?;
        if let Some(row) = row.as_object_mut() {
            for measured in MEASURED {
                row.remove(measured);
            }
        }
        rows.push(row);
    }
    Ok(rows)
}
