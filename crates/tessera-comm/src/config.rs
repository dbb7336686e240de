//! The `[comm]` table.

use serde::{Deserialize, Serialize};

/// How ranks talk to one another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CommConfig {
    /// Seconds that a collective may take before the run is declared hung (exit code 4).
    pub timeout_seconds: f64,
}

impl Default for CommConfig {
    fn default() -> Self {
        Self { timeout_seconds: 300.0 }
    }
}

impl CommConfig {
    /// What is wrong with the values, if anything.
    ///
    /// # Errors
    ///
    /// One line that names the key and says what it may be.
    pub fn validate(&self) -> Result<(), String> {
        if !(self.timeout_seconds > 0.0 && self.timeout_seconds <= 86_400.0) {
            return Err(format!(
                "comm.timeout_seconds should be above 0 and at most 86400, found {}",
                self.timeout_seconds
            ));
        }
        Ok(())
    }
}
