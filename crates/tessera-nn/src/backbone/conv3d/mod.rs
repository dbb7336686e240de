//! Cosmos' network for film: causal, its convolutions factorised into frames and time, behind Haar's
//! transform of patches.
//!
//! Follows the Cosmos tokenizer (NVIDIA 2025, <https://arxiv.org/abs/2501.03575>, section 3.1) as the authors'
//! code has it with `Encoder3DType.FACTORIZED`; [`names`] leads from our tensors to theirs. A
//! convolution is one of 3 x 3 within frames, padded by zeros, and one of 3 frames, padded in front by
//! copies of the first frame. A norm is over one frame and all channels. Attention over time sees no
//! later frame. So a latent hangs on its frames and those before, an output on its latent and those
//! before: one set of weights does clips of any length, streams, and pictures, which are film of one
//! frame.
//!
//! The first frame has a latent of its own, and each further `temporal` frames have one: film of
//! 1 + n `temporal` frames comes out as long as it was. Other numbers would not, and are refused, as
//! are levels between which the decoder builds fewer layers that double than the encoder has layers
//! that halve.
//!
//! Weights start as PyTorch's defaults, as those of the source do. There is no dropout.

mod attention;
mod blocks;
mod config;
pub mod names;

use tch::Tensor;

use self::attention::{Along, Axial, SingleHead};
use self::blocks::{Down, Factorized, NormSwish, Residual, Up, output, point};
pub use self::config::{Conv3dConfig, FilmAttention, FilmNorm};
use super::{Backbone, Ends};
use crate::chain::Chain;
use crate::layers::Scope;
use crate::layers::haar::ToPatches;
use crate::parameters::{Declarations, ParameterId, Parameters, Stage};
use crate::signal::Signal;

/// The encoder and decoder.
#[derive(Debug)]
pub struct Conv3d {
    encoder: Chain,
    decoder: Chain,
    config: Conv3dConfig,
    inputs: i64,
    input_weight: ParameterId,
    input_bias: ParameterId,
    outputs: i64,
    output_weight: ParameterId,
    output_bias: ParameterId,
}

impl Conv3d {
    /// Declares the parameters.
    ///
    /// # Panics
    ///
    /// If the decoder does not give back the size that the encoder takes, which a valid configuration excludes.
    pub fn new(config: &Conv3dConfig, ends: &Ends<'_>, to: &mut Declarations) -> Self {
        let (encoder, input_weight, input_bias) = encoder(config, ends, to);
        let (decoder, output_weight, output_bias) = decoder(config, ends, to);
        Self {
            encoder,
            decoder,
            config: config.clone(),
            inputs: ends.signal.channels(),
            input_weight,
            input_bias,
            outputs: ends.outputs,
            output_weight,
            output_bias,
        }
    }
}

impl Backbone for Conv3d {
    fn encoder(&self) -> &Chain {
        &self.encoder
    }

    fn decoder(&self) -> &Chain {
        &self.decoder
    }

    fn latent_axes(&self, signal: &Signal) -> Vec<i64> {
        let axes = signal.axes();
        let Conv3dConfig { spatial, temporal, .. } = self.config;
        vec![1 + (axes[0] - 1) / temporal, axes[1] / spatial, axes[2] / spatial]
    }

    fn output_weight(&self) -> ParameterId {
        self.output_weight
    }

    /// The first channels of patches are their means, the others differences, whose middle is 0 anyway. Without this a norm
    /// over all channels of a frame would show how bright it is by its biases alone.
    fn set_input_middle(&self, parameters: &Parameters, middle: f64) {
        let weight = parameters.master(self.input_weight);
        let of_means =
            weight.narrow(1, 0, self.inputs).flatten(1, -1).sum_dim_intlist(1, false, None);
        let mut bias = parameters.master(self.input_bias);
        bias -= of_means * middle;
    }

    /// The first channels of the last layer are means of patches, the others differences, which start
    /// at 0.
    fn set_output_mean(&self, parameters: &Parameters, means_c: &Tensor) {
        let mut bias = parameters.master(self.output_bias);
        let _ = bias.zero_();
        bias.narrow(0, 0, self.outputs).copy_(means_c);
    }
}

/// The encoder, with weight and bias of its first layer.
fn encoder(
    config: &Conv3dConfig,
    ends: &Ends<'_>,
    to: &mut Declarations,
) -> (Chain, ParameterId, ParameterId) {
    let scope = Scope::new(Stage::Encoder, "encoder");
    let (widths, sides) = (config.widths(), config.encoder_sides(shorter_side(ends)));
    let (downs, mut width) = (config.downs(), config.channels);
    let mut chain = Chain::default();
    chain.push(ToPatches::new(config.patch, ends.signal.channels()));
    let inputs = ends.signal.channels() * config.patch.pow(3);
    let first = Factorized::new(to, &scope.child("conv_in"), inputs, width);
    let (input_weight, input_bias) = first.tensors();
    chain.push(first);
    for (level, &wide) in widths.iter().enumerate() {
        let scope = scope.child(&format!("down.{level}"));
        for number in 0..config.residual_blocks {
            let block = scope.child(&format!("block.{number}"));
            chain.push(Residual::new(to, &block, (width, wide), config.norm));
            width = wide;
            if config.attention_resolutions.contains(&sides[level]) {
                let attention = scope.child(&format!("attn.{number}"));
                push_attention(&mut chain, config, &attention, width, to);
            }
        }
        if let Some(scaled) = downs.get(level).filter(|scaled| scaled.is_any()) {
            chain.push(Down::new(to, &scope.child("downsample"), width, *scaled));
        }
    }
    push_middle(&mut chain, config, &scope, width, to);
    chain.push(NormSwish::new(to, &scope.child("norm_out"), width, config.norm));
    chain.push(Factorized::new(to, &scope.child("conv_out"), width, config.latent_channels));
    chain.push(point(to, &scope.child("quant_conv"), config.latent_channels, ends.dim()));
    (chain, input_weight, input_bias)
}

/// The decoder, with weight and bias of its last layer.
fn decoder(
    config: &Conv3dConfig,
    ends: &Ends<'_>,
    to: &mut Declarations,
) -> (Chain, ParameterId, ParameterId) {
    let scope = Scope::new(Stage::Decoder, "decoder");
    let widths = config.widths();
    let mut width = widths[widths.len() - 1];
    let sides = config.encoder_sides(shorter_side(ends));
    let mut side = sides[sides.len() - 1];
    let mut chain = Chain::default();
    chain.push(point(to, &scope.child("post_quant_conv"), ends.dim(), config.latent_channels));
    chain.push(Factorized::new(to, &scope.child("conv_in"), config.latent_channels, width));
    push_middle(&mut chain, config, &scope, width, to);
    let mut ups = config.ups().into_iter();
    for (level, &wide) in widths.iter().enumerate().rev() {
        let scope = scope.child(&format!("up.{level}"));
        for number in 0..=config.residual_blocks {
            let block = scope.child(&format!("block.{number}"));
            chain.push(Residual::new(to, &block, (width, wide), config.norm));
            width = wide;
            if config.attention_resolutions.contains(&side) {
                let attention = scope.child(&format!("attn.{number}"));
                push_attention(&mut chain, config, &attention, width, to);
            }
        }
        if let Some(scaled) = ups.next().filter(|scaled| scaled.is_any()) {
            chain.push(Up::new(to, &scope.child("upsample"), width, scaled));
            side = if scaled.space { side * 2 } else { side };
        }
    }
    assert_eq!(side, sides[0], "what the encoder halves the decoder doubles");
    chain.push(NormSwish::new(to, &scope.child("norm_out"), width, config.norm));
    let outputs = ends.outputs * config.patch.pow(3);
    let unfold = ToPatches::new(config.patch, ends.outputs).inverse();
    let (space, last) = output(to, &scope.child("conv_out"), width, outputs, unfold);
    let (weight, bias) = last.tensors();
    chain.push(space);
    chain.push(last);
    (chain, weight, bias)
}

/// Residual block, attention, residual block, where sides are shortest.
fn push_middle(
    chain: &mut Chain,
    config: &Conv3dConfig,
    scope: &Scope,
    width: i64,
    to: &mut Declarations,
) {
    let scope = scope.child("mid");
    chain.push(Residual::new(to, &scope.child("block_1"), (width, width), config.norm));
    if config.middle_attention {
        push_attention(chain, config, &scope.child("attn_1"), width, to);
    }
    chain.push(Residual::new(to, &scope.child("block_2"), (width, width), config.norm));
}

fn push_attention(
    chain: &mut Chain,
    config: &Conv3dConfig,
    scope: &Scope,
    width: i64,
    to: &mut Declarations,
) {
    match config.attention {
        FilmAttention::Factorized => {
            chain.push(SingleHead::new(to, scope, width, Along::Space));
            chain.push(SingleHead::new(to, scope, width, Along::Time));
        }
        FilmAttention::Axial => chain.push(Axial::new(to, scope, width, config.heads)),
    }
}

/// The shorter side of a frame, in pixels.
fn shorter_side(ends: &Ends<'_>) -> i64 {
    ends.signal.axes().into_iter().skip(1).min().expect("a frame has two sides")
}
