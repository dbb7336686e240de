//! The smallest network: a linear layer, ReLU and a linear layer on each side.
//!
//! A sample is one vector of all its values, whatever axes it had; its latents are `positions`
//! vectors on one axis, which the encoder puts out one behind the other. So it takes pictures,
//! sound and film of one size, and knows nothing of what is near what.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::{Backbone, Ends, check_range};
use crate::chain::{Block, Chain};
use crate::graph::{Each, Graph, Op, Value};
use crate::layers::{Linear, LinearConfig, Scope};
use crate::parameters::{Declarations, ParameterId, Parameters, Stage};
use crate::signal::Signal;

/// Width of the dense network, and how many latents it makes of a sample.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DenseConfig {
    /// Width of the hidden layer on each side; 1 to 65536.
    pub hidden: i64,
    /// Latent positions of a sample; 1 to 65536.
    pub positions: i64,
}

impl Default for DenseConfig {
    fn default() -> Self {
        Self { hidden: 512, positions: 16 }
    }
}

impl DenseConfig {
    pub(super) fn validate(&self, signal: &Signal) -> Result<(), String> {
        if matches!(signal, Signal::Tokens { .. }) {
            return Err(format!(
                "model.backbone.kind = \"dense\" takes pictures, sound and film, these data are \
                 {signal}"
            ));
        }
        check_range("hidden", self.hidden, 65536)?;
        check_range("positions", self.positions, 65536)
    }
}

/// See the module.
#[derive(Debug)]
pub struct Dense {
    encoder: Chain,
    decoder: Chain,
    output_weight: ParameterId,
    output_bias: ParameterId,
    outputs: i64,
    positions: i64,
}

impl Dense {
    /// Declares the parameters.
    pub fn new(config: &DenseConfig, ends: &Ends<'_>, to: &mut Declarations) -> Self {
        let (hidden, positions, dim) = (config.hidden, config.positions, ends.dim());
        let (values, latents) = (ends.signal.num_values(), positions * dim);
        let axes = ends.signal.axes();
        let num_outputs = ends.outputs * axes.iter().product::<i64>();
        let linear = |to: &mut Declarations, scope: &Scope, name, inputs, outputs| {
            Linear::new(to, &scope.child(name), LinearConfig::new(inputs, outputs))
        };
        let scope = Scope::new(Stage::Encoder, "encoder");
        let mut encoder = Chain::default();
        encoder.push(First(linear(to, &scope, "hidden", values, hidden)));
        let to_code = linear(to, &scope, "to_code", hidden, latents);
        encoder.push(ToLatents { linear: to_code, positions, dim });
        let scope = Scope::new(Stage::Decoder, "decoder");
        let mut decoder = Chain::default();
        let from_code = linear(to, &scope, "hidden", latents, hidden);
        decoder.push(FromLatents { linear: from_code, positions, dim });
        let output = linear(to, &scope, "output", hidden, num_outputs);
        let output_bias = output.bias().expect("declared with a bias");
        let output_weight = output.weight();
        decoder.push(ToSamples { linear: output, shape: [vec![ends.outputs], axes].concat() });
        Self { encoder, decoder, output_weight, output_bias, outputs: ends.outputs, positions }
    }
}

impl Backbone for Dense {
    fn encoder(&self) -> &Chain {
        &self.encoder
    }

    fn decoder(&self) -> &Chain {
        &self.decoder
    }

    fn latent_axes(&self, _signal: &Signal) -> Vec<i64> {
        vec![self.positions]
    }

    fn output_weight(&self) -> ParameterId {
        self.output_weight
    }

    fn set_output_mean(&self, parameters: &Parameters, means_c: &Tensor) {
        let mut bias = parameters.master(self.output_bias);
        let bias_cp = bias.view([self.outputs, -1]);
        bias.copy_(&means_c.unsqueeze(1).expand_as(&bias_cp).reshape_as(&bias));
    }
}

/// `[N, C, ..]` to `[N, hidden]`.
#[derive(Debug)]
struct First(Linear);

impl Block for First {
    fn forward(&self, parameters: &Parameters, input: &Tensor) -> Tensor {
        self.0.forward(parameters, &input.flatten(1, -1)).relu_()
    }

    fn describe(
        &self,
        parameters: &Parameters,
        graph: &mut Graph,
        input: Value,
    ) -> Result<Value, String> {
        let values = parameters.get(self.0.weight()).size()[1];
        let vector = graph.push(Op::Reshape(vec![values, 1]), &[input]);
        let hidden = self.0.describe(parameters, graph, vector)?;
        Ok(graph.each(Each::Relu, hidden))
    }
}

/// `[N, hidden]` to `[N, D, positions]`.
#[derive(Debug)]
struct ToLatents {
    linear: Linear,
    positions: i64,
    dim: i64,
}

impl Block for ToLatents {
    fn forward(&self, parameters: &Parameters, input: &Tensor) -> Tensor {
        let latents = self.linear.forward(parameters, input);
        latents.view([input.size()[0], self.positions, self.dim]).transpose(1, 2)
    }

    /// The layer makes position after position; its rows are put in the order of channels.
    fn describe(
        &self,
        parameters: &Parameters,
        graph: &mut Graph,
        input: Value,
    ) -> Result<Value, String> {
        let (weight, bias) = self.linear.tensors(parameters);
        let by_channel = |rows: &Tensor| {
            rows.unflatten(0, [self.positions, self.dim]).transpose(0, 1).flatten(0, 1)
        };
        let bias = bias.map(|bias| by_channel(&bias));
        let latents = graph.linear(input, &by_channel(&weight), bias.as_ref());
        Ok(graph.push(Op::Reshape(vec![self.dim, self.positions]), &[latents]))
    }
}

/// `[N, D, positions]` to `[N, hidden]`.
#[derive(Debug)]
struct FromLatents {
    linear: Linear,
    positions: i64,
    dim: i64,
}

impl Block for FromLatents {
    fn forward(&self, parameters: &Parameters, input: &Tensor) -> Tensor {
        self.linear.forward(parameters, &input.transpose(1, 2).flatten(1, 2)).relu_()
    }

    /// The layer reads position after position; its columns are put in the order of channels.
    fn describe(
        &self,
        parameters: &Parameters,
        graph: &mut Graph,
        input: Value,
    ) -> Result<Value, String> {
        let (weight, bias) = self.linear.tensors(parameters);
        let columns = weight.unflatten(1, [self.positions, self.dim]);
        let weight = columns.transpose(1, 2).flatten(1, 2);
        let vector = graph.push(Op::Reshape(vec![self.dim * self.positions, 1]), &[input]);
        let hidden = graph.linear(vector, &weight, bias.as_ref());
        Ok(graph.each(Each::Relu, hidden))
    }
}

/// `[N, hidden]` to `[N, C, ..]`.
#[derive(Debug)]
struct ToSamples {
    linear: Linear,
    /// That of a batch, after the number of samples.
    shape: Vec<i64>,
}

impl Block for ToSamples {
    fn forward(&self, parameters: &Parameters, input: &Tensor) -> Tensor {
        let shape = [&[input.size()[0]], &self.shape[..]].concat();
        self.linear.forward(parameters, input).view(shape.as_slice())
    }

    fn describe(
        &self,
        parameters: &Parameters,
        graph: &mut Graph,
        input: Value,
    ) -> Result<Value, String> {
        let values = self.linear.describe(parameters, graph, input)?;
        Ok(graph.push(Op::Reshape(self.shape.clone()), &[values]))
    }
}
