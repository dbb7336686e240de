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
use crate::config::{DataConfig, OnCorrupt};
use crate::draw::Draw;
use crate::error::{DataError, one_line};
use crate::sampler::{SamplePosition, Sampler};
use crate::samples::Source;

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
    /// Whether batches have the labels of their samples, where the source has some. A sample
    /// without one is an error then, as one that cannot be read.
    pub labels: bool,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { prefetch: 4, threads: 0, on_corrupt: OnCorrupt::Fail, labels: false }
    }
}

impl DataConfig {
    /// How a loader reads; labels are left where they are, for whoever needs them to ask for.
    pub fn load_options(&self) -> LoadOptions {
        let Self { prefetch, threads, on_corrupt, .. } = *self;
        LoadOptions { prefetch, threads, on_corrupt, labels: false }
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
        let labels = options.labels && source.has_labels();
        let (on_corrupt, pool) = (options.on_corrupt, pool(options)?);
        let reader = Reader { source, order, on_corrupt, labels, pool };
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
    /// Whether labels are read.
    labels: bool,
    pool: Option<ThreadPool>,
}

/// A sample that was read, and its label if those are asked for.
type Read = (u64, Option<i64>);

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
        let mut found: Vec<Option<Read>> = vec![None; num];
        let skipped = AtomicU64::new(0);
        let pixels = &mut memory.as_mut()[..num * sample_bytes];
        let read = |(at, (sample, out)): (usize, (&mut Option<Read>, &mut [u8]))| {
            *sample = self.read_sample(positions.start + at as u64, out, &skipped)?;
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
        let mut labels = Vec::with_capacity(if self.labels { num } else { 0 });
        for (at, sample) in found.into_iter().enumerate() {
            let Some((id, label)) = sample else { continue };
            if ids.len() < at {
                // Behind a gap.
                let from = at * sample_bytes;
                pixels.copy_within(from..from + sample_bytes, ids.len() * sample_bytes);
            }
            ids.push(id);
            labels.extend(label);
        }
        let num_skipped = skipped.into_inner();
        Ok(Batch { step, global, positions, ids, labels, memory, shape, num_skipped })
    }

    /// Reads what stands at a position and returns which sample it is. Where that cannot be read
    /// and the configuration says so, another takes its place in training, by a draw that hangs
    /// on seed and position alone, and none in an evaluation.
    fn read_sample(
        &self,
        position: u64,
        out: &mut [u8],
        skipped: &AtomicU64,
    ) -> Result<Option<Read>, DataError> {
        let Order::Shuffled(sampler) = &self.order else {
            return match self.read_labeled(position, Draw::NONE, out) {
                Ok(label) => Ok(Some((position, label))),
                Err(error) => self.skip(position, error, skipped).map(|()| None),
            };
        };
        let mut attempt = 0;
        loop {
            let SamplePosition { epoch, id } = sampler.substitute_at(position, attempt);
            match self.read_labeled(id, Draw::new(sampler.seed(), epoch, id), out) {
                Ok(label) => return Ok(Some((id, label))),
                Err(error) if attempt < MOST_SUBSTITUTES => {
                    self.skip(position, error, skipped)?;
                }
                Err(error) => return Err(error),
            }
            attempt += 1;
        }
    }

    /// Reads a sample, and its label if those are asked for.
    fn read_labeled(&self, id: u64, draw: Draw, out: &mut [u8]) -> Result<Option<i64>, DataError> {
        self.source.read(id, draw, out)?;
        if !self.labels {
            return Ok(None);
        }
        match self.source.label(id)? {
            None => Err(DataError::NoLabel { sample: one_line(&self.source.name(id)) }),
            label => Ok(label),
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
#[path = "loader_tests.rs"]
mod tests;
