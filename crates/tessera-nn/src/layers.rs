//! Convolutions over [`Parameters`].
//!
//! Initial values are PyTorch's defaults: uniform within 1 / sqrt(fan-in) for weights and biases,
//! where the fan-in of a transposed convolution is counted over its second axis, as there.

use tch::Tensor;

use crate::parameters::{Declarations, ParameterId, Parameters, Stage};

/// Where a layer sits: its stage, and the dotted name in front of its tensors.
#[derive(Debug, Clone)]
pub(crate) struct Scope {
    pub(crate) stage: Stage,
    pub(crate) name: String,
}

impl Scope {
    pub(crate) fn child(&self, name: &str) -> Self {
        Self { stage: self.stage, name: format!("{}.{name}", self.name) }
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
pub(crate) struct Conv2d {
    weight: ParameterId,
    bias: Option<ParameterId>,
    geometry: Geometry,
}

impl Conv2d {
    pub(crate) fn new(to: &mut Declarations, scope: &Scope, geometry: Geometry) -> Self {
        let mut this = Self::without_bias(to, scope, geometry);
        let bound = bound(geometry.inputs, geometry.kernel);
        let name = format!("{}.bias", scope.name);
        this.bias = Some(to.declare(name, &[geometry.outputs], scope.stage, bound));
        this
    }

    pub(crate) fn without_bias(to: &mut Declarations, scope: &Scope, geometry: Geometry) -> Self {
        let Geometry { inputs, outputs, kernel, .. } = geometry;
        let name = format!("{}.weight", scope.name);
        let shape = [outputs, inputs, kernel, kernel];
        let weight = to.declare(name, &shape, scope.stage, bound(inputs, kernel));
        Self { weight, bias: None, geometry }
    }

    pub(crate) fn forward(&self, parameters: &Parameters, input: &Tensor) -> Tensor {
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
pub(crate) struct ConvTranspose2d {
    weight: ParameterId,
    bias: ParameterId,
    geometry: Geometry,
}

impl ConvTranspose2d {
    pub(crate) fn new(to: &mut Declarations, scope: &Scope, geometry: Geometry) -> Self {
        let Geometry { inputs, outputs, kernel, .. } = geometry;
        let bound = bound(outputs, kernel);
        let shape = [inputs, outputs, kernel, kernel];
        let weight = to.declare(format!("{}.weight", scope.name), &shape, scope.stage, bound);
        let bias = to.declare(format!("{}.bias", scope.name), &[outputs], scope.stage, bound);
        Self { weight, bias, geometry }
    }

    pub(crate) fn bias(&self) -> ParameterId {
        self.bias
    }

    pub(crate) fn forward(&self, parameters: &Parameters, input: &Tensor) -> Tensor {
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

fn bound(inputs: i64, kernel: i64) -> f64 {
    1.0 / ((inputs * kernel * kernel) as f64).sqrt()
}
