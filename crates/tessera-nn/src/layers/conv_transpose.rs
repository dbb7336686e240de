//! Transposed convolutions over one, two or three positional axes.

use tch::Tensor;

use super::Scope;
use super::steps::Steps;
use super::weight::Weight;
use crate::chain::Block;
use crate::graph::{Graph, Op, Value, constant};
use crate::parameters::{Declarations, Init, ParameterId, Parameters, Role};

/// What is cut off the ends of an axis of the full output.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Trim {
    /// So much before and so much behind. Equal numbers are what PyTorch calls padding.
    Fixed(i64, i64),
    /// Of P = kernel - stride, ceil(P `right_ratio`) behind and the rest before, as SEANet does it
    /// where it is causal; with a ratio of 1 an output depends on no later input.
    Causal {
        /// Share of what is cut that is cut behind, 0 to 1.
        right_ratio: f64,
    },
    /// Of P = kernel - stride, P / 2 behind and the rest before.
    Centered,
}

impl Trim {
    /// Numbers cut off before and behind.
    pub(super) fn ends(self, kernel: i64, stride: i64) -> (i64, i64) {
        let whole = kernel - stride;
        let behind = match self {
            Self::Fixed(before, behind) => return (before, behind),
            Self::Causal { right_ratio } => (whole as f64 * right_ratio).ceil() as i64,
            Self::Centered => whole / 2,
        };
        (whole - behind, behind)
    }
}

/// Size of a transposed convolution; the lists have an entry for each positional axis.
#[derive(Debug, Clone)]
pub struct ConvTransposeConfig {
    /// Channels of the input.
    pub inputs: i64,
    /// Channels of the output.
    pub outputs: i64,
    /// Taps along each axis.
    pub kernel: Vec<i64>,
    /// Output positions from one input to the next.
    pub stride: Vec<i64>,
    /// Output positions from one tap to the next.
    pub dilation: Vec<i64>,
    /// Groups of channels that see one another; divides inputs and outputs.
    pub groups: i64,
    /// What is cut off the ends.
    pub trim: Vec<Trim>,
    /// What the output is longer behind, before it is cut; below the stride or the dilation.
    pub output_padding: Vec<i64>,
    /// Whether a bias is added.
    pub has_bias: bool,
    /// Whether the weight is normalised, a length for each *input* channel.
    pub has_weight_norm: bool,
}

impl ConvTransposeConfig {
    /// Dilation 1, one group, nothing cut off and nothing added, a bias, no weight normalisation.
    pub fn new(inputs: i64, outputs: i64, kernel: &[i64], stride: &[i64]) -> Self {
        Self {
            inputs,
            outputs,
            kernel: kernel.to_vec(),
            stride: stride.to_vec(),
            dilation: vec![1; kernel.len()],
            groups: 1,
            trim: vec![Trim::Fixed(0, 0); kernel.len()],
            output_padding: vec![0; kernel.len()],
            has_bias: true,
            has_weight_norm: false,
        }
    }
}

/// `[N, C, ..]` to `[N, C', ..]`: what a convolution does to gradients at its output. The weight is
/// `[C, C' / groups, kernel..]`.
///
/// An axis of L becomes (L - 1) stride + dilation (kernel - 1) + 1 + output padding - what is cut.
#[derive(Debug)]
pub struct ConvTranspose {
    pub(super) config: ConvTransposeConfig,
    pub(super) weight: Weight,
    bias: Option<ParameterId>,
}

impl ConvTranspose {
    /// Declares weight and bias. The fan-in is counted over the weight's second axis, as PyTorch
    /// does.
    ///
    /// # Panics
    ///
    /// If the configuration names different numbers of axes, none, or more than three.
    pub fn new(to: &mut Declarations, scope: &Scope, config: ConvTransposeConfig) -> Self {
        let ConvTransposeConfig { inputs, outputs, kernel, stride, dilation, .. } = &config;
        let num_axes = kernel.len();
        assert!((1..=3).contains(&num_axes), "a convolution has 1 to 3 axes");
        let lens = [stride.len(), dilation.len(), config.trim.len(), config.output_padding.len()];
        assert_eq!(lens, [num_axes; 4]);
        let shape = [&[*inputs, outputs / config.groups], kernel.as_slice()].concat();
        let fan_in: i64 = shape[1..].iter().product();
        let init = Init::Uniform(1.0 / (fan_in as f64).sqrt());
        let weight = Weight::new(to, scope, &shape, init, config.has_weight_norm);
        let bias =
            config.has_bias.then(|| scope.declare(to, "bias", &[*outputs], Role::Bias, init));
        Self { config, weight, bias }
    }

    /// The weight, `[C, C' / groups, kernel..]`; where it is normalised, its direction.
    pub fn weight(&self) -> ParameterId {
        self.weight.id()
    }

    /// The bias, `[C']`, where there is one.
    pub fn bias(&self) -> Option<ParameterId> {
        self.bias
    }
}

impl Block for ConvTranspose {
    fn forward(&self, parameters: &Parameters, input: &Tensor) -> Tensor {
        let ConvTransposeConfig { kernel, stride, dilation, trim, .. } = &self.config;
        let ends = |(axis, trim): (usize, &Trim)| trim.ends(kernel[axis], stride[axis]);
        let ends: Vec<(i64, i64)> = trim.iter().enumerate().map(ends).collect();
        // What is cut off both ends is never computed.
        let both: Vec<i64> = ends.iter().map(|&(before, behind)| before.min(behind)).collect();
        let steps = Steps { stride, padding: &both, dilation, groups: self.config.groups };
        let weight = self.weight.get(parameters);
        let bias = self.bias.map(|bias| parameters.get(bias));
        let output_padding = self.config.output_padding.as_slice();
        let mut output = steps.convolve(input, &weight, bias, Some(output_padding));
        for (axis, (before, behind)) in ends.into_iter().enumerate() {
            let (before, behind) = (before - both[axis], behind - both[axis]);
            if before + behind > 0 {
                let axis = axis + 2;
                let len = output.size()[axis] - before - behind;
                output = output.narrow(axis as i64, before, len);
            }
        }
        output
    }

    fn describe(
        &self,
        parameters: &Parameters,
        graph: &mut Graph,
        input: Value,
    ) -> Result<Value, String> {
        let ConvTransposeConfig { kernel, stride, dilation, trim, groups, output_padding, .. } =
            &self.config;
        if output_padding.iter().any(|&more| more != 0) {
            return Err(
                "a transposed convolution with output padding has no form in a graph".to_owned()
            );
        }
        let cut = |(axis, trim): (usize, &Trim)| trim.ends(kernel[axis], stride[axis]);
        let op = Op::ConvTranspose {
            weight: constant(&self.weight.get(parameters)),
            bias: self.bias.map(|bias| constant(parameters.get(bias))),
            stride: stride.clone(),
            dilation: dilation.clone(),
            groups: *groups,
            cut: trim.iter().enumerate().map(cut).collect(),
        };
        Ok(graph.push(op, &[input]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: P = 8 - 4 = 4, and 7 - 4 = 3.
    #[test]
    fn what_is_cut_follows_the_ratio() {
        let causal = |right_ratio, kernel| Trim::Causal { right_ratio }.ends(kernel, 4);
        assert_eq!([causal(1.0, 8), causal(0.6, 8), causal(0.0, 8)], [(0, 4), (1, 3), (4, 0)]);
        assert_eq!(causal(0.5, 7), (1, 2));
        assert_eq!([Trim::Centered.ends(8, 4), Trim::Centered.ends(7, 4)], [(2, 2), (2, 1)]);
    }
}
