//! How files become samples: one modality, and the parts of a file.

use crate::config::DataConfig;
use crate::decode::audio::{self, AudioConfig, Sound, Windows};
use crate::decode::image::{self, ImageConfig, Picture};
use crate::decode::video::{Clips, Film, VideoConfig};
use crate::decode::{Modality, has_extension};
use crate::draw::Draw;
use crate::error::DataError;
use crate::shape::SampleShape;
use crate::source::files::Files;

/// What is made of each file.
#[derive(Debug, Clone)]
pub(crate) enum Recipe {
    Image(ImageConfig),
    Audio(AudioConfig),
    Video(VideoConfig),
}

/// What was in a file, or in a piece of it.
#[derive(Debug)]
pub(crate) enum Decoded {
    Picture(Picture),
    Sound(Sound),
    Clips(Clips),
}

impl Recipe {
    /// The recipe of a configuration; what it leaves open is taken from the first file.
    pub(crate) fn new(config: &DataConfig, files: &dyn Files) -> Result<Self, DataError> {
        let corrupt = |problem| files.corrupt(0, problem);
        Ok(match config.modality {
            Modality::Image => {
                let mut config = config.image.clone();
                if config.height == 0 {
                    let size = image::dimensions(&files.read(0)?);
                    (config.width, config.height) = size.map_err(corrupt)?;
                }
                Self::Image(config)
            }
            Modality::Audio => {
                let mut config = config.audio.clone();
                if config.sample_rate == 0 {
                    config.sample_rate = audio::sample_rate(&files.read(0)?).map_err(corrupt)?;
                }
                Self::Audio(config)
            }
            Modality::Video => Self::Video(config.video.clone()),
        })
    }

    pub(crate) fn shape(&self) -> SampleShape {
        match self {
            Self::Image(config) => config.shape(),
            Self::Audio(config) => config.shape(),
            Self::Video(config) => config.shape(),
        }
    }

    /// What identifies it.
    pub(crate) fn describe(&self) -> String {
        let text = match self {
            Self::Image(config) => serde_json::to_string(config),
            Self::Audio(config) => serde_json::to_string(config),
            Self::Video(config) => serde_json::to_string(config),
        };
        text.expect("a config is plain data")
    }

    /// Whether a file can be several samples, or none.
    pub(crate) fn has_parts(&self) -> bool {
        match self {
            Self::Image(config) => config.tiles,
            Self::Audio(config) => config.windows == Windows::All,
            // A film can be shorter than a clip.
            Self::Video(_) => true,
        }
    }

    /// How many samples a file is.
    pub(crate) fn num_parts(&self, files: &dyn Files, index: usize) -> Result<u64, DataError> {
        let count = match self {
            Self::Image(config) => {
                image::dimensions(&files.read(index)?).map(|size| config.num_tiles(size))
            }
            Self::Audio(config) => config.num_windows(&files.read(index)?),
            Self::Video(config) => with_film(files, index, |film| config.num_clips(film))?,
        };
        count.map_err(|problem| files.corrupt(index, problem))
    }

    /// Which of the pieces of a file that are decoded at a time a part is in.
    pub(crate) fn piece(&self, part: u64) -> u64 {
        match self {
            Self::Image(_) | Self::Audio(_) => 0,
            Self::Video(config) => config.segment(part),
        }
    }

    /// Whether what was decoded can be another sample as well.
    pub(crate) fn is_shared(&self) -> bool {
        match self {
            Self::Video(config) => config.clips == Windows::All,
            _ => self.has_parts(),
        }
    }

    /// Decodes a file, or the piece of it that `part` is in.
    pub(crate) fn decode(
        &self,
        files: &dyn Files,
        index: usize,
        part: u64,
        draw: Draw,
    ) -> Result<Decoded, DataError> {
        let decoded = match self {
            Self::Image(config) => {
                let ImageConfig { channels, max_pixels, .. } = *config;
                image::decode(&files.read(index)?, channels, max_pixels).map(Decoded::Picture)
            }
            Self::Audio(config) => config.decode(&files.read(index)?).map(Decoded::Sound),
            Self::Video(config) => {
                let clips = with_film(files, index, |film| config.decode(film, part, draw))?;
                clips.map(Decoded::Clips)
            }
        };
        decoded.map_err(|problem| files.corrupt(index, problem))
    }

    /// Writes sample `part` of a file to `out`; the error completes "sample ...".
    pub(crate) fn place(
        &self,
        decoded: &Decoded,
        part: u64,
        draw: Draw,
        out: &mut [u8],
    ) -> Result<(), String> {
        match (self, decoded) {
            (Self::Image(config), Decoded::Picture(picture)) => {
                config.place(picture, part, draw, out)
            }
            (Self::Audio(config), Decoded::Sound(sound)) => config.place(sound, part, draw, out),
            (Self::Video(config), Decoded::Clips(clips)) => {
                config.place(clips, part, draw, out);
                Ok(())
            }
            _ => unreachable!("a recipe decodes its own modality"),
        }
    }
}

fn with_film<T>(
    files: &dyn Files,
    index: usize,
    use_film: impl FnOnce(&Film<'_>) -> Result<T, String>,
) -> Result<Result<T, String>, DataError> {
    let name = files.name(index);
    Ok(match files.path(index) {
        Some(path) if name.ends_with('/') => use_film(&Film::Folder(path)),
        _ if has_extension(&name, &["gif"]) => use_film(&Film::Gif(files.read(index)?)),
        Some(path) => use_film(&Film::File(path)),
        None => use_film(&Film::Bytes(&files.read(index)?)),
    })
}
