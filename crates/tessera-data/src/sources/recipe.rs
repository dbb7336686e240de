//! How files become samples: one modality, and the parts of a file.

use std::fmt::Display;

use crate::config::{DataConfig, OnCorrupt};
use crate::decode::audio::{AudioConfig, Sound, Windows};
use crate::decode::image::{self, ImageConfig, Picture, Resize};
use crate::decode::pcm;
use crate::decode::video::{Clips, Film, VideoConfig};
use crate::decode::{Problem, has_extension};
use crate::draw::Draw;
use crate::error::{DataError, one_line};
use crate::shape::{Modality, SampleShape};
use crate::sources::files::Files;

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
    /// The recipe of a configuration; what it leaves open is taken from file `index`, which is
    /// decoded where a damaged one may be skipped: its header alone could be whole.
    pub(crate) fn new(
        config: &DataConfig,
        files: &dyn Files,
        index: usize,
    ) -> Result<Self, DataError> {
        let corrupt = |problem| files.corrupt(index, problem);
        let recipe = match config.modality {
            Modality::Image => {
                let mut config = config.image.clone();
                if config.height == 0 {
                    let size = image::dimensions(&files.read(index)?);
                    (config.width, config.height) = size.map_err(corrupt)?;
                }
                Self::Image(config)
            }
            Modality::Audio => {
                let mut config = config.audio.clone();
                if config.sample_rate == 0 {
                    config.sample_rate = pcm::sample_rate(&files.read(index)?).map_err(corrupt)?;
                }
                Self::Audio(config)
            }
            Modality::Video => return Ok(Self::Video(config.video.clone())),
            Modality::Tokens => unreachable!("configurations of files of tokens are refused"),
        };
        let checked = recipe.shape().check();
        if Self::is_open(config) && (config.on_corrupt == OnCorrupt::Skip || checked.is_err()) {
            recipe.decode(files, index, 0, Draw::NONE)?;
        }
        checked.map_err(|problem| {
            let name = files.name(index);
            let problem =
                format!("must be set, since samples of the size of {name} are too large: such a shape {problem}");
            DataError::Config { key: recipe.size_key(), problem: one_line(&problem) }
        })?;
        Ok(recipe)
    }

    /// Whether `config` leaves open what the first file decides.
    pub(crate) fn is_open(config: &DataConfig) -> bool {
        match config.modality {
            Modality::Image => config.image.height == 0,
            Modality::Audio => config.audio.sample_rate == 0,
            Modality::Video | Modality::Tokens => false,
        }
    }

    /// The key that says how large a sample is, for files that are all too small.
    pub(crate) fn size_key(&self) -> &'static str {
        match self {
            Self::Image(_) => "image.height",
            Self::Audio(_) => "audio.length",
            Self::Video(_) => "video.frames",
        }
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
        count.map_err(|problem| self.refused(files, index, problem.into()))
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
        decoded.map_err(|problem| self.refused(files, index, problem.into()))
    }

    /// The error of a file: its own fault, or that of what the configuration asks for.
    pub(crate) fn refused(&self, files: &dyn Files, index: usize, problem: Problem) -> DataError {
        let asked = |key, words: &dyn Display| {
            let (name, container) = (files.name(index), files.container(index));
            let problem =
                format!("cannot be met: sample {name} of {} {words}", container.display());
            DataError::Config { key, problem: one_line(&problem) }
        };
        match problem {
            Problem::Key("image.resize", words) => {
                asked("image.resize", &format!("{words}: set it to \"cover\""))
            }
            Problem::Key(key, words) => asked(key, &words),
            // Of FFmpeg, which is asked in words.
            Problem::File(words) if words.contains("is not installed") => asked("modality", &words),
            Problem::File(words) => match self {
                Self::Video(VideoConfig { resize: Resize::None, .. })
                    if words.contains("smaller than") || words.contains("non positive size") =>
                {
                    asked("video.resize", &format!("{words}: set it to \"cover\""))
                }
                _ => files.corrupt(index, words),
            },
        }
    }

    /// Writes sample `part` of a file to `out`.
    pub(crate) fn place(
        &self,
        decoded: &Decoded,
        part: u64,
        draw: Draw,
        out: &mut [u8],
    ) -> Result<(), Problem> {
        match (self, decoded) {
            (Self::Image(config), Decoded::Picture(picture)) => {
                config.place(picture, part, draw, out)
            }
            (Self::Audio(config), Decoded::Sound(sound)) => {
                config.place(sound, part, draw, out).map_err(Problem::File)
            }
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
