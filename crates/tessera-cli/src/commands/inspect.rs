//! `tessera inspect`: what a checkpoint holds, and whether its bytes are the ones written.
//!
//! Reads the manifest and the headers of the safetensors files; needs no libtorch. The format is
//! written down in `docs/formats.md`.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use safetensors::tensor::Metadata;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tessera_control::ExitCode;

use crate::failure::Failure;

/// Name of a checkpoint's manifest.
const MANIFEST: &str = "manifest.json";
/// Name of the file with the manifest's own hash.
const MANIFEST_HASH: &str = "manifest.sha256";
/// What the manifest calls itself.
const FORMAT: &str = "tessera-checkpoint";
/// The version of the format that this program reads.
const VERSION: u32 = 1;
/// A safetensors header is not longer than this, by its own specification.
const LONGEST_HEADER: u64 = 100_000_000;

/// Which checkpoint, and how to print it.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// A checkpoint folder, its manifest.json, or a run folder for its newest checkpoint.
    path: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// The parts of a manifest that are shown; a later writer may add others.
#[derive(Debug, Deserialize)]
struct Manifest {
    step: u64,
    samples_seen: u64,
    world_size: usize,
    tessera: String,
    config_hash: String,
    config: Config,
    files: Vec<ManifestFile>,
}

#[derive(Debug, Deserialize)]
struct Config {
    seed: u64,
}

#[derive(Debug, Deserialize)]
struct ManifestFile {
    name: String,
    bytes: u64,
    sha256: String,
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
    intact: bool,
    files: Vec<FileReport>,
    tensors: Vec<TensorReport>,
}

#[derive(Debug, Serialize)]
struct FileReport {
    name: String,
    bytes: u64,
    sha256: String,
    /// What is wrong with the file; absent if nothing is.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

#[derive(Debug, Serialize)]
struct TensorReport {
    name: String,
    dtype: String,
    shape: Vec<usize>,
    file: String,
}

/// Prints the report; ends with 6 if a file is not what was written.
pub(crate) fn run(args: &InspectArgs) -> Result<ExitCode, Failure> {
    let folder = checkpoint_folder(&args.path)?;
    let report = report(&folder, read_manifest(&folder.join(MANIFEST))?);
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&report).map_err(io::Error::from)?)?;
    } else {
        print(&mut out, &report)?;
    }
    let Some((name, problem)) =
        report.files.iter().find_map(|file| Some((&file.name, file.problem.as_ref()?)))
    else {
        return Ok(ExitCode::Done);
    };
    let message = format!(
        "{}: {problem}: resume from another checkpoint, `--resume auto` finds one",
        folder.join(name).display()
    );
    Err(Failure::new(ExitCode::DataCorrupt, message))
}

/// The folder that holds the manifest meant by `path`.
fn checkpoint_folder(path: &Path) -> Result<PathBuf, Failure> {
    if path.file_name().is_some_and(|name| name == MANIFEST) && path.is_file() {
        return Ok(path.parent().map_or_else(PathBuf::new, Path::to_owned));
    }
    if path.join(MANIFEST).is_file() {
        return Ok(path.to_owned());
    }
    newest_checkpoint(&path.join("checkpoints")).ok_or_else(|| {
        let problem =
            if path.exists() { "is no checkpoint and has none" } else { "does not exist" };
        Failure::bad_input(format!(
            "{} {problem}: name a checkpoint folder, its {MANIFEST}, or a run folder",
            path.display()
        ))
    })
}

/// The one with the highest step that has a manifest: those without were never finished.
fn newest_checkpoint(checkpoints: &Path) -> Option<PathBuf> {
    let mut newest = None;
    for entry in std::fs::read_dir(checkpoints).ok()?.flatten() {
        let name = entry.file_name();
        let step = name.to_str().and_then(|name| name.strip_prefix("step-")?.parse::<u64>().ok());
        if entry.path().join(MANIFEST).is_file() {
            newest = newest.max(step.map(|step| (step, entry.path())));
        }
    }
    newest.map(|(_, path)| path)
}

fn read_manifest(path: &Path) -> Result<Manifest, Failure> {
    #[derive(Deserialize)]
    struct Head {
        #[serde(default)]
        format: String,
        version: u32,
    }
    let refuse =
        |code, problem: String| Failure::new(code, format!("{} {problem}", path.display()));
    let text = std::fs::read(path).map_err(|error| {
        refuse(ExitCode::BadInput, format!("cannot be read ({error}): check its permissions"))
    })?;
    let damaged = |how: &dyn std::fmt::Display| {
        let problem = format!("is damaged ({how}): resume from another checkpoint");
        refuse(ExitCode::DataCorrupt, problem)
    };
    let promised = std::fs::read(path.with_file_name(MANIFEST_HASH)).ok();
    let hash_line = format!("{}  {MANIFEST}\n", hex(&Sha256::digest(&text))).into_bytes();
    if promised.as_ref().is_some_and(|promised| *promised != hash_line) {
        return Err(damaged(&format!("not as {MANIFEST_HASH} has it")));
    }
    let value: serde_json::Value =
        serde_json::from_slice(&text).map_err(|error| damaged(&error))?;
    let head = Head::deserialize(&value).ok().filter(|head| head.format == FORMAT);
    match head {
        None => {
            let problem = "is no checkpoint's manifest: for a data set use `tessera data inspect`";
            Err(refuse(ExitCode::BadInput, problem.into()))
        }
        Some(head) if head.version != VERSION => {
            let version = head.version;
            let problem = format!(
                "has format version {version}, this program reads {VERSION}: use the tessera that wrote it"
            );
            Err(refuse(ExitCode::BadInput, problem))
        }
        Some(_) if promised.is_none() => Err(damaged(&format!("{MANIFEST_HASH} is missing"))),
        Some(_) => serde_json::from_value(value).map_err(|error| damaged(&error)),
    }
}

fn report(folder: &Path, manifest: Manifest) -> Report {
    let Manifest { step, samples_seen, world_size, tessera, config_hash, config, files } = manifest;
    let mut tensors = Vec::new();
    let mut reports = Vec::new();
    for file in files {
        let problem = match check_file(folder, &file) {
            Ok(metadata) => {
                for name in metadata.offset_keys() {
                    let Some(info) = metadata.info(&name) else { continue };
                    let (dtype, shape) = (info.dtype.to_string(), info.shape.clone());
                    tensors.push(TensorReport { name, dtype, shape, file: file.name.clone() });
                }
                None
            }
            Err(problem) => Some(problem),
        };
        let ManifestFile { name, bytes, sha256 } = file;
        reports.push(FileReport { name, bytes, sha256, problem });
    }
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    let intact = reports.iter().all(|file| file.problem.is_none());
    Report {
        path: folder.to_owned(),
        step,
        samples_seen,
        world_size,
        seed: config.seed,
        tessera,
        config_hash,
        intact,
        files: reports,
        tensors,
    }
}

/// Hashes the file piece by piece and reads its header; the error says what is wrong.
fn check_file(folder: &Path, file: &ManifestFile) -> Result<Metadata, String> {
    if Path::new(&file.name).file_name().is_none_or(|name| name != file.name.as_str()) {
        return Err("the manifest names a file outside the checkpoint".into());
    }
    let unreadable = |error: io::Error| format!("cannot be read ({error})");
    let mut source = File::open(folder.join(&file.name)).map_err(unreadable)?;
    let bytes = source.metadata().map_err(unreadable)?.len();
    if bytes != file.bytes {
        return Err(format!("has {bytes} bytes where the manifest says {}", file.bytes));
    }
    let mut hash = HashingReader { source: &mut source, hasher: Sha256::new() };
    let metadata = read_header(&mut hash);
    io::copy(&mut hash, &mut io::sink()).map_err(unreadable)?;
    let digest = hex(&hash.hasher.finalize());
    if digest != file.sha256.to_ascii_lowercase() {
        return Err("sha256 differs from the manifest's".into());
    }
    metadata.map_err(|error| format!("is no safetensors file ({error})"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read_header(source: &mut impl Read) -> io::Result<Metadata> {
    let mut length = [0u8; 8];
    source.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    if length > LONGEST_HEADER {
        return Err(io::Error::other("its header is too long"));
    }
    let mut header = Vec::new();
    source.take(length).read_to_end(&mut header)?;
    Ok(serde_json::from_slice(&header)?)
}

/// Hashes what is read through it.
struct HashingReader<'a> {
    source: &'a mut File,
    hasher: Sha256,
}

impl Read for HashingReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

fn print(out: &mut impl Write, report: &Report) -> io::Result<()> {
    writeln!(out, "{}", report.path.display())?;
    writeln!(out, "step {}, {} samples seen", report.step, report.samples_seen)?;
    writeln!(out, "written by {} workers, seed {}", report.world_size, report.seed)?;
    writeln!(out, "tessera {}, config {}", report.tessera, report.config_hash)?;
    for FileReport { name, bytes, sha256, problem } in &report.files {
        let state = problem.as_deref().unwrap_or("intact");
        writeln!(out, "{name}  {bytes} bytes  sha256 {sha256}  {state}")?;
    }
    let width = report.tensors.iter().map(|tensor| tensor.name.len()).max().unwrap_or(0);
    for TensorReport { name, dtype, shape, .. } in &report.tensors {
        writeln!(out, "  {name:width$}  {dtype}  {shape:?}")?;
    }
    Ok(())
}
