//! `tessera watch`: following a run from its folder, from any shell or host that sees it.
//!
//! On a terminal a live view, elsewhere a line for each row of metrics. Only files are read.

mod live;
pub(super) mod pulse;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use serde::Deserialize;
use tessera_control::{ExitCode, RunState, RunStatus, last_row};

use crate::failure::Failure;
use pulse::Pulse;

/// Time between two looks at the run folder.
const EVERY: Duration = Duration::from_millis(500);
/// Within this time after a failure the launcher has said that it starts again, or it does not.
const RESTART: Duration = Duration::from_secs(12);

/// Which run to follow.
#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    /// The run folder.
    #[arg(value_name = "RUN", required_unless_present = "run")]
    folder: Option<PathBuf>,
    /// The same.
    #[arg(long, value_name = "DIR", conflicts_with = "folder")]
    run: Option<PathBuf>,
    /// Print lines on a terminal too.
    #[arg(long)]
    lines: bool,
}

/// The columns of a metrics row that are shown.
#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Row {
    step: u64,
    loss: f64,
    perplexity: f64,
    samples_per_second: f64,
}

/// Shows the run until the run has ended, and ends with the run's code.
pub(crate) fn run(args: &WatchArgs) -> Result<ExitCode, Failure> {
    let run_dir = args.folder.as_deref().or(args.run.as_deref()).expect("clap wants one of them");
    if !["status.json", "config.toml"].iter().any(|name| run_dir.join(name).is_file()) {
        let message = format!(
            "{} is no run folder: name one, as in `tessera watch runs/demo`",
            run_dir.display()
        );
        return Err(Failure::bad_input(message));
    }
    if std::io::stdout().is_terminal() && !args.lines {
        return live::show(run_dir);
    }
    let mut shown = None;
    let mut pulse = Pulse::of(run_dir, Instant::now());
    loop {
        let status = read_status(run_dir)?; // Before the row, so that the last row is not missed.
        let row: Option<Row> = last_row(&run_dir.join("metrics.jsonl"));
        if row.is_some() && row != shown {
            if let Some(Row { step, loss, perplexity, samples_per_second: speed }) = &row {
                let mut out = std::io::stdout().lock();
                writeln!(
                    out,
                    "step {step} loss {loss:.5} perplexity {perplexity:.1} {speed:.0} samples/s"
                )?;
            }
            shown = row;
        }
        if let Some(why) = pulse.lost(run_dir, status.as_ref(), Instant::now()) {
            let step = status.map_or(0, |status| status.step);
            writeln!(std::io::stdout().lock(), "worker lost after step {step}: {why}")?;
            return Ok(ExitCode::WorkerLost);
        }
        if let Some(status) = status.filter(|status| has_ended(run_dir, status)) {
            let code = status.exit_code.unwrap_or(ExitCode::Failed);
            let meaning = code.meaning();
            let RunStatus { step, message, .. } = status;
            writeln!(std::io::stdout().lock(), "{meaning} after step {step}: {message}")?;
            return Ok(code);
        }
        std::thread::sleep(EVERY);
    }
}

/// Whether a run has ended: where it failed, its launcher may be about to start it again.
pub(super) fn has_ended(run_dir: &Path, status: &RunStatus) -> bool {
    match status.state {
        RunState::Running => false,
        RunState::Done | RunState::Stopped => true,
        RunState::Failed => {
            let written = run_dir.join("status.json").metadata().and_then(|file| file.modified());
            written.map_or(true, |at| at.elapsed().is_ok_and(|age| age >= RESTART))
        }
    }
}

fn read_status(run_dir: &Path) -> Result<Option<RunStatus>, Failure> {
    RunStatus::read(run_dir).map_err(|error| {
        let path = run_dir.join("status.json");
        let message = format!("{} cannot be read: {error}; is it a run folder?", path.display());
        Failure::bad_input(message)
    })
}
