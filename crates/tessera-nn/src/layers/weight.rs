//! Weights of convolutions, plain or normalised.
//!
//! Weight normalisation follows Salimans and Kingma 2016 (<https://arxiv.org/abs/1602.07868>),
//! equation 2: w = g v / |v|, with one g for each slice along axis 0, as PyTorch's `weight_norm`
//! has it. Axis 0 is the outputs of a convolution and the *inputs* of a transposed one. g starts
//! at |v|, so w starts as v.

use tch::Tensor;

use super::Scope;
use crate::parameters::{Declarations, Init, ParameterId, Parameters, Role};

/// A weight as it is declared.
#[derive(Debug)]
pub(super) enum Weight {
    /// `weight`.
    Plain(ParameterId),
    /// `weight_g` and `weight_v`.
    Normed { g: ParameterId, v: ParameterId },
}

impl Weight {
    pub(super) fn new(
        to: &mut Declarations,
        scope: &Scope,
        shape: &[i64],
        init: Init,
        has_weight_norm: bool,
    ) -> Self {
        if !has_weight_norm {
            return Self::Plain(scope.declare(to, "weight", shape, Role::Weight, init));
        }
        let v = scope.declare(to, "weight_v", shape, Role::Weight, init);
        let mut lengths = vec![1; shape.len()];
        lengths[0] = shape[0];
        let g = scope.declare(to, "weight_g", &lengths, Role::Norm, Init::LengthsOf(v));
        Self::Normed { g, v }
    }

    /// The tensor that holds it; where it is normalised, its direction.
    pub(super) fn id(&self) -> ParameterId {
        match *self {
            Self::Plain(weight) => weight,
            Self::Normed { v, .. } => v,
        }
    }

    /// The weight that the layer computes with.
    pub(super) fn get(&self, parameters: &Parameters) -> Tensor {
        match *self {
            Self::Plain(weight) => parameters.get(weight).shallow_clone(),
            Self::Normed { g, v } => {
                let (g, v) = (parameters.get(g), parameters.get(v));
                let others: Vec<i64> = (1..v.dim() as i64).collect();
                v * (g / v.norm_scalaropt_dim(2.0, others.as_slice(), true))
            }
        }
    }
}
