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

use super::Backbone;
use crate::chain::{Block, Chain};
use crate::layers::{Conv, ConvConfig, ConvTranspose, ConvTransposeConfig, Pad, Scope, Trim};
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
            return Err(format!(
                "model.backbone.kind = \"conv2d\" takes pictures, these data are {signal}: set it \
                 to \"dense\""
            ));
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
        if height < REDUCTION || width < REDUCTION || height % REDUCTION + width % REDUCTION != 0 {
            return Err(format!(
                "the conv2d backbone needs images whose sides are multiples of {REDUCTION}, found \
                 {height} x {width}: pack the data at another size"
            ));
        }
        Ok(())
    }
}

/// The reference encoder and decoder.
#[derive(Debug)]
pub struct Conv2d {
    encoder: Chain,
    decoder: Chain,
    output_bias: ParameterId,
}

impl Conv2d {
    /// Declares the parameters for images of `image_channels` and codes of `dim` channels.
    pub fn new(
        config: &Conv2dConfig,
        image_channels: i64,
        dim: i64,
        to: &mut Declarations,
    ) -> Self {
        let (wide, half) = (config.channels, config.channels / 2);

        let scope = Scope::new(Stage::Encoder, "encoder");
        let mut encoder = Chain::default();
        let down1 = Conv::new(to, &scope.child("down1"), halving(image_channels, half));
        encoder.push(Relu(down1));
        encoder.push(Relu(Conv::new(to, &scope.child("down2"), halving(half, wide))));
        let first = Conv::new(to, &scope.child("conv"), square(wide, wide, 3));
        push_residuals(&mut encoder, first, config, &scope, to);
        encoder.push(Conv::new(to, &scope.child("to_code"), square(wide, dim, 1)));

        let scope = Scope::new(Stage::Decoder, "decoder");
        let mut decoder = Chain::default();
        let first = Conv::new(to, &scope.child("conv"), square(dim, wide, 3));
        push_residuals(&mut decoder, first, config, &scope, to);
        decoder.push(Relu(ConvTranspose::new(to, &scope.child("up1"), doubling(wide, half))));
        let up2 = ConvTranspose::new(to, &scope.child("up2"), doubling(half, image_channels));
        let output_bias = up2.bias().expect("declared with a bias");
        decoder.push(up2);
        Self { encoder, decoder, output_bias }
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

    fn set_output_mean(&self, parameters: &Parameters, means_c: &Tensor) {
        parameters.master(self.output_bias).copy_(means_c);
    }
}

/// The first convolution, the residual blocks, and a ReLU on the output of the last of them.
fn push_residuals(
    chain: &mut Chain,
    first: Conv,
    config: &Conv2dConfig,
    scope: &Scope,
    to: &mut Declarations,
) {
    let (channels, inner) = (config.channels, config.residual_channels);
    if config.residual_layers == 0 {
        return chain.push(Relu(first));
    }
    chain.push(first);
    for layer in 0..config.residual_layers {
        let scope = scope.child(&format!("residual.{layer}"));
        let without_bias = |config| ConvConfig { has_bias: false, ..config };
        let (wide, narrow) = (square(channels, inner, 3), square(inner, channels, 1));
        let wide = Conv::new(to, &scope.child("conv1"), without_bias(wide));
        let narrow = Conv::new(to, &scope.child("conv2"), without_bias(narrow));
        let residual = Residual { wide, narrow };
        if layer + 1 == config.residual_layers {
            chain.push(Relu(residual));
        } else {
            chain.push(residual);
        }
    }
}

/// ReLU, 3x3, ReLU, 1x1, added to the input.
#[derive(Debug)]
struct Residual {
    wide: Conv,
    narrow: Conv,
}

impl Block for Residual {
    fn forward(&self, parameters: &Parameters, input: &Tensor) -> Tensor {
        let hidden = self.wide.forward(parameters, &input.relu()).relu_();
        let mut output = self.narrow.forward(parameters, &hidden);
        output += input;
        output
    }
}

/// A block, and a ReLU in place on its output.
#[derive(Debug)]
struct Relu<B>(B);

impl<B: Block> Block for Relu<B> {
    fn forward(&self, parameters: &Parameters, input: &Tensor) -> Tensor {
        self.0.forward(parameters, input).relu_()
    }
}

/// A convolution that keeps height and width.
fn square(inputs: i64, outputs: i64, kernel: i64) -> ConvConfig {
    ConvConfig::same_size(inputs, outputs, &[kernel, kernel])
}

/// A 4x4 convolution that halves height and width.
fn halving(inputs: i64, outputs: i64) -> ConvConfig {
    let padding = vec![Pad::zeros(1, 1); 2];
    ConvConfig { stride: vec![2, 2], padding, ..ConvConfig::new(inputs, outputs, &[4, 4]) }
}

/// A transposed 4x4 convolution that doubles height and width.
fn doubling(inputs: i64, outputs: i64) -> ConvTransposeConfig {
    let trim = vec![Trim::Fixed(1, 1); 2];
    ConvTransposeConfig { trim, ..ConvTransposeConfig::new(inputs, outputs, &[4, 4], &[2, 2]) }
}
