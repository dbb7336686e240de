//! Overlapping tiles put together without a seam.
//!
//! Where two tiles share pixels each has a part of them that grows from its border inwards, in a straight line; so does a
//! window of sound in the instants that it shares with the one before. Without overlap every value is the one tile's, as it is.

use tessera_data::SampleShape;

/// Frames in the making, of tiles that are blended.
pub(crate) struct Blend {
    /// Sums of values times weights, and of weights, of each pixel.
    values: Vec<f32>,
    weights: Vec<f32>,
    shape: SampleShape,
}

impl Blend {
    /// Empty frames of this shape: pictures or film.
    pub(crate) fn new(shape: SampleShape) -> Self {
        let pixels = shape.frames as usize * shape.height as usize * shape.width as usize;
        let values = vec![0.0; pixels * shape.channels as usize];
        Self { values, weights: vec![0.0; pixels], shape }
    }

    /// The shape of the frames.
    pub(crate) fn shape(&self) -> SampleShape {
        self.shape
    }

    /// Adds a tile of the shape `sample` whose corner is at (top, left), in frames of which there are so many here.
    pub(crate) fn add(
        &mut self,
        bytes: &[u8],
        sample: SampleShape,
        (top, left): (usize, usize),
        overlap: u32,
    ) {
        let size = |shape: SampleShape| {
            [shape.frames, shape.height, shape.width, shape.channels].map(|size| size as usize)
        };
        let ([frames, height, width, channels], [_, rows, columns, _]) =
            (size(self.shape), size(sample));
        for frame in 0..frames {
            for y in 0..rows.min(height - top) {
                for x in 0..columns.min(width - left) {
                    let weight = weight(y, rows, overlap) * weight(x, columns, overlap);
                    let to = (frame * height + top + y) * width + left + x;
                    let from = (frame * rows + y) * columns + x;
                    self.weights[to] += weight;
                    let values = &mut self.values[to * channels..(to + 1) * channels];
                    for (value, &byte) in values.iter_mut().zip(&bytes[from * channels..]) {
                        *value += weight * f32::from(byte);
                    }
                }
            }
        }
    }

    /// The frames as they lie in memory.
    pub(crate) fn finish(self) -> Vec<u8> {
        let channels = self.shape.channels as usize;
        let pixels = self.values.chunks_exact(channels).zip(&self.weights);
        let bytes = pixels.flat_map(|(values, weight)| {
            values
                .iter()
                .map(move |value| (value / weight).round_ties_even().clamp(0.0, 255.0) as u8)
        });
        bytes.collect()
    }
}

/// What a place of a tile counts, from 1 / (overlap + 1) at its border to 1.
fn weight(at: usize, size: usize, overlap: u32) -> f32 {
    let from_border = (at + 1).min(size - at).min(overlap as usize + 1);
    from_border as f32 / (overlap + 1) as f32
}

/// Windows of sound one after another, each of which shares instants with the one before.
pub(crate) struct Fade {
    /// Numbers of an instant.
    channels: usize,
    /// Instants that two windows share.
    overlap: usize,
    /// What the last window has of those that the next one shares.
    kept: Vec<i16>,
}

impl Fade {
    /// Before the first window.
    pub(crate) fn new(channels: u32, overlap: u32) -> Self {
        Self { channels: channels as usize, overlap: overlap as usize, kept: Vec::new() }
    }

    /// What is whole with the next window, 16-bit numbers of low bytes first: all but what the one behind it shares.
    pub(crate) fn add(&mut self, window: &[u8], is_last: bool) -> Vec<u8> {
        let mut numbers = super::sound_samples(window);
        for (at, (number, before)) in numbers.iter_mut().zip(&self.kept).enumerate() {
            let part = (at / self.channels + 1) as f32 / (self.overlap + 1) as f32;
            let mixed = f32::from(*number) * part + f32::from(*before) * (1.0 - part);
            *number = mixed.round_ties_even() as i16;
        }
        let whole = match is_last {
            true => numbers.len(),
            false => numbers.len().saturating_sub(self.overlap * self.channels),
        };
        self.kept = numbers.split_off(whole);
        numbers.into_iter().flat_map(i16::to_le_bytes).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: two tiles of 1 x 3 that share one pixel, half of each there.
    #[test]
    fn shared_pixels_are_parts_of_both() {
        let (whole, sample) = (SampleShape::image(1, 1, 5), SampleShape::image(1, 1, 3));
        let mut blend = Blend::new(whole);
        blend.add(&[10, 20, 30], sample, (0, 0), 1);
        blend.add(&[50, 60, 70], sample, (0, 2), 1);
        assert_eq!(blend.finish(), [10, 20, 40, 60, 70]);
    }

    /// By hand: windows of four instants that share two: 2/3 and 1/3 of the first, 1/3 and 2/3 of the second.
    #[test]
    fn windows_fade_into_one_another() {
        let bytes = |numbers: &[i16]| -> Vec<u8> {
            numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
        };
        let mut fade = Fade::new(1, 2);
        assert_eq!(fade.add(&bytes(&[1, 2, 30, 60]), false), bytes(&[1, 2]));
        assert_eq!(fade.add(&bytes(&[60, 0, 9, 8]), true), bytes(&[40, 20, 9, 8]));
    }
}
