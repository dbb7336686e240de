//! MPD: networks on sound that is folded by periods, each instant beside those a period away.
//!
//! Follows Kong et al. 2020 (<https://arxiv.org/abs/2010.05646>), section 2.3, in the forms of
//! AudioCraft and of the Descript codec. Sound `[N, C, T]` is filled up to whole periods by
//! reflection and seen as `[N, C, T / period, period]`. Layers: four convolutions with 5 taps along the
//! periods, which they thin out by 3, one that does not, logits with 3 taps; nothing goes across
//! a period's instants. Each layer has 4 times the channels of the one before, up to a limit. All
//! weights are normalised.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::network::{Layer, Network, View, validate_slope};
use crate::layers::{Conv, ConvConfig, Scope};
use crate::parameters::Declarations;
use crate::signal::Signal;

/// Strides of the layers along the periods.
const STRIDES: [i64; 5] = [3, 3, 3, 3, 1];
/// Channels of a layer, over those of the one before.
const GROWTH: i64 = 4;

/// Networks on folded sound.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PeriodConfig {
    /// Instants of the periods, a network each: from 1 to one less than a sample has. Primes see the most
    /// different things.
    pub periods: Vec<i64>,
    /// A fourth of the channels of the first layer, 1 to 256; each further layer has 4 times as many.
    /// 8 in AudioCraft and the Descript codec.
    pub channels: i64,
    /// Most channels of a layer, 1 to 4096. 1024 in both.
    pub most_channels: i64,
    /// How the last period is filled.
    pub padding: PeriodPadding,
    /// Whether `loss.feature_matching` compares logits too, as AudioCraft does; the Descript codec does not.
    pub match_logits: bool,
    /// Slope of the LeakyReLU below 0, at least 0 and below 1. 0.2 in AudioCraft, 0.1 in the Descript
    /// codec.
    pub slope: f64,
}

/// How sound is filled up to whole periods: by reflection, so that its last instant is not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PeriodPadding {
    /// Where the last period is not whole, as HiFi-GAN and AudioCraft do.
    Needed,
    /// Always, by a whole period where the last one is whole, as the Descript codec does.
    Always,
}

impl Default for PeriodConfig {
    fn default() -> Self {
        Self {
            periods: vec![2, 3, 5, 7, 11],
            channels: 2,
            most_channels: 128,
            padding: PeriodPadding::Needed,
            match_logits: true,
            slope: 0.2,
        }
    }
}

impl PeriodConfig {
    pub(super) fn validate(&self, at: &str, signal: &Signal) -> Result<(), String> {
        let Signal::Audio { samples, .. } = *signal else {
            return Err(super::takes(at, "period", "sound", signal));
        };
        for (key, value, most) in
            [("channels", self.channels, 256), ("most_channels", self.most_channels, 4096)]
        {
            if !(1..=most).contains(&value) {
                return Err(format!("{at}.{key} should be from 1 to {most}, found {value}"));
            }
        }
        validate_slope(at, self.slope)?;
        if self.periods.is_empty() {
            return Err(format!("{at}.periods should name one period at least, found none"));
        }
        match self.periods.iter().find(|period| !(1..samples).contains(period)) {
            Some(period) => Err(format!(
                "{at}.periods should be from 1 to {}, one less than the instants of a sample, found \
                 {period}",
                samples - 1
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
        for (number, &period) in self.periods.iter().enumerate() {
            let scope = scope.child(&format!("periods.{number}"));
            let conv = |to: &mut Declarations, scope: &Scope, inputs, outputs, taps, stride| {
                let config = ConvConfig::same_size(inputs, outputs, &[taps, 1]);
                let config = ConvConfig { stride: vec![stride, 1], ..config };
                Conv::new(to, scope, ConvConfig { has_weight_norm: true, ..config })
            };
            let (mut layers, mut inputs, mut wide) = (Vec::new(), channels, self.channels);
            for (layer, stride) in STRIDES.into_iter().enumerate() {
                let scope = scope.child(&format!("layers.{layer}")).child("conv");
                wide = (wide * GROWTH).min(self.most_channels);
                let conv = conv(to, &scope, inputs, wide, 5, stride);
                layers.push(Layer { conv, norm: None, slope: self.slope });
                inputs = wide;
            }
            let logits = conv(to, &scope.child("logits"), inputs, 1, 3, 1);
            let view = View::Folded { period, padding: self.padding };
            networks.push(Network { view, layers, logits, logits_are_map: self.match_logits });
        }
        networks
    }
}

/// Sound `[N, C, T]` as `[N, C, periods, period]`.
pub(super) fn fold(sound_nct: &Tensor, period: i64, padding: PeriodPadding) -> Tensor {
    let (num, channels, len) = sound_nct.size3().expect("sound is [N, C, T]");
    let missing = match (padding, len % period) {
        (PeriodPadding::Needed, 0) => 0,
        (_, rest) => period - rest,
    };
    let filled = match missing {
        0 => sound_nct.contiguous(),
        missing => sound_nct.pad([0, missing], "reflect", None),
    };
    filled.view([num, channels, (len + missing) / period, period])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::{Kinds, Stage};
    use tch::{Device, Kind};

    #[test]
    fn the_last_period_is_filled_by_reflection() {
        let sound = Tensor::from_slice(&[1.0, 2.0, 3.0, 4.0]).view([1, 1, 4]);
        let folded = |period, padding| -> Vec<f64> {
            let folded = fold(&sound, period, padding);
            assert_eq!(folded.size()[3], period);
            Vec::try_from(folded.flatten(0, -1)).unwrap()
        };
        assert_eq!(folded(3, PeriodPadding::Needed), [1.0, 2.0, 3.0, 4.0, 3.0, 2.0]);
        assert_eq!(folded(3, PeriodPadding::Always), [1.0, 2.0, 3.0, 4.0, 3.0, 2.0]);
        assert_eq!(folded(2, PeriodPadding::Needed), [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(folded(2, PeriodPadding::Always), [1.0, 2.0, 3.0, 4.0, 3.0, 2.0]);
    }

    /// AudioCraft's: channels 32, 128, 512, 1024, 1024, five periods, 41.1 million numbers.
    #[test]
    fn sizes_are_those_of_the_original() {
        let widths = |config: PeriodConfig| {
            let mut to = Declarations::default();
            let networks = config.build(&Scope::new(Stage::Critic, "critic"), 1, &mut to);
            let parameters = to.allocate(0, Kinds::same(Kind::Float), Device::Cpu);
            let sound = Tensor::zeros([1, 1, 1000], (Kind::Float, Device::Cpu));
            let opinion = networks[2].judge(&parameters, &sound);
            assert_eq!(opinion.logits.size(), [1, 1, 3, 5]);
            let widths: Vec<i64> = opinion.maps.iter().map(|map| map.size()[1]).collect();
            (widths, parameters.num_trainable())
        };
        let small = widths(PeriodConfig::default());
        assert_eq!(small, (vec![8, 32, 128, 128, 128, 1], 934_370));
        let large = PeriodConfig { channels: 8, most_channels: 1024, ..PeriodConfig::default() };
        let of = |inputs: i64, outputs: i64, taps: i64| inputs * outputs * taps + 2 * outputs;
        let one = of(1, 32, 5)
            + of(32, 128, 5)
            + of(128, 512, 5)
            + of(512, 1024, 5)
            + of(1024, 1024, 5)
            + of(1024, 1, 3);
        assert_eq!(widths(large), (vec![32, 128, 512, 1024, 1024, 1], 5 * one));
    }

    #[test]
    fn what_cannot_be_is_said_in_one_line() {
        let base = PeriodConfig::default();
        let sound = Signal::Audio { channels: 1, samples: 12 };
        assert_eq!(base.validate("critic", &sound), Ok(()));
        let with = |periods: &[i64]| PeriodConfig { periods: periods.to_vec(), ..base.clone() };
        for (config, words) in [
            (with(&[2, 12]), "critic.periods should be from 1 to 11"),
            (with(&[0]), "found 0"),
            (with(&[]), "critic.periods should name one period"),
            (PeriodConfig { channels: 0, ..base.clone() }, "critic.channels should be from 1"),
            (PeriodConfig { most_channels: 0, ..base.clone() }, "critic.most_channels should be"),
            (PeriodConfig { slope: -0.1, ..base.clone() }, "critic.slope should be at least 0"),
        ] {
            let refused = config.validate("critic", &sound).unwrap_err();
            assert!(refused.contains(words) && !refused.contains('\n'), "{refused}");
        }
    }
}
