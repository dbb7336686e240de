//! VQGAN's network for pictures: residual blocks on levels of halved sides, with attention where
//! pictures are small.
//!
//! Follows Esser et al. 2021 (<https://arxiv.org/abs/2012.09841>) in the form of the authors' code,
//! taming-transformers, which LlamaGen and diffusers' `VQModel` share; [`names`] leads from our
//! tensors to theirs. There are no bridges from encoder to decoder, whatever the shape of a U
//! suggests. The convolutions `quant_conv` (to the channels of codes) and `post_quant_conv` (back)
//! belong to encoder and decoder.
//!
//! Weights start as PyTorch's defaults, as those of the sources do. There is no dropout.

mod blocks;
pub mod names;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::Tensor;

use self::blocks::{Attention, NormSwish, Residual, Up, down};
use super::{Backbone, Ends, check_range, check_sides, other_signal};
use crate::chain::Chain;
use crate::layers::{Conv, ConvConfig, Scope};
use crate::parameters::{Declarations, ParameterId, Parameters, Stage};
use crate::signal::Signal;

/// Most levels.
const MAX_LEVELS: usize = 8;

/// Width and depth of VQGAN's network.
///
/// The defaults are for pictures of 32 to 64 pixels: 1.07 million parameters, sides a quarter as
/// long. VQGAN for 256 pixels has `channels = 128`, `multipliers = [1, 1, 2, 2, 4]`,
/// `residual_blocks = 2`, `attention_resolutions = [16]`, `groups = 32`, `latent_channels = 256`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UNet2dConfig {
    /// Channels at full size; 1 to 4096.
    pub channels: i64,
    /// Channels of each level, as multiples of `channels`; 1 to 8 levels, each 1 to 64. The sides
    /// of a picture are halved from each level to the next.
    pub multipliers: Vec<i64>,
    /// Residual blocks of a level in the encoder; the decoder has one more. 1 to 64.
    pub residual_blocks: i64,
    /// Levels with attention behind each residual block, by the shorter side of a picture there.
    pub attention_resolutions: Vec<i64>,
    /// Groups of channels that are normalised together; divides `channels`. With fewer than 4
    /// channels in a group a norm takes most of what its channels say; VQGAN's 32 are for 128
    /// channels and more.
    pub groups: i64,
    /// Channels between these networks and the layers to and from codes; 1 to 65536.
    pub latent_channels: i64,
    /// Whether there is attention in the middle, where sides are shortest.
    pub middle_attention: bool,
}

impl Default for UNet2dConfig {
    fn default() -> Self {
        Self {
            channels: 32,
            multipliers: vec![1, 2, 2],
            residual_blocks: 1,
            attention_resolutions: Vec::new(),
            groups: 8,
            latent_channels: 64,
            middle_attention: true,
        }
    }
}

impl UNet2dConfig {
    pub(super) fn validate(&self, signal: &Signal) -> Result<(), String> {
        let Signal::Image { height, width, .. } = *signal else {
            return Err(other_signal("unet2d", "pictures", signal));
        };
        check_range("channels", self.channels, 4096)?;
        check_range("residual_blocks", self.residual_blocks, 64)?;
        check_range("groups", self.groups, 4096)?;
        check_range("latent_channels", self.latent_channels, 65536)?;
        if !(1..=MAX_LEVELS).contains(&self.multipliers.len()) {
            return Err(format!(
                "model.backbone.multipliers should have 1 to {MAX_LEVELS} numbers, found {}",
                self.multipliers.len()
            ));
        }
        if let Some(found) = self.multipliers.iter().find(|number| !(1..=64).contains(*number)) {
            return Err(format!(
                "model.backbone.multipliers should be numbers from 1 to 64, found {found}"
            ));
        }
        // Each level has a multiple of these channels.
        if self.channels % self.groups != 0 {
            return Err(format!(
                "model.backbone.groups should divide model.backbone.channels, {}, found {}",
                self.channels, self.groups
            ));
        }
        check_sides("unet2d", height, width, self.reduction())?;
        let sides: Vec<i64> =
            (0..self.multipliers.len()).map(|level| height.min(width) >> level).collect();
        match self.attention_resolutions.iter().find(|side| !sides.contains(side)) {
            None => Ok(()),
            Some(found) => Err(format!(
                "model.backbone.attention_resolutions should be among {sides:?}, the shorter sides \
                 of the levels of {height} x {width} pictures, found {found}"
            )),
        }
    }

    /// Input pixels per latent position, along each axis.
    fn reduction(&self) -> i64 {
        1 << (self.multipliers.len() - 1)
    }

    /// Channels of each level.
    fn widths(&self) -> Vec<i64> {
        self.multipliers.iter().map(|multiplier| multiplier * self.channels).collect()
    }
}

/// The encoder and decoder.
#[derive(Debug)]
pub struct UNet2d {
    encoder: Chain,
    decoder: Chain,
    reduction: i64,
    output_weight: ParameterId,
    output_bias: ParameterId,
}

impl UNet2d {
    /// Declares the parameters.
    pub fn new(config: &UNet2dConfig, ends: &Ends<'_>, to: &mut Declarations) -> Self {
        let encoder = encoder(config, ends, to);
        let (decoder, output_weight, output_bias) = decoder(config, ends, to);
        Self { encoder, decoder, reduction: config.reduction(), output_weight, output_bias }
    }
}

impl Backbone for UNet2d {
    fn encoder(&self) -> &Chain {
        &self.encoder
    }

    fn decoder(&self) -> &Chain {
        &self.decoder
    }

    fn latent_axes(&self, signal: &Signal) -> Vec<i64> {
        signal.axes().iter().map(|size| size / self.reduction).collect()
    }

    fn output_weight(&self) -> ParameterId {
        self.output_weight
    }

    fn set_output_mean(&self, parameters: &Parameters, means_c: &Tensor) {
        parameters.master(self.output_bias).copy_(means_c);
    }
}

fn encoder(config: &UNet2dConfig, ends: &Ends<'_>, to: &mut Declarations) -> Chain {
    let (scope, groups) = (Scope::new(Stage::Encoder, "encoder"), config.groups);
    let (widths, mut width) = (config.widths(), config.channels);
    let mut chain = Chain::default();
    chain.push(conv(to, &scope, "conv_in", ends.signal.channels(), width, 3));
    for (level, &wide) in widths.iter().enumerate() {
        let scope = scope.child(&format!("down.{level}"));
        for number in 0..config.residual_blocks {
            let block = scope.child(&format!("block.{number}"));
            chain.push(Residual::new(to, &block, width, wide, groups));
            width = wide;
            if attends(config, ends, level) {
                let attention = scope.child(&format!("attn.{number}"));
                chain.push(Attention::new(to, &attention, width, groups));
            }
        }
        if level + 1 < widths.len() {
            chain.push(down(to, &scope.child("downsample.conv"), width));
        }
    }
    push_middle(&mut chain, config, &scope, width, to);
    chain.push(NormSwish::new(to, &scope.child("norm_out"), width, groups));
    chain.push(conv(to, &scope, "conv_out", width, config.latent_channels, 3));
    let to_code = ConvConfig::new(config.latent_channels, ends.dim(), &[1, 1]);
    chain.push(Conv::new(to, &Scope::new(Stage::Encoder, "encoder.quant_conv"), to_code));
    chain
}

/// The decoder, with weight and bias of its last layer.
fn decoder(
    config: &UNet2dConfig,
    ends: &Ends<'_>,
    to: &mut Declarations,
) -> (Chain, ParameterId, ParameterId) {
    let (scope, groups) = (Scope::new(Stage::Decoder, "decoder"), config.groups);
    let widths = config.widths();
    let mut width = widths[widths.len() - 1];
    let mut chain = Chain::default();
    let from_code = ConvConfig::new(ends.dim(), config.latent_channels, &[1, 1]);
    chain.push(Conv::new(to, &Scope::new(Stage::Decoder, "decoder.post_quant_conv"), from_code));
    chain.push(conv(to, &scope, "conv_in", config.latent_channels, width, 3));
    push_middle(&mut chain, config, &scope, width, to);
    for (level, &wide) in widths.iter().enumerate().rev() {
        let scope = scope.child(&format!("up.{level}"));
        for number in 0..=config.residual_blocks {
            let block = scope.child(&format!("block.{number}"));
            chain.push(Residual::new(to, &block, width, wide, groups));
            width = wide;
            if attends(config, ends, level) {
                let attention = scope.child(&format!("attn.{number}"));
                chain.push(Attention::new(to, &attention, width, groups));
            }
        }
        if level > 0 {
            chain.push(Up::new(to, &scope.child("upsample.conv"), width));
        }
    }
    chain.push(NormSwish::new(to, &scope.child("norm_out"), width, groups));
    let output = conv(to, &scope, "conv_out", width, ends.outputs, 3);
    let (weight, bias) = (output.weight(), output.bias().expect("declared with a bias"));
    chain.push(output);
    (chain, weight, bias)
}

/// Residual block, attention, residual block, where sides are shortest.
fn push_middle(
    chain: &mut Chain,
    config: &UNet2dConfig,
    scope: &Scope,
    width: i64,
    to: &mut Declarations,
) {
    let (scope, groups) = (scope.child("mid"), config.groups);
    chain.push(Residual::new(to, &scope.child("block_1"), width, width, groups));
    if config.middle_attention {
        chain.push(Attention::new(to, &scope.child("attn_1"), width, groups));
    }
    chain.push(Residual::new(to, &scope.child("block_2"), width, width, groups));
}

/// Whether a level has attention.
fn attends(config: &UNet2dConfig, ends: &Ends<'_>, level: usize) -> bool {
    let shorter = ends.signal.axes().into_iter().min().expect("a picture has two sides");
    config.attention_resolutions.contains(&(shorter >> level))
}

/// A convolution that keeps height and width.
fn conv(
    to: &mut Declarations,
    scope: &Scope,
    name: &str,
    inputs: i64,
    outputs: i64,
    kernel: i64,
) -> Conv {
    let config = ConvConfig::same_size(inputs, outputs, &[kernel, kernel]);
    Conv::new(to, &scope.child(name), config)
}
