//! Keys of the network, and what they may be.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::backbone::{check_range, other_signal};
use crate::layers::Fill;
use crate::signal::Signal;

/// Most strided layers.
const MAX_RATIOS: usize = 8;
/// Farthest that a residual block looks, in taps' steps.
const MAX_DILATION: i64 = 65536;

/// Width, depth and rule of padding of the network for sound.
///
/// The defaults are SEANet for speech of 8000 samples a second: a latent for each 160, causal, and without an LSTM.
/// EnCodec's 24 kHz network has `channels = 32`, `ratios = [8, 5, 4, 2]`, `padding = "reflect"`, `shortcut = "conv"`,
/// `lstm_layers = 2` and codes of 128 channels. The Descript codec's arithmetic is `causal = false`,
/// `activation = "snake"`, `compress = 1`, `residual_layers = 3`, `dilation_base = 3`, `residual_kernel = 7`,
/// `latent_kernel = 3`, `output_activation = "tanh"`; its 44 kHz network has `channels = 64`, `decoder_channels = 96`,
/// `ratios = [8, 8, 4, 2]` and latents of 1024 channels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Conv1dConfig {
    /// Channels at full rate; 1 to 4096. Each strided layer doubles them.
    pub channels: i64,
    /// Channels of the decoder at full rate; 0: as many as `channels`. At most 4096.
    pub decoder_channels: i64,
    /// Samples for each position that a strided layer makes, in the order of the decoder; 1 to 8 numbers, each 1 to 64.
    /// Their product, the hop, is how many samples have a latent, and divides the length of a window.
    pub ratios: Vec<i64>,
    /// Residual blocks of a rate; 1 to 16.
    pub residual_layers: i64,
    /// Block j of a rate has taps this to the power of j apart, j from 0; 1 to 16.
    pub dilation_base: i64,
    /// What a residual block divides its channels by within; 1 to 64, divides the channels.
    pub compress: i64,
    /// Taps of the first convolution on each side; 1 to 64.
    pub first_kernel: i64,
    /// Taps of the first convolution of a residual block, whose second has one; 1 to 64.
    pub residual_kernel: i64,
    /// Taps of the encoder's last convolution; 1 to 64.
    pub latent_kernel: i64,
    /// Taps of the decoder's last convolution; 1 to 64.
    pub output_kernel: i64,
    /// Whether nothing sees later samples. Latency is one hop then, and the network can be streamed.
    pub causal: bool,
    /// What lies beyond the ends. `"reflect"` needs the first samples at once, so a stream's first piece is longer.
    pub padding: Fill,
    /// Of a causal decoder, the part of what each transposed convolution has too much that is cut behind; 0 to 1. Below 1
    /// outputs see later codes.
    pub trim_right_ratio: f64,
    /// What a residual block adds to.
    pub shortcut: Shortcut,
    /// What stands before each convolution but the first.
    pub activation: Nonlinearity,
    /// Whether weights of convolutions are normalised: a length for each slice, and a direction.
    pub weight_norm: bool,
    /// Layers of the LSTM in the middle of each side, whose input is added to its output; 0 to 2, 0: there is none.
    pub lstm_layers: i64,
    /// Transformer layers in the middle of each side; 0 to 64.
    pub attention_layers: i64,
    /// Heads of attention, which divide the channels in the middle into an even number each.
    pub attention_heads: i64,
    /// Positions that attention sees: itself and those before it, and as many behind where the network is not causal;
    /// 1 to 65536.
    pub attention_window: i64,
    /// What stands behind the last convolution.
    pub output_activation: OutputActivation,
}

/// What a residual block adds to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Shortcut {
    /// Its input.
    Identity,
    /// A convolution of one tap of its input.
    Conv,
}

/// What stands before convolutions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Nonlinearity {
    /// x above 0, exp(x) - 1 below.
    Elu,
    /// x + sin^2(a x) / a, with a learned frequency a for each channel.
    Snake,
}

/// What stands behind the decoder's last convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OutputActivation {
    /// Nothing.
    None,
    /// tanh, which keeps outputs within -1 to 1.
    Tanh,
}

impl Default for Conv1dConfig {
    fn default() -> Self {
        Self {
            channels: 16,
            decoder_channels: 0,
            ratios: vec![8, 5, 4],
            residual_layers: 1,
            dilation_base: 2,
            compress: 2,
            first_kernel: 7,
            residual_kernel: 3,
            latent_kernel: 7,
            output_kernel: 7,
            causal: true,
            padding: Fill::Zeros,
            trim_right_ratio: 1.0,
            shortcut: Shortcut::Identity,
            activation: Nonlinearity::Elu,
            weight_norm: true,
            lstm_layers: 0,
            attention_layers: 0,
            attention_heads: 4,
            attention_window: 250,
            output_activation: OutputActivation::None,
        }
    }
}

impl Conv1dConfig {
    pub(in crate::backbone) fn validate(&self, signal: &Signal) -> Result<(), String> {
        let Signal::Audio { samples, .. } = *signal else {
            return Err(other_signal("conv1d", "sound", signal));
        };
        check_range("channels", self.channels, 4096)?;
        check_from_zero("decoder_channels", self.decoder_channels, 4096)?;
        if !(1..=MAX_RATIOS).contains(&self.ratios.len()) {
            return Err(format!(
                "model.backbone.ratios should have 1 to {MAX_RATIOS} numbers, found {}",
                self.ratios.len()
            ));
        }
        if let Some(found) = self.ratios.iter().find(|ratio| !(1..=64).contains(*ratio)) {
            return Err(format!(
                "model.backbone.ratios should be numbers from 1 to 64, found {found}"
            ));
        }
        for (key, value, most) in [
            ("residual_layers", self.residual_layers, 16),
            ("dilation_base", self.dilation_base, 16),
            ("compress", self.compress, 64),
            ("first_kernel", self.first_kernel, 64),
            ("residual_kernel", self.residual_kernel, 64),
            ("latent_kernel", self.latent_kernel, 64),
            ("output_kernel", self.output_kernel, 64),
            ("attention_window", self.attention_window, 65536),
            ("attention_heads", self.attention_heads, 4096),
        ] {
            check_range(key, value, most)?;
        }
        check_from_zero("lstm_layers", self.lstm_layers, 2)?;
        check_from_zero("attention_layers", self.attention_layers, 64)?;
        self.check_together()?;
        check_length(samples, self.hop())
    }

    /// What keys may be beside one another, each being within its range.
    fn check_together(&self) -> Result<(), String> {
        let last = u32::try_from(self.residual_layers - 1).expect("within its range");
        if self.dilation_base.checked_pow(last).is_none_or(|dilation| dilation > MAX_DILATION) {
            return Err(format!(
                "model.backbone.dilation_base to the power of residual_layers - 1 should be at most \
                 {MAX_DILATION}, found {} to the power of {last}",
                self.dilation_base
            ));
        }
        for channels in [self.channels, self.decoder_channels] {
            // Each rate has a multiple of these channels.
            if channels % self.compress != 0 {
                return Err(format!(
                    "model.backbone.compress should divide the channels, {channels}, found {}",
                    self.compress
                ));
            }
        }
        if !(0.0..=1.0).contains(&self.trim_right_ratio) {
            return Err(format!(
                "model.backbone.trim_right_ratio should be from 0 to 1, found {}",
                self.trim_right_ratio
            ));
        }
        if !self.causal && self.trim_right_ratio != 1.0 {
            return Err(format!(
                "model.backbone.trim_right_ratio should be 1 where model.backbone.causal is false, found {}",
                self.trim_right_ratio
            ));
        }
        if self.attention_layers == 0 {
            return Ok(());
        }
        for channels in [self.channels, self.decoder_full_rate()] {
            let width = self.width(channels);
            if width % (2 * self.attention_heads) != 0 {
                return Err(format!(
                    "model.backbone.attention_heads should divide the channels in the middle, {width}, into an even \
                     number each, found {}",
                    self.attention_heads
                ));
            }
        }
        Ok(())
    }

    /// Samples for each latent.
    pub fn hop(&self) -> i64 {
        self.ratios.iter().product()
    }

    /// Channels of the decoder at full rate.
    pub(super) fn decoder_full_rate(&self) -> i64 {
        if self.decoder_channels == 0 { self.channels } else { self.decoder_channels }
    }

    /// Channels in the middle of a side that has `channels` at full rate.
    pub(super) fn width(&self, channels: i64) -> i64 {
        channels << self.ratios.len()
    }
}

/// Refuses a value of `model.backbone` outside of 0 to `most`.
fn check_from_zero(key: &str, value: i64, most: i64) -> Result<(), String> {
    if value == 0 {
        return Ok(());
    }
    check_range(key, value, most)
        .map_err(|_| format!("model.backbone.{key} should be from 0 to {most}, found {value}"))
}

/// Refuses windows that are no multiple of the hop, and names the nearest that are.
fn check_length(samples: i64, hop: i64) -> Result<(), String> {
    if samples > 0 && samples % hop == 0 {
        return Ok(());
    }
    let (below, above) = (samples / hop * hop, (samples / hop + 1) * hop);
    let lengths = if below == 0 { above.to_string() } else { format!("{below} or {above}") };
    Err(format!(
        "the conv1d backbone needs windows of sound whose length is a multiple of {hop}, found {samples}: set \
         data.audio.length to {lengths}, or pack the data at that"
    ))
}
