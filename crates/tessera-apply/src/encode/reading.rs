//! Samples of a split in whole tiles, whatever batches they are read in.

use std::ops::Range;
use std::sync::Arc;

use tch::Tensor;
use tessera_control::Activity;
use tessera_data::{Batch, BatchPlan, LoadOptions, Loader, Order, Source};
use tessera_model::raw_samples;

use crate::error::ApplyError;

/// The samples of a tile, as they were read.
#[derive(Debug)]
pub(crate) struct Tile {
    /// Number of its first sample.
    pub(crate) first: u64,
    /// Whether each sample is there: not those that cannot be read, nor what is beyond the shard's end.
    pub(crate) is_there: Vec<bool>,
    /// The samples `[tile, ..]` as they lie in memory; zeros where none is there.
    pub(crate) raw: Tensor,
}

/// Reads the tiles of shards, one after another.
pub(crate) struct Tiles {
    loader: Loader,
    source: Arc<dyn Source>,
    /// The batch that is being taken apart, and how many of its samples and positions are taken.
    batch: Option<(Batch, usize)>,
    /// Samples of a tile.
    size: usize,
}

impl Tiles {
    /// Begins to read these ranges of samples ahead, in batches of at most `batch` samples, for tiles of `size`.
    pub(crate) fn new(
        source: Arc<dyn Source>,
        ranges: Vec<Range<u64>>,
        (batch, size): (u64, usize),
        load: LoadOptions,
    ) -> Result<Self, ApplyError> {
        let plan = ranges.into_iter().flat_map(move |range| {
            let starts = range.clone().step_by(batch as usize);
            starts.map(move |start| start..range.end.min(start + batch))
        });
        let plan = plan.enumerate().map(|(step, positions)| BatchPlan {
            step: step as u64,
            global: positions.clone(),
            positions,
        });
        let loader = Loader::new(Arc::clone(&source), Order::Sequential, plan, load)?;
        Ok(Self { loader, source, batch: None, size })
    }

    /// The tile of these samples, of which there are at most as many as it has; they follow those of the tile before.
    pub(crate) fn next(
        &mut self,
        samples: Range<u64>,
        activity: &Activity,
    ) -> Result<Tile, ApplyError> {
        let shape = self.source.shape();
        let sample_bytes = shape.num_bytes();
        let mut bytes = vec![0; self.size * sample_bytes];
        let mut is_there = vec![false; self.size];
        let mut next = samples.start;
        while next < samples.end {
            let (batch, taken) = match self.batch.take() {
                Some((batch, taken)) if batch.positions.end > next => (batch, taken),
                done => {
                    if let Some((batch, _)) = done {
                        self.loader.recycle(batch);
                    }
                    let read =
                        self.loader.next().expect("the plan has every sample of every shard");
                    activity.part_done();
                    (read?, 0)
                }
            };
            let end = samples.end.min(batch.positions.end);
            let ids = batch.ids[taken..].iter().take_while(|id| **id < end);
            let num = ids.clone().count();
            for (at, id) in (taken..).zip(ids) {
                let slot = (id - samples.start) as usize;
                is_there[slot] = true;
                bytes[slot * sample_bytes..][..sample_bytes]
                    .copy_from_slice(&batch.pixels()[at * sample_bytes..][..sample_bytes]);
            }
            self.batch = Some((batch, taken + num));
            next = end;
        }
        Ok(Tile { first: samples.start, is_there, raw: raw_samples(&bytes, shape) })
    }
}
