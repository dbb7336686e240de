//! Samples decoded from published files: any collection, any modality.

use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

use crate::config::{DataConfig, OnCorrupt};
use crate::draw::Draw;
use crate::error::DataError;
use crate::file;
use crate::samples::{Groups, Source, assert_read, starts_every};
use crate::shape::SampleShape;
use crate::sources::files::Files;
use crate::sources::recipe::{Decoded, Recipe};

/// Samples of one split, decoded when they are read.
pub(crate) struct MediaSource {
    files: Box<dyn Files>,
    recipe: Recipe,
    /// Number of the first sample of each file, and at the end the number of samples; none if
    /// each file is one sample.
    starts: Option<Vec<u64>>,
    /// Files that were found damaged when they were counted.
    skipped: Vec<usize>,
    fingerprint: String,
    /// Tells sources apart in [`LAST`].
    serial: u64,
}

static SERIAL: AtomicU64 = AtomicU64::new(0);

/// What a thread decoded last: source, file, piece of the file, and what was in it.
type Last = Option<((u64, usize, u64), Rc<Decoded>)>;

thread_local! {
    /// Samples of one file follow each other when a data set is packed.
    static LAST: RefCell<Last> = const { RefCell::new(None) };
}

impl MediaSource {
    /// Samples of `files`, made as `config` says.
    pub(crate) fn new(files: Box<dyn Files>, config: &DataConfig) -> Result<Self, DataError> {
        let recipe = recipe(&*files, config)?;
        let (starts, skipped) = match recipe.has_parts() {
            true => {
                let (starts, skipped) = starts(&*files, &recipe, config.on_corrupt)?;
                (Some(starts), skipped)
            }
            false => (None, Vec::new()),
        };
        let fingerprint = format!("{} {}", files.fingerprint(), recipe.describe());
        let fingerprint = file::sha256_of(fingerprint.as_bytes());
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        Ok(Self { files, recipe, starts, skipped, fingerprint, serial })
    }

    /// File of a sample, and the sample's number in it.
    fn place(&self, id: u64) -> (usize, u64) {
        match &self.starts {
            Some(starts) => {
                let index = starts.partition_point(|&start| start <= id) - 1;
                (index, id - starts[index])
            }
            None => (id as usize, 0),
        }
    }

    fn decode(&self, index: usize, part: u64, draw: Draw) -> Result<Rc<Decoded>, DataError> {
        let decode = || self.recipe.decode(&*self.files, index, part, draw).map(Rc::new);
        if !self.recipe.is_shared() {
            return decode();
        }
        let key = (self.serial, index, self.recipe.piece(part));
        let known = LAST.with_borrow(|last| match last {
            Some((known, decoded)) if *known == key => Some(decoded.clone()),
            _ => None,
        });
        if let Some(decoded) = known {
            return Ok(decoded);
        }
        let decoded = decode()?;
        LAST.set(Some((key, decoded.clone())));
        Ok(decoded)
    }
}

/// What `work` on a file gives. A file that makes a decoder panic is a damaged file.
fn guarded<T>(
    files: &dyn Files,
    index: usize,
    work: impl FnOnce() -> Result<T, DataError>,
) -> Result<T, DataError> {
    panic::catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(files.corrupt(index, "makes its decoder panic".to_owned())))
}

/// The recipe of `config`; what that leaves open is what the first file that can be read says.
fn recipe(files: &dyn Files, config: &DataConfig) -> Result<Recipe, DataError> {
    let num_files = if Recipe::is_open(config) { files.num_files() } else { 1 };
    let mut first = None;
    for index in 0..num_files {
        match guarded(files, index, || Recipe::new(config, files, index)) {
            Err(error) if config.on_corrupt == OnCorrupt::Skip && error.is_of_one_sample() => {
                tracing::warn!(%error, "file skipped");
                first.get_or_insert(error);
            }
            recipe => return recipe,
        }
    }
    Err(nothing_readable(files, first.expect("there is a file, and it was skipped")))
}

fn nothing_readable(files: &dyn Files, first: DataError) -> DataError {
    let problem = format!(
        "has no file that can be read: all {} are damaged, and the first is {first}",
        files.num_files()
    );
    DataError::NothingReadable { path: files.root().to_owned(), problem }
}

/// Number of the first sample of each file, and at the end of all samples; and the files that are
/// skipped.
fn starts(
    files: &dyn Files,
    recipe: &Recipe,
    on_corrupt: OnCorrupt,
) -> Result<(Vec<u64>, Vec<usize>), DataError> {
    let counts = (0..files.num_files()).into_par_iter();
    let counts: Vec<Result<u64, DataError>> =
        counts.map(|index| guarded(files, index, || recipe.num_parts(files, index))).collect();
    let (mut starts, mut total, mut skipped, mut first) = (vec![0], 0, Vec::new(), None);
    for (index, count) in counts.into_iter().enumerate() {
        match count {
            Ok(count) => total += count,
            Err(error) if on_corrupt == OnCorrupt::Skip && error.is_of_one_sample() => {
                tracing::warn!(%error, "file skipped");
                skipped.push(index);
                first.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
        starts.push(total);
    }
    if let Some(first) = first.filter(|_| skipped.len() == files.num_files()) {
        return Err(nothing_readable(files, first));
    }
    if total == 0 {
        let path = files.root().display().to_string();
        let problem = format!("is too large: {path} holds no file as large or as long as a sample");
        return Err(DataError::Config { key: recipe.size_key(), problem });
    }
    Ok((starts, skipped))
}

impl Source for MediaSource {
    fn num_samples(&self) -> u64 {
        match &self.starts {
            Some(starts) => starts[starts.len() - 1],
            None => self.files.num_files() as u64,
        }
    }

    fn shape(&self) -> SampleShape {
        self.recipe.shape()
    }

    fn read(&self, id: u64, draw: Draw, out: &mut [u8]) -> Result<(), DataError> {
        assert_read(self, id, out);
        let (index, part) = self.place(id);
        guarded(&*self.files, index, || {
            let decoded = self.decode(index, part, draw)?;
            let placed = self.recipe.place(&decoded, part, draw, out);
            placed.map_err(|problem| self.recipe.refused(&*self.files, index, problem))
        })
    }

    fn label(&self, id: u64) -> Result<Option<i64>, DataError> {
        self.files.label(self.place(id).0)
    }

    fn has_labels(&self) -> bool {
        self.files.has_labels()
    }

    fn num_classes(&self) -> Result<Option<u64>, DataError> {
        self.files.num_classes()
    }

    fn groups(&self) -> Result<Groups, DataError> {
        let Some(starts) = &self.starts else { return Ok(Groups::Single) };
        let of_file = |ends: &[u64]| std::iter::repeat_n(ends[0], (ends[1] - ends[0]) as usize);
        Ok(Groups::Of(starts.windows(2).flat_map(of_file).collect()))
    }

    fn classes(&self) -> Vec<String> {
        self.files.classes()
    }

    fn notes(&self) -> Vec<String> {
        self.files.notes()
    }

    fn name(&self, id: u64) -> String {
        let (index, part) = self.place(id);
        match self.starts {
            Some(_) => format!("{}#{part}", self.files.name(index)),
            None => self.files.name(index),
        }
    }

    fn shard_starts(&self) -> Vec<u64> {
        let sample = |file: u64| match &self.starts {
            Some(starts) => starts[file as usize],
            None => file,
        };
        match self.files.archive_starts() {
            Some(starts) => starts.into_iter().map(sample).collect(),
            None => starts_every(1024, self.num_samples()),
        }
    }

    fn skipped(&self) -> Vec<String> {
        self.skipped.iter().map(|&index| self.files.name(index)).collect()
    }

    fn origin(&self) -> Vec<String> {
        let root = self.files.root();
        vec![root.file_name().unwrap_or(root.as_os_str()).to_string_lossy().into_owned()]
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }
}
