//! The `[metrics.track]` table: trackers that the launcher keeps supplied while a run goes on. The launcher reads it
//! from the configuration that it resolves.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Names of the trackers.
const TRACKERS: [&str; 3] = ["wandb", "mlflow", "trackio"];

/// Trackers that get the rows of a run while it goes on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TrackConfig {
    /// Any of `wandb`, `mlflow` and `trackio`. For each the launcher starts a `tessera track --follow`, which nothing
    /// waits for; a bare mpirun starts none.
    pub to: Vec<String>,
    /// W&B's project, MLflow's experiment, the start of Trackio's project; empty: what the tracker's own variable
    /// says, or else `tessera`.
    pub project: String,
    /// MLflow's server; empty: what `MLFLOW_TRACKING_URI` says.
    pub uri: String,
    /// Whether rows go at once. Those that a resume takes back are there twice.
    pub eager: bool,
}

impl TrackConfig {
    /// What is wrong with the values, if anything.
    ///
    /// # Errors
    ///
    /// One line that names the key and says what it may be.
    pub fn validate(&self) -> Result<(), String> {
        let unknown = self.to.iter().find(|name| !TRACKERS.contains(&name.as_str()));
        if let Some(name) = unknown {
            return Err(format!(
                "metrics.track.to should be any of {}, found \"{name}\"",
                TRACKERS.join(", ")
            ));
        }
        if let Some(name) =
            self.to.iter().enumerate().find(|(at, name)| self.to[..*at].contains(name))
        {
            return Err(format!("metrics.track.to has \"{}\" twice: name it once", name.1));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tracker_that_there_is_not_and_one_named_twice_are_refused() {
        let to = |names: &[&str]| {
            let to = names.iter().map(|name| (*name).to_owned()).collect();
            TrackConfig { to, ..TrackConfig::default() }.validate()
        };
        assert_eq!(to(&[]), Ok(()));
        assert_eq!(to(&TRACKERS), Ok(()));
        assert!(
            to(&["comet"]).unwrap_err().contains("any of wandb, mlflow, trackio, found \"comet\"")
        );
        assert!(to(&["wandb", "wandb"]).unwrap_err().contains("twice"));
    }
}
