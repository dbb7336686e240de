//! `tessera data`: packing, checking and describing data sets. No torch, no MPI.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use tessera_control::ExitCode;
use tessera_data::{
    DEFAULT_SHARD_SAMPLES, DataError, DataErrorKind, DatasetSummary, PackFormat, PackOptions,
};

use crate::failure::Failure;

/// Pack, check and describe data sets.
#[derive(Debug, Args)]
pub(crate) struct DataArgs {
    #[command(subcommand)]
    command: DataCommand,
}

#[derive(Debug, Subcommand)]
enum DataCommand {
    /// Pack a data set as published into shards with checksums.
    Pack(PackArgs),
    /// Check every byte of a packed data set; exits with 6 if any is wrong.
    Verify(VerifyArgs),
    /// Describe a packed data set from its manifest.
    Inspect(InspectArgs),
}

#[derive(Debug, Args)]
struct PackArgs {
    /// Format of the input.
    #[arg(long, value_enum)]
    format: Format,
    /// Folder of the input, searched with all folders below it.
    #[arg(long, value_name = "DIR")]
    input: PathBuf,
    /// Folder to write; must not exist, or be empty.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Most samples in a shard; a shard is held in memory while it is packed, and never
    /// larger than 256 MiB.
    #[arg(
        long,
        value_name = "N",
        default_value_t = DEFAULT_SHARD_SAMPLES,
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    shard_samples: u64,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// Files of MNIST, Fashion-MNIST and their kin, plain or gzipped.
    Idx,
}

#[derive(Debug, Args)]
struct VerifyArgs {
    /// Folder of the packed data set.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

#[derive(Debug, Args)]
struct InspectArgs {
    /// Folder of the packed data set.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Print one JSON object instead of lines for a person.
    #[arg(long)]
    json: bool,
}

/// Runs one command of `tessera data`.
///
/// # Errors
///
/// A [`Failure`] with code 2 for bad input, 6 for damaged data, 1 for a failing system.
pub(crate) fn run(args: DataArgs) -> Result<(), Failure> {
    match args.command {
        DataCommand::Pack(args) => pack(args),
        DataCommand::Verify(args) => verify(&args.folder),
        DataCommand::Inspect(args) => inspect(&args),
    }
}

fn pack(args: PackArgs) -> Result<(), Failure> {
    let format = match args.format {
        Format::Idx => PackFormat::Idx,
    };
    let out = args.out.display().to_string();
    let options =
        PackOptions { format, input: args.input, out: args.out, shard_samples: args.shard_samples };
    let bar = progress_bar();
    let packed = tessera_data::pack(&options, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let manifest = packed.map_err(failure)?;
    let splits: Vec<String> = manifest
        .splits
        .iter()
        .map(|(name, split)| format!("{name} {}", split.num_samples))
        .collect();
    let bytes = HumanBytes(manifest.num_bytes());
    writeln!(io::stdout(), "packed {out}: {} ({bytes})", splits.join(", "))?;
    Ok(())
}

fn verify(folder: &Path) -> Result<(), Failure> {
    let report = tessera_data::verify(folder).map_err(failure)?;
    let mut stdout = io::stdout().lock();
    for problem in &report.problems {
        writeln!(stdout, "{}", problem.message)?;
    }
    let (shards, samples) = (report.num_shards, report.num_samples);
    if report.problems.is_empty() {
        let bytes = HumanBytes(report.num_bytes);
        writeln!(stdout, "whole: {samples} samples in {shards} shards ({bytes})")?;
        return Ok(());
    }
    let message = format!(
        "{} is damaged, {} problems in {shards} shards: pack it again or copy it from a good one",
        folder.display(),
        report.problems.len()
    );
    Err(Failure::new(ExitCode::DataCorrupt, message))
}

fn inspect(args: &InspectArgs) -> Result<(), Failure> {
    let summary = tessera_data::inspect(&args.folder).map_err(failure)?;
    let mut stdout = io::stdout().lock();
    if args.json {
        let text = serde_json::to_string_pretty(&summary).expect("a summary is plain data");
        writeln!(stdout, "{text}")?;
        return Ok(());
    }
    write_summary(&mut stdout, &summary)?;
    Ok(())
}

fn write_summary(out: &mut dyn Write, summary: &DatasetSummary) -> io::Result<()> {
    let shape = summary.shape;
    writeln!(out, "{}, format version {}", summary.path.display(), summary.version)?;
    writeln!(
        out,
        "  shape        {} x {} x {} (height, width, channels), bytes",
        shape.height, shape.width, shape.channels
    )?;
    for (name, split) in &summary.splits {
        let labels = if split.labels { "with labels" } else { "without labels" };
        writeln!(
            out,
            "  {name:<12} {} samples in {} shards, {}, {labels}",
            split.num_samples,
            split.num_shards,
            HumanBytes(split.num_bytes)
        )?;
        writeln!(
            out,
            "  {:<12} pixel mean {}, variance {} (of [0, 1])",
            "",
            list(&split.pixel_mean),
            list(&split.pixel_variance)
        )?;
    }
    writeln!(out, "  source       {}: {}", summary.source.format, summary.source.files.join(", "))?;
    writeln!(out, "  fingerprint  {}", summary.fingerprint)
}

/// Numbers of the channels, one after another.
fn list(values: &[f64]) -> String {
    let values: Vec<String> = values.iter().map(|value| format!("{value:.6}")).collect();
    values.join(" ")
}

/// A bar on stderr; hidden where stderr is not a terminal.
fn progress_bar() -> ProgressBar {
    let style = ProgressStyle::with_template("packing {wide_bar} {pos}/{len} samples, {eta} left")
        .expect("the template is constant");
    let bar = ProgressBar::new(0).with_style(style);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

fn failure(error: DataError) -> Failure {
    let code = match error.kind() {
        DataErrorKind::BadInput => ExitCode::BadInput,
        DataErrorKind::Corrupt => ExitCode::DataCorrupt,
        DataErrorKind::Io => ExitCode::Failed,
    };
    Failure::new(code, error.to_string())
}
