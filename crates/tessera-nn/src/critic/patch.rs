//! PatchGAN: a logit for each patch, from convolutions alone.
//!
//! Follows Isola et al. 2017 (<https://arxiv.org/abs/1611.07004>), section 3.2.2, in the form of
//! taming-transformers: convolutions with 4 x 4 taps and one zero around the picture. The first and
//! those up to `layers` halve the picture, one more and that of the logits keep it but for one
//! pixel; between them LeakyReLU, and group norm where it is asked for. Weights start with a deviation
//! of 0.02, biases at 0.
//!
//! For film it is Open-MAGVIT2's (Luo et al. 2024, <https://arxiv.org/abs/2409.04410>): 3 x 3 x 3 taps,
//! and a layer that halves height and width halves time as well, where it is one of the first two.
//! Zeros around the clip are in time too: a critic judges clips as they are, so it need not be
//! causal, and one that sees the whole of a short clip is as it should be. Group norm is over all
//! frames of a clip, not frame by frame: a frame brought to the mean and contrast of the others would
//! hide the flicker that a critic of film is there to see. It is over one sample either way, so exact
//! over ranks and micro-batches.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::network::{Layer, Network, View};
use crate::layers::{Conv, ConvConfig, GroupNorm, Pad, Scope};
use crate::parameters::Declarations;
use crate::signal::Signal;

/// Taps of each convolution along an axis, of pictures and of film.
const TAPS: [i64; 2] = [4, 3];
/// Layers that may halve time.
const MOST_OF_TIME: i64 = 2;
/// Channels grow up to this many times those of the first layer.
const MOST_WIDTHS: i64 = 8;
/// Deviation of initial weights.
const DEVIATION: f64 = 0.02;
/// PyTorch's default.
const EPS: f64 = 1e-5;
/// Slope of LeakyReLU below 0.
const SLOPE: f64 = 0.2;

/// Width and depth of a PatchGAN.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PatchConfig {
    /// Channels of the first layer; each further one has twice as many, up to 8 times. 1 to 1024.
    pub channels: i64,
    /// Layers that halve the picture, 1 to 6. A logit sees 16 x 16 pixels with 1, 34 with 2, 70 with 3
    /// and 142 with 4, and that should fit into the picture: 1 at 32 pixels, 2 at 64. Of film it sees 11, 23, 47 and 95
    /// pixels of each of 11, 23, 31 and 39 frames, and the pixels should fit.
    pub layers: i64,
    /// What is between a convolution and its activation, in all layers but the first and the last.
    pub norm: PatchNorm,
    /// Groups of `norm = "group"`; divides the channels of each layer that has it.
    pub groups: i64,
}

/// Norms of a PatchGAN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PatchNorm {
    /// None.
    None,
    /// Mean and variance of a group of channels of one sample.
    Group,
}

impl Default for PatchConfig {
    fn default() -> Self {
        Self { channels: 32, layers: 1, norm: PatchNorm::Group, groups: 8 }
    }
}

impl PatchConfig {
    /// Pixels along each axis of a picture that a logit sees.
    fn field(&self, is_film: bool) -> i64 {
        let taps = TAPS[usize::from(is_film)];
        // The logits' convolution and the one before it keep the size: 1 + 2 (taps - 1).
        let inner = 1 + 2 * (taps - 1);
        (0..self.layers).fold(inner, |field, _| 2 * (field - 1) + taps)
    }

    /// Steps of a layer along each axis.
    fn stride(&self, layer: i64, is_film: bool) -> Vec<i64> {
        let of = |is_halved| if is_halved { 2 } else { 1 };
        let side = of(layer < self.layers);
        let time = of(layer < self.layers.min(MOST_OF_TIME));
        if is_film { vec![time, side, side] } else { vec![side, side] }
    }

    /// Channels of each layer before the logits.
    fn widths(&self) -> Vec<i64> {
        (0..=self.layers).map(|layer| self.channels * (1 << layer).min(MOST_WIDTHS)).collect()
    }

    pub(super) fn validate(&self, at: &str, signal: &Signal) -> Result<(), String> {
        let (height, width, is_film) = match *signal {
            Signal::Image { height, width, .. } => (height, width, false),
            Signal::Video { height, width, .. } => (height, width, true),
            _ => return Err(super::takes(at, "patch", "pictures and film", signal)),
        };
        for (key, value, most) in [("channels", self.channels, 1024), ("layers", self.layers, 6)] {
            if !(1..=most).contains(&value) {
                return Err(format!("{at}.{key} should be from 1 to {most}, found {value}"));
            }
        }
        let (field, side) = (self.field(is_film), height.min(width));
        if field > side {
            let of = |layers| Self { layers, ..self.clone() }.field(is_film);
            let advice = match (1..self.layers).rev().find(|layers| of(*layers) <= side) {
                Some(layers) => format!("lower it to {layers}"),
                None => {
                    format!("sides of {} at least are needed: pack the data at another size", of(1))
                }
            };
            return Err(format!(
                "{at}.layers is {}, with which a logit sees {field} x {field} pixels, more than \
                 the {height} x {width} that these data have: {advice}",
                self.layers
            ));
        }
        if self.norm == PatchNorm::Group {
            let divides = |width: &i64| self.groups >= 1 && width % self.groups == 0;
            if let Some(width) = self.widths()[1..].iter().find(|width| !divides(width)) {
                return Err(format!(
                    "{at}.groups should divide the {width} channels of each layer with a norm, \
                     found {}: {} does",
                    self.groups, self.channels
                ));
            }
        }
        Ok(())
    }

    pub(super) fn build(&self, scope: &Scope, signal: &Signal, to: &mut Declarations) -> Network {
        let is_film = matches!(signal, Signal::Video { .. });
        let conv = |to: &mut Declarations, scope: &Scope, inputs, outputs, stride: Vec<i64>| {
            let padding = vec![Pad::zeros(1, 1); stride.len()];
            let kernel = vec![TAPS[usize::from(is_film)]; stride.len()];
            let config = ConvConfig::new(inputs, outputs, &kernel);
            let config = ConvConfig { stride, padding, ..config };
            Conv::new(to, scope, ConvConfig { deviation: Some(DEVIATION), ..config })
        };
        let (mut layers, mut inputs) = (Vec::new(), signal.channels());
        for (layer, &outputs) in self.widths().iter().enumerate() {
            let scope = scope.child(&format!("layers.{layer}"));
            let stride = self.stride(layer as i64, is_film);
            let conv = conv(to, &scope.child("conv"), inputs, outputs, stride);
            let norm = (layer > 0 && self.norm == PatchNorm::Group)
                .then(|| GroupNorm::new(to, &scope.child("norm"), outputs, self.groups, EPS));
            layers.push(Layer { conv, norm, slope: SLOPE });
            inputs = outputs;
        }
        let stride = self.stride(self.layers, is_film);
        let logits = conv(to, &scope.child("logits"), inputs, 1, stride);
        Network { view: View::Samples, layers, logits, logits_are_map: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::{Kinds, Stage};
    use tch::{Device, Kind, Tensor};

    fn images(side: i64) -> Signal {
        Signal::Image { channels: 3, height: side, width: side }
    }

    #[test]
    fn a_logit_sees_what_the_documentation_says() {
        let field =
            |layers, is_film| PatchConfig { layers, ..PatchConfig::default() }.field(is_film);
        assert_eq!([1, 2, 3, 4].map(|layers| field(layers, false)), [16, 34, 70, 142]);
        assert_eq!([1, 2, 3, 4].map(|layers| field(layers, true)), [11, 23, 47, 95]);
    }

    /// What a logit hangs on: the frames at which the gradient of the one in the middle is not 0.
    #[test]
    fn a_logit_of_film_sees_as_many_frames_as_the_documentation_says() {
        for (layers, frames) in [(1, 11), (2, 23), (3, 31)] {
            let config = PatchConfig { channels: 2, layers, norm: PatchNorm::None, groups: 1 };
            let signal = Signal::Video { channels: 1, frames: 65, height: 8, width: 8 };
            let mut to = Declarations::default();
            let network = config.build(&Scope::new(Stage::Critic, "critic"), &signal, &mut to);
            let parameters = to.allocate(0, Kinds::same(Kind::Double), Device::Cpu);
            let input = Tensor::ones(signal.shape(1), (Kind::Double, Device::Cpu));
            let input = input.set_requires_grad(true);
            let logits = network.judge(&parameters, &input).logits;
            let middle = logits.select(2, logits.size()[2] / 2).sum(Kind::Double);
            let gradient = &Tensor::run_backward(&[middle], &[&input], false, false)[0];
            let of_frame =
                gradient.abs().sum_dim_intlist([0i64, 1, 3, 4].as_slice(), false, Kind::Double);
            assert_eq!(of_frame.count_nonzero(0).int64_value(&[]), frames, "{layers}");
        }
    }

    /// As counted from the original, whose batch norms stand in the place of group norms and whose convolutions before
    /// them have no bias.
    #[test]
    fn sizes_for_film_are_those_of_the_original() {
        let config = PatchConfig { channels: 16, layers: 2, norm: PatchNorm::Group, groups: 8 };
        let signal = Signal::Video { channels: 3, frames: 17, height: 64, width: 64 };
        assert_eq!(config.validate("critic", &signal), Ok(()));
        let mut to = Declarations::default();
        let _ = config.build(&Scope::new(Stage::Critic, "critic"), &signal, &mut to);
        let parameters = to.allocate(0, Kinds::same(Kind::Float), Device::Cpu);
        assert_eq!(parameters.num_trainable(), 72_353 + 32 + 64);
    }

    /// The counts are those of the original without its batch norms, which have biases here.
    #[test]
    fn sizes_are_those_of_the_original() {
        let config = PatchConfig { channels: 64, layers: 3, norm: PatchNorm::None, groups: 1 };
        let mut to = Declarations::default();
        let network = config.build(&Scope::new(Stage::Critic, "critic"), &images(70), &mut to);
        let parameters = to.allocate(0, Kinds::same(Kind::Float), Device::Cpu);
        let of = |inputs: i64, outputs: i64| 16 * inputs * outputs + outputs;
        let expected = of(3, 64) + of(64, 128) + of(128, 256) + of(256, 512) + of(512, 1);
        assert_eq!(parameters.num_trainable(), expected);
        let input = Tensor::zeros([2, 3, 70, 72], (Kind::Float, Device::Cpu));
        let opinion = network.judge(&parameters, &input);
        assert_eq!(opinion.logits.size(), [2, 1, 6, 7]);
        assert_eq!(opinion.maps.len(), 4);
        let names: Vec<_> = parameters.named_views().map(|(name, _)| name.to_owned()).collect();
        assert_eq!(names[..2], ["critic.layers.0.conv.weight", "critic.layers.0.conv.bias"]);
        assert_eq!(names[8..], ["critic.logits.weight", "critic.logits.bias"]);
        let (_, first) = parameters.named_views().next().unwrap();
        // 3,072 draws: the deviation within 5 of its own of 0.02 / sqrt(2 x 3,072).
        let off = first.std(true).double_value(&[]) - 0.02;
        assert!(off.abs() < 5.0 * 0.02 / 6144f64.sqrt(), "{off}");
        let (_, bias) = parameters.named_views().nth(1).unwrap();
        assert_eq!(bias.abs().max().double_value(&[]), 0.0);
    }

    #[test]
    fn what_cannot_be_is_said_in_one_line() {
        let base = PatchConfig::default();
        assert_eq!(base.validate("critic", &images(32)), Ok(()));
        assert_eq!(
            PatchConfig { layers: 2, ..base.clone() }.validate("critic", &images(64)),
            Ok(())
        );
        let without = PatchConfig { norm: PatchNorm::None, groups: 7, ..base.clone() };
        assert_eq!(without.validate("critic", &images(16)), Ok(()));
        let deep = PatchConfig { layers: 4, ..base.clone() };
        let sound = Signal::Audio { channels: 1, samples: 64 };
        let film = Signal::Video { channels: 3, frames: 5, height: 32, width: 24 };
        for (config, signal, words) in [
            (base.clone(), sound, "takes pictures and film, these data are sound"),
            (
                PatchConfig { layers: 3, ..base.clone() },
                film,
                "47 x 47 pixels, more than the 32 x 24 that these data have: lower it to 2",
            ),
            (PatchConfig { channels: 0, ..base.clone() }, images(64), "channels should be from 1"),
            (PatchConfig { layers: 7, ..base.clone() }, images(64), "layers should be from 1 to 6"),
            (
                deep,
                images(64),
                "142 x 142 pixels, more than the 64 x 64 that these data have: lower it to 2",
            ),
            (base.clone(), images(15), "sides of 16 at least are needed"),
            (PatchConfig { groups: 5, ..base.clone() }, images(64), "divide the 64 channels"),
            (PatchConfig { groups: 0, ..base }, images(64), "divide the 64 channels"),
        ] {
            let refused = config.validate("critic", &signal).unwrap_err();
            assert!(refused.contains(words) && !refused.contains('\n'), "{refused}");
        }
    }

    #[test]
    fn a_configuration_says_only_what_it_changes() {
        let read = |text: &str| toml::from_str::<super::super::CriticConfig>(text);
        let expected = PatchConfig { norm: PatchNorm::None, layers: 2, ..PatchConfig::default() };
        let found = read("kind = \"patch\"\nlayers = 2\nnorm = \"none\"").unwrap();
        assert_eq!(found, super::super::CriticConfig::Patch(expected));
        assert!(read("kind = \"patch\"\nwidth = 2").is_err());
    }
}
