//! Batches read ahead on a thread of their own.
//!
//! The thread follows a plan and fills a bounded queue; what comes out is the same for every
//! depth of the queue. An error takes its place in the order: the batches before it are
//! delivered first, and nothing after it. [`Loader::next`] waits for the disk without a
//! deadline of its own; the training program arms its watchdog around it.

use std::panic;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::batch::{Batch, BatchPlan};
use crate::error::DataError;
use crate::sampler::Sampler;
use crate::source::Source;

/// What a position means.
#[derive(Debug, Clone, Copy)]
pub enum Order {
    /// Training: the sampler says which sample stands there.
    Shuffled(Sampler),
    /// Evaluation: the position is the sample.
    Sequential,
}

/// Reads the batches of a plan ahead; iterate to get them.
///
/// Dropping it ends the thread, after the batch that it is reading.
pub struct Loader {
    /// `None` only while the loader is dropped.
    batches: Option<Receiver<Result<Batch, DataError>>>,
    recycled: Sender<Batch>,
    /// `None` once the thread has been joined.
    thread: Option<JoinHandle<()>>,
}

impl Loader {
    /// Starts to read the batches of `plan` from `source`, up to `prefetch` of them before
    /// they are asked for (at least one).
    ///
    /// # Errors
    ///
    /// [`DataError::Thread`] if no thread can be started.
    pub fn new(
        source: Arc<dyn Source>,
        order: Order,
        plan: impl Iterator<Item = BatchPlan> + Send + 'static,
        prefetch: usize,
    ) -> Result<Self, DataError> {
        // One batch more is in the thread's hands, waiting for a place.
        let (sender, batches) = bounded(prefetch.saturating_sub(1));
        let (recycled, returned) = bounded(prefetch.saturating_add(2));
        let read = move || read_plan(&*source, order, plan, &sender, &returned);
        let thread = thread::Builder::new()
            .name("tessera-loader".to_owned())
            .spawn(read)
            .map_err(|source| DataError::Thread { source })?;
        Ok(Self { batches: Some(batches), recycled, thread: Some(thread) })
    }

    /// Gives a batch back, so that its memory is used for a later one. Optional.
    pub fn recycle(&self, batch: Batch) {
        // A full or closed channel frees the memory instead.
        let _ = self.recycled.try_send(batch);
    }
}

impl Iterator for Loader {
    type Item = Result<Batch, DataError>;

    /// The next batch; waits until it is read. `None` after the plan's end or an error.
    ///
    /// # Panics
    ///
    /// If the source panicked, with its panic.
    fn next(&mut self) -> Option<Self::Item> {
        if let Ok(batch) = self.batches.as_ref()?.recv() {
            return Some(batch);
        }
        // The thread has ended: by itself, or by a panic that must not look like the end.
        if let Err(payload) = self.thread.take()?.join() {
            panic::resume_unwind(payload);
        }
        None
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        // Without a receiver the thread's next send fails, and it ends.
        self.batches = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the source was reported by the panic hook already.
            let _ = thread.join();
        }
    }
}

/// The thread: reads batch after batch until the plan, the loader or the data ends.
fn read_plan(
    source: &dyn Source,
    order: Order,
    plan: impl Iterator<Item = BatchPlan>,
    sender: &Sender<Result<Batch, DataError>>,
    returned: &Receiver<Batch>,
) {
    for planned in plan {
        let batch = read_batch(source, order, planned, returned.try_recv().ok());
        let failed = batch.is_err();
        if sender.send(batch).is_err() || failed {
            return;
        }
    }
}

fn read_batch(
    source: &dyn Source,
    order: Order,
    planned: BatchPlan,
    recycled: Option<Batch>,
) -> Result<Batch, DataError> {
    let (mut ids, mut pixels) = recycled.map_or_else(Default::default, |old| (old.ids, old.pixels));
    ids.clear();
    ids.extend(planned.positions.clone().map(|position| match order {
        Order::Shuffled(sampler) => sampler.sample_at(position).id,
        Order::Sequential => position,
    }));
    let shape = source.shape();
    pixels.resize(ids.len() * shape.num_bytes(), 0);
    for (&id, sample) in ids.iter().zip(pixels.chunks_exact_mut(shape.num_bytes())) {
        source.read(id, sample)?;
    }
    let BatchPlan { step, positions, global } = planned;
    Ok(Batch { step, global, positions, ids, pixels, shape })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{eval_plan, train_plan};
    use crate::source::SampleShape;

    /// A sample's bytes are its number; the sample `broken` cannot be read, and the sample
    /// `panics` panics.
    struct Numbers {
        broken: u64,
        panics: u64,
    }

    const GOOD: Numbers = Numbers { broken: u64::MAX, panics: u64::MAX };

    impl Source for Numbers {
        fn num_samples(&self) -> u64 {
            100
        }
        fn shape(&self) -> SampleShape {
            SampleShape { channels: 1, height: 1, width: 2 }
        }
        fn read(&self, id: u64, out: &mut [u8]) -> Result<(), DataError> {
            assert!(id != self.panics, "the panic of sample {id}");
            out.fill(id as u8);
            if id != self.broken {
                return Ok(());
            }
            let problem = "is broken".to_owned();
            Err(DataError::CorruptSample { shard: "x".into(), sample: id, problem })
        }
        fn fingerprint(&self) -> String {
            String::new()
        }
    }

    fn load(source: Numbers, prefetch: usize, recycle: bool) -> Vec<Batch> {
        let order = Order::Shuffled(Sampler::new(1, 100));
        let plan = train_plan(5, 45, 7, 1, 2);
        let mut loader = Loader::new(Arc::new(source), order, plan, prefetch).unwrap();
        let mut batches = Vec::new();
        while let Some(batch) = loader.next() {
            let batch = batch.unwrap();
            batches.push(batch.clone());
            if recycle {
                loader.recycle(batch);
            }
        }
        assert!(loader.next().is_none());
        batches
    }

    #[test]
    fn batches_are_equal_for_every_depth_and_with_recycled_memory() {
        let expected = load(GOOD, 1, false);
        assert_eq!(expected.len(), 40);
        for (prefetch, recycle) in [(0, true), (1, true), (3, false), (3, true), (64, true)] {
            assert_eq!(load(GOOD, prefetch, recycle), expected, "prefetch {prefetch}");
        }
        let sampler = Sampler::new(1, 100);
        for (step, batch) in (5..).zip(&expected) {
            // Rank 1 of 2 has positions 3..7 of each batch of 7.
            assert_eq!((batch.step, &batch.global), (step, &(7 * step..7 * step + 7)));
            assert_eq!(batch.positions, 7 * step + 3..7 * step + 7);
            let ids: Vec<u64> =
                batch.positions.clone().map(|at| sampler.sample_at(at).id).collect();
            let pixels: Vec<u8> = ids.iter().flat_map(|&id| [id as u8; 2]).collect();
            assert_eq!((&batch.ids, &batch.pixels), (&ids, &pixels));
        }
    }

    #[test]
    fn an_empty_part_is_an_empty_batch() {
        let plan = eval_plan(2, 4, 0, 3);
        let mut loader = Loader::new(Arc::new(GOOD), Order::Sequential, plan, 2).unwrap();
        let batch = loader.next().unwrap().unwrap();
        assert_eq!((batch.num_samples(), batch.pixels.len(), batch.global), (0, 0, 0..2));
        assert!(loader.next().is_none());
    }

    #[test]
    fn an_error_comes_where_it_happens_and_ends_the_plan() {
        let source = Arc::new(Numbers { broken: 25, ..GOOD });
        let plan = eval_plan(100, 10, 0, 1);
        let mut loader = Loader::new(source, Order::Sequential, plan, 4).unwrap();
        assert_eq!(loader.next().unwrap().unwrap().ids, (0..10).collect::<Vec<_>>());
        assert_eq!(loader.next().unwrap().unwrap().ids, (10..20).collect::<Vec<_>>());
        let error = loader.next().unwrap().unwrap_err();
        assert!(error.to_string().starts_with("sample 25 of shard x is broken"), "{error}");
        assert!(loader.next().is_none());
    }

    #[test]
    fn a_panic_of_the_source_is_not_taken_for_the_end() {
        let source = Arc::new(Numbers { panics: 5, ..GOOD });
        let plan = eval_plan(100, 10, 0, 1);
        let mut loader = Loader::new(source, Order::Sequential, plan, 1).unwrap();
        let payload = panic::catch_unwind(panic::AssertUnwindSafe(|| loader.next())).unwrap_err();
        assert_eq!(payload.downcast_ref::<String>().unwrap(), "the panic of sample 5");
    }

    /// An endless plan: a loader that did not stop its thread would hang here.
    #[test]
    fn a_loader_dropped_early_ends_its_thread() {
        for taken in [0, 1, 5] {
            let source = Arc::new(GOOD);
            let order = Order::Shuffled(Sampler::new(0, 100));
            let plan = train_plan(0, u64::MAX / 8, 8, 0, 1);
            let mut loader = Loader::new(source.clone(), order, plan, 2).unwrap();
            for _ in 0..taken {
                loader.next().unwrap().unwrap();
            }
            drop(loader);
            assert_eq!(Arc::strong_count(&source), 1, "the thread still holds the source");
        }
    }
}
