//! From the bytes of a published file to samples of one shape.

pub(crate) mod audio;
mod ffmpeg;
pub(crate) mod image;
mod jpeg;
mod mix;
mod ogg;
pub(crate) mod pcm;
#[cfg(test)]
mod tests;
mod timeline;
pub(crate) mod video;
mod wav;
mod whole;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
}

impl Modality {
    /// Names of its formats, for people.
    pub(crate) fn names(self) -> &'static str {
        match self {
            Self::Image => "jpg, png, webp, bmp, gif, tiff or pnm",
            Self::Audio => "wav, flac, ogg, mp3, opus, m4a, aiff, caf, au, w64 or sph",
            Self::Video => "mp4, m4v, webm, mkv, mov, avi or gif",
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
        }
    }
}

/// Why a file gives no sample; the words of either complete "sample ...".
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    /// It is damaged, or not what it should be.
    File(String),
    /// It is whole, and the key below `data` asks for what cannot be made of it.
    Key(&'static str, String),
}

impl From<String> for Problem {
    fn from(words: String) -> Self {
        Self::File(words)
    }
}

impl From<Problem> for String {
    fn from(problem: Problem) -> Self {
        match problem {
            Problem::File(words) | Problem::Key(_, words) => words,
        }
    }
}

/// Whether a name ends with a dot and one of these, in upper or lower case.
pub(crate) fn has_extension(name: &str, extensions: &[&str]) -> bool {
    let Some((_, extension)) = name.rsplit_once('.') else { return false };
    extensions.iter().any(|known| known.eq_ignore_ascii_case(extension))
}
