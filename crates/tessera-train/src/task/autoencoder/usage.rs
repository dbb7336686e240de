//! How evenly codes are taken, from how often each was taken.

use tessera_nn::loss::perplexity;

use crate::engine::figures::Figure;

/// How codes were taken over many tokens, over all ranks.
#[derive(Debug, Clone, PartialEq)]
pub struct Usage {
    /// Perplexity, the mean over the levels that took part: exp of the entropy of how often each
    /// code was taken. NaN, `null` in a file, where none did.
    pub perplexity: f64,
    /// Codes taken at least once, of all levels together.
    pub codes_used: u64,
    /// Bits that an ideal entropy coder needs for a token, knowing how often each code is taken:
    /// the sum over the levels that took part of their entropies; NaN where none did.
    pub bits_per_token: f64,
    /// Perplexity of each level; NaN of one that was left out of every token.
    pub level_perplexity: Vec<f64>,
    /// Codes taken at least once, of each level.
    pub level_codes_used: Vec<u64>,
}

impl Usage {
    /// As figures of a row of training.
    pub fn in_training(self) -> Vec<Figure> {
        let [perplexity, codes_used, bits, levels @ ..] = self.figures();
        let mut figures = vec![perplexity.shown(1), codes_used, bits];
        figures.iter_mut().for_each(|figure| figure.chart = Some("train"));
        figures.extend(levels);
        figures
    }

    /// As figures of an evaluation.
    pub fn in_evaluation(self) -> Vec<Figure> {
        let [perplexity, codes_used, bits, levels @ ..] = self.figures();
        let mut figures = vec![perplexity.shown(1), codes_used.shown(0), bits.shown(2)];
        figures.iter_mut().for_each(|figure| figure.chart = Some("eval"));
        figures.extend(levels);
        figures
    }

    fn figures(self) -> [Figure; 5] {
        [
            Figure::number("perplexity", self.perplexity),
            Figure::count("codes_used", self.codes_used),
            Figure::number("bits_per_token", self.bits_per_token),
            Figure::numbers("level_perplexity", self.level_perplexity),
            Figure::counts("level_codes_used", self.level_codes_used),
        ]
    }

    /// From the counts of all codes, level after level, with `num_codes` codes each.
    pub fn of(counts: &[f64], num_codes: &[i64]) -> Self {
        let (mut level_perplexity, mut level_codes_used) = (Vec::new(), Vec::new());
        let mut rest = counts;
        for &len in num_codes {
            let (level, behind) = rest.split_at(len as usize);
            let took_part = level.iter().any(|&count| count > 0.0);
            level_perplexity.push(if took_part { perplexity(level) } else { f64::NAN });
            level_codes_used.push(level.iter().filter(|&&count| count > 0.0).count() as u64);
            rest = behind;
        }
        let took_part: Vec<f64> =
            level_perplexity.iter().copied().filter(|perplexity| !perplexity.is_nan()).collect();
        let num = took_part.len() as f64;
        let bits = took_part.iter().map(|perplexity| perplexity.log2()).sum::<f64>();
        Self {
            bits_per_token: if num > 0.0 { bits } else { f64::NAN },
            perplexity: took_part.iter().sum::<f64>() / num,
            codes_used: level_codes_used.iter().sum(),
            level_perplexity,
            level_codes_used,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::figures::Row;

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

    /// By hand: of three levels the last was left out; perplexities 2 and 4 have the mean 3.
    #[test]
    fn figures_are_means_over_the_levels_that_took_part() {
        let counts = [5.0, 5.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0];
        let usage = Usage::of(&counts, &[3, 4, 2]);
        assert!((usage.perplexity - 3.0).abs() < 1e-12, "{usage:?}");
        assert!((usage.bits_per_token - 3.0).abs() < 1e-12, "{usage:?}");
        assert!(usage.level_perplexity[2].is_nan(), "{usage:?}");
        assert_eq!(usage.level_codes_used, [2, 4, 0]);
        let row = Row { step: 1, figures: usage.in_training() };
        let json = serde_json::to_value(&row).unwrap();
        assert_eq!(json["level_perplexity"][2], serde_json::Value::Null);
    }

    #[test]
    fn without_tokens_there_is_no_figure() {
        let usage = Usage::of(&[0.0; 4], &[4]);
        assert!(usage.bits_per_token.is_nan() && usage.perplexity.is_nan(), "{usage:?}");
        assert_eq!(usage.codes_used, 0);
    }
}
