//! The transformer of priors: blocks of attention and MLP, each behind a norm and beside what goes around them.
//!
//! `block = "llama"` follows Touvron et al. 2023 (<https://arxiv.org/abs/2302.13971>) and LlamaGen
//! (<https://arxiv.org/abs/2406.06525>), section 2.2; `block = "gpt2"` the network of that name. Weights start normal with
//! a deviation of 0.02, those that write to the sum over blocks over sqrt(2 blocks). Rows are `[N, L, W]`.
//!
//! Attention drops nothing of its weights: libtorch's fused kernel on a CPU cannot.

use tch::{Device, Kind, Tensor};

use super::config::{BlockKind, NetworkConfig};
use super::dropout::Masks;
use crate::chain::Block;
use crate::cost;
use crate::fused;
use crate::layers::attention::attend;
use crate::layers::{Activation, LayerNorm, Linear, LinearConfig, Mask, RmsNorm, Rotary, Scope};
use crate::parameters::{Declarations, Parameters};

/// In the root of each norm.
const EPS: f64 = 1e-5;
/// Deviation of initial weights.
pub(super) const DEVIATION: f64 = 0.02;

#[derive(Debug)]
enum Norm {
    Rms(RmsNorm),
    Layer(LayerNorm),
}

impl Norm {
    fn new(to: &mut Declarations, scope: &Scope, config: &NetworkConfig) -> Self {
        match config.block {
            BlockKind::Llama => Self::Rms(RmsNorm::new(to, scope, config.width, EPS)),
            BlockKind::Gpt2 => Self::Layer(LayerNorm::new(to, scope, config.width, EPS)),
        }
    }

    fn forward(&self, parameters: &Parameters, input: &Tensor) -> Tensor {
        match self {
            Self::Rms(norm) => norm.forward(parameters, input),
            Self::Layer(norm) => norm.forward(parameters, input),
        }
    }
}

/// Blocks, and a norm behind them.
#[derive(Debug)]
pub(super) struct Transformer {
    layers: Vec<Layer>,
    norm: Norm,
}

impl Transformer {
    /// Declares `num` blocks and the last norm.
    pub(super) fn new(
        to: &mut Declarations,
        scope: &Scope,
        config: &NetworkConfig,
        num: i64,
    ) -> Self {
        let layer =
            |number: i64| Layer::new(to, &scope.child(&format!("layers.{number}")), config, num);
        let layers = (0..num).map(layer).collect();
        Self { layers, norm: Norm::new(to, &scope.child("norm"), config) }
    }

    /// Sites where a number may be dropped: the input, and behind each attention and MLP.
    pub(super) fn num_sites(&self) -> i64 {
        1 + 2 * self.layers.len() as i64
    }

    /// Rows that see the rows of their sample that `mask` lets them see.
    pub(super) fn forward(
        &self,
        parameters: &Parameters,
        input_nlw: &Tensor,
        mask: Mask<'_>,
        rotary: Option<&Rotary>,
        masks: Option<&Masks>,
    ) -> Tensor {
        let mut hidden = match masks {
            None => input_nlw.shallow_clone(),
            Some(masks) => masks.keep(0, None, input_nlw),
        };
        for (number, layer) in self.layers.iter().enumerate() {
            let kept = masks.map(|masks| (masks, 2 * number + 1));
            let attend = |[query, key, value]: [Tensor; 3]| attend([&query, &key, &value], mask);
            hidden = layer.forward(parameters, &hidden, rotary, kept, attend);
        }
        self.norm.forward(parameters, &hidden)
    }

    /// The row behind those that `cache` has, `[N, 1, W]`, which sees all of them and itself.
    pub(super) fn step(
        &self,
        parameters: &Parameters,
        input_n1w: &Tensor,
        rotary: Option<&Rotary>,
        cache: &mut Cache,
    ) -> Tensor {
        let mut hidden = input_n1w.shallow_clone();
        for (layer, seen) in self.layers.iter().zip(&mut cache.layers) {
            let attend = |[query, key, value]: [Tensor; 3]| {
                let [keys, values] = [(0, key), (1, value)].map(|(which, new): (usize, Tensor)| {
                    seen[which].narrow(2, cache.len, 1).copy_(&new);
                    seen[which].narrow(2, 0, cache.len + 1)
                });
                // A causal mask would let the one query see the first key alone.
                attend([&query, &keys, &values], Mask::All)
            };
            hidden = layer.forward(parameters, &hidden, rotary, None, attend);
        }
        cache.len += 1;
        self.norm.forward(parameters, &hidden)
    }

    /// Room for the keys and values of `len` rows of each of `num` samples.
    pub(super) fn cache(&self, num: i64, len: i64, options: (Kind, Device)) -> Cache {
        let room = |layer: &Layer| {
            let Attention { heads, head_dim, .. } = layer.attention;
            [0, 1].map(|_| Tensor::zeros([num, heads, len, head_dim], options))
        };
        Cache { layers: self.layers.iter().map(room).collect(), len: 0 }
    }
}

/// Keys and values of the rows so far, `[N, heads, L, d]` of each block.
#[derive(Debug)]
pub(super) struct Cache {
    layers: Vec<[Tensor; 2]>,
    /// Rows that it has.
    len: i64,
}

impl Cache {
    /// Forgets all rows.
    pub(super) fn clear(&mut self) {
        self.len = 0;
    }
}

/// x + attention(norm(x)), then x + MLP(norm(x)).
#[derive(Debug)]
struct Layer {
    attention_norm: Norm,
    attention: Attention,
    mlp_norm: Norm,
    mlp: Mlp,
}

impl Layer {
    fn new(to: &mut Declarations, scope: &Scope, config: &NetworkConfig, num: i64) -> Self {
        let last = DEVIATION / (2.0 * num as f64).sqrt();
        Self {
            attention_norm: Norm::new(to, &scope.child("attention_norm"), config),
            attention: Attention::new(to, &scope.child("attention"), config, last),
            mlp_norm: Norm::new(to, &scope.child("mlp_norm"), config),
            mlp: Mlp::new(to, &scope.child("mlp"), config, last),
        }
    }

    /// `kept` says what is dropped of the outputs of attention, at a site, and of the MLP, at the next one.
    fn forward(
        &self,
        parameters: &Parameters,
        input: &Tensor,
        rotary: Option<&Rotary>,
        kept: Option<(&Masks, usize)>,
        attend: impl FnOnce([Tensor; 3]) -> Tensor,
    ) -> Tensor {
        let add = |to: &Tensor, what: &Tensor, at: usize| match kept {
            None => to + what,
            Some((masks, first)) => masks.keep(first + at, Some(to), what),
        };
        let normed = self.attention_norm.forward(parameters, input);
        let hidden = add(input, &self.attention.forward(parameters, &normed, rotary, attend), 0);
        let normed = self.mlp_norm.forward(parameters, &hidden);
        add(&hidden, &self.mlp.forward(parameters, &normed), 1)
    }
}

/// Queries, keys and values of heads; `in_proj.weight` `[3 W, W]` has them below one another.
#[derive(Debug)]
struct Attention {
    in_proj: Linear,
    out_proj: Linear,
    /// Of queries and of keys.
    norms: Option<[RmsNorm; 2]>,
    heads: i64,
    head_dim: i64,
}

impl Attention {
    fn new(to: &mut Declarations, scope: &Scope, config: &NetworkConfig, last: f64) -> Self {
        let (width, head_dim) = (config.width, config.head_dim());
        let norm =
            |to: &mut Declarations, name: &str| RmsNorm::new(to, &scope.child(name), head_dim, EPS);
        Self {
            in_proj: Linear::new(to, &scope.child("in_proj"), linear(config, width, 3 * width)),
            norms: config.qk_norm.then(|| ["query_norm", "key_norm"].map(|name| norm(to, name))),
            out_proj: Linear::new(
                to,
                &scope.child("out_proj"),
                LinearConfig { deviation: Some(last), ..linear(config, width, width) },
            ),
            heads: config.heads,
            head_dim,
        }
    }

    fn forward(
        &self,
        parameters: &Parameters,
        input: &Tensor,
        rotary: Option<&Rotary>,
        attend: impl FnOnce([Tensor; 3]) -> Tensor,
    ) -> Tensor {
        let projected = self.in_proj.forward(parameters, input);
        // Cut by channels, so that the backward pass puts the three gradients side by side once.
        let parts = projected.chunk(3, -1);
        let [mut query, mut key, value] =
            [0, 1, 2].map(|part| parts[part].unflatten(-1, [self.heads, -1]).transpose(1, 2));
        if let Some([of_query, of_key]) = &self.norms {
            query = of_query.forward(parameters, &query);
            key = of_key.forward(parameters, &key);
        }
        if let Some(rotary) = rotary {
            [query, key] = [query, key].map(|heads| turn(rotary, &heads));
        }
        cost::tell(|meter| {
            // Scores, and sums of values by them.
            meter.multiply_add(2 * input.numel() as i64 * input.size()[1]);
            meter.keep(&projected);
        });
        let heads = attend([query, key, value]);
        self.out_proj.forward(parameters, &heads.transpose(1, 2).flatten(2, 3))
    }
}

/// Heads turned in the kind of the table, float32 at least.
fn turn(rotary: &Rotary, heads: &Tensor) -> Tensor {
    rotary.turn(&heads.to_kind(rotary.cos.kind())).to_kind(heads.kind())
}

/// SwiGLU, silu(W1 x) * W3 x, or GELU of one layer, then a layer back. Of SwiGLU `in_proj.weight` has W1 above W3.
#[derive(Debug)]
struct Mlp {
    in_proj: Linear,
    out_proj: Linear,
    block: BlockKind,
}

impl Mlp {
    fn new(to: &mut Declarations, scope: &Scope, config: &NetworkConfig, last: f64) -> Self {
        let (width, hidden, block) = (config.width, config.hidden(), config.block);
        let within = if block == BlockKind::Llama { 2 * hidden } else { hidden };
        let out = LinearConfig { deviation: Some(last), ..linear(config, hidden, width) };
        Self {
            in_proj: Linear::new(to, &scope.child("in_proj"), linear(config, width, within)),
            out_proj: Linear::new(to, &scope.child("out_proj"), out),
            block,
        }
    }

    fn forward(&self, parameters: &Parameters, input: &Tensor) -> Tensor {
        let within = self.in_proj.forward(parameters, input);
        let hidden = match self.block {
            BlockKind::Gpt2 => Activation::Gelu.of(&within),
            BlockKind::Llama if fused::takes(&within) => {
                cost::tell(|meter| meter.keep(&within));
                fused::rows::swiglu(&within)
            }
            BlockKind::Llama => {
                let parts = within.chunk(2, -1);
                let gate = Activation::Silu.of(&parts[0]);
                cost::tell(|meter| {
                    meter.keep(&gate);
                    meter.keep(&parts[1]);
                });
                gate * &parts[1]
            }
        };
        self.out_proj.forward(parameters, &hidden)
    }
}

fn linear(config: &NetworkConfig, inputs: i64, outputs: i64) -> LinearConfig {
    let has_bias = config.block == BlockKind::Gpt2;
    LinearConfig { inputs, outputs, has_bias, deviation: Some(DEVIATION) }
}
