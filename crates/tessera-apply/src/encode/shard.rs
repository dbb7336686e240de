//! One shard: its samples tile by tile through the encoder.

use std::time::{Duration, Instant};

use tch::{Device, Kind, Tensor};
use tessera_data::Source;
use tessera_data::tokens::{PlannedShard, TokenShard};
use tessera_nn::to_device;

use super::Work;
use super::reading::Tiles;
use crate::error::ApplyError;
use crate::tile;

/// Time between two lines of progress.
const BETWEEN_LINES: Duration = Duration::from_secs(5);

impl Work<'_> {
    /// The codes of a shard.
    pub(super) fn encode(
        &self,
        tiles: &mut Tiles,
        source: &dyn Source,
        shard: &PlannedShard,
        progress: &mut Progress<'_>,
    ) -> Result<TokenShard, ApplyError> {
        let num_levels = self.prepared.plan.head().levels.len();
        let mut content =
            TokenShard { codes: vec![Vec::new(); num_levels], ..TokenShard::default() };
        let size = tile::size(&self.model.signal()) as u64;
        let mut start = shard.samples.start;
        while start < shard.samples.end {
            let samples = start..shard.samples.end.min(start + size);
            start = samples.end;
            let tile = tiles.next(samples.clone(), self.watch.activity)?;
            let by_variant = self.variants(&tile.raw, tile.first)?;
            for (slot, id) in samples.clone().enumerate() {
                if !tile.is_there[slot] {
                    content.skipped.push(source.name(id));
                    continue;
                }
                content.ids.push(id);
                content.labels.push(source.label(id)?);
                for (level, codes) in content.codes.iter_mut().enumerate() {
                    for variant in &by_variant {
                        let Level { codes: all, positions } = &variant[level];
                        codes.extend_from_slice(&all[slot * positions..][..*positions]);
                    }
                }
            }
            progress.add(samples.end - samples.start);
        }
        Ok(content)
    }

    /// The codes of a whole tile in each variant, at each level of the token set.
    fn variants(&self, raw: &Tensor, first: u64) -> Result<Vec<Vec<Level>>, ApplyError> {
        let vqvae = &self.model.vqvae;
        let _no_grad = tch::no_grad_guard();
        let raw = to_device(raw.shallow_clone(), vqvae.device());
        let samples_nc = vqvae.signal.from_raw(&raw, vqvae.kind());
        let mut all = Vec::new();
        for samples_nc in self.options.augment.apply(&samples_nc, super::hop(vqvae)) {
            let codes = tile::encode(vqvae, &samples_nc);
            let codes = codes.ok_or(ApplyError::NotFinite { sample: first })?;
            let mut levels = Vec::new();
            for indices_npl in codes {
                for column in 0..indices_npl.size()[2] {
                    levels.push(Level::of(&indices_npl.select(2, column))?);
                }
            }
            all.push(levels);
            self.watch.activity.part_done();
        }
        Ok(all)
    }
}

/// Codes of a tile at one level of a token set.
struct Level {
    codes: Vec<u32>,
    /// Of a sample.
    positions: usize,
}

impl Level {
    /// Those in `[tile, positions]`.
    fn of(indices_np: &Tensor) -> Result<Self, ApplyError> {
        let positions = indices_np.size()[1] as usize;
        let indices = indices_np.to_device(Device::Cpu).to_kind(Kind::Int64).reshape([-1]);
        let indices = Vec::<i64>::try_from(&indices)?;
        let codes = indices.into_iter().map(|index| index as u32).collect();
        Ok(Self { codes, positions })
    }
}

/// How far a rank is, told now and then.
pub(super) struct Progress<'a> {
    num_done: u64,
    total: u64,
    is_told: bool,
    say: &'a dyn Fn(String),
    start: Instant,
    told: Instant,
}

impl<'a> Progress<'a> {
    pub(super) fn new(total: u64, is_told: bool, say: &'a dyn Fn(String)) -> Self {
        let now = Instant::now();
        Self { num_done: 0, total, is_told, say, start: now, told: now }
    }

    pub(super) fn num_done(&self) -> u64 {
        self.num_done
    }

    fn add(&mut self, num: u64) {
        self.num_done += num;
        if self.is_told && self.told.elapsed() > BETWEEN_LINES {
            self.told = Instant::now();
            let rate = self.num_done as f64 / self.start.elapsed().as_secs_f64();
            let Self { num_done, total, .. } = self;
            (self.say)(format!(
                "{num_done} of rank 0's {total} samples are encoded, {rate:.0} a second"
            ));
        }
    }
}
