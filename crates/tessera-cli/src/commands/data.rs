//! `tessera data`: packing, checking and describing data sets. No torch, no MPI.

pub(crate) mod fetch;
mod tokens;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use serde::Serialize;
use tessera_control::ExitCode;
use tessera_data::{
    DEFAULT_SHARD_SAMPLES, DataConfig, DataError, DataErrorKind, DatasetSummary, Grouping,
    MAX_PREVIEW, OnCorrupt, PackOptions, Preview,
};

use crate::failure::Failure;

/// Most classes whose samples are told one by one.
const MAX_CLASSES_LISTED: usize = 20;

/// Pack, check and describe data sets.
#[derive(Debug, Args)]
pub(crate) struct DataArgs {
    #[command(subcommand)]
    command: DataCommand,
}

#[derive(Debug, Subcommand)]
enum DataCommand {
    /// Fetch and pack the data set of a configuration that Tessera brings.
    Fetch(fetch::FetchArgs),
    /// Pack a data set as published into shards with checksums.
    Pack(PackArgs),
    /// Check every byte of a packed data set or a token set, or of tar archives against their
    /// indices; exits with 6 if any is wrong.
    Verify(VerifyArgs),
    /// Describe a packed data set from its manifest and labels, or a token set from its manifest and
    /// counts of codes.
    Inspect(InspectArgs),
    /// Draw some samples of a split side by side (pictures, frames of clips, waveforms), and print
    /// their classes.
    Preview(PreviewArgs),
    /// Read tar archives from beginning to end and keep an index beside each, with checksums.
    Index(IndexArgs),
}

#[derive(Debug, Args)]
struct PackArgs {
    /// What the input is: folder, webdataset, idx, cifar, npy, packed or synthetic, as `data.kind`
    /// in a run's configuration.
    #[arg(long, value_name = "KIND")]
    format: String,
    /// The input: a folder, searched with all folders below it, or what the format says.
    #[arg(long, value_name = "PATH")]
    input: PathBuf,
    /// Folder to write; must not exist, or be empty, as a mounted volume is.
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
    /// A key of the section `data` of a run's configuration, without `data.`: how samples are
    /// made, such as `modality=audio` or `image.height=64`.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Compress each sample with zstd at this level, from 1 to 19.
    #[arg(long, value_name = "LEVEL")]
    zstd: Option<i32>,
    /// Leave out samples that cannot be read or decoded, with a warning, instead of ending there.
    #[arg(long)]
    skip_corrupt: bool,
}

#[derive(Debug, Args)]
struct PreviewArgs {
    /// The data set: a packed one, or what --format says.
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// PNG file to write; one that is there is replaced.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// What is at the path: packed, folder, webdataset, idx, cifar or npy.
    #[arg(long, value_name = "KIND", default_value = "packed")]
    format: String,
    /// A key of the section `data` of a run's configuration, without `data.`.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Split to take samples of.
    #[arg(long, default_value = "train")]
    split: String,
    /// Samples to draw.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=MAX_PREVIEW))]
    count: u64,
    /// Which samples: the first of a run's order with this seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

#[derive(Debug, Args)]
struct IndexArgs {
    /// Folder of tar archives, an archive, or a pattern such as `shard-{000..009}.tar`.
    #[arg(value_name = "PATH")]
    path: PathBuf,
}

#[derive(Debug, Args)]
struct VerifyArgs {
    /// Folder of a packed data set, a token set or tar archives, an archive, or a pattern.
    #[arg(value_name = "PATH")]
    path: PathBuf,
}

#[derive(Debug, Args)]
struct InspectArgs {
    /// Folder of the packed data set, or the token set.
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
        DataCommand::Fetch(args) => fetch::run(args),
        DataCommand::Pack(args) => pack(args),
        DataCommand::Verify(args) => verify(&args.path),
        DataCommand::Inspect(args) => inspect(&args),
        DataCommand::Preview(args) => preview(&args),
        DataCommand::Index(args) => index(&args.path),
    }
}

fn pack(args: PackArgs) -> Result<(), Failure> {
    let data = data_config(&args.format, &args.input, &args.set)?;
    let out = args.out.display().to_string();
    let options = PackOptions {
        data,
        out: args.out,
        shard_samples: args.shard_samples,
        zstd_level: args.zstd,
        on_corrupt: if args.skip_corrupt { OnCorrupt::Skip } else { OnCorrupt::Fail },
    };
    let bar = progress_bar("packing {wide_bar} {pos}/{len} samples, {eta} left");
    let packed = tessera_data::pack(&options, &|done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let manifest = packed.map_err(failure)?;
    let splits: Vec<String> = manifest
        .splits
        .iter()
        .map(|(name, split)| match split.skipped.len() {
            0 => format!("{name} {}", split.num_samples),
            skipped => format!("{name} {} ({skipped} left out)", split.num_samples),
        })
        .collect();
    let bytes = HumanBytes(manifest.num_bytes());
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "packed {out}: {} ({bytes})", splits.join(", "))?;
    for note in &manifest.source.notes {
        writeln!(stdout, "  {note}")?;
    }
    Ok(())
}

/// The section `data` that the arguments stand for.
fn data_config(format: &str, input: &Path, set: &[String]) -> Result<DataConfig, Failure> {
    let bad = |message: String| Failure::new(ExitCode::BadInput, message);
    let mut table = toml::Table::new();
    table.insert("kind".to_owned(), format.into());
    if format != "mixture" {
        // The parts of a mixture have paths.
        table.insert("path".to_owned(), input.to_string_lossy().into_owned().into());
    }
    for setting in set {
        let Some((key, value)) = setting.split_once('=') else {
            return Err(bad(format!("--set needs KEY=VALUE, found {setting:?}")));
        };
        let value = value_of(key, value);
        insert(&mut table, key, value).map_err(|problem| bad(format!("--set {key} {problem}")))?;
    }
    let config: Result<DataConfig, _> = table.try_into();
    let mut config = config.map_err(|error| {
        let message = error.to_string().trim().replace('\n', ", ");
        bad(format!("data: {message}"))
    })?;
    if input.to_str().is_none() {
        config.path = input.to_owned(); // TOML holds text alone
    }
    Ok(config)
}

/// What a text stands for: itself for a key that holds text, unless it stands in quotes; else a
/// value of TOML, and where it is none a word.
fn value_of(key: &str, text: &str) -> toml::Value {
    let default = toml::Value::try_from(DataConfig::default()).expect("a section is plain data");
    let place = key.split('.').try_fold(&default, |place, part| place.get(part));
    let holds_text = place.is_some_and(toml::Value::is_str);
    let read = format!("value = {text}").parse::<toml::Table>().ok();
    match read.and_then(|mut table| table.remove("value")) {
        Some(value) if !holds_text || value.is_str() => value,
        _ => text.into(),
    }
}

/// Sets a key with dots.
fn insert(table: &mut toml::Table, key: &str, value: toml::Value) -> Result<(), &'static str> {
    let Some((section, rest)) = key.split_once('.') else {
        table.insert(key.to_owned(), value);
        return Ok(());
    };
    let section = table.entry(section).or_insert_with(|| toml::Table::new().into());
    let section = section.as_table_mut().ok_or("is below a key that has a value")?;
    insert(section, rest, value)
}

fn preview(args: &PreviewArgs) -> Result<(), Failure> {
    let data = data_config(&args.format, &args.path, &args.set)?;
    let source = tessera_data::source::open(&data, &args.split).map_err(failure)?;
    let sampler = source.sampler(&data.shuffling(), args.seed);
    let count = args.count.min(source.num_samples());
    let ids: Vec<u64> = (0..count).map(|position| sampler.sample_at(position).id).collect();
    let drawn =
        tessera_data::preview(&*source, &ids, data.on_corrupt, &args.out).map_err(failure)?;
    let mut stdout = io::stdout().lock();
    let (num, out) = (drawn.num_drawn, args.out.display());
    writeln!(stdout, "drew {num} samples of {} into {out}", args.split)?;
    if drawn.classes.iter().any(|class| !class.is_empty()) {
        writeln!(stdout, "their classes, row by row:")?;
        write_classes(&mut stdout, &drawn)?;
    }
    Ok(())
}

/// The classes of a sheet as they stand in it: a line for each row of pictures.
fn write_classes(out: &mut dyn Write, drawn: &Preview) -> io::Result<()> {
    let shown = |class: &str| match class {
        "" => "-".to_owned(),
        class => class.to_owned(),
    };
    let widest = |column: usize| {
        let column = drawn.classes.iter().skip(column).step_by(drawn.num_columns);
        column.map(|class| shown(class).chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..drawn.num_columns).map(widest).collect();
    for row in drawn.classes.chunks(drawn.num_columns) {
        let mut line = String::new();
        for (class, width) in row.iter().zip(&widths) {
            line.push_str(&format!("  {:<width$}", shown(class)));
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

fn index(path: &Path) -> Result<(), Failure> {
    let bar = progress_bar("indexing {wide_bar} {bytes}/{total_bytes}, {eta} left");
    let indexed = tessera_data::source::index(path, &|done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let (archives, samples) = indexed.map_err(failure)?;
    let path = tessera_data::shown(path);
    writeln!(io::stdout(), "indexed {}: {samples} samples in {archives} archives", path.display())?;
    Ok(())
}

fn verify(path: &Path) -> Result<(), Failure> {
    let bar = progress_bar("reading {wide_bar} {bytes}/{total_bytes}, {eta} left");
    let report = tessera_data::verify(path, &|done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let report = report.map_err(failure)?;
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
        "{} is damaged, {} problems in {shards} shards: make it again or copy it from a good one",
        tessera_data::shown(path).display(),
        report.problems.len()
    );
    Err(Failure::new(ExitCode::DataCorrupt, message))
}

fn inspect(args: &InspectArgs) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    if tessera_data::tokens::is_token_set(&args.folder) {
        let summary = tessera_data::tokens::inspect(&args.folder).map_err(failure)?;
        match args.json {
            true => write_json(&mut stdout, &summary)?,
            false => tokens::write_summary(&mut stdout, &summary)?,
        }
        return Ok(());
    }
    let summary = tessera_data::inspect(&args.folder).map_err(failure)?;
    match args.json {
        true => write_json(&mut stdout, &summary)?,
        false => write_summary(&mut stdout, &summary)?,
    }
    Ok(())
}

fn write_json(out: &mut dyn Write, summary: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_string_pretty(summary).expect("a summary is plain data");
    writeln!(out, "{text}")
}

fn write_summary(out: &mut dyn Write, summary: &DatasetSummary) -> io::Result<()> {
    let shape = summary.shape;
    writeln!(out, "{}, format version {}", summary.path.display(), summary.version)?;
    writeln!(out, "  shape        {shape}")?;
    for (name, split) in &summary.splits {
        let labels = match (split.labels, summary.num_classes) {
            (false, _) => "without labels".to_owned(),
            (true, Some(classes)) => format!("with labels of {classes} classes"),
            (true, None) => "with labels".to_owned(),
        };
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
    write_counts(out, summary)?;
    if !summary.classes.is_empty() {
        let (first, more) = summary.classes.split_at(summary.classes.len().min(20));
        let more = if more.is_empty() { "" } else { ", ..." };
        writeln!(out, "  classes      {}: {}{more}", summary.classes.len(), first.join(", "))?;
    }
    let groups = match summary.groups {
        Some(Grouping::Single) => "each sample is a file of its own",
        Some(Grouping::Recorded) => "noted: folds keep the samples of a file together",
        None => "not noted by the version that packed it: folds may part the samples of a file",
    };
    writeln!(out, "  files        {groups}")?;
    writeln!(out, "  source       {}: {}", summary.source.format, summary.source.files.join(", "))?;
    for note in &summary.source.notes {
        writeln!(out, "  {:<12} {note}", "")?;
    }
    writeln!(out, "  fingerprint  {}", summary.fingerprint)
}

/// Samples of each class, a line for each split; their range where there are many classes.
fn write_counts(out: &mut dyn Write, summary: &DatasetSummary) -> io::Result<()> {
    for (name, split) in &summary.splits {
        let Some(counts) = &split.samples_per_class else { continue };
        let title = format!("{name} has");
        if counts.len() > MAX_CLASSES_LISTED {
            let (least, most) = (counts.iter().min(), counts.iter().max());
            let (least, most) = (least.unwrap_or(&0), most.unwrap_or(&0));
            let classes = counts.len();
            let without = counts.iter().filter(|count| **count == 0).count();
            let without = match without {
                0 => String::new(),
                without => format!("; {without} classes have none"),
            };
            writeln!(
                out,
                "  {title:<12} {least} to {most} samples of each of {classes} classes{without}"
            )?;
            continue;
        }
        let of_class = |(number, count): (usize, &u64)| match summary.classes.get(number) {
            Some(class) => format!("{count} of {class}"),
            None => format!("{count} of class {number}"),
        };
        let counted: Vec<String> = counts.iter().enumerate().map(of_class).collect();
        writeln!(out, "  {title:<12} {}", counted.join(", "))?;
    }
    Ok(())
}

/// Numbers of the channels, one after another.
fn list(values: &[f64]) -> String {
    // Adding zero turns -0 into 0.
    let values: Vec<String> =
        values.iter().map(|value| format!("{:.6}", (value * 1e6).round() / 1e6 + 0.0)).collect();
    values.join(" ")
}

/// A bar on stderr; hidden where stderr is not a terminal.
fn progress_bar(template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).expect("the template is constant");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_decides_what_a_setting_means() {
        let text = |key: &str, text: &str| value_of(key, text).as_str().map(str::to_owned);
        for name in ["2026-11-26", "7", "true", "1e3", "seg.png"] {
            assert_eq!(text("member", name).as_deref(), Some(name));
        }
        assert_eq!(text("member", "\"a b\"").as_deref(), Some("a b"));
        assert_eq!(text("modality", "audio").as_deref(), Some("audio"));
        assert_eq!(value_of("image.height", "64"), 64.into());
        assert_eq!(value_of("image.tiles", "true"), true.into());
        assert_eq!(value_of("holdout", "0.2"), 0.2.into());
        assert!(value_of("mixture", "[{weight = 1}]").is_array());
    }
}
