//! A network as a list of operations that other runtimes have too, free of any batch, and of any size where the network is.
//!
//! Layers and quantisers [describe](crate::chain::Block::describe) themselves here; what writes ONNX or TorchScript reads
//! the list and knows no network. An operation is one that ONNX and libtorch both have, or a few of them, and none of its
//! numbers hangs on the number of samples that go in. Weights are what they are when the graph is made. A layer that has no
//! such form says so, and then there is no graph.
//!
//! [`Graph::run`] computes it with libtorch, for tests and for traces.

mod op;
mod quantizer;
mod run;

use tch::{Device, Kind, Tensor};

pub use self::op::{Each, Op, Sight};
pub use self::quantizer::{Rule, Step};
use crate::chain::Block;
use crate::signal::Signal;
use crate::vqvae::{Output, Pixels, VqVae};

/// Added to the frequency that a Snake divides by: keeps the quotient finite where a frequency is 0.
pub const SNAKE_EPS: f64 = 1e-9;
/// A vector shorter than this counts as this long where it is brought to length one, so a vector of zeros stays as it is.
pub const MIN_LENGTH: f64 = 1e-12;

/// What goes in, or what a node makes: a number within its graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Value(pub usize);

/// A network as operations, in the order in which they are computed.
#[derive(Debug)]
pub struct Graph {
    /// Positional axes of each value that goes in. Input i is [`Value`] i.
    pub inputs: Vec<usize>,
    /// Node i makes the value `inputs.len()` + i.
    pub nodes: Vec<Node>,
    /// What comes out.
    pub outputs: Vec<Value>,
}

/// One operation.
#[derive(Debug)]
pub struct Node {
    /// What is computed.
    pub op: Op,
    /// Of what.
    pub inputs: Vec<Value>,
    /// Positional axes of what comes out.
    pub num_axes: usize,
}

impl Graph {
    /// A graph without operations, of values with these numbers of positional axes.
    fn new(inputs: Vec<usize>) -> Self {
        Self { inputs, nodes: Vec::new(), outputs: Vec::new() }
    }

    /// Positional axes of a value.
    pub fn num_axes(&self, value: Value) -> usize {
        match value.0.checked_sub(self.inputs.len()) {
            None => self.inputs[value.0],
            Some(node) => self.nodes[node].num_axes,
        }
    }

    /// Another operation, and what it makes.
    pub(crate) fn push(&mut self, op: Op, inputs: &[Value]) -> Value {
        let num_axes = match &op {
            Op::Reshape(shape) => shape.len() - 1,
            Op::Fold(axes) => self.num_axes(inputs[0]) - axes.len(),
            Op::Unfold(_) => self.num_axes(inputs[1]),
            _ => self.num_axes(inputs[0]),
        };
        self.nodes.push(Node { op, inputs: inputs.to_vec(), num_axes });
        Value(self.inputs.len() + self.nodes.len() - 1)
    }

    /// A function of each number.
    pub(crate) fn each(&mut self, each: Each, input: Value) -> Value {
        self.push(Op::Each(each), &[input])
    }

    /// x scale + shift, of two numbers.
    pub(crate) fn scale(&mut self, input: Value, scale: f64, shift: f64) -> Value {
        let one = |value: f64| Tensor::from_slice(&[value as f32]);
        self.push(Op::Affine { scale: one(scale), shift: one(shift) }, &[input])
    }

    /// x and a constant that expands to its shape.
    pub(crate) fn add_constant(&mut self, input: Value, shift: &Tensor) -> Value {
        let scale = Tensor::from_slice(&[1f32]);
        self.push(Op::Affine { scale, shift: constant(shift) }, &[input])
    }

    /// A convolution with one tap: a linear layer at each position, `[outputs, inputs]`.
    pub(crate) fn linear(&mut self, input: Value, weight: &Tensor, bias: Option<&Tensor>) -> Value {
        let num_axes = self.num_axes(input);
        let mut weight = constant(weight).flatten(1, -1);
        for _ in 0..num_axes {
            weight = weight.unsqueeze(-1);
        }
        let ones = vec![1; num_axes];
        let op = Op::Conv {
            weight,
            bias: bias.map(constant),
            stride: ones.clone(),
            dilation: ones,
            groups: 1,
            zeros: vec![(0, 0); num_axes],
        };
        self.push(op, &[input])
    }

    /// So many channels from `start` on.
    pub(crate) fn channels(&mut self, input: Value, start: i64, num: i64) -> Value {
        self.push(Op::Slice { axis: 1, start, end: Some(start + num) }, &[input])
    }
}

/// Samples `[N, C, ..]` in the range of their signal to indices int64: `[N, ..]`, where a position has several codes
/// `[N, L, ..]`. A hierarchy has indices of each quantised level, the finest first.
///
/// # Errors
///
/// Which part of the model has no form in a graph.
pub fn encoder(model: &VqVae) -> Result<Graph, String> {
    check(model)?;
    let mut graph = Graph::new(vec![model.signal.axes().len()]);
    let (parameters, above) = (&model.parameters, model.backbone.above());
    let mut samples = Value(0);
    if model.pixels == Pixels::Signed {
        samples = graph.scale(samples, 2.0, -1.0);
    }
    let mut latents = model.backbone.encoder().describe(parameters, &mut graph, samples)?;
    let mut features = Vec::new();
    for level in above {
        features.push(latents);
        latents = level.down.describe(parameters, &mut graph, latents)?;
    }
    for level in (0..model.quantizers.len()).rev() {
        let rule = model.quantizers[level].rule(parameters)?;
        let indices = rule.describe(&mut graph, latents);
        graph.outputs.push(indices);
        let Some(finer) = features.pop() else { break };
        let codes = rule.describe_look_up(&mut graph, indices);
        let context = above[level - 1].context.describe(parameters, &mut graph, codes)?;
        let told = graph.push(Op::Join, &[context, finer]);
        latents = above[level - 1].merge.describe(parameters, &mut graph, told)?;
    }
    graph.outputs.reverse();
    Ok(graph)
}

/// The way back of [`encoder`]: indices to samples, clamped to the range of their signal.
///
/// # Errors
///
/// Which part of the model has no form in a graph.
pub fn decoder(model: &VqVae) -> Result<Graph, String> {
    check(model)?;
    if model.output != Output::Values {
        return Err("its outputs are distributions (model.output = \"logit_laplace\")".to_owned());
    }
    let parameters = &model.parameters;
    let axes = model.latent_axes();
    let mut graph = Graph::new(axes.iter().map(Vec::len).collect());
    let mut raised = Vec::new();
    for (level, quantizer) in model.quantizers.iter().enumerate() {
        let codes = quantizer.rule(parameters)?.describe_look_up(&mut graph, Value(level));
        raised.push(match level.checked_sub(1) {
            None => codes,
            Some(above) => {
                let up = &model.backbone.above()[above].up;
                up.describe(parameters, &mut graph, codes)?
            }
        });
    }
    raised.reverse();
    let codes = match raised.as_slice() {
        [one] => *one,
        several => graph.push(Op::Join, several),
    };
    let mut samples = model.backbone.decoder().describe(parameters, &mut graph, codes)?;
    if model.pixels == Pixels::Signed {
        samples = graph.scale(samples, 0.5, 0.5);
    }
    let range = model.signal.range().expect("a decoder makes no tokens");
    let samples = graph.each(Each::Clamp(*range.start(), *range.end()), samples);
    graph.outputs.push(samples);
    Ok(graph)
}

/// Refuses models of what is no signal.
fn check(model: &VqVae) -> Result<(), String> {
    match model.signal {
        Signal::Tokens { .. } => Err("it is a model of tokens".to_owned()),
        Signal::Image { .. } | Signal::Audio { .. } | Signal::Video { .. } => Ok(()),
    }
}

/// A tensor as a constant of a graph.
pub(crate) fn constant(tensor: &Tensor) -> Tensor {
    tensor.detach().to_device(Device::Cpu).to_kind(Kind::Float).contiguous()
}
