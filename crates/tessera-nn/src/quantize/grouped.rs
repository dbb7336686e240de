//! Quantisers side by side, each on its channels: a product codebook; with one shared codebook,
//! heads.
//!
//! Product quantisation follows Jégou et al. 2011 (<https://doi.org/10.1109/TPAMI.2010.57>). The
//! losses are means over groups, so that they are those of the whole vector.

use std::ops::Range;

use tch::Tensor;

use super::{GroupedConfig, Lens, Path, Place, Quantized, Quantizer, Slot, Sums, Updated, build};
use crate::graph::Rule;
use crate::parameters::{Declarations, Parameters};

/// Quantisers side by side.
#[derive(Debug)]
pub struct Grouped {
    num_groups: i64,
    seed: u64,
    /// One for each group, or one for all.
    parts: Vec<Box<dyn Quantizer>>,
}

impl Grouped {
    /// As many quantisers as the configuration says.
    pub fn new(config: &GroupedConfig, slot: &Slot, to: &mut Declarations) -> Self {
        let num_parts = if config.shared_codebook { 1 } else { config.num_groups };
        let mut parts: Vec<Box<dyn Quantizer>> = Vec::new();
        let mut level = slot.level;
        for group in 0..num_parts {
            let slot = slot.child(&format!("groups.{group}"), level);
            parts.push(build(&config.quantizer, &slot, to));
            level += parts[0].num_codes().len() as u64;
        }
        Self { num_groups: config.num_groups, seed: slot.seed, parts }
    }

    fn part(&self, group: i64) -> &dyn Quantizer {
        &*self.parts[group as usize % self.parts.len()]
    }

    fn is_shared(&self) -> bool {
        self.parts.len() == 1
    }

    /// Levels of a group.
    fn num_levels(&self) -> i64 {
        self.parts[0].num_codes().len() as i64
    }

    /// What group `group` sums, in the buffers of all: shared statistics are the same for all.
    fn sums_of(&self, group: i64, sums: &Sums) -> Sums {
        let len = self.parts[0].lens();
        let own = if self.is_shared() { 0 } else { group };
        let start = Lens {
            counts: len.counts * group,
            statistics: len.statistics * own,
            distribution: len.distribution * group,
        };
        sums.part(start, len)
    }

    /// What each group makes of its columns of the indices, side by side.
    fn of_each_group(
        &self,
        indices_nl: &Tensor,
        of: impl Fn(&dyn Quantizer, &Tensor) -> Tensor,
    ) -> Tensor {
        let levels = self.num_levels();
        let all: Vec<Tensor> = (0..self.num_groups)
            .map(|group| of(self.part(group), &indices_nl.narrow(1, group * levels, levels)))
            .collect();
        Tensor::cat(&all, 1)
    }

    fn channels(&self, group: i64, latents_nd: &Tensor) -> Tensor {
        let dim = self.parts[0].dim();
        latents_nd.narrow(1, group * dim, dim).contiguous()
    }
}

impl Quantizer for Grouped {
    fn dim(&self) -> i64 {
        self.num_groups * self.parts[0].dim()
    }

    fn num_codes(&self) -> Vec<i64> {
        self.parts[0].num_codes().repeat(self.num_groups as usize)
    }

    fn lens(&self) -> Lens {
        let Lens { counts, statistics, distribution } = self.parts[0].lens();
        Lens {
            counts: counts * self.num_groups,
            statistics: statistics * self.parts.len() as i64,
            distribution: distribution * self.num_groups,
        }
    }

    fn tokenize(&self, parameters: &Parameters, latents_nd: &Tensor) -> Tensor {
        let indices: Vec<Tensor> = (0..self.num_groups)
            .map(|group| self.part(group).tokenize(parameters, &self.channels(group, latents_nd)))
            .collect();
        Tensor::cat(&indices, 1)
    }

    fn look_up(&self, parameters: &Parameters, indices_nl: &Tensor) -> Tensor {
        self.of_each_group(indices_nl, |part, own_nl| part.look_up(parameters, own_nl))
    }

    fn rule(&self, parameters: &Parameters) -> Result<Rule, String> {
        let dim = self.parts[0].dim();
        let group = |group| Ok((self.part(group).rule(parameters)?, dim));
        Ok(Rule::Grouped((0..self.num_groups).map(group).collect::<Result<_, String>>()?))
    }

    fn num_residual_levels(&self) -> usize {
        self.parts[0].num_residual_levels()
    }

    /// Of each group.
    fn leave_out(&self, indices_nl: &Tensor, num_levels: usize) -> Tensor {
        self.of_each_group(indices_nl, |part, own_nl| part.leave_out(own_nl, num_levels))
    }

    fn forward(
        &self,
        parameters: &Parameters,
        latents_nd: &Tensor,
        place: &Place,
        sums: &Sums,
    ) -> Quantized<'_> {
        let (mut outputs, mut paths, mut indices) = (vec![], vec![], vec![]);
        let (mut losses, mut late) = (vec![], vec![]);
        let (part_len, weight) = (self.parts[0].lens().distribution, 1.0 / self.num_groups as f64);
        let offering = place.drawn_level(self.seed, self.num_groups as usize) as i64;
        for group in 0..self.num_groups {
            let place = Place {
                level: place.level + (group * self.num_levels()) as u64,
                offers: place.offers && (group == offering || !self.is_shared()),
                ..place.clone()
            };
            let own_nd = self.channels(group, latents_nd);
            let own_sums = self.sums_of(group, sums);
            let quantized = self.part(group).forward(parameters, &own_nd, &place, &own_sums);
            outputs.push(quantized.output_nd);
            paths.push(quantized.path.graph());
            indices.push(quantized.indices_nl);
            losses.push(quantized.loss * weight);
            for loss in quantized.late {
                late.push(within(group * part_len, part_len, weight, loss));
            }
        }
        Quantized {
            output_nd: Tensor::cat(&outputs, 1),
            path: Path::Graph(Tensor::cat(&paths, 1)),
            indices_nl: Tensor::cat(&indices, 1),
            loss: losses.into_iter().sum(),
            late,
        }
    }

    fn update(&mut self, parameters: &Parameters, sums: &Sums, place: &Place) -> Updated {
        if self.is_shared() {
            let own = sums.of_shared(self.parts[0].lens(), self.num_groups);
            return self.parts[0].update(parameters, &own, place);
        }
        let mut updated = Updated::default();
        for group in 0..self.num_groups {
            let own = self.sums_of(group, sums);
            updated.add(self.parts[group as usize].update(parameters, &own, place));
        }
        updated
    }

    fn at_rest(&self, step: u64) -> Vec<Range<i64>> {
        self.parts.iter().flat_map(|part| part.at_rest(step)).collect()
    }

    fn num_candidates(&self) -> usize {
        self.parts.iter().map(|part| part.num_candidates()).max().unwrap_or(0)
    }

    fn initialize(&mut self, parameters: &Parameters, candidates_cd: &Tensor, num_tokens: usize) {
        if self.is_shared() {
            // The heads' vectors one below the other: what the one codebook will see.
            let rows_cd = candidates_cd.contiguous().view([-1, self.parts[0].dim()]);
            let num_tokens = num_tokens * self.num_groups as usize;
            return self.parts[0].initialize(parameters, &rows_cd, num_tokens);
        }
        for group in 0..self.num_groups {
            let own_cd = self.channels(group, candidates_cd);
            self.parts[group as usize].initialize(parameters, &own_cd, num_tokens);
        }
    }

    fn state(&self) -> Vec<(String, Tensor)> {
        self.parts.iter().flat_map(|part| part.state()).collect()
    }
}

/// A late loss that reads its part of the distribution and counts with a weight.
pub(super) fn within<'a>(
    start: i64,
    len: i64,
    weight: f64,
    loss: super::LateLoss<'a>,
) -> super::LateLoss<'a> {
    Box::new(move |distribution| loss(&distribution.narrow(0, start, len)) * weight)
}
