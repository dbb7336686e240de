//! Randomness as a function, not a state.
//!
//! Every draw is keyed by (seed, purpose, step, id), where the id is that of a global sample,
//! token or parameter. Nothing of it needs saving, and it is the same for every number of ranks.
//! The generator is ChaCha with 8 rounds, whose 64-bit stream number makes it counter-based.

use std::collections::HashMap;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// What a draw is for; draws for different purposes are independent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Purpose {
    /// Initial values of parameters; the id is the parameter's place in the model.
    Parameters = 1,
    /// Initial codes; the id is the quantiser's level.
    Codebook = 2,
    /// Latents offered to dead codes; the id is the quantiser's level.
    Replacement = 3,
    /// Codes drawn for tokens; the id is the quantiser's level.
    Sampling = 4,
    /// How many levels of a residual quantiser a step uses; with id 1, which of those that share
    /// a codebook offers latents.
    Dropout = 5,
    /// Weights of a network whose features are compared; the id is the stage.
    Features = 6,
    /// Which samples' classes a prior does not see in a step; the id is the sample's, as in all below.
    HiddenClass = 10,
    /// Which tokens of a prior's input are replaced in a step, and by which.
    InputNoise = 11,
    /// What a prior drops of its activations in a step.
    Activations = 12,
    /// What part of a sample a masked prior does not see in a step.
    MaskRatio = 13,
    /// Which tokens these are.
    MaskPlaces = 14,
    /// How many and which tokens are hidden in an evaluation.
    MaskedTokens = 15,
    /// Codes drawn of a prior; the step is the token's place, plus the number of tokens times the pass of a masked one.
    PriorSample = 16,
    /// Which codes a pass of a masked prior keeps; the step is as above.
    PriorChoice = 17,
    /// Codes that samples are compared with; the step is the kind of them.
    Floors = 18,
}

/// A sequence of draws.
#[derive(Debug, Clone)]
pub struct Draws(ChaCha8Rng);

/// The draws keyed by these four numbers.
pub fn draws(seed: u64, purpose: Purpose, step: u64, id: u64) -> Draws {
    let mut key = [0u8; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&(purpose as u64).to_le_bytes());
    key[16..24].copy_from_slice(&step.to_le_bytes());
    let mut generator = ChaCha8Rng::from_seed(key);
    generator.set_stream(id);
    Draws(generator)
}

impl Draws {
    /// Goes to the `at`-th number of this sequence, from 0.
    pub fn skip(&mut self, at: u64) {
        self.0.set_word_pos(2 * u128::from(at));
    }

    /// `len` numbers from the normal distribution with mean 0, by Box and Muller.
    pub fn normal(&mut self, deviation: f64, len: usize) -> Vec<f64> {
        let mut numbers = Vec::with_capacity(len + 1);
        while numbers.len() < len {
            let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt() * deviation;
            let (sine, cosine) = (std::f64::consts::TAU * self.unit()).sin_cos();
            numbers.extend([radius * cosine, radius * sine]);
        }
        numbers.truncate(len);
        numbers
    }

    /// A number in [0, 1), with 53 random bits.
    pub fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Random bytes.
    pub fn bytes(&mut self, out: &mut [u8]) {
        self.0.fill_bytes(out);
    }

    /// `len` numbers in [-bound, bound).
    pub fn uniform(&mut self, bound: f64, len: usize) -> Vec<f64> {
        (0..len).map(|_| (2.0 * self.unit() - 1.0) * bound).collect()
    }

    /// A whole number below `bound`; the bias is below `bound` / 2^64.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.0.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// The first `len` elements of a random permutation of `0..total`, by Fisher and Yates. Time
    /// and memory grow with `len` alone.
    ///
    /// # Panics
    ///
    /// If `len` is more than `total`.
    pub fn distinct(&mut self, len: usize, total: usize) -> Vec<usize> {
        assert!(len <= total, "{len} distinct numbers below {total}");
        // The permutation is never laid out: a place that is not in here holds its own number.
        let mut moved = HashMap::with_capacity(len);
        let mut numbers = Vec::with_capacity(len);
        for at in 0..len {
            let other = at + self.below((total - at) as u64) as usize;
            // No later swap reaches place `at`.
            let here = moved.remove(&at).unwrap_or(at);
            let drawn = if other == at { Some(here) } else { moved.insert(other, here) };
            numbers.push(drawn.unwrap_or(other));
        }
        numbers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_of_the_key_matters_and_nothing_else_does() {
        let first = |seed, purpose, step, id| draws(seed, purpose, step, id).unit();
        let base = first(1, Purpose::Parameters, 2, 3);
        assert_eq!(base, first(1, Purpose::Parameters, 2, 3));
        for other in [
            first(9, Purpose::Parameters, 2, 3),
            first(1, Purpose::Codebook, 2, 3),
            first(1, Purpose::Parameters, 9, 3),
            first(1, Purpose::Parameters, 2, 9),
        ] {
            assert_ne!(base, other);
        }
    }

    /// The mean of 10,000 uniform draws lies within 4 standard errors, 4 / sqrt(3 * 10,000).
    #[test]
    fn uniform_draws_fill_their_interval() {
        let values = draws(0, Purpose::Parameters, 0, 0).uniform(1.0, 10_000);
        assert!(values.iter().all(|value| (-1.0..1.0).contains(value)));
        assert!((values.iter().sum::<f64>() / 10_000.0).abs() < 0.0231);
    }

    /// Mean and variance of 10,000 draws within 4 standard errors of 0 and 4.
    #[test]
    fn normal_draws_have_their_mean_and_variance() {
        let values = draws(0, Purpose::Codebook, 0, 0).normal(2.0, 9_999);
        assert_eq!(values.len(), 9_999);
        let mean = |of: &dyn Fn(f64) -> f64| values.iter().map(|&v| of(v)).sum::<f64>() / 9_999.0;
        assert!(mean(&|value| value).abs() < 0.08);
        assert!((mean(&|value| value * value) - 4.0).abs() < 0.23);
    }

    #[test]
    fn skipping_leads_to_the_same_numbers() {
        let mut all = draws(1, Purpose::Sampling, 0, 0);
        let numbers: Vec<f64> = (0..20).map(|_| all.unit()).collect();
        let mut later = draws(1, Purpose::Sampling, 0, 0);
        later.skip(13);
        assert_eq!(later.unit(), numbers[13]);
    }

    #[test]
    fn distinct_numbers_are_distinct() {
        let mut numbers = draws(3, Purpose::Codebook, 0, 0).distinct(100, 100);
        numbers.sort_unstable();
        assert_eq!(numbers, (0..100).collect::<Vec<_>>());
    }

    /// The definition: the permutation laid out, and its places swapped.
    #[test]
    fn distinct_numbers_are_those_of_the_whole_permutation() {
        for (len, total) in [(0, 0), (0, 9), (1, 1), (5, 1000), (40, 50), (1000, 1000)] {
            let mut generator = draws(4, Purpose::Replacement, 1, 2);
            let mut expected: Vec<usize> = (0..total).collect();
            for at in 0..len {
                let other = at + generator.below((total - at) as u64) as usize;
                expected.swap(at, other);
            }
            expected.truncate(len);
            let found = draws(4, Purpose::Replacement, 1, 2).distinct(len, total);
            assert_eq!(found, expected, "{len} of {total}");
        }
    }

    /// Of 2^40 numbers, which as a list would take 8 TiB. 10,000 in 16 equal parts: 625 each,
    /// with a standard deviation of 24.2; within 4.5 of them.
    #[test]
    fn distinct_numbers_of_a_large_range_are_uniform() {
        let numbers = draws(5, Purpose::Codebook, 0, 1).distinct(10_000, 1 << 40);
        let mut parts = [0i32; 16];
        for number in &numbers {
            parts[number >> 36] += 1;
        }
        assert!(parts.iter().all(|part| (part - 625).abs() < 109), "{parts:?}");
        let different: std::collections::BTreeSet<_> = numbers.iter().collect();
        assert_eq!(different.len(), numbers.len());
    }

    /// Each of the 12 ordered pairs of four numbers has 1/12 of 12,000 draws, within 4.5 standard
    /// deviations of 30.3.
    #[test]
    fn every_selection_is_as_likely_as_every_other() {
        let mut found = std::collections::BTreeMap::new();
        for step in 0..12_000 {
            let pair = draws(6, Purpose::Replacement, step, 0).distinct(2, 4);
            *found.entry(pair).or_insert(0i32) += 1;
        }
        assert_eq!(found.len(), 12);
        assert!(found.values().all(|count| (count - 1000).abs() < 136), "{found:?}");
    }
}
