//! The layers of the network. Tensors are `[N, C, T]`, channels-last in memory behind the first layer.

use std::sync::Arc;

use tch::Tensor;

use super::attention::Layer;
use super::config::{Conv1dConfig, Nonlinearity, OutputActivation, Shortcut};
use crate::backbone::residual::describe_sum;
use crate::chain::Block;
use crate::graph::{Each, Graph, Op, Value};
use crate::layers::{
    Activation, Amount, Conv, ConvConfig, ConvTranspose, ConvTransposeConfig, Lstm, Pad, Scope,
    Snake, Trim,
};
use crate::parameters::{Declarations, Parameters};

/// One layer; [`super::stream`] computes the same piece by piece.
#[derive(Debug)]
pub(super) enum Part {
    Conv(Conv),
    Act(Act),
    Unit(Box<Unit>),
    Up(ConvTranspose),
    /// With its input added.
    Lstm(Lstm),
    Attention(Layer),
    Output(Output),
}

/// Network and streams both have it.
impl Block for Arc<Part> {
    fn forward(&self, parameters: &Parameters, input: &Tensor) -> Tensor {
        match &**self {
            Part::Conv(conv) => conv.forward(parameters, input),
            Part::Act(act) => act.forward(parameters, input),
            Part::Unit(unit) => unit.forward(parameters, input),
            Part::Up(conv) => conv.forward(parameters, input),
            Part::Lstm(lstm) => lstm.forward(parameters, input) + input,
            Part::Attention(layer) => layer.forward(parameters, input),
            Part::Output(output) => output.of(output.conv.forward(parameters, input)),
        }
    }

    fn describe(
        &self,
        parameters: &Parameters,
        graph: &mut Graph,
        input: Value,
    ) -> Result<Value, String> {
        match &**self {
            Part::Conv(conv) => conv.describe(parameters, graph, input),
            Part::Act(act) => act.describe(parameters, graph, input),
            Part::Unit(unit) => unit.describe(parameters, graph, input),
            Part::Up(conv) => conv.describe(parameters, graph, input),
            Part::Lstm(lstm) => {
                let output = lstm.describe(parameters, graph, input)?;
                Ok(graph.push(Op::Add, &[output, input]))
            }
            Part::Attention(layer) => layer.describe(parameters, graph, input),
            Part::Output(output) => {
                let values = output.conv.describe(parameters, graph, input)?;
                Ok(match output.activation {
                    OutputActivation::None => values,
                    OutputActivation::Tanh => graph.each(Each::Tanh, values),
                })
            }
        }
    }
}

/// What stands between convolutions.
#[derive(Debug)]
pub(super) enum Act {
    Elu,
    Snake(Snake),
}

impl Act {
    pub(super) fn new(
        to: &mut Declarations,
        config: &Conv1dConfig,
        scope: &Scope,
        channels: i64,
    ) -> Self {
        match config.activation {
            Nonlinearity::Elu => Self::Elu,
            Nonlinearity::Snake => Self::Snake(Snake::new(to, scope, channels, 1)),
        }
    }
}

impl Block for Act {
    fn forward(&self, parameters: &Parameters, input: &Tensor) -> Tensor {
        match self {
            Self::Elu => Activation::Elu.of(input),
            Self::Snake(snake) => snake.forward(parameters, input),
        }
    }

    fn describe(
        &self,
        parameters: &Parameters,
        graph: &mut Graph,
        input: Value,
    ) -> Result<Value, String> {
        match self {
            Self::Elu => Activation::Elu.describe(parameters, graph, input),
            Self::Snake(snake) => snake.describe(parameters, graph, input),
        }
    }
}

/// Activation, dilated convolution to fewer channels, activation, convolution of one tap back, added to the input or to
/// a convolution of one tap of it.
#[derive(Debug)]
pub(super) struct Unit {
    pub(super) act1: Act,
    pub(super) conv1: Conv,
    pub(super) act2: Act,
    pub(super) conv2: Conv,
    pub(super) shortcut: Option<Conv>,
}

impl Unit {
    pub(super) fn new(
        to: &mut Declarations,
        config: &Conv1dConfig,
        scope: &Scope,
        channels: i64,
        dilation: i64,
    ) -> Self {
        let (inner, taps) = (channels / config.compress, config.residual_kernel);
        let act1 = Act::new(to, config, &scope.child("snake1"), channels);
        let dilated =
            ConvConfig { dilation: vec![dilation], ..conv(config, channels, inner, taps) };
        let conv1 = Conv::new(to, &scope.child("conv1"), dilated);
        let act2 = Act::new(to, config, &scope.child("snake2"), inner);
        let conv2 = Conv::new(to, &scope.child("conv2"), conv(config, inner, channels, 1));
        let shortcut = (config.shortcut == Shortcut::Conv)
            .then(|| Conv::new(to, &scope.child("shortcut"), conv(config, channels, channels, 1)));
        Self { act1, conv1, act2, conv2, shortcut }
    }
}

impl Block for Unit {
    fn forward(&self, parameters: &Parameters, input: &Tensor) -> Tensor {
        let hidden = self.conv1.forward(parameters, &self.act1.forward(parameters, input));
        let hidden = self.conv2.forward(parameters, &self.act2.forward(parameters, &hidden));
        match &self.shortcut {
            Some(shortcut) => hidden + shortcut.forward(parameters, input),
            None => hidden + input,
        }
    }

    fn describe(
        &self,
        parameters: &Parameters,
        graph: &mut Graph,
        input: Value,
    ) -> Result<Value, String> {
        let hidden = self.act1.describe(parameters, graph, input)?;
        let hidden = self.conv1.describe(parameters, graph, hidden)?;
        let hidden = self.act2.describe(parameters, graph, hidden)?;
        let hidden = self.conv2.describe(parameters, graph, hidden)?;
        describe_sum(self.shortcut.as_ref(), parameters, graph, hidden, input)
    }
}

/// The last convolution of the decoder, and the activation behind it.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) conv: Conv,
    pub(super) activation: OutputActivation,
}

impl Output {
    /// The activation of what the convolution gave.
    pub(super) fn of(&self, output: Tensor) -> Tensor {
        match self.activation {
            OutputActivation::None => output,
            OutputActivation::Tanh => output.tanh(),
        }
    }
}

/// A convolution padded by the network's rule.
pub(super) fn conv(config: &Conv1dConfig, inputs: i64, outputs: i64, taps: i64) -> ConvConfig {
    let amount = if config.causal { Amount::Causal } else { Amount::Centered };
    ConvConfig {
        padding: vec![Pad { amount, fill: config.padding }],
        has_weight_norm: config.weight_norm,
        ..ConvConfig::new(inputs, outputs, &[taps])
    }
}

/// To twice the channels, and a position for each `ratio` positions.
pub(super) fn down(config: &Conv1dConfig, channels: i64, ratio: i64) -> ConvConfig {
    ConvConfig { stride: vec![ratio], ..conv(config, channels, 2 * channels, 2 * ratio) }
}

/// To half the channels, and `ratio` positions for each.
pub(super) fn up(config: &Conv1dConfig, channels: i64, ratio: i64) -> ConvTransposeConfig {
    let trim = if config.causal {
        Trim::Causal { right_ratio: config.trim_right_ratio }
    } else {
        Trim::Centered
    };
    ConvTransposeConfig {
        trim: vec![trim],
        has_weight_norm: config.weight_norm,
        ..ConvTransposeConfig::new(channels, channels / 2, &[2 * ratio], &[ratio])
    }
}
