//! Convolutions with kernel 1, as linear layers of rows.
//!
//! The tensors are those of a convolution, so weights of networks that have one there fit; the
//! computation is a matrix product of rows with their channels last, as attention has them.

use tch::Tensor;

use super::{LinearConfig, Scope};
use crate::chain::Block;
use crate::cost;
use crate::graph::{Graph, Value};
use crate::parameters::{Declarations, Init, ParameterId, Parameters, Role};

/// `[.., inputs]` to `[.., outputs]`: x W^T + b, with W `[outputs, inputs, 1, ..]`.
#[derive(Debug)]
pub struct Pointwise {
    weight: ParameterId,
    bias: Option<ParameterId>,
}

impl Pointwise {
    /// Declares weight and bias, as those of a convolution over two axes.
    pub fn new(to: &mut Declarations, scope: &Scope, config: LinearConfig) -> Self {
        Self::with_axes(to, scope, config, 2)
    }

    /// The same, over `num_axes`.
    pub fn with_axes(
        to: &mut Declarations,
        scope: &Scope,
        config: LinearConfig,
        num_axes: usize,
    ) -> Self {
        let LinearConfig { inputs, outputs, has_bias, deviation } = config;
        let (of_weight, of_bias) = Init::of_layer(inputs, deviation);
        let shape = [vec![outputs, inputs], vec![1; num_axes]].concat();
        let weight = scope.declare(to, "weight", &shape, Role::Weight, of_weight);
        let bias = has_bias.then(|| scope.declare(to, "bias", &[outputs], Role::Bias, of_bias));
        Self { weight, bias }
    }
}

impl Pointwise {
    /// The weight, `[outputs, inputs, 1..]`.
    pub fn weight(&self) -> ParameterId {
        self.weight
    }

    /// Weight and bias as they are now.
    pub(crate) fn tensors(&self, parameters: &Parameters) -> (Tensor, Option<Tensor>) {
        let copy = |id| parameters.get(id).detach();
        (copy(self.weight), self.bias.map(copy))
    }
}

impl Block for Pointwise {
    fn forward(&self, parameters: &Parameters, input: &Tensor) -> Tensor {
        let matrix = parameters.get(self.weight).flatten(1, -1);
        cost::tell(|meter| {
            meter.multiply_add(input.numel() as i64 * matrix.size()[0]);
            meter.keep(input);
        });
        input.linear(&matrix, self.bias.map(|bias| parameters.get(bias)))
    }

    /// Of channels in front, as all values of a graph have them.
    fn describe(
        &self,
        parameters: &Parameters,
        graph: &mut Graph,
        input: Value,
    ) -> Result<Value, String> {
        let bias = self.bias.map(|bias| parameters.get(bias));
        Ok(graph.linear(input, parameters.get(self.weight), bias))
    }
}
