//! Codes that were counted, and what a model makes of a code.

use tch::{Kind, Tensor};
use tessera_model::OpenModel;
use tessera_nn::{Quantizer, from_vectors, to_device};

use crate::tile;

/// Positions whose vectors are averaged for the mean context, about.
const IN_MEAN: u64 = 1 << 14;

/// The codes of some samples.
pub(super) struct Counted {
    pub(super) num_samples: u64,
    /// In the order of a token set: of each quantiser, the finest first, its levels in a row.
    pub(super) levels: Vec<CountedLevel>,
}

/// The codes of a level.
pub(super) struct CountedLevel {
    /// Which quantiser makes them, and which of its levels they are.
    quantizer: usize,
    column: usize,
    /// Axes of a sample's codes.
    pub(super) axes: Vec<usize>,
    /// How often each code was taken.
    pub(super) counts: Vec<u64>,
    /// `[samples, positions]`.
    codes: Vec<u32>,
}

impl Counted {
    /// Of codes one sample after another, of each level after level.
    pub(super) fn of(model: &OpenModel, num_samples: u64, all: Vec<u32>) -> Self {
        let mut levels = Vec::new();
        for (quantizer, level) in model.file.autoencoder().levels.iter().enumerate() {
            for (column, &num_codes) in level.num_codes.iter().enumerate() {
                let axes = level.axes.iter().map(|&size| size as usize).collect();
                let counts = vec![0; num_codes as usize];
                levels.push(CountedLevel { quantizer, column, axes, counts, codes: Vec::new() });
            }
        }
        let mut rest = all.as_slice();
        for _ in 0..num_samples {
            for level in &mut levels {
                let (codes, after) = rest.split_at(level.num_positions());
                codes.iter().for_each(|&code| level.counts[code as usize] += 1);
                level.codes.extend_from_slice(codes);
                rest = after;
            }
        }
        Self { num_samples, levels }
    }
}

impl CountedLevel {
    fn num_positions(&self) -> usize {
        self.axes.iter().product()
    }

    /// The codes of a sample, in rows.
    pub(super) fn of_sample(&self, id: u64) -> &[u32] {
        let num = self.num_positions();
        &self.codes[id as usize * num..][..num]
    }

    /// Where the position of this number is.
    pub(super) fn place(&self, mut number: usize) -> Vec<usize> {
        let mut place = vec![0; self.axes.len()];
        for (at, size) in place.iter_mut().zip(&self.axes).rev() {
            (*at, number) = (number % size, number / size);
        }
        place
    }

    /// The codes that were taken most, at most so many, and how often one of them (row) comes right before another (column) along any
    /// axis.
    pub(super) fn neighbours(&self, most: usize) -> (Vec<usize>, Vec<u32>) {
        let mut taken: Vec<usize> =
            (0..self.counts.len()).filter(|&code| self.counts[code] > 0).collect();
        taken.sort_by_key(|&code| (std::cmp::Reverse(self.counts[code]), code));
        taken.truncate(most);
        let mut places = vec![None; self.counts.len()];
        taken.iter().enumerate().for_each(|(place, &code)| places[code] = Some(place));
        let mut pairs = vec![0u32; taken.len() * taken.len()];
        for sample in self.codes.chunks_exact(self.num_positions()) {
            let mut step = 1;
            for &size in self.axes.iter().rev() {
                for (at, &code) in sample.iter().enumerate() {
                    if at / step % size + 1 == size {
                        continue;
                    }
                    let pair = (places[code as usize], places[sample[at + step] as usize]);
                    if let (Some(before), Some(after)) = pair {
                        pairs[before * taken.len() + after] += 1;
                    }
                }
                step *= size;
            }
        }
        (taken, pairs)
    }
}

/// A model's codes as vectors, and decoded.
pub(super) struct Book<'a> {
    model: &'a OpenModel,
    counted: &'a Counted,
    /// Of each quantiser the mean of its vectors `[D]` over what was counted.
    means: Vec<Tensor>,
}

impl<'a> Book<'a> {
    pub(super) fn new(model: &'a OpenModel, counted: &'a Counted) -> Self {
        let mut book = Self { model, counted, means: Vec::new() };
        book.means = (0..model.vqvae.quantizers.len()).map(|number| book.mean(number)).collect();
        book
    }

    fn quantizer(&self, number: usize) -> &dyn Quantizer {
        &*self.model.vqvae.quantizers[number]
    }

    fn look_up(&self, number: usize, indices_nl: &Tensor) -> Tensor {
        let _no_grad = tch::no_grad_guard();
        let on_device = to_device(indices_nl.shallow_clone(), self.model.vqvae.device());
        self.quantizer(number).look_up(&self.model.vqvae.parameters, &on_device)
    }

    /// The levels of a quantiser.
    fn levels(&self, number: usize) -> impl Iterator<Item = &CountedLevel> {
        self.counted.levels.iter().filter(move |level| level.quantizer == number)
    }

    /// The mean vector `[D]` of the first codes that were counted.
    fn mean(&self, number: usize) -> Tensor {
        let columns = self.levels(number).map(|level| {
            let num = level.codes.len().min(IN_MEAN as usize);
            let codes: Vec<i64> = level.codes[..num].iter().map(|&code| i64::from(code)).collect();
            Tensor::from_slice(&codes)
        });
        let columns: Vec<Tensor> = columns.collect();
        let vectors_nd = self.look_up(number, &Tensor::stack(&columns, 1));
        vectors_nd.mean_dim([0i64].as_slice(), false, vectors_nd.kind())
    }

    /// Whether the vectors of a quantiser's levels are added up.
    fn is_residual(&self, number: usize) -> bool {
        let num = self.levels(number).count();
        num > 1 && self.quantizer(number).num_residual_levels() == num
    }

    /// The vectors `[K, D]` of a level: of one that is added to others what it adds, of one that stands beside others, such as a group,
    /// with the most frequent codes of those.
    pub(super) fn vectors(&self, level: usize) -> Tensor {
        let CountedLevel { quantizer: number, column, counts, .. } = &self.counted.levels[level];
        let num = counts.len() as i64;
        let most = |level: &CountedLevel| {
            let codes = 0..level.counts.len();
            codes.max_by_key(|&code| (level.counts[code], std::cmp::Reverse(code))).unwrap_or(0)
        };
        let columns = self.levels(*number).map(|other| match other.column == *column {
            true => Tensor::arange(num, (Kind::Int64, tch::Device::Cpu)),
            false => Tensor::full([num], most(other) as i64, (Kind::Int64, tch::Device::Cpu)),
        });
        let indices_kl = Tensor::stack(&columns.collect::<Vec<_>>(), 1);
        if !self.is_residual(*number) {
            return self.look_up(*number, &indices_kl).to_device(tch::Device::Cpu);
        }
        let up_to = |levels: usize| {
            self.look_up(*number, &self.quantizer(*number).leave_out(&indices_kl, levels))
        };
        let vectors = match *column {
            0 => up_to(1),
            column => up_to(column + 1) - up_to(column),
        };
        vectors.to_device(tch::Device::Cpu)
    }

    /// Raw samples, up to a tile at a time, of one code after another: all of whose positions have it; or whose position in the middle has
    /// it, and the others the mean. Coarser and finer codes are the mean.
    pub(super) fn decoded(&self, level: usize, in_context: bool) -> impl Iterator<Item = Tensor> {
        let vqvae = &self.model.vqvae;
        let CountedLevel { quantizer: number, counts, axes, .. } = &self.counted.levels[level];
        let vectors_kd = to_device(self.vectors(level), vqvae.device());
        let own = match self.is_residual(*number) && in_context {
            // In the place of what the level adds in the mean.
            true => {
                let shares: Vec<f64> = counts.iter().map(|&num| num as f64).collect();
                let shares = Tensor::from_slice(&shares).to_kind(vectors_kd.kind());
                let shares =
                    to_device(shares / (counts.iter().sum::<u64>().max(1) as f64), vqvae.device());
                let usual = shares.unsqueeze(0).matmul(&vectors_kd).squeeze_dim(0);
                &vectors_kd + (&self.means[*number] - usual)
            }
            false => vectors_kd,
        };
        let (size, all_axes) = (tile::size(&vqvae.signal), vqvae.latent_axes());
        let middle: usize = axes.iter().fold(0, |at, size| at * size + size / 2);
        let number = *number;
        let num = counts.len();
        (0..num).step_by(size).map(move |first| {
            let _no_grad = tch::no_grad_guard();
            let there = (num - first).min(size) as i64;
            let of_tile = tile::padded(&own.narrow(0, first as i64, there), size);
            let codes: Vec<Tensor> = all_axes
                .iter()
                .enumerate()
                .map(|(at, axes)| {
                    let (mean, dim) = (&self.means[at], self.means[at].size()[0]);
                    let positions: i64 = axes.iter().product();
                    let shape = [size as i64, positions, dim];
                    let vectors = match (at == number, in_context) {
                        (false, _) => mean.view([1, 1, dim]).expand(shape, false).contiguous(),
                        (true, false) => of_tile.unsqueeze(1).expand(shape, false).contiguous(),
                        (true, true) => {
                            let vectors = mean.view([1, 1, dim]).expand(shape, false).contiguous();
                            vectors.select(1, middle as i64).copy_(&of_tile);
                            vectors
                        }
                    };
                    let like = Tensor::zeros([1], (vectors.kind(), vectors.device()));
                    let like = like.expand([&[size as i64, dim], axes.as_slice()].concat(), false);
                    from_vectors(&vectors.view([-1, dim]), &like)
                })
                .collect();
            let range = vqvae.signal.range().expect("a decoder makes no tokens");
            let samples = vqvae.decode(&codes).clamp(*range.start(), *range.end());
            vqvae.signal.to_raw(&samples.narrow(0, 0, there)).to_device(tch::Device::Cpu)
        })
    }
}
