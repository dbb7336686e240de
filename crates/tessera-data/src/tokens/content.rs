//! The codes of one shard before it is written, and the bytes that they become.

use std::cmp::Reverse;

use safetensors::Dtype;

use crate::header::{self, Column};
use crate::tokens::manifest::{TokenLevel, TokenManifest};
use crate::tokens::shard::{FORMAT, too_large};

/// The codes of the samples of one shard, before it is written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenShard {
    /// For each level the codes `[n, A, N]`: of n samples, A variants and N positions.
    pub codes: Vec<Vec<u32>>,
    /// The class of each sample, where it has one. They are left out where the plan counts no
    /// classes.
    pub labels: Vec<Option<i64>>,
    /// The number of each sample in its split, ascending.
    pub ids: Vec<u64>,
    /// Names of samples that could not be read and were left out.
    pub skipped: Vec<String>,
}

impl TokenShard {
    /// Samples that have a label.
    pub(super) fn num_labels(&self) -> u64 {
        self.labels.iter().flatten().count() as u64
    }

    /// The bytes of the file, a pure function of what is held and of what the manifest says.
    /// `groups` has a number for each sample of the split.
    ///
    /// # Errors
    ///
    /// What of it does not fit the manifest; completes "shard ...".
    pub(super) fn to_bytes(
        &self,
        head: &TokenManifest,
        groups: Option<&[u64]>,
    ) -> Result<Vec<u8>, String> {
        self.check(head)?;
        let (num, num_variants) = (self.ids.len(), head.variants.len());
        let mut columns = Vec::new();
        if let Some(groups) = groups {
            let of_samples = self.ids.iter().flat_map(|&id| groups[id as usize].to_le_bytes());
            columns.push(Column::new("group", Dtype::U64, vec![num], of_samples));
        }
        let ids = self.ids.iter().flat_map(|id| id.to_le_bytes());
        columns.push(Column::new("id", Dtype::U64, vec![num], ids));
        let label = |label: &Option<i64>| match (label, head.num_classes) {
            (Some(label), Some(_)) => (*label as i32).to_le_bytes(),
            _ => (-1i32).to_le_bytes(),
        };
        let labels = self.labels.iter().flat_map(label);
        columns.push(Column::new("label", Dtype::I32, vec![num], labels));
        let narrow = |(level, codes): (&TokenLevel, &Vec<u32>)| narrowed(codes, level.width());
        let levels: Vec<Vec<u8>> = head.levels.iter().zip(&self.codes).map(narrow).collect();
        let crcs = (0..num * num_variants).flat_map(|at| crc_of(head, &levels, at).to_le_bytes());
        columns.push(Column::new("crc32", Dtype::U32, vec![num, num_variants], crcs));
        let first = columns.len();
        for (number, (level, bytes)) in head.levels.iter().zip(levels).enumerate() {
            let (name, dtype) = (format!("codes.{number}"), level.dtype());
            let shape = vec![num, num_variants, level.num_positions()];
            columns.push(Column { name, dtype, shape, bytes });
        }
        // So that each tensor is aligned.
        columns[first..].sort_by_key(|column| Reverse(column.dtype.bitsize()));
        let mut file = header::of_columns(FORMAT, &columns);
        columns.iter().for_each(|column| file.extend_from_slice(&column.bytes));
        Ok(file)
    }

    fn check(&self, head: &TokenManifest) -> Result<(), String> {
        let (num, num_variants) = (self.ids.len(), head.variants.len());
        if self.codes.len() != head.levels.len() {
            let (found, expected) = (self.codes.len(), head.levels.len());
            return Err(format!("has codes of {found} levels, expected {expected}"));
        }
        for (number, (level, codes)) in head.levels.iter().zip(&self.codes).enumerate() {
            let (found, positions, axes) = (codes.len(), level.num_positions(), &level.axes);
            if found != num * num_variants * positions {
                return Err(format!(
                    "has {found} codes at level {number}, expected those of {num} samples, \
                     {num_variants} variants and a grid of {axes:?}"
                ));
            }
            if let Some(code) = codes.iter().find(|code| **code >= level.num_codes) {
                return Err(too_large(*code, number, level.num_codes));
            }
        }
        if self.labels.len() != num {
            return Err(format!("has {} labels of {num} samples", self.labels.len()));
        }
        if let Some(num_classes) = head.num_classes {
            let is_class = |label: i64| u64::try_from(label).is_ok_and(|label| label < num_classes);
            if let Some(label) = self.labels.iter().flatten().find(|label| !is_class(**label)) {
                return Err(format!("has label {label}, expected one of {num_classes} classes"));
            }
        }
        if !self.ids.is_sorted_by(|before, after| before < after) {
            return Err("has samples twice, or in another order than theirs".to_owned());
        }
        Ok(())
    }
}

/// Codes as they lie in a file.
fn narrowed(codes: &[u32], width: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(codes.len() * width);
    codes.iter().for_each(|code| bytes.extend_from_slice(&code.to_le_bytes()[..width]));
    bytes
}

/// The checksum of variant `at` of all variants of all samples.
fn crc_of(head: &TokenManifest, levels: &[Vec<u8>], at: usize) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for (level, codes) in head.levels.iter().zip(levels) {
        let bytes = level.num_positions() * level.width();
        hasher.update(&codes[at * bytes..][..bytes]);
    }
    hasher.finalize()
}
