//! Many pictures as one that a person can look at: of each reconstruction its input, the output below it, and below that
//! how far the two are apart; or samples alone.
//!
//! Knows bytes only. Which images are shown, and how pixels become bytes, is decided where the
//! evaluation is.

use std::io;

use crate::engine::metrics::picture::{EncodedPng, ImageShape, RECONSTRUCTIONS, SAMPLES};

/// Pixels between images that belong together, and between neighbors; twice that between samples below one another.
const GAP: usize = 2;
/// The gray of everything that is no image; visible beside black and beside white.
const BACKGROUND: u8 = 128;
/// Least length of an image's longer side, in pixels: smaller ones are shown larger, each pixel as a square.
const LEAST_SIDE: usize = 96;
/// What a difference is multiplied with to be seen.
const ERROR_GAIN: u8 = 4;

/// The grid of `inputs`, `outputs` and errors, 4 times the absolute difference.
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
    let errors = errors_of(inputs, outputs);
    let (grid_shape, pixels) = lay_out(&[inputs, outputs, &errors], shape, columns, times(shape));
    EncodedPng::encode(&pixels, grid_shape, RECONSTRUCTIONS)
}

/// How far two sets of pixels are apart, to be seen.
fn errors_of(inputs: &[u8], outputs: &[u8]) -> Vec<u8> {
    let error = |(input, output): (&u8, &u8)| input.abs_diff(*output).saturating_mul(ERROR_GAIN);
    inputs.iter().zip(outputs).map(error).collect()
}

/// The grid of samples of `shape`, one after the other, 8 bits a channel.
///
/// # Errors
///
/// `InvalidInput` if a side is over 2^32 pixels.
///
/// # Panics
///
/// If there are none, or `shape` is not an image of 1 or 3 channels.
pub(super) fn sample_png(
    samples: &[u8],
    shape: ImageShape,
    columns: usize,
) -> io::Result<EncodedPng> {
    let (grid_shape, pixels) = lay_out(&[samples], shape, columns, times(shape));
    EncodedPng::encode(&pixels, grid_shape, SAMPLES)
}

/// Images of `shape` in as many parts, of each sample one of every part below one another: the grid's shape and bytes.
///
/// # Panics
///
/// If there are none, or parts are not as long as one another.
pub(super) fn lay_out_parts(
    parts: &[&[u8]],
    shape: ImageShape,
    columns: usize,
) -> (ImageShape, Vec<u8>) {
    assert!(parts.iter().all(|part| part.len() == parts[0].len() && !part.is_empty()));
    lay_out(parts, shape, columns, times(shape))
}

/// How many pixels along each axis one of an image becomes.
fn times(shape: ImageShape) -> usize {
    LEAST_SIDE.div_ceil(shape.height.max(shape.width))
}

/// Places every image of a checked grid, `times` as large along each axis: of each sample one of every part, below one
/// another. Returns the grid's shape and bytes.
fn lay_out(
    parts: &[&[u8]],
    shape: ImageShape,
    columns: usize,
    times: usize,
) -> (ImageShape, Vec<u8>) {
    let (height, width) = (shape.height * times, shape.width * times);
    let image_bytes = shape.height * shape.width * shape.channels;
    let num_images = parts[0].len() / image_bytes;
    let columns = columns.min(num_images);
    let sample_height = parts.len() * (height + GAP) + GAP;
    let grid = ImageShape {
        height: num_images.div_ceil(columns) * sample_height,
        width: columns * (width + GAP) + GAP,
        channels: shape.channels,
    };
    let mut pixels = vec![BACKGROUND; grid.height * grid.width * grid.channels];
    for index in 0..num_images {
        let top = index / columns * sample_height + GAP;
        let left = GAP + index % columns * (width + GAP);
        for (row, images) in parts.iter().enumerate() {
            let image = &images[index * image_bytes..][..image_bytes];
            let top = top + row * (height + GAP);
            for y in 0..height {
                let row = &image[y / times * shape.width * shape.channels..];
                let start = ((top + y) * grid.width + left) * grid.channels;
                for x in 0..width {
                    let [from, to] =
                        [x / times, x].map(|x| x * shape.channels..(x + 1) * shape.channels);
                    pixels[start..][to].copy_from_slice(&row[from]);
                }
            }
        }
    }
    (grid, pixels)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(pixels: &[u8]) -> Vec<u8> {
        pixels.iter().copied().filter(|&pixel| pixel != BACKGROUND).collect()
    }

    /// By hand: three images of 1 x 2 in two columns are 2 (2 + 2) + 2 wide, in 2 rows of 3 * 1 + 4 * 2. Differences of 10
    /// are shown as 40, and those of 100 as 255.
    #[test]
    fn every_output_is_below_its_input_and_above_its_error() {
        let shape = ImageShape { height: 1, width: 2, channels: 1 };
        let (inputs, outputs) = ([1, 2, 3, 4, 5, 6], [11, 12, 13, 14, 105, 16]);
        let errors = errors_of(&inputs, &outputs);
        let (grid, pixels) = lay_out(&[&inputs, &outputs, &errors], shape, 2, 1);
        assert_eq!((grid.width, grid.height, grid.channels), (10, 22, 1));
        let rows = [[1, 2, 3, 4], [11, 12, 13, 14], [40, 40, 40, 40]];
        assert_eq!(shown(&pixels)[..12], rows.concat());
        assert_eq!(shown(&pixels)[12..], [5, 6, 105, 16, 255, 40]);
        // The first input's first pixel, its output 1 + 2 rows below it, and the error as far again.
        assert_eq!([pixels[2 * 10 + 2], pixels[5 * 10 + 2], pixels[8 * 10 + 2]], [1, 11, 40]);
    }

    /// By hand: each pixel of an image of 1 x 2 becomes 2 x 2.
    #[test]
    fn small_images_are_shown_larger_with_their_channels() {
        let shape = ImageShape { height: 1, width: 2, channels: 3 };
        let inputs = [1, 2, 3, 4, 5, 6];
        let (grid, pixels) = lay_out(&[&inputs, &inputs, &[0; 6]], shape, 8, 2);
        assert_eq!((grid.width, grid.height, grid.channels), (4 + 2 * 2, 3 * 2 + 4 * 2, 3));
        let row = [1, 2, 3, 1, 2, 3, 4, 5, 6, 4, 5, 6];
        assert_eq!(shown(&pixels)[..24], [row, row].concat());
        assert_eq!(shown(&pixels)[48..], [0; 24], "no error");
    }

    /// By hand: three images of 1 x 2 in two columns, without anything below them: 2 rows of 1 + 2 * 2.
    #[test]
    fn samples_are_alone() {
        let shape = ImageShape { height: 1, width: 2, channels: 1 };
        let (grid, pixels) = lay_out(&[&[1, 2, 3, 4, 5, 6]], shape, 2, 1);
        assert_eq!((grid.width, grid.height), (10, 10));
        assert_eq!(shown(&pixels), [1, 2, 3, 4, 5, 6]);
    }

    /// By hand: of 28 pixels each becomes 4 x 4, so that a side has 112; one of 96 stays.
    #[test]
    fn pictures_are_of_a_size_to_look_at() {
        for (side, width) in [(28, 112 + 4), (96, 96 + 4), (500, 500 + 4)] {
            let shape = ImageShape { height: side, width: side, channels: 1 };
            let black = vec![0; side * side];
            let grid = reconstruction_png(&black, &black, shape, 8).expect("fits");
            assert_eq!(grid.shape.width, width);
            let reader = png::Decoder::new(io::Cursor::new(&grid.png)).read_info().expect("a PNG");
            assert_eq!(reader.info().width as usize, width);
        }
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
