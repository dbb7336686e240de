//! The section `[data.remote]` of a configuration.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How data that lie elsewhere are fetched and kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RemoteConfig {
    /// Folder of the cache; empty: `tessera/remote` in the user's cache. Ranks of one host share
    /// it. Compressed archives are decompressed into `archives` in it (empty: `tessera/archives`),
    /// also those on this machine.
    pub cache: PathBuf,
    /// Most that the cache holds, in GiB, above 0; what was fetched first is removed first.
    pub cache_gib: f64,
    /// What is fetched and kept at a time, 1 to 1024 MiB.
    pub page_mib: u64,
    /// Attempts after the first, with pauses from 0.1 s, doubled each time, to 10 s.
    pub retries: u32,
    /// Longest that one request may take, in seconds, to a day.
    pub timeout_seconds: f64,
}

impl Default for RemoteConfig {
    fn default() -> Self {
        Self {
            cache: PathBuf::new(),
            cache_gib: 20.0,
            page_mib: 8,
            retries: 6,
            timeout_seconds: 60.0,
        }
    }
}

impl RemoteConfig {
    /// The error names a key and completes it.
    pub(crate) fn check(&self) -> Result<(), (&'static str, String)> {
        if !(self.cache_gib > 0.0 && self.cache_gib.is_finite()) {
            return Err(("remote.cache_gib", format!("must be above 0, not {}", self.cache_gib)));
        }
        if !(1..=1024).contains(&self.page_mib) {
            let problem = format!("must be between 1 and 1024, not {}", self.page_mib);
            return Err(("remote.page_mib", problem));
        }
        if !(self.timeout_seconds > 0.0 && self.timeout_seconds <= 86_400.0) {
            let problem =
                format!("must be above 0 and at most a day, not {}", self.timeout_seconds);
            return Err(("remote.timeout_seconds", problem));
        }
        Ok(())
    }
}
