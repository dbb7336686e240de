//! Several data sets, each with a weight.
//!
//! Positions are taken in rounds of [`ROUND`]. In a round each part has as many places as its
//! weight says, rounded so that they fill the round (largest remainders); a permutation keyed by
//! the round says which. The n-th place of a part in a run is the n-th position of its own order,
//! so each part is seen in full epochs of its own, and everything is a function of the position.

use super::permutation::{Permutation, mix};
use super::{SamplePosition, Sampler};

/// Places of a round.
const ROUND: u64 = 10_000;

/// The parts of a mixture.
#[derive(Debug)]
pub(super) struct Mixture {
    seed: u64,
    parts: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    sampler: Sampler,
    /// Number of its first sample among all.
    first_id: u64,
    /// Its first place in a round before the permutation, and how many it has.
    first_place: u64,
    places: u64,
}

impl Mixture {
    pub(super) fn new(seed: u64, parts: Vec<(f64, Sampler)>) -> Self {
        assert!(!parts.is_empty(), "a mixture of nothing");
        let weights: Vec<f64> = parts.iter().map(|(weight, _)| *weight).collect();
        let (mut first_id, mut first_place) = (0, 0);
        let place = |((_, sampler), places): ((f64, Sampler), u64)| {
            let part = Part { first_id, first_place, places, sampler };
            first_id += part.sampler.num_samples();
            first_place += places;
            part
        };
        Self { seed, parts: parts.into_iter().zip(quotas(&weights)).map(place).collect() }
    }

    /// Part at a position of the run, and the position in that part's own order.
    fn place(&self, position: u64) -> (&Part, u64) {
        let (round, at) = (position / ROUND, position % ROUND);
        let place = Permutation::new(mix(self.seed ^ 0x006d_6978), round, ROUND).of(at);
        let index = self.parts.partition_point(|part| part.first_place <= place) - 1;
        let part = &self.parts[index];
        (part, round * part.places + (place - part.first_place))
    }

    pub(super) fn sample_at(&self, position: u64) -> SamplePosition {
        let (part, own) = self.place(position);
        part.of_all(part.sampler.sample_at(own))
    }

    pub(super) fn substitute_at(&self, position: u64, attempt: u64) -> SamplePosition {
        let (part, own) = self.place(position);
        part.of_all(part.sampler.substitute_at(own, attempt))
    }
}

impl Part {
    fn of_all(&self, position: SamplePosition) -> SamplePosition {
        SamplePosition { id: self.first_id + position.id, ..position }
    }
}

/// Places of each part in a round, at least one: the whole part of its share, and one more for
/// those with the largest remainders.
fn quotas(weights: &[f64]) -> Vec<u64> {
    assert!(weights.iter().all(|&weight| weight > 0.0), "weights are positive");
    let total: f64 = weights.iter().sum();
    let shares: Vec<f64> = weights.iter().map(|weight| weight / total * ROUND as f64).collect();
    let mut quotas: Vec<u64> = shares.iter().map(|share| (*share as u64).max(1)).collect();
    let mut order: Vec<usize> = (0..shares.len()).collect();
    order.sort_by(|&a, &b| (shares[b].fract()).total_cmp(&shares[a].fract()));
    for &index in order.iter().cycle() {
        let given: u64 = quotas.iter().sum();
        match given.cmp(&ROUND) {
            std::cmp::Ordering::Equal => break,
            std::cmp::Ordering::Less => quotas[index] += 1,
            std::cmp::Ordering::Greater if quotas[index] > 1 => quotas[index] -= 1,
            std::cmp::Ordering::Greater => {}
        }
    }
    quotas
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_kept_in_every_round_and_parts_are_seen_evenly() {
        let parts = vec![(3.0, Sampler::new(1, 40)), (1.0, Sampler::new(2, 1000))];
        let sampler = Sampler::mixture(9, parts);
        assert_eq!(sampler.num_samples(), 1040);
        let mut counts = vec![0u32; 1040];
        for at in 0..2 * ROUND {
            counts[sampler.sample_at(at).id as usize] += 1;
        }
        // By hand: 7500 places a round for 40 samples, 2500 for 1000.
        assert!(counts[..40].iter().all(|&count| count == 375), "{counts:?}");
        assert!(counts[40..].iter().all(|&count| count == 5), "{counts:?}");
    }

    #[test]
    fn places_fill_the_round_whatever_the_weights() {
        for weights in [vec![1.0], vec![1.0, 1.0, 1.0], vec![1e-9, 1.0], vec![0.7, 0.2, 0.1, 5.0]] {
            let quotas = quotas(&weights);
            assert_eq!(quotas.iter().sum::<u64>(), ROUND, "{weights:?}");
            assert!(quotas.iter().all(|&places| places > 0));
        }
        assert_eq!(quotas(&[1.0, 1.0, 1.0]), [3334, 3333, 3333]);
    }
}
