//! Quantisers in a row, each on what those before it left over.
//!
//! Follows SoundStream (Zeghidour et al. 2021, <https://arxiv.org/abs/2107.03312>), algorithm 1:
//! r_1 = z, r_{i+1} = r_i - sg e_i, and the output is the sum of e_i. The gradient passes once, on
//! the sum: passing each level, as some libraries do, multiplies it by the number of levels.
//! Losses are those of all levels together, each on its r_i.
//!
//! Where levels have projections of their own (DAC, <https://arxiv.org/abs/2306.06546>), the sum
//! keeps their graph and r_{i+1} = r_i - e_i is not cut, as there.
//!
//! In a part of the steps the last quantisers are left out, the same on every rank: how many stay
//! is drawn from (seed, step). What is left out is neither counted nor updated, and its parameters
//! rest: the optimiser leaves them, their moments and their number of updates as they are.
//!
//! Residual FSQ and LFQ shrink their levels: the i-th has L^-i, or 2^-i, times the size of the
//! first, and FSQ bounds its input once, by c tanh(z / c) with c = L / (L - 1), then clamps.

use std::ops::Range;

use tch::Tensor;

use super::gradient::Passage;
use super::grouped::within;
use super::{
    FiniteScalarQuantizer, Lens, LookupFreeQuantizer, Path, Place, Quantized, Quantizer,
    QuantizerConfig, ResidualConfig, Slot, Sums, Updated, build,
};
use crate::graph::Rule;
use crate::parameters::{Declarations, Parameters};
use crate::random::{Purpose, draws};

/// Quantisers in a row.
#[derive(Debug)]
pub struct Residual {
    config: ResidualConfig,
    seed: u64,
    /// One for each level, or one for all.
    parts: Vec<Box<dyn Quantizer>>,
    /// Elements of the flat parameters that are each one's.
    ranges: Vec<Range<i64>>,
    /// How the gradient passes the sum; `None` where levels keep their own graph.
    passage: Option<Passage>,
    /// Bound of the input by channel.
    clamp_d: Option<Tensor>,
}

impl Residual {
    /// As many quantisers as the configuration says.
    pub fn new(config: &ResidualConfig, slot: &Slot, to: &mut Declarations) -> Self {
        let num_parts = if config.shared_codebook { 1 } else { config.num_quantizers };
        let (mut clamp_d, mut ranges) = (None, Vec::new());
        let parts = (0..num_parts)
            .map(|level| {
                let first = to.len();
                let own = slot.child(&format!("layers.{level}"), slot.level + level as u64);
                let part: Box<dyn Quantizer> = match &*config.quantizer {
                    QuantizerConfig::FiniteScalar(part) => {
                        let part = FiniteScalarQuantizer::of_residual(part, level, &own);
                        clamp_d.get_or_insert_with(|| part.reach());
                        Box::new(part)
                    }
                    QuantizerConfig::LookupFree(part) => {
                        Box::new(LookupFreeQuantizer::of_residual(part, level, &own))
                    }
                    _ => build(&config.part(level as usize), &own, to),
                };
                ranges.push(first..to.len());
                part
            })
            .collect();
        let passage = match &*config.quantizer {
            QuantizerConfig::Vector(part) => (part.latent_dim == 0).then_some(part.gradient),
            QuantizerConfig::SimVq(part) => (part.latent_dim == 0).then_some(part.gradient),
            _ => Some(Passage::StraightThrough),
        };
        Self { config: config.clone(), seed: slot.seed, parts, ranges, passage, clamp_d }
    }

    fn num_levels(&self) -> usize {
        self.config.num_quantizers as usize
    }

    fn is_shared(&self) -> bool {
        self.parts.len() < self.num_levels()
    }

    fn part(&self, level: usize) -> &dyn Quantizer {
        &*self.parts[level % self.parts.len()]
    }

    /// Levels that are in use in a step.
    fn num_active(&self, step: u64) -> usize {
        let ResidualConfig { dropout, dropout_keep, num_quantizers, .. } = self.config;
        let mut generator = draws(self.seed, Purpose::Dropout, step, 0);
        if generator.unit() >= dropout {
            return self.num_levels();
        }
        let choices = (num_quantizers - dropout_keep + 1) as u64;
        dropout_keep as usize + generator.below(choices) as usize
    }

    /// What level `level` sums, in the buffers of all: shared statistics are the same for all.
    fn sums_of(&self, level: usize, sums: &Sums) -> Sums {
        let mut start = Lens::default();
        for before in 0..level {
            let len = self.part(before).lens();
            start = start.plus(len);
            if self.is_shared() {
                start.statistics = 0;
            }
        }
        sums.part(start, self.part(level).lens())
    }

    fn bounded(&self, latents_nd: &Tensor) -> Tensor {
        match &self.clamp_d {
            Some(clamp_d) => (latents_nd / clamp_d).tanh() * clamp_d,
            None => latents_nd.shallow_clone(),
        }
    }
}

impl Quantizer for Residual {
    fn dim(&self) -> i64 {
        self.parts[0].dim()
    }

    fn num_codes(&self) -> Vec<i64> {
        (0..self.num_levels()).flat_map(|level| self.part(level).num_codes()).collect()
    }

    fn lens(&self) -> Lens {
        let all = (0..self.num_levels())
            .map(|level| self.part(level).lens())
            .fold(Lens::default(), Lens::plus);
        match self.is_shared() {
            true => Lens { statistics: self.parts[0].lens().statistics, ..all },
            false => all,
        }
    }

    fn tokenize(&self, parameters: &Parameters, latents_nd: &Tensor) -> Tensor {
        let mut residual_nd = self.bounded(&latents_nd.detach()).copy();
        let mut indices = Vec::new();
        for level in 0..self.num_levels() {
            let part = self.part(level);
            let indices_nl = part.tokenize(parameters, &residual_nd);
            residual_nd -= part.look_up(parameters, &indices_nl);
            indices.push(indices_nl);
        }
        Tensor::cat(&indices, 1)
    }

    fn look_up(&self, parameters: &Parameters, indices_nl: &Tensor) -> Tensor {
        let outputs = (0..self.num_levels()).map(|level| {
            let own_nl = indices_nl.narrow(1, level as i64, 1);
            let output_nd = self.part(level).look_up(parameters, &own_nl.clamp_min(0));
            let is_left_out_n1 = own_nl.lt(0);
            output_nd.masked_fill(&is_left_out_n1, 0.0)
        });
        outputs.reduce(|sum, output| sum + output).expect("a level at least")
    }

    fn rule(&self, parameters: &Parameters) -> Result<Rule, String> {
        let levels = (0..self.num_levels()).map(|level| self.part(level).rule(parameters));
        let clamp_d = self.clamp_d.as_ref().map(Tensor::shallow_clone);
        Ok(Rule::Residual { levels: levels.collect::<Result<_, _>>()?, clamp_d })
    }

    fn num_residual_levels(&self) -> usize {
        self.num_levels()
    }

    fn leave_out(&self, indices_nl: &Tensor, num_levels: usize) -> Tensor {
        assert!((1..=self.num_levels()).contains(&num_levels), "levels that there are");
        let kept_nl = indices_nl.copy();
        let (first, all) = (num_levels as i64, self.num_levels() as i64);
        let _ = kept_nl.narrow(1, first, all - first).fill_(-1);
        kept_nl
    }

    fn forward(
        &self,
        parameters: &Parameters,
        latents_nd: &Tensor,
        place: &Place,
        sums: &Sums,
    ) -> Quantized<'_> {
        let latents_nd = self.bounded(latents_nd);
        let mut residual_nd = latents_nd.shallow_clone();
        let mut output_nd = latents_nd.detach().zeros_like();
        let mut chain_nd = output_nd.copy();
        let (mut indices, mut losses, mut late) = (Vec::<Tensor>::new(), vec![], vec![]);
        let (num_active, mut at) = (self.num_active(place.step), 0);
        let offering = place.drawn_level(self.seed, num_active);
        for level in 0..self.num_levels() {
            if level >= num_active {
                indices.push(indices[0].full_like(-1));
                continue;
            }
            let place = Place {
                level: place.level + level as u64,
                offers: place.offers && (level == offering || !self.is_shared()),
                ..place.clone()
            };
            let own_sums = self.sums_of(level, sums);
            let part = self.part(level).forward(parameters, &residual_nd, &place, &own_sums);
            residual_nd = match self.passage {
                Some(_) => residual_nd - &part.output_nd,
                None => {
                    let kept_nd = part.output_with_path();
                    chain_nd += &kept_nd;
                    residual_nd - kept_nd
                }
            };
            output_nd += &part.output_nd;
            indices.push(part.indices_nl);
            losses.push(part.loss);
            let len = own_sums.distribution.size()[0];
            late.extend(part.late.into_iter().map(|loss| within(at, len, 1.0, loss)));
            at += len;
        }
        let path = match self.passage {
            Some(passage) => passage.path(&latents_nd, &output_nd),
            None => Path::Graph(chain_nd),
        };
        let (indices_nl, loss) = (Tensor::cat(&indices, 1), losses.into_iter().sum());
        Quantized { output_nd, path, indices_nl, loss, late }
    }

    fn update(&mut self, parameters: &Parameters, sums: &Sums, place: &Place) -> Updated {
        let num_active = self.num_active(place.step);
        if self.is_shared() {
            let own = sums.of_shared(self.parts[0].lens(), self.num_levels() as i64);
            return self.parts[0].update(parameters, &own, place);
        }
        let mut updated = Updated::default();
        for level in 0..num_active {
            let own = self.sums_of(level, sums);
            updated.add(self.parts[level].update(parameters, &own, place));
        }
        updated
    }

    fn at_rest(&self, step: u64) -> Vec<Range<i64>> {
        if self.is_shared() {
            return Vec::new();
        }
        let left_out = &self.ranges[self.num_active(step)..];
        left_out.iter().filter(|range| !range.is_empty()).cloned().collect()
    }

    fn num_candidates(&self) -> usize {
        self.parts.iter().map(|part| part.num_candidates()).max().unwrap_or(0)
    }

    fn initialize(&mut self, parameters: &Parameters, candidates_cd: &Tensor, num_tokens: usize) {
        let mut residual_cd = self.bounded(&candidates_cd.detach()).copy();
        for part in &mut self.parts {
            part.initialize(parameters, &residual_cd, num_tokens);
            let indices_cl = part.tokenize(parameters, &residual_cd);
            residual_cd -= part.look_up(parameters, &indices_cl);
        }
    }

    fn state(&self) -> Vec<(String, Tensor)> {
        self.parts.iter().flat_map(|part| part.state()).collect()
    }
}
