//! Probabilities of codes, in whole numbers.
//!
//! A coder and its decoder need the very same probabilities, and floats do not promise that from machine to machine. So a table
//! holds whole numbers that add up to 2^24, made of counts by whole-number arithmetic: each code gets 1, so
//! that one never seen can still be written, and its share of the rest.

mod counted;

pub use self::counted::PositionCounts;

use constriction::stream::model::DefaultContiguousCategoricalEntropyModel;
use sha2::{Digest, Sha256};

use crate::CodecError;

/// Bits of the sum of a table.
pub const PRECISION: u32 = 24;

/// The sum of a table, 2^24.
pub const WHOLE: u32 = 1 << PRECISION;

/// Most codes of a level: as many as quantisers may have.
pub const MOST_CODES: u32 = 1 << 20;

/// Most numbers in all tables of a model, 512 MiB of them.
const MOST_NUMBERS: u64 = 1 << 27;

/// The probabilities of each level's codes.
#[derive(Debug, Clone)]
pub struct Tables {
    levels: Vec<LevelTable>,
    id: String,
}

/// Those of one level: one table for all positions, or one for each.
#[derive(Debug, Clone)]
pub struct LevelTable {
    num_codes: u32,
    /// Of each position, or one: the probabilities `[K]`, and what the coder makes of them.
    tables: Vec<(Vec<u32>, DefaultContiguousCategoricalEntropyModel)>,
}

impl Tables {
    /// Tables of these levels, in the order of the levels of the model.
    pub fn new(levels: Vec<LevelTable>) -> Result<Self, CodecError> {
        let numbers =
            levels.iter().map(|level| level.tables.len() as u64 * u64::from(level.num_codes));
        let numbers: u64 = numbers.sum();
        if levels.is_empty() || numbers > MOST_NUMBERS {
            let problem =
                format!("tables of codes should have 1 to {MOST_NUMBERS} numbers, found {numbers}");
            return Err(CodecError::BadInput(problem));
        }
        let id = id(&levels);
        Ok(Self { levels, id })
    }

    /// All codes of a level equally likely.
    pub fn uniform(num_codes: &[u32]) -> Result<Self, CodecError> {
        let of_level = |&num: &u32| LevelTable::from_counts(&[vec![0; num as usize]]);
        Self::new(num_codes.iter().map(of_level).collect::<Result<_, _>>()?)
    }

    /// One table for all positions of each level: the mean of those of its positions.
    pub fn over_positions(&self) -> Self {
        let level = |level: &LevelTable| {
            let sum = |code: usize| {
                level.tables.iter().map(|(parts, _)| u64::from(parts[code])).sum::<u64>()
            };
            match level.tables.len() {
                1 => level.clone(),
                _ => LevelTable::from_counts(&[(0..level.num_codes as usize).map(sum).collect()])
                    .expect("sums are counts"),
            }
        };
        let levels: Vec<LevelTable> = self.levels.iter().map(level).collect();
        Self { id: id(&levels), levels }
    }

    /// The table of each level.
    pub fn levels(&self) -> &[LevelTable] {
        &self.levels
    }

    /// SHA-256 of all numbers, in hexadecimal: who decodes needs tables of the same name.
    pub fn id(&self) -> &str {
        &self.id
    }
}

impl LevelTable {
    /// A table of the counts `[K]` of codes of each position, or of one set of counts for all positions. Without any
    /// count, all codes are equally likely.
    pub fn from_counts(counts: &[Vec<u64>]) -> Result<Self, CodecError> {
        num_codes_of(counts)?;
        Self::from_probabilities(counts.iter().map(|counts| shares(counts)).collect())
    }

    /// A table of the probabilities `[K]` of codes at each position, or of one set of them for all, in parts of 2^24, as
    /// [`Self::probabilities`] gives them.
    pub fn from_probabilities(probabilities: Vec<Vec<u32>>) -> Result<Self, CodecError> {
        let num_codes = num_codes_of(&probabilities)?;
        let tables = probabilities.into_iter().map(|probabilities| {
            let model = model_of(&probabilities)?;
            Ok((probabilities, model))
        });
        Ok(Self { num_codes: num_codes as u32, tables: tables.collect::<Result<_, CodecError>>()? })
    }

    /// Number of codes, K.
    pub fn num_codes(&self) -> u32 {
        self.num_codes
    }

    /// Number of positions that have a table of their own; 1: one table is for all.
    pub fn num_positions(&self) -> usize {
        self.tables.len()
    }

    /// Probabilities `[K]` of a position, in parts of 2^24.
    pub fn probabilities(&self, position: usize) -> &[u32] {
        &self.at(position).0
    }

    pub(crate) fn model(&self, position: usize) -> &DefaultContiguousCategoricalEntropyModel {
        &self.at(position).1
    }

    fn at(&self, position: usize) -> &(Vec<u32>, DefaultContiguousCategoricalEntropyModel) {
        &self.tables[if self.tables.len() == 1 { 0 } else { position }]
    }
}

/// What the coder makes of probabilities in parts of 2^24.
pub(crate) fn model_of(
    probabilities: &[u32],
) -> Result<DefaultContiguousCategoricalEntropyModel, CodecError> {
    let bad = || {
        let problem =
            format!("the probabilities of codes should add up to {WHOLE}, none of them 0");
        CodecError::BadInput(problem)
    };
    // The coder's own check of a sum lets one pass that has gone round.
    let sum: u64 = probabilities.iter().map(|&part| u64::from(part)).sum();
    if sum != u64::from(WHOLE) || probabilities.contains(&0) {
        return Err(bad());
    }
    let model = DefaultContiguousCategoricalEntropyModel::from_nonzero_fixed_point_probabilities(
        probabilities,
        false,
    );
    model.map_err(|()| bad())
}

/// Probabilities in parts of 2^24 of codes that have these logits, of which there are at most 2^20: each has one part, its share of the
/// rest, rounded down, and the likeliest what is left over. Floats decide here, so another machine may come to others.
///
/// # Panics
///
/// If there are none.
pub fn of_logits(logits: &[f64]) -> Vec<u32> {
    let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = logits.iter().map(|logit| (logit - most).exp()).collect();
    let total: f64 = weights.iter().sum();
    let rest = f64::from(WHOLE - logits.len() as u32);
    let mut parts: Vec<u32> =
        weights.iter().map(|weight| 1 + (weight / total * rest) as u32).collect();
    let first = logits.iter().position(|logit| *logit == most).unwrap_or(0);
    // Rounding can leave a few over, or take a few too many.
    let others: u32 = parts.iter().sum::<u32>() - parts[first];
    parts[first] = WHOLE - others;
    parts
}

/// Number of codes of the positions of a level.
fn num_codes_of<T>(positions: &[Vec<T>]) -> Result<usize, CodecError> {
    let num_codes = positions.first().map_or(0, Vec::len);
    if num_codes < 2 || num_codes as u64 > u64::from(MOST_CODES) {
        let problem = format!("a level should have 2 to {MOST_CODES} codes, found {num_codes}");
        return Err(CodecError::BadInput(problem));
    }
    if positions.iter().any(|codes| codes.len() != num_codes) {
        let problem = "all positions of a level should have as many codes".to_owned();
        return Err(CodecError::BadInput(problem));
    }
    Ok(num_codes)
}

fn id(levels: &[LevelTable]) -> String {
    let mut hash = Sha256::new();
    hash.update((levels.len() as u64).to_le_bytes());
    for level in levels {
        hash.update((level.tables.len() as u64).to_le_bytes());
        hash.update(u64::from(level.num_codes).to_le_bytes());
        for (probabilities, _) in &level.tables {
            probabilities.iter().for_each(|number| hash.update(number.to_le_bytes()));
        }
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Shares of 2^24 by counts: each code has 1 and, rounded down, its part of the rest; what rounding leaves goes to the first of
/// the codes that have the highest count.
fn shares(counts: &[u64]) -> Vec<u32> {
    let total: u128 = counts.iter().map(|&count| u128::from(count)).sum();
    let rest = WHOLE - counts.len() as u32;
    let part = |count: u64| match total {
        0 => rest / counts.len() as u32,
        // At most `rest`, which fits.
        _ => (u128::from(count) * u128::from(rest) / total) as u32,
    };
    let mut shares: Vec<u32> = counts.iter().map(|&count| 1 + part(count)).collect();
    let left = WHOLE - shares.iter().sum::<u32>();
    let most = counts.iter().max().expect("there are codes");
    let first = counts.iter().position(|count| count == most).expect("it is one of them");
    shares[first] += left;
    shares
}
