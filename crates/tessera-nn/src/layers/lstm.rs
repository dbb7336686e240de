//! Long short-term memory over time.
//!
//! Follows Hochreiter and Schmidhuber 1997 with the forget gate of Gers et al. 2000, as PyTorch's `LSTM` has it: gates
//! i, f, g, o in this order, c' = f c + i g, h' = o tanh(c'). One direction, as many channels out as in. What EnCodec
//! adds around it, its input, is the network's affair.

use tch::Tensor;

use super::Scope;
use crate::chain::Block;
use crate::cost;
use crate::graph::{Graph, Op, Value, constant};
use crate::parameters::{Declarations, Init, ParameterId, Parameters, Role};
use crate::signal::rows;

/// `[N, C, T]` to the same shape: an output depends on no later input.
///
/// Tensors of layer l: `weight_ih_l{l}` and `weight_hh_l{l}` `[4 C, C]`, `bias_ih_l{l}` and `bias_hh_l{l}` `[4 C]`, all
/// uniform within 1 / sqrt(C) at the start.
#[derive(Debug)]
pub struct Lstm {
    layers: Vec<[ParameterId; 4]>,
    channels: i64,
}

/// What an LSTM carries from one instant to the next: h and c of each layer, `[1, N, C]`.
#[derive(Debug)]
pub struct LstmState(Vec<[Tensor; 2]>);

impl Lstm {
    /// Declares `num_layers` layers behind one another.
    pub fn new(to: &mut Declarations, scope: &Scope, channels: i64, num_layers: i64) -> Self {
        let init = Init::Uniform(1.0 / (channels as f64).sqrt());
        let layer = |number: i64| {
            let [weight, bias] = [vec![4 * channels, channels], vec![4 * channels]];
            [
                ("weight_ih", &weight, Role::Weight),
                ("weight_hh", &weight, Role::Weight),
                ("bias_ih", &bias, Role::Bias),
                ("bias_hh", &bias, Role::Bias),
            ]
            .map(|(name, shape, role)| {
                scope.declare(to, &format!("{name}_l{number}"), shape, role, init)
            })
        };
        Self { layers: (0..num_layers).map(layer).collect(), channels }
    }

    /// Output, and the state behind the last instant; from `state`, or from zeros.
    pub fn forward_from(
        &self,
        parameters: &Parameters,
        input_nct: &Tensor,
        state: Option<&LstmState>,
    ) -> (Tensor, LstmState) {
        let num = input_nct.size()[0];
        let mut hidden_ntc = rows(input_nct);
        let mut states = Vec::new();
        for (number, ids) in self.layers.iter().enumerate() {
            let weights = ids.map(|id| parameters.get(id).shallow_clone());
            let [h, c] = match state {
                Some(LstmState(layers)) => {
                    [0, 1].map(|which: usize| layers[number][which].shallow_clone())
                }
                None => [0, 1].map(|_| {
                    let options = (hidden_ntc.kind(), hidden_ntc.device());
                    Tensor::zeros([1, num, self.channels], options)
                }),
            };
            cost::tell(|meter| {
                meter.multiply_add(2 * hidden_ntc.numel() as i64 * 4 * self.channels);
                meter.keep(&hidden_ntc);
            });
            if num == 0 {
                // libtorch's kernels take no empty batch.
                states.push([h, c]);
                continue;
            }
            let has_graph = [&hidden_ntc, &weights[0]].into_iter().any(is_followed);
            // On a CPU the kernel of a pass without a graph has other bits.
            let (output, h, c) = tch::with_grad(|| {
                hidden_ntc.lstm(&[h, c], &weights, true, 1, 0.0, true, false, true)
            });
            let kept = |tensor: Tensor| if has_graph { tensor } else { tensor.detach() };
            let [output, h, c] = [output, h, c].map(kept);
            hidden_ntc = output;
            states.push([h, c]);
        }
        (hidden_ntc.transpose(1, 2), LstmState(states))
    }
}

/// Whether what is computed of this tensor has a graph here.
fn is_followed(tensor: &Tensor) -> bool {
    tensor.alias().requires_grad()
}

impl Block for Lstm {
    fn forward(&self, parameters: &Parameters, input: &Tensor) -> Tensor {
        self.forward_from(parameters, input, None).0
    }

    fn describe(
        &self,
        parameters: &Parameters,
        graph: &mut Graph,
        input: Value,
    ) -> Result<Value, String> {
        let mut hidden = input;
        for ids in &self.layers {
            let weights = ids.map(|id| constant(parameters.get(id)));
            hidden = graph.push(Op::Lstm(weights), &[hidden]);
        }
        Ok(hidden)
    }
}
