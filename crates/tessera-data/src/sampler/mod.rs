//! The order of samples, as arithmetic.
//!
//! Which sample stands at which position of a run is a function of (seed, position) alone. There
//! are three orders: all samples shuffled together ([`Sampler::new`]), shards shuffled and blocks
//! of samples within some of them at a time (`two_level.rs`), and a mixture of data sets by weight
//! (`mixture.rs`). No array of indices is held, and a run resumes anywhere, on any number of ranks,
//! with one integer.
//!
//! `tests/sampler_reference.py` is the same arithmetic, written apart; the values pinned in
//! the tests below are its output. The order is part of what a checkpoint promises: it never
//! changes without a new major version.

mod mixture;
mod permutation;
mod two_level;

use std::ops::Range;
use std::sync::Arc;

use self::mixture::Mixture;
pub(crate) use self::permutation::{Permutation, mix};
use self::two_level::TwoLevel;

/// Maps a position in the run to a sample.
#[derive(Debug, Clone)]
pub struct Sampler {
    seed: u64,
    num_samples: u64,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    /// An epoch is one permutation of all samples.
    Global,
    TwoLevel(Arc<TwoLevel>),
    Mixture(Arc<Mixture>),
}

/// Where a position of the run lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SamplePosition {
    /// How many times every sample was seen before.
    pub epoch: u64,
    /// The sample, below the number of samples.
    pub id: u64,
}

impl Sampler {
    /// All samples, shuffled together in each epoch.
    ///
    /// # Panics
    ///
    /// If there are no samples.
    pub fn new(seed: u64, num_samples: u64) -> Self {
        assert!(num_samples > 0, "there is no order of no samples");
        Self { seed, num_samples, kind: Kind::Global }
    }

    /// Shards shuffled in each epoch, and blocks of `block` samples shuffled within `window` shards
    /// at a time: for storage that is slow to seek. `starts` has the first sample of each shard,
    /// and at the end the number of samples.
    ///
    /// # Panics
    ///
    /// If there are no samples, or `window` or `block` is 0.
    pub fn two_level(seed: u64, starts: &[u64], window: usize, block: u64) -> Self {
        let level = TwoLevel::new(seed, starts, window, block);
        let num_samples = level.num_samples();
        Self { seed, num_samples, kind: Kind::TwoLevel(Arc::new(level)) }
    }

    /// Data sets by weight: in every 10,000 positions each has its share, rounded, in a shuffled
    /// order. Samples of a part are numbered behind those of the parts before it.
    ///
    /// # Panics
    ///
    /// If there are no parts, or a weight is not positive.
    pub fn mixture(seed: u64, parts: Vec<(f64, Sampler)>) -> Self {
        let num_samples = parts.iter().map(|(_, part)| part.num_samples).sum();
        Self { seed, num_samples, kind: Kind::Mixture(Arc::new(Mixture::new(seed, parts))) }
    }

    /// Number of samples in an epoch.
    pub fn num_samples(&self) -> u64 {
        self.num_samples
    }

    /// The seed of the order.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The sample at `global_index`, counted from the beginning of the run over all ranks.
    pub fn sample_at(&self, global_index: u64) -> SamplePosition {
        let (epoch, at) = (global_index / self.num_samples, global_index % self.num_samples);
        match &self.kind {
            Kind::Global => SamplePosition {
                epoch,
                id: Permutation::new(self.seed, epoch, self.num_samples).of(at),
            },
            Kind::TwoLevel(level) => SamplePosition { epoch, id: level.id_at(epoch, at) },
            Kind::Mixture(mixture) => mixture.sample_at(global_index),
        }
    }

    /// What takes the place of the sample at `global_index` after `attempt` others could not be
    /// read: any sample, by a draw; of the same part of a mixture. No attempt: the sample itself.
    pub fn substitute_at(&self, global_index: u64, attempt: u64) -> SamplePosition {
        if attempt == 0 {
            return self.sample_at(global_index);
        }
        if let Kind::Mixture(mixture) = &self.kind {
            return mixture.substitute_at(global_index, attempt);
        }
        let key =
            mix(mix(mix(self.seed ^ 0x7375_6273).wrapping_add(global_index)).wrapping_add(attempt));
        let id = (u128::from(key) * u128::from(self.num_samples)) >> 64;
        SamplePosition { epoch: global_index / self.num_samples, id: id as u64 }
    }
}

/// This rank's part of a range of positions: contiguous, in the order of ranks.
///
/// Parts differ by at most one position and may be empty; together they are the range, for
/// every world size.
///
/// # Panics
///
/// If `rank` is not below `world_size`.
pub fn part(range: Range<u64>, rank: usize, world_size: usize) -> Range<u64> {
    assert!(rank < world_size, "rank {rank} of {world_size} was asked for");
    let length = u128::from(range.end.saturating_sub(range.start));
    let cut = |rank: usize| range.start + (length * rank as u128 / world_size as u128) as u64;
    cut(rank)..cut(rank + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(seed: u64, num_samples: u64, epoch: u64) -> Vec<u64> {
        let sampler = Sampler::new(seed, num_samples);
        let start = epoch * num_samples;
        (start..start + num_samples).map(|index| sampler.sample_at(index).id).collect()
    }

    #[test]
    fn every_epoch_is_a_permutation() {
        for num_samples in (1..=200).chain([60_000]) {
            for number in [0, 3] {
                let mut ids = epoch(5, num_samples, number);
                ids.sort_unstable();
                assert!(ids.into_iter().eq(0..num_samples), "{num_samples} samples");
            }
        }
    }

    #[test]
    fn epochs_and_seeds_give_different_orders() {
        assert_ne!(epoch(0, 1000, 0), epoch(0, 1000, 1));
        assert_ne!(epoch(0, 1000, 0), epoch(1, 1000, 0));
        let position = Sampler::new(0, 1000).sample_at(2999);
        assert_eq!(position.epoch, 2);
    }

    /// The values of `tests/sampler_reference.py`: the order of a run, and so the meaning of
    /// every checkpoint, must not change silently.
    #[test]
    fn the_order_is_the_one_of_the_reference() {
        assert_eq!(epoch(0, 10, 0), PINNED_10_0);
        assert_eq!(epoch(0, 10, 1), PINNED_10_1);
        let fashion = Sampler::new(7, 60_000);
        let ids = [0, 1, 2, 59_999, 60_000, 123_456].map(|index| fashion.sample_at(index).id);
        assert_eq!(ids, PINNED_60000);
        let huge = Sampler::new(1, u64::MAX);
        assert_eq!([0, 1, u64::MAX - 1].map(|index| huge.sample_at(index).id), PINNED_HUGE);
    }
    const PINNED_10_0: [u64; 10] = [8, 5, 3, 1, 6, 7, 0, 4, 2, 9];
    const PINNED_10_1: [u64; 10] = [3, 9, 0, 7, 8, 5, 1, 2, 6, 4];
    const PINNED_60000: [u64; 6] = [42_093, 31_913, 54_258, 3_005, 34_766, 15_484];
    const PINNED_HUGE: [u64; 3] =
        [13_427_295_371_811_477_415, 3_996_430_961_049_283_480, 13_303_341_971_522_258_470];

    #[test]
    fn parts_of_every_world_are_the_range_in_order() {
        for world_size in 1..=64 {
            for range in [0..0, 0..1, 5..12, 1000..1256, u64::MAX - 100..u64::MAX] {
                let mut joined = Vec::new();
                for rank in 0..world_size {
                    let part = part(range.clone(), rank, world_size);
                    let fair = (range.end - range.start) / world_size as u64;
                    assert!((fair..=fair + 1).contains(&(part.end - part.start)));
                    joined.extend(part);
                }
                assert!(joined.into_iter().eq(range.clone()), "{world_size} ranks, {range:?}");
            }
        }
    }

    /// Over many epochs each sample comes to each position equally often. With 16 samples
    /// and 4096 epochs a cell of the table expects 256; its chi-square has 15 * 15 = 225
    /// degrees of freedom, so a mean of 225 and a deviation of sqrt(450) = 21.2: the bound
    /// is five deviations above, the seed fixed.
    #[test]
    fn samples_come_to_positions_equally_often() {
        let mut table = [[0u32; 16]; 16];
        for number in 0..4096 {
            for (position, id) in epoch(11, 16, number).into_iter().enumerate() {
                table[position][id as usize] += 1;
            }
        }
        let squares = table.iter().flatten().map(|&count| (f64::from(count) - 256.0).powi(2));
        let chi_square = squares.sum::<f64>() / 256.0;
        assert!(chi_square < 225.0 + 5.0 * 21.2, "chi-square {chi_square}");
    }

    /// A random permutation of n moves an index by n/3 on average, with a deviation of
    /// n / sqrt(18 n) for the mean (the displacement's own is n / sqrt(18)); neighbors must
    /// not stay neighbors: about 2 pairs in n are expected, with a Poisson deviation.
    #[test]
    fn a_large_epoch_is_well_mixed() {
        let num_samples = 60_000;
        let ids = epoch(3, num_samples, 0);
        let moved: f64 =
            ids.iter().enumerate().map(|(index, &id)| (index as u64).abs_diff(id) as f64).sum();
        let mean = moved / num_samples as f64;
        let deviation = num_samples as f64 / (18.0 * num_samples as f64).sqrt();
        assert!((mean - 20_000.0).abs() < 5.0 * deviation, "mean displacement {mean}");
        let neighbors = ids.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) == 1).count();
        assert!(neighbors <= 12, "{neighbors} pairs of neighbors stayed together");
    }
}
