//! A linear layer in front of a quantiser and one behind it.
//!
//! Codes of few channels are all in use where those of many are not: the factorised codes of
//! Yu et al. 2021 (<https://arxiv.org/abs/2110.04627>), section 3.2, and of DAC
//! (<https://arxiv.org/abs/2306.06546>).

use std::ops::Range;

use tch::Tensor;

use super::{Lens, Path, Place, Quantized, Quantizer, QuantizerConfig, Slot, Sums, Updated, bare};
use crate::chain::Block;
use crate::graph::Rule;
use crate::layers::{Linear, LinearConfig, Scope};
use crate::parameters::{Declarations, Parameters, Stage};

/// A quantiser of latents that have more, or fewer, channels than it.
#[derive(Debug)]
pub struct Projected {
    inner: Box<dyn Quantizer>,
    latent_dim: i64,
    into: Linear,
    out: Linear,
}

impl Projected {
    /// The quantiser of `config` between two layers, for latents of `latent_dim` channels.
    pub fn new(
        latent_dim: i64,
        config: &QuantizerConfig,
        slot: &Slot,
        to: &mut Declarations,
    ) -> Self {
        let inner = bare(config, slot, to);
        let dim = inner.dim();
        let scope = Scope::new(Stage::Quantizer, &slot.name);
        let [project_in, project_out] = ["project_in", "project_out"].map(|name| scope.child(name));
        Self {
            latent_dim,
            into: Linear::new(to, &project_in, LinearConfig::new(latent_dim, dim)),
            out: Linear::new(to, &project_out, LinearConfig::new(dim, latent_dim)),
            inner,
        }
    }
}

impl Quantizer for Projected {
    fn dim(&self) -> i64 {
        self.latent_dim
    }

    fn num_codes(&self) -> Vec<i64> {
        self.inner.num_codes()
    }

    fn lens(&self) -> Lens {
        self.inner.lens()
    }

    fn tokenize(&self, parameters: &Parameters, latents_nd: &Tensor) -> Tensor {
        self.inner.tokenize(parameters, &self.into.forward(parameters, latents_nd).detach())
    }

    fn look_up(&self, parameters: &Parameters, indices_nl: &Tensor) -> Tensor {
        self.out.forward(parameters, &self.inner.look_up(parameters, indices_nl)).detach()
    }

    fn rule(&self, parameters: &Parameters) -> Result<Rule, String> {
        let [into, out] = [&self.into, &self.out].map(|layer| layer.tensors(parameters));
        Ok(Rule::Projected { into, out, inner: Box::new(self.inner.rule(parameters)?) })
    }

    fn num_residual_levels(&self) -> usize {
        self.inner.num_residual_levels()
    }

    fn leave_out(&self, indices_nl: &Tensor, num_levels: usize) -> Tensor {
        self.inner.leave_out(indices_nl, num_levels)
    }

    fn forward(
        &self,
        parameters: &Parameters,
        latents_nd: &Tensor,
        place: &Place,
        sums: &Sums,
    ) -> Quantized<'_> {
        let inner_nd = self.into.forward(parameters, latents_nd);
        let quantized = self.inner.forward(parameters, &inner_nd, place, sums);
        let path_nd = self.out.forward(parameters, &quantized.output_with_path());
        Quantized { output_nd: path_nd.detach(), path: Path::Graph(path_nd), ..quantized }
    }

    fn update(&mut self, parameters: &Parameters, sums: &Sums, place: &Place) -> Updated {
        self.inner.update(parameters, sums, place)
    }

    fn at_rest(&self, step: u64) -> Vec<Range<i64>> {
        self.inner.at_rest(step)
    }

    fn num_candidates(&self) -> usize {
        self.inner.num_candidates()
    }

    fn initialize(&mut self, parameters: &Parameters, candidates_cd: &Tensor, num_tokens: usize) {
        let inner_cd = self.into.forward(parameters, candidates_cd).detach();
        self.inner.initialize(parameters, &inner_cd, num_tokens);
    }

    fn state(&self) -> Vec<(String, Tensor)> {
        self.inner.state()
    }
}
