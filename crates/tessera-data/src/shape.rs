//! What a sample is of, and its shape: what is in it, and how its bytes lie.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Largest sample that is believed: 1 GiB.
const MAX_SAMPLE_BYTES: u64 = 1 << 30;

/// What a sample is of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Modality {
    /// A picture: jpg, png, webp, bmp, gif (its first frame), tiff (its first page), pnm.
    #[default]
    Image,
    /// Sound: wav, rf64, flac, ogg, mp3; through FFmpeg opus, m4a, aiff, caf, au, w64, sph.
    Audio,
    /// A film: mp4, m4v, webm, mkv, mov, avi, animated gif, or a folder of pictures.
    Video,
    /// Codes of a trained tokeniser: no files, but what `kind = "tokens"` reads.
    Tokens,
}

impl Modality {
    /// Names of its formats, for people.
    pub(crate) fn names(self) -> &'static str {
        match self {
            Self::Image => "jpg, png, webp, bmp, gif, tiff or pnm",
            Self::Audio => "wav, flac, ogg, mp3, opus, m4a, aiff, caf, au, w64 or sph",
            Self::Video => "mp4, m4v, webm, mkv, mov, avi or gif",
            Self::Tokens => "none",
        }
    }

    /// Extensions of its files, in lower case.
    pub(crate) fn extensions(self) -> &'static [&'static str] {
        match self {
            Self::Image => &[
                "jpg", "jpeg", "jpe", "jfif", "png", "webp", "bmp", "gif", "tif", "tiff", "pnm",
                "ppm", "pgm", "pbm",
            ],
            Self::Audio => &[
                "wav", "wave", "bwf", "rf64", "w64", "flac", "ogg", "oga", "opus", "mp3", "m4a",
                "aif", "aiff", "aifc", "caf", "au", "sph",
            ],
            Self::Video => &["mp4", "m4v", "webm", "mkv", "mov", "avi", "gif"],
            Self::Tokens => &[],
        }
    }
}

/// Shape of a sample. Its elements lie in the order frames, height, width, channels: unsigned
/// bytes of pictures and video, signed 16-bit integers (little endian) of audio, unsigned 32-bit
/// integers (little endian) of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SampleShape {
    /// What the sample is of.
    #[serde(default, skip_serializing_if = "is_image")]
    pub modality: Modality,
    /// Pictures of a video, instants of an audio sample, or codes of all levels of tokens; 1 for a
    /// picture.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub frames: u32,
    /// Channels of color or of audio; 1 for tokens.
    pub channels: u32,
    /// Height in pixels; 1 for audio and tokens.
    pub height: u32,
    /// Width in pixels; 1 for audio and tokens.
    pub width: u32,
    /// Instants a second of audio; 0 for others.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub sample_rate: u32,
}

fn one() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the form that serde calls")]
fn is_one(value: &u32) -> bool {
    *value == 1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the form that serde calls")]
fn is_zero(value: &u32) -> bool {
    *value == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the form that serde calls")]
fn is_image(modality: &Modality) -> bool {
    *modality == Modality::Image
}

impl fmt::Display for SampleShape {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { modality, frames, channels, height, width, sample_rate } = self;
        match modality {
            Modality::Image => {
                write!(
                    formatter,
                    "{height} x {width} x {channels} (height, width, channels), bytes"
                )
            }
            Modality::Audio => write!(
                formatter,
                "{frames} x {channels} (instants at {sample_rate} Hz, channels), 16-bit integers"
            ),
            Modality::Video => write!(
                formatter,
                "{frames} x {height} x {width} x {channels} (frames, height, width, channels), bytes"
            ),
            Modality::Tokens => write!(formatter, "{frames} codes, 32-bit integers"),
        }
    }
}

impl SampleShape {
    /// A picture.
    pub fn image(channels: u32, height: u32, width: u32) -> Self {
        Self { modality: Modality::Image, frames: 1, channels, height, width, sample_rate: 0 }
    }

    /// A window of audio.
    pub fn audio(channels: u32, frames: u32, sample_rate: u32) -> Self {
        Self { modality: Modality::Audio, frames, channels, height: 1, width: 1, sample_rate }
    }

    /// A clip of a video.
    pub fn video(channels: u32, frames: u32, height: u32, width: u32) -> Self {
        Self { modality: Modality::Video, frames, channels, height, width, sample_rate: 0 }
    }

    /// Codes of a picture, a window or a clip: of all levels together, one after another.
    pub fn tokens(num_tokens: u32) -> Self {
        let (modality, frames) = (Modality::Tokens, num_tokens);
        Self { modality, frames, channels: 1, height: 1, width: 1, sample_rate: 0 }
    }

    /// Bytes of one sample.
    pub fn num_bytes(&self) -> usize {
        let axes = [self.frames, self.height, self.width, self.channels];
        axes.iter().fold(self.element_bytes(), |bytes, &axis| bytes * axis as usize)
    }

    /// Bytes of one element.
    pub fn element_bytes(&self) -> usize {
        match self.modality {
            Modality::Image | Modality::Video => 1,
            Modality::Audio => 2,
            Modality::Tokens => 4,
        }
    }

    /// Rejects empty and absurd shapes; the error completes a sentence about their owner.
    pub(crate) fn check(&self) -> Result<(), String> {
        let axes = [
            ("channels", self.channels),
            ("height", self.height),
            ("width", self.width),
            ("length in frames", self.frames),
        ];
        for (name, size) in axes {
            if size == 0 {
                return Err(format!("has a {name} of 0"));
            }
        }
        let element = self.element_bytes() as u64;
        let bytes =
            axes.iter().fold(element, |bytes, axis| bytes.saturating_mul(u64::from(axis.1)));
        if bytes > MAX_SAMPLE_BYTES {
            return Err(format!("has samples of {bytes} bytes, the limit is {MAX_SAMPLE_BYTES}"));
        }
        Ok(())
    }
}
