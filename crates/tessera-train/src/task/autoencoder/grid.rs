//! Reconstructions as one picture: each input image with its output below it.
//!
//! Knows bytes only. Which images are shown, and how pixels become bytes, is decided where the
//! evaluation is.

use std::io;

use crate::engine::metrics::picture::{EncodedPng, ImageShape};

/// Pixels between an input and its output, and between neighbors; twice that between pairs.
const GAP: usize = 2;
/// The gray of everything that is no image; visible beside black and beside white.
const BACKGROUND: u8 = 128;

/// The grid of `inputs` over `outputs`.
///
/// * `inputs`, `outputs`: equally many images of `shape`, one after the other, 8 bits a channel.
/// * `columns`: images side by side, at least 1; fewer images make a narrower picture.
///
/// # Errors
///
/// `InvalidInput` if the two differ in length, hold no whole number of images, hold none, or
/// `shape` is not an image of 1 or 3 channels.
pub(super) fn reconstruction_png(
    inputs: &[u8],
    outputs: &[u8],
    shape: ImageShape,
    columns: usize,
) -> io::Result<EncodedPng> {
    let image_bytes = shape.height * shape.width * shape.channels;
    let fits = image_bytes > 0
        && matches!(shape.channels, 1 | 3)
        && columns > 0
        && !inputs.is_empty()
        && inputs.len() == outputs.len()
        && inputs.len().is_multiple_of(image_bytes);
    if !fits {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "a grid of {columns} columns needs equally many whole {shape:?} images of 1 or 3 \
                 channels above and below, got {} and {} bytes",
                inputs.len(),
                outputs.len()
            ),
        ));
    }
    let (grid_shape, pixels) = lay_out(inputs, outputs, shape, columns);
    EncodedPng::encode(&pixels, grid_shape)
}

/// Places every image of a checked grid; returns the grid's shape and bytes.
fn lay_out(
    inputs: &[u8],
    outputs: &[u8],
    shape: ImageShape,
    columns: usize,
) -> (ImageShape, Vec<u8>) {
    let row_bytes = shape.width * shape.channels;
    let image_bytes = shape.height * row_bytes;
    let num_images = inputs.len() / image_bytes;
    let columns = columns.min(num_images);
    let pair_height = 2 * shape.height + 3 * GAP;
    let grid = ImageShape {
        height: num_images.div_ceil(columns) * pair_height,
        width: columns * (shape.width + GAP) + GAP,
        channels: shape.channels,
    };
    let mut pixels = vec![BACKGROUND; grid.height * grid.width * grid.channels];
    let pairs = inputs.chunks_exact(image_bytes).zip(outputs.chunks_exact(image_bytes));
    for (index, (input, output)) in pairs.enumerate() {
        let top = index / columns * pair_height + GAP;
        let left = GAP + index % columns * (shape.width + GAP);
        for (image, top) in [(input, top), (output, top + shape.height + GAP)] {
            for (y, row) in image.chunks_exact(row_bytes).enumerate() {
                let start = ((top + y) * grid.width + left) * grid.channels;
                pixels[start..start + row_bytes].copy_from_slice(row);
            }
        }
    }
    (grid, pixels)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(bytes: &[u8]) -> (u32, u32, png::ColorType, Vec<u8>) {
        let mut reader = png::Decoder::new(io::Cursor::new(bytes)).read_info().expect("a PNG");
        let mut pixels = vec![0; reader.output_buffer_size().expect("known size")];
        let info = reader.next_frame(&mut pixels).expect("one frame");
        (info.width, info.height, info.color_type, pixels)
    }

    #[test]
    fn every_input_is_above_its_output_in_reading_order() {
        let shape = ImageShape { height: 1, width: 2, channels: 1 };
        let inputs = [1, 2, 3, 4, 5, 6];
        let outputs = [11, 12, 13, 14, 15, 16];
        let grid = reconstruction_png(&inputs, &outputs, shape, 2).expect("fits");

        // Three images in two columns: 2 * (2 + 2) + 2 wide; 2 rows of pairs, each
        // 2 * 1 + 3 * 2 high.
        let (width, height, color, pixels) = decode(&grid.png);
        assert_eq!((width, height, color), (10, 16, png::ColorType::Grayscale));
        assert_eq!((grid.shape.width, grid.shape.height, grid.shape.channels), (10, 16, 1));
        let images: Vec<u8> = pixels.iter().copied().filter(|&p| p != BACKGROUND).collect();
        assert_eq!(images, [1, 2, 3, 4, 11, 12, 13, 14, 5, 6, 15, 16]);
        // The first input's first pixel, and its output 1 + 2 rows below it.
        assert_eq!(pixels[2 * 10 + 2], 1);
        assert_eq!(pixels[5 * 10 + 2], 11);
    }

    #[test]
    fn color_keeps_its_channels_and_few_images_make_a_narrow_grid() {
        let shape = ImageShape { height: 1, width: 1, channels: 3 };
        let grid = reconstruction_png(&[1, 2, 3], &[4, 5, 6], shape, 8).expect("fits");
        let (width, height, color, pixels) = decode(&grid.png);
        assert_eq!((width, height, color), (5, 8, png::ColorType::Rgb));
        let images: Vec<u8> = pixels.iter().copied().filter(|&p| p != BACKGROUND).collect();
        assert_eq!(images, [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn images_that_do_not_fit_are_refused() {
        let gray = ImageShape { height: 2, width: 2, channels: 1 };
        let two_channels = ImageShape { channels: 2, ..gray };
        let cases: [(&[u8], &[u8], ImageShape, usize); 5] = [
            (&[0; 4], &[0; 8], gray, 1),
            (&[0; 5], &[0; 5], gray, 1),
            (&[], &[], gray, 1),
            (&[0; 4], &[0; 4], gray, 0),
            (&[0; 8], &[0; 8], two_channels, 1),
        ];
        for (inputs, outputs, shape, columns) in cases {
            let error =
                reconstruction_png(inputs, outputs, shape, columns).expect_err("does not fit");
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        }
    }
}
