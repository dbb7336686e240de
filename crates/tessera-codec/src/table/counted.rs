//! A level's table by how often each code came at each position, in two halves of what was counted.
//!
//! What was counted are codes of training data, what will be coded are others. So no count is taken as it is: of all positions
//! together each code counts half a time more (Krichevsky and Trofimov, 1981), and at a position, what was counted is mixed with so
//! many codes as all positions have. How many, and whether counting pays at all, is what costs least where each half is coded by the
//! counts of the other. Samples that follow one another are often alike, so halves are a first and a last one.

use super::LevelTable;
use crate::CodecError;

/// Counts `[positions, K]` of a level's codes; `[1, K]` of all positions where those were too many.
pub type PositionCounts = Vec<Vec<u64>>;

/// How many codes of all positions are mixed with those of one.
const STRENGTHS: [u64; 8] = [4, 16, 64, 256, 1024, 4096, 16_384, 65_536];
/// Part of the bits that more tables have to save.
const WORTH: f64 = 0.01;
/// What one count counts, so that parts of it are whole numbers.
const UNIT: u64 = 1 << 20;

/// What a table is made of.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    /// All codes alike.
    Uniform,
    /// Counts of all positions.
    One,
    /// Those of each position, mixed with so many of all.
    Each(u64),
}

impl LevelTable {
    /// A table of what was counted in two halves of the data.
    ///
    /// # Errors
    ///
    /// [`CodecError::BadInput`] if there are too few or too many codes, or halves differ in their shape.
    pub fn counted(halves: [&PositionCounts; 2]) -> Result<Self, CodecError> {
        let num_codes = super::num_codes_of(halves[0])?;
        if halves[1].len() != halves[0].len() || super::num_codes_of(halves[1])? != num_codes {
            let problem = "both halves of counts should be of the same codes".to_owned();
            return Err(CodecError::BadInput(problem));
        }
        let both: PositionCounts = halves[0]
            .iter()
            .zip(halves[1])
            .map(|(one, other)| one.iter().zip(other).map(|(a, b)| a + b).collect())
            .collect();
        let all = summed(&both);
        match best(halves) {
            Kind::Uniform => Self::from_counts(&[vec![0; num_codes]]),
            Kind::One => Self::from_counts(&[doubled(&all)]),
            Kind::Each(strength) => {
                let parts = doubled(&all);
                let whole: u64 = parts.iter().sum();
                let share = |&part: &u64| {
                    (u128::from(part) * u128::from(strength * UNIT) / u128::from(whole)) as u64
                };
                let shares: Vec<u64> = parts.iter().map(share).collect();
                let mixed = |counts: &Vec<u64>| -> Vec<u64> {
                    counts.iter().zip(&shares).map(|(&count, share)| count * UNIT + share).collect()
                };
                Self::from_counts(&both.iter().map(mixed).collect::<Vec<_>>())
            }
        }
    }
}

/// Counts `[K]` of all positions.
fn summed(positions: &PositionCounts) -> Vec<u64> {
    let mut all = vec![0; positions[0].len()];
    for counts in positions {
        all.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
    }
    all
}

/// Each code half a time more, in halves.
fn doubled(counts: &[u64]) -> Vec<u64> {
    counts.iter().map(|count| 2 * count + 1).collect()
}

/// What costs least, each half coded by the other; more tables only where they save a hundredth.
fn best(halves: [&PositionCounts; 2]) -> Kind {
    let kinds = [Kind::Uniform, Kind::One].into_iter().chain(STRENGTHS.map(Kind::Each));
    let num_positions = halves[0].len();
    let kinds = kinds.filter(|kind| num_positions > 1 || !matches!(kind, Kind::Each(_)));
    let mut found = (Kind::Uniform, f64::INFINITY);
    for kind in kinds {
        let cost = bits(kind, halves[0], halves[1]) + bits(kind, halves[1], halves[0]);
        let is_more = std::mem::discriminant(&kind) != std::mem::discriminant(&found.0);
        let wanted = if is_more { found.1 * (1.0 - WORTH) } else { found.1 };
        if cost < wanted {
            found = (kind, cost);
        }
    }
    found.0
}

/// Bits that codes take by a table of others.
fn bits(kind: Kind, of: &PositionCounts, coded: &PositionCounts) -> f64 {
    let num_codes = of[0].len() as f64;
    let parts = doubled(&summed(of));
    let whole = parts.iter().sum::<u64>() as f64;
    let usual = |code: usize| parts[code] as f64 / whole;
    let of_position = |(others, counts): (&Vec<u64>, &Vec<u64>)| {
        let total = others.iter().sum::<u64>() as f64;
        let of_code = |(code, &count): (usize, &u64)| {
            let probability = match kind {
                Kind::Uniform => 1.0 / num_codes,
                Kind::One => usual(code),
                Kind::Each(strength) => {
                    let strength = strength as f64;
                    (others[code] as f64 + strength * usual(code)) / (total + strength)
                }
            };
            count as f64 * -probability.log2()
        };
        let codes = counts.iter().enumerate().filter(|(_, count)| **count > 0);
        codes.map(of_code).sum::<f64>()
    };
    of.iter().zip(coded).map(of_position).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(one: PositionCounts, other: PositionCounts) -> LevelTable {
        LevelTable::counted([&one, &other]).unwrap()
    }

    /// By hand: 30 + 1/2 and 9 + 1/2 of 39 + 1.
    #[test]
    fn each_code_counts_half_a_time_more() {
        let table = counted(vec![vec![16, 4]], vec![vec![14, 5]]);
        let whole = f64::from(super::super::WHOLE);
        for (&part, expected) in table.probabilities(0).iter().zip([30.5 / 40.0, 9.5 / 40.0]) {
            assert!((f64::from(part) / whole - expected).abs() < 1e-6, "{part}");
        }
        assert_eq!(table.num_positions(), 1);
    }

    /// Two positions that never have the other's code are worth a table each, two that are alike are not; nor are codes
    /// that come in one half alone worth any.
    #[test]
    fn tables_are_counted_where_that_pays() {
        let half = vec![vec![250, 0], vec![0, 250]];
        let unlike = counted(half.clone(), half);
        assert_eq!(unlike.num_positions(), 2);
        let [mine, other] = [0, 1].map(|position| unlike.probabilities(position)[0]);
        assert!(mine > 16_000_000 && other < 200_000, "{mine} {other}");
        let alike = counted(vec![vec![90, 30], vec![91, 29]], vec![vec![91, 31], vec![89, 30]]);
        assert_eq!(alike.num_positions(), 1);
        assert!(alike.probabilities(0)[0] > 12_000_000);
        let changed = counted(vec![vec![90, 5, 5]; 2], vec![vec![5, 5, 90]; 2]);
        let uniform = LevelTable::from_counts(&[vec![0; 3]]).unwrap();
        assert_eq!(changed.probabilities(0), uniform.probabilities(0));
        // Without any code, all are alike.
        let none = counted(vec![vec![0; 3]; 2], vec![vec![0; 3]; 2]);
        assert_eq!(none.probabilities(0), uniform.probabilities(0));
    }

    /// By hand: 2 of 3 codes were the first, so it has (2 + 1/2) / (3 + 1) in all, and at a position where it came twice, mixed with four as usual,
    /// (2 + 4 * 5/8) / (2 + 4).
    #[test]
    fn bits_are_those_by_the_other_half() {
        let others = vec![vec![2, 0], vec![0, 1]];
        let coded = vec![vec![3, 0], vec![0, 0]];
        let expected = [1.0, (8.0f64 / 5.0).log2(), (6.0f64 / 4.5).log2()].map(|bits| 3.0 * bits);
        for (kind, expected) in [Kind::Uniform, Kind::One, Kind::Each(4)].into_iter().zip(expected)
        {
            let found = bits(kind, &others, &coded);
            assert!((found - expected).abs() < 1e-12, "{kind:?}: {found} {expected}");
        }
    }
}
