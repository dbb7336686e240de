//! Encoded pictures, for whoever writes them. Knows bytes only.

use std::io;

/// Size of one image, laid out as rows of pixels with the channels side by side (HWC).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageShape {
    /// Rows.
    pub height: usize,
    /// Pixels in a row.
    pub width: usize,
    /// 1 for gray, 3 for RGB.
    pub channels: usize,
}

/// What pictures show: the folder that they go to, and TensorBoard's name for them.
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
        assert!(matches!(shape.channels, 1 | 3), "a picture of {} channels", shape.channels);
        assert_eq!(pixels.len(), shape.height * shape.width * shape.channels);
        let too_large =
            |_| io::Error::new(io::ErrorKind::InvalidInput, "picture side over 2^32 pixels");
        let width = u32::try_from(shape.width).map_err(too_large)?;
        let height = u32::try_from(shape.height).map_err(too_large)?;
        let mut png = Vec::new();
        let mut encoder = png::Encoder::new(&mut png, width, height);
        encoder.set_color(match shape.channels {
            1 => png::ColorType::Grayscale,
            _ => png::ColorType::Rgb,
        });
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(pixels)?;
        writer.finish()?;
        Ok(Self { png, shape, shows })
    }
}
