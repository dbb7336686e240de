//! A network as a list of operations that other runtimes have too, free of any batch and size.
//!
//! Layers and quantisers [describe](crate::chain::Block::describe) themselves here; what writes ONNX or TorchScript reads
//! the list and knows no network. An operation is one that ONNX and libtorch both have, or a few of them, and none of its
//! numbers hangs on the size of what goes in. Weights are what they are when the graph is made. A layer that has no such
//! form says so, and then there is no graph.
//!
//! [`Graph::run`] computes it with libtorch, for tests and for traces.

mod quantizer;
mod run;

use tch::{Device, Kind, Tensor};

pub use self::quantizer::{Rule, Step};
use crate::chain::Block;
use crate::layers::Fill;
use crate::signal::Signal;
use crate::vqvae::{Output, Pixels, VqVae};

/// Added to the frequency that a Snake divides by: keeps the quotient finite where a frequency is 0.
pub const SNAKE_EPS: f64 = 1e-9;
/// A vector shorter than this counts as this long where it is brought to length one, so a vector of zeros stays as it is.
pub const MIN_LENGTH: f64 = 1e-12;

/// What a node makes, or what goes in: a number within its graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Value(pub usize);

/// A network as operations, in the order in which they are computed.
#[derive(Debug)]
pub struct Graph {
    /// Positional axes of what goes in.
    pub num_axes: usize,
    /// Node i makes [`Value`] i + 1; value 0 goes in.
    pub nodes: Vec<Node>,
}

/// One operation.
#[derive(Debug)]
pub struct Node {
    /// What is computed.
    pub op: Op,
    /// Of what.
    pub inputs: Vec<Value>,
}

/// What a node computes. Tensors are `[N, C, ..]` unless a line says otherwise; constants are float32 on the host.
#[derive(Debug)]
pub enum Op {
    /// A convolution, with zeros beyond the ends: of each axis so many before and behind.
    Conv {
        /// `[outputs, inputs / groups, ..]`.
        weight: Tensor,
        /// `[outputs]`.
        bias: Option<Tensor>,
        /// Of each axis.
        stride: Vec<i64>,
        /// Of each axis.
        dilation: Vec<i64>,
        /// Groups of channels.
        groups: i64,
        /// Zeros before and behind.
        zeros: Vec<(i64, i64)>,
    },
    /// A transposed convolution, of which so much is cut off each axis before and behind.
    ConvTranspose {
        /// `[inputs, outputs / groups, ..]`.
        weight: Tensor,
        /// `[outputs]`.
        bias: Option<Tensor>,
        /// Of each axis.
        stride: Vec<i64>,
        /// Of each axis.
        dilation: Vec<i64>,
        /// Groups of channels.
        groups: i64,
        /// Positions cut off before and behind.
        cut: Vec<(i64, i64)>,
    },
    /// More positions before and behind, mirrored or repeated.
    Pad {
        /// Of each axis.
        ends: Vec<(i64, i64)>,
        /// By what.
        fill: Fill,
    },
    /// Group norm, with weight and bias `[C]`.
    GroupNorm {
        /// Groups of channels.
        groups: i64,
        /// Added to the variance.
        eps: f64,
        /// `[C]`.
        weight: Tensor,
        /// `[C]`.
        bias: Tensor,
    },
    /// A function of each number.
    Each(Each),
    /// x + sin^2(a x) / (a + [`SNAKE_EPS`]), with a of the shape `[1, C, 1..]`.
    Snake {
        /// a.
        alpha: Tensor,
    },
    /// The sum of two.
    Add,
    /// The first without the second.
    Subtract,
    /// x scale + shift, both `[1, C, 1..]`, or of one number.
    Affine {
        /// The factor.
        scale: Tensor,
        /// What is added.
        shift: Tensor,
    },
    /// Each position so many times, by axis.
    Repeat(Vec<i64>),
    /// One head of attention over all positions, of queries, keys and values with so many channels.
    Attention(i64),
    /// A layer of an LSTM over time, `[N, C, T]`: input and hidden weights `[4 C, C]` and biases `[4 C]`, gates in
    /// PyTorch's order.
    Lstm([Tensor; 4]),
    /// Vectors along the channels at length one.
    Unit,
    /// The channel whose number is least, `[N, ..]` int64.
    ArgMin,
    /// Whole numbers in one channel as `[N, ..]` int64.
    Index,
    /// Rows `[K, D]` of a table by whole numbers `[N, ..]`: `[N, D, ..]`.
    LookUp(Tensor),
    /// Several `[N, ..]` of whole numbers as `[N, L, ..]`.
    Stack,
    /// Level so and so of `[N, L, ..]`.
    Pick(i64),
    /// So many channels from this one on.
    Channels(i64, i64),
    /// Several, channels behind one another.
    Join,
}

/// A function of each number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Each {
    /// max(x, 0).
    Relu,
    /// x / (1 + exp(-x)).
    Silu,
    /// x above 0, exp(x) - 1 below.
    Elu,
    /// x Phi(x).
    Gelu,
    /// tanh(x).
    Tanh,
    /// The nearest whole number, halves to the even one.
    Round,
    /// The whole number below.
    Floor,
    /// 1 where x > 0, otherwise 0.
    IsPositive,
    /// 1 where x >= 0, otherwise 0.
    IsNotNegative,
    /// x within these two.
    Clamp(f64, f64),
}

impl Graph {
    /// A graph without operations.
    fn new(num_axes: usize) -> Self {
        Self { num_axes, nodes: Vec::new() }
    }

    /// Another operation, and what it makes.
    pub(crate) fn push(&mut self, op: Op, inputs: &[Value]) -> Value {
        self.nodes.push(Node { op, inputs: inputs.to_vec() });
        Value(self.nodes.len())
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

    /// A convolution with one tap: a linear layer at each position, `[outputs, inputs]`.
    pub(crate) fn linear(&mut self, input: Value, weight: &Tensor, bias: Option<&Tensor>) -> Value {
        let mut weight = constant(weight).flatten(1, -1);
        for _ in 0..self.num_axes {
            weight = weight.unsqueeze(-1);
        }
        let ones = vec![1; self.num_axes];
        let op = Op::Conv {
            weight,
            bias: bias.map(constant),
            stride: ones.clone(),
            dilation: ones,
            groups: 1,
            zeros: vec![(0, 0); self.num_axes],
        };
        self.push(op, &[input])
    }

    /// What the last node makes.
    pub fn output(&self) -> Value {
        Value(self.nodes.len())
    }
}

/// Samples `[N, C, ..]` in the range of their signal to indices int64: `[N, ..]`, where a position has several codes
/// `[N, L, ..]`.
///
/// # Errors
///
/// Which part of the model has no form in a graph.
pub fn encoder(model: &VqVae) -> Result<Graph, String> {
    let mut graph = begin(model)?;
    let mut samples = Value(0);
    if model.pixels == Pixels::Signed {
        samples = graph.scale(samples, 2.0, -1.0);
    }
    let encoder = model.backbone.encoder();
    let latents = encoder.describe(&model.parameters, &mut graph, samples)?;
    let rule = model.quantizers[0].rule(&model.parameters)?;
    rule.describe(&mut graph, latents);
    Ok(graph)
}

/// The way back of [`encoder`]: indices to samples, clamped to the range of their signal.
///
/// # Errors
///
/// Which part of the model has no form in a graph.
pub fn decoder(model: &VqVae) -> Result<Graph, String> {
    let mut graph = begin(model)?;
    if model.output != Output::Values {
        return Err("its outputs are distributions (model.output = \"logit_laplace\")".to_owned());
    }
    let rule = model.quantizers[0].rule(&model.parameters)?;
    let codes = rule.describe_look_up(&mut graph, Value(0));
    let mut samples = model.backbone.decoder().describe(&model.parameters, &mut graph, codes)?;
    if model.pixels == Pixels::Signed {
        samples = graph.scale(samples, 0.5, 0.5);
    }
    let range = model.signal.range().expect("a decoder makes no tokens");
    graph.each(Each::Clamp(*range.start(), *range.end()), samples);
    Ok(graph)
}

fn begin(model: &VqVae) -> Result<Graph, String> {
    if !model.backbone.above().is_empty() {
        return Err("a hierarchy has codes of several sizes".to_owned());
    }
    if matches!(model.signal, Signal::Tokens { .. }) {
        return Err("it is a model of tokens".to_owned());
    }
    Ok(Graph::new(model.signal.axes().len()))
}

/// A tensor as a constant of a graph.
pub(crate) fn constant(tensor: &Tensor) -> Tensor {
    tensor.detach().to_device(Device::Cpu).to_kind(Kind::Float).contiguous()
}
