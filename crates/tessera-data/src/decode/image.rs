//! Pictures: decoded, turned upright, resized, cropped and mirrored.
//!
//! JPEG is decoded by libjpeg-turbo (`jpeg.rs`), everything else by the `image` crate; resizing is
//! `tessera-resample`'s (bilinear with antialiasing, as in torchvision). Sizes are checked before
//! anything is decoded: a small file can claim a picture that does not fit into memory.

use std::io::Cursor;

use image::metadata::Orientation;
use image::{ColorType, DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tessera_resample::{Cut, resize};

use crate::decode::Problem;
use crate::decode::jpeg::{self, Jpeg};
use crate::draw::{Draw, Purpose};
use crate::shape::{Modality, SampleShape};

/// How pictures become samples.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ImageConfig {
    /// Height of a sample in pixels; 0: that of the first picture that can be read.
    pub height: u32,
    /// Width of a sample in pixels; 0: that of the first picture that can be read.
    pub width: u32,
    /// 3: color, 1: gray (Rec. 709 luma). What is transparent is shown on white.
    pub channels: u32,
    /// How a picture of another size is brought to that of a sample.
    pub resize: Resize,
    /// Where a picture is cut that is larger than a sample.
    pub crop: Crop,
    /// Whether training sees every second picture mirrored, left to right.
    pub flip: bool,
    /// Whether a picture gives as many samples as fit into it side by side, at its own resolution;
    /// needs `height` and `width`, and then neither `resize` nor `crop` is used.
    pub tiles: bool,
    /// Pictures with more pixels are refused before they are decoded.
    pub max_pixels: u64,
}

/// How a picture of another size is brought to that of a sample, a value of
/// [`ImageConfig::resize`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Resize {
    /// Until it covers the sample, with its proportions; what stands over is cut.
    #[default]
    Cover,
    /// To the sample's size, whatever the proportions.
    Stretch,
    /// Not at all: a sample is cut from it; a smaller picture is an error.
    None,
}

/// Where a picture is cut, a value of [`ImageConfig::crop`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Crop {
    /// In its middle.
    #[default]
    Center,
    /// Anywhere in training, by (seed, epoch, sample); in its middle in an evaluation.
    Random,
}

impl Default for ImageConfig {
    fn default() -> Self {
        Self {
            height: 0,
            width: 0,
            channels: 3,
            resize: Resize::default(),
            crop: Crop::default(),
            flip: false,
            tiles: false,
            max_pixels: 1 << 27,
        }
    }
}

/// Bytes of a picture, height by width by channels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Picture {
    pub(crate) height: u32,
    pub(crate) width: u32,
    pub(crate) channels: u32,
    pub(crate) bytes: Vec<u8>,
}

impl ImageConfig {
    /// The error completes "data.image...".
    pub(crate) fn check(&self) -> Result<(), (&'static str, String)> {
        if ![1, 3].contains(&self.channels) {
            let problem = format!("must be 1 (gray) or 3 (color), not {}", self.channels);
            return Err(("image.channels", problem));
        }
        if (self.height == 0) != (self.width == 0) {
            let problem = "must be given together with image.width, or neither".to_owned();
            return Err(("image.height", problem));
        }
        if self.height != 0
            && let Err(problem) = self.shape().check()
        {
            let problem = format!("and image.width: such a shape {problem}: lower them");
            return Err(("image.height", problem));
        }
        if self.tiles && self.height == 0 {
            let problem = "needs the size of a tile: set image.height and image.width".to_owned();
            return Err(("image.tiles", problem));
        }
        Ok(())
    }

    /// Shape of a sample, once its size is known.
    pub(crate) fn shape(&self) -> SampleShape {
        SampleShape::image(self.channels, self.height, self.width)
    }

    /// How many samples a picture of this size gives.
    pub(crate) fn num_tiles(&self, (width, height): (u32, u32)) -> u64 {
        match self.tiles {
            true => u64::from(width / self.width) * u64::from(height / self.height),
            false => 1,
        }
    }

    /// Writes sample `part` of a picture to `out`.
    pub(crate) fn place(
        &self,
        picture: &Picture,
        part: u64,
        draw: Draw,
        out: &mut [u8],
    ) -> Result<(), Problem> {
        let (width, height) = (self.width, self.height);
        let cut = match self.tiles {
            true => self.tile(picture, part)?,
            false => self.cut(picture, draw)?,
        };
        if (cut.width, cut.height) == (f64::from(width), f64::from(height)) {
            copy(picture, cut.left as usize, cut.top as usize, width as usize, out);
        } else {
            let Picture { height: rows, width: columns, channels, ref bytes } = *picture;
            let picture =
                tessera_resample::Picture { bytes, width: columns, height: rows, channels };
            resize(picture, cut, (width, height), out);
        }
        if self.flip && draw.coin(Purpose::Flip) {
            mirror(out, width as usize, self.channels as usize);
        }
        Ok(())
    }

    fn tile(&self, picture: &Picture, part: u64) -> Result<Cut, String> {
        let columns = u64::from(picture.width / self.width);
        if part >= self.num_tiles((picture.width, picture.height)) {
            return Err("has another size than when it was listed".to_owned());
        }
        Ok(Cut {
            left: (part % columns * u64::from(self.width)) as f64,
            top: (part / columns * u64::from(self.height)) as f64,
            width: f64::from(self.width),
            height: f64::from(self.height),
        })
    }

    /// The part of the picture that becomes the sample.
    fn cut(&self, picture: &Picture, draw: Draw) -> Result<Cut, Problem> {
        let (has, wants) = (
            [picture.width, picture.height].map(f64::from),
            [self.width, self.height].map(f64::from),
        );
        let size = match self.resize {
            Resize::Stretch => has,
            Resize::None if picture.width < self.width || picture.height < self.height => {
                let words = format!(
                    "is {} x {} pixels, smaller than {} x {}",
                    picture.width, picture.height, self.width, self.height
                );
                return Err(Problem::Key("image.resize", words));
            }
            Resize::None => wants,
            Resize::Cover => {
                let scale = (has[0] / wants[0]).min(has[1] / wants[1]);
                [(wants[0] * scale).min(has[0]), (wants[1] * scale).min(has[1])]
            }
        };
        let draw = match self.crop {
            Crop::Center => Draw::NONE,
            Crop::Random => draw,
        };
        // Whole pixels, so that what is not resized is copied.
        let start = |purpose, has: f64, size: f64| draw.up_to(purpose, (has - size) as u64) as f64;
        Ok(Cut {
            left: start(Purpose::Left, has[0], size[0]),
            top: start(Purpose::Top, has[1], size[1]),
            width: size[0],
            height: size[1],
        })
    }
}

/// Width and height of a picture as it is shown, from its header; the error completes
/// "sample ...".
pub(crate) fn dimensions(bytes: &[u8]) -> Result<(u32, u32), String> {
    let opened = Opened::open(bytes)?;
    let (width, height) = opened.dimensions();
    match opened.orientation.to_exif() {
        5.. => Ok((height, width)),
        _ => Ok((width, height)),
    }
}

/// Decodes a picture, upright; the error completes "sample ...".
pub(crate) fn decode(bytes: &[u8], channels: u32, max_pixels: u64) -> Result<Picture, String> {
    let opened = Opened::open(bytes)?;
    let (width, height) = opened.dimensions();
    if u64::from(width) * u64::from(height) > max_pixels {
        return Err(format!(
            "claims {width} x {height} pixels, the limit is {max_pixels}: raise \
             data.image.max_pixels if that is right"
        ));
    }
    let orientation = opened.orientation;
    let mut image = match opened.coded {
        Coded::Jpeg(jpeg) => jpeg.decode()?,
        Coded::Other(mut decoder) => {
            let mut limits = Limits::no_limits();
            // Pixels of up to 16 bytes, and as much for the decoder.
            limits.max_alloc = Some(max_pixels.saturating_mul(32));
            decoder.set_limits(limits).map_err(undecodable)?;
            DynamicImage::from_decoder(decoder).map_err(undecodable)?
        }
    };
    image.apply_orientation(orientation);
    Ok(of(image, channels))
}

/// A decoded picture with the channels asked for.
pub(crate) fn of(mut image: DynamicImage, channels: u32) -> Picture {
    let (width, height) = (image.width(), image.height());
    if image.color().has_alpha() {
        image = on_white(image);
    }
    let bytes = match channels {
        1 => image.into_luma8().into_raw(),
        _ => image.into_rgb8().into_raw(),
    };
    Picture { height, width, channels, bytes }
}

/// A picture whose header has been read.
struct Opened<'a> {
    coded: Coded<'a>,
    orientation: Orientation,
}

enum Coded<'a> {
    Jpeg(Box<Jpeg<'a>>),
    Other(Box<dyn ImageDecoder + 'a>),
}

impl<'a> Opened<'a> {
    fn open(bytes: &'a [u8]) -> Result<Self, String> {
        if jpeg::is_jpeg(bytes) {
            let jpeg = Jpeg::open(bytes)?;
            return Ok(Self {
                orientation: jpeg.orientation(),
                coded: Coded::Jpeg(Box::new(jpeg)),
            });
        }
        if let Some(format) = unread_format(bytes) {
            return Err(format!("is {format}, which is not read: save it as png or jpg"));
        }
        let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format();
        let mut reader = reader.map_err(|error| format!("cannot be decoded ({error})"))?;
        if bytes.is_empty() {
            return Err("is empty".to_owned());
        }
        if bytes.starts_with(b"II\x2b\0") || bytes.starts_with(b"MM\0\x2b") {
            // BigTIFF, which is not known by its first bytes there.
            reader.set_format(ImageFormat::Tiff);
        }
        if reader.format().is_none() {
            return Err(format!("is no {}", Modality::Image.names()));
        }
        let mut decoder: Box<dyn ImageDecoder> =
            Box::new(reader.into_decoder().map_err(undecodable)?);
        if matches!(decoder.color_type(), ColorType::Rgb32F | ColorType::Rgba32F) {
            let problem = "has floating-point pixels, whose white is not known: save it with 8 or \
                           16 bits a channel";
            return Err(problem.to_owned());
        }
        // What EXIF says wrongly says nothing.
        let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
        Ok(Self { coded: Coded::Other(decoder), orientation })
    }

    /// Width and height in the file.
    fn dimensions(&self) -> (u32, u32) {
        match &self.coded {
            Coded::Jpeg(jpeg) => jpeg.dimensions(),
            Coded::Other(decoder) => decoder.dimensions(),
        }
    }
}

/// Name of a format that people have pictures in, whatever they call the file, and that is not read.
fn unread_format(bytes: &[u8]) -> Option<&'static str> {
    let begins = |from: usize, with: &[u8]| bytes.get(from..).is_some_and(|b| b.starts_with(with));
    if begins(4, b"ftyp") {
        return Some(match bytes.get(8..12)? {
            b"avif" | b"avis" => "avif",
            b"heic" | b"heix" | b"hevc" | b"heim" | b"heis" | b"mif1" | b"msf1" => "heic",
            _ => "a film",
        });
    }
    let text = bytes.get(..bytes.len().min(1024))?.to_ascii_lowercase();
    let holds = |word: &[u8]| text.windows(word.len()).any(|part| part == word);
    let begins_as_markup = text.trim_ascii_start().starts_with(b"<");
    match () {
        () if begins(0, b"\xff\x0a") || begins(4, b"JXL ") => Some("jpeg xl"),
        () if begins(4, b"jP  ") || begins(0, b"\xff\x4f\xff\x51") => Some("jpeg 2000"),
        () if begins(0, b"8BPS") => Some("psd"),
        () if begins(0, b"%PDF") => Some("pdf"),
        () if begins(0, b"qoif") => Some("qoi"),
        () if begins(0, b"\x76\x2f\x31\x01") => Some("openexr"),
        () if begins(0, b"#?RADIANCE") => Some("radiance hdr"),
        () if begins(0, b"DDS ") => Some("dds"),
        () if begins(0, b"\0\0\x01\0") => Some("ico"),
        () if begins_as_markup && holds(b"<svg") => Some("svg"),
        () if begins_as_markup && holds(b"<html") => Some("a page of html"),
        () => None,
    }
}

fn undecodable(error: image::ImageError) -> String {
    format!("cannot be decoded ({error})")
}

fn on_white(image: DynamicImage) -> DynamicImage {
    let mut image = image.into_rgba8();
    for pixel in image.pixels_mut() {
        let alpha = u32::from(pixel.0[3]);
        for channel in &mut pixel.0[..3] {
            *channel = ((u32::from(*channel) * alpha + 255 * (255 - alpha) + 127) / 255) as u8;
        }
        pixel.0[3] = 255;
    }
    DynamicImage::ImageRgba8(image)
}

fn copy(picture: &Picture, left: usize, top: usize, width: usize, out: &mut [u8]) {
    let channels = picture.channels as usize;
    let row_bytes = picture.width as usize * channels;
    let rows = picture.bytes.chunks_exact(row_bytes).skip(top);
    for (row, to) in rows.zip(out.chunks_exact_mut(width * channels)) {
        to.copy_from_slice(&row[left * channels..][..width * channels]);
    }
}

/// Mirrors a picture, or all frames of a clip, left to right.
pub(crate) fn mirror(sample: &mut [u8], width: usize, channels: usize) {
    for row in sample.chunks_exact_mut(width * channels) {
        for left in 0..width / 2 {
            for channel in 0..channels {
                row.swap(left * channels + channel, (width - 1 - left) * channels + channel);
            }
        }
    }
}
