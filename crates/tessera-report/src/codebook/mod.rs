//! What a codebook is without its network: where its codes lie, and how often each is taken.

mod pca;
mod tsne;

pub(crate) use pca::project;
pub(crate) use tsne::embed;

/// Figures of how often the codes of a level are taken.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Usage {
    /// Codes, the most taken first, each with its share.
    pub(crate) sorted: Vec<(usize, f64)>,
    /// Codes that are never taken, or by moving averages less than once in a million.
    pub(crate) num_dead: usize,
    /// Of the shares.
    pub(crate) perplexity: f64,
    /// The least number of codes that have half of all tokens.
    pub(crate) num_half: usize,
}

/// A share below which a code is dead where only moving averages are known.
const DEAD: f64 = 1e-6;

impl Usage {
    /// Of counts that need not be whole; `are_averages` where they are moving averages. None where nothing was counted.
    pub(crate) fn of(counts_k: &[f64], are_averages: bool) -> Option<Self> {
        let total: f64 = counts_k.iter().sum();
        if !total.is_finite() || total <= 0.0 {
            return None;
        }
        let mut sorted: Vec<(usize, f64)> =
            counts_k.iter().map(|count| count.max(0.0) / total).enumerate().collect();
        sorted.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let dead = if are_averages { DEAD } else { 0.0 };
        let entropy: f64 = sorted
            .iter()
            .filter(|(_, share)| *share > 0.0)
            .map(|(_, share)| -share * share.ln())
            .sum();
        let mut sum = 0.0;
        let before_half = sorted.iter().take_while(|(_, share)| {
            let is_before = sum < 0.5;
            sum += share;
            is_before
        });
        Some(Self {
            num_half: before_half.count(),
            num_dead: sorted.iter().filter(|(_, share)| *share <= dead).count(),
            perplexity: entropy.exp(),
            sorted,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: shares 1/2, 1/4, 1/4 and 0 have an entropy of 1.5 ln 2.
    #[test]
    fn shares_are_sorted_and_dead_codes_counted() {
        let usage = Usage::of(&[1.0, 0.0, 2.0, 1.0], false).unwrap();
        assert_eq!(usage.sorted, [(2, 0.5), (0, 0.25), (3, 0.25), (1, 0.0)]);
        assert_eq!((usage.num_dead, usage.num_half), (1, 1));
        assert!((usage.perplexity - 1.5f64.exp2()).abs() < 1e-12);
        assert_eq!(Usage::of(&[0.0; 3], false), None);
        assert_eq!(Usage::of(&[1.0, 1e-9], true).unwrap().num_dead, 1);
    }
}
