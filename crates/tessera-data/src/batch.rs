//! Which positions of a run make which batch, and what a batch is once it is read.
//!
//! Plans are lists of ranges: they depend on the batch size and on the rank's part of it,
//! and on nothing that was read before.

use std::ops::Range;

use crate::sampler::part;
use crate::shape::SampleShape;

/// One batch to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchPlan {
    /// Optimizer step (training) or number of the batch (evaluation) it belongs to.
    pub step: u64,
    /// This rank's positions; may be empty.
    pub positions: Range<u64>,
    /// Positions of all ranks together: the global batch.
    pub global: Range<u64>,
}

/// One batch in memory: this rank's part of a global batch.
#[derive(Debug, Clone)]
pub struct Batch<M = Vec<u8>> {
    /// Optimizer step (training) or number of the batch (evaluation) it belongs to.
    pub step: u64,
    /// Positions of all ranks together; its length is what a mean divides by.
    pub global: Range<u64>,
    /// This rank's positions.
    pub positions: Range<u64>,
    /// The sample at each of this rank's positions.
    pub ids: Vec<u64>,
    /// The number of each sample's class, in step with `ids`; empty unless they were asked for
    /// ([`crate::LoadOptions::labels`]) and the source has some.
    pub labels: Vec<i64>,
    /// What holds the samples; it may have more room than they take.
    pub memory: M,
    /// Shape of one sample.
    pub shape: SampleShape,
    /// Samples that could not be read: replaced in training, left out in an evaluation.
    pub num_skipped: u64,
}

impl<M> Batch<M> {
    /// Number of samples, this rank's.
    pub fn num_samples(&self) -> usize {
        self.ids.len()
    }

    /// Bytes that the samples take.
    pub fn num_bytes(&self) -> usize {
        self.ids.len() * self.shape.num_bytes()
    }
}

/// The same samples at the same place, whatever room their memory has left.
impl<M: AsRef<[u8]>> PartialEq for Batch<M> {
    fn eq(&self, other: &Self) -> bool {
        let place = |batch: &Self| (batch.step, batch.positions.clone(), batch.global.clone());
        let found = |batch: &Self| (batch.shape, batch.num_skipped);
        place(self) == place(other)
            && found(self) == found(other)
            && (&self.ids, &self.labels) == (&other.ids, &other.labels)
            && self.pixels() == other.pixels()
    }
}

impl<M: AsRef<[u8]>> Batch<M> {
    /// The samples one after another: bytes, in the order sample, height, width, channels.
    pub fn pixels(&self) -> &[u8] {
        &self.memory.as_ref()[..self.num_bytes()]
    }
}

/// The batches of steps `start_step..end_step` of a training run.
///
/// Step s has positions `s * global_batch..(s + 1) * global_batch` of the run: batches wrap
/// over the end of an epoch and are always full.
pub fn train_plan(
    start_step: u64,
    end_step: u64,
    global_batch: u64,
    rank: usize,
    world_size: usize,
) -> impl Iterator<Item = BatchPlan> + Send + 'static {
    (start_step..end_step).map(move |step| {
        let global = step * global_batch..(step + 1) * global_batch;
        BatchPlan { step, positions: part(global.clone(), rank, world_size), global }
    })
}

/// The batches of an evaluation over `num_samples` samples, each exactly once.
///
/// Every rank has the same number of batches; the last one may be partial, and a rank's part
/// of it empty.
///
/// # Panics
///
/// If `global_batch` is 0.
pub fn eval_plan(
    num_samples: u64,
    global_batch: u64,
    rank: usize,
    world_size: usize,
) -> impl Iterator<Item = BatchPlan> + Send + 'static {
    (0..num_samples.div_ceil(global_batch)).map(move |step| {
        let global = step * global_batch..num_samples.min((step + 1) * global_batch);
        BatchPlan { step, positions: part(global.clone(), rank, world_size), global }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evaluation_counts_each_sample_once_for_every_world() {
        for world_size in 1..=7 {
            for (num_samples, global_batch) in [(1, 4), (4, 4), (10, 4), (100, 7), (3, 64)] {
                let mut seen = vec![0; num_samples as usize];
                let mut lengths = Vec::new();
                for rank in 0..world_size {
                    let plan: Vec<_> =
                        eval_plan(num_samples, global_batch, rank, world_size).collect();
                    lengths.push(plan.len());
                    for position in plan.into_iter().flat_map(|batch| batch.positions) {
                        seen[position as usize] += 1;
                    }
                }
                assert!(seen.iter().all(|&times| times == 1), "{world_size}: {seen:?}");
                let expected = num_samples.div_ceil(global_batch) as usize;
                assert!(lengths.iter().all(|&length| length == expected), "{lengths:?}");
            }
        }
    }

    #[test]
    fn training_batches_are_full_and_the_same_for_every_world() {
        for world_size in 1..=7 {
            let mut plans: Vec<_> =
                (0..world_size).map(|rank| train_plan(3, 6, 5, rank, world_size)).collect();
            for step in 3..6 {
                let mut joined = Vec::new();
                for plan in &mut plans {
                    let batch = plan.next().unwrap();
                    assert_eq!((batch.step, &batch.global), (step, &(step * 5..step * 5 + 5)));
                    joined.extend(batch.positions);
                }
                assert!(joined.into_iter().eq(step * 5..step * 5 + 5), "{world_size} ranks");
            }
            assert!(plans.iter_mut().all(|plan| plan.next().is_none()));
        }
    }
}
