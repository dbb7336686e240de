//! Pictures at another size: `fast_image_resize`'s convolution, bilinear with antialiasing, as in torchvision.

use std::cell::RefCell;

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::{U8, U8x3};
use fast_image_resize::{FilterType, PixelTrait, ResizeAlg, ResizeOptions, Resizer};

/// A picture of eight bits a channel, row after row.
#[derive(Debug, Clone, Copy)]
pub struct Picture<'a> {
    /// Its values, `[height, width, channels]`.
    pub bytes: &'a [u8],
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// 1 or 3.
    pub channels: u32,
}

/// A part of a picture, in pixels; its edges may lie between two.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cut {
    /// From the left edge.
    pub left: f64,
    /// From the upper edge.
    pub top: f64,
    /// Width.
    pub width: f64,
    /// Height.
    pub height: f64,
}

thread_local! {
    /// Keeps the memory of its steps.
    static RESIZER: RefCell<Resizer> = RefCell::new(Resizer::new());
}

/// Resizes a part of a picture into `out`, `[height, width, channels]` of `size` (width, height).
///
/// # Panics
///
/// If the bytes are not those of the sizes, or the cut leaves the picture.
pub fn resize(picture: Picture<'_>, cut: Cut, size: (u32, u32), out: &mut [u8]) {
    // For these two pixels alone: for all that the library knows its functions are three megabytes.
    match picture.channels {
        1 => resize_pixels::<U8>(picture, cut, size, out),
        _ => resize_pixels::<U8x3>(picture, cut, size, out),
    }
}

fn resize_pixels<P: PixelTrait>(
    picture: Picture<'_>,
    cut: Cut,
    (width, height): (u32, u32),
    out: &mut [u8],
) {
    let from = TypedImageRef::<P>::from_buffer(picture.width, picture.height, picture.bytes)
        .expect("a picture has its size");
    let mut to = TypedImage::<P>::from_buffer(width, height, out).expect("a sample has its size");
    let options = ResizeOptions::new()
        .resize_alg(ResizeAlg::Convolution(FilterType::Bilinear))
        .crop(cut.left, cut.top, cut.width, cut.height);
    RESIZER.with_borrow_mut(|resizer| {
        resizer.resize_typed(&from, &mut to, &options).expect("the cut lies inside of the picture");
    });
}
