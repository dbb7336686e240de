//! How often each code came: in all, at each position, and there in each class.
//!
//! Counted are the first variants, which are the samples as they are; every evaluation reads those.

use std::iter::once;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};

use crate::error::DataError;
use crate::file;
use crate::header::{self, Column};
use crate::store::Store;
use crate::tokens::manifest::{FileEntry, TokenLevel, TokenManifest};
use crate::tokens::shard::{damaged, opened};

/// Value of the metadata key `format`.
const FORMAT: &str = "tessera-token-histograms-1";

/// Larger histograms than this are left out.
const MAX_BYTES: usize = 64 << 20;

/// How often each code came in a split, by level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histograms {
    /// For each level, of all positions together: `[K]`.
    pub levels: Vec<Vec<u64>>,
    /// For each level, `[N, K]`; none where they would take more than 64 MiB.
    pub positions: Option<Vec<Vec<u32>>>,
    /// For each level, of samples with a label, `[C, N, K]`; none where there are no classes, or they
    /// would take more than 64 MiB.
    pub classes: Option<Vec<Vec<u32>>>,
}

/// What is counted for each code of a level.
fn sizes(levels: &[TokenLevel], num_rows: impl Fn(&TokenLevel) -> usize) -> Option<Vec<usize>> {
    let size = |level: &TokenLevel| num_rows(level).saturating_mul(level.num_codes as usize);
    let sizes: Vec<usize> = levels.iter().map(size).collect();
    let total = sizes.iter().fold(0usize, |total, &size| total.saturating_add(size));
    (total <= MAX_BYTES / size_of::<u32>()).then_some(sizes)
}

/// Counts of each position; none if they are too many.
fn position_sizes(levels: &[TokenLevel]) -> Option<Vec<usize>> {
    sizes(levels, TokenLevel::num_positions)
}

/// Counts of each class and position; none if they are too many, or there are no classes.
fn class_sizes(levels: &[TokenLevel], num_classes: Option<u64>) -> Option<Vec<usize>> {
    let classes = usize::try_from(num_classes?).unwrap_or(usize::MAX);
    sizes(levels, |level| classes.saturating_mul(level.num_positions()))
}

impl Histograms {
    /// Those of no sample.
    pub(crate) fn new(levels: &[TokenLevel], num_classes: Option<u64>) -> Self {
        let zeros =
            |sizes: Vec<usize>| sizes.into_iter().map(|size| vec![0; size]).collect::<Vec<_>>();
        Self {
            levels: levels.iter().map(|level| vec![0; level.num_codes as usize]).collect(),
            positions: position_sizes(levels).map(zeros),
            classes: class_sizes(levels, num_classes).map(zeros),
        }
    }

    /// Counts the codes of one sample: of all levels, one after another, as a source gives them.
    pub(crate) fn add(&mut self, levels: &[TokenLevel], sample: &[u8], label: Option<i64>) {
        let mut codes = sample.as_chunks().0.iter().map(|quad| u32::from_le_bytes(*quad) as usize);
        for (number, level) in levels.iter().enumerate() {
            let (num_positions, num_codes) = (level.num_positions(), level.num_codes as usize);
            for (position, code) in codes.by_ref().take(num_positions).enumerate() {
                self.levels[number][code] += 1;
                if let Some(positions) = &mut self.positions {
                    positions[number][position * num_codes + code] += 1;
                }
                if let (Some(classes), Some(label)) = (&mut self.classes, label) {
                    let row = label as usize * num_positions + position;
                    classes[number][row * num_codes + code] += 1;
                }
            }
        }
    }

    /// Adds those of other samples of the same levels.
    pub(super) fn merge(&mut self, other: &Self) {
        for (ours, theirs) in self.levels.iter_mut().zip(&other.levels) {
            ours.iter_mut().zip(theirs).for_each(|(ours, theirs)| *ours += theirs);
        }
        let tables = [(&mut self.positions, &other.positions), (&mut self.classes, &other.classes)];
        for (ours, theirs) in tables {
            for (ours, theirs) in ours.iter_mut().flatten().zip(theirs.iter().flatten()) {
                ours.iter_mut().zip(theirs).for_each(|(ours, theirs)| *ours += theirs);
            }
        }
    }

    /// Codes of a level that came at all.
    pub fn num_used(&self, level: usize) -> usize {
        self.levels[level].iter().filter(|count| **count > 0).count()
    }

    /// Exponential of the entropy of a level's codes, from 1 to K.
    pub fn perplexity(&self, level: usize) -> f64 {
        let total = self.levels[level].iter().sum::<u64>() as f64;
        let share = |&count: &u64| count as f64 / total;
        let shares = self.levels[level].iter().filter(|count| **count > 0).map(share);
        shares.map(|share| -share * share.ln()).sum::<f64>().exp()
    }

    /// Writes them into `folder`: tensors `level.0` U64 `[K]`, `position.0` U32 `[N, K]` and
    /// `class.0` U32 `[C, N, K]`, and so on for each level.
    pub(super) fn write(
        &self,
        folder: &Path,
        file: &str,
        levels: &[TokenLevel],
    ) -> Result<FileEntry, DataError> {
        let mut columns = Vec::new();
        for (number, counts) in self.levels.iter().enumerate() {
            let bytes = counts.iter().flat_map(|count| count.to_le_bytes());
            let shape = vec![counts.len()];
            columns.push(Column::new(format!("level.{number}"), Dtype::U64, shape, bytes));
        }
        for (name, table) in [("position", &self.positions), ("class", &self.classes)] {
            for (number, (level, counts)) in levels.iter().zip(table.iter().flatten()).enumerate() {
                let bytes = counts.iter().flat_map(|count| count.to_le_bytes());
                let (positions, num_codes) = (level.num_positions(), level.num_codes as usize);
                let shape = match name {
                    "class" => vec![counts.len() / (positions * num_codes), positions, num_codes],
                    _ => vec![positions, num_codes],
                };
                columns.push(Column::new(format!("{name}.{number}"), Dtype::U32, shape, bytes));
            }
        }
        let head = header::of_columns(FORMAT, &columns);
        let pieces = columns.iter().map(|column| column.bytes.as_slice());
        let pieces: Vec<&[u8]> = once(head.as_slice()).chain(pieces).collect();
        let written = file::write_synced(&folder.join(file), &pieces)?;
        Ok(FileEntry { file: file.to_owned(), bytes: written.bytes, sha256: written.sha256 })
    }

    /// Reads what was written, and checks its hash.
    ///
    /// # Errors
    ///
    /// [`DataError::DamagedTokens`] if it is not the file that was written, [`DataError::Read`].
    pub(super) fn read(
        store: &Store,
        entry: &FileEntry,
        manifest: &TokenManifest,
    ) -> Result<Self, DataError> {
        let path = store.path(&entry.file);
        let blob = opened(&path, store.open(&entry.file), entry.bytes)?;
        let mut bytes = vec![0; blob.len() as usize];
        blob.read_exact_at(&mut bytes, 0)
            .map_err(|source| DataError::Read { path: path.clone(), source })?;
        let found = file::sha256_of(&bytes);
        if found != entry.sha256 {
            let problem = format!("is damaged (sha256 {found}, written as {})", entry.sha256);
            return Err(damaged(&path, &problem));
        }
        Self::parse(&bytes, manifest).map_err(|problem| damaged(&path, &problem))
    }

    fn parse(bytes: &[u8], manifest: &TokenManifest) -> Result<Self, String> {
        let file = SafeTensors::deserialize(bytes)
            .map_err(|error| format!("is not a safetensors file ({error})"))?;
        let TokenManifest { levels, num_classes, .. } = manifest;
        let wide = levels.iter().enumerate().map(|(number, level)| {
            let bytes = bytes_of(&file, "level", number, 8 * level.num_codes as usize)?;
            Ok(bytes.as_chunks().0.iter().map(|eight| u64::from_le_bytes(*eight)).collect())
        });
        let table = |name: &str, sizes: Option<Vec<usize>>| -> Result<_, String> {
            let Some(sizes) = sizes else { return Ok(None) };
            let of_level = |(number, size): (usize, usize)| -> Result<Vec<u32>, String> {
                let bytes = bytes_of(&file, name, number, 4 * size)?;
                Ok(bytes.as_chunks().0.iter().map(|quad| u32::from_le_bytes(*quad)).collect())
            };
            sizes.into_iter().enumerate().map(of_level).collect::<Result<Vec<_>, _>>().map(Some)
        };
        Ok(Self {
            levels: wide.collect::<Result<_, String>>()?,
            positions: table("position", position_sizes(levels))?,
            classes: table("class", class_sizes(levels, *num_classes))?,
        })
    }
}

/// The bytes of the tensor of a level, if they are as many.
fn bytes_of<'a>(
    file: &SafeTensors<'a>,
    name: &str,
    level: usize,
    expected: usize,
) -> Result<&'a [u8], String> {
    let name = format!("{name}.{level}");
    let tensor = file.tensor(&name).map_err(|_| format!("has no tensor {name:?}"))?;
    match tensor.data() {
        bytes if bytes.len() == expected => Ok(bytes),
        bytes => Err(format!("has {} bytes in tensor {name:?}, expected {expected}", bytes.len())),
    }
}
