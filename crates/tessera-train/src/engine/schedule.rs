//! Learning rate over steps: a pure function, so nothing of it needs saving.

use std::f64::consts::PI;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The `[schedule]` table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ScheduleConfig {
    /// Shape after the warm-up.
    pub kind: ScheduleKind,
    /// Steps over which the rate rises linearly from 0, below `train.steps`; 0: none.
    pub warmup_steps: u64,
    /// With `"cosine"`, `"linear"` and `"constant_then_decay"`: what fraction of the rate is left at the last step, in [0, 1].
    pub final_fraction: f64,
    /// With `"constant_then_decay"`: the last steps, over which the rate falls linearly; at least 1, and with the warm-up no
    /// more than `train.steps`.
    pub decay_steps: u64,
}

/// Shape of a schedule after its warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleKind {
    /// The rate stays.
    Constant,
    /// Half a cosine, from the rate to `final_fraction` of it at the last step.
    Cosine,
    /// A line, likewise.
    Linear,
    /// The rate times the root of `warmup_steps` (1 where there are none) over the step, counted from 1: Vaswani et al. 2017,
    /// <https://arxiv.org/abs/1706.03762>, equation 3.
    InverseSqrt,
    /// The rate stays, and falls to `final_fraction` of it over the last `decay_steps`: Hägele et al. 2024,
    /// <https://arxiv.org/abs/2405.18392>.
    ConstantThenDecay,
}

impl ScheduleKind {
    /// Whether a step's rate hangs on how many steps there are.
    pub(crate) fn knows_its_end(self) -> bool {
        !matches!(self, Self::Constant | Self::InverseSqrt)
    }
}

impl Default for ScheduleConfig {
    fn default() -> Self {
        Self { kind: ScheduleKind::Constant, warmup_steps: 0, final_fraction: 0.0, decay_steps: 0 }
    }
}

impl ScheduleConfig {
    pub(crate) fn validate(&self, steps: u64) -> Result<(), String> {
        if !(0.0..=1.0).contains(&self.final_fraction) {
            return Err(format!(
                "schedule.final_fraction should be from 0 to 1, found {}",
                self.final_fraction
            ));
        }
        if self.warmup_steps >= steps.max(1) {
            return Err(format!(
                "schedule.warmup_steps should be below train.steps = {steps}, found {}",
                self.warmup_steps
            ));
        }
        let most = steps - self.warmup_steps;
        if self.kind == ScheduleKind::ConstantThenDecay && !(1..=most).contains(&self.decay_steps) {
            return Err(format!(
                "schedule.decay_steps should be from 1 to {most}, train.steps without the warm-up, \
                 found {}",
                self.decay_steps
            ));
        }
        Ok(())
    }

    /// Factor on the learning rate for the step with this index, from 0, of `steps`.
    pub fn factor(&self, step: u64, steps: u64) -> f64 {
        if step < self.warmup_steps {
            return (step + 1) as f64 / self.warmup_steps as f64;
        }
        let last = (steps - 1).saturating_sub(self.warmup_steps).max(1);
        let done = ((step - self.warmup_steps) as f64 / last as f64).min(1.0);
        let left = match self.kind {
            ScheduleKind::Constant => return 1.0,
            ScheduleKind::InverseSqrt => {
                return (self.warmup_steps.max(1) as f64 / (step + 1) as f64).sqrt();
            }
            ScheduleKind::Cosine => (1.0 + (PI * done).cos()) / 2.0,
            ScheduleKind::Linear => 1.0 - done,
            ScheduleKind::ConstantThenDecay => {
                let fallen = (step + 1).saturating_sub(steps.saturating_sub(self.decay_steps));
                1.0 - (fallen as f64 / self.decay_steps.max(1) as f64).min(1.0)
            }
        };
        self.final_fraction + (1.0 - self.final_fraction) * left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: warm-up 1/2, 2/2; then (1 + cos(pi i / 4)) / 2 for i = 0..4 over 5 steps.
    #[test]
    fn warm_up_then_half_a_cosine() {
        let cosine = [0.5, 1.0, 1.0, 0.853_553_390_593, 0.5, 0.146_446_609_407, 0.0];
        assert_factors(ScheduleKind::Cosine, 0.0, cosine);
    }

    /// Of 7 steps after a warm-up of 2, with a decay of 2.
    fn assert_factors(kind: ScheduleKind, final_fraction: f64, expected: [f64; 7]) {
        let schedule = ScheduleConfig { kind, warmup_steps: 2, final_fraction, decay_steps: 2 };
        assert_eq!(schedule.validate(7), Ok(()));
        for (step, expected) in expected.into_iter().enumerate() {
            let found = schedule.factor(step as u64, 7);
            assert!((found - expected).abs() < 1e-9, "{kind:?}, step {step}: {found}");
        }
    }

    /// By hand: quarters of the way from 1 to 0.2; roots of 2 over the step; 1 until two steps are left, which take half of
    /// the way from 1 to 0.2 each.
    #[test]
    fn a_line_a_root_and_a_late_fall() {
        assert_factors(ScheduleKind::Linear, 0.2, [0.5, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2]);
        let root = |step: f64| (2.0 / step).sqrt();
        let roots = [0.5, 1.0, root(3.0), root(4.0), root(5.0), root(6.0), root(7.0)];
        assert_factors(ScheduleKind::InverseSqrt, 0.0, roots);
        let late = [0.5, 1.0, 1.0, 1.0, 1.0, 0.6, 0.2];
        assert_factors(ScheduleKind::ConstantThenDecay, 0.2, late);
        let never = ScheduleConfig {
            kind: ScheduleKind::ConstantThenDecay,
            warmup_steps: 2,
            ..ScheduleConfig::default()
        };
        let refused = never.validate(7).unwrap_err();
        assert!(refused.starts_with("schedule.decay_steps should be from 1 to 5"), "{refused}");
        assert!(ScheduleConfig { decay_steps: 6, ..never }.validate(7).is_err());
    }

    #[test]
    fn constant_stays_and_a_fraction_is_kept() {
        assert_eq!(ScheduleConfig::default().factor(1234, 2000), 1.0);
        let schedule = ScheduleConfig {
            kind: ScheduleKind::Cosine,
            final_fraction: 0.1,
            ..ScheduleConfig::default()
        };
        assert!((schedule.factor(9, 10) - 0.1).abs() < 1e-12);
        assert!(ScheduleConfig { warmup_steps: 9, ..schedule }.validate(9).is_err());
    }
}
