//! The `[comm]` table.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How ranks talk to one another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CommConfig {
    /// Seconds that a collective may take, above 0, to 86,400; a longer one ends the run with 4. The
    /// wait for slower ranks counts.
    pub timeout_seconds: f64,
    /// What carries the sums over ranks.
    pub backend: Backend,
    /// Whether several ranks may take one GPU, for tests: each then claims a host of its own
    /// towards NCCL (NCCL_HOSTID), since NCCL before 2.30.3 refuses otherwise.
    pub share_gpu: bool,
}

/// What carries tensors between ranks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Backend {
    /// NCCL between GPUs, MPI between processors.
    #[default]
    Auto,
    /// NCCL.
    Nccl,
    /// MPI; tensors of GPUs go through the host's memory.
    Mpi,
}

impl std::str::FromStr for Backend {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "nccl" => Ok(Self::Nccl),
            "mpi" => Ok(Self::Mpi),
            _ => Err(format!("expected auto, nccl or mpi, found '{text}'")),
        }
    }
}

impl Default for CommConfig {
    fn default() -> Self {
        Self { timeout_seconds: 300.0, backend: Backend::Auto, share_gpu: false }
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
