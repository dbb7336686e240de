//! Activations: functions of each number, and Snake, which learns a frequency for each channel.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::Scope;
use crate::chain::Block;
use crate::cost;
use crate::graph::{Each, Graph, Op, SNAKE_EPS, Value, constant};
use crate::parameters::{Declarations, Init, ParameterId, Parameters, Role};

/// A function of each number by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// max(x, 0).
    Relu,
    /// x / (1 + exp(-x)), also called swish.
    Silu,
    /// x above 0, exp(x) - 1 below.
    Elu,
    /// x times the normal distribution function at x, exactly, not by tanh.
    Gelu,
    /// x above 0, 0.2 x below, with the slope 0.2 at 0 itself, as PyTorch's: what critics have.
    LeakyRelu,
}

/// Slope of [`Activation::LeakyRelu`] below 0.
const LEAK: f64 = 0.2;

impl Activation {
    /// The function of each number of `input`.
    pub fn of(self, input: &Tensor) -> Tensor {
        if self != Self::Relu {
            cost::tell(|meter| meter.keep(input));
        }
        match self {
            Self::Relu => input.relu(),
            Self::Silu => input.silu(),
            Self::Elu => input.elu(),
            Self::Gelu => input.gelu("none"),
            Self::LeakyRelu => leaky_relu(input, LEAK),
        }
    }
}

/// x above 0, `slope` x below and at 0.
pub(crate) fn leaky_relu(input: &Tensor, slope: f64) -> Tensor {
    // `leaky_relu` of tch has no parameter. `max(x, 0.2 x)` would have a slope of 0.6 at 0.
    input.prelu(&Tensor::full([1], slope, (input.kind(), input.device())))
}

impl Block for Activation {
    fn forward(&self, _parameters: &Parameters, input: &Tensor) -> Tensor {
        self.of(input)
    }

    fn describe(
        &self,
        _parameters: &Parameters,
        graph: &mut Graph,
        input: Value,
    ) -> Result<Value, String> {
        let each = match self {
            Self::Relu => Each::Relu,
            Self::Silu => Each::Silu,
            Self::Elu => Each::Elu,
            Self::Gelu => Each::Gelu,
            Self::LeakyRelu => return Err("a leaky ReLU has no form in a graph".to_owned()),
        };
        Ok(graph.each(each, input))
    }
}

/// `[N, C, ..]` to the same shape: x + sin^2(a x) / (a + 1e-9), with a frequency a for each
/// channel, from 1.
///
/// Follows Ziyin et al. 2020 (<https://arxiv.org/abs/2006.08195>), equation 3, in the form of the
/// Descript codec (<https://arxiv.org/abs/2306.06546>). The tensor is `alpha`, `[1, C, 1]` for one
/// axis.
#[derive(Debug)]
pub struct Snake {
    alpha: ParameterId,
}

impl Snake {
    /// Declares the frequencies of `channels` for inputs with `num_axes` positional axes.
    pub fn new(to: &mut Declarations, scope: &Scope, channels: i64, num_axes: usize) -> Self {
        let shape = [vec![1, channels], vec![1; num_axes]].concat();
        Self { alpha: scope.declare(to, "alpha", &shape, Role::Norm, Init::Constant(1.0)) }
    }
}

impl Block for Snake {
    fn forward(&self, parameters: &Parameters, input: &Tensor) -> Tensor {
        let alpha = parameters.get(self.alpha);
        cost::tell(|meter| meter.keep(input));
        input + (input * alpha).sin().square() / (alpha + SNAKE_EPS)
    }

    fn describe(
        &self,
        parameters: &Parameters,
        graph: &mut Graph,
        input: Value,
    ) -> Result<Value, String> {
        let alpha = constant(parameters.get(self.alpha));
        Ok(graph.push(Op::Snake { alpha }, &[input]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leaky_relu_has_the_lower_slope_at_zero() {
        let input = Tensor::from_slice(&[-2.0, 0.0, 3.0]).view([1, 3]).set_requires_grad(true);
        let output = Activation::LeakyRelu.of(&input);
        assert_eq!(Vec::<f64>::try_from(output.flatten(0, 1)).unwrap(), [-0.4, 0.0, 3.0]);
        let gradient =
            &Tensor::run_backward(&[output.sum(input.kind())], &[&input], false, false)[0];
        assert_eq!(Vec::<f64>::try_from(gradient.flatten(0, 1)).unwrap(), [0.2, 0.2, 1.0]);
    }
}
