//! A report of runs as one page that holds everything it shows.
//!
//! [`write()`] reads run folders, or the folder of a sweep, as `docs/formats.md` describes them, and writes one HTML file: summary,
//! curves, reconstructions, samples, codebook, configuration with origins, failures, and the command to do it again. The
//! page fetches nothing, which its content policy makes sure of, and works without scripts.
//!
//! Deliberately without libtorch: what has to be decoded by a model is in files, those of the training or an atlas.

mod atlas;
mod chart;
mod codebook;
mod error;
mod names;
mod numbers;
mod page;
mod picture;
mod read;
mod sections;
mod sound;
mod sweep;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

pub use error::ReportError;

use page::{Fidelity, Page};
use read::Run;
use sweep::SweepView;

/// What is reported, and where.
#[derive(Debug, Clone)]
pub struct ReportOptions {
    /// Run folders, and folders of sweeps.
    pub runs: Vec<PathBuf>,
    /// The page to write.
    pub out: PathBuf,
    /// Whether a page that is there is replaced.
    pub force: bool,
    /// Its title; without it, the names of the runs.
    pub title: Option<String>,
    /// Bytes of the page at most: pictures are made smaller or left out until it fits.
    pub most_bytes: u64,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reported {
    /// Size of the page.
    pub bytes: u64,
    /// Runs that it shows, those of sweeps included.
    pub num_runs: usize,
    /// What the reader of the page is told that went wrong, such as pictures that cannot be read.
    pub notes: Vec<String>,
}

/// Writes the page of the runs in `options`, whole or not at all.
///
/// # Errors
///
/// [`ReportError`] where a path holds no run, the page is there already, or a file is not what it should be.
pub fn write(options: &ReportOptions) -> Result<Reported, ReportError> {
    if options.runs.is_empty() {
        return Err(ReportError::Nothing);
    }
    if options.out.exists() && !options.force {
        return Err(ReportError::Exists { path: options.out.clone() });
    }
    let (runs, sweeps) = read_all(&options.runs)?;
    let prepared = sections::Prepared::of(&runs);
    let mut smallest = 0;
    for fidelity in Fidelity::ALL {
        let page = Page::new(fidelity, runs.len() > 1);
        let (title, about) = sections::title(options.title.as_deref(), &runs, &sweeps);
        let sections = sections::all(&page, &runs, &sweeps, &prepared);
        let notes = page.notes();
        let text = page::whole(&title, &about, &sections, fidelity, &notes);
        if text.len() as u64 <= options.most_bytes {
            put(&options.out, &text)?;
            return Ok(Reported { bytes: text.len() as u64, num_runs: runs.len(), notes });
        }
        smallest = text.len();
    }
    Err(ReportError::TooLarge { bytes: smallest, most: options.most_bytes })
}

/// The runs, those of sweeps among them, and the sweeps.
fn read_all(paths: &[PathBuf]) -> Result<(Vec<Run>, Vec<SweepView>), ReportError> {
    let (mut found, mut sweeps) = (Vec::new(), Vec::new());
    for path in paths {
        if path.join(tessera_sweep::STATE).is_file() {
            let sweep = SweepView::read(path)?;
            let best = sweep.best_runs(path);
            found.extend(best.into_iter().map(|(trial, run)| (run, format!("trial {trial}"))));
            sweeps.push(sweep);
        } else if Run::is_at(path) {
            found.push((path.clone(), name_of(path)));
        } else {
            return Err(ReportError::NoRun { path: path.clone() });
        }
    }
    let mut runs = Vec::new();
    for (path, name) in found {
        runs.push(Run::read(&path, name)?);
    }
    Ok((runs, sweeps))
}

/// The last part of a path, also of one such as `.`.
fn name_of(path: &Path) -> String {
    let whole = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let name = whole.file_name().or(path.file_name()).unwrap_or(OsStr::new("run"));
    name.to_string_lossy().into_owned()
}

/// Writes the page under a name of its own, then gives it its name.
fn put(path: &Path, text: &str) -> Result<(), ReportError> {
    let wrong = |source| ReportError::File { act: "write", path: path.to_owned(), source };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).map_err(wrong)?;
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let partial = path.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
    let written = fs::write(&partial, text).and_then(|()| fs::rename(&partial, path));
    if written.is_err() {
        let _ = fs::remove_file(&partial); // the error of the write is what is told
    }
    written.map_err(wrong)
}
