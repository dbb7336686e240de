//! The `[data]` section of a configuration: where samples come from and how they are read.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::DataError;
use crate::source::SampleShape;

/// Where samples come from and how they are read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataConfig {
    /// `"packed"`: a folder written by `tessera data pack`. `"synthetic"`: drawn shapes, for
    /// tests and first runs without a data set.
    pub kind: DataKind,
    /// Folder of the packed data set, the one that holds `manifest.json`. Not used by
    /// `"synthetic"`.
    pub path: PathBuf,
    /// Whether every shard is hashed when a run starts. `"auto"`: if the data set is at most
    /// 256 MiB. Each sample is checked against its own checksum in any case, when it is read.
    pub verify: VerifyMode,
    /// Batches read ahead on each rank, at least 1. It never changes the order of samples.
    pub prefetch: usize,
    /// What `kind = "synthetic"` draws.
    pub synthetic: SyntheticConfig,
}

/// Kind of source, a value of [`DataConfig::kind`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DataKind {
    /// Shards on disk with a manifest.
    #[default]
    Packed,
    /// Drawn shapes, a pure function of seed, split and sample.
    Synthetic,
}

/// When shards are hashed at the start of a run, a value of [`DataConfig::verify`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerifyMode {
    /// If the data set is at most 256 MiB.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What the synthetic source draws.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SyntheticConfig {
    /// Color channels of an image.
    pub channels: u32,
    /// Height in pixels.
    pub height: u32,
    /// Width in pixels.
    pub width: u32,
    /// Samples of the split `train`.
    pub num_train: u64,
    /// Samples of the split `test`.
    pub num_test: u64,
    /// Which data set is drawn. Apart from the run's seed: two runs with different seeds can
    /// share their data.
    pub seed: u64,
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            kind: DataKind::default(),
            path: PathBuf::new(),
            verify: VerifyMode::default(),
            prefetch: 4,
            synthetic: SyntheticConfig::default(),
        }
    }
}

impl Default for SyntheticConfig {
    fn default() -> Self {
        Self { channels: 1, height: 28, width: 28, num_train: 2048, num_test: 256, seed: 0 }
    }
}

impl DataConfig {
    /// Rejects values that would only fail later. Looks at no file.
    ///
    /// # Errors
    ///
    /// [`DataError::Config`] with the key and what would be right.
    pub fn validate(&self) -> Result<(), DataError> {
        if !(1..=1024).contains(&self.prefetch) {
            let problem = format!("must be between 1 and 1024 batches, not {}", self.prefetch);
            return Err(DataError::Config { key: "prefetch", problem });
        }
        match self.kind {
            DataKind::Packed if self.path.as_os_str().is_empty() => Err(DataError::Config {
                key: "path",
                problem: "is empty: set it to a folder written by `tessera data pack`".to_owned(),
            }),
            DataKind::Packed => Ok(()),
            DataKind::Synthetic => self.synthetic.validate(),
        }
    }
}

impl SyntheticConfig {
    /// Shape of every sample.
    pub fn shape(&self) -> SampleShape {
        SampleShape { channels: self.channels, height: self.height, width: self.width }
    }

    /// Rejects sizes that cannot be drawn.
    fn validate(&self) -> Result<(), DataError> {
        if let Err(problem) = self.shape().check() {
            return Err(DataError::Config { key: "synthetic", problem });
        }
        if self.num_train == 0 {
            let problem = "must be at least 1".to_owned();
            return Err(DataError::Config { key: "synthetic.num_train", problem });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_fail_later_are_refused_with_their_key() {
        let message = |config: DataConfig| config.validate().unwrap_err().to_string();
        assert!(message(DataConfig::default()).starts_with("data.path is empty"));

        let packed = DataConfig { path: "somewhere".into(), ..DataConfig::default() };
        assert!(packed.validate().is_ok());
        assert!(message(DataConfig { prefetch: 0, ..packed }).starts_with("data.prefetch"));

        let synthetic = DataConfig { kind: DataKind::Synthetic, ..DataConfig::default() };
        assert!(synthetic.validate().is_ok());
        let mut flat = synthetic.clone();
        flat.synthetic.height = 0;
        assert!(message(flat).starts_with("data.synthetic has a height of 0"));
        let mut empty = synthetic;
        empty.synthetic.num_train = 0;
        assert!(message(empty).starts_with("data.synthetic.num_train"));
    }

    #[test]
    fn unknown_keys_are_refused_and_the_rest_has_defaults() {
        let config: DataConfig =
            serde_json::from_str(r#"{"kind":"synthetic","verify":"never"}"#).unwrap();
        assert_eq!(config.kind, DataKind::Synthetic);
        assert_eq!(config.verify, VerifyMode::Never);
        assert_eq!(config.prefetch, 4);
        assert!(serde_json::from_str::<DataConfig>(r#"{"pth":"x"}"#).is_err());
    }
}
