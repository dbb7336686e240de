//! Shards shuffled, and blocks of samples within some shards at a time.
//!
//! In each epoch the shards are permuted and taken `window` at a time. The samples of a window,
//! one shard after another, are cut into blocks; whole blocks are permuted, what is left over
//! comes last, and samples within a block stay in order. So a reader goes through few shards at a
//! time, and through each block from its beginning to its end.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use super::permutation::{Permutation, mix};

/// Epochs whose windows are remembered: a batch may touch two.
const EPOCHS_KEPT: usize = 2;

/// The order of shards and blocks.
#[derive(Debug)]
pub(super) struct TwoLevel {
    seed: u64,
    /// First sample of each shard, and at the end the number of samples.
    starts: Vec<u64>,
    window: usize,
    block: u64,
    /// Computed from the above; kept since it is needed for every sample.
    epochs: Mutex<VecDeque<Arc<Epoch>>>,
}

/// Shards of one epoch in their order, and where each begins in the epoch.
#[derive(Debug)]
struct Epoch {
    number: u64,
    shards: Vec<u32>,
    /// Position of each shard's first sample if nothing were permuted within windows, and at the
    /// end the number of samples.
    positions: Vec<u64>,
}

impl TwoLevel {
    pub(super) fn new(seed: u64, starts: &[u64], window: usize, block: u64) -> Self {
        assert!(window > 0 && block > 0, "a window and a block hold something");
        assert!(starts.last().is_some_and(|&end| end > 0), "there is no order of no samples");
        let (starts, epochs) = (starts.to_vec(), Mutex::default());
        Self { seed, starts, window, block, epochs }
    }

    pub(super) fn num_samples(&self) -> u64 {
        self.starts[self.starts.len() - 1]
    }

    /// The sample at a position of an epoch.
    pub(super) fn id_at(&self, number: u64, at: u64) -> u64 {
        let epoch = self.epoch(number);
        let shard = epoch.positions.partition_point(|&position| position <= at) - 1;
        let window = shard / self.window;
        let first = window * self.window;
        let last = (first + self.window).min(epoch.shards.len());
        let (start, end) = (epoch.positions[first], epoch.positions[last]);
        let (mut within, whole) = (at - start, (end - start) / self.block * self.block);
        if within < whole {
            let seed = mix(self.seed ^ 0x0062_6c6f_636b).wrapping_add(window as u64);
            let blocks = Permutation::new(seed, number, whole / self.block);
            within = blocks.of(within / self.block) * self.block + within % self.block;
        }
        let place = start + within;
        let shard = epoch.positions.partition_point(|&position| position <= place) - 1;
        self.starts[epoch.shards[shard] as usize] + (place - epoch.positions[shard])
    }

    fn epoch(&self, number: u64) -> Arc<Epoch> {
        let mut epochs = self.epochs.lock().expect("nothing panics while it is held");
        if let Some(known) = epochs.iter().find(|epoch| epoch.number == number) {
            return known.clone();
        }
        let epoch = Arc::new(self.make_epoch(number));
        epochs.push_back(epoch.clone());
        if epochs.len() > EPOCHS_KEPT {
            epochs.pop_front();
        }
        epoch
    }

    fn make_epoch(&self, number: u64) -> Epoch {
        let num_shards = self.starts.len() as u64 - 1;
        let order = Permutation::new(mix(self.seed ^ 0x0073_6861_7264), number, num_shards);
        let shards: Vec<u32> = (0..num_shards).map(|at| order.of(at) as u32).collect();
        let (mut positions, mut total) = (vec![0], 0);
        for &shard in &shards {
            total += self.starts[shard as usize + 1] - self.starts[shard as usize];
            positions.push(total);
        }
        Epoch { number, shards, positions }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Sampler;

    #[test]
    fn every_epoch_is_a_permutation_whatever_the_sizes() {
        for (starts, window, block) in [
            (vec![0, 1], 1, 1),
            (vec![0, 10, 20, 30, 33], 2, 4),
            (vec![0, 5, 5, 6, 100, 101], 3, 7),
            (vec![0, 64, 128, 200], 8, 1000),
        ] {
            let sampler = Sampler::two_level(5, &starts, window, block);
            let num = *starts.last().unwrap();
            for epoch in [0, 1, 7] {
                let ids = (epoch * num..(epoch + 1) * num).map(|at| sampler.sample_at(at));
                let mut ids: Vec<u64> = ids.map(|position| position.id).collect();
                ids.sort_unstable();
                assert!(ids.into_iter().eq(0..num), "{starts:?} {window} {block}");
            }
        }
    }

    #[test]
    fn few_shards_are_read_at_a_time_and_blocks_stay_whole() {
        let starts: Vec<u64> = (0..=10).map(|shard| 100 * shard).collect();
        let sampler = Sampler::two_level(3, &starts, 2, 10);
        let ids: Vec<u64> = (0..1000).map(|at| sampler.sample_at(at).id).collect();
        for window in ids.chunks(200) {
            let mut shards: Vec<u64> = window.iter().map(|id| id / 100).collect();
            shards.sort_unstable();
            shards.dedup();
            assert_eq!(shards.len(), 2);
        }
        for block in ids.chunks(10) {
            assert!(block.windows(2).all(|pair| pair[1] == pair[0] + 1), "{block:?}");
        }
        assert!(!ids.is_sorted());
    }

    /// Epochs asked for in turn are what they are when each is asked for once.
    #[test]
    fn the_order_hangs_on_the_position_alone() {
        let starts = [0, 10, 25, 30];
        let sampler = Sampler::two_level(1, &starts, 2, 3);
        for at in [95, 5, 65, 5, 95, 35] {
            let fresh = Sampler::two_level(1, &starts, 2, 3);
            assert_eq!(sampler.sample_at(at), fresh.sample_at(at));
        }
    }
}
