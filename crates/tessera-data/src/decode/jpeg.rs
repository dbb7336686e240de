//! JPEG, decoded by libjpeg-turbo: its pixels are those of Pillow, torchvision and OpenCV, bit for
//! bit.
//!
//! libjpeg goes on where data is missing or senseless and leaves gray; it only warns. Here a warning
//! about the data of a picture is an error. A warning about its header, such as an unknown revision
//! of JFIF, is none: the pixels do not depend on it.
//!
//! libjpeg leaves its functions by unwinding; nothing but this module sees that.

use std::cell::Cell;
use std::ffi::c_int;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::ptr;

use image::metadata::Orientation;
use image::{DynamicImage, GrayImage, RgbImage};
use mozjpeg::{ColorSpace, Decompress, Marker};
use mozjpeg_sys::{jpeg_common_struct, jpeg_error_mgr};

/// Scans that are believed. Encoders write about ten; each costs a pass over the whole picture,
/// however few bytes it has.
const MAX_SCANS: usize = 1000;

/// A JPEG whose header has been read.
pub(crate) struct Jpeg<'a> {
    bytes: &'a [u8],
    decoder: Decompress<&'a [u8]>,
}

/// Whether these are the bytes of a JPEG.
pub(crate) fn is_jpeg(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0xff, 0xd8, 0xff])
}

impl<'a> Jpeg<'a> {
    /// Reads the header; the error completes "sample ...".
    pub(crate) fn open(bytes: &'a [u8]) -> Result<Self, String> {
        let open = || {
            let builder = Decompress::builder().with_err(error_manager());
            builder.with_markers(&[Marker::APP(1)]).from_mem(bytes)
        };
        let decoder = unless_refused(Data::Header, open).map_err(|why| words(bytes, why))?;
        Ok(Self { bytes, decoder })
    }

    /// Width and height in the file, before it is turned upright.
    pub(crate) fn dimensions(&self) -> (u32, u32) {
        (self.decoder.width() as u32, self.decoder.height() as u32)
    }

    /// How EXIF says it is to be turned.
    pub(crate) fn orientation(&self) -> Orientation {
        let exif = |data: &[u8]| Orientation::from_exif_chunk(data.strip_prefix(b"Exif\0\0")?);
        let mut markers = self.decoder.markers();
        markers.find_map(|marker| exif(marker.data)).unwrap_or(Orientation::NoTransforms)
    }

    /// Decodes it, as gray or as color; the error completes "sample ...".
    pub(crate) fn decode(self) -> Result<DynamicImage, String> {
        let Self { bytes, decoder } = self;
        let num_scans = bytes.windows(2).filter(|marker| *marker == [0xff, 0xda]).count();
        if num_scans > MAX_SCANS {
            return Err(format!("has {num_scans} scans, the limit is {MAX_SCANS}"));
        }
        let (width, height) = (decoder.width() as u32, decoder.height() as u32);
        let to = match decoder.color_space() {
            ColorSpace::JCS_GRAYSCALE => ColorSpace::JCS_GRAYSCALE,
            ColorSpace::JCS_CMYK | ColorSpace::JCS_YCCK => ColorSpace::JCS_CMYK,
            _ => ColorSpace::JCS_RGB,
        };
        let decode = || {
            let mut started = decoder.to_colorspace(to)?;
            let pixels = started.read_scanlines::<u8>()?;
            started.finish()?;
            Ok(pixels)
        };
        let pixels = unless_refused(Data::Pixels, decode).map_err(|why| words(bytes, why))?;
        let image = match to {
            ColorSpace::JCS_GRAYSCALE => {
                GrayImage::from_raw(width, height, pixels).map(DynamicImage::ImageLuma8)
            }
            ColorSpace::JCS_CMYK => {
                RgbImage::from_raw(width, height, of_cmyk(&pixels)).map(DynamicImage::ImageRgb8)
            }
            _ => RgbImage::from_raw(width, height, pixels).map(DynamicImage::ImageRgb8),
        };
        Ok(image.expect("libjpeg gave as many pixels as it said"))
    }
}

/// Color of inks that are stored inverted, as Adobe's programs and all after them store them. The
/// arithmetic is Pillow's.
fn of_cmyk(inks: &[u8]) -> Vec<u8> {
    let (pixels, _) = inks.as_chunks::<4>();
    let product = |a: u32, b: u32| {
        let product = a * b + 128;
        ((product >> 8) + product) >> 8
    };
    let shade = |ink: u8, black: u8| {
        let black = u32::from(black);
        (black - product(255 - u32::from(ink), black)) as u8
    };
    pixels.iter().flat_map(|&[c, m, y, k]| [shade(c, k), shade(m, k), shade(y, k)]).collect()
}

/// What libjpeg is reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Data {
    Header,
    Pixels,
}

/// Why libjpeg refused a file.
#[derive(Debug)]
enum Refusal {
    /// It warned about the data of the picture.
    Warned,
    /// It cannot read it.
    Failed,
}

thread_local! {
    /// What libjpeg reads on this thread, for its callbacks.
    static READING: Cell<Data> = const { Cell::new(Data::Header) };
}

/// What `work` with libjpeg gives.
fn unless_refused<T>(reading: Data, work: impl FnOnce() -> io::Result<T>) -> Result<T, Refusal> {
    READING.set(reading);
    match panic::catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => done.map_err(|_| Refusal::Failed),
        Err(payload) => match payload.downcast::<Refusal>() {
            Ok(refusal) => Err(*refusal),
            Err(payload) => panic::resume_unwind(payload),
        },
    }
}

fn words(bytes: &[u8], refusal: Refusal) -> String {
    match refusal {
        Refusal::Warned => "is cut short or damaged: a part of its data is missing or senseless, \
                            where most programs would leave gray"
            .to_owned(),
        Refusal::Failed => format!("cannot be decoded ({})", reason(bytes)),
    }
}

/// libjpeg's own words about a file that it cannot read: said to its usual manager of errors alone,
/// so the file is read once more.
fn reason(bytes: &[u8]) -> String {
    let read = || -> io::Result<()> {
        let mut started = Decompress::new_mem(bytes)?.rgb()?;
        started.read_scanlines::<u8>().map(|_| ())
    };
    match panic::catch_unwind(AssertUnwindSafe(read)) {
        Ok(Err(error)) => error.to_string(),
        Err(payload) if payload.is::<String>() => {
            let words = payload.downcast::<String>().expect("it is one");
            words.trim_start_matches("libjpeg fatal error: ").to_owned()
        }
        _ => "libjpeg cannot read it".to_owned(),
    }
}

/// Unwinds out of libjpeg at an error, and at a warning about the data of a picture.
fn error_manager() -> jpeg_error_mgr {
    jpeg_error_mgr {
        error_exit: Some(fail),
        emit_message: Some(warn),
        output_message: Some(ignore),
        format_message: Some(say_nothing),
        reset_error_mgr: Some(ignore),
        msg_code: 0,
        msg_parm: Default::default(),
        trace_level: 0,
        num_warnings: 0,
        jpeg_message_table: ptr::null(),
        last_jpeg_message: 0,
        addon_message_table: ptr::null(),
        first_addon_message: 0,
        last_addon_message: 0,
    }
}

extern "C-unwind" fn fail(_: &mut jpeg_common_struct) {
    panic::resume_unwind(Box::new(Refusal::Failed));
}

/// Warnings have the level -1; what is above tells how libjpeg gets on.
extern "C-unwind" fn warn(_: &mut jpeg_common_struct, level: c_int) {
    if level < 0 && READING.get() == Data::Pixels {
        panic::resume_unwind(Box::new(Refusal::Warned));
    }
}

extern "C-unwind" fn ignore(_: &mut jpeg_common_struct) {}

extern "C-unwind" fn say_nothing(_: &mut jpeg_common_struct, _: &[u8; 80]) {}
