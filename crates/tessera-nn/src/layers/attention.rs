//! Multi-head self-attention.
//!
//! Follows Vaswani et al. 2017 (<https://arxiv.org/abs/1706.03762>), section 3.2, through libtorch's
//! fused kernel: softmax(q k^T / sqrt(d)) v without the L times L scores in memory. On a CPU that
//! kernel has no second derivative, so a gradient penalty cannot go through this layer. There is no
//! dropout.

use tch::Tensor;

use super::{Linear, LinearConfig, Rotary, Scope};
use crate::chain::Block;
use crate::cost;
use crate::graph::{Graph, Op, Sight, Value};
use crate::parameters::{Declarations, Parameters};

/// Size of an attention.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionConfig {
    /// Channels, D.
    pub width: i64,
    /// Heads, each of D / heads channels; divides the width.
    pub heads: i64,
    /// Whether queries, keys and values have a bias. The output has one always.
    pub has_bias: bool,
    /// How both projections start, as [`LinearConfig::deviation`].
    pub deviation: Option<f64>,
}

/// Which positions a position sees.
#[derive(Debug, Clone, Copy)]
pub enum Mask<'a> {
    /// All of them.
    All,
    /// Itself and those before it.
    Causal,
    /// Where this is true: bool `[L, L]`, or with axes for samples and heads before; row is who
    /// sees. Each sees at least one.
    Allowed(&'a Tensor),
}

/// `[N, L, D]` to the same shape.
///
/// Tensors: `in_proj.weight` `[3 D, D]` with queries, keys and values below one another, and
/// `out_proj.weight` `[D, D]`, as PyTorch's `MultiheadAttention` lays them out.
#[derive(Debug)]
pub struct Attention {
    in_proj: Linear,
    out_proj: Linear,
    heads: i64,
}

impl Attention {
    /// Declares both projections.
    ///
    /// # Panics
    ///
    /// If the heads do not divide the width.
    pub fn new(to: &mut Declarations, scope: &Scope, config: AttentionConfig) -> Self {
        let AttentionConfig { width, heads, has_bias, deviation } = config;
        assert!(heads > 0 && width % heads == 0, "{heads} heads of {width} channels");
        let out = LinearConfig { deviation, ..LinearConfig::new(width, width) };
        let into = LinearConfig { has_bias, outputs: 3 * width, ..out };
        let in_proj = Linear::new(to, &scope.child("in_proj"), into);
        let out_proj = Linear::new(to, &scope.child("out_proj"), out);
        Self { in_proj, out_proj, heads }
    }

    /// Attention among the rows of each sample; queries and keys are turned by `rotary`, if any.
    pub fn forward(
        &self,
        parameters: &Parameters,
        input_nld: &Tensor,
        mask: Mask<'_>,
        rotary: Option<&Rotary>,
    ) -> Tensor {
        let attend = |[query, key, value]: [Tensor; 3]| attend([&query, &key, &value], mask);
        self.forward_by(parameters, input_nld, rotary, attend)
    }

    /// The same by `attend`, which makes heads of queries, keys and values, all `[N, heads, L, d]`.
    pub(crate) fn forward_by(
        &self,
        parameters: &Parameters,
        input_nld: &Tensor,
        rotary: Option<&Rotary>,
        attend: impl FnOnce([Tensor; 3]) -> Tensor,
    ) -> Tensor {
        let projected = self.in_proj.forward(parameters, input_nld);
        // Cut by channels, so that the backward pass puts the three gradients side by side once.
        let parts = projected.chunk(3, -1);
        let [mut query, mut key, value] =
            [0, 1, 2].map(|part| parts[part].unflatten(-1, [self.heads, -1]).transpose(1, 2));
        if let Some(rotary) = rotary {
            (query, key) = (rotary.turn(&query), rotary.turn(&key));
        }
        cost::tell(|meter| {
            // Scores, and sums of values by them.
            meter.multiply_add(2 * input_nld.numel() as i64 * input_nld.size()[1]);
            meter.keep(&projected);
            if rotary.is_some() {
                meter.keep(&query);
                meter.keep(&key);
            }
        });
        let heads = attend([query, key, value]);
        self.out_proj.forward(parameters, &heads.transpose(1, 2).flatten(2, 3))
    }
}

impl Attention {
    /// Adds the attention among the positions of `[N, D, ..]` to `graph`; queries and keys are turned by `rotary`, radians
    /// a position for each pair of channels, if any.
    pub(crate) fn describe(
        &self,
        parameters: &Parameters,
        graph: &mut Graph,
        input: Value,
        sight: Sight,
        rotary: Option<&Tensor>,
    ) -> Result<Value, String> {
        let projected = self.in_proj.describe(parameters, graph, input)?;
        let (heads, width) = (self.heads, parameters.get(self.out_proj.weight()).size()[0]);
        let mut parts = [0, 1, 2].map(|part| graph.channels(projected, part * width, width));
        if let Some(frequencies) = rotary {
            for part in &mut parts[..2] {
                let frequencies = frequencies.shallow_clone();
                *part = graph.push(Op::Rotary { heads, frequencies }, &[*part]);
            }
        }
        let seen = graph.push(Op::Attention { heads, head_dim: width / heads, sight }, &parts);
        self.out_proj.describe(parameters, graph, seen)
    }
}

/// Sums of values by the softmax of scores, `[N, heads, L, d]`, of queries, keys and values of such shapes.
pub(crate) fn attend([query, key, value]: [&Tensor; 3], mask: Mask<'_>) -> Tensor {
    let (allowed, is_causal) = match mask {
        Mask::All => (None, false),
        Mask::Causal => (None, true),
        Mask::Allowed(allowed) => (Some(allowed), false),
    };
    Tensor::scaled_dot_product_attention(query, key, value, allowed, 0.0, is_causal, None, false)
}
