//! Batches are those of the plan, whatever the queue, the threads and the damage.

use super::*;
use crate::batch::{eval_plan, train_plan};
use crate::error::DataErrorKind;
use crate::shape::SampleShape;

/// A sample's bytes are its number; the sample `broken` cannot be read, the sample `unlabeled` has
/// no label, and the sample `panics` panics.
struct Numbers {
    broken: u64,
    unlabeled: u64,
    panics: u64,
}

const GOOD: Numbers = Numbers { broken: u64::MAX, unlabeled: u64::MAX, panics: u64::MAX };

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
    fn label(&self, id: u64) -> Result<Option<i64>, DataError> {
        Ok((id != self.unlabeled).then_some(label_of(id)))
    }
    fn has_labels(&self) -> bool {
        true
    }
    fn fingerprint(&self) -> String {
        String::new()
    }
}

fn label_of(id: u64) -> i64 {
    (id * 7 % 10) as i64
}

/// That there is a label for each sample, or none where none were asked for.
fn assert_labels(batch: &Batch, asked: bool) {
    let expected: Vec<i64> = batch.ids.iter().filter(|_| asked).map(|&id| label_of(id)).collect();
    assert_eq!(batch.labels, expected);
}

fn options(prefetch: usize, threads: usize) -> LoadOptions {
    LoadOptions { prefetch, threads, labels: true, ..LoadOptions::default() }
}

fn load(source: Numbers, options: LoadOptions, recycle: bool) -> Vec<Batch> {
    let order = Order::Shuffled(Sampler::new(1, 100));
    let plan = train_plan(5, 45, 7, 1, 2);
    let mut loader = Loader::new(Arc::new(source), order, plan, options).unwrap();
    let mut batches = Vec::new();
    while let Some(batch) = loader.next() {
        let batch = batch.unwrap();
        assert_labels(&batch, options.labels);
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
        let ids: Vec<u64> = batch.positions.clone().map(|at| sampler.sample_at(at).id).collect();
        let pixels: Vec<u8> = ids.iter().flat_map(|&id| [id as u8; 2]).collect();
        assert_eq!((&batch.ids, batch.pixels()), (&ids, &*pixels));
    }
}

#[test]
fn an_empty_part_is_an_empty_batch() {
    let plan = eval_plan(2, 4, 0, 3);
    let mut loader = Loader::new(Arc::new(GOOD), Order::Sequential, plan, options(2, 1)).unwrap();
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

/// What is asked of a label holds for a sample without one: it is an error, or it is replaced.
#[test]
fn a_missing_label_is_the_error_of_its_sample_and_nothing_where_labels_are_not_asked_for() {
    let unlabeled = || Numbers { unlabeled: 25, ..GOOD };
    let without = LoadOptions { labels: false, ..options(2, 2) };
    assert!(load(unlabeled(), without, true).iter().any(|batch| batch.ids.contains(&25)));

    let plan = || eval_plan(100, 10, 0, 1);
    let source = Arc::new(unlabeled());
    let loader = Loader::new(source, Order::Sequential, plan(), options(2, 2)).unwrap();
    let batches: Vec<Result<Batch, DataError>> = loader.collect();
    assert_eq!(batches.len(), 3);
    let error = batches[2].as_ref().unwrap_err();
    assert_eq!(error.kind(), DataErrorKind::Corrupt);
    assert!(error.to_string().starts_with("sample 25 has no label in the data"), "{error}");

    let skip = LoadOptions { on_corrupt: OnCorrupt::Skip, ..options(2, 2) };
    let found = load(unlabeled(), skip, true);
    assert!(found.iter().all(|batch| !batch.ids.contains(&25)));
    assert!(found.iter().any(|batch| batch.num_skipped > 0));
    let source = Arc::new(unlabeled());
    let loader = Loader::new(source, Order::Sequential, plan(), skip).unwrap();
    let batches: Vec<Batch> = loader.map(Result::unwrap).collect();
    batches.iter().for_each(|batch| assert_labels(batch, true));
    assert_eq!((batches[2].num_samples(), batches[2].num_skipped), (9, 1));
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
    let mut loader = Loader::with_memory(Arc::new(GOOD), order, plan, options(2, 2), take).unwrap();
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
