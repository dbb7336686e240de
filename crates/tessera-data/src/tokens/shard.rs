//! One shard of a token set: a safetensors file.
//!
//! Tensors, in the order of their bytes: `group` U64 `[n]` (only if a file can be several samples:
//! equal for those of one file), `id` U64 `[n]` (number of the sample in the split that was encoded),
//! `label` I32 `[n]` (-1: none), `crc32` U32 `[n, A]` (of a variant's codes as they lie here, level
//! after level), and `codes.0`, `codes.1`, .. `[n, A, N]` for each level, of A variants and N
//! positions in row-major order, the wider types first: U8 of up to 256 codes, U16 of up to 65,536,
//! else U32. Samples are read one by one at their offsets.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use safetensors::Dtype;

use crate::error::{DataError, one_line};
use crate::file;
use crate::header;
use crate::manifest::{Grouping, ShardEntry};
use crate::store::{Blob, Sequential};
use crate::tokens::manifest::TokenManifest;

/// Value of the metadata key `format`.
pub(super) const FORMAT: &str = "tessera-token-shard-1";

/// A shard that is read.
pub(super) struct OpenShard {
    path: PathBuf,
    blob: Blob,
    levels: Vec<Place>,
    num_variants: u64,
    /// Where the labels, the checksums and the numbers of groups start in the file.
    labels_at: u64,
    crcs_at: u64,
    groups_at: Option<u64>,
    /// The number of each sample in the split that was encoded.
    ids: Vec<u64>,
    /// What labels are below.
    num_classes: u64,
}

/// Where the codes of a level lie.
struct Place {
    start: u64,
    /// Bytes of a code.
    width: usize,
    /// Bytes of a variant of a sample.
    bytes: usize,
    num_codes: u32,
}

impl OpenShard {
    /// Opens a shard and checks its length and header against the manifest's entry.
    ///
    /// # Errors
    ///
    /// [`DataError::DamagedTokens`] if it is not the file that was written, [`DataError::Shard`] if
    /// it is one of other codes than the manifest says, [`DataError::Read`].
    pub(super) fn open(
        path: PathBuf,
        blob: io::Result<Blob>,
        entry: &ShardEntry,
        manifest: &TokenManifest,
    ) -> Result<Self, DataError> {
        let blob = opened(&path, blob, entry.bytes)?;
        let damaged = |problem: String| damaged(&path, &problem);
        let (data_at, metadata) = header::read(&blob, FORMAT).map_err(damaged)?;
        let num = usize::try_from(entry.num_samples)
            .map_err(|_| damaged("holds more samples than memory".to_owned()))?;
        let start = |name: &str, dtype, shape: &[usize]| -> Result<u64, DataError> {
            let info = header::tensor(&metadata, name, dtype, shape);
            let info = info.map_err(|problem| DataError::Shard {
                path: path.clone(),
                problem: one_line(&problem),
            })?;
            Ok(data_at + info.data_offsets.0 as u64)
        };
        let num_variants = manifest.variants.len();
        let mut levels = Vec::with_capacity(manifest.levels.len());
        for (number, level) in manifest.levels.iter().enumerate() {
            let (positions, width) = (level.num_positions(), level.width());
            let shape = [num, num_variants, positions];
            let start = start(&format!("codes.{number}"), level.dtype(), &shape)?;
            let (bytes, num_codes) = (positions * width, level.num_codes);
            levels.push(Place { start, width, bytes, num_codes });
        }
        let labels_at = start("label", Dtype::I32, &[num])?;
        let crcs_at = start("crc32", Dtype::U32, &[num, num_variants])?;
        let groups_at = match manifest.groups {
            Some(Grouping::Recorded) => Some(start("group", Dtype::U64, &[num])?),
            _ => None,
        };
        let ids_at = start("id", Dtype::U64, &[num])?;
        let mut ids = vec![0; 8 * num];
        blob.read_exact_at(&mut ids, ids_at)
            .map_err(|source| DataError::Read { path: path.clone(), source })?;
        let ids: Vec<u64> = eights(&ids);
        if !ids.is_sorted_by(|before, after| before < after) {
            return Err(damaged("has samples twice, or in another order than theirs".to_owned()));
        }
        let (num_variants, num_classes) = (num_variants as u64, manifest.num_classes.unwrap_or(0));
        Ok(Self {
            path,
            blob,
            levels,
            num_variants,
            labels_at,
            crcs_at,
            groups_at,
            ids,
            num_classes,
        })
    }

    /// The number of each sample in the split that was encoded, ascending.
    pub(super) fn ids(&self) -> &[u64] {
        &self.ids
    }

    /// Compares the SHA-256 of the file with the manifest's.
    ///
    /// # Errors
    ///
    /// [`DataError::DamagedTokens`] if it is another one.
    pub(super) fn check_hash(&self, entry: &ShardEntry) -> Result<(), DataError> {
        check_hash(&self.path, &self.blob, &entry.sha256)
    }

    /// Reads the codes of a variant of sample `index` into `out`, all levels one after another, and
    /// checks them. What a cache holds wrongly is fetched again, once.
    ///
    /// # Errors
    ///
    /// [`DataError::CorruptSample`] if the codes are not those that were written, or beyond those
    /// that their level has; [`DataError::ReadSample`] if the system fails.
    pub(super) fn read(&self, index: u64, variant: u64, out: &mut [u8]) -> Result<(), DataError> {
        match self.read_once(index, variant, out) {
            Err(DataError::CorruptSample { .. }) if self.forget(index, variant) => {
                self.read_once(index, variant, out)
            }
            outcome => outcome,
        }
    }

    /// Whether a cache held a sample.
    fn forget(&self, index: u64, variant: u64) -> bool {
        let at = index * self.num_variants + variant;
        let places = self.levels.iter().map(|level| (level.start, level.bytes as u64));
        let places = places.chain([(self.crcs_at, 4)]);
        let forget = |(start, bytes)| self.blob.forget(start + at * bytes, bytes);
        places.map(forget).max().unwrap_or(false)
    }

    fn read_once(&self, index: u64, variant: u64, out: &mut [u8]) -> Result<(), DataError> {
        let at = index * self.num_variants + variant;
        let mut stored = vec![0; self.levels.iter().map(|level| level.bytes).sum()];
        for (level, range) in self.levels.iter().zip(self.ranges()) {
            let start = level.start + at * level.bytes as u64;
            self.read_bytes(index, start, &mut stored[range])?;
        }
        let mut expected = [0; 4];
        self.read_bytes(index, self.crcs_at + 4 * at, &mut expected)?;
        let (found, expected) = (crc32fast::hash(&stored), u32::from_le_bytes(expected));
        if found != expected {
            let problem = format!("has crc32 {found:08x}, written as {expected:08x}");
            return Err(self.corrupt(index, problem));
        }
        let (mut quads, _) = out.as_chunks_mut::<4>();
        for (number, (level, range)) in self.levels.iter().zip(self.ranges()).enumerate() {
            let (of_level, others) =
                std::mem::take(&mut quads).split_at_mut(level.bytes / level.width);
            for (quad, code) in of_level.iter_mut().zip(stored[range].chunks_exact(level.width)) {
                *quad = [0; 4];
                quad[..level.width].copy_from_slice(code);
                let code = u32::from_le_bytes(*quad);
                if code >= level.num_codes {
                    return Err(self.corrupt(index, too_large(code, number, level.num_codes)));
                }
            }
            quads = others;
        }
        Ok(())
    }

    /// Where the bytes of each level lie in those of a sample.
    fn ranges(&self) -> impl Iterator<Item = Range<usize>> {
        self.levels.iter().scan(0, |end, level| {
            let start = *end;
            *end += level.bytes;
            Some(start..*end)
        })
    }

    /// Number of a sample's class, if it has one.
    ///
    /// # Errors
    ///
    /// As [`OpenShard::read`]; a number that is out of range is damage.
    pub(super) fn label(&self, index: u64) -> Result<Option<i64>, DataError> {
        let mut label = [0; 4];
        self.read_bytes(index, self.labels_at + 4 * index, &mut label)?;
        match i32::from_le_bytes(label) {
            -1 => Ok(None),
            label if u64::try_from(label).is_ok_and(|label| label < self.num_classes) => {
                Ok(Some(i64::from(label)))
            }
            label => {
                let expected = self.num_classes;
                let problem = format!("has label {label}, expected one of {expected} classes");
                Err(self.corrupt(index, problem))
            }
        }
    }

    /// For each sample a number that it shares with the others of its file; none if the set does not
    /// note it.
    ///
    /// # Errors
    ///
    /// [`DataError::ReadSample`] if the system fails.
    pub(super) fn groups(&self) -> Result<Option<Vec<u64>>, DataError> {
        let Some(start) = self.groups_at else { return Ok(None) };
        let mut bytes = vec![0; 8 * self.ids.len()];
        self.read_bytes(0, start, &mut bytes)?;
        Ok(Some(eights(&bytes)))
    }

    fn corrupt(&self, sample: u64, problem: String) -> DataError {
        DataError::CorruptSample { shard: self.path.clone(), sample, problem }
    }

    /// Reads what belongs to a sample at byte `at` of the file.
    fn read_bytes(&self, index: u64, at: u64, out: &mut [u8]) -> Result<(), DataError> {
        self.blob.read_exact_at(out, at).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => {
                let problem = "is beyond the end of the file, which was longer";
                self.corrupt(index, problem.to_owned())
            }
            _ => {
                let (shard, sample) = (self.path.clone(), index.to_string());
                DataError::ReadSample { shard, sample, source }
            }
        })
    }
}

/// Of a code that its level does not have.
pub(super) fn too_large(code: u32, level: usize, num_codes: u32) -> String {
    format!("has code {code} at level {level}, which has {num_codes} codes")
}

/// A file of a token set that has the length that was written.
pub(super) fn opened(
    path: &Path,
    blob: io::Result<Blob>,
    expected: u64,
) -> Result<Blob, DataError> {
    let blob = blob.map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => damaged(path, "is missing"),
        _ => DataError::Read { path: path.to_owned(), source },
    })?;
    match blob.len() {
        found if found < expected => {
            Err(damaged(path, &format!("is cut short: expected {expected} bytes, found {found}")))
        }
        found if found > expected => {
            Err(damaged(path, &format!("has {found} bytes, expected {expected}")))
        }
        _ => Ok(blob),
    }
}

/// Compares the SHA-256 of a file with the one that was written.
pub(super) fn check_hash(path: &Path, blob: &Blob, expected: &str) -> Result<(), DataError> {
    let found = file::sha256_of_reader(&mut Sequential::new(blob))
        .map_err(|source| DataError::Read { path: path.to_owned(), source })?;
    if found != expected {
        return Err(damaged(path, &format!("is damaged (sha256 {found}, written as {expected})")));
    }
    Ok(())
}

/// A file that is not as it was written.
pub(super) fn damaged(path: &Path, problem: &str) -> DataError {
    DataError::DamagedTokens { path: path.to_owned(), problem: one_line(problem) }
}

fn eights(bytes: &[u8]) -> Vec<u64> {
    bytes.as_chunks().0.iter().map(|eight| u64::from_le_bytes(*eight)).collect()
}
