//! A network for sound: strided convolutions over time with residual blocks between them, and the way back.
//!
//! One network is SEANet's family, Tagliasacchi et al. 2020 (<https://arxiv.org/abs/2009.02095>) in the form of EnCodec
//! (<https://arxiv.org/abs/2210.13438>) and AudioCraft, and the Descript codec's, Kumar et al. 2023
//! (<https://arxiv.org/abs/2306.06546>): they differ in activation, kernels and dilations. The latter's padding, ceil(s / 2)
//! on both sides of strided layers, is [`Amount::Centered`](crate::layers::Amount) on whole hops; [`names`] leads from our
//! tensors to theirs.
//!
//! A side is: convolution, for each ratio residual blocks and a strided convolution, LSTM and attention if there are any,
//! convolution; the decoder is in the other order, with transposed convolutions before the residual blocks. The encoder
//! makes ceil(T / hop) latents of T samples, and the decoder hop samples of each: whoever has sound of another length
//! cuts at the end. A causal network is computed piece by piece by [`Stream`].
//!
//! Weights start as PyTorch's defaults, as those of the sources do. EnCodec's 48 kHz network is not here: its norm over
//! time is another network's.

mod attention;
mod blocks;
mod config;
pub mod names;
mod stream;

use std::sync::Arc;

use tch::Tensor;

use self::attention::Layer;
use self::blocks::{Act, Output, Part, Unit, conv, down, up};
pub use self::config::{Conv1dConfig, Nonlinearity, OutputActivation, Shortcut};
pub use self::stream::Stream;
use super::{Backbone, Ends};
use crate::chain::Chain;
use crate::layers::{Conv, ConvTranspose, Lstm, Scope};
use crate::parameters::{Declarations, ParameterId, Parameters, Stage};
use crate::signal::Signal;

/// The encoder and decoder.
#[derive(Debug)]
pub struct Conv1d {
    encoder: Side,
    decoder: Side,
    config: Conv1dConfig,
    output_weight: ParameterId,
    output_bias: ParameterId,
}

/// A chain, and its layers for streams.
#[derive(Debug, Default)]
struct Side {
    chain: Chain,
    parts: Vec<Arc<Part>>,
}

impl Side {
    fn push(&mut self, part: Part) {
        let part = Arc::new(part);
        self.chain.push(Arc::clone(&part));
        self.parts.push(part);
    }
}

impl Conv1d {
    /// Declares the parameters.
    pub fn new(config: &Conv1dConfig, ends: &Ends<'_>, to: &mut Declarations) -> Self {
        let encoder = encoder(config, ends, to);
        let (decoder, output_weight, output_bias) = decoder(config, ends, to);
        Self { encoder, decoder, config: config.clone(), output_weight, output_bias }
    }
}

impl Backbone for Conv1d {
    fn encoder(&self) -> &Chain {
        &self.encoder.chain
    }

    fn decoder(&self) -> &Chain {
        &self.decoder.chain
    }

    fn latent_axes(&self, signal: &Signal) -> Vec<i64> {
        signal.axes().iter().map(|len| (len + self.config.hop() - 1) / self.config.hop()).collect()
    }

    /// Where weights are normalised, the direction of the last one, whose length is a tensor beside it.
    fn output_weight(&self) -> ParameterId {
        self.output_weight
    }

    fn set_output_mean(&self, parameters: &Parameters, means_c: &Tensor) {
        let before = match self.config.output_activation {
            OutputActivation::None => means_c.shallow_clone(),
            OutputActivation::Tanh => means_c.clamp(-0.99, 0.99).atanh(),
        };
        parameters.master(self.output_bias).copy_(&before);
    }

    fn as_conv1d(&self) -> Option<&Conv1d> {
        Some(self)
    }
}

fn encoder(config: &Conv1dConfig, ends: &Ends<'_>, to: &mut Declarations) -> Side {
    let scope = Scope::new(Stage::Encoder, "encoder");
    let (mut side, mut channels) = (Side::default(), config.channels);
    let first = conv(config, ends.signal.channels(), channels, config.first_kernel);
    side.push(Part::Conv(Conv::new(to, &scope.child("conv_in"), first)));
    for (level, &ratio) in config.ratios.iter().rev().enumerate() {
        let scope = scope.child(&format!("down.{level}"));
        push_units(&mut side, config, &scope, channels, to);
        side.push(Part::Act(Act::new(to, config, &scope.child("snake"), channels)));
        let strided = down(config, channels, ratio);
        side.push(Part::Conv(Conv::new(to, &scope.child("conv"), strided)));
        channels *= 2;
    }
    push_middle(&mut side, config, &scope, channels, to);
    side.push(Part::Act(Act::new(to, config, &scope.child("snake_out"), channels)));
    let last = conv(config, channels, ends.dim(), config.latent_kernel);
    side.push(Part::Conv(Conv::new(to, &scope.child("conv_out"), last)));
    side
}

/// The decoder, with weight and bias of its last layer.
fn decoder(
    config: &Conv1dConfig,
    ends: &Ends<'_>,
    to: &mut Declarations,
) -> (Side, ParameterId, ParameterId) {
    let scope = Scope::new(Stage::Decoder, "decoder");
    let mut channels = config.width(config.decoder_full_rate());
    let mut side = Side::default();
    let first = conv(config, ends.dim(), channels, config.first_kernel);
    side.push(Part::Conv(Conv::new(to, &scope.child("conv_in"), first)));
    push_middle(&mut side, config, &scope, channels, to);
    for (level, &ratio) in config.ratios.iter().enumerate() {
        let scope = scope.child(&format!("up.{level}"));
        side.push(Part::Act(Act::new(to, config, &scope.child("snake"), channels)));
        let strided = up(config, channels, ratio);
        side.push(Part::Up(ConvTranspose::new(to, &scope.child("conv"), strided)));
        channels /= 2;
        push_units(&mut side, config, &scope, channels, to);
    }
    side.push(Part::Act(Act::new(to, config, &scope.child("snake_out"), channels)));
    let last = conv(config, channels, ends.outputs, config.output_kernel);
    let conv = Conv::new(to, &scope.child("conv_out"), last);
    let (weight, bias) = (conv.weight(), conv.bias().expect("declared with a bias"));
    side.push(Part::Output(Output { conv, activation: config.output_activation }));
    (side, weight, bias)
}

/// The residual blocks of a rate.
fn push_units(
    side: &mut Side,
    config: &Conv1dConfig,
    scope: &Scope,
    channels: i64,
    to: &mut Declarations,
) {
    let mut dilation = 1;
    for number in 0..config.residual_layers {
        let scope = scope.child(&format!("residual.{number}"));
        let unit = Unit::new(to, config, &scope, channels, dilation);
        side.push(Part::Unit(Box::new(unit)));
        dilation *= config.dilation_base;
    }
}

/// LSTM and attention, where positions are fewest.
fn push_middle(
    side: &mut Side,
    config: &Conv1dConfig,
    scope: &Scope,
    channels: i64,
    to: &mut Declarations,
) {
    if config.lstm_layers > 0 {
        let lstm = Lstm::new(to, &scope.child("lstm"), channels, config.lstm_layers);
        side.push(Part::Lstm(lstm));
    }
    for number in 0..config.attention_layers {
        let scope = scope.child(&format!("transformer.{number}"));
        side.push(Part::Attention(Layer::new(to, config, &scope, channels)));
    }
}
