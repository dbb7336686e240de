//! A frozen codebook behind a linear layer that is learned: all codes move together.
//!
//! Follows Zhu et al. 2024, SimVQ (<https://arxiv.org/abs/2411.02038>): codes are C W with C
//! drawn once from N(0, 1/D), and only W, `[D, D]`, is learned, from |sg z - e|^2 plus
//! `commitment` times |z - sg e|^2. So no code is left behind, and ranks sum D x D numbers
//! however many codes there are.

use tch::Tensor;

use super::nearest::nearest_code;
use super::{Lens, Place, Quantized, Quantizer, SimVqConfig, Slot, Sums};
use crate::graph::Rule;
use crate::parameters::{Declarations, Init, ParameterId, Parameters, Role, Stage};
use crate::random::{Purpose, draws};

/// Vector quantiser whose codebook is a linear image of a frozen one.
#[derive(Debug)]
pub struct SimVq {
    config: SimVqConfig,
    name: String,
    frozen_kd: Tensor,
    /// W', `[D, D]`: the layout of a linear layer.
    weight: ParameterId,
}

impl SimVq {
    /// A codebook whose draws hang on the slot; the layer starts as PyTorch's.
    pub fn new(config: &SimVqConfig, slot: &Slot, to: &mut Declarations) -> Self {
        let (num_codes, dim) = (config.num_codes, config.code_dim);
        let deviation = 1.0 / (dim as f64).sqrt();
        let mut generator = draws(slot.seed, Purpose::Codebook, 2, slot.level);
        let values = generator.normal(deviation, (num_codes * dim) as usize);
        let frozen_kd = Tensor::from_slice(&values).view([num_codes, dim]);
        let name = format!("{}.transform.weight", slot.name);
        Self {
            config: config.clone(),
            name: format!("{}.frozen_codebook", slot.name),
            frozen_kd: frozen_kd.to_kind(slot.kind).to(slot.device),
            weight: to.declare(
                name,
                &[dim, dim],
                Stage::Quantizer,
                Role::Codebook,
                Init::Uniform(deviation),
            ),
        }
    }

    /// The codes, `[K, D]`, without graph: fold them into a plain codebook for a release.
    pub fn codes(&self, parameters: &Parameters) -> Tensor {
        self.frozen_kd.matmul(&parameters.get(self.weight).detach().tr())
    }
}

impl Quantizer for SimVq {
    fn dim(&self) -> i64 {
        self.config.code_dim
    }

    fn num_codes(&self) -> Vec<i64> {
        vec![self.config.num_codes]
    }

    fn lens(&self) -> Lens {
        Lens { counts: self.config.num_codes, ..Lens::default() }
    }

    fn tokenize(&self, parameters: &Parameters, latents_nd: &Tensor) -> Tensor {
        nearest_code(&latents_nd.detach(), &self.codes(parameters)).unsqueeze(1)
    }

    fn look_up(&self, parameters: &Parameters, indices_nl: &Tensor) -> Tensor {
        self.codes(parameters).index_select(0, &indices_nl.select(1, 0))
    }

    fn rule(&self, parameters: &Parameters) -> Result<Rule, String> {
        let codes_kd = self.codes(parameters);
        Ok(Rule::Nearest { compared_kd: codes_kd.shallow_clone(), codes_kd, is_unit: false })
    }

    fn forward(
        &self,
        parameters: &Parameters,
        latents_nd: &Tensor,
        place: &Place,
        sums: &Sums,
    ) -> Quantized<'_> {
        let kind = latents_nd.kind();
        let still_nd = latents_nd.detach();
        let indices_n = nearest_code(&still_nd, &self.codes(parameters));
        sums.count(&indices_n);
        let frozen_nd = self.frozen_kd.index_select(0, &indices_n);
        let codes_nd = frozen_nd.matmul(&parameters.get(self.weight).tr());
        let count = place.num_tokens as f64 * self.config.code_dim as f64;
        let to_latents = (&still_nd - &codes_nd).square().sum(kind);
        let to_codes = (latents_nd - codes_nd.detach()).square().sum(kind);
        Quantized {
            output_nd: codes_nd.detach(),
            path: self.config.gradient.path(latents_nd, &codes_nd),
            indices_nl: indices_n.unsqueeze(1),
            loss: (to_latents + to_codes * self.config.commitment) / count,
            late: Vec::new(),
        }
    }

    fn state(&self) -> Vec<(String, Tensor)> {
        vec![(self.name.clone(), self.frozen_kd.shallow_clone())]
    }
}
