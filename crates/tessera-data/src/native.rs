//! Files as they are: pictures and film at their own size, sound at its own length.
//!
//! Samples of a training have one shape; a file that somebody wants to compress has another. Here it is decoded
//! with the channels (and of sound the rate) that a model takes, and read frame by frame: a picture is one frame. Film, and WAV
//! files at the rate asked for, are decoded as they are read, so that any length takes the same memory; other sound is decoded
//! whole, since a resampler and most codecs need what came before.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::config::split::SplitConfig;
use crate::config::{DataConfig, DataKind};
use crate::decode::audio::Sound;
use crate::decode::has_extension;
use crate::decode::image;
use crate::decode::video::{self, About, Film, VideoConfig};
use crate::decode::wav::{self, Wav};
use crate::decode::{ffmpeg, pcm};
use crate::error::DataError;
use crate::shape::{Modality, SampleShape};
use crate::sources::files::{Files, FolderFiles};
use crate::{AudioConfig, ImageConfig, Resize};

/// Files that a person names: one, or all of a modality below a folder.
pub struct NativeFiles {
    files: FolderFiles,
    data: DataConfig,
}

/// What there is to know of a file before it is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NativeShape {
    /// Its frames, and their size; of sound the rate that is asked for.
    pub shape: SampleShape,
    /// Frames of film in a thousand seconds, where the film says it.
    pub film_rate: Option<u32>,
}

/// A file that is open.
pub struct Native {
    shape: NativeShape,
    kept: Kept,
}

enum Kept {
    Picture(Vec<u8>),
    Sound(Sound),
    /// At the rate asked for, read as it is asked for.
    Wav(PathBuf, Wav, AudioConfig),
    Film(Film<'static>, VideoConfig),
    /// A film that came through a pipe, in a file of its own.
    Piped(tempfile::NamedTempFile, VideoConfig),
}

impl std::fmt::Debug for NativeFiles {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("NativeFiles").field("num", &self.len()).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Native {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Native").field("shape", &self.shape).finish_non_exhaustive()
    }
}

impl NativeFiles {
    /// Lists what `data.path` stands for: a file, or all files of `data.modality` below a folder, sorted by name. Channels,
    /// the rate of sound and the limits of sizes are those of `data`.
    ///
    /// # Errors
    ///
    /// As [`crate::source::open`] of a folder.
    pub fn open(data: &DataConfig) -> Result<Self, DataError> {
        let mut data = DataConfig { kind: DataKind::Folder, holdout: 0.0, ..data.clone() };
        data.split = SplitConfig { train: vec!["*".to_owned()], ..SplitConfig::default() };
        let files = FolderFiles::open(&data, "train")?;
        Ok(Self { files, data })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.files.num_files()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Name of a file below the folder, with `/` between parts; of a film that is a folder of pictures that of the folder.
    pub fn name(&self, index: usize) -> String {
        self.files.name(index).trim_end_matches('/').to_owned()
    }

    /// Where a file lies.
    pub fn path(&self, index: usize) -> Option<PathBuf> {
        self.files.path(index)
    }

    /// What its header says. What that leaves open is decoded: sound without a length, film whose packets are no frames.
    ///
    /// # Errors
    ///
    /// [`DataError::CorruptFile`] if it is damaged or no file of its modality, [`DataError::Read`].
    pub fn shape(&self, index: usize) -> Result<NativeShape, DataError> {
        let corrupt = |problem| self.files.corrupt(index, problem);
        if let Some((_, wav, config)) = self.wav(index) {
            return of_wav(&wav, &config).map_err(corrupt);
        }
        match self.film(index)? {
            Some(film) => of_film(&film, &self.data.video).map_err(corrupt),
            None => shape_of(&self.files.read(index)?, &self.data).map_err(corrupt),
        }
    }

    /// Opens a file: of pictures and sound all of it is decoded.
    ///
    /// # Errors
    ///
    /// As [`Self::shape`].
    pub fn read(&self, index: usize) -> Result<Native, DataError> {
        let corrupt = |problem| self.files.corrupt(index, problem);
        if let Some((path, wav, config)) = self.wav(index) {
            let shape = of_wav(&wav, &config).map_err(corrupt)?;
            return Ok(Native { shape, kept: Kept::Wav(path, wav, config) });
        }
        match self.film(index)? {
            None => Native::of(&self.files.read(index)?, &self.data).map_err(corrupt),
            Some(film) => {
                let shape = of_film(&film, &self.data.video).map_err(corrupt)?;
                let config = at_own_size(&self.data.video, shape.shape);
                Ok(Native { shape, kept: Kept::Film(film, config) })
            }
        }
    }

    /// The frames in `range` of a file, as they lie in memory; of sound silence beyond its end.
    ///
    /// # Errors
    ///
    /// [`DataError::CorruptFile`] if they cannot be decoded.
    pub fn frames(
        &self,
        index: usize,
        file: &Native,
        range: Range<u64>,
    ) -> Result<Vec<u8>, DataError> {
        file.frames(range).map_err(|problem| self.files.corrupt(index, problem))
    }

    /// A WAV file that can be read piece by piece: at the rate asked for, of frames that are all alike.
    fn wav(&self, index: usize) -> Option<(PathBuf, Wav, AudioConfig)> {
        if self.data.modality != Modality::Audio {
            return None;
        }
        let path = self.files.path(index)?;
        let mut file = File::open(&path).ok()?;
        let total = usize::try_from(file.metadata().ok()?.len()).ok()?;
        let mut head = Vec::new();
        file.by_ref().take(HEAD_BYTES).read_to_end(&mut head).ok()?;
        // What is wrong with it is told by whoever decodes the whole of it.
        let wav = Some(&head).filter(|head| wav::is_wav(head))?;
        let wav = Wav::parse_head(wav, total).ok().filter(Wav::is_plain)?;
        let config = AudioConfig { sample_rate: self.rate(wav.rate), ..self.data.audio.clone() };
        let is_whole = pcm::RATES.contains(&wav.rate) && wav.place(0..0).is_some();
        (is_whole && wav.rate == config.sample_rate).then_some((path, wav, config))
    }

    /// The rate asked for; where none is, that of the file.
    fn rate(&self, of_file: u32) -> u32 {
        match self.data.audio.sample_rate {
            0 => of_file,
            rate => rate,
        }
    }

    fn film(&self, index: usize) -> Result<Option<Film<'static>>, DataError> {
        if self.data.modality != Modality::Video {
            return Ok(None);
        }
        let name = self.files.name(index);
        Ok(Some(match self.files.path(index) {
            Some(path) if name.ends_with('/') => Film::Folder(path),
            _ if has_extension(&name, &["gif"]) => Film::Gif(self.files.read(index)?),
            Some(path) => Film::File(path),
            None => unreachable!("files of a folder lie somewhere"),
        }))
    }
}

impl Native {
    /// What came through a pipe, as `data` says.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in words that complete "sample ...".
    pub fn piped(from: &mut dyn Read, data: &DataConfig) -> Result<Self, String> {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).map_err(|error| format!("cannot be read ({error})"))?;
        if data.modality != Modality::Video {
            return Self::of(&bytes, data);
        }
        if bytes.starts_with(b"GIF8") {
            let film = Film::Gif(bytes);
            let shape = of_film(&film, &data.video)?;
            return Ok(Self {
                shape,
                kept: Kept::Film(film, at_own_size(&data.video, shape.shape)),
            });
        }
        let file = ffmpeg::in_memory(&bytes)?;
        let shape = of_film(&Film::File(file.path().to_owned()), &data.video)?;
        Ok(Self { shape, kept: Kept::Piped(file, at_own_size(&data.video, shape.shape)) })
    }

    fn of(bytes: &[u8], data: &DataConfig) -> Result<Self, String> {
        if data.modality == Modality::Image {
            let ImageConfig { channels, max_pixels, .. } = data.image;
            let picture = image::decode(bytes, channels, max_pixels)?;
            let shape = SampleShape::image(channels, picture.height, picture.width);
            let shape = NativeShape { shape, film_rate: None };
            return Ok(Self { shape, kept: Kept::Picture(picture.bytes) });
        }
        let mut config = data.audio.clone();
        if config.sample_rate == 0 {
            config.sample_rate = pcm::sample_rate(bytes)?;
        }
        let sound = config.decode(bytes)?;
        let shape = sound_of(sound.num_frames() as u64, config.channels, config.sample_rate)?;
        Ok(Self { shape, kept: Kept::Sound(sound) })
    }

    /// Its frames and their size.
    pub fn shape(&self) -> NativeShape {
        self.shape
    }

    /// The frames in `range`, as they lie in memory; of sound silence beyond its end.
    ///
    /// # Errors
    ///
    /// What is wrong, in words that complete "sample ...".
    pub fn frames(&self, range: Range<u64>) -> Result<Vec<u8>, String> {
        match &self.kept {
            Kept::Picture(bytes) => Ok(bytes.clone()),
            Kept::Film(film, config) => config.frames(film, range),
            Kept::Piped(file, config) => config.frames(&Film::File(file.path().to_owned()), range),
            Kept::Wav(path, wav, config) => {
                let there = range.end.min(u64::from(self.shape.shape.frames));
                let bytes =
                    (range.end - range.start) as usize * 2 * self.shape.shape.channels as usize;
                let mut out = vec![0; bytes];
                if range.start < there {
                    piece(path, wav, config, range.start..there)?.copy(0, &mut out);
                }
                Ok(out)
            }
            Kept::Sound(sound) => {
                let bytes =
                    (range.end - range.start) as usize * 2 * self.shape.shape.channels as usize;
                let mut out = vec![0; bytes];
                sound.copy(range.start as usize, &mut out);
                Ok(out)
            }
        }
    }
}

/// Bytes of a file in which the samples of a WAV file begin; where they do not, it is decoded whole.
const HEAD_BYTES: u64 = 1 << 16;

/// These frames of a WAV file, decoded as those of a whole file are.
fn piece(
    path: &Path,
    wav: &Wav,
    config: &AudioConfig,
    frames: Range<u64>,
) -> Result<Sound, String> {
    let place = wav.place(frames).expect("all frames are alike");
    let unread = |error| format!("cannot be read ({error})");
    let mut file = File::open(path).map_err(unread)?;
    file.seek(SeekFrom::Start(place.start)).map_err(unread)?;
    let mut data = vec![0; (place.end - place.start) as usize];
    file.read_exact(&mut data).map_err(unread)?;
    config.decode(&wav.plain_of(&data))
}

fn of_wav(wav: &Wav, config: &AudioConfig) -> Result<NativeShape, String> {
    let frames = wav.num_frames().unwrap_or(0);
    if frames == 0 {
        return Err("has no sound".to_owned());
    }
    sound_of(frames, config.channels, config.sample_rate)
}

/// What the header of a picture or a sound says.
fn shape_of(bytes: &[u8], data: &DataConfig) -> Result<NativeShape, String> {
    if data.modality == Modality::Image {
        let (width, height) = image::dimensions(bytes)?;
        let shape = SampleShape::image(data.image.channels, height, width);
        return Ok(NativeShape { shape, film_rate: None });
    }
    let mut config = data.audio.clone();
    if config.sample_rate == 0 {
        config.sample_rate = pcm::sample_rate(bytes)?;
    }
    sound_of(config.num_frames(bytes)?, config.channels, config.sample_rate)
}

fn sound_of(frames: u64, channels: u32, sample_rate: u32) -> Result<NativeShape, String> {
    let frames = u32::try_from(frames).map_err(|_| format!("has {frames} frames, too many"))?;
    Ok(NativeShape { shape: SampleShape::audio(channels, frames, sample_rate), film_rate: None })
}

fn of_film(film: &Film<'_>, config: &VideoConfig) -> Result<NativeShape, String> {
    let About { frames, height, width, rate } = video::about(film, config.max_pixels)?;
    let frames = u32::try_from(frames).map_err(|_| format!("has {frames} frames, too many"))?;
    let shape = SampleShape::video(config.channels, frames, height, width);
    Ok(NativeShape { shape, film_rate: rate })
}

/// Frame by frame at the size that the film has.
fn at_own_size(config: &VideoConfig, shape: SampleShape) -> VideoConfig {
    let (height, width) = (shape.height, shape.width);
    // FFmpeg's crop takes even sizes of most films; a scale to the same size takes any, and leaves it.
    let resize = Resize::Stretch;
    VideoConfig { frames: 1, stride: 1, height, width, resize, ..config.clone() }
}
