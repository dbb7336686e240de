//! The blocks of VQGAN's network. Tensors `[N, C, H, W]` lie channels-last throughout, in the
//! backward pass too, so rows `[N, H W, C]` are views of them.

use tch::Tensor;

use crate::backbone::residual::describe_sum;
use crate::chain::Block;
use crate::cost;
use crate::graph::{Graph, Op, Sight, Value};
use crate::layers::resample::upsample_nearest;
use crate::layers::{Conv, ConvConfig, GroupNorm, LinearConfig, Pad, Pointwise, Scope};
use crate::parameters::{Declarations, Parameters};
use crate::signal::{channels_first, rows};

/// VQGAN's, where PyTorch's default is 1e-5.
const EPS: f64 = 1e-6;

/// The norm, and x / (1 + exp(-x)) of what it gives: all places that have both come here.
pub(super) fn norm_swish(norm: &GroupNorm, parameters: &Parameters, input: &Tensor) -> Tensor {
    norm.forward_silu(parameters, input)
}

/// [`norm_swish`] as a block.
#[derive(Debug)]
pub(super) struct NormSwish(GroupNorm);

impl NormSwish {
    pub(super) fn new(to: &mut Declarations, scope: &Scope, channels: i64, groups: i64) -> Self {
        Self(GroupNorm::new(to, scope, channels, groups, EPS))
    }
}

impl Block for NormSwish {
    fn forward(&self, parameters: &Parameters, input: &Tensor) -> Tensor {
        norm_swish(&self.0, parameters, input)
    }

    fn describe(
        &self,
        parameters: &Parameters,
        graph: &mut Graph,
        input: Value,
    ) -> Result<Value, String> {
        Ok(self.0.describe_silu(parameters, graph, input))
    }
}

/// Norm, swish, 3x3, norm, swish, 3x3, added to the input, which passes a 1x1 convolution where
/// channels change.
#[derive(Debug)]
pub(super) struct Residual {
    norm1: GroupNorm,
    conv1: Conv,
    norm2: GroupNorm,
    conv2: Conv,
    shortcut: Option<Conv>,
}

impl Residual {
    pub(super) fn new(
        to: &mut Declarations,
        scope: &Scope,
        inputs: i64,
        outputs: i64,
        groups: i64,
    ) -> Self {
        let conv = |to: &mut Declarations, name, inputs, kernel: i64| {
            let config = ConvConfig::same_size(inputs, outputs, &[kernel, kernel]);
            Conv::new(to, &scope.child(name), config)
        };
        let norm = |to: &mut Declarations, name, channels| {
            GroupNorm::new(to, &scope.child(name), channels, groups, EPS)
        };
        Self {
            norm1: norm(to, "norm1", inputs),
            conv1: conv(to, "conv1", inputs, 3),
            norm2: norm(to, "norm2", outputs),
            conv2: conv(to, "conv2", outputs, 3),
            shortcut: (inputs != outputs).then(|| conv(to, "nin_shortcut", inputs, 1)),
        }
    }
}

impl Block for Residual {
    fn forward(&self, parameters: &Parameters, input: &Tensor) -> Tensor {
        let hidden = norm_swish(&self.norm1, parameters, input);
        let hidden = self.conv1.forward(parameters, &hidden);
        let hidden = norm_swish(&self.norm2, parameters, &hidden);
        let mut output = self.conv2.forward(parameters, &hidden);
        match &self.shortcut {
            Some(shortcut) => output += shortcut.forward(parameters, input),
            None => output += input,
        }
        output
    }

    fn describe(
        &self,
        parameters: &Parameters,
        graph: &mut Graph,
        input: Value,
    ) -> Result<Value, String> {
        let hidden = self.norm1.describe_silu(parameters, graph, input);
        let hidden = self.conv1.describe(parameters, graph, hidden)?;
        let hidden = self.norm2.describe_silu(parameters, graph, hidden);
        let hidden = self.conv2.describe(parameters, graph, hidden)?;
        describe_sum(self.shortcut.as_ref(), parameters, graph, hidden, input)
    }
}

/// Norm, one head of attention over all positions, added to the input.
#[derive(Debug)]
pub(super) struct Attention {
    norm: GroupNorm,
    query: Pointwise,
    key: Pointwise,
    value: Pointwise,
    proj_out: Pointwise,
}

impl Attention {
    pub(super) fn new(to: &mut Declarations, scope: &Scope, channels: i64, groups: i64) -> Self {
        let norm = GroupNorm::new(to, &scope.child("norm"), channels, groups, EPS);
        let mut layer =
            |name| Pointwise::new(to, &scope.child(name), LinearConfig::new(channels, channels));
        let [query, key, value, proj_out] = ["q", "k", "v", "proj_out"].map(&mut layer);
        Self { norm, query, key, value, proj_out }
    }
}

impl Block for Attention {
    fn forward(&self, parameters: &Parameters, input: &Tensor) -> Tensor {
        let (height, width) = (input.size()[2], input.size()[3]);
        let hidden_nlc = rows(&self.norm.forward(parameters, input));
        let [query, key, value] = [&self.query, &self.key, &self.value]
            .map(|layer| layer.forward(parameters, &hidden_nlc).unsqueeze(1));
        cost::tell(|meter| {
            // Scores, and sums of values by them.
            meter.multiply_add(2 * hidden_nlc.numel() as i64 * height * width);
            for kept in [&query, &key, &value] {
                meter.keep(kept);
            }
        });
        let none: Option<&Tensor> = None;
        let seen = Tensor::scaled_dot_product_attention(
            &query, &key, &value, none, 0.0, false, None, false,
        );
        let output_nlc = self.proj_out.forward(parameters, &seen.squeeze_dim(1)) + rows(input);
        channels_first(&output_nlc.unflatten(1, [height, width]))
    }

    fn describe(
        &self,
        parameters: &Parameters,
        graph: &mut Graph,
        input: Value,
    ) -> Result<Value, String> {
        let hidden = self.norm.describe(parameters, graph, input)?;
        let mut seen = Vec::new();
        for layer in [&self.query, &self.key, &self.value] {
            seen.push(layer.describe(parameters, graph, hidden)?);
        }
        let head_dim = parameters.get(self.query.weight()).size()[0];
        let seen = graph.push(Op::Attention { heads: 1, head_dim, sight: Sight::ALL }, &seen);
        let output = self.proj_out.describe(parameters, graph, seen)?;
        Ok(graph.push(Op::Add, &[output, input]))
    }
}

/// Half the height and width: a 3x3 convolution of stride 2, of the input with one row and one
/// column of zeros behind.
pub(super) fn down(to: &mut Declarations, scope: &Scope, channels: i64) -> Conv {
    let padding = vec![Pad::zeros(0, 1); 2];
    let config = ConvConfig::new(channels, channels, &[3, 3]);
    Conv::new(to, scope, ConvConfig { stride: vec![2, 2], padding, ..config })
}

/// Twice the height and width: each position four times, and a 3x3 convolution.
#[derive(Debug)]
pub(super) struct Up(Conv);

impl Up {
    pub(super) fn new(to: &mut Declarations, scope: &Scope, channels: i64) -> Self {
        Self(Conv::new(to, scope, ConvConfig::same_size(channels, channels, &[3, 3])))
    }
}

impl Block for Up {
    fn forward(&self, parameters: &Parameters, input: &Tensor) -> Tensor {
        self.0.forward(parameters, &upsample_nearest(input, &[2, 2]))
    }

    fn describe(
        &self,
        parameters: &Parameters,
        graph: &mut Graph,
        input: Value,
    ) -> Result<Value, String> {
        let larger = graph.push(Op::Repeat(vec![2, 2]), &[input]);
        self.0.describe(parameters, graph, larger)
    }
}
