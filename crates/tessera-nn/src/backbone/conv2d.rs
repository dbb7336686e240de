//! The reference network for images: strided convolutions and residual blocks.
//!
//! Follows van den Oord et al. 2017 (<https://arxiv.org/abs/1711.00937>), section 4.1, in the
//! form that DeepMind's notebook gave it: two strided 4x4 convolutions, a 3x3 one, residual
//! blocks (ReLU, 3x3, ReLU, 1x1, no bias), a 1x1 convolution to the code's channels, and the
//! mirror image with transposed convolutions. Works on channels-last tensors throughout; ReLU and
//! the residual sum are done in place on outputs of convolutions, which autograd does not need.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::residual::{Relu, Residuals, doubling, halving, square};
use super::{Backbone, Ends, check_sides, other_signal};
use crate::chain::Chain;
use crate::layers::{Conv, ConvTranspose, Scope};
use crate::parameters::{Declarations, ParameterId, Parameters, Stage};
use crate::signal::Signal;

/// Input pixels per latent position, along each axis.
const REDUCTION: i64 = 4;

/// Width and depth of the reference network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Conv2dConfig {
    /// Channels of the hidden layers; the outermost ones have half as many. Even, at least 2.
    pub channels: i64,
    /// Residual blocks on each side; 0 or more.
    pub residual_layers: i64,
    /// Channels inside a residual block.
    pub residual_channels: i64,
}

impl Default for Conv2dConfig {
    fn default() -> Self {
        Self { channels: 128, residual_layers: 2, residual_channels: 32 }
    }
}

impl Conv2dConfig {
    pub(super) fn validate(&self, signal: &Signal) -> Result<(), String> {
        let Signal::Image { height, width, .. } = *signal else {
            return Err(other_signal("conv2d", "pictures", signal));
        };
        if self.channels < 2 || self.channels % 2 != 0 {
            return Err(format!(
                "model.backbone.channels should be even and at least 2, found {}",
                self.channels
            ));
        }
        if self.residual_layers < 0 {
            return Err(format!(
                "model.backbone.residual_layers should be 0 or more, found {}",
                self.residual_layers
            ));
        }
        if self.residual_channels < 1 {
            return Err(format!(
                "model.backbone.residual_channels should be at least 1, found {}",
                self.residual_channels
            ));
        }
        check_sides("conv2d", height, width, REDUCTION)
    }
}

/// The reference encoder and decoder.
#[derive(Debug)]
pub struct Conv2d {
    encoder: Chain,
    decoder: Chain,
    output_weight: ParameterId,
    output_bias: ParameterId,
}

impl Conv2d {
    /// Declares the parameters.
    pub fn new(config: &Conv2dConfig, ends: &Ends<'_>, to: &mut Declarations) -> Self {
        let (wide, half) = (config.channels, config.channels / 2);
        let (image_channels, dim) = (ends.signal.channels(), ends.dim());
        let (layers, inner) = (config.residual_layers, config.residual_channels);
        let residuals = Residuals { channels: wide, layers, inner, has_bias: false };

        let scope = Scope::new(Stage::Encoder, "encoder");
        let mut encoder = Chain::default();
        let down1 = Conv::new(to, &scope.child("down1"), halving(image_channels, half));
        encoder.push(Relu(down1));
        encoder.push(Relu(Conv::new(to, &scope.child("down2"), halving(half, wide))));
        let first = Conv::new(to, &scope.child("conv"), square(wide, wide, 3));
        residuals.push(&mut encoder, first, &scope, to);
        encoder.push(Conv::new(to, &scope.child("to_code"), square(wide, dim, 1)));

        let scope = Scope::new(Stage::Decoder, "decoder");
        let mut decoder = Chain::default();
        let first = Conv::new(to, &scope.child("conv"), square(dim, wide, 3));
        residuals.push(&mut decoder, first, &scope, to);
        decoder.push(Relu(ConvTranspose::new(to, &scope.child("up1"), doubling(wide, half))));
        let up2 = ConvTranspose::new(to, &scope.child("up2"), doubling(half, ends.outputs));
        let output_bias = up2.bias().expect("declared with a bias");
        let output_weight = up2.weight();
        decoder.push(up2);
        Self { encoder, decoder, output_weight, output_bias }
    }
}

impl Backbone for Conv2d {
    fn encoder(&self) -> &Chain {
        &self.encoder
    }

    fn decoder(&self) -> &Chain {
        &self.decoder
    }

    fn latent_axes(&self, signal: &Signal) -> Vec<i64> {
        signal.axes().iter().map(|size| size / REDUCTION).collect()
    }

    fn output_weight(&self) -> ParameterId {
        self.output_weight
    }

    fn set_output_mean(&self, parameters: &Parameters, means_c: &Tensor) {
        parameters.master(self.output_bias).copy_(means_c);
    }
}
