//! A hierarchy of quantised levels: fine codes for texture under coarse codes for structure.
//!
//! Follows Razavi et al. 2019, VQ-VAE-2 (<https://arxiv.org/abs/1906.00446>), section 3.1, with
//! the layers of rosinality's vq-vae-2-pytorch. The finest level has a code for each 4x4 pixels, each
//! further one for twice as many along each axis. From the coarsest level down, what a level's
//! codes say is laid beside the features of the next finer one before that is quantised; the
//! decoder reads the codes of all levels, brought to the size of the finest, the coarsest first.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::residual::{Relu, Residuals, doubling, halving, square};
use super::{Above, Backbone, Ends, check_sides, other_signal};
use crate::chain::Chain;
use crate::layers::{Conv, ConvTranspose, Scope};
use crate::parameters::{Declarations, ParameterId, Parameters, Stage};
use crate::signal::Signal;

/// Input pixels per position of the finest level, along each axis.
const FINEST: i64 = 4;

/// Width, depth and number of levels of a hierarchy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HierarchyConfig {
    /// Quantised levels, 2 to 6; each halves height and width of the one before. The finest is quantised by
    /// `model.quantizer`, the others by `model.coarser_quantizers`.
    pub levels: i64,
    /// Channels of the hidden layers; the outermost ones have half as many. Even, from 2 to 65536.
    pub channels: i64,
    /// Residual blocks of each encoder and decoder; 0 to 1000.
    pub residual_layers: i64,
    /// Channels inside a residual block; 1 to 65536.
    pub residual_channels: i64,
}

impl Default for HierarchyConfig {
    fn default() -> Self {
        Self { levels: 2, channels: 128, residual_layers: 2, residual_channels: 32 }
    }
}

impl HierarchyConfig {
    pub(super) fn validate(&self, signal: &Signal) -> Result<(), String> {
        let Signal::Image { height, width, .. } = *signal else {
            return Err(other_signal("hierarchy", "pictures", signal));
        };
        for (key, value, least, most) in [
            ("levels", self.levels, 2, 6),
            ("channels", self.channels, 2, 65536),
            ("residual_layers", self.residual_layers, 0, 1000),
            ("residual_channels", self.residual_channels, 1, 65536),
        ] {
            if !(least..=most).contains(&value) {
                return Err(format!(
                    "model.backbone.{key} should be from {least} to {most}, found {value}"
                ));
            }
        }
        if self.channels % 2 != 0 {
            return Err(format!("model.backbone.channels should be even, found {}", self.channels));
        }
        check_sides("hierarchy", height, width, FINEST << (self.levels - 1))
    }
}

/// See the module.
#[derive(Debug)]
pub struct Hierarchy {
    encoder: Chain,
    above: Vec<Above>,
    decoder: Chain,
    output_weight: ParameterId,
    output_bias: ParameterId,
}

impl Hierarchy {
    /// Declares the parameters.
    ///
    /// # Panics
    ///
    /// If there are not as many dims as levels.
    pub fn new(config: &HierarchyConfig, ends: &Ends<'_>, to: &mut Declarations) -> Self {
        assert_eq!(ends.dims.len() as i64, config.levels, "a quantiser for each level");
        let (wide, half) = (config.channels, config.channels / 2);
        let (layers, inner) = (config.residual_layers, config.residual_channels);
        let residuals = Residuals { channels: wide, layers, inner, has_bias: true };
        let coarsest = ends.dims.len() - 1;

        let scope = Scope::new(Stage::Encoder, "encoder");
        let mut encoder = Chain::default();
        let finest = scope.child("levels.0");
        let down1 = Conv::new(to, &finest.child("down1"), halving(ends.signal.channels(), half));
        encoder.push(Relu(down1));
        encoder.push(Relu(Conv::new(to, &finest.child("down2"), halving(half, wide))));
        let first = Conv::new(to, &finest.child("conv"), square(wide, wide, 3));
        residuals.push(&mut encoder, first, &finest, to);

        let mut above = Vec::new();
        for level in 1..=coarsest {
            let (dim, finer) = (ends.dims[level], ends.dims[level - 1]);
            let of_level = scope.child(&format!("levels.{level}"));
            let mut down = Chain::default();
            let strided = Conv::new(to, &of_level.child("down"), halving(wide, half));
            down.push(Relu(strided));
            let first = Conv::new(to, &of_level.child("conv"), square(half, wide, 3));
            residuals.push(&mut down, first, &of_level, to);
            if level == coarsest {
                down.push(Conv::new(to, &of_level.child("to_code"), square(wide, dim, 1)));
            }
            let mut context = Chain::default();
            let of_context = of_level.child("context");
            let first = Conv::new(to, &of_context.child("conv"), square(dim, wide, 3));
            residuals.push(&mut context, first, &of_context, to);
            context.push(ConvTranspose::new(to, &of_context.child("up"), doubling(wide, dim)));
            let mut merge = Chain::default();
            let below = scope.child(&format!("levels.{}", level - 1));
            merge.push(Conv::new(to, &below.child("to_code"), square(dim + wide, finer, 1)));
            above.push(Above { down, context, merge, up: Chain::default() });
        }

        let scope = Scope::new(Stage::Decoder, "decoder");
        for (level, (above, &dim)) in (1..).zip(above.iter_mut().zip(&ends.dims[1..])) {
            for times in 0..level {
                let scope = scope.child(&format!("levels.{level}.up.{times}"));
                above.up.push(ConvTranspose::new(to, &scope, doubling(dim, dim)));
            }
        }
        let mut decoder = Chain::default();
        let all = ends.dims.iter().sum();
        let first = Conv::new(to, &scope.child("conv"), square(all, wide, 3));
        residuals.push(&mut decoder, first, &scope, to);
        decoder.push(Relu(ConvTranspose::new(to, &scope.child("up1"), doubling(wide, half))));
        let up2 = ConvTranspose::new(to, &scope.child("up2"), doubling(half, ends.outputs));
        let output_bias = up2.bias().expect("declared with a bias");
        let output_weight = up2.weight();
        decoder.push(up2);
        Self { encoder, above, decoder, output_weight, output_bias }
    }
}

impl Backbone for Hierarchy {
    fn encoder(&self) -> &Chain {
        &self.encoder
    }

    fn above(&self) -> &[Above] {
        &self.above
    }

    fn decoder(&self) -> &Chain {
        &self.decoder
    }

    fn latent_axes(&self, signal: &Signal) -> Vec<i64> {
        signal.axes().iter().map(|size| size / FINEST).collect()
    }

    fn output_weight(&self) -> ParameterId {
        self.output_weight
    }

    fn set_output_mean(&self, parameters: &Parameters, means_c: &Tensor) {
        parameters.master(self.output_bias).copy_(means_c);
    }
}
