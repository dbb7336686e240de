//! Convolutions over one, two or three positional axes.

use tch::Tensor;

use super::Scope;
use super::padding::{Fill, Pad, pad};
use super::steps::Steps;
use super::weight::Weight;
use crate::chain::Block;
use crate::graph::{Graph, Op, Value, constant};
use crate::parameters::{Declarations, Init, ParameterId, Parameters, Role};

/// Size of a convolution; the lists have an entry for each positional axis.
#[derive(Debug, Clone)]
pub struct ConvConfig {
    /// Channels of the input.
    pub inputs: i64,
    /// Channels of the output.
    pub outputs: i64,
    /// Taps along each axis.
    pub kernel: Vec<i64>,
    /// Input positions from one output to the next.
    pub stride: Vec<i64>,
    /// Input positions from one tap to the next.
    pub dilation: Vec<i64>,
    /// Groups of channels that see one another; divides inputs and outputs.
    pub groups: i64,
    /// What lies beyond the ends.
    pub padding: Vec<Pad>,
    /// Whether a bias is added.
    pub has_bias: bool,
    /// Whether the weight is normalised: `weight_g` and `weight_v` in the place of `weight`.
    pub has_weight_norm: bool,
    /// Deviation of normal initial weights, with a bias of zeros; none: PyTorch's defaults.
    pub deviation: Option<f64>,
}

impl ConvConfig {
    /// Stride and dilation 1, one group, no padding, a bias, no weight normalisation.
    pub fn new(inputs: i64, outputs: i64, kernel: &[i64]) -> Self {
        let ones = vec![1; kernel.len()];
        Self {
            inputs,
            outputs,
            kernel: kernel.to_vec(),
            stride: ones.clone(),
            dilation: ones,
            groups: 1,
            padding: vec![Pad::NONE; kernel.len()],
            has_bias: true,
            has_weight_norm: false,
            deviation: None,
        }
    }

    /// The same with as many zeros on both sides as keep the size of an axis with an odd kernel.
    pub fn same_size(inputs: i64, outputs: i64, kernel: &[i64]) -> Self {
        let padding = kernel.iter().map(|taps| Pad::zeros(taps / 2, taps / 2)).collect();
        Self { padding, ..Self::new(inputs, outputs, kernel) }
    }
}

/// `[N, C, ..]` to `[N, C', ..]`: each output is the sum over taps and input channels of weight
/// times input, and a bias. The weight is `[C', C / groups, kernel..]`.
///
/// An axis of L becomes floor((L + padding - dilation (kernel - 1) - 1) / stride) + 1.
#[derive(Debug)]
pub struct Conv {
    pub(super) config: ConvConfig,
    pub(super) weight: Weight,
    bias: Option<ParameterId>,
    pub(super) reach: Vec<i64>,
}

impl Conv {
    /// Declares weight and bias.
    ///
    /// # Panics
    ///
    /// If the configuration names different numbers of axes, none, or more than three.
    pub fn new(to: &mut Declarations, scope: &Scope, config: ConvConfig) -> Self {
        let ConvConfig { inputs, outputs, kernel, stride, dilation, groups, padding, .. } = &config;
        let num_axes = kernel.len();
        assert!((1..=3).contains(&num_axes), "a convolution has 1 to 3 axes");
        assert_eq!([stride.len(), dilation.len(), padding.len()], [num_axes; 3]);
        let shape = [&[*outputs, inputs / groups], kernel.as_slice()].concat();
        let fan_in: i64 = shape[1..].iter().product();
        let (of_weight, of_bias) = Init::of_layer(fan_in, config.deviation);
        let weight = Weight::new(to, scope, &shape, of_weight, config.has_weight_norm);
        let bias =
            config.has_bias.then(|| scope.declare(to, "bias", &[*outputs], Role::Bias, of_bias));
        let reach = kernel.iter().zip(dilation).map(|(taps, step)| (taps - 1) * step + 1).collect();
        Self { config, weight, bias, reach }
    }

    /// The weight, `[C', C / groups, kernel..]`; where it is normalised, its direction.
    pub fn weight(&self) -> ParameterId {
        self.weight.id()
    }

    /// The bias, `[C']`, where there is one.
    pub fn bias(&self) -> Option<ParameterId> {
        self.bias
    }
}

impl Block for Conv {
    fn forward(&self, parameters: &Parameters, input: &Tensor) -> Tensor {
        let ConvConfig { stride, dilation, groups, padding, .. } = &self.config;
        let (input, zeros) = pad(input, padding, &self.reach, stride);
        let steps = Steps { stride, padding: &zeros, dilation, groups: *groups };
        let weight = self.weight.get(parameters);
        steps.convolve(&input, &weight, self.bias.map(|bias| parameters.get(bias)), None)
    }

    fn describe(
        &self,
        parameters: &Parameters,
        graph: &mut Graph,
        input: Value,
    ) -> Result<Value, String> {
        let ConvConfig { stride, dilation, groups, padding, .. } = &self.config;
        let mut zeros = vec![(0, 0); padding.len()];
        let mut input = input;
        for (axis, pad) in padding.iter().enumerate() {
            let ends = pad.of_whole_strides(self.reach[axis], stride[axis]);
            if pad.fill == Fill::Zeros || ends == (0, 0) {
                zeros[axis] = ends;
                continue;
            }
            let mut of_axes = vec![(0, 0); padding.len()];
            of_axes[axis] = ends;
            input = graph.push(Op::Pad { ends: of_axes, fill: pad.fill }, &[input]);
        }
        let op = Op::Conv {
            weight: constant(&self.weight.get(parameters)),
            bias: self.bias.map(|bias| constant(parameters.get(bias))),
            stride: stride.clone(),
            dilation: dilation.clone(),
            groups: *groups,
            zeros,
        };
        Ok(graph.push(op, &[input]))
    }
}
