//! Keys of the `conv3d` backbone, and what they may be for which film.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::blocks::Scaled;
use crate::backbone::{check_range, other_signal};
use crate::signal::Signal;

/// Most levels.
const MAX_LEVELS: usize = 8;
/// Patches that there are.
const PATCHES: [i64; 3] = [1, 2, 4];
/// Largest factor by which an axis is reduced.
const MAX_FACTOR: i64 = 128;

/// Width, depth and reduction of Cosmos' factorised network.
///
/// The defaults are for film of 17 frames of 64 pixels: 1.15 million parameters, 5 x 8 x 8 latents. Cosmos' own
/// (DV8x8x8) has `channels = 128`, `multipliers = [2, 4, 4]`, `residual_blocks = 2`, `patch = 4`, `spatial = 8`,
/// `temporal = 8`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Conv3dConfig {
    /// Channels of the first convolution, behind the patches; 1 to 4096.
    pub channels: i64,
    /// Channels of each level, as multiples of `channels`; 1 to 8 levels, each 1 to 64.
    pub multipliers: Vec<i64>,
    /// Residual blocks of a level in the encoder; the decoder has one more. 1 to 64.
    pub residual_blocks: i64,
    /// Frames, rows and columns of the patches that Haar's transform makes channels of, before all else: 1, 2 or 4.
    pub patch: i64,
    /// Pixels per latent along height and width: the patch times a power of two; what it is more than the patch is halved
    /// between levels.
    pub spatial: i64,
    /// Frames per latent along time, but for the first frame, which has its own: as `spatial`, and no more than that.
    pub temporal: i64,
    /// Channels between these networks and the layers to and from codes; 1 to 65536.
    pub latent_channels: i64,
    /// What is before each SiLU.
    pub norm: FilmNorm,
    /// What attention is, where there is some.
    pub attention: FilmAttention,
    /// Heads of `attention = "axial"`; divides the channels of each level that has some.
    pub heads: i64,
    /// Levels with attention behind each residual block, by the shorter side of a frame there, in patches.
    pub attention_resolutions: Vec<i64>,
    /// Whether there is attention in the middle, where sides are shortest.
    pub middle_attention: bool,
}

/// The norms of a network for film, a value of `model.backbone.norm`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FilmNorm {
    /// Cosmos': over all channels and places of one frame. How bright a frame is, and how much contrast it has, comes through by biases
    /// alone, which takes long to learn.
    #[default]
    Frame,
    /// None, for small networks and short trainings; attention keeps its own.
    None,
}

/// Attention over film, a value of `model.backbone.attention`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FilmAttention {
    /// Cosmos': one head over the positions of a frame, then one over the frames so far.
    #[default]
    Factorized,
    /// VideoGPT's: the sum of attention along the width, the height and the frames so far.
    Axial,
}

impl Default for Conv3dConfig {
    fn default() -> Self {
        Self {
            channels: 32,
            multipliers: vec![1, 2],
            residual_blocks: 1,
            patch: 4,
            spatial: 8,
            temporal: 4,
            latent_channels: 16,
            norm: FilmNorm::Frame,
            attention: FilmAttention::Factorized,
            heads: 2,
            attention_resolutions: Vec::new(),
            middle_attention: true,
        }
    }
}

impl Conv3dConfig {
    pub(in crate::backbone) fn validate(&self, signal: &Signal) -> Result<(), String> {
        let Signal::Video { frames, height, width, .. } = *signal else {
            return Err(other_signal("conv3d", "film", signal));
        };
        check_range("channels", self.channels, 4096)?;
        check_range("residual_blocks", self.residual_blocks, 64)?;
        check_range("latent_channels", self.latent_channels, 65536)?;
        check_range("heads", self.heads, 4096)?;
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
        if !PATCHES.contains(&self.patch) {
            return Err(format!("model.backbone.patch should be 1, 2 or 4, found {}", self.patch));
        }
        self.check_factors()?;
        self.check_film(frames, height, width)?;
        self.check_attention(height, width)
    }

    /// Refuses factors that the patch and the levels cannot make, or cannot undo.
    fn check_factors(&self) -> Result<(), String> {
        let Self { patch, spatial, temporal, .. } = *self;
        for (key, factor, most) in
            [("spatial", spatial, MAX_FACTOR), ("temporal", temporal, spatial.max(patch))]
        {
            let mut allowed = std::iter::successors(Some(patch), |factor| Some(factor * 2))
                .take_while(|factor| *factor <= most);
            if !allowed.any(|allowed| allowed == factor) {
                return Err(format!(
                    "model.backbone.{key} should be model.backbone.patch, {patch}, times a power of two, at \
                     most {most}, found {factor}"
                ));
            }
        }
        let count = |scaled: &[Scaled], of: fn(&Scaled) -> bool| {
            scaled.iter().filter(|scaled| of(scaled)).count()
        };
        let (downs, ups) = (self.downs(), self.ups());
        let undone = [count(&ups, |s| s.space), count(&ups, |s| s.time)];
        if [count(&downs, |s| s.space), count(&downs, |s| s.time)] == undone
            && undone == self.halvings()
        {
            return Ok(());
        }
        let [space, time] = self.halvings();
        // The decoder doubles no time between its first two levels.
        let wanted = 1 + space.max(if time > 0 { time + 1 } else { 0 });
        Err(format!(
            "model.backbone.multipliers should have {wanted} numbers at least: with {} levels the decoder cannot \
             undo spatial = {spatial} and temporal = {temporal} behind patches of {patch}",
            self.multipliers.len()
        ))
    }

    /// Refuses film that does not come out as it went in, and names the nearest that does.
    fn check_film(&self, frames: i64, height: i64, width: i64) -> Result<(), String> {
        let found = [frames, height, width];
        let steps = [self.temporal, self.spatial, self.spatial];
        let whole = |at: usize, is_up: bool| {
            // Of frames the first stands by itself.
            let (first, step) = (i64::from(at == 0), steps[at]);
            let up = if is_up { step - 1 } else { 0 };
            ((found[at] - first + up) / step).max(1 - first) * step + first
        };
        let [smaller, larger] = [false, true].map(|is_up| [0, 1, 2].map(|at| whole(at, is_up)));
        if smaller == found {
            return Ok(());
        }
        let name = |[frames, height, width]: [i64; 3]| format!("{frames} x {height} x {width}");
        let sizes = if smaller == larger {
            name(larger)
        } else {
            format!("{} or {}", name(smaller), name(larger))
        };
        Err(format!(
            "the conv3d backbone needs film of 1 + n x {} frames with sides that are multiples of {}, found \
             {}: pack the data at {sizes}",
            self.temporal,
            self.spatial,
            name(found)
        ))
    }

    fn check_attention(&self, height: i64, width: i64) -> Result<(), String> {
        let sides = self.encoder_sides(height.min(width));
        let resolutions = &self.attention_resolutions;
        if let Some(found) = resolutions.iter().find(|side| !sides.contains(side)) {
            return Err(format!(
                "model.backbone.attention_resolutions should be among {sides:?}, the shorter sides of the levels in \
                 patches of {height} x {width} film, found {found}"
            ));
        }
        // Each level has a multiple of these channels.
        if self.attention == FilmAttention::Axial && self.channels % self.heads != 0 {
            return Err(format!(
                "model.backbone.heads should divide model.backbone.channels, {}, found {}",
                self.channels, self.heads
            ));
        }
        Ok(())
    }

    /// How often height and width are halved between levels, and how often time.
    fn halvings(&self) -> [usize; 2] {
        [self.spatial, self.temporal].map(|factor| (factor / self.patch).trailing_zeros() as usize)
    }

    /// What is halved behind each of the encoder's levels but the last: the first ones halve.
    pub(super) fn downs(&self) -> Vec<Scaled> {
        let [space, time] = self.halvings();
        (0..self.multipliers.len() - 1)
            .map(|level| Scaled { space: level < space, time: level < time })
            .collect()
    }

    /// What is doubled behind each of the decoder's levels but its last, in its order. The source doubles time from
    /// the second one on, and height and width with it.
    pub(super) fn ups(&self) -> Vec<Scaled> {
        let [spatial, temporal] = self.halvings();
        let of = |number: usize| {
            let time = (1..=temporal).contains(&number);
            Scaled { space: time || (number < spatial && spatial > temporal), time }
        };
        (0..self.multipliers.len() - 1).map(of).collect()
    }

    /// The shorter side at each level of the encoder, in patches, where that of the film is `side` pixels.
    pub(super) fn encoder_sides(&self, side: i64) -> Vec<i64> {
        let mut sides = vec![side / self.patch];
        for scaled in self.downs() {
            let side = sides[sides.len() - 1];
            sides.push(if scaled.space { side / 2 } else { side });
        }
        sides
    }

    /// Channels of each level.
    pub(super) fn widths(&self) -> Vec<i64> {
        self.multipliers.iter().map(|multiplier| multiplier * self.channels).collect()
    }
}
