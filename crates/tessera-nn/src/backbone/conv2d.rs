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

use crate::layers::{Conv2d, ConvTranspose2d, Geometry, Scope};
use crate::parameters::{Declarations, ParameterId, Parameters, Stage};

/// Input pixels per latent position, along each axis.
pub(super) const REDUCTION: i64 = 4;

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
    pub(super) fn validate(&self, height: i64, width: i64) -> Result<(), String> {
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

/// ReLU, 3x3, ReLU, 1x1, added to the input.
#[derive(Debug)]
struct Residual {
    wide: Conv2d,
    narrow: Conv2d,
}

impl Residual {
    fn stack(config: &Conv2dConfig, scope: &Scope, to: &mut Declarations) -> Vec<Self> {
        let (channels, inner) = (config.channels, config.residual_channels);
        (0..config.residual_layers)
            .map(|layer| {
                let scope = scope.child(&format!("residual.{layer}"));
                let wide = square(channels, inner, 3);
                let narrow = square(inner, channels, 1);
                Self {
                    wide: Conv2d::without_bias(to, &scope.child("conv1"), wide),
                    narrow: Conv2d::without_bias(to, &scope.child("conv2"), narrow),
                }
            })
            .collect()
    }

    fn forward(&self, parameters: &Parameters, input: &Tensor) -> Tensor {
        let hidden = self.wide.forward(parameters, &input.relu()).relu_();
        let mut output = self.narrow.forward(parameters, &hidden);
        output += input;
        output
    }
}

/// The reference encoder and decoder.
#[derive(Debug)]
pub struct Conv2dBackbone {
    down1: Conv2d,
    down2: Conv2d,
    encoder_in: Conv2d,
    encoder_residuals: Vec<Residual>,
    to_code: Conv2d,
    decoder_in: Conv2d,
    decoder_residuals: Vec<Residual>,
    up1: ConvTranspose2d,
    up2: ConvTranspose2d,
}

impl Conv2dBackbone {
    /// Declares the parameters for images of `image_channels` and codes of `dim` channels.
    pub fn new(
        config: &Conv2dConfig,
        image_channels: i64,
        dim: i64,
        to: &mut Declarations,
    ) -> Self {
        let (wide, half) = (config.channels, config.channels / 2);
        let encoder = Scope { stage: Stage::Encoder, name: "encoder".into() };
        let decoder = Scope { stage: Stage::Decoder, name: "decoder".into() };
        Self {
            down1: Conv2d::new(to, &encoder.child("down1"), halving(image_channels, half)),
            down2: Conv2d::new(to, &encoder.child("down2"), halving(half, wide)),
            encoder_in: Conv2d::new(to, &encoder.child("conv"), square(wide, wide, 3)),
            encoder_residuals: Residual::stack(config, &encoder, to),
            to_code: Conv2d::new(to, &encoder.child("to_code"), square(wide, dim, 1)),
            decoder_in: Conv2d::new(to, &decoder.child("conv"), square(dim, wide, 3)),
            decoder_residuals: Residual::stack(config, &decoder, to),
            up1: ConvTranspose2d::new(to, &decoder.child("up1"), halving(wide, half)),
            up2: ConvTranspose2d::new(to, &decoder.child("up2"), halving(half, image_channels)),
        }
    }

    /// The bias of the output, `[C]`.
    pub fn output_bias(&self) -> ParameterId {
        self.up2.bias()
    }

    /// Images `[N, C, H, W]` to latents `[N, D, H/4, W/4]`.
    pub fn encode(&self, parameters: &Parameters, images_nchw: &Tensor) -> Tensor {
        let hidden = self.down1.forward(parameters, images_nchw).relu_();
        let hidden = self.down2.forward(parameters, &hidden).relu_();
        let hidden = self.encoder_in.forward(parameters, &hidden);
        let hidden = through(&self.encoder_residuals, parameters, hidden);
        self.to_code.forward(parameters, &hidden)
    }

    /// Quantised latents `[N, D, h, w]` to images `[N, C, 4h, 4w]`.
    pub fn decode(&self, parameters: &Parameters, latents_ndhw: &Tensor) -> Tensor {
        let hidden = self.decoder_in.forward(parameters, latents_ndhw);
        let hidden = through(&self.decoder_residuals, parameters, hidden);
        let hidden = self.up1.forward(parameters, &hidden).relu_();
        self.up2.forward(parameters, &hidden)
    }
}

/// The residual blocks and the ReLU behind them.
fn through(residuals: &[Residual], parameters: &Parameters, mut hidden: Tensor) -> Tensor {
    for residual in residuals {
        hidden = residual.forward(parameters, &hidden);
    }
    hidden.relu_()
}

/// A convolution that keeps height and width.
fn square(inputs: i64, outputs: i64, kernel: i64) -> Geometry {
    Geometry { inputs, outputs, kernel, stride: 1, padding: kernel / 2 }
}

/// A 4x4 convolution that halves height and width; transposed, it doubles them.
fn halving(inputs: i64, outputs: i64) -> Geometry {
    Geometry { inputs, outputs, kernel: 4, stride: 2, padding: 1 }
}
