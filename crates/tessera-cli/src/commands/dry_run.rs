//! `tessera launch --dry-run`: what a training would take, from its first steps.
//!
//! The workers do ten steps as they would, on the same hosts, in a folder beside the run's, and save once. Five of the steps are timed;
//! those before pay for what is done once. The folder is removed again.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use indicatif::{HumanBytes, HumanCount, HumanDuration};
use serde::{Deserialize, Serialize};
use tessera_control::{ExitCode, write_result};
use tessera_launch::{LaunchOptions, Show, Task};

use crate::failure::Failure;

/// Steps that are timed, and as many before them.
const TIMED: u64 = 5;

/// Options of a training that a dry run has its own of.
const REPLACED: [&str; 2] = ["--run-dir", "--resume"];

/// What the worker has resolved, as far as it is needed here.
#[derive(Debug, Deserialize)]
struct Resolved {
    #[serde(with = "tessera_control::path_json")]
    run_dir: PathBuf,
    config: Config,
}

#[derive(Debug, Deserialize)]
struct Config {
    train: Train,
    eval: Every,
    metrics: Every,
    checkpoint: Checkpoint,
    adversarial: Adversarial,
    loss: Loss,
}

impl Config {
    /// Steps between two rows of a dry run: the first row pays for what is done once, the second is timed.
    fn row_every(&self) -> u64 {
        TIMED.min(self.train.steps.div_ceil(2)).max(1)
    }

    /// The step of the last row of a dry run.
    fn last_row(&self) -> u64 {
        let every = self.row_every();
        self.train.steps.min(2 * TIMED) / every * every
    }
}

#[derive(Debug, Deserialize)]
struct Train {
    steps: u64,
    global_batch: u64,
}

#[derive(Debug, Deserialize)]
struct Every {
    every: u64,
}

#[derive(Debug, Deserialize)]
struct Checkpoint {
    every: u64,
    keep: u64,
    keep_every: u64,
    keep_best: u64,
}

#[derive(Debug, Deserialize)]
struct Adversarial {
    start: u64,
    critic_start: u64,
}

#[derive(Debug, Deserialize)]
struct Loss {
    adversarial: f64,
}

/// A row of the steps that were done.
#[derive(Debug, Clone, Deserialize)]
struct Row {
    step: u64,
    step_ms: f64,
    samples_per_second: f64,
    memory_mib: Option<f64>,
    gpu_memory_mib: Option<f64>,
    world_size: u64,
}

/// What the training would take.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Forecast {
    /// Sizes of the model, in words.
    model: String,
    run_dir: String,
    workers: u64,
    steps: u64,
    global_batch: u64,
    /// Mean of the timed steps.
    step_ms: f64,
    samples_per_second: f64,
    /// Of all steps, without evaluations, checkpoints and pictures.
    seconds: f64,
    /// Most memory that rank 0 had.
    memory_mib: Option<f64>,
    /// In use on rank 0's GPU.
    gpu_memory_mib: Option<f64>,
    evaluations: u64,
    checkpoints_written: u64,
    checkpoints_kept: u64,
    checkpoint_bytes: u64,
    rows: u64,
    row_bytes: u64,
    /// Checkpoints that are kept, and rows.
    files_bytes: u64,
    /// What the timed steps have not shown.
    caution: Option<String>,
}

/// Tries the first steps, and says what all of them would take.
pub(crate) fn run(mut options: LaunchOptions, json: bool) -> Result<ExitCode, Failure> {
    if options.task != Task::Train {
        let message = "--dry-run says what a training takes: end the command with `-- train ARGS`";
        return Err(Failure::bad_input(message));
    }
    let Resolved { run_dir, config } = resolve(&options.args)?;
    let folder = Folder::beside(&run_dir);
    options.args = arguments(&options.args, &config, &folder.path);
    options.show = Show::Quiet;
    options.max_restarts = 0;
    options.prometheus = None;
    let ending = tessera_launch::launch(&options)?;
    if !matches!(ending.code, ExitCode::Done | ExitCode::Stopped) {
        return Err(Failure::new(ending.code, ending.message));
    }
    let rows = read_rows(&folder.path)?;
    let Some(row) = rows.last().filter(|row| row.step == config.last_row()) else {
        return Err(Failure::new(ExitCode::Stopped, "stopped before five steps were timed"));
    };
    let sizes = Sizes {
        checkpoint: size_of(&folder.path.join("checkpoints"))?,
        row: size_of(&folder.path.join("metrics.jsonl"))? / rows.len() as u64,
    };
    let forecast = Forecast::of(&config, &run_dir, row, model_of(&folder.path), sizes);
    drop(folder);
    let text = match json {
        true => serde_json::to_string(&forecast).expect("it is plain data") + "\n",
        false => forecast.words(),
    };
    write_result(&text)?;
    Ok(ExitCode::Done)
}

/// What the worker makes of the arguments. It has said itself what is wrong with them.
fn resolve(args: &[OsString]) -> Result<Resolved, Failure> {
    let failed = |problem: String| Failure::new(ExitCode::Failed, problem);
    let worker = tessera_launch::find_worker()?;
    let resolved =
        Command::new(&worker).arg("resolve").args(args).stderr(Stdio::inherit()).output();
    let resolved = resolved.map_err(|error| failed(format!("{}: {error}", worker.display())))?;
    if !resolved.status.success() {
        return Err(Failure::new(
            resolved.status.code().map_or(ExitCode::Failed, ExitCode::from),
            "",
        ));
    }
    serde_json::from_slice(&resolved.stdout)
        .map_err(|error| failed(format!("{} resolves nothing: {error}", worker.display())))
}

/// The same training, but in `folder`, and for its first steps.
fn arguments(given: &[OsString], config: &Config, folder: &Path) -> Vec<OsString> {
    let mut args = Vec::new();
    let mut given = given.iter();
    while let Some(arg) = given.next() {
        let text = arg.to_string_lossy();
        if REPLACED.iter().any(|name| text == *name) {
            given.next();
        } else if !REPLACED.iter().any(|name| text.starts_with(&format!("{name}="))) {
            args.push(arg.clone());
        }
    }
    let steps = config.train.steps;
    let mut sets = vec![
        format!("metrics.every={}", config.row_every()),
        "metrics.images_every=0".to_owned(),
        "metrics.track.to=[]".to_owned(),
        "eval.every=0".to_owned(),
        "checkpoint.every=0".to_owned(),
    ];
    if steps > 2 * TIMED {
        sets.push(format!("train.stop_at={}", 2 * TIMED));
    }
    args.extend(sets.into_iter().flat_map(|set| ["--set".into(), set.into()]));
    args.extend(["--run-dir".into(), folder.into(), "--resume".into(), "never".into()]);
    args
}

/// The folder of a dry run, which is removed with this.
struct Folder {
    path: PathBuf,
    /// What it lies in, where that was not there before.
    around: Option<PathBuf>,
}

impl Folder {
    /// One on the same storage as the run's, of this process alone.
    fn beside(run_dir: &Path) -> Self {
        let mut name = run_dir.file_name().unwrap_or(OsStr::new("run")).to_owned();
        name.push(format!(".dry-run-{}", std::process::id()));
        let around = run_dir.parent().filter(|around| !around.exists()).map(Path::to_owned);
        Self { path: run_dir.with_file_name(name), around }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path); // it may not have been made
        if let Some(around) = &self.around {
            let _ = fs::remove_dir(around); // somebody else may use it by now
        }
    }
}

fn read_rows(folder: &Path) -> Result<Vec<Row>, Failure> {
    let path = folder.join("metrics.jsonl");
    let read = fs::read_to_string(&path);
    let text = read.map_err(|error| unread(&path, &error))?;
    let rows = text.lines().map(serde_json::from_str).collect::<Result<Vec<_>, _>>();
    rows.map_err(|error| unread(&path, &error))
}

fn unread(path: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(ExitCode::Failed, format!("cannot read {}: {error}", path.display()))
}

/// Bytes of a file, or of all files in a folder.
fn size_of(path: &Path) -> Result<u64, Failure> {
    let about = fs::metadata(path).map_err(|error| unread(path, &error))?;
    if !about.is_dir() {
        return Ok(about.len());
    }
    let entries = fs::read_dir(path).map_err(|error| unread(path, &error))?;
    entries.map(|entry| size_of(&entry.map_err(|error| unread(path, &error))?.path())).sum()
}

/// What rank 0 has said of its model.
fn model_of(folder: &Path) -> String {
    #[derive(Deserialize)]
    struct Said {
        message: String,
    }
    let log = fs::read_to_string(folder.join("logs/rank-0.jsonl")).unwrap_or_default();
    let said = log.lines().filter_map(|line| serde_json::from_str::<Said>(line).ok());
    let mut model = said.filter_map(|said| Some(said.message.strip_prefix("model: ")?.to_owned()));
    model.next().unwrap_or_default()
}

/// What was written.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    checkpoint: u64,
    row: u64,
}

impl Forecast {
    fn of(config: &Config, run_dir: &Path, row: &Row, model: String, sizes: Sizes) -> Self {
        let Config { train, eval, metrics, checkpoint, adversarial, loss } = config;
        let times = |every: u64| train.steps.checked_div(every).unwrap_or(0);
        // The last step is saved whether or not it is due.
        let last =
            u64::from(checkpoint.every == 0 || !train.steps.is_multiple_of(checkpoint.every));
        let written = times(checkpoint.every) + last;
        let kept = checkpoint.keep + times(checkpoint.keep_every) + checkpoint.keep_best;
        let kept = written.min(kept);
        let rows = times(metrics.every);
        let begins = adversarial.start.max(adversarial.critic_start);
        let caution = (loss.adversarial > 0.0 && begins > TIMED).then(|| {
            format!("the adversarial loss counts from step {begins} on, and steps take longer then: try with --set adversarial.start=0 --set adversarial.critic_start=0")
        });
        Self {
            model,
            run_dir: run_dir.to_string_lossy().into_owned(),
            workers: row.world_size,
            steps: train.steps,
            global_batch: train.global_batch,
            step_ms: row.step_ms,
            samples_per_second: row.samples_per_second,
            seconds: row.step_ms * train.steps as f64 / 1e3,
            memory_mib: row.memory_mib,
            gpu_memory_mib: row.gpu_memory_mib,
            evaluations: times(eval.every),
            checkpoints_written: written,
            checkpoints_kept: kept,
            checkpoint_bytes: sizes.checkpoint,
            rows,
            row_bytes: sizes.row,
            files_bytes: kept * sizes.checkpoint + rows * sizes.row,
            caution,
        }
    }

    /// For a person.
    fn words(&self) -> String {
        let count = HumanCount;
        let mut text = format!("model   {}\n", self.model);
        let mib = |mib: f64| HumanBytes((mib * f64::from(1 << 20)) as u64);
        let host = self.memory_mib.map(|host| {
            format!("{} at most in rank 0, one of {} workers", mib(host), self.workers)
        });
        let gpu = self.gpu_memory_mib.map(|gpu| format!("{} in use on its GPU", mib(gpu)));
        let memory: Vec<String> = host.into_iter().chain(gpu).collect();
        text += &format!("memory  {}\n", memory.join("; "));
        let time = HumanDuration(Duration::from_secs_f64(self.seconds));
        text += &format!(
            "time    {time:#} for {} steps of {} samples: {:.1} ms a step, {:.0} samples/s in the steps that were timed\n",
            count(self.steps),
            count(self.global_batch),
            self.step_ms,
            self.samples_per_second
        );
        text += &format!(
            "        on top of it {} evaluations, {} checkpoints, and pictures\n",
            count(self.evaluations),
            count(self.checkpoints_written)
        );
        if let Some(caution) = &self.caution {
            text += &format!("        {caution}\n");
        }
        text += &format!(
            "files   {} in {}: {} checkpoints of {}, {} rows; on top of it pictures, events and the model folder\n",
            HumanBytes(self.files_bytes),
            self.run_dir,
            count(self.checkpoints_kept),
            HumanBytes(self.checkpoint_bytes),
            count(self.rows)
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(steps: u64) -> Config {
        Config {
            train: Train { steps, global_batch: 64 },
            eval: Every { every: 100 },
            metrics: Every { every: 10 },
            checkpoint: Checkpoint { every: 300, keep: 2, keep_every: 500, keep_best: 0 },
            adversarial: Adversarial { start: 400, critic_start: 0 },
            loss: Loss { adversarial: 0.1 },
        }
    }

    /// By hand: 1,000 steps of 30 ms are 30 s; saves at 300, 600, 900 and 1,000, of which two newest and two of every 500 steps stay.
    #[test]
    fn what_the_timed_steps_have_shown_is_told_of_all() {
        let row = Row {
            step: 10,
            step_ms: 30.0,
            samples_per_second: 64.0 / 0.03,
            memory_mib: Some(512.0),
            gpu_memory_mib: None,
            world_size: 2,
        };
        let sizes = Sizes { checkpoint: 1 << 20, row: 400 };
        let forecast =
            Forecast::of(&config(1000), Path::new("runs/a"), &row, "small".to_owned(), sizes);
        assert!((forecast.seconds - 30.0).abs() < 1e-9, "{forecast:?}");
        assert_eq!((forecast.checkpoints_written, forecast.checkpoints_kept), (4, 4));
        assert_eq!((forecast.evaluations, forecast.rows), (10, 100));
        assert_eq!(forecast.files_bytes, (4 << 20) + 40_000);
        let words = forecast.words();
        assert!(words.contains("30s for 1,000 steps of 64 samples: 30.0 ms a step"), "{words}");
        assert!(words.contains("512.00 MiB at most in rank 0, one of 2 workers"), "{words}");
        assert!(words.contains("counts from step 400 on"), "{words}");
    }

    #[test]
    fn the_run_keeps_its_folder_and_its_arguments() {
        let given =
            ["--config", "@smoke", "--run-dir", "runs/a", "--resume=never", "--set", "seed=1"];
        let given = given.map(OsString::from);
        let args = arguments(&given, &config(1000), Path::new("runs/a.dry-run-1"));
        let args: Vec<_> = args.iter().map(|arg| arg.to_str().unwrap()).collect();
        let line = args.join(" ");
        assert!(line.starts_with("--config @smoke --set seed=1 --set metrics.every=5 "), "{line}");
        assert!(line.contains(" --set train.stop_at=10 "), "{line}");
        assert!(line.ends_with(" --run-dir runs/a.dry-run-1 --resume never"), "{line}");
        let lasts = [1, 3, 4, 9, 10, 11, 1000].map(|steps| config(steps).last_row());
        assert_eq!(lasts, [1, 2, 4, 5, 10, 10, 10]);
        let few = arguments(&given, &config(4), Path::new("runs/b"));
        assert!(few.iter().any(|arg| arg == "metrics.every=2"), "{few:?}");
        assert!(few.iter().all(|arg| !arg.to_string_lossy().starts_with("train.stop_at")));
    }
}
