//! Parameter groups: each stage of a model with settings of its own for the optimiser, or frozen.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tessera_nn::parameters::{Role, Stage};

use crate::engine::schedule::ScheduleConfig;

/// The `[optimizer.groups]` table: the parts of a model, each with settings of its own. What is left out is as in
/// `[optimizer]` and `[schedule]`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GroupsConfig {
    /// The quantiser, with its projections.
    pub quantizer: GroupConfig,
    /// All before it.
    pub encoder: GroupConfig,
    /// All behind it.
    pub decoder: GroupConfig,
    /// The head of a probe.
    pub head: GroupConfig,
    /// The critic of an autoencoder.
    pub critic: GroupConfig,
    /// A model of codes.
    pub prior: GroupConfig,
}

/// Settings of one group.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GroupConfig {
    /// Whether it stays as it is. It costs no gradient, no moments and no byte of the sum over ranks then. A quantiser
    /// takes no statistics either.
    pub frozen: bool,
    /// Step size before the schedule's factor, 0 or more.
    #[schemars(with = "f64")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f64>,
    /// Decay of the first moment, in [0, 1).
    #[schemars(with = "f64")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta1: Option<f64>,
    /// Decay of the second moment, in [0, 1).
    #[schemars(with = "f64")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta2: Option<f64>,
    /// Decoupled weight decay, 0 or more.
    #[schemars(with = "f64")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f64>,
    /// What weight decay shrinks.
    pub decays: Decays,
    /// Learning rate over steps.
    #[schemars(with = "ScheduleConfig")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<ScheduleConfig>,
}

/// What of a group weight decay shrinks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Decays {
    /// What layers multiply with; not biases, norms, positions and codebooks.
    #[default]
    Weights,
    /// All of it.
    Everything,
}

impl Decays {
    /// Whether it shrinks such a parameter.
    pub(crate) fn includes(self, role: Role) -> bool {
        self == Self::Everything || role == Role::Weight
    }
}

/// All stages that can be groups.
pub(crate) const ALL: [Stage; 6] =
    [Stage::Quantizer, Stage::Encoder, Stage::Decoder, Stage::Head, Stage::Critic, Stage::Prior];

/// The name of a group, and of the part of a model.
pub(crate) fn name(stage: Stage) -> &'static str {
    match stage {
        Stage::Quantizer => "quantizer",
        Stage::Encoder => "encoder",
        Stage::Decoder => "decoder",
        Stage::Head => "head",
        Stage::Critic => "critic",
        Stage::Prior => "prior",
    }
}

/// The name of the figure that tells a group's learning rate.
pub(crate) fn rate_name(stage: Stage) -> &'static str {
    match stage {
        Stage::Quantizer => "learning_rate_quantizer",
        Stage::Encoder => "learning_rate_encoder",
        Stage::Decoder => "learning_rate_decoder",
        Stage::Head => "learning_rate_head",
        Stage::Critic => "learning_rate_critic",
        Stage::Prior => "learning_rate_prior",
    }
}

impl GroupConfig {
    /// Whether its learning rate is not that of all.
    pub(crate) fn has_own_rate(&self) -> bool {
        self.learning_rate.is_some() || self.schedule.is_some()
    }
}

impl GroupsConfig {
    /// The settings of a stage.
    pub fn of(&self, stage: Stage) -> &GroupConfig {
        match stage {
            Stage::Quantizer => &self.quantizer,
            Stage::Encoder => &self.encoder,
            Stage::Decoder => &self.decoder,
            Stage::Head => &self.head,
            Stage::Critic => &self.critic,
            Stage::Prior => &self.prior,
        }
    }

    /// The stages that stay as they are.
    pub fn frozen(&self) -> Vec<Stage> {
        ALL.into_iter().filter(|stage| self.of(*stage).frozen).collect()
    }

    /// What is wrong with the values for a task that trains these stages in so many steps, if anything.
    pub(crate) fn validate(&self, stages: &[Stage], steps: u64) -> Result<(), String> {
        for stage in ALL {
            let (group, key) = (self.of(stage), format!("optimizer.groups.{}", name(stage)));
            if !stages.contains(&stage) && *group != GroupConfig::default() {
                let names: Vec<_> = stages.iter().map(|stage| name(*stage)).collect();
                return Err(format!(
                    "{key} is set, but this task trains {} alone: leave it out",
                    names.join(", ")
                ));
            }
            let set = GroupConfig { frozen: false, ..group.clone() };
            if group.frozen && set != GroupConfig::default() {
                return Err(format!(
                    "{key} is frozen: leave its other keys out, or frozen = false"
                ));
            }
            for (name, value) in
                [("learning_rate", group.learning_rate), ("weight_decay", group.weight_decay)]
            {
                if let Some(value) = value.filter(|value| !(*value >= 0.0 && value.is_finite())) {
                    return Err(format!("{key}.{name} should be 0 or more, found {value}"));
                }
            }
            for (name, value) in [("beta1", group.beta1), ("beta2", group.beta2)] {
                if let Some(value) = value.filter(|value| !(0.0..1.0).contains(value)) {
                    return Err(format!(
                        "{key}.{name} should be at least 0 and below 1, found {value}"
                    ));
                }
            }
            if let Some(schedule) = &group.schedule {
                let of_group = |problem: String| format!("{key}.{problem}");
                schedule.validate(steps).map_err(of_group)?;
            }
        }
        if stages.iter().all(|stage| self.of(*stage).frozen) {
            return Err("all of optimizer.groups are frozen, and nothing is left to train: set \
                        frozen = false in one of them"
                .to_owned());
        }
        Ok(())
    }

    /// Whether a step's rate hangs on how many steps there are, in some group that is trained.
    pub(crate) fn know_their_end(&self, of_all: &ScheduleConfig, stages: &[Stage]) -> bool {
        let trained = stages.iter().map(|stage| self.of(*stage)).filter(|group| !group.frozen);
        let mut schedules = trained.map(|group| group.schedule.as_ref().unwrap_or(of_all));
        schedules.any(|schedule| schedule.kind.knows_its_end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRAINED: [Stage; 3] = [Stage::Quantizer, Stage::Encoder, Stage::Decoder];

    fn refusal(change: impl FnOnce(&mut GroupsConfig)) -> String {
        let mut groups = GroupsConfig::default();
        change(&mut groups);
        groups.validate(&TRAINED, 10).unwrap_err()
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_key() {
        assert_eq!(GroupsConfig::default().validate(&TRAINED, 10), Ok(()));
        let head = refusal(|groups| groups.head.frozen = true);
        let words =
            "optimizer.groups.head is set, but this task trains quantizer, encoder, decoder";
        assert!(head.starts_with(words), "{head}");
        let rate = refusal(|groups| groups.encoder.learning_rate = Some(-1.0));
        assert!(rate.starts_with("optimizer.groups.encoder.learning_rate should be 0"), "{rate}");
        let beta = refusal(|groups| groups.decoder.beta2 = Some(1.0));
        assert!(beta.starts_with("optimizer.groups.decoder.beta2 should be at least 0"), "{beta}");
        let both = refusal(|groups| {
            groups.encoder = GroupConfig { frozen: true, beta1: Some(0.5), ..Default::default() };
        });
        assert!(both.starts_with("optimizer.groups.encoder is frozen: leave"), "{both}");
        let late = refusal(|groups| {
            let schedule = ScheduleConfig { warmup_steps: 10, ..ScheduleConfig::default() };
            groups.encoder.schedule = Some(schedule);
        });
        let words = "optimizer.groups.encoder.schedule.warmup_steps should be below";
        assert!(late.starts_with(words), "{late}");
        let nothing = refusal(|groups| {
            for group in [&mut groups.quantizer, &mut groups.encoder, &mut groups.decoder] {
                group.frozen = true;
            }
        });
        assert!(nothing.contains("nothing is left to train"), "{nothing}");
    }
}
