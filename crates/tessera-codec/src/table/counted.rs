//! A level's table by how often each code came, in all and at each position.
//!
//! What was counted are codes of training data, what will be coded are others. So no count is taken as it is: of all positions
//! together each code counts half a time more (Krichevsky and Trofimov, 1981); at a position, what was counted is mixed
//! with what all positions have, as so many codes more as cost least where each code that was counted is coded by the
//! others alone (leaving one out). One table for each position is kept where it saves a hundredth of the bits.

use super::LevelTable;
use crate::CodecError;

/// How many codes of all positions are mixed with those of one.
const STRENGTHS: [u64; 8] = [4, 16, 64, 256, 1024, 4096, 16_384, 65_536];
/// Part of the bits that tables of positions have to save.
const WORTH: f64 = 0.01;
/// Most numbers of a level's tables, 16 MiB of them.
const MOST_NUMBERS: usize = 1 << 22;
/// What one count counts, so that parts of it are whole numbers.
const UNIT: u64 = 1 << 20;

impl LevelTable {
    /// A table of counted codes: `all` of all positions together, `[K]`, and those `[K]` of each position, where they are known.
    ///
    /// # Errors
    ///
    /// [`CodecError::BadInput`] if there are too few or too many codes, or positions have other codes.
    pub fn counted(all: &[u64], positions: Option<&[Vec<u64>]>) -> Result<Self, CodecError> {
        let of_all = vec![all.iter().map(|count| 2 * count + 1).collect::<Vec<u64>>()];
        super::num_codes_of(&of_all)?;
        let positions = positions.unwrap_or_default();
        let is_there = positions.len() > 1 && positions.len() * all.len() <= MOST_NUMBERS;
        if !is_there || positions.iter().any(|counts| counts.len() != all.len()) {
            return Self::from_counts(&of_all);
        }
        let usual = by_the_others(all);
        let without: f64 = all.iter().zip(&usual).map(|(&count, usual)| bits(count, *usual)).sum();
        let costs = STRENGTHS.map(|strength| bits_of_positions(positions, &usual, strength as f64));
        let best = (0..costs.len()).min_by(|a, b| costs[*a].total_cmp(&costs[*b]));
        let best = best.expect("there are strengths");
        if costs[best] > without * (1.0 - WORTH) {
            return Self::from_counts(&of_all);
        }
        let whole: u64 = of_all[0].iter().sum();
        let share = |part: u64| {
            (u128::from(part) * u128::from(STRENGTHS[best] * UNIT) / u128::from(whole)) as u64
        };
        let shares: Vec<u64> = of_all[0].iter().map(|&part| share(part)).collect();
        let mixed = |counts: &Vec<u64>| -> Vec<u64> {
            counts.iter().zip(&shares).map(|(&count, share)| count * UNIT + share).collect()
        };
        Self::from_counts(&positions.iter().map(mixed).collect::<Vec<_>>())
    }
}

/// Probability of each code of all positions by the other codes: of n codes, one that came c times has (c - 1 + 1/2) / (n - 1 + K/2).
fn by_the_others(counts: &[u64]) -> Vec<f64> {
    let total: u64 = counts.iter().sum();
    let others = total.saturating_sub(1) as f64 + counts.len() as f64 / 2.0;
    counts.iter().map(|&count| (count.max(1) as f64 - 0.5) / others).collect()
}

/// Bits of a code that comes so often.
fn bits(count: u64, probability: f64) -> f64 {
    if count == 0 { 0.0 } else { count as f64 * -probability.log2() }
}

/// Bits of all codes by a table for each position, each coded by the others: those of its position, and `strength` as usual.
fn bits_of_positions(positions: &[Vec<u64>], usual: &[f64], strength: f64) -> f64 {
    let of_position = |counts: &Vec<u64>| {
        let others = counts.iter().sum::<u64>().saturating_sub(1) as f64 + strength;
        let of_code = |(&count, usual): (&u64, &f64)| {
            bits(count, (count.max(1) as f64 - 1.0 + strength * usual) / others)
        };
        counts.iter().zip(usual).map(of_code).sum::<f64>()
    };
    positions.iter().map(of_position).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: 3 + 1/2 and 1 + 1/2 of 4 + 1 are 0.7 and 0.3.
    #[test]
    fn each_code_counts_half_a_time_more() {
        let table = LevelTable::counted(&[3, 1], None).unwrap();
        let whole = f64::from(super::super::WHOLE);
        for (&part, expected) in table.probabilities(0).iter().zip([0.7, 0.3]) {
            assert!((f64::from(part) / whole - expected).abs() < 1e-6, "{part}");
        }
        assert_eq!(table.num_positions(), 1);
    }

    /// Two positions that never have the other's code are worth a table each, two that are alike are not.
    #[test]
    fn positions_have_tables_where_that_pays() {
        let unlike = LevelTable::counted(&[500, 500], Some(&[vec![500, 0], vec![0, 500]])).unwrap();
        assert_eq!(unlike.num_positions(), 2);
        let [mine, other] = [0, 1].map(|position| unlike.probabilities(position)[0]);
        assert!(mine > 16_000_000 && other < 200_000, "{mine} {other}");
        let alike = LevelTable::counted(&[500, 500], Some(&[vec![251, 249], vec![249, 251]]));
        assert_eq!(alike.unwrap().num_positions(), 1);
        // A few codes at each of many positions say little about the others.
        let sparse: Vec<Vec<u64>> = (0..64)
            .map(|at: u64| (0..64).map(|code| u64::from(code == at * 7 % 64)).collect())
            .collect();
        assert_eq!(LevelTable::counted(&[1; 64], Some(&sparse)).unwrap().num_positions(), 1);
    }

    /// By hand: without the code itself (2 - 1/2) / (2 + 1) and (1 - 1/2) / (2 + 1); at a position that has the first alone,
    /// twice, with four as usual (1 + 4/2) / (1 + 4).
    #[test]
    fn bits_are_those_by_the_other_codes() {
        let usual = by_the_others(&[2, 1]);
        assert!((usual[0] - 1.5 / 3.0).abs() < 1e-12 && (usual[1] - 0.5 / 3.0).abs() < 1e-12);
        let found = bits_of_positions(&[vec![2, 0]], &usual, 4.0);
        assert!((found - 2.0 * (5.0f64 / 3.0).log2()).abs() < 1e-12, "{found}");
    }
}
