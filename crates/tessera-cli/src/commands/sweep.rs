//! `tessera sweep`: many trainings that differ in some values, and what comes of them.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use tessera_control::{ExitCode, one_line, shipped_name};
use tessera_sweep::report::{self, Table};
use tessera_sweep::{Ending, Goal, Options, Strategy, Sweep, SweepError};

use crate::failure::{Failure, print_ending};

/// Rows of the table that are printed.
const ROWS: usize = 20;

const EXAMPLES: &str = "\
A sweep file names a base configuration, parameters and their values, a strategy, a metric and a budget
(docs/sweeps.md). Without one, --config is a plain configuration, and --set says what is varied:

  tessera sweep --config configs/sweeps/smoke.toml
  tessera sweep --config configs/smoke.toml --set model.quantizer.num_codes=32,64,128 \\
      --set \"optimizer.learning_rate=log(1e-4,1e-2,5)\"
  tessera sweep report runs/sweeps/smoke";

/// What is varied, and how.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = EXAMPLES
)]
pub(crate) struct SweepArgs {
    #[command(subcommand)]
    command: Option<SweepCommand>,
    /// A sweep file, or a configuration of a run.
    #[arg(long, value_name = "FILE", required = true)]
    config: Option<PathBuf>,
    /// `key=value` for all trials; `key=a,b,...`, `key=range(low,high,points)`, `log(...)`, `int(...)` or
    /// `logint(...)` is varied. Goes before the file.
    #[arg(long, value_name = "KEY=VALUES")]
    set: Vec<String>,
    /// How points are chosen, instead of what the file says.
    #[arg(long, value_name = "NAME", value_parser = strategies())]
    strategy: Option<Strategy>,
    /// Trials, instead of what the file says; 0, with a grid: all points.
    #[arg(long, value_name = "N")]
    trials: Option<usize>,
    /// Seed of what is drawn, instead of what the file says.
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,
    /// The figure of an evaluation that is to become small, instead of what the file says.
    #[arg(long, value_name = "FIGURE", conflicts_with = "maximize")]
    minimize: Option<String>,
    /// The figure of an evaluation that is to become large, instead of what the file says.
    #[arg(long, value_name = "FIGURE")]
    maximize: Option<String>,
    /// Steps of the first rung of halving and asha, instead of what the file says.
    #[arg(long, value_name = "STEPS")]
    min_steps: Option<u64>,
    /// Workers of each trial, instead of what the file says.
    #[arg(long, value_name = "W")]
    workers_per_trial: Option<usize>,
    /// Trials at a time; auto is as many as this machine's GPUs, or else its cores, take.
    #[arg(long, value_name = "P|auto", default_value = "auto")]
    parallel: String,
    /// The sweep's folder; without it, runs/sweeps/ and the name of the file.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Go on with the sweep that the folder holds.
    #[arg(long)]
    resume: bool,
}

#[derive(Debug, Subcommand)]
enum SweepCommand {
    /// Show what has come of a sweep: its table, which parameters matter, pictures.
    Report(ReportArgs),
}

/// Which sweep, and where its pictures go.
#[derive(Debug, Args)]
struct ReportArgs {
    /// The sweep's folder.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Print the whole table as comma-separated values, and nothing else.
    #[arg(long)]
    csv: bool,
    /// Print every decision with its reason, and nothing else.
    #[arg(long, conflicts_with = "csv")]
    decisions: bool,
    /// Folder for the pictures; without it, `pictures` in the sweep's folder.
    #[arg(long, value_name = "DIR")]
    pictures: Option<PathBuf>,
}

fn strategies() -> impl TypedValueParser<Value = Strategy> {
    PossibleValuesParser::new(Strategy::NAMES)
        .map(|name| Strategy::named(&name).expect("clap lets none but the names through"))
}

/// Runs a sweep, or shows one.
pub(crate) fn run(args: &SweepArgs) -> Result<ExitCode, Failure> {
    if let Some(SweepCommand::Report(args)) = &args.command {
        return show(args);
    }
    let config = args.config.as_deref().expect("clap wants it");
    let mut sweep = Sweep::read(config, &args.set).map_err(refused)?;
    if let Some(strategy) = args.strategy {
        sweep.search.strategy = strategy;
    }
    sweep.search.trials = args.trials.unwrap_or(sweep.search.trials);
    sweep.search.seed = args.seed.unwrap_or(sweep.search.seed);
    sweep.search.min_steps = args.min_steps.unwrap_or(sweep.search.min_steps);
    sweep.trials.workers = args.workers_per_trial.unwrap_or(sweep.trials.workers);
    for (name, goal) in [(&args.minimize, Goal::Minimize), (&args.maximize, Goal::Maximize)] {
        if let Some(name) = name {
            (sweep.metric.name, sweep.metric.goal) = (name.clone(), goal);
        }
    }
    let options = Options {
        folder: args.dir.clone().unwrap_or_else(|| {
            let name = shipped_name(config).map_or(config, Path::new);
            let name = name.file_stem().unwrap_or_else(|| "sweep".as_ref());
            Path::new("runs/sweeps").join(name)
        }),
        parallel: parallel(&args.parallel)?,
        resume: args.resume,
    };
    let ending = tessera_sweep::run(&sweep, &options).map_err(refused)?;
    let found = report::Review::read(&options.folder).map_err(refused)?;
    print_ending(&Table::of(&found).text(ROWS));
    match ending {
        Ending::Done => {
            if let Some(best) = found.best() {
                let path = options.folder.join("best.toml");
                let path = one_line(&path.display().to_string());
                print_ending(&format!("\nbest: trial {best}, ready to train: {path}\n"));
            }
            Ok(ExitCode::Done)
        }
        Ending::Stopped => {
            print_ending("\nstopped; the same command with --resume goes on\n");
            Ok(ExitCode::Stopped)
        }
        Ending::Fruitless { code, problem } => {
            let folder = one_line(&options.folder.display().to_string());
            Err(Failure::new(code, format!("{folder}: {problem}")))
        }
    }
}

fn parallel(text: &str) -> Result<Option<usize>, Failure> {
    match text {
        "auto" => Ok(None),
        number => match number.parse() {
            Ok(number) if number > 0 => Ok(Some(number)),
            _ => Err(Failure::bad_input(format!(
                "--parallel {text} is not a number of trials: give 1 or more, or auto"
            ))),
        },
    }
}

fn show(args: &ReportArgs) -> Result<ExitCode, Failure> {
    let found = report::Review::read(&args.folder).map_err(refused)?;
    let mut out = std::io::stdout().lock();
    if args.csv {
        write!(out, "{}", Table::of(&found).csv())?;
        return Ok(ExitCode::Done);
    }
    if args.decisions {
        for (trial, rung, steps, reason) in report::decisions(&args.folder).map_err(refused)? {
            writeln!(out, "trial {trial} to step {steps}, rung {rung}: {reason}")?;
        }
        return Ok(ExitCode::Done);
    }
    drop(out);
    print_table(&found)?;
    let mut out = std::io::stdout().lock();
    match found.importances() {
        None => writeln!(out, "\ntoo few trials to say which parameters matter")?,
        Some(importances) => {
            let step = found.schedule.rungs[0];
            writeln!(
                out,
                "\nshare of the variance at step {step} that a parameter explains by itself:"
            )?;
            for (key, share) in &importances.shares {
                writeln!(out, "{:>5.1} %  {key}", 100.0 * share)?;
            }
            let known = importances.r_squared;
            writeln!(
                out,
                "R^2 of the forest behind it, on trials that it has not seen: {known:.2}"
            )?;
            if importances.are_void() {
                writeln!(
                    out,
                    "warning: the forest predicts nothing, and the shares are those of chance: try more trials"
                )?;
            }
        }
    }
    let folder = args.pictures.clone().unwrap_or_else(|| args.folder.join("pictures"));
    writeln!(out)?;
    for path in report::draw(&found, &args.folder, &folder).map_err(refused)? {
        writeln!(out, "{}", path.display())?;
    }
    Ok(ExitCode::Done)
}

fn print_table(found: &report::Review) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    write!(out, "{}", Table::of(found).text(ROWS))?;
    Ok(())
}

fn refused(error: SweepError) -> Failure {
    match error {
        SweepError::Refused { code } => Failure::new(code, ""), // The worker has said why.
        error => Failure::new(error.exit_code(), error.to_string()),
    }
}
