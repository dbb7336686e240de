//! The `[data]` section of a configuration: where samples come from and how they are read.

pub(crate) mod split;

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::split::SplitConfig;
use crate::decode::audio::AudioConfig;
use crate::decode::image::ImageConfig;
use crate::decode::video::VideoConfig;
use crate::error::DataError;
use crate::shape::Modality;
use crate::shape::SampleShape;
use crate::store::{self, RemoteConfig};

/// Where samples come from and how they are read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DataConfig {
    /// What is at `path`, see docs/data.md.
    pub kind: DataKind,
    /// The data set: a folder, a file or a pattern, as `kind` says; must be set but for `"mixture"`
    /// and `"synthetic"`.
    pub path: PathBuf,
    /// What the files are that `"folder"` and `"webdataset"` read. The networks `"conv2d"`, `"unet2d"` and
    /// `"vit"` take pictures, `"conv1d"` takes sound, `"conv3d"` film, `"dense"` all of them.
    pub modality: Modality,
    /// Extension of the member of a `"webdataset"` sample that is its content, such as `seg.png`;
    /// empty: the first that belongs to `modality`.
    pub member: String,
    /// Part of the samples held out as the split `test`, by a hash of their names, where folders
    /// or archives do not say the split themselves; in [0, 1). 0: where there is no such split, a
    /// run is trained and not evaluated.
    pub holdout: f64,
    /// Which folders, archives or arrays are which split; where it is left out, their names say it, or
    /// `holdout`. See docs/data.md.
    pub split: SplitConfig,
    /// Parts of the split `train`, drawn alike for all runs, of which one is the split `test`
    /// instead: 0 (none), or 2 to the number of files. All samples of a file are in one part; parts
    /// are equal, up to the samples of one file. For a mixture, set it in each part.
    pub folds: u64,
    /// Which part that is, from 0, below `folds`.
    pub fold: u64,
    /// Part of the samples of the split `train` that is used, in (0, 1]. Files are drawn by a hash of
    /// their names, so alike for all runs, each with all of its samples, and a smaller part is inside
    /// of a larger one. The split `test` stays whole. For a mixture, set it in each part.
    pub fraction: f64,
    /// How pictures become samples.
    pub image: ImageConfig,
    /// How sound becomes samples.
    pub audio: AudioConfig,
    /// How film becomes samples.
    pub video: VideoConfig,
    /// Whether every shard is hashed when a run starts. `"auto"`: if the data set is at most
    /// 256 MiB. Each sample is checked against its own checksum in any case, when it is read.
    pub verify: VerifyMode,
    /// Batches read ahead on each rank, 1 to 1024. It never changes the order of samples.
    pub prefetch: usize,
    /// Threads on each rank that read and decode samples, to 1024; 0: one a processor that the rank
    /// may use, at most 8. It never changes the order of samples.
    pub threads: usize,
    /// What becomes of a sample that cannot be read in the middle of a run.
    pub on_corrupt: OnCorrupt,
    /// How samples are shuffled.
    pub shuffle: Shuffle,
    /// Shards, or archives, that `shuffle = "two_level"` goes through at a time, at least 1.
    pub shuffle_shards: usize,
    /// Samples that `shuffle = "two_level"` reads one after another, at least 1.
    pub shuffle_block: u64,
    /// How a `path` that begins with `s3://`, `gs://`, `http://` or `https://` is read.
    pub remote: RemoteConfig,
    /// What `kind = "synthetic"` draws. A sample has at most 1 GiB.
    pub synthetic: SyntheticConfig,
    /// The parts of `kind = "mixture"`. Each is a key: `data.mixture.0.weight` is of the first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mixture: Vec<MixturePart>,
}

/// One data set of a mixture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MixturePart {
    /// How often its samples come, against the weights of the other parts; above 0. Of every 10,000
    /// positions each part has its share, rounded.
    pub weight: f64,
    /// The data set, with the keys of `[data]`; `prefetch`, `threads` and `on_corrupt` count only
    /// outside, and the others only here.
    pub data: DataConfig,
}

/// Kind of source, a value of [`DataConfig::kind`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DataKind {
    /// Shards written by `tessera data pack`: the folder that holds `manifest.json`.
    #[default]
    Packed,
    /// Published files, decoded as they are read: a folder, searched with all folders below.
    Folder,
    /// Tar archives of samples: a folder, an archive, or a pattern such as `a-{000..009}.tar`.
    Webdataset,
    /// Files of MNIST and its successors, plain or gzipped: a folder.
    Idx,
    /// The binary version of CIFAR-10 or CIFAR-100: a folder.
    Cifar,
    /// Arrays of pictures saved by NumPy: a file, or a folder with `train.npy` and `test.npy`.
    Npy,
    /// Codes of a trained tokeniser, written by `tessera encode`: the folder that holds `manifest.json`.
    Tokens,
    /// Several data sets, each with a weight: `mixture` lists them.
    Mixture,
    /// Drawn shapes, a pure function of seed, split and sample.
    Synthetic,
}

/// How samples are shuffled, a value of [`DataConfig::shuffle`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Shuffle {
    /// All together: any sample can stand anywhere.
    #[default]
    Global,
    /// Shards, and blocks of samples within some shards at a time: for storage that is slow to
    /// seek, and data that is fetched shard by shard.
    TwoLevel,
}

/// The order of samples that a run asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shuffling {
    /// All together, or on two levels.
    pub kind: Shuffle,
    /// Shards that two levels go through at a time, at least 1.
    pub shards: usize,
    /// Samples that two levels read one after another, at least 1.
    pub block: u64,
}

/// What becomes of a sample that cannot be read, a value of [`DataConfig::on_corrupt`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnCorrupt {
    /// It ends the program, with its name.
    #[default]
    Fail,
    /// It is named in a warning and counted. In training another sample, drawn by seed and
    /// position, takes its place; an evaluation, or a data set that is packed, goes without it.
    /// A key that cannot be met ends the program all the same.
    Skip,
}

/// When shards are hashed at the start of a run, a value of [`DataConfig::verify`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SyntheticConfig {
    /// Color channels of an image, at least 1.
    pub channels: u32,
    /// Height in pixels, at least 1.
    pub height: u32,
    /// Width in pixels, at least 1.
    pub width: u32,
    /// Samples of the split `train`, at least 1.
    pub num_train: u64,
    /// Samples of the split `test`, at least 1.
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
            modality: Modality::default(),
            member: String::new(),
            holdout: 0.05,
            split: SplitConfig::default(),
            folds: 0,
            fold: 0,
            fraction: 1.0,
            image: ImageConfig::default(),
            audio: AudioConfig::default(),
            video: VideoConfig::default(),
            verify: VerifyMode::default(),
            prefetch: 4,
            threads: 0,
            on_corrupt: OnCorrupt::default(),
            shuffle: Shuffle::default(),
            shuffle_shards: 8,
            shuffle_block: 16,
            remote: RemoteConfig::default(),
            synthetic: SyntheticConfig::default(),
            mixture: Vec::new(),
        }
    }
}

impl Default for SyntheticConfig {
    fn default() -> Self {
        Self { channels: 1, height: 28, width: 28, num_train: 2048, num_test: 256, seed: 0 }
    }
}

impl DataConfig {
    /// How samples are shuffled, where it is no mixture.
    pub fn shuffling(&self) -> Shuffling {
        Shuffling { kind: self.shuffle, shards: self.shuffle_shards, block: self.shuffle_block }
    }

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
        if self.threads > 1024 {
            let problem = format!("must be at most 1024, not {}", self.threads);
            return Err(DataError::Config { key: "threads", problem });
        }
        for (key, value) in
            [("shuffle_shards", self.shuffle_shards as u64), ("shuffle_block", self.shuffle_block)]
        {
            if value == 0 {
                return Err(DataError::Config { key, problem: "must be at least 1".to_owned() });
            }
        }
        if !(0.0..1.0).contains(&self.holdout) {
            let problem = format!("must be in [0, 1), not {}", self.holdout);
            return Err(DataError::Config { key: "holdout", problem });
        }
        if !(self.fraction > 0.0 && self.fraction <= 1.0) {
            let problem = format!("must be in (0, 1], not {}", self.fraction);
            return Err(DataError::Config { key: "fraction", problem });
        }
        self.split.check().map_err(|(key, problem)| DataError::Config { key, problem })?;
        let has_names = [DataKind::Folder, DataKind::Webdataset, DataKind::Npy];
        if !self.split.is_empty() && !has_names.contains(&self.kind) {
            let problem = "is for kinds folder, webdataset and npy: leave it out".to_owned();
            return Err(DataError::Config { key: "split", problem });
        }
        let has_files = matches!(self.kind, DataKind::Folder | DataKind::Webdataset);
        if has_files && self.modality == Modality::Tokens {
            let problem = "is tokens, which are no files: set data.kind to \"tokens\"".to_owned();
            return Err(DataError::Config { key: "modality", problem });
        }
        if self.folds == 1 {
            let problem = "must be 0, or 2 or more, not 1".to_owned();
            return Err(DataError::Config { key: "folds", problem });
        }
        if self.folds > 0 && self.kind == DataKind::Mixture {
            let problem = "of a mixture are those of its parts: set it in each of them".to_owned();
            return Err(DataError::Config { key: "folds", problem });
        }
        if self.fold >= self.folds.max(1) {
            let problem = format!("must be below folds, {}, not {}", self.folds, self.fold);
            return Err(DataError::Config { key: "fold", problem });
        }
        for check in [self.image.check(), self.audio.check(), self.video.check()] {
            check.map_err(|(key, problem)| DataError::Config { key, problem })?;
        }
        self.remote.check().map_err(|(key, problem)| DataError::Config { key, problem })?;
        let what = match self.kind {
            DataKind::Synthetic => return self.synthetic.validate(),
            DataKind::Mixture => return self.validate_mixture(),
            DataKind::Packed => "a folder written by `tessera data pack`",
            DataKind::Tokens => "a folder written by `tessera encode`",
            DataKind::Folder => "a folder of published files",
            DataKind::Webdataset => "a folder of tar archives",
            DataKind::Idx => "a folder with train-images-idx3-ubyte",
            DataKind::Cifar => "a folder with data_batch_1.bin or train.bin",
            DataKind::Npy => "a file or folder of NumPy arrays",
        };
        if self.path.as_os_str().is_empty() {
            let problem = format!("is empty: set it to {what}");
            return Err(DataError::Config { key: "path", problem });
        }
        let reads_remote =
            matches!(self.kind, DataKind::Packed | DataKind::Tokens | DataKind::Webdataset);
        if store::is_remote(&self.path) && !reads_remote {
            let problem = format!(
                "is remote, which kinds packed, tokens and webdataset read; fetch it to read {what}"
            );
            return Err(DataError::Config { key: "path", problem });
        }
        Ok(())
    }
}

impl DataConfig {
    fn validate_mixture(&self) -> Result<(), DataError> {
        let wrong = |problem: String| Err(DataError::Config { key: "mixture", problem });
        if self.mixture.is_empty() {
            return wrong("is empty: list data sets, each with a weight".to_owned());
        }
        for (number, part) in self.mixture.iter().enumerate() {
            if !(part.weight > 0.0 && part.weight.is_finite()) {
                return wrong(format!("has a weight of {}: weights are above 0", part.weight));
            }
            let own = part.data.validate();
            own.map_err(|error| DataError::Part { number, source: Box::new(error) })?;
        }
        let none = Self::default();
        let unread = [
            ("path", self.path != none.path),
            ("modality", self.modality != none.modality),
            ("member", self.member != none.member),
            ("holdout", self.holdout != none.holdout && self.holdout != 0.0),
            ("fraction", self.fraction != none.fraction),
            ("image", self.image != none.image),
            ("audio", self.audio != none.audio),
            ("video", self.video != none.video),
            ("verify", self.verify != none.verify),
            ("shuffle", self.shuffle != none.shuffle),
            ("shuffle_shards", self.shuffle_shards != none.shuffle_shards),
            ("shuffle_block", self.shuffle_block != none.shuffle_block),
            ("remote", self.remote != none.remote),
            ("synthetic", self.synthetic != none.synthetic),
        ];
        match unread.into_iter().find(|(_, is_set)| *is_set) {
            Some((key, _)) => {
                let problem =
                    "of a mixture is that of its parts: set it in each of them".to_owned();
                Err(DataError::Config { key, problem })
            }
            None => Ok(()),
        }
    }
}

impl SyntheticConfig {
    /// Shape of every sample.
    pub fn shape(&self) -> SampleShape {
        SampleShape::image(self.channels, self.height, self.width)
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
    fn a_mixture_names_the_part_that_is_wrong_and_refuses_what_nothing_reads() {
        let part = |weight, kind| {
            let data = DataConfig { kind, ..DataConfig::default() };
            MixturePart { weight, data }
        };
        let mixture = |second: MixturePart| DataConfig {
            kind: DataKind::Mixture,
            mixture: vec![part(1.0, DataKind::Synthetic), second],
            ..DataConfig::default()
        };
        let good = mixture(part(2.0, DataKind::Synthetic));
        assert!(good.validate().is_ok());
        let message = |config: DataConfig| config.validate().unwrap_err().to_string();
        let told = message(mixture(part(1.0, DataKind::Npy)));
        assert!(told.starts_with("data.mixture.1: data.path is empty: set it to"), "{told}");
        assert!(message(mixture(part(0.0, DataKind::Synthetic))).contains("weights are above 0"));
        assert!(DataConfig { holdout: 0.0, ..good.clone() }.validate().is_ok());
        let told = message(DataConfig { holdout: 0.5, ..good.clone() });
        assert!(told.starts_with("data.holdout of a mixture is that of its parts"), "{told}");
        let told = message(DataConfig { fraction: 0.5, ..good });
        assert!(told.starts_with("data.fraction of a mixture is that of its parts"), "{told}");
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
