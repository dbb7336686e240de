//! Residual stacks of convolutions, with strided ones before or behind: what the small networks
//! for pictures are made of.
//!
//! Works on channels-last tensors throughout; ReLU and the residual sum are done in place on outputs
//! of convolutions, which autograd does not need.

use tch::Tensor;

use crate::chain::{Block, Chain};
use crate::graph::{Each, Graph, Op, Value};
use crate::layers::{Conv, ConvConfig, ConvTransposeConfig, Pad, Scope, Trim};
use crate::parameters::{Declarations, Parameters};

/// Size of a residual stack.
#[derive(Debug, Clone, Copy)]
pub(super) struct Residuals {
    /// Channels that go in and come out.
    pub(super) channels: i64,
    /// Residual blocks.
    pub(super) layers: i64,
    /// Channels inside a block.
    pub(super) inner: i64,
    /// Whether convolutions inside a block have a bias.
    pub(super) has_bias: bool,
}

impl Residuals {
    /// The first convolution, the residual blocks, and a ReLU on the output of the last of them.
    pub(super) fn push(
        &self,
        chain: &mut Chain,
        first: Conv,
        scope: &Scope,
        to: &mut Declarations,
    ) {
        let Self { channels, layers, inner, has_bias } = *self;
        if layers == 0 {
            return chain.push(Relu(first));
        }
        chain.push(first);
        for layer in 0..layers {
            let scope = scope.child(&format!("residual.{layer}"));
            let conv = |config| ConvConfig { has_bias, ..config };
            let (wide, narrow) = (square(channels, inner, 3), square(inner, channels, 1));
            let wide = Conv::new(to, &scope.child("conv1"), conv(wide));
            let narrow = Conv::new(to, &scope.child("conv2"), conv(narrow));
            let residual = Residual { wide, narrow };
            if layer + 1 == layers {
                chain.push(Relu(residual));
            } else {
                chain.push(residual);
            }
        }
    }
}

/// ReLU, 3x3, ReLU, 1x1, added to the input.
#[derive(Debug)]
struct Residual {
    wide: Conv,
    narrow: Conv,
}

impl Block for Residual {
    fn forward(&self, parameters: &Parameters, input: &Tensor) -> Tensor {
        let hidden = self.wide.forward(parameters, &input.relu()).relu_();
        let mut output = self.narrow.forward(parameters, &hidden);
        output += input;
        output
    }

    fn describe(
        &self,
        parameters: &Parameters,
        graph: &mut Graph,
        input: Value,
    ) -> Result<Value, String> {
        let hidden = graph.each(Each::Relu, input);
        let hidden = self.wide.describe(parameters, graph, hidden)?;
        let hidden = graph.each(Each::Relu, hidden);
        let hidden = self.narrow.describe(parameters, graph, hidden)?;
        Ok(graph.push(Op::Add, &[hidden, input]))
    }
}

/// The end of a residual block in a graph: what it computed, added to its input, or to a convolution of that.
pub(super) fn describe_sum(
    shortcut: Option<&Conv>,
    parameters: &Parameters,
    graph: &mut Graph,
    hidden: Value,
    input: Value,
) -> Result<Value, String> {
    let beside = match shortcut {
        Some(shortcut) => shortcut.describe(parameters, graph, input)?,
        None => input,
    };
    Ok(graph.push(Op::Add, &[hidden, beside]))
}

/// A block, and a ReLU in place on its output.
#[derive(Debug)]
pub(super) struct Relu<B>(pub(super) B);

impl<B: Block> Block for Relu<B> {
    fn forward(&self, parameters: &Parameters, input: &Tensor) -> Tensor {
        self.0.forward(parameters, input).relu_()
    }

    fn describe(
        &self,
        parameters: &Parameters,
        graph: &mut Graph,
        input: Value,
    ) -> Result<Value, String> {
        let output = self.0.describe(parameters, graph, input)?;
        Ok(graph.each(Each::Relu, output))
    }
}

/// A convolution that keeps height and width.
pub(super) fn square(inputs: i64, outputs: i64, kernel: i64) -> ConvConfig {
    ConvConfig::same_size(inputs, outputs, &[kernel, kernel])
}

/// A 4x4 convolution that halves height and width.
pub(super) fn halving(inputs: i64, outputs: i64) -> ConvConfig {
    let padding = vec![Pad::zeros(1, 1); 2];
    ConvConfig { stride: vec![2, 2], padding, ..ConvConfig::new(inputs, outputs, &[4, 4]) }
}

/// A transposed 4x4 convolution that doubles height and width.
pub(super) fn doubling(inputs: i64, outputs: i64) -> ConvTransposeConfig {
    let trim = vec![Trim::Fixed(1, 1); 2];
    ConvTransposeConfig { trim, ..ConvTransposeConfig::new(inputs, outputs, &[4, 4], &[2, 2]) }
}
