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
    /// With `"cosine"`: what fraction of the rate is left at the last step, in [0, 1].
    pub final_fraction: f64,
}

/// Shape of a schedule after its warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleKind {
    /// The rate stays.
    Constant,
    /// Half a cosine, from the rate to `final_fraction` of it at the last step.
    Cosine,
}

impl Default for ScheduleConfig {
    fn default() -> Self {
        Self { kind: ScheduleKind::Constant, warmup_steps: 0, final_fraction: 0.0 }
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
        Ok(())
    }

    /// Factor on the learning rate for the step with this index, from 0, of `steps`.
    pub fn factor(&self, step: u64, steps: u64) -> f64 {
        if step < self.warmup_steps {
            return (step + 1) as f64 / self.warmup_steps as f64;
        }
        match self.kind {
            ScheduleKind::Constant => 1.0,
            ScheduleKind::Cosine => {
                let last = (steps - 1).saturating_sub(self.warmup_steps).max(1);
                let done = ((step - self.warmup_steps) as f64 / last as f64).min(1.0);
                let cosine = (1.0 + (PI * done).cos()) / 2.0;
                self.final_fraction + (1.0 - self.final_fraction) * cosine
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: warm-up 1/2, 2/2; then (1 + cos(pi i / 4)) / 2 for i = 0..4 over 5 steps.
    #[test]
    fn warm_up_then_half_a_cosine() {
        let schedule =
            ScheduleConfig { kind: ScheduleKind::Cosine, warmup_steps: 2, final_fraction: 0.0 };
        let expected = [0.5, 1.0, 1.0, 0.853_553_390_593, 0.5, 0.146_446_609_407, 0.0];
        for (step, expected) in expected.into_iter().enumerate() {
            assert!((schedule.factor(step as u64, 7) - expected).abs() < 1e-9, "step {step}");
        }
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
