//! `tessera report`: runs, or a sweep, as one page that holds all it shows.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use tessera_control::{ExitCode, one_line};
use tessera_report::{ReportError, ReportOptions};

use crate::failure::Failure;

const EXAMPLES: &str = "\
The page needs no network and no server: open it in a browser, print it, send it (docs/report.md).

  tessera report runs/demo --out demo.html
  tessera report runs/a runs/b --out compared.html
  tessera report runs/sweeps/smoke --out sweep.html";

/// Which runs, and where to.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ReportArgs {
    /// Run folders, or the folder of a sweep, of which the best trials are shown.
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,
    /// The page to write.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Replace the page if it is there.
    #[arg(long)]
    force: bool,
    /// Title of the page; without it, the names of the runs.
    #[arg(long, value_name = "TEXT")]
    title: Option<String>,
    /// Size of the page at most, in megabytes: pictures are made smaller or left out until it fits.
    #[arg(long, value_name = "MB", default_value_t = 10)]
    most_mb: u64,
}

/// Writes the page.
pub(crate) fn run(args: &ReportArgs) -> Result<ExitCode, Failure> {
    let options = ReportOptions {
        runs: args.runs.clone(),
        out: args.out.clone(),
        force: args.force,
        title: args.title.clone(),
        most_bytes: args.most_mb.saturating_mul(1_000_000),
    };
    let reported = tessera_report::write(&options).map_err(refused)?;
    for note in &reported.notes {
        tracing::warn!("{}", one_line(note));
    }
    let runs = if reported.num_runs == 1 { "run" } else { "runs" };
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{}: {} {runs}, {:.1} MB",
        one_line(&args.out.display().to_string()),
        reported.num_runs,
        reported.bytes as f64 / 1e6
    )?;
    Ok(ExitCode::Done)
}

fn refused(error: ReportError) -> Failure {
    let code = match &error {
        ReportError::File { act: "write", .. } => ExitCode::Failed,
        ReportError::Sweep(error) => error.exit_code(),
        _ => ExitCode::BadInput,
    };
    Failure::new(code, one_line(&error.to_string()))
}
