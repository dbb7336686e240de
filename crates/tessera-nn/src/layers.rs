//! Convolutions over [`Parameters`].
//!
//! Initial values are PyTorch's defaults: uniform within 1 / sqrt(fan-in) for weights and biases,
//! where the fan-in of a transposed convolution is counted over its second axis, as there.

use tch::Tensor;

use crate::chain::Block;
use crate::parameters::{Declarations, Init, ParameterId, Parameters, Role, Stage};

/// Where a layer sits: its stage, and the dotted name in front of its tensors.
#[derive(Debug, Clone)]
pub struct Scope {
    /// The part of the model.
    pub stage: Stage,
    /// The name, without a dot at its end.
    pub name: String,
}

impl Scope {
    /// The outermost scope of a stage.
    pub fn new(stage: Stage, name: &str) -> Self {
        Self { stage, name: name.to_owned() }
    }

    /// A scope within this one.
    pub fn child(&self, name: &str) -> Self {
        Self { stage: self.stage, name: format!("{}.{name}", self.name) }
    }

    /// Declares a tensor of this scope.
    pub fn declare(
        &self,
        to: &mut Declarations,
        name: &str,
        shape: &[i64],
        role: Role,
        init: Init,
    ) -> ParameterId {
        to.declare(format!("{}.{name}", self.name), shape, self.stage, role, init)
    }
}

/// A linear layer with a bias.
#[derive(Debug)]
pub(crate) struct Linear {
    weight: ParameterId,
    bias: ParameterId,
}

impl Linear {
    pub(crate) fn new(to: &mut Declarations, scope: &Scope, inputs: i64, outputs: i64) -> Self {
        let init = Init::Uniform(1.0 / (inputs as f64).sqrt());
        let weight = scope.declare(to, "weight", &[outputs, inputs], Role::Weight, init);
        let bias = scope.declare(to, "bias", &[outputs], Role::Bias, init);
        Self { weight, bias }
    }

    pub(crate) fn bias(&self) -> ParameterId {
        self.bias
    }

    pub(crate) fn forward(&self, parameters: &Parameters, input: &Tensor) -> Tensor {
        input.linear(parameters.get(self.weight), Some(parameters.get(self.bias)))
    }
}

/// Size of a convolution.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Geometry {
    pub(crate) inputs: i64,
    pub(crate) outputs: i64,
    pub(crate) kernel: i64,
    pub(crate) stride: i64,
    pub(crate) padding: i64,
}

/// A two-dimensional convolution, `[N, C, H, W]` to `[N, C', H', W']`.
#[derive(Debug)]
pub(crate) struct Conv {
    weight: ParameterId,
    bias: Option<ParameterId>,
    geometry: Geometry,
}

impl Conv {
    pub(crate) fn new(to: &mut Declarations, scope: &Scope, geometry: Geometry) -> Self {
        let mut this = Self::without_bias(to, scope, geometry);
        let bound = bound(geometry.inputs, geometry.kernel);
        this.bias = Some(scope.declare(to, "bias", &[geometry.outputs], Role::Bias, bound));
        this
    }

    pub(crate) fn without_bias(to: &mut Declarations, scope: &Scope, geometry: Geometry) -> Self {
        let Geometry { inputs, outputs, kernel, .. } = geometry;
        let shape = [outputs, inputs, kernel, kernel];
        let weight = scope.declare(to, "weight", &shape, Role::Weight, bound(inputs, kernel));
        Self { weight, bias: None, geometry }
    }
}

impl Block for Conv {
    fn forward(&self, parameters: &Parameters, input: &Tensor) -> Tensor {
        let Geometry { stride, padding, .. } = self.geometry;
        input.conv2d(
            parameters.get(self.weight),
            self.bias.map(|bias| parameters.get(bias)),
            [stride, stride],
            [padding, padding],
            [1, 1],
            1,
        )
    }
}

/// A transposed two-dimensional convolution, `[N, C, H, W]` to `[N, C', H', W']`.
#[derive(Debug)]
pub(crate) struct ConvTranspose {
    weight: ParameterId,
    bias: ParameterId,
    geometry: Geometry,
}

impl ConvTranspose {
    pub(crate) fn new(to: &mut Declarations, scope: &Scope, geometry: Geometry) -> Self {
        let Geometry { inputs, outputs, kernel, .. } = geometry;
        let bound = bound(outputs, kernel);
        let shape = [inputs, outputs, kernel, kernel];
        let weight = scope.declare(to, "weight", &shape, Role::Weight, bound);
        let bias = scope.declare(to, "bias", &[outputs], Role::Bias, bound);
        Self { weight, bias, geometry }
    }

    pub(crate) fn bias(&self) -> ParameterId {
        self.bias
    }
}

impl Block for ConvTranspose {
    fn forward(&self, parameters: &Parameters, input: &Tensor) -> Tensor {
        let Geometry { stride, padding, .. } = self.geometry;
        input.conv_transpose2d(
            parameters.get(self.weight),
            Some(parameters.get(self.bias)),
            [stride, stride],
            [padding, padding],
            [0, 0],
            1,
            [1, 1],
        )
    }
}

fn bound(inputs: i64, kernel: i64) -> Init {
    Init::Uniform(1.0 / ((inputs * kernel * kernel) as f64).sqrt())
}
