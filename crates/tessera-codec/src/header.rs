//! What a compressed file says of itself before its first block, as JSON.

use serde::{Deserialize, Serialize};

use crate::CodecError;
use crate::table::MOST_CODES;

/// Most levels of codes of a sample.
const MOST_LEVELS: usize = 256;
/// Most codes of a sample.
const MOST_CODES_OF_A_SAMPLE: u64 = 1 << 24;
/// Most samples of a file, and values of what one entry stands for.
const MOST: u64 = 1 << 40;
/// Most entries of a file.
const MOST_ENTRIES: usize = 1 << 20;

/// What a compressed file says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// SHA-256 of the model that made the codes, in hexadecimal, as its folder is named by.
    pub model: String,
    /// Name of the tables that the codes are coded with, [`Tables::id`](crate::Tables::id).
    pub tables: String,
    /// The prior that the codes are coded by, where it is no tables: each block is a batch of its samples then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prior: Option<PriorCoding>,
    /// Whether each entry is a sound whose samples are pieces of one stream: what a piece sounds like hangs on those before it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stream: bool,
    /// The levels of codes that a sample has, in the order of the model: with fewer than the model has, the file is smaller.
    pub levels: Vec<LevelShape>,
    /// What was compressed, in order; what comes through a pipe is one entry whose number of samples is not known yet.
    pub entries: Vec<Place>,
}

/// A trained prior as the model of an entropy coder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriorCoding {
    /// SHA-256 of the prior, in hexadecimal, as its folder is named by.
    pub prior: String,
    /// SHA-256 of what it computes of a fixed sample: who decodes needs a machine and a program that compute the same bits.
    pub numerics: String,
}

/// A level of codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LevelShape {
    /// Number of codes, K.
    pub num_codes: u32,
    /// Codes of a sample.
    pub positions: u32,
}

/// One file that was compressed: a picture in tiles, a sound in windows, a film in clips.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// Where it belongs below the folder that is decompressed into, with `/` between parts; empty for a single file.
    pub name: String,
    /// What it is.
    pub media: Media,
    /// How many samples of the model it takes; `None`: as many as come.
    pub samples: Option<u64>,
}

/// Kind and size of what was compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "modality", rename_all = "snake_case", deny_unknown_fields)]
pub enum Media {
    /// A picture.
    Image {
        /// 1: grey, 3: red, green, blue.
        channels: u32,
        /// In pixels.
        height: u32,
        /// In pixels.
        width: u32,
    },
    /// A sound.
    Audio {
        /// 1: mono, 2: stereo.
        channels: u32,
        /// Frames a second.
        sample_rate: u32,
        /// Frames; `None`: as many as come.
        frames: Option<u64>,
    },
    /// A film.
    Video {
        /// 1: grey, 3: red, green, blue.
        channels: u32,
        /// Frames.
        frames: u64,
        /// In pixels.
        height: u32,
        /// In pixels.
        width: u32,
        /// Frames in a thousand seconds, where the film says it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rate: Option<u32>,
    },
}

impl Header {
    /// The version of the format that has all that the header says: 2 of streams, 1 of all else.
    pub fn version(&self) -> u16 {
        if self.stream { 2 } else { 1 }
    }

    /// Whether nobody knew how long the sound was when its file began: its end tells.
    pub fn is_open(&self) -> bool {
        self.entries.iter().any(|entry| entry.samples.is_none())
    }

    /// Codes of a sample.
    pub fn codes_of_a_sample(&self) -> u64 {
        self.levels.iter().map(|level| u64::from(level.positions)).sum()
    }

    /// Codes of a sample of each level.
    pub fn positions(&self) -> Vec<u32> {
        self.levels.iter().map(|level| level.positions).collect()
    }

    /// Samples of all entries; `None` if one does not know yet.
    pub fn num_samples(&self) -> Option<u64> {
        self.entries.iter().map(|entry| entry.samples).sum()
    }

    /// What cannot be, if anything: a reader asks before it asks for memory.
    ///
    /// # Errors
    ///
    /// [`CodecError::Header`].
    pub fn validate(&self) -> Result<(), CodecError> {
        let wrong = |problem: String| Err(CodecError::Header(problem));
        let of_prior = self
            .prior
            .iter()
            .flat_map(|prior| [("prior", &prior.prior), ("numerics of a prior", &prior.numerics)]);
        for (name, hash) in
            [("model", &self.model), ("tables", &self.tables)].into_iter().chain(of_prior)
        {
            if hash.len() != 64 || !hash.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return wrong(format!("names no {name} by 64 hexadecimal digits"));
            }
        }
        let is_sound = |entry: &Place| matches!(entry.media, Media::Audio { .. });
        if self.stream && (self.prior.is_some() || !self.entries.iter().all(is_sound)) {
            return wrong("tells of a stream that is no sound, or is coded by a prior".to_owned());
        }
        if self.levels.is_empty() || self.levels.len() > MOST_LEVELS {
            return wrong(format!(
                "has {} levels of codes, not 1 to {MOST_LEVELS}",
                self.levels.len()
            ));
        }
        for level in &self.levels {
            if !(2..=MOST_CODES).contains(&level.num_codes) || level.positions == 0 {
                return wrong(format!(
                    "has a level of {} positions of {} codes",
                    level.positions, level.num_codes
                ));
            }
        }
        if self.codes_of_a_sample() > MOST_CODES_OF_A_SAMPLE {
            return wrong(format!("has {} codes a sample", self.codes_of_a_sample()));
        }
        if self.entries.is_empty() || self.entries.len() > MOST_ENTRIES {
            return wrong(format!("has {} entries, not 1 to {MOST_ENTRIES}", self.entries.len()));
        }
        let mut samples = 0u64;
        for entry in &self.entries {
            if entry.samples.is_none() && self.entries.len() > 1 {
                return wrong("has an entry without a number of samples beside others".to_owned());
            }
            samples = samples.saturating_add(entry.samples.unwrap_or(0));
            if samples > MOST || !entry.media.is_possible() {
                return wrong(format!(
                    "has an entry of {:?} in {:?} samples",
                    entry.media, entry.samples
                ));
            }
            if !is_below_a_folder(&entry.name) && (self.entries.len() > 1 || !entry.name.is_empty())
            {
                return wrong(format!(
                    "has an entry named {:?}, which is no name below a folder",
                    entry.name
                ));
            }
        }
        Ok(())
    }
}

impl Media {
    /// Bytes of what it stands for: one for a value of pictures and film, two for one of sound, whose length may be unknown.
    pub fn num_bytes(&self) -> u64 {
        match *self {
            Self::Image { channels, height, width } => {
                u64::from(channels) * u64::from(height) * u64::from(width)
            }
            Self::Audio { channels, frames, .. } => 2 * u64::from(channels) * frames.unwrap_or(0),
            Self::Video { channels, frames, height, width, .. } => {
                u64::from(channels) * frames * u64::from(height) * u64::from(width)
            }
        }
    }

    /// Whether all sizes are above 0, and their product is one that a program could meet.
    fn is_possible(&self) -> bool {
        let sizes = match *self {
            Self::Image { channels, height, width } => [channels, height, width, 1].map(u64::from),
            Self::Audio { channels, sample_rate, frames } => {
                let frames = frames.map_or(1, |frames| frames.max(1));
                [u64::from(channels), frames, u64::from(sample_rate).min(1), 1]
            }
            Self::Video { channels, frames, height, width, rate } => {
                let channels = u64::from(channels) * u64::from(rate.unwrap_or(1).min(1));
                [channels, frames, u64::from(height), u64::from(width)]
            }
        };
        let product = sizes.iter().try_fold(1u64, |product, &size| product.checked_mul(size));
        product.is_some_and(|product| (1..=MOST).contains(&product))
    }
}

/// Whether a name leads below a folder on every system: no empty part, none of dots, no separator of another system.
fn is_below_a_folder(name: &str) -> bool {
    let is_part = |part: &str| !part.is_empty() && part != "." && part != "..";
    name.len() <= 4096 && !name.contains(['\\', '\0', ':']) && name.split('/').all(is_part)
}
