//! Networks that tell outputs from targets, to be trained against the decoder.
//!
//! A [`Critic`] is one network or several, which judge the same samples in different views: as they
//! are, as spectra, folded by periods. Each gives logits and, of every layer, a map of features. Its
//! parameters are of stage [`Stage::Critic`], with names that begin
//! with `critic.`; what is learned from logits and maps is in [`crate::loss::adversarial`].
//!
//! There is no batch norm, though the original PatchGAN has it. Its statistics are those of the part
//! of a batch that a rank has, so a run on two ranks is another one than on one; no split of a batch
//! into micro-batches gives them either. It hides what a critic should see as well: real and fake
//! samples come in separate batches, each is brought to the same mean and variance, and a fake with
//! half the contrast has logits with the same spread. Group norm is over one sample and exact, and so
//! is weight norm.

mod network;
mod patch;
mod period;
mod spectral;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::Tensor;

use self::network::Network;
pub use self::patch::{PatchConfig, PatchNorm};
pub use self::period::{PeriodConfig, PeriodPadding};
pub use self::spectral::SpectralConfig;
use crate::layers::Scope;
use crate::parameters::{Declarations, Parameters, Stage};
use crate::signal::Signal;

/// Which critic, chosen by `kind`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum CriticConfig {
    /// `kind = "patch"`: a logit for each patch of a picture or a clip of film.
    Patch(PatchConfig),
    /// `kind = "spectral"`: networks on spectra of sound, one for each length of window.
    Spectral(SpectralConfig),
    /// `kind = "period"`: networks on sound that is folded, one for each period.
    Period(PeriodConfig),
    /// `kind = "several"`: several critics of the same samples.
    Several(SeveralConfig),
}

/// Several critics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SeveralConfig {
    /// The critics, each with a `kind`.
    pub critics: Vec<CriticConfig>,
}

impl Default for SeveralConfig {
    fn default() -> Self {
        let spectral = CriticConfig::Spectral(SpectralConfig::default());
        Self { critics: vec![spectral, CriticConfig::Period(PeriodConfig::default())] }
    }
}

impl Default for CriticConfig {
    fn default() -> Self {
        Self::Patch(PatchConfig::default())
    }
}

impl CriticConfig {
    /// What is wrong with the values for samples of `signal`, if anything. Keys are named from
    /// `critic.` on.
    ///
    /// # Errors
    ///
    /// One line that names the key and says what it may be.
    pub fn validate(&self, signal: &Signal) -> Result<(), String> {
        self.validate_at("critic", signal)
    }

    /// The same for the critic of the table `at`.
    fn validate_at(&self, at: &str, signal: &Signal) -> Result<(), String> {
        match self {
            Self::Patch(config) => config.validate(at, signal),
            Self::Spectral(config) => config.validate(at, signal),
            Self::Period(config) => config.validate(at, signal),
            Self::Several(SeveralConfig { critics }) => {
                if critics.is_empty() {
                    return Err(format!(
                        "{at}.critics should name one critic at least, such as [{{ kind = \
                         \"spectral\" }}, {{ kind = \"period\" }}], found none"
                    ));
                }
                let mut all = critics.iter().enumerate();
                all.try_for_each(|(number, critic)| {
                    critic.validate_at(&format!("{at}.critics.{number}"), signal)
                })
            }
        }
    }

    /// Declares the parameters of a critic of samples of `signal`.
    pub fn build(&self, signal: &Signal, to: &mut Declarations) -> Critic {
        let mut networks = Vec::new();
        self.add_to(&mut networks, &Scope::new(Stage::Critic, "critic"), signal, to);
        Critic { networks }
    }

    fn add_to(
        &self,
        networks: &mut Vec<Network>,
        scope: &Scope,
        signal: &Signal,
        to: &mut Declarations,
    ) {
        match self {
            Self::Patch(config) => networks.push(config.build(scope, signal, to)),
            Self::Spectral(config) => networks.extend(config.build(scope, signal.channels(), to)),
            Self::Period(config) => networks.extend(config.build(scope, signal.channels(), to)),
            Self::Several(SeveralConfig { critics }) => {
                for (number, critic) in critics.iter().enumerate() {
                    let scope = scope.child(&format!("critics.{number}"));
                    critic.add_to(networks, &scope, signal, to);
                }
            }
        }
    }
}

/// What one network of a critic says of samples.
#[derive(Debug)]
pub struct Opinion {
    /// `[N, 1, ..]`, high where the sample is taken for a real one.
    pub logits: Tensor,
    /// What each layer has seen, `[N, channels, ..]`, in order.
    pub maps: Vec<Tensor>,
}

/// One network or several that judge samples.
#[derive(Debug)]
pub struct Critic {
    networks: Vec<Network>,
}

impl Critic {
    /// How many networks there are.
    pub fn num_networks(&self) -> usize {
        self.networks.len()
    }

    /// What each network says of samples `[N, C, ..]`, in order.
    pub fn judge(&self, parameters: &Parameters, samples_nc: &Tensor) -> Vec<Opinion> {
        self.networks.iter().map(|network| network.judge(parameters, samples_nc)).collect()
    }
}

/// The refusal of samples that a critic is not for.
fn takes(at: &str, kind: &str, takes: &str, signal: &Signal) -> String {
    let advice = match signal {
        Signal::Image { .. } | Signal::Video { .. } => format!("set {at}.kind = \"patch\""),
        Signal::Audio { .. } => {
            format!("set {at}.kind to \"spectral\", \"period\" or \"several\"")
        }
        _ => "set loss.adversarial = 0".to_owned(),
    };
    format!("{at}.kind = \"{kind}\" takes {takes}, these data are {signal}: {advice}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::Kinds;
    use tch::{Device, Kind};

    const SOUND: Signal = Signal::Audio { channels: 1, samples: 2000 };
    const PICTURES: Signal = Signal::Image { channels: 1, height: 32, width: 32 };

    #[test]
    fn several_critics_judge_one_after_another_under_names_of_their_own() {
        let config: CriticConfig = toml::from_str("kind = \"several\"").unwrap();
        assert_eq!(config.validate(&SOUND), Ok(()));
        let mut to = Declarations::default();
        let critic = config.build(&SOUND, &mut to);
        let parameters = to.allocate(0, Kinds::same(Kind::Float), Device::Cpu);
        assert_eq!(critic.num_networks(), 3 + 5);
        assert_eq!(parameters.num_trainable(), 19_014 + 934_370);
        let opinions =
            critic.judge(&parameters, &Tensor::zeros([2, 1, 2000], (Kind::Float, Device::Cpu)));
        let num_maps: Vec<usize> = opinions.iter().map(|opinion| opinion.maps.len()).collect();
        assert_eq!(num_maps, [5, 5, 5, 6, 6, 6, 6, 6]);
        let names: Vec<_> = parameters.named_views().map(|(name, _)| name.to_owned()).collect();
        assert_eq!(names[0], "critic.critics.0.scales.0.layers.0.conv.weight");
        assert_eq!(names[names.len() - 1], "critic.critics.1.periods.4.logits.bias");
    }

    #[test]
    fn critics_are_refused_for_samples_that_they_are_not_for() {
        let read = |text: &str| toml::from_str::<CriticConfig>(text).unwrap();
        let film = Signal::Video { channels: 3, frames: 4, height: 32, width: 32 };
        for (config, signal, words) in [
            (
                "kind = \"patch\"",
                SOUND,
                "critic.kind = \"patch\" takes pictures and film, these data are sound: set critic.kind to \"spectral\"",
            ),
            (
                "kind = \"spectral\"",
                PICTURES,
                "critic.kind = \"spectral\" takes sound, these data are pictures: set critic.kind = \"patch\"",
            ),
            ("kind = \"period\"", film, "these data are film: set critic.kind = \"patch\""),
            ("kind = \"several\"", PICTURES, "critic.critics.0.kind = \"spectral\" takes sound"),
            ("kind = \"several\"\ncritics = []", SOUND, "critic.critics should name one critic"),
        ] {
            let refused = read(config).validate(&signal).unwrap_err();
            assert!(refused.contains(words) && !refused.contains('\n'), "{refused}");
        }
    }
}
