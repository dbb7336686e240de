//! The order of samples: the same for every number of ranks, threads and batches read ahead, and
//! after every resume; and what is in memory on the way.

#![allow(clippy::unwrap_used)] // the lint knows `#[test]` functions, not their helpers

use std::fs;
use std::path::Path;
use std::sync::Arc;

use tessera_data::{
    Batch, DataConfig, DataError, DataKind, Draw, LoadOptions, Loader, MixturePart, Order,
    SampleShape, Shuffle, Source, SyntheticConfig, source, train_plan,
};

const GLOBAL_BATCH: u64 = 70;

/// Small drawn pictures, in an order of one of three kinds, or a part of them.
fn data(kind: &str) -> DataConfig {
    let synthetic = |num_train| SyntheticConfig {
        height: 3,
        width: 2,
        num_train,
        ..SyntheticConfig::default()
    };
    let plain = |num_train| DataConfig {
        kind: DataKind::Synthetic,
        synthetic: synthetic(num_train),
        ..DataConfig::default()
    };
    match kind {
        "two levels" => DataConfig {
            shuffle: Shuffle::TwoLevel,
            shuffle_shards: 1,
            shuffle_block: 7,
            ..plain(1500)
        },
        "mixture" => DataConfig {
            kind: DataKind::Mixture,
            mixture: vec![
                MixturePart { weight: 1.0, data: plain(100) },
                MixturePart { weight: 2.5, data: plain(333) },
            ],
            ..DataConfig::default()
        },
        "fraction" => DataConfig { fraction: 0.4, ..plain(800) },
        _ => plain(333),
    }
}

/// A source whose samples have labels.
struct Labeled(Arc<dyn Source>);

impl Source for Labeled {
    fn num_samples(&self) -> u64 {
        self.0.num_samples()
    }
    fn shape(&self) -> SampleShape {
        self.0.shape()
    }
    fn read(&self, id: u64, draw: Draw, out: &mut [u8]) -> Result<(), DataError> {
        self.0.read(id, draw, out)
    }
    fn label(&self, id: u64) -> Result<Option<i64>, DataError> {
        Ok(Some(label_of(id)))
    }
    fn has_labels(&self) -> bool {
        true
    }
    fn fingerprint(&self) -> String {
        self.0.fingerprint()
    }
}

fn label_of(id: u64) -> i64 {
    (id * 7 % 10) as i64
}

/// The samples of each step from `start` to `end`, over all ranks of a world.
fn steps(
    config: &DataConfig,
    (start, end): (u64, u64),
    world_size: usize,
    options: LoadOptions,
) -> Vec<(Vec<u64>, Vec<u8>)> {
    let source = source::open(config, "train").unwrap();
    let mut steps = vec![(Vec::new(), Vec::new()); (end - start) as usize];
    for rank in 0..world_size {
        let order = Order::Shuffled(source.sampler(&config.shuffling(), 11));
        let plan = train_plan(start, end, GLOBAL_BATCH, rank, world_size);
        let options = LoadOptions { labels: true, ..options };
        let source = Arc::new(Labeled(Arc::clone(&source)));
        let loader = Loader::new(source, order, plan, options).unwrap();
        for batch in loader {
            let batch: Batch = batch.unwrap();
            let (ids, pixels) = &mut steps[(batch.step - start) as usize];
            assert_eq!(batch.global, batch.step * GLOBAL_BATCH..(batch.step + 1) * GLOBAL_BATCH);
            let labels = batch.ids.iter().map(|&id| label_of(id));
            assert!(labels.eq(batch.labels.iter().copied()), "labels are those of the samples");
            ids.extend(&batch.ids);
            pixels.extend(batch.pixels());
        }
    }
    steps
}

/// Steps 0 to 12 pass the end of an epoch of 333 samples twice.
#[test]
fn every_world_sees_the_same_global_batches() {
    for kind in ["global", "two levels", "mixture", "fraction"] {
        let config = data(kind);
        let options = |prefetch, threads| LoadOptions { prefetch, threads, ..Default::default() };
        let expected = steps(&config, (0, 12), 1, options(1, 1));
        assert!(expected.iter().all(|(ids, _)| ids.len() as u64 == GLOBAL_BATCH));
        for world_size in (1..=16).chain([23, 32, 63, 64]) {
            // Any depth and any number of threads, varied with the world.
            let options = options(1 + world_size % 5, 1 + world_size % 3);
            assert!(
                steps(&config, (0, 12), world_size, options) == expected,
                "{kind}, {world_size}"
            );
        }
    }
}

/// One resume, two, and a change of the world at each.
#[test]
fn a_resume_continues_the_order_on_any_world() {
    for kind in ["global", "two levels", "mixture", "fraction"] {
        let config = data(kind);
        let whole = steps(&config, (0, 12), 3, LoadOptions::default());
        for (first, second) in [(1, 2), (4, 5), (5, 11), (6, 7)] {
            let mut joined = steps(&config, (0, first), 4, LoadOptions::default());
            joined.extend(steps(&config, (first, second), 2, LoadOptions::default()));
            joined.extend(steps(&config, (second, 12), 7, LoadOptions::default()));
            assert!(joined == whole, "{kind}, stopped at {first} and {second}");
        }
    }
}

/// Samples of 1 MiB that cost nothing to read.
struct Large;

impl Source for Large {
    fn num_samples(&self) -> u64 {
        1000
    }
    fn shape(&self) -> SampleShape {
        SampleShape::image(1, 1024, 1024)
    }
    fn read(&self, id: u64, _draw: Draw, out: &mut [u8]) -> Result<(), DataError> {
        out.fill(id as u8);
        Ok(())
    }
    fn fingerprint(&self) -> String {
        String::new()
    }
}

/// Batches of 16 MiB: at most `prefetch + 2` of them, whatever the threads and however slow the
/// reader of the batches is. The process has this test alone, as nextest runs it.
#[test]
fn memory_is_bounded_by_the_batches_read_ahead() {
    let peak_kib = || -> u64 {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    if !Path::new("/proc/self/status").exists() || std::env::var_os("NEXTEST").is_none() {
        println!("skipped: the peak of this process is not known, or not its own");
        return;
    }
    let before = peak_kib();
    for recycle in [true, false] {
        let sampler = tessera_data::Sampler::new(0, 1000);
        let options = LoadOptions { prefetch: 3, threads: 4, ..Default::default() };
        let plan = train_plan(0, 40, 16, 0, 1);
        let mut loader =
            Loader::new(Arc::new(Large), Order::Shuffled(sampler), plan, options).unwrap();
        while let Some(batch) = loader.next() {
            let batch = batch.unwrap();
            // Slow: the loader has the time to fill every place that it may fill.
            assert_ne!(batch.pixels().iter().map(|&byte| u64::from(byte)).sum::<u64>(), 1);
            if recycle {
                loader.recycle(batch);
            }
        }
    }
    let batches = (peak_kib() - before) as f64 / (16 << 10) as f64;
    assert!(batches < 5.5, "{batches} batches were in memory, 5 are allowed");
}
