//! Norms, each over one sample or one row: no statistics pass between samples, so they are exact
//! over any number of ranks and micro-batches. There is no batch norm for that reason.

use tch::Tensor;

use super::{Activation, Scope};
use crate::chain::Block;
use crate::cost;
use crate::fused;
use crate::graph::{Each, Graph, Op, Value, constant};
use crate::parameters::{Declarations, Init, ParameterId, Parameters, Role};
use crate::signal::{from_frames, to_frames};

/// Film's positional axis of time.
const TIME: usize = 0;

/// Scale and shift of each channel, from 1 and 0.
#[derive(Debug)]
struct Affine {
    weight: ParameterId,
    bias: ParameterId,
}

impl Affine {
    fn new(to: &mut Declarations, scope: &Scope, channels: i64) -> Self {
        let weight = scope.declare(to, "weight", &[channels], Role::Norm, Init::Constant(1.0));
        let bias = scope.declare(to, "bias", &[channels], Role::Norm, Init::Constant(0.0));
        Self { weight, bias }
    }
}

/// `[N, C, ..]` to the same shape: (x - mean) / sqrt(variance + eps) with mean and variance over the
/// positions of a sample and the channels of a group, then scale and shift by channel.
///
/// Follows Wu and He 2018 (<https://arxiv.org/abs/1803.08494>), equation 7. The variance is
/// the biased one. VQGAN has an eps of 1e-6, PyTorch's default is 1e-5.
#[derive(Debug)]
pub struct GroupNorm {
    affine: Affine,
    groups: i64,
    eps: f64,
}

impl GroupNorm {
    /// Declares scale and shift of `channels`, which `groups` divides.
    pub fn new(to: &mut Declarations, scope: &Scope, channels: i64, groups: i64, eps: f64) -> Self {
        Self { affine: Affine::new(to, scope, channels), groups, eps }
    }

    /// SiLU of the norm, as one function: on a CPU without what lies between them in memory, and without a second
    /// derivative.
    pub fn forward_silu(&self, parameters: &Parameters, input: &Tensor) -> Tensor {
        if fused::takes(input) {
            self.fused(parameters, input, true)
        } else {
            Activation::Silu.of(&self.plain(parameters, input))
        }
    }

    /// [`Block::describe`] with SiLU of what the norm gives.
    pub(crate) fn describe_silu(
        &self,
        parameters: &Parameters,
        graph: &mut Graph,
        input: Value,
    ) -> Value {
        let normed = self.describe_norm(parameters, graph, input);
        graph.each(Each::Silu, normed)
    }

    fn describe_norm(&self, parameters: &Parameters, graph: &mut Graph, input: Value) -> Value {
        let [weight, bias] =
            [self.affine.weight, self.affine.bias].map(|id| constant(parameters.get(id)));
        graph.push(Op::GroupNorm { groups: self.groups, eps: self.eps, weight, bias }, &[input])
    }

    fn fused(&self, parameters: &Parameters, input: &Tensor, is_silu: bool) -> Tensor {
        cost::tell(|meter| meter.keep(input));
        let affine = [self.affine.weight, self.affine.bias].map(|id| parameters.get(id));
        fused::group_norm::group_norm(input, affine, self.groups, self.eps, is_silu)
    }

    fn plain(&self, parameters: &Parameters, input: &Tensor) -> Tensor {
        cost::tell(|meter| meter.keep(input));
        let [weight, bias] = [self.affine.weight, self.affine.bias].map(|id| parameters.get(id));
        input.group_norm(self.groups, Some(weight), Some(bias), self.eps, true)
    }
}

impl Block for GroupNorm {
    fn forward(&self, parameters: &Parameters, input: &Tensor) -> Tensor {
        // libtorch's own is as fast where positions are last.
        if fused::takes(input) && !input.is_contiguous() {
            self.fused(parameters, input, false)
        } else {
            self.plain(parameters, input)
        }
    }

    fn describe(
        &self,
        parameters: &Parameters,
        graph: &mut Graph,
        input: Value,
    ) -> Result<Value, String> {
        Ok(self.describe_norm(parameters, graph, input))
    }
}

/// `[N, C, T, H, W]` to the same shape: the group norm with one group of each frame by itself, so that no
/// frame hangs on a later one.
#[derive(Debug)]
pub struct FrameNorm(GroupNorm);

impl FrameNorm {
    /// Declares scale and shift of `channels`.
    pub fn new(to: &mut Declarations, scope: &Scope, channels: i64, eps: f64) -> Self {
        Self(GroupNorm::new(to, scope, channels, 1, eps))
    }

    /// SiLU of the norm, as [`GroupNorm::forward_silu`].
    pub fn forward_silu(&self, parameters: &Parameters, input: &Tensor) -> Tensor {
        let frames = self.0.forward_silu(parameters, &to_frames(input));
        from_frames(&frames, input.size()[2])
    }
}

impl Block for FrameNorm {
    fn forward(&self, parameters: &Parameters, input: &Tensor) -> Tensor {
        let frames = self.0.forward(parameters, &to_frames(input));
        from_frames(&frames, input.size()[2])
    }

    fn describe(
        &self,
        parameters: &Parameters,
        graph: &mut Graph,
        input: Value,
    ) -> Result<Value, String> {
        let frames = graph.push(Op::Fold(vec![TIME]), &[input]);
        let normed = self.0.describe(parameters, graph, frames)?;
        Ok(graph.push(Op::Unfold(vec![TIME]), &[normed, input]))
    }
}

/// `[.., C]` to the same shape: each row less its mean, over its deviation, then scale and shift by
/// channel.
///
/// Follows Ba et al. 2016 (<https://arxiv.org/abs/1607.06450>), equation 4, with eps in the
/// root.
#[derive(Debug)]
pub struct LayerNorm {
    affine: Affine,
    channels: i64,
    eps: f64,
}

impl LayerNorm {
    /// Declares scale and shift of `channels`.
    pub fn new(to: &mut Declarations, scope: &Scope, channels: i64, eps: f64) -> Self {
        Self { affine: Affine::new(to, scope, channels), channels, eps }
    }
}

impl Block for LayerNorm {
    fn forward(&self, parameters: &Parameters, input: &Tensor) -> Tensor {
        let [weight, bias] = [self.affine.weight, self.affine.bias].map(|id| parameters.get(id));
        cost::tell(|meter| meter.keep(input));
        input.layer_norm([self.channels], Some(weight), Some(bias), self.eps, true)
    }

    /// Of channels in front, as all values of a graph have them.
    fn describe(
        &self,
        parameters: &Parameters,
        graph: &mut Graph,
        input: Value,
    ) -> Result<Value, String> {
        let [weight, bias] =
            [self.affine.weight, self.affine.bias].map(|id| constant(parameters.get(id)));
        Ok(graph.push(Op::LayerNorm { eps: self.eps, weight, bias }, &[input]))
    }
}

/// `[.., C]` to the same shape: each row over the root of its mean square, then a scale by channel.
///
/// Follows Zhang and Sennrich 2019 (<https://arxiv.org/abs/1910.07467>), equation 4, with eps in
/// the root.
#[derive(Debug)]
pub struct RmsNorm {
    weight: ParameterId,
    channels: i64,
    eps: f64,
}

impl RmsNorm {
    /// Declares the scale of `channels`.
    pub fn new(to: &mut Declarations, scope: &Scope, channels: i64, eps: f64) -> Self {
        let weight = scope.declare(to, "weight", &[channels], Role::Norm, Init::Constant(1.0));
        Self { weight, channels, eps }
    }
}

impl Block for RmsNorm {
    fn forward(&self, parameters: &Parameters, input: &Tensor) -> Tensor {
        cost::tell(|meter| meter.keep(input));
        let weight = parameters.get(self.weight);
        if fused::takes(input) {
            fused::rows::rms_norm(input, weight, self.eps)
        } else {
            input.rms_norm([self.channels], Some(weight), self.eps)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::{Kinds, Stage};
    use tch::{Device, Kind};

    /// By hand: frame (0, 2 | 4, 6) of two channels has mean 3 and variance 5; the other's mean is 7.25 and its deviation 0.25.
    #[test]
    fn a_frame_is_normed_by_itself_over_all_channels() {
        let mut to = Declarations::default();
        let norm = FrameNorm::new(&mut to, &Scope::new(Stage::Encoder, "encoder"), 2, 0.0);
        let parameters = to.allocate(0, Kinds::same(Kind::Double), Device::Cpu);
        // [1, 2, 2, 1, 2]: channel, frame, column.
        let input =
            Tensor::from_slice(&[0.0, 2.0, 7.0, 7.5, 4.0, 6.0, 7.0, 7.5]).view([1, 2, 2, 1, 2]);
        let found = norm.forward(&parameters, &input);
        let first = Tensor::from_slice(&[-3.0, -1.0, 1.0, 3.0]) / 5f64.sqrt();
        let second = Tensor::from_slice(&[-1.0, 1.0, -1.0, 1.0]);
        for (frame, expected) in [(0, first), (1, second)] {
            let off =
                (found.select(2, frame).reshape([4]) - &expected).abs().max().double_value(&[]);
            assert!(off < 1e-12, "{frame}: {off:e}");
            let silu = norm.forward_silu(&parameters, &input).select(2, frame).reshape([4]);
            let off = (silu - expected.silu()).abs().max().double_value(&[]);
            assert!(off < 1e-12, "{frame}: {off:e}");
        }
    }
}
