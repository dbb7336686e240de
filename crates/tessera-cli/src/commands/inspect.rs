//! `tessera inspect`, `verify` and `diff`: what checkpoints hold, whether their bytes are the ones
//! written, and how two of them differ. Need no libtorch.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use serde_json::Value;
use tessera_checkpoint::{
    CheckedFile, Checkpoint, CheckpointError, CheckpointErrorKind, Difference, Survey, TensorInfo,
    checkpoint_at, diff, list, survey,
};
use tessera_control::ExitCode;

use crate::failure::Failure;

/// Which checkpoint, and how to print it.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// A checkpoint folder, its manifest.json, or a run folder for its newest checkpoint.
    path: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// What is printed.
#[derive(Debug, Serialize)]
struct Report {
    path: PathBuf,
    step: u64,
    samples_seen: u64,
    world_size: usize,
    seed: u64,
    tessera: String,
    config_hash: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    evaluation: Option<Value>,
    intact: bool,
    files: Vec<CheckedFile>,
    tensors: Vec<TensorInfo>,
}

/// Prints the report; ends with 6 if a file is not what was written.
pub(crate) fn run(args: &InspectArgs) -> Result<ExitCode, Failure> {
    let folder = checkpoint_at(&args.path).map_err(failure)?;
    let report = report(&folder, survey(&folder).map_err(failure)?);
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&report).map_err(io::Error::from)?)?;
    } else {
        print(&mut out, &report)?;
    }
    refuse_damaged(&folder, &report.files)
}

/// 6, with the first file that is not what was written.
fn refuse_damaged(folder: &Path, files: &[CheckedFile]) -> Result<ExitCode, Failure> {
    let damaged = files.iter().find_map(|file| Some((&file.entry.name, file.problem.as_ref()?)));
    let Some((name, problem)) = damaged else { return Ok(ExitCode::Done) };
    let message = format!(
        "{}: {problem}: resume from another checkpoint, `--resume auto` finds one",
        folder.join(name).display()
    );
    Err(Failure::new(ExitCode::DataCorrupt, message))
}

pub(crate) fn failure(error: CheckpointError) -> Failure {
    match error.kind() {
        CheckpointErrorKind::Damaged => Failure::new(
            ExitCode::DataCorrupt,
            format!("{error}: resume from another checkpoint, `--resume auto` finds one"),
        ),
        CheckpointErrorKind::NotOne | CheckpointErrorKind::OtherVersion => {
            Failure::bad_input(error.to_string())
        }
        CheckpointErrorKind::File | CheckpointErrorKind::Unreadable | CheckpointErrorKind::Lost => {
            Failure::new(ExitCode::Failed, error.to_string())
        }
    }
}

fn report(folder: &Path, survey: Survey) -> Report {
    let Survey { manifest, files, tensors } = survey;
    Report {
        path: folder.to_owned(),
        step: manifest.step,
        samples_seen: manifest.samples_seen,
        world_size: manifest.world_size,
        seed: manifest.config["seed"].as_u64().unwrap_or(0),
        tessera: manifest.tessera,
        config_hash: manifest.config_hash,
        model: manifest.model,
        evaluation: manifest.evaluation,
        intact: files.iter().all(|file| file.problem.is_none()),
        files,
        tensors,
    }
}

fn print(out: &mut impl Write, report: &Report) -> io::Result<()> {
    writeln!(out, "{}", report.path.display())?;
    writeln!(out, "step {}, {} samples seen", report.step, report.samples_seen)?;
    writeln!(out, "written by {} workers, seed {}", report.world_size, report.seed)?;
    writeln!(out, "tessera {}, config {}", report.tessera, report.config_hash)?;
    if let Some(model) = &report.model {
        let numbers = model["parameters"].as_object().into_iter().flatten();
        let parts: Vec<String> = numbers.map(|(part, num)| format!("{part} {num}")).collect();
        writeln!(out, "parameters: {}", parts.join(", "))?;
        if let Some(flops) = model["flops"].as_f64() {
            let mebibytes =
                |key: &str| model[key].as_f64().unwrap_or(f64::NAN) / f64::from(1 << 20);
            writeln!(
                out,
                "a sample takes {:.4} GFLOP forward and keeps {:.2} MiB for the way back, {:.2} with train.recompute",
                flops / 1e9,
                mebibytes("activation_bytes"),
                mebibytes("recomputed_bytes")
            )?;
        }
    }
    if let Some(evaluation) = &report.evaluation {
        writeln!(out, "evaluated: {}", plain_figures(evaluation))?;
    }
    for CheckedFile { entry, problem } in &report.files {
        let state = problem.as_deref().unwrap_or("intact");
        writeln!(out, "{}  {} bytes  sha256 {}  {state}", entry.name, entry.bytes, entry.sha256)?;
    }
    let width = report.tensors.iter().map(|tensor| tensor.name.len()).max().unwrap_or(0);
    for TensorInfo { name, dtype, shape, .. } in &report.tensors {
        writeln!(out, "  {name:width$}  {dtype}  {shape:?}")?;
    }
    Ok(())
}

/// The figures of an evaluation that are one number.
fn plain_figures(evaluation: &Value) -> String {
    let all = evaluation.as_object().into_iter().flatten();
    let plain = all.filter(|(name, value)| value.is_number() && *name != "step");
    plain.map(|(name, value)| format!("{name} {value}")).collect::<Vec<_>>().join(", ")
}

/// Which checkpoints to check.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// A checkpoint folder, its manifest.json, or a run folder for all of its checkpoints.
    path: PathBuf,
}

/// Checks every hash; ends with 6 if any checkpoint is not what was written.
pub(crate) fn verify(args: &VerifyArgs) -> Result<ExitCode, Failure> {
    let all = match list(&args.path.join("checkpoints")) {
        Ok(all) if !all.is_empty() => all.into_iter().map(|(_, path)| path).collect(),
        _ => vec![checkpoint_at(&args.path).map_err(failure)?],
    };
    let mut out = io::stdout().lock();
    let mut first = None;
    for folder in all {
        let checked = survey(&folder).map_err(failure).and_then(|survey| {
            let Survey { manifest, files, tensors } = survey;
            let bytes: u64 = files.iter().map(|file| file.entry.bytes).sum();
            refuse_damaged(&folder, &files)?;
            Ok((manifest.step, tensors.len(), bytes))
        });
        match checked {
            Ok((step, tensors, bytes)) => {
                let path = folder.display();
                writeln!(out, "{path}  good: step {step}, {tensors} tensors, {bytes} bytes")?;
            }
            Err(failure) => {
                writeln!(out, "{}  DAMAGED", folder.display())?;
                first.get_or_insert(failure);
            }
        }
    }
    first.map_or(Ok(ExitCode::Done), Err)
}

/// Which checkpoints to compare.
#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// A checkpoint folder, its manifest.json, or a run folder for its newest checkpoint.
    first: PathBuf,
    /// Another.
    second: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Prints which tensors differ, and by how much; ends with 1 if any does, as `diff` does.
pub(crate) fn compare(args: &DiffArgs) -> Result<ExitCode, Failure> {
    let read = |path: &Path| {
        checkpoint_at(path).and_then(|folder| Checkpoint::read(&folder)).map_err(failure)
    };
    let found = diff(&read(&args.first)?, &read(&args.second)?);
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&found).map_err(io::Error::from)?)?;
    } else {
        print_difference(&mut out, &found)?;
    }
    Ok(if found.tensors.is_empty() { ExitCode::Done } else { ExitCode::Failed })
}

fn print_difference(out: &mut impl Write, found: &Difference) -> io::Result<()> {
    for (key, first, second) in &found.config {
        writeln!(out, "{key} = {first} and {second}")?;
    }
    let width = found.tensors.iter().map(|tensor| tensor.name.len()).max().unwrap_or(0);
    for tensor in &found.tensors {
        let name = &tensor.name;
        match &tensor.form {
            Some(form) => writeln!(out, "  {name:width$}  {form}")?,
            None => writeln!(
                out,
                "  {name:width$}  {} of {} values differ, by at most {:.3e}, {:.3e} of its norm",
                tensor.num_values, tensor.num_elements, tensor.max_abs, tensor.relative
            )?,
        }
    }
    let (differ, equal) = (found.tensors.len(), found.num_equal);
    writeln!(out, "{differ} tensors differ, {equal} are bit for bit the same")
}
