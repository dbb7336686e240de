//! Transformer layers in the middle, between convolutions, as Moshi's Mimi has them
//! (<https://arxiv.org/abs/2410.00037>, section 3.3.1): norm, attention within a window with rotary positions, norm, an MLP
//! four times as wide. Mimi's learned scales of what a layer adds are left out; weights start normal with a deviation
//! of 0.02, so a layer adds little at first.

use tch::Tensor;

use super::config::Conv1dConfig;
use crate::chain::Block;
use crate::graph::{Each, Graph, Op, Sight, Value};
use crate::layers::attention::attend;
use crate::layers::rotary::frequencies;
use crate::layers::{
    Activation, Attention, AttentionConfig, LayerNorm, Linear, LinearConfig, Mask, Rotary, Scope,
};
use crate::parameters::{Declarations, Parameters};
use crate::signal::rows;

/// PyTorch's default.
const EPS: f64 = 1e-5;

/// Deviation of initial weights.
const DEVIATION: f64 = 0.02;

/// `[N, C, T]` to the same shape: x + attention(norm(x)), then x + MLP(norm(x)).
#[derive(Debug)]
pub(super) struct Layer {
    ln_1: LayerNorm,
    attention: Attention,
    ln_2: LayerNorm,
    widen: Linear,
    narrow: Linear,
    head_dim: i64,
    window: i64,
    is_causal: bool,
}

/// Keys and values of the last positions, `[N, heads, L, d]`, and how many positions there were in all.
#[derive(Debug, Default)]
pub(super) struct Seen {
    keys_and_values: Option<[Tensor; 2]>,
    position: i64,
}

impl Layer {
    pub(super) fn new(
        to: &mut Declarations,
        config: &Conv1dConfig,
        scope: &Scope,
        width: i64,
    ) -> Self {
        let heads = config.attention_heads;
        let linear = |inputs, outputs| LinearConfig {
            deviation: Some(DEVIATION),
            ..LinearConfig::new(inputs, outputs)
        };
        let ln_1 = LayerNorm::new(to, &scope.child("ln_1"), width, EPS);
        let attention =
            AttentionConfig { width, heads, has_bias: true, deviation: Some(DEVIATION) };
        let attention = Attention::new(to, &scope.child("attn"), attention);
        let ln_2 = LayerNorm::new(to, &scope.child("ln_2"), width, EPS);
        let widen = Linear::new(to, &scope.child("mlp.c_fc"), linear(width, 4 * width));
        let narrow = Linear::new(to, &scope.child("mlp.c_proj"), linear(4 * width, width));
        let (head_dim, window) = (width / heads, config.attention_window);
        Self { ln_1, attention, ln_2, widen, narrow, head_dim, window, is_causal: config.causal }
    }

    /// The next positions of a sound, which see those that `seen` has and are put there.
    pub(super) fn push(&self, parameters: &Parameters, piece: &Tensor, seen: &mut Seen) -> Tensor {
        let (past, start) = (seen.keys_and_values.take(), seen.position);
        let mut kept = None;
        let output = self.through(parameters, piece, start, |[query, key, value]| {
            let [keys, values] = [(0, key), (1, value)].map(|(which, new): (usize, Tensor)| {
                past.as_ref()
                    .map_or(new.shallow_clone(), |past| Tensor::cat(&[&past[which], &new], 2))
            });
            let total = keys.size()[2];
            let len = total.min(self.window - 1);
            let last = |all: &Tensor| all.narrow(2, total - len, len).copy();
            kept = Some([last(&keys), last(&values)]);
            self.attend([&query, &keys, &values])
        });
        *seen = Seen { keys_and_values: kept, position: start + piece.size()[2] };
        output
    }

    /// The layer on positions from `start` on, by this attention of queries, keys and values.
    fn through(
        &self,
        parameters: &Parameters,
        input: &Tensor,
        start: i64,
        attend: impl FnOnce([Tensor; 3]) -> Tensor,
    ) -> Tensor {
        let input_nld = rows(input);
        let places =
            Tensor::arange_start(start, start + input_nld.size()[1], tch::kind::DOUBLE_CPU);
        let (kind, device) = (input.kind(), input.device());
        let pairs = [self.head_dim / 2];
        let rotary = Rotary::at(&places.unsqueeze(1), &pairs, self.head_dim, kind, device);
        let hidden = self.ln_1.forward(parameters, &input_nld);
        let hidden = self.attention.forward_by(parameters, &hidden, Some(&rotary), attend);
        let hidden = hidden + input_nld;
        let inner = self.widen.forward(parameters, &self.ln_2.forward(parameters, &hidden));
        let added = self.narrow.forward(parameters, &Activation::Gelu.of(&inner));
        (added + hidden).transpose(1, 2)
    }

    /// Attention of the last positions among all: each sees itself and the `window - 1` before it, and as many behind it
    /// where the network is not causal.
    fn attend(&self, [query, key, value]: [&Tensor; 3]) -> Tensor {
        let (num, total) = (query.size()[2], key.size()[2]);
        let past = total - num;
        let all = Tensor::ones([num, total], (tch::Kind::Bool, query.device()));
        let behind = if self.is_causal { 0 } else { self.window - 1 };
        let allowed = all.tril(past + behind).triu(past + 1 - self.window);
        attend([query, key, value], Mask::Allowed(&allowed))
    }
}

impl Block for Layer {
    fn forward(&self, parameters: &Parameters, input: &Tensor) -> Tensor {
        self.through(parameters, input, 0, |[query, key, value]| {
            self.attend([&query, &key, &value])
        })
    }

    fn describe(
        &self,
        parameters: &Parameters,
        graph: &mut Graph,
        input: Value,
    ) -> Result<Value, String> {
        let hidden = self.ln_1.describe(parameters, graph, input)?;
        let others = Some(self.window - 1);
        let behind = if self.is_causal { Some(0) } else { others };
        let sight = Sight { before: others, behind };
        let turns = frequencies(self.head_dim / 2);
        let hidden = self.attention.describe(parameters, graph, hidden, sight, Some(&turns))?;
        let hidden = graph.push(Op::Add, &[hidden, input]);
        let inner = self.ln_2.describe(parameters, graph, hidden)?;
        let inner = self.widen.describe(parameters, graph, inner)?;
        let inner = graph.each(Each::Gelu, inner);
        let added = self.narrow.describe(parameters, graph, inner)?;
        Ok(graph.push(Op::Add, &[added, hidden]))
    }
}
