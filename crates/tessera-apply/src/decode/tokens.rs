//! Tokens as they are kept: a token set, or one safetensors file.
//!
//! The file is what a program that makes codes can write without knowing token sets: `codes.0`, `codes.1`, .. of unsigned or
//! signed whole numbers, `[N, positions]` each, the finest level first, and in the metadata the key `tokenizer` with the hash
//! of the model.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use tessera_data::{DataConfig, DataKind, Draw, Source};
use tessera_model::{Level, OpenModel};

use super::shortened;
use crate::error::ApplyError;

/// Tokens that are open.
pub struct TokenFile {
    tokenizer: String,
    kept: Kept,
}

enum Kept {
    Set(Arc<dyn Source>),
    File {
        /// Codes of each sample, those of all levels one after another.
        samples: Vec<Vec<u32>>,
        /// Class of each sample; empty where the file does not say it.
        classes: Vec<i64>,
    },
}

impl std::fmt::Debug for TokenFile {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("TokenFile")
            .field("tokenizer", &self.tokenizer)
            .finish_non_exhaustive()
    }
}

impl TokenFile {
    /// Opens a split of a token set, or a file, with codes of the levels that `model` has.
    ///
    /// # Errors
    ///
    /// [`ApplyError::Data`] or [`ApplyError::BadInput`].
    pub fn open(path: &Path, split: &str, model: &OpenModel) -> Result<Self, ApplyError> {
        Self::open_of(path, split, &model.file.autoencoder().levels)
    }

    /// The same with codes of these levels.
    pub(crate) fn open_of(path: &Path, split: &str, levels: &[Level]) -> Result<Self, ApplyError> {
        if path.is_file() {
            return Self::read(path, levels);
        }
        let kind = DataKind::Tokens;
        let config = DataConfig { kind, path: path.to_owned(), ..DataConfig::default() };
        let source = tessera_data::source::open(&config, split)?;
        let tokenizer = source.tokens().expect("a token set has tokens").tokenizer.clone();
        Ok(Self { tokenizer, kept: Kept::Set(source) })
    }

    /// The same, of codes that `model` made.
    ///
    /// # Errors
    ///
    /// As [`Self::open`]; [`ApplyError::BadInput`] where another model made them.
    pub(crate) fn of_model(
        path: &Path,
        split: &str,
        model: &OpenModel,
    ) -> Result<Self, ApplyError> {
        let tokens = Self::open(path, split, model)?;
        let (theirs, ours) = (tokens.tokenizer(), &model.file.hash);
        if theirs == ours {
            return Ok(tokens);
        }
        let [theirs, ours] = [theirs, ours].map(shortened);
        Err(ApplyError::BadInput(format!(
            "the tokens of {} were made by the model {theirs}, this one is {ours}: decode them with that model, or encode \
             the data with this one",
            path.display()
        )))
    }

    fn read(path: &Path, levels: &[Level]) -> Result<Self, ApplyError> {
        let refused =
            |problem: String| ApplyError::BadInput(format!("{} {problem}", path.display()));
        let bytes = fs::read(path).map_err(ApplyError::file("read", path))?;
        let no_file = |error| refused(format!("is no safetensors file ({error})"));
        let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(no_file)?;
        let tokenizer = metadata.metadata().as_ref().and_then(|words| words.get("tokenizer"));
        let tokenizer = tokenizer.cloned().ok_or_else(|| {
            refused(
                "does not say which model made its codes: give the folder of a token set, or write the model's hash \
                 into the metadata key tokenizer"
                    .to_owned(),
            )
        })?;
        let file = SafeTensors::deserialize(&bytes).map_err(no_file)?;
        let mut samples: Vec<Vec<u32>> = Vec::new();
        let mut number = 0;
        for level in levels {
            for &num_codes in &level.num_codes {
                let name = format!("codes.{number}");
                number += 1;
                let view =
                    file.tensor(&name).map_err(|_| refused(format!("has no tensor {name}")))?;
                let rows = rows_of(&view, level.num_positions(), num_codes)
                    .map_err(|problem| refused(format!("cannot be decoded: {name} {problem}")))?;
                if number == 1 {
                    samples = rows;
                    continue;
                }
                if rows.len() != samples.len() {
                    let (found, wanted) = (rows.len(), samples.len());
                    return Err(refused(format!("has {found} samples in {name}, {wanted} before")));
                }
                samples.iter_mut().zip(rows).for_each(|(sample, more)| sample.extend(more));
            }
        }
        let classes = match file.tensor("label") {
            Ok(view) => labels_of(&view, samples.len()).map_err(refused)?,
            Err(_) => Vec::new(),
        };
        Ok(Self { tokenizer, kept: Kept::File { samples, classes } })
    }

    /// Hash of the model that made them.
    pub fn tokenizer(&self) -> &str {
        &self.tokenizer
    }

    /// Samples.
    pub fn num_samples(&self) -> u64 {
        match &self.kept {
            Kept::Set(source) => source.num_samples(),
            Kept::File { samples, .. } => samples.len() as u64,
        }
    }

    /// Number of a row's sample in the data set that was encoded.
    pub fn number(&self, row: u64) -> u64 {
        match &self.kept {
            Kept::Set(source) => source.name(row).parse().unwrap_or(row),
            Kept::File { .. } => row,
        }
    }

    /// The row of the sample of this number, if there is one.
    pub(crate) fn row_of(&self, id: u64) -> Option<u64> {
        let num = self.num_samples();
        // Numbers ascend, and none is below its row.
        let (mut low, mut high) = (0, num.min(id.saturating_add(1)));
        while low < high {
            let middle = low + (high - low) / 2;
            if self.number(middle) < id { low = middle + 1 } else { high = middle }
        }
        (low < num && self.number(low) == id).then_some(low)
    }

    /// The rows of the samples of these numbers, or of all, in order; `limit` at most.
    pub(super) fn rows(&self, ids: &[u64], limit: Option<u64>) -> Result<Vec<u64>, ApplyError> {
        let num = self.num_samples();
        let mut rows = BTreeSet::new();
        for &id in ids {
            let row = self.row_of(id).ok_or_else(|| {
                let problem = format!("--ids names {id}, and there is no such sample among {num}");
                ApplyError::BadInput(problem)
            })?;
            rows.insert(row);
        }
        let most = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        Ok(match ids.is_empty() {
            true => (0..num).take(most).collect(),
            false => rows.into_iter().take(most).collect(),
        })
    }

    /// The codes of each sample of the tile, of `size`, that begins with a row.
    pub(super) fn tile(&self, first: u64, size: u64) -> Result<Vec<Vec<u32>>, ApplyError> {
        let end = self.num_samples().min(first + size);
        (first..end).map(|row| self.codes(row)).collect()
    }

    /// Codes and class of the first rows; -1: none.
    pub(crate) fn first(&self, num: u64) -> Result<Vec<(Vec<u32>, i64)>, ApplyError> {
        let class = |row: u64| match &self.kept {
            Kept::Set(source) => Ok::<i64, ApplyError>(source.label(row)?.unwrap_or(-1)),
            Kept::File { classes, .. } => Ok(classes.get(row as usize).copied().unwrap_or(-1)),
        };
        (0..num).map(|row| Ok((self.codes(row)?, class(row)?))).collect()
    }

    /// The codes of a row, those of all levels one after another.
    pub(crate) fn codes(&self, row: u64) -> Result<Vec<u32>, ApplyError> {
        match &self.kept {
            Kept::File { samples, .. } => Ok(samples[row as usize].clone()),
            Kept::Set(source) => {
                let mut bytes = vec![0; source.shape().num_bytes()];
                source.read(row, Draw::NONE, &mut bytes)?;
                let (quads, _) = bytes.as_chunks::<4>();
                Ok(quads.iter().map(|quad| u32::from_le_bytes(*quad)).collect())
            }
        }
    }
}

/// The rows `[N, positions]` of a tensor; of `[N, variants, positions]` the first variant.
fn rows_of(view: &TensorView<'_>, positions: i64, num_codes: i64) -> Result<Vec<Vec<u32>>, String> {
    let (num, variants, found) = match view.shape() {
        [num, found] => (*num, 1, *found),
        [num, variants, found] => (*num, *variants, *found),
        other => return Err(format!("is {other:?}, expected [N, {positions}]")),
    };
    if found as i64 != positions || variants == 0 {
        return Err(format!("is {:?}, expected [N, {positions}]", view.shape()));
    }
    let width = match view.dtype() {
        Dtype::U8 => 1,
        Dtype::U16 | Dtype::I16 => 2,
        Dtype::U32 | Dtype::I32 => 4,
        Dtype::U64 | Dtype::I64 => 8,
        other => return Err(format!("is of kind {other:?}, expected whole numbers")),
    };
    let code = |bytes: &[u8]| {
        let mut word = [0; 8];
        word[..width].copy_from_slice(bytes);
        let code = u64::from_le_bytes(word);
        // What is negative is large.
        let is_code = code < num_codes as u64;
        is_code
            .then_some(code as u32)
            .ok_or_else(|| format!("has a code that is none of {num_codes}"))
    };
    let row_bytes = found * width;
    let row = |at: usize| {
        let bytes = &view.data()[at * variants * row_bytes..][..row_bytes];
        bytes.chunks_exact(width).map(code).collect::<Result<Vec<_>, _>>()
    };
    (0..num).map(row).collect()
}

/// The class of each of `num` samples.
fn labels_of(view: &TensorView<'_>, num: usize) -> Result<Vec<i64>, String> {
    if view.dtype() != Dtype::I32 || view.shape() != [num] {
        let (dtype, shape) = (view.dtype(), view.shape());
        return Err(format!(
            "has a tensor label of kind {dtype:?} and shape {shape:?}, expected int32 [{num}]"
        ));
    }
    let (words, _) = view.data().as_chunks::<4>();
    Ok(words.iter().map(|word| i64::from(i32::from_le_bytes(*word))).collect())
}
