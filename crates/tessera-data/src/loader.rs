//! Batches read ahead on threads of their own.
//!
//! One thread follows a plan and fills a bounded queue; the samples of a batch are read and
//! decoded by several. What comes out is the same for every depth of the queue and every number of
//! threads. In memory are at most `prefetch` batches that wait or are being read, and one that is
//! used. An error takes its place in the order: the batches before it are delivered first, and
//! nothing after it. [`Loader::next`] waits for the disk without a deadline of its own; the
//! training program arms its watchdog around it.
//!
//! The memory of batches comes from whoever wants them ([`Loader::with_memory`]): a training
//! program hands in memory that its GPU can copy from, and samples are decoded right into it.

use std::io;
use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded};
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::batch::{Batch, BatchPlan};
use crate::config::OnCorrupt;
use crate::draw::Draw;
use crate::error::DataError;
use crate::sampler::{SamplePosition, Sampler};
use crate::source::Source;

/// Samples tried in place of one that cannot be read. That all of them fail says that it is not a
/// sample that is broken.
const MOST_SUBSTITUTES: u64 = 16;

/// What a position means.
#[derive(Debug, Clone)]
pub enum Order {
    /// Training: the sampler says which sample stands there.
    Shuffled(Sampler),
    /// Evaluation: the position is the sample.
    Sequential,
}

/// Reads the batches of a plan ahead; iterate to get them.
///
/// Dropping it ends the thread, after the batch that it is reading.
pub struct Loader<M = Vec<u8>> {
    /// `None` only while the loader is dropped.
    batches: Option<Receiver<Result<Batch<M>, DataError>>>,
    recycled: Sender<Batch<M>>,
    /// `None` once the thread has been joined.
    thread: Option<JoinHandle<()>>,
}

/// How batches are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadOptions {
    /// Batches read before they are asked for, at least 1.
    pub prefetch: usize,
    /// Threads that read and decode; 0: one a processor that this process may use, at most 8.
    pub threads: usize,
    /// What becomes of a sample that cannot be read.
    pub on_corrupt: OnCorrupt,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { prefetch: 4, threads: 0, on_corrupt: OnCorrupt::Fail }
    }
}

impl Loader {
    /// Starts to read the batches of `plan` from `source`, into memory of its own.
    ///
    /// # Errors
    ///
    /// [`DataError::Thread`] if no thread can be started.
    pub fn new(
        source: Arc<dyn Source>,
        order: Order,
        plan: impl Iterator<Item = BatchPlan> + Send + 'static,
        options: LoadOptions,
    ) -> Result<Self, DataError> {
        Self::with_memory(source, order, plan, options, |num_bytes| Ok(vec![0; num_bytes]))
    }
}

impl<M: AsRef<[u8]> + AsMut<[u8]> + Send + 'static> Loader<M> {
    /// Starts to read the batches of `plan` from `source`, into memory that `take` gives: at least
    /// as many bytes as it is asked for. It is asked, on the loader's thread, only where no batch
    /// that was given back is large enough.
    ///
    /// # Errors
    ///
    /// [`DataError::Thread`] if no thread can be started. An error of `take` is the batch's.
    pub fn with_memory(
        source: Arc<dyn Source>,
        order: Order,
        plan: impl Iterator<Item = BatchPlan> + Send + 'static,
        options: LoadOptions,
        take: impl FnMut(usize) -> io::Result<M> + Send + 'static,
    ) -> Result<Self, DataError> {
        // One batch more is in the thread's hands, waiting for a place.
        let (sender, batches) = bounded(options.prefetch.saturating_sub(1));
        let (recycled, returned) = bounded(options.prefetch.saturating_add(2));
        let reader = Reader { source, order, on_corrupt: options.on_corrupt, pool: pool(options)? };
        let memory = Memory { returned, take };
        let read = move || reader.read_plan(plan, &sender, memory);
        let thread = thread::Builder::new()
            .name("tessera-loader".to_owned())
            .spawn(read)
            .map_err(|source| DataError::Thread { source })?;
        Ok(Self { batches: Some(batches), recycled, thread: Some(thread) })
    }

    /// Gives a batch back, so that its memory is used for a later one. Optional.
    pub fn recycle(&self, batch: Batch<M>) {
        // A full or closed channel frees the memory instead.
        let _ = self.recycled.try_send(batch);
    }
}

impl<M> Iterator for Loader<M> {
    type Item = Result<Batch<M>, DataError>;

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

impl<M> Drop for Loader<M> {
    fn drop(&mut self) {
        // Without a receiver the thread's next send fails, and it ends.
        self.batches = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the source was reported by the panic hook already.
            let _ = thread.join();
        }
    }
}

/// Threads for the samples of a batch; none where one is enough.
fn pool(options: LoadOptions) -> Result<Option<ThreadPool>, DataError> {
    let threads = match options.threads {
        0 => thread::available_parallelism().map_or(1, |threads| threads.get().min(8)),
        threads => threads,
    };
    if threads == 1 {
        return Ok(None);
    }
    ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|index| format!("tessera-loader-{index}"))
        .build()
        .map(Some)
        .map_err(|error| DataError::Thread { source: std::io::Error::other(error) })
}

/// Where the memory of a batch comes from.
struct Memory<M, F> {
    returned: Receiver<Batch<M>>,
    take: F,
}

impl<M: AsRef<[u8]>, F: FnMut(usize) -> io::Result<M>> Memory<M, F> {
    /// That of a batch that was given back, or new one.
    fn of(&mut self, num_bytes: usize) -> Result<(Vec<u64>, M), DataError> {
        while let Ok(Batch { ids, memory, .. }) = self.returned.try_recv() {
            if memory.as_ref().len() >= num_bytes {
                return Ok((ids, memory));
            }
        }
        let memory = (self.take)(num_bytes).map_err(|source| DataError::Memory { source })?;
        Ok((Vec::new(), memory))
    }
}

/// What the loader's thread owns.
struct Reader {
    source: Arc<dyn Source>,
    order: Order,
    on_corrupt: OnCorrupt,
    pool: Option<ThreadPool>,
}

impl Reader {
    /// Reads batch after batch until the plan, the loader or the data ends.
    fn read_plan<M: AsRef<[u8]> + AsMut<[u8]>>(
        &self,
        plan: impl Iterator<Item = BatchPlan>,
        sender: &Sender<Result<Batch<M>, DataError>>,
        mut memory: Memory<M, impl FnMut(usize) -> io::Result<M>>,
    ) {
        for planned in plan {
            let num = (planned.positions.end - planned.positions.start) as usize;
            let memory = memory.of(num * self.source.shape().num_bytes());
            let batch = memory.and_then(|memory| self.read_batch(planned, memory));
            let failed = batch.is_err();
            if sender.send(batch).is_err() || failed {
                return;
            }
        }
    }

    fn read_batch<M: AsMut<[u8]>>(
        &self,
        planned: BatchPlan,
        (mut ids, mut memory): (Vec<u64>, M),
    ) -> Result<Batch<M>, DataError> {
        let BatchPlan { step, positions, global } = planned;
        let shape = self.source.shape();
        let (num, sample_bytes) = ((positions.end - positions.start) as usize, shape.num_bytes());
        let mut found = vec![None; num];
        let skipped = AtomicU64::new(0);
        let pixels = &mut memory.as_mut()[..num * sample_bytes];
        let read = |(at, (id, out)): (usize, (&mut Option<u64>, &mut [u8]))| {
            *id = self.read_sample(positions.start + at as u64, out, &skipped)?;
            Ok(())
        };
        match &self.pool {
            Some(pool) => pool.install(|| {
                let samples = found.par_iter_mut().zip(pixels.par_chunks_exact_mut(sample_bytes));
                samples.enumerate().with_min_len(8).try_for_each(read)
            }),
            None => found
                .iter_mut()
                .zip(pixels.chunks_exact_mut(sample_bytes))
                .enumerate()
                .try_for_each(read),
        }?;
        ids.clear();
        for (at, id) in found.into_iter().enumerate() {
            let Some(id) = id else { continue };
            if ids.len() < at {
                // Behind a gap.
                let from = at * sample_bytes;
                pixels.copy_within(from..from + sample_bytes, ids.len() * sample_bytes);
            }
            ids.push(id);
        }
        let num_skipped = skipped.into_inner();
        Ok(Batch { step, global, positions, ids, memory, shape, num_skipped })
    }

    /// Reads what stands at a position and returns which sample it is. Where that cannot be read
    /// and the configuration says so, another takes its place in training, by a draw that hangs
    /// on seed and position alone, and none in an evaluation.
    fn read_sample(
        &self,
        position: u64,
        out: &mut [u8],
        skipped: &AtomicU64,
    ) -> Result<Option<u64>, DataError> {
        let Order::Shuffled(sampler) = &self.order else {
            return match self.source.read(position, Draw::NONE, out) {
                Ok(()) => Ok(Some(position)),
                Err(error) => self.skip(position, error, skipped).map(|()| None),
            };
        };
        let mut attempt = 0;
        loop {
            let SamplePosition { epoch, id } = sampler.substitute_at(position, attempt);
            match self.source.read(id, Draw::new(sampler.seed(), epoch, id), out) {
                Ok(()) => return Ok(Some(id)),
                Err(error) if attempt < MOST_SUBSTITUTES => {
                    self.skip(position, error, skipped)?;
                }
                Err(error) => return Err(error),
            }
            attempt += 1;
        }
    }

    /// Passes over a sample that cannot be read, if that is allowed.
    fn skip(&self, position: u64, error: DataError, skipped: &AtomicU64) -> Result<(), DataError> {
        if self.on_corrupt == OnCorrupt::Fail || !error.is_of_one_sample() {
            return Err(error);
        }
        skipped.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(position, %error, "sample skipped");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{eval_plan, train_plan};
    use crate::error::DataErrorKind;
    use crate::shape::SampleShape;

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
            SampleShape::image(1, 1, 2)
        }
        fn read(&self, id: u64, _draw: Draw, out: &mut [u8]) -> Result<(), DataError> {
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

    fn options(prefetch: usize, threads: usize) -> LoadOptions {
        LoadOptions { prefetch, threads, ..LoadOptions::default() }
    }

    fn load(source: Numbers, options: LoadOptions, recycle: bool) -> Vec<Batch> {
        let order = Order::Shuffled(Sampler::new(1, 100));
        let plan = train_plan(5, 45, 7, 1, 2);
        let mut loader = Loader::new(Arc::new(source), order, plan, options).unwrap();
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
        let expected = load(GOOD, options(1, 1), false);
        assert_eq!(expected.len(), 40);
        for (prefetch, recycle) in [(0, true), (1, true), (3, false), (3, true), (64, true)] {
            for threads in [1, 2, 5] {
                let found = load(GOOD, options(prefetch, threads), recycle);
                assert_eq!(found, expected, "prefetch {prefetch}, {threads} threads");
            }
        }
        let sampler = Sampler::new(1, 100);
        for (step, batch) in (5..).zip(&expected) {
            // Rank 1 of 2 has positions 3..7 of each batch of 7.
            assert_eq!((batch.step, &batch.global), (step, &(7 * step..7 * step + 7)));
            assert_eq!(batch.positions, 7 * step + 3..7 * step + 7);
            let ids: Vec<u64> =
                batch.positions.clone().map(|at| sampler.sample_at(at).id).collect();
            let pixels: Vec<u8> = ids.iter().flat_map(|&id| [id as u8; 2]).collect();
            assert_eq!((&batch.ids, batch.pixels()), (&ids, &*pixels));
        }
    }

    #[test]
    fn an_empty_part_is_an_empty_batch() {
        let plan = eval_plan(2, 4, 0, 3);
        let mut loader =
            Loader::new(Arc::new(GOOD), Order::Sequential, plan, options(2, 1)).unwrap();
        let batch = loader.next().unwrap().unwrap();
        assert_eq!((batch.num_samples(), batch.pixels().len(), batch.global), (0, 0, 0..2));
        assert!(loader.next().is_none());
    }

    #[test]
    fn an_error_comes_where_it_happens_and_ends_the_plan() {
        let source = Arc::new(Numbers { broken: 25, ..GOOD });
        let plan = eval_plan(100, 10, 0, 1);
        let mut loader = Loader::new(source, Order::Sequential, plan, options(4, 2)).unwrap();
        assert_eq!(loader.next().unwrap().unwrap().ids, (0..10).collect::<Vec<_>>());
        assert_eq!(loader.next().unwrap().unwrap().ids, (10..20).collect::<Vec<_>>());
        let error = loader.next().unwrap().unwrap_err();
        assert!(error.to_string().starts_with("sample 25 of shard x is broken"), "{error}");
        assert!(loader.next().is_none());
    }

    /// By hand: sample 25 is the one of position `gone`; all other positions keep theirs.
    #[test]
    fn a_skipped_sample_is_replaced_in_training_and_left_out_in_an_evaluation() {
        let skip = LoadOptions { on_corrupt: OnCorrupt::Skip, ..options(2, 2) };
        let broken = || Numbers { broken: 25, ..GOOD };
        let (whole, found) = (load(GOOD, skip, false), load(broken(), skip, true));
        let mut replaced = 0;
        for (whole, found) in whole.iter().zip(&found) {
            assert_eq!(whole.positions, found.positions);
            for (&before, &after) in whole.ids.iter().zip(&found.ids) {
                assert_ne!(after, 25);
                assert!(before == 25 || before == after);
                replaced += u32::from(before == 25);
            }
            let pixels: Vec<u8> = found.ids.iter().flat_map(|&id| [id as u8; 2]).collect();
            assert_eq!(found.pixels(), pixels);
        }
        let counted: u64 = found.iter().map(|batch| batch.num_skipped).sum();
        assert!(replaced > 0 && counted == u64::from(replaced));
        assert_eq!(load(broken(), LoadOptions { threads: 1, prefetch: 7, ..skip }, false), found);

        let plan = eval_plan(100, 10, 0, 1);
        let loader = Loader::new(Arc::new(broken()), Order::Sequential, plan, skip).unwrap();
        let batches: Vec<Batch> = loader.map(Result::unwrap).collect();
        let ids: Vec<u64> = batches.iter().flat_map(|batch| batch.ids.clone()).collect();
        assert!(ids.into_iter().eq((0..100).filter(|&id| id != 25)));
        assert_eq!(batches[2].pixels()[10..12], [26, 26]);
    }

    #[test]
    fn a_panic_of_the_source_is_not_taken_for_the_end() {
        let source = Arc::new(Numbers { panics: 5, ..GOOD });
        let plan = eval_plan(100, 10, 0, 1);
        let mut loader = Loader::new(source, Order::Sequential, plan, options(1, 2)).unwrap();
        let payload = panic::catch_unwind(panic::AssertUnwindSafe(|| loader.next())).unwrap_err();
        assert_eq!(payload.downcast_ref::<String>().unwrap(), "the panic of sample 5");
    }

    /// By hand: with a queue of 2, a batch is in use while 2 wait and 1 is read; memory beyond
    /// these is asked for only where none comes back.
    #[test]
    fn batches_are_read_into_memory_that_is_handed_in_and_come_back_to_it() {
        let asked = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&asked);
        let take = move |num_bytes: usize| {
            assert!(matches!(num_bytes, 20 | 10));
            counted.fetch_add(1, Ordering::Relaxed);
            Ok(vec![0xff; num_bytes + 5].into_boxed_slice())
        };
        let order = Order::Sequential;
        let plan = eval_plan(95, 10, 0, 1);
        let mut loader =
            Loader::with_memory(Arc::new(GOOD), order, plan, options(2, 2), take).unwrap();
        let mut next = 0;
        while let Some(batch) = loader.next() {
            let batch = batch.unwrap();
            let expected: Vec<u8> = batch.ids.iter().flat_map(|&id| [id as u8; 2]).collect();
            assert_eq!((batch.ids[0], batch.pixels()), (next, &*expected));
            next += batch.num_samples() as u64;
            loader.recycle(batch);
        }
        assert_eq!(next, 95);
        assert!(asked.load(Ordering::Relaxed) <= 4, "{asked:?}");

        let plan = eval_plan(95, 10, 0, 1);
        let refuse = |_| Err::<Vec<u8>, _>(io::Error::other("the GPU is gone"));
        let source = Arc::new(GOOD);
        let mut loader =
            Loader::with_memory(source, Order::Sequential, plan, options(2, 2), refuse).unwrap();
        let error = loader.next().unwrap().unwrap_err();
        assert_eq!(error.kind(), DataErrorKind::Io);
        assert!(error.to_string().contains("memory for a batch: the GPU is gone"), "{error}");
        assert!(loader.next().is_none());
    }

    /// An endless plan: a loader that did not stop its thread would hang here.
    #[test]
    fn a_loader_dropped_early_ends_its_thread() {
        for taken in [0, 1, 5] {
            let source = Arc::new(GOOD);
            let order = Order::Shuffled(Sampler::new(0, 100));
            let plan = train_plan(0, u64::MAX / 8, 8, 0, 1);
            let mut loader = Loader::new(source.clone(), order, plan, options(2, 2)).unwrap();
            for _ in 0..taken {
                loader.next().unwrap().unwrap();
            }
            drop(loader);
            assert_eq!(Arc::strong_count(&source), 1, "the thread still holds the source");
        }
    }
}
