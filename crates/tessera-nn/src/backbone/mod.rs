//! The networks around the quantiser, a file or folder each.

pub mod conv1d;
mod conv2d;
pub mod conv3d;
mod dense;
mod hierarchy;
mod residual;
pub mod unet2d;
pub mod vit;

use std::fmt::Debug;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::Tensor;

pub use self::conv1d::{Conv1d, Conv1dConfig};
pub use self::conv2d::{Conv2d, Conv2dConfig};
pub use self::conv3d::{Conv3d, Conv3dConfig};
pub use self::dense::{Dense, DenseConfig};
pub use self::hierarchy::{Hierarchy, HierarchyConfig};
pub use self::unet2d::{UNet2d, UNet2dConfig};
pub use self::vit::{Vit, VitConfig};
use crate::chain::Chain;
use crate::parameters::{Declarations, ParameterId, Parameters};
use crate::signal::Signal;

/// Which encoder and decoder, chosen by `kind`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum BackboneConfig {
    /// `kind = "conv1d"`: strided convolutions over time and residual blocks, for sound: EnCodec's network and the
    /// Descript codec's.
    Conv1d(Conv1dConfig),
    /// `kind = "conv2d"`: strided convolutions and residual blocks, for images.
    Conv2d(Conv2dConfig),
    /// `kind = "conv3d"`: Cosmos' causal network with Haar patches, for video.
    Conv3d(Conv3dConfig),
    /// `kind = "dense"`: two linear layers on each side, for images, sound and video.
    Dense(DenseConfig),
    /// `kind = "hierarchy"`: two or more quantised levels, the coarse ones under the fine, for images.
    Hierarchy(HierarchyConfig),
    /// `kind = "unet2d"`: VQGAN's residual blocks and attention, for images.
    Unet2d(UNet2dConfig),
    /// `kind = "vit"`: a transformer over patches, and over latent tokens as TiTok has them, for
    /// images.
    Vit(VitConfig),
}

impl Default for BackboneConfig {
    fn default() -> Self {
        Self::Conv2d(Conv2dConfig::default())
    }
}

impl BackboneConfig {
    /// What is wrong with the values for samples of `signal`, if anything.
    ///
    /// # Errors
    ///
    /// One line that names the key and says what it may be.
    pub fn validate(&self, signal: &Signal) -> Result<(), String> {
        match self {
            Self::Conv1d(config) => config.validate(signal),
            Self::Conv2d(config) => config.validate(signal),
            Self::Conv3d(config) => config.validate(signal),
            Self::Dense(config) => config.validate(signal),
            Self::Hierarchy(config) => config.validate(signal),
            Self::Unet2d(config) => config.validate(signal),
            Self::Vit(config) => config.validate(signal),
        }
    }

    /// Quantised levels.
    pub fn num_levels(&self) -> usize {
        match self {
            Self::Hierarchy(config) => usize::try_from(config.levels).unwrap_or(1),
            Self::Conv1d(_)
            | Self::Conv2d(_)
            | Self::Conv3d(_)
            | Self::Dense(_)
            | Self::Unet2d(_)
            | Self::Vit(_) => 1,
        }
    }

    /// Whether a trained network takes samples of the size that it was trained on alone: it has a parameter for each position.
    pub fn has_fixed_size(&self) -> bool {
        match self {
            Self::Dense(_) | Self::Vit(_) => true,
            Self::Conv1d(_)
            | Self::Conv2d(_)
            | Self::Conv3d(_)
            | Self::Hierarchy(_)
            | Self::Unet2d(_) => false,
        }
    }

    /// Declares the network's parameters, the encoder's first.
    pub fn build(&self, ends: &Ends<'_>, to: &mut Declarations) -> Box<dyn Backbone> {
        match self {
            Self::Conv1d(config) => Box::new(Conv1d::new(config, ends, to)),
            Self::Conv2d(config) => Box::new(Conv2d::new(config, ends, to)),
            Self::Conv3d(config) => Box::new(Conv3d::new(config, ends, to)),
            Self::Dense(config) => Box::new(Dense::new(config, ends, to)),
            Self::Hierarchy(config) => Box::new(Hierarchy::new(config, ends, to)),
            Self::Unet2d(config) => Box::new(UNet2d::new(config, ends, to)),
            Self::Vit(config) => Box::new(Vit::new(config, ends, to)),
        }
    }
}

/// What a backbone has at its ends and in the middle.
#[derive(Debug, Clone, Copy)]
pub struct Ends<'a> {
    /// What goes in, and whose axes come out.
    pub signal: Signal,
    /// Channels that come out.
    pub outputs: i64,
    /// Channels of codes, D, of each level, the finest first.
    pub dims: &'a [i64],
}

impl Ends<'_> {
    /// D of the finest level, which most networks have alone.
    pub fn dim(&self) -> i64 {
        self.dims[0]
    }
}

/// An encoder and a decoder, without what is between them.
///
/// Both compute in the kind of their parameters; casts are the caller's.
pub trait Backbone: Debug + Send {
    /// Samples `[N, C, ..]` to latents `[N, D, ..]`, channels-last in memory; where there are levels
    /// [above](Self::above), to features instead.
    fn encoder(&self) -> &Chain;

    /// The quantised levels above the finest, from fine to coarse; most networks have none.
    fn above(&self) -> &[Above] {
        &[]
    }

    /// Quantised latents `[N, D, ..]` to samples `[N, C, ..]`; of several levels those of all, on one
    /// another's channels, the coarsest first ([`Above::up`]). The last block computes the output
    /// from [its weight](Self::output_weight), and has no other one.
    fn decoder(&self) -> &Chain;

    /// Sizes of the positional axes of the latents of one sample, at the finest level. Each further level halves
    /// them.
    fn latent_axes(&self, signal: &Signal) -> Vec<i64>;

    /// The weight of the decoder's last layer.
    fn output_weight(&self) -> ParameterId;

    /// Lets the encoder start as if `middle`, that of the range of its samples, were 0, by its first bias in the master
    /// parameters, which the caller refreshes. Networks whose norms would else see little but the middle do that.
    fn set_input_middle(&self, _parameters: &Parameters, _middle: f64) {}

    /// Lets the output start at `means_c`, the mean of each channel `[C]`, by its bias in the
    /// master parameters, which the caller refreshes.
    fn set_output_mean(&self, parameters: &Parameters, means_c: &Tensor);

    /// The network for sound, if it is that one, which alone can be computed [piece by piece](conv1d::Stream).
    fn as_conv1d(&self) -> Option<&Conv1d> {
        None
    }
}

/// A quantised level above a finer one. All chains but `up`, which is the decoder's, are the encoder's.
#[derive(Debug)]
pub struct Above {
    /// Features of the finer level `[N, C, ..]` to this level's; at the coarsest level, to its latents.
    pub down: Chain,
    /// Codes of this level to what the finer level is told of them, `[N, C', ..]` of its size.
    pub context: Chain,
    /// What the finer level is told, with its features on the channels behind, to its latents.
    pub merge: Chain,
    /// Codes of this level to the size of the finest level's.
    pub up: Chain,
}

/// What is wrong with samples that a kind of network does not take, and which kind takes them.
fn other_signal(kind: &str, takes: &str, signal: &Signal) -> String {
    let other = match signal {
        Signal::Audio { .. } => "conv1d",
        Signal::Video { .. } => "conv3d",
        Signal::Image { .. } | Signal::Tokens { .. } => "conv2d",
    };
    format!(
        "model.backbone.kind = \"{kind}\" takes {takes}, these data are {signal}: set it to \"{other}\""
    )
}

/// Refuses a value of `model.backbone` outside of 1 to `most`.
fn check_range(key: &str, value: i64, most: i64) -> Result<(), String> {
    if (1..=most).contains(&value) {
        return Ok(());
    }
    Err(format!("model.backbone.{key} should be from 1 to {most}, found {value}"))
}

/// Refuses pictures whose sides are not multiples of this, and names the nearest that are.
fn check_sides(kind: &str, height: i64, width: i64, multiple: i64) -> Result<(), String> {
    let below = |side: i64| (side / multiple).max(1) * multiple;
    let above = |side: i64| (side + multiple - 1) / multiple * multiple;
    if below(height) == height && below(width) == width {
        return Ok(());
    }
    let [smaller, larger] = [[below(height), below(width)], [above(height), above(width)]]
        .map(|[height, width]| format!("{height} x {width}"));
    let sizes = if smaller == larger { larger } else { format!("{smaller} or {larger}") };
    Err(format!(
        "the {kind} backbone needs pictures whose sides are multiples of {multiple}, found \
         {height} x {width}: pack the data at {sizes}"
    ))
}
