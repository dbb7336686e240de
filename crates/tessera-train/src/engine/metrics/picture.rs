//! What people look at and listen to, encoded, for whoever writes it. Knows bytes only.

use std::io;

use tessera_model::media;
pub use tessera_model::media::ImageShape;

/// What exhibits show: the folder that they go to, and TensorBoard's name for them.
pub const SHOWN: [&str; 2] = [RECONSTRUCTIONS, SAMPLES];
/// What an autoencoder makes of samples.
pub const RECONSTRUCTIONS: &str = "reconstructions";
/// What a prior draws.
pub const SAMPLES: &str = "samples";

/// An encoded picture, ready for [`EventWriter::image`](super::tensorboard::EventWriter::image).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedPng {
    /// The bytes of the PNG file.
    pub png: Vec<u8>,
    /// Size of the whole picture.
    pub shape: ImageShape,
    /// What it shows, one of [`SHOWN`].
    pub shows: &'static str,
}

impl EncodedPng {
    /// Encodes pixels of 8 bits a channel, row by row; they show what is one of [`SHOWN`].
    ///
    /// # Errors
    ///
    /// `InvalidInput` if a side is over 2^32 pixels.
    ///
    /// # Panics
    ///
    /// If `pixels` are not those of an image of 1 or 3 channels and this shape.
    pub fn encode(pixels: &[u8], shape: ImageShape, shows: &'static str) -> io::Result<Self> {
        Ok(Self { png: media::png(pixels, shape)?, shape, shows })
    }
}

/// Encoded sound, ready for [`EventWriter::audio`](super::tensorboard::EventWriter::audio).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedWav {
    /// The bytes of the WAV file.
    pub wav: Vec<u8>,
    /// Instants a second.
    pub sample_rate: u32,
    /// Channels of an instant.
    pub channels: u16,
    /// Instants.
    pub len: u64,
    /// What it lets one hear, one of [`SHOWN`].
    pub shows: &'static str,
}

impl EncodedWav {
    /// Encodes numbers of 16 bits, instant by instant; they let one hear what is one of [`SHOWN`].
    ///
    /// # Errors
    ///
    /// As [`media::wav`].
    pub fn encode(
        samples: &[i16],
        channels: u16,
        sample_rate: u32,
        shows: &'static str,
    ) -> io::Result<Self> {
        let wav = media::wav(samples, channels, sample_rate)?;
        let len = samples.len() as u64 / u64::from(channels);
        Ok(Self { wav, sample_rate, channels, len, shows })
    }
}

/// Pictures one after the other, encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedFilm {
    /// The bytes of the animated PNG file.
    pub png: Vec<u8>,
    /// What it shows, one of [`SHOWN`].
    pub shows: &'static str,
}

/// Something to look at or to listen to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exhibit {
    /// A picture: `step-N.png`, and TensorBoard's images.
    Picture(EncodedPng),
    /// Sound: `step-N.wav`, and TensorBoard's audio.
    Sound(EncodedWav),
    /// Film: `step-N.apng`. TensorBoard has nothing for it.
    Film(EncodedFilm),
}

impl Exhibit {
    /// What it shows, one of [`SHOWN`].
    pub fn shows(&self) -> &'static str {
        match self {
            Self::Picture(picture) => picture.shows,
            Self::Sound(sound) => sound.shows,
            Self::Film(film) => film.shows,
        }
    }

    /// How the name of its file ends.
    pub fn extension(&self) -> &'static str {
        match self {
            Self::Picture(_) => "png",
            Self::Sound(_) => "wav",
            Self::Film(_) => "apng",
        }
    }

    /// What its file holds.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Picture(picture) => &picture.png,
            Self::Sound(sound) => &sound.wav,
            Self::Film(film) => &film.png,
        }
    }
}
