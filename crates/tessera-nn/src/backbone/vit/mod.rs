//! Vision transformer: patches as tokens, and with `latent_tokens` TiTok, whose latents are tokens
//! that stand for no place of the picture.
//!
//! With latent tokens it follows Yu et al. 2024 (<https://arxiv.org/abs/2406.07550>) as the authors'
//! code has it with `is_legacy = false`; [`names`] leads from our tensors to theirs. The encoder
//! reads class, patches and n latent tokens, and keeps the latter; the decoder reads class, one
//! mask token for each patch and the n latents, and keeps the patches. Without, it is the plain
//! transformer of Dosovitskiy et al. 2020 (<https://arxiv.org/abs/2010.11929>) over patches on each
//! side: no class token, a latent for each patch.
//!
//! A block adds attention of the normed tokens, then an MLP of the normed tokens, four times as wide
//! within, with an exact GELU. Weights start normal with a deviation of 0.02 and biases at 0;
//! positions and tokens start normal with a deviation of 1 / sqrt(width). TiTok starts so too, but for
//! the in-projections of attention, which are uniform there, with a deviation of
//! 1 / sqrt(2 width). There is no dropout and no mask.

mod blocks;
pub mod names;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::Tensor;

use self::blocks::{FromLatents, Layer, Patches, ToLatents, ToPixels, Tokens};
use super::{Backbone, Ends, check_range, check_sides, other_signal};
use crate::chain::Chain;
use crate::layers::{Conv, ConvConfig, Scope};
use crate::parameters::{Declarations, ParameterId, Parameters, Stage};
use crate::signal::Signal;

/// Deviation of initial weights.
const DEVIATION: f64 = 0.02;

/// Size of the transformers; encoder and decoder are alike.
///
/// The defaults are TiTok's blocks for pictures of 64 pixels, 3.7 million parameters. The sizes of
/// its paper are 512 wide with 8 layers and 8 heads, 768 with 12 and 12, 1024 with 24 and 16.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct VitConfig {
    /// Side of a patch in pixels, which divides those of the pictures; 1 to 256.
    pub patch: i64,
    /// Channels of a token; 1 to 8192.
    pub width: i64,
    /// Transformer blocks on each side; 1 to 64.
    pub layers: i64,
    /// Heads of attention, which divide the width.
    pub heads: i64,
    /// Latents of a picture, whatever its size, on one axis, as TiTok has them; 0: one for each
    /// patch, on two. At most 65536.
    pub latent_tokens: i64,
}

impl Default for VitConfig {
    fn default() -> Self {
        Self { patch: 8, width: 192, layers: 4, heads: 3, latent_tokens: 0 }
    }
}

impl VitConfig {
    pub(super) fn validate(&self, signal: &Signal) -> Result<(), String> {
        let Signal::Image { height, width, .. } = *signal else {
            return Err(other_signal("vit", "pictures", signal));
        };
        check_range("patch", self.patch, 256)?;
        check_range("width", self.width, 8192)?;
        check_range("layers", self.layers, 64)?;
        check_range("heads", self.heads, 8192)?;
        if self.width % self.heads != 0 {
            return Err(format!(
                "model.backbone.heads should divide model.backbone.width, {}, found {}",
                self.width, self.heads
            ));
        }
        if !(0..=65536).contains(&self.latent_tokens) {
            return Err(format!(
                "model.backbone.latent_tokens should be 0 (one latent a patch) to 65536, found {}",
                self.latent_tokens
            ));
        }
        check_sides("vit", height, width, self.patch)
    }

    /// Patches along height and width.
    fn grid(&self, signal: &Signal) -> [i64; 2] {
        let axes = signal.axes();
        [axes[0] / self.patch, axes[1] / self.patch]
    }
}

/// The encoder and decoder.
#[derive(Debug)]
pub struct Vit {
    encoder: Chain,
    decoder: Chain,
    config: VitConfig,
    output_weight: ParameterId,
    output_bias: ParameterId,
}

impl Vit {
    /// Declares the parameters.
    pub fn new(config: &VitConfig, ends: &Ends<'_>, to: &mut Declarations) -> Self {
        let tokens = Tokens {
            grid: config.grid(&ends.signal),
            num_latents: config.latent_tokens,
            width: config.width,
        };
        let scope = Scope::new(Stage::Encoder, "encoder");
        let mut encoder = Chain::default();
        encoder.push(Patches::new(to, &scope, config.patch, ends.signal.channels(), tokens));
        push_layers(&mut encoder, config, &scope, tokens.latents(), to);
        encoder.push(ToLatents::new(to, &scope, ends.dim(), tokens));

        let scope = Scope::new(Stage::Decoder, "decoder");
        let mut decoder = Chain::default();
        decoder.push(FromLatents::new(to, &scope, ends.dim(), tokens));
        push_layers(&mut decoder, config, &scope, tokens.patches(), to);
        decoder.push(ToPixels::new(to, &scope, config.patch, ends.outputs, tokens));
        let output = ConvConfig {
            deviation: Some(DEVIATION),
            ..ConvConfig::same_size(ends.outputs, ends.outputs, &[3, 3])
        };
        let output = Conv::new(to, &scope.child("conv_out"), output);
        let output_bias = output.bias().expect("declared with a bias");
        let output_weight = output.weight();
        decoder.push(output);
        Self { encoder, decoder, config: config.clone(), output_weight, output_bias }
    }
}

impl Backbone for Vit {
    fn encoder(&self) -> &Chain {
        &self.encoder
    }

    fn decoder(&self) -> &Chain {
        &self.decoder
    }

    fn latent_axes(&self, signal: &Signal) -> Vec<i64> {
        match self.config.latent_tokens {
            0 => self.config.grid(signal).to_vec(),
            num_latents => vec![num_latents],
        }
    }

    fn output_weight(&self) -> ParameterId {
        self.output_weight
    }

    /// The last convolution adds little to its bias at the start, since its weights and those
    /// before it are small.
    fn set_output_mean(&self, parameters: &Parameters, means_c: &Tensor) {
        parameters.master(self.output_bias).copy_(means_c);
    }
}

/// The transformer, of whose tokens those that are `kept` leave it.
fn push_layers(
    chain: &mut Chain,
    config: &VitConfig,
    scope: &Scope,
    kept: Option<(i64, i64)>,
    to: &mut Declarations,
) {
    for number in 0..config.layers {
        let scope = scope.child(&format!("transformer.{number}"));
        let kept = kept.filter(|_| number + 1 == config.layers);
        chain.push(Layer::new(to, &scope, config.width, config.heads, kept));
    }
}
