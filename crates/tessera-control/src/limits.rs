//! The `[limits]` table: how long workers may do nothing. The launcher keeps to it, so it stands in the
//! configuration that the launcher resolves.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Phase;

/// Seconds that the launcher waits before it says that something is wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Without a word of a worker, which speaks every second; 3 to 86,400.
    pub silence_seconds: f64,
    /// Over which the waits of workers for one another are compared, 2 to 86,400; 0: never. If in
    /// two such windows in a row the others waited a quarter of their time for one worker, it is
    /// named, and the run goes on. Over MPI; what NCCL waits is not seen from the host.
    pub late_seconds: f64,
    /// From the launcher's start of mpirun to each worker's hello, and then until the workers have met over MPI
    /// and NCCL; also how long a worker looks for its launcher. 5 to 604,800, as the limits of all phases.
    pub meet_seconds: f64,
    /// In one place of the set-up, which may read whole data sets.
    pub start_seconds: f64,
    /// Waiting for one batch.
    pub data_seconds: f64,
    /// In the forward and backward pass of one step.
    pub compute_seconds: f64,
    /// In one collective.
    pub reduce_seconds: f64,
    /// In one batch of an evaluation.
    pub evaluate_seconds: f64,
    /// Of one checkpoint.
    pub checkpoint_seconds: f64,
    /// Between the last step and the end.
    pub finish_seconds: f64,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            silence_seconds: 60.0,
            late_seconds: 30.0,
            meet_seconds: 300.0,
            start_seconds: 3600.0,
            data_seconds: 300.0,
            compute_seconds: 300.0,
            reduce_seconds: 300.0,
            evaluate_seconds: 300.0,
            checkpoint_seconds: 300.0,
            finish_seconds: 300.0,
        }
    }
}

impl LimitsConfig {
    /// Seconds that a worker may stay in one place of each phase, in the order of [`Phase::ALL`].
    pub fn of_phases(&self) -> [f64; Phase::NUM] {
        [
            self.meet_seconds,
            self.start_seconds,
            self.data_seconds,
            self.compute_seconds,
            self.reduce_seconds,
            self.evaluate_seconds,
            self.checkpoint_seconds,
            self.finish_seconds,
        ]
    }

    /// What is wrong with the values, if anything.
    ///
    /// # Errors
    ///
    /// One line that names the key and says what it may be.
    pub fn validate(&self) -> Result<(), String> {
        let refused = |key: &str, range: &str, found: f64| {
            Err(format!("limits.{key}_seconds should be {range}, found {found}"))
        };
        if !(3.0..=86_400.0).contains(&self.silence_seconds) {
            return refused("silence", "from 3 to 86400", self.silence_seconds);
        }
        if self.late_seconds != 0.0 && !(2.0..=86_400.0).contains(&self.late_seconds) {
            return refused("late", "0 or from 2 to 86400", self.late_seconds);
        }
        for (phase, seconds) in Phase::ALL.into_iter().zip(self.of_phases()) {
            if !(5.0..=604_800.0).contains(&seconds) {
                return refused(phase.name(), "from 5 to 604800", seconds);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_no_worker_could_keep_are_refused_by_name() {
        let good = LimitsConfig::default();
        assert_eq!(good.validate(), Ok(()));
        assert_eq!(LimitsConfig { late_seconds: 0.0, ..good.clone() }.validate(), Ok(()));
        for (bad, words) in [
            (LimitsConfig { silence_seconds: 1.0, ..good.clone() }, "limits.silence_seconds"),
            (LimitsConfig { late_seconds: 1.0, ..good.clone() }, "limits.late_seconds"),
            (
                LimitsConfig { meet_seconds: 1.0, ..good.clone() },
                "limits.meet_seconds should be from 5",
            ),
            (LimitsConfig { evaluate_seconds: f64::NAN, ..good.clone() }, "limits.evaluate_"),
            (
                LimitsConfig { finish_seconds: 4.0, ..good },
                "limits.finish_seconds should be from 5",
            ),
        ] {
            let problem = bad.validate().unwrap_err();
            assert!(problem.starts_with(words), "{problem}");
        }
    }
}
