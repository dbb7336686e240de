//! Linear layers.

use tch::Tensor;

use super::Scope;
use crate::chain::Block;
use crate::cost;
use crate::graph::{Graph, Value};
use crate::parameters::{Declarations, Init, ParameterId, Parameters, Role};

/// Size and start of a linear layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LinearConfig {
    /// Channels of the input.
    pub inputs: i64,
    /// Channels of the output.
    pub outputs: i64,
    /// Whether a bias is added.
    pub has_bias: bool,
    /// Deviation of normal initial weights, with a bias of zeros, as transformers start; none:
    /// PyTorch's defaults.
    pub deviation: Option<f64>,
}

impl LinearConfig {
    /// With a bias, and PyTorch's initial values.
    pub fn new(inputs: i64, outputs: i64) -> Self {
        Self { inputs, outputs, has_bias: true, deviation: None }
    }
}

/// `[.., inputs]` to `[.., outputs]`: x W^T + b, with W `[outputs, inputs]`.
#[derive(Debug)]
pub struct Linear {
    weight: ParameterId,
    bias: Option<ParameterId>,
}

impl Linear {
    /// Declares weight and bias.
    pub fn new(to: &mut Declarations, scope: &Scope, config: LinearConfig) -> Self {
        let LinearConfig { inputs, outputs, has_bias, deviation } = config;
        let (of_weight, of_bias) = Init::of_layer(inputs, deviation);
        let weight = scope.declare(to, "weight", &[outputs, inputs], Role::Weight, of_weight);
        let bias = has_bias.then(|| scope.declare(to, "bias", &[outputs], Role::Bias, of_bias));
        Self { weight, bias }
    }

    /// The weight, `[outputs, inputs]`.
    pub fn weight(&self) -> ParameterId {
        self.weight
    }

    /// The bias, `[outputs]`, where there is one.
    pub fn bias(&self) -> Option<ParameterId> {
        self.bias
    }
}

impl Linear {
    /// Weight and bias as they are now.
    pub(crate) fn tensors(&self, parameters: &Parameters) -> (Tensor, Option<Tensor>) {
        let copy = |id| parameters.get(id).detach();
        (copy(self.weight), self.bias.map(copy))
    }
}

impl Block for Linear {
    fn forward(&self, parameters: &Parameters, input: &Tensor) -> Tensor {
        let weight = parameters.get(self.weight);
        cost::tell(|meter| {
            meter.multiply_add(input.numel() as i64 * weight.size()[0]);
            meter.keep(input);
        });
        input.linear(weight, self.bias.map(|bias| parameters.get(bias)))
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
