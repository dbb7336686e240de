//! How evenly codes are taken, from how often each was taken.

use serde::{Deserialize, Serialize};
use tessera_nn::loss::perplexity;

/// How codes were taken over many tokens, over all ranks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Perplexity, the mean over levels: exp of the entropy of how often each code was taken.
    pub perplexity: f64,
    /// Codes taken at least once, of all levels together.
    pub codes_used: u64,
    /// Bits that an ideal entropy coder needs for a token, knowing how often each code is taken:
    /// the sum over levels of their entropies.
    pub bits_per_token: f64,
    /// Perplexity of each level.
    pub level_perplexity: Vec<f64>,
    /// Codes taken at least once, of each level.
    pub level_codes_used: Vec<u64>,
}

impl Usage {
    /// From the counts of all codes, level after level, with `num_codes` codes each.
    pub fn of(counts: &[f64], num_codes: &[i64]) -> Self {
        let (mut level_perplexity, mut level_codes_used) = (Vec::new(), Vec::new());
        let mut rest = counts;
        for &len in num_codes {
            let (level, behind) = rest.split_at(len as usize);
            level_perplexity.push(perplexity(level));
            level_codes_used.push(level.iter().filter(|&&count| count > 0.0).count() as u64);
            rest = behind;
        }
        // A level without tokens has perplexity 0, and needs no bits.
        let bits = level_perplexity.iter().map(|perplexity| perplexity.max(1.0).log2());
        Self {
            bits_per_token: bits.sum(),
            perplexity: level_perplexity.iter().sum::<f64>() / num_codes.len() as f64,
            codes_used: level_codes_used.iter().sum(),
            level_perplexity,
            level_codes_used,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: two codes equally often are 1 bit, four are 2 bits.
    #[test]
    fn levels_are_told_apart_and_their_bits_add_up() {
        let counts = [5.0, 5.0, 0.0, 1.0, 1.0, 1.0, 1.0];
        let usage = Usage::of(&counts, &[3, 4]);
        assert_eq!(usage.level_codes_used, [2, 4]);
        assert!((usage.level_perplexity[0] - 2.0).abs() < 1e-12);
        assert!((usage.level_perplexity[1] - 4.0).abs() < 1e-12);
        assert_eq!(usage.codes_used, 6);
        assert!((usage.perplexity - 3.0).abs() < 1e-12);
        assert!((usage.bits_per_token - 3.0).abs() < 1e-12);
    }

    #[test]
    fn a_level_without_tokens_needs_no_bits() {
        let usage = Usage::of(&[0.0; 4], &[4]);
        assert_eq!((usage.bits_per_token, usage.perplexity, usage.codes_used), (0.0, 0.0, 0));
    }
}
