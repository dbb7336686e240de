//! `tessera track`: rows and pictures of runs, sent to trackers of other people.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use signal_hook::consts::SIGUSR1;
use tessera_control::{ExitCode, RunStatus, one_line, write_result};
use tessera_launch::stop_signals;
use tessera_track::{Ending, Follower, Options, Outcome, Pauses, Target, TrackError, Tracking};

use super::watch::has_ended;
use super::watch::pulse::Pulse;
use crate::failure::Failure;

/// How long the folder of a run that is to be followed may take to come.
const UNTIL_THERE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(100);
/// In the place of the file that lines go to: they go there already.
const LOGGED: &str = "-";

const EXAMPLES: &str = "\
A row is sent when a checkpoint, or the end of the run, has made it final. The same command goes on where the one
before was, also after a kill (docs/trackers.md).

  tessera track --to wandb runs/demo                 then the `wandb sync` that it prints
  MLFLOW_TRACKING_URI=http://127.0.0.1:5000 tessera track --to mlflow --follow runs/demo";

/// Which runs go where.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct TrackArgs {
    /// Run folders.
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,
    /// The tracker.
    #[arg(long, value_name = "TRACKER", value_parser = targets())]
    to: Target,
    /// Go on until the runs have ended, and wait for a tracker that does not answer.
    #[arg(long)]
    follow: bool,
    /// Send rows at once. Those that a resume takes back are then there twice, which is said.
    #[arg(long)]
    eager: bool,
    /// W&B's project, MLflow's experiment, the start of Trackio's project [default: WANDB_PROJECT,
    /// MLFLOW_EXPERIMENT_NAME or TRACKIO_PROJECT, else tessera]
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    project: String,
    /// MLflow's server [default: MLFLOW_TRACKING_URI]
    #[arg(long, value_name = "URI", default_value = "", hide_default_value = true)]
    uri: String,
    /// Folder for cursors and for what is written [default: RUN/track]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Seconds that a request may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
    /// As the child of a launcher: write lines to this file, and end when SIGUSR1 says that the run has.
    #[arg(long, value_name = "FILE", hide = true, requires = "follow")]
    live: Option<PathBuf>,
}

fn targets() -> impl TypedValueParser<Value = Target> {
    PossibleValuesParser::new(Target::ALL.map(Target::name)).map(|name| {
        let target = Target::ALL.into_iter().find(|target| target.name() == name);
        target.expect("clap lets none but the names through")
    })
}

/// Sends what there is, or all that comes until the runs have ended.
pub(crate) fn run(args: &TrackArgs) -> Result<ExitCode, Failure> {
    if args.follow {
        wait_for(&args.runs);
    }
    if let Some(log) = args.live.as_deref().filter(|log| *log != Path::new(LOGGED)) {
        log_to(log)?;
    }
    let (stop, last) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    for signal in stop_signals() {
        let is_last = args.live.is_some() && signal == SIGUSR1;
        let flag = Arc::clone(if is_last { &last } else { &stop });
        let heard = signal_hook::flag::register(signal, flag);
        heard.map_err(|error| {
            Failure::new(ExitCode::Failed, format!("cannot catch signals: {error}"))
        })?;
    }
    let options = Options {
        target: args.to,
        project: args.project.clone(),
        uri: args.uri.clone(),
        is_eager: args.eager,
        out: args.out.clone(),
        timeout: Duration::from_secs(args.timeout),
        stop: Arc::clone(&stop),
    };
    let open = |run: &PathBuf| Tracking::open(run, &options).map_err(refused);
    let all = args.runs.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    let ended = match (args.follow, &args.live) {
        (false, _) => all.into_iter().map(send).collect(),
        (true, None) => follow(all, stop, last)?,
        (true, Some(_)) => follow_live(all, stop, last)?,
    };
    let mut worst = None;
    for (tracking, outcome) in ended {
        let run = tracking.run_dir().display();
        match outcome {
            Outcome::Sent => {
                let line = one_line(&format!("{run}: sent; {}", tracking.where_to())) + "\n";
                write_result(&line)?;
                tell_waiting(&tracking);
            }
            Outcome::Failed(error) => {
                let message = format!("{run}: {error}");
                if let Some(Failure { message, .. }) =
                    worst.replace(Failure::new(error.exit_code(), message))
                {
                    tracing::error!("{message}");
                }
            }
        }
    }
    worst.map_or(Ok(ExitCode::Done), Err)
}

fn refused(error: TrackError) -> Failure {
    Failure::new(error.exit_code(), error.to_string())
}

/// Sends what there is of one run.
fn send(mut tracking: Tracking) -> (Tracking, Outcome) {
    let sent = tracking.advance().and_then(|_| {
        let ending = Ending::of(tracking.run_dir())?;
        tracking.close(ending)
    });
    let outcome = sent.map_or_else(Outcome::Failed, |()| Outcome::Sent);
    (tracking, outcome)
}

type Flag = Arc<AtomicBool>;

/// Stays with runs until their folders tell that they have ended.
fn follow(all: Vec<Tracking>, stop: Flag, last: Flag) -> Result<Vec<(Tracking, Outcome)>, Failure> {
    let mut pulses: HashMap<PathBuf, Pulse> = HashMap::new();
    let follower = Follower::new(all, Pauses::default(), stop, last);
    follower.run(|run_dir| ending(run_dir, &mut pulses)).map_err(refused)
}

/// Stays with the run of the launcher that has started this process. Its status may be that of an earlier start: what
/// counts is what the launcher says.
fn follow_live(
    all: Vec<Tracking>,
    stop: Flag,
    last: Flag,
) -> Result<Vec<(Tracking, Outcome)>, Failure> {
    let follower = Follower::new(all, Pauses::default(), stop, Arc::clone(&last));
    let ending = |run_dir: &Path| {
        let is_over = last.load(Ordering::Acquire);
        is_over.then(|| Ending::of(run_dir).ok().flatten()).flatten()
    };
    follower.run(ending).map_err(refused)
}

/// How a run has ended; one that has not written for long has failed.
fn ending(run_dir: &Path, pulses: &mut HashMap<PathBuf, Pulse>) -> Option<Ending> {
    let now = Instant::now();
    let status = RunStatus::read(run_dir).ok()?;
    let pulse = pulses.entry(run_dir.to_owned()).or_insert_with(|| Pulse::of(run_dir, now));
    if let Some(why) = pulse.lost(run_dir, status.as_ref(), now) {
        tracing::warn!("{}: {why}", run_dir.display());
        return Some(Ending::Failed);
    }
    status.filter(|status| has_ended(run_dir, status))?;
    Ending::of(run_dir).ok().flatten()
}

/// Rows that a resume would write again are not sent; that is no secret.
fn tell_waiting(tracking: &Tracking) {
    if let Ok((waiting, last)) = tracking.num_waiting()
        && waiting > 0
    {
        let run = tracking.run_dir().display();
        let after = last
            .map_or("any checkpoint".to_owned(), |step| format!("the checkpoint of step {step}"));
        tracing::warn!(
            "{run}: {waiting} rows behind {after} are not sent: a resume writes them again; --eager sends them"
        );
    }
}

/// Waits until the folders of runs that have just been started are there, for a while.
fn wait_for(runs: &[PathBuf]) {
    let begun = Instant::now();
    let is_there = |run: &PathBuf| RunStatus::file(run).is_file();
    while !runs.iter().all(is_there) && begun.elapsed() < UNTIL_THERE {
        std::thread::sleep(LOOK);
    }
}

/// Becomes the same command with standard output and error in a file.
fn log_to(path: &Path) -> Result<std::convert::Infallible, Failure> {
    let open = || {
        path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        File::options().create(true).append(true).open(path)
    };
    let failed = |error: std::io::Error| {
        Failure::bad_input(format!("cannot write {}: {error}", path.display()))
    };
    let file = open().map_err(failed)?;
    let other = file.try_clone().map_err(failed)?;
    let logged = |word: OsString| if word == path.as_os_str() { LOGGED.into() } else { word };
    let program = std::env::current_exe().map_err(failed)?;
    let words = std::env::args_os().skip(1).map(logged);
    Err(failed(Command::new(program).args(words).stdout(file).stderr(other).exec()))
}
