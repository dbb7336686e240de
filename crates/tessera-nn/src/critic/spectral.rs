//! MS-STFT: networks on complex spectra of sound, one for each length of window.
//!
//! Follows Defossez et al. 2022 (<https://arxiv.org/abs/2210.13438>), section 3.4, in the form of
//! AudioCraft. A spectrum is of Hann windows (periodic) of w instants, w / 4 apart, without padding,
//! divided by the square root of the sum of the window's squares. Real and imaginary parts are
//! channels, axes are frames and frequencies. Layers: a convolution with 3 x 9 taps; three with 3 x 9
//! taps that halve the frequencies and see frames 1, 2 and 4 apart; one with 3 x 3; logits with
//! 3 x 3. Weights are normalised but for the first convolution's, as there. Logits are no map.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::network::{Layer, Network, View, validate_slope};
use crate::layers::{Conv, ConvConfig, Pad, Scope};
use crate::parameters::Declarations;
use crate::signal::Signal;

/// Windows in a window's length: one begins after a quarter of the one before.
const HOPS: i64 = 4;
/// Frames from one tap to the next of the convolutions that halve the frequencies.
const DILATIONS: [i64; 3] = [1, 2, 4];

/// Networks on spectra.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SpectralConfig {
    /// Channels of each layer, 1 to 1024. EnCodec has 32.
    pub channels: i64,
    /// Instants of the windows, a network each: multiples of 4 from 16 on, at most those of a sample.
    /// EnCodec has 2048, 1024, 512, 256 and 128 at 24 kHz.
    pub windows: Vec<i64>,
    /// Slope of the LeakyReLU below 0, at least 0 and below 1. 0.3 in EnCodec's configuration.
    pub slope: f64,
}

impl Default for SpectralConfig {
    fn default() -> Self {
        Self { channels: 8, windows: vec![512, 256, 128], slope: 0.2 }
    }
}

impl SpectralConfig {
    pub(super) fn validate(&self, at: &str, signal: &Signal) -> Result<(), String> {
        let Signal::Audio { samples, .. } = *signal else {
            return Err(super::takes(at, "spectral", "sound", signal));
        };
        if !(1..=1024).contains(&self.channels) {
            return Err(format!("{at}.channels should be from 1 to 1024, found {}", self.channels));
        }
        validate_slope(at, self.slope)?;
        if self.windows.is_empty() {
            return Err(format!("{at}.windows should name one window at least, found none"));
        }
        let fits = |window: &i64| (16..=samples).contains(window) && window % HOPS == 0;
        match self.windows.iter().find(|window| !fits(window)) {
            Some(window) => Err(format!(
                "{at}.windows should be multiples of {HOPS} from 16 to the {samples} instants of a \
                 sample, found {window}"
            )),
            None => Ok(()),
        }
    }

    pub(super) fn build(
        &self,
        scope: &Scope,
        channels: i64,
        to: &mut Declarations,
    ) -> Vec<Network> {
        let mut networks = Vec::new();
        for (scale, &window) in self.windows.iter().enumerate() {
            let scope = scope.child(&format!("scales.{scale}"));
            let mut layers = Vec::new();
            let mut add = |to: &mut Declarations, config: ConvConfig| {
                let scope = scope.child(&format!("layers.{}", layers.len())).child("conv");
                let conv = Conv::new(to, &scope, config);
                layers.push(Layer { conv, norm: None, slope: self.slope });
            };
            add(to, ConvConfig::same_size(2 * channels, self.channels, &[3, 9]));
            let normed = |config| ConvConfig { has_weight_norm: true, ..config };
            for dilation in DILATIONS {
                let config = ConvConfig::new(self.channels, self.channels, &[3, 9]);
                add(
                    to,
                    normed(ConvConfig {
                        stride: vec![1, 2],
                        dilation: vec![dilation, 1],
                        padding: vec![Pad::zeros(dilation, dilation), Pad::zeros(4, 4)],
                        ..config
                    }),
                );
            }
            add(to, normed(ConvConfig::same_size(self.channels, self.channels, &[3, 3])));
            let config = normed(ConvConfig::same_size(self.channels, 1, &[3, 3]));
            let logits = Conv::new(to, &scope.child("logits"), config);
            let view = View::Spectrum { window };
            networks.push(Network { view, layers, logits, logits_are_map: false });
        }
        networks
    }
}

/// Spectra of sound: `[N, C, T]` to `[N, 2 C, frames, window / 2 + 1]`, the real parts of all channels
/// before the imaginary ones.
pub(super) fn spectrum(sound_nct: &Tensor, window: i64) -> Tensor {
    let options = (sound_nct.kind(), sound_nct.device());
    let hann = Tensor::hann_window(window, options);
    let hann = &hann / hann.square().sum(Kind::Double).sqrt().to_kind(sound_nct.kind());
    // `[N, C, frames, window]`
    let windows = sound_nct.unfold(2, window, window / HOPS) * hann;
    if windows.size()[0] == 0 {
        // The transform of no samples is an error in libtorch. What comes back has a graph.
        return windows.narrow(3, 0, window / 2 + 1).repeat([1, 2, 1, 1]);
    }
    let bins = windows.fft_rfft(None, -1, "backward");
    Tensor::cat(&[bins.real(), bins.imag()], 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::Kinds;
    use tch::Device;

    /// By hand, a window of 16 with one channel: the Hann window's squares sum to 3/8 of 16, which is 6. Of a
    /// constant 1 the bin at 0 is the window's sum, 8, over the root of 6; that at 1 is half of it, below 0.
    #[test]
    fn a_constant_has_two_bins() {
        let found = spectrum(&Tensor::ones([1, 1, 24], (Kind::Double, Device::Cpu)), 16);
        assert_eq!(found.size(), [1, 2, 3, 9]);
        let bin = |part: i64, frame: i64, bin: i64| found.double_value(&[0, part, frame, bin]);
        for frame in 0..3 {
            assert!((bin(0, frame, 0) - 8.0 / 6f64.sqrt()).abs() < 1e-12);
            assert!((bin(0, frame, 1) + 4.0 / 6f64.sqrt()).abs() < 1e-12);
            assert!(bin(0, frame, 2).abs() < 1e-12 && bin(1, frame, 1).abs() < 1e-12);
        }
    }

    /// 6,338 a window: 440 and three times 1,744, 592, 74, as AudioCraft's source has with 8 filters.
    #[test]
    fn sizes_are_those_of_the_original() {
        let mut to = Declarations::default();
        let config = SpectralConfig::default();
        let networks =
            config.build(&Scope::new(crate::parameters::Stage::Critic, "critic"), 1, &mut to);
        let parameters = to.allocate(0, Kinds::same(Kind::Float), Device::Cpu);
        assert_eq!(parameters.num_trainable(), 3 * 6338);
        let sound = Tensor::zeros([2, 1, 1024], (Kind::Float, Device::Cpu));
        let opinion = networks[0].judge(&parameters, &sound);
        assert_eq!(opinion.logits.size(), [2, 1, 5, 33]);
        let names: Vec<_> = parameters.named_views().map(|(name, _)| name.to_owned()).collect();
        let expected = ["layers.0.conv.weight", "layers.0.conv.bias", "layers.1.conv.weight_v"];
        assert_eq!(names[..3], expected.map(|name| format!("critic.scales.0.{name}")));
    }

    #[test]
    fn what_cannot_be_is_said_in_one_line() {
        let base = SpectralConfig::default();
        let sound = Signal::Audio { channels: 1, samples: 512 };
        assert_eq!(base.validate("critic", &sound), Ok(()));
        let with = |windows: &[i64]| SpectralConfig { windows: windows.to_vec(), ..base.clone() };
        for (config, words) in [
            (with(&[512, 1024]), "to the 512 instants of a sample, found 1024"),
            (with(&[126]), "critic.windows should be multiples of 4 from 16"),
            (with(&[]), "critic.windows should name one window"),
            (SpectralConfig { channels: 0, ..base.clone() }, "critic.channels should be from 1"),
            (SpectralConfig { slope: 1.0, ..base.clone() }, "critic.slope should be at least 0"),
        ] {
            let refused = config.validate("critic", &sound).unwrap_err();
            assert!(refused.contains(words) && !refused.contains('\n'), "{refused}");
        }
    }
}
