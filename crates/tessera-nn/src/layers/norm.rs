//! Norms, each over one sample or one row: no statistics pass between samples, so they are exact
//! over any number of ranks and micro-batches. There is no batch norm for that reason.

use tch::Tensor;

use super::Scope;
use crate::chain::Block;
use crate::parameters::{Declarations, Init, ParameterId, Parameters, Role};

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
}

impl Block for GroupNorm {
    fn forward(&self, parameters: &Parameters, input: &Tensor) -> Tensor {
        let [weight, bias] = [self.affine.weight, self.affine.bias].map(|id| parameters.get(id));
        input.group_norm(self.groups, Some(weight), Some(bias), self.eps, true)
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
        input.layer_norm([self.channels], Some(weight), Some(bias), self.eps, true)
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
        input.rms_norm([self.channels], Some(parameters.get(self.weight)), self.eps)
    }
}
