//! Cells of one size side by side, as one picture.

use serde_json::json;
use tessera_data::SampleShape;
use tessera_model::media::{self, ImageShape};

use crate::error::ApplyError;

/// Positions of codes whose pixels a cell has on each side.
const POSITIONS: usize = 4;
/// Pixels of a side at least, where the sample has as many.
const LEAST: usize = 8;
/// Frames of a moving sheet, at most.
const MOMENTS: usize = 4;
/// What stands where there is nothing.
const EMPTY: u8 = 255;

/// A window on a sample, about a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cell {
    shape: SampleShape,
    /// Pixels of a code: of a clip frames too.
    strides: [usize; 3],
    pub(super) height: usize,
    pub(super) width: usize,
}

impl Cell {
    /// That of samples whose codes have these axes.
    pub(super) fn of(shape: SampleShape, axes: &[usize]) -> Self {
        let sizes = [shape.frames, shape.height, shape.width].map(|size| size as usize);
        let mut strides = [sizes[0].max(1), sizes[1], sizes[2]];
        // Codes that are no grid, such as TiTok's, stand for all of a sample.
        let is_grid = axes.len() >= 2;
        for (stride, axis) in strides.iter_mut().rev().zip(axes.iter().rev()).filter(|_| is_grid) {
            *stride = (*stride / axis).max(1);
        }
        let side = |stride: usize, size: usize| (POSITIONS * stride).max(LEAST).min(size);
        let (height, width) = (side(strides[1], sizes[1]), side(strides[2], sizes[2]));
        Self { shape, strides, height, width }
    }

    /// The pixels about the code at a position, within the sample; of a clip those of a frame in the middle of the code.
    pub(super) fn cut(&self, sample: &[u8], position: &[usize]) -> Vec<u8> {
        self.cut_frame(sample, position, self.frame(position))
    }

    /// Frames of a clip in which the code at a position moves, some of all, so that sheets of many codes stay small.
    pub(super) fn moments(&self, position: &[usize]) -> Vec<usize> {
        let frames = self.shape.frames as usize;
        let num = (2 * self.strides[0]).max(LEAST).min(frames);
        let first = self.frame(position).saturating_sub(num / 2).min(frames - num);
        (first..first + num).step_by(num.div_ceil(MOMENTS)).collect()
    }

    /// A frame in the middle of the code at a position.
    fn frame(&self, position: &[usize]) -> usize {
        let frames = self.shape.frames as usize;
        self.middle(position, 3, frames).min(frames.max(1) - 1)
    }

    /// The middle of a code on an axis of so many pixels, which is so many from the last.
    fn middle(&self, position: &[usize], back: usize, size: usize) -> usize {
        let at = position.len().checked_sub(back).filter(|_| position.len() >= 2);
        let stride = self.strides[3 - back];
        at.map_or(size / 2, |at| position[at] * stride + stride / 2)
    }

    /// The pixels of a frame about the code at a position.
    pub(super) fn cut_frame(&self, sample: &[u8], position: &[usize], frame: usize) -> Vec<u8> {
        let [height, width, channels] =
            [self.shape.height, self.shape.width, self.shape.channels].map(|size| size as usize);
        let corner = |middle: usize, side: usize, size: usize| {
            middle.saturating_sub(side / 2).min(size - side)
        };
        let top = corner(self.middle(position, 2, height), self.height, height);
        let left = corner(self.middle(position, 1, width), self.width, width);
        let lines = (top..top + self.height).flat_map(|line| {
            let start = ((frame * height + line) * width + left) * channels;
            &sample[start..start + self.width * channels]
        });
        lines.copied().collect()
    }
}

/// Cells side by side, without anything between them.
pub(super) struct Sheet {
    cell: ImageShape,
    columns: usize,
    rows: usize,
    pixels: Vec<u8>,
    next: usize,
}

impl Sheet {
    /// As broad as high, about.
    pub(super) fn new(cell: Cell, shape: SampleShape, num: usize) -> Self {
        Self::with_columns(cell, shape, num.div_ceil(square(num)), square(num))
    }

    /// Rows of so many cells.
    pub(super) fn with_columns(
        cell: Cell,
        shape: SampleShape,
        rows: usize,
        columns: usize,
    ) -> Self {
        let channels = shape.channels as usize;
        Self::empty(ImageShape { height: cell.height, width: cell.width, channels }, rows, columns)
    }

    /// Of pictures in gray of this height and width.
    pub(super) fn of_gray((height, width): (usize, usize), num: usize) -> Self {
        Self::empty(
            ImageShape { height, width, channels: 1 },
            num.div_ceil(square(num)),
            square(num),
        )
    }

    fn empty(cell: ImageShape, rows: usize, columns: usize) -> Self {
        let pixels = vec![EMPTY; cell.num_bytes() * rows * columns];
        Self { cell, columns, rows, pixels, next: 0 }
    }

    /// Adds the next cell; one too many is left out.
    pub(super) fn add(&mut self, pixels: &[u8]) {
        if self.next < self.rows * self.columns {
            self.put(self.next, pixels);
            self.next += 1;
        }
    }

    /// Fills a cell.
    pub(super) fn put(&mut self, number: usize, pixels: &[u8]) {
        let line = self.cell.width * self.cell.channels;
        let (row, column) = (number / self.columns, number % self.columns);
        for (at, from) in pixels.chunks_exact(line).enumerate() {
            let start = ((row * self.cell.height + at) * self.columns + column) * line;
            self.pixels[start..start + line].copy_from_slice(from);
        }
    }

    /// What `atlas.json` says of it.
    pub(super) fn about(&self) -> serde_json::Value {
        json!({ "columns": self.columns, "width": self.cell.width, "height": self.cell.height })
    }

    pub(super) fn png(&self) -> Result<Vec<u8>, ApplyError> {
        drawn(media::png(&self.pixels, self.size()))
    }

    /// Sheets of one size one after the other, as an animation.
    pub(super) fn animated(sheets: &[Self]) -> Result<Vec<u8>, ApplyError> {
        let pixels: Vec<u8> = sheets.iter().flat_map(|sheet| &sheet.pixels).copied().collect();
        drawn(media::animated_png(&pixels, sheets[0].size(), media::FRAMES_PER_SECOND))
    }

    fn size(&self) -> ImageShape {
        let ImageShape { height, width, channels } = self.cell;
        ImageShape { height: height * self.rows, width: width * self.columns, channels }
    }
}

fn drawn(made: std::io::Result<Vec<u8>>) -> Result<Vec<u8>, ApplyError> {
    made.map_err(ApplyError::file("draw", std::path::Path::new("a sheet")))
}

/// The side of a square of so many cells.
fn square(num: usize) -> usize {
    (1..).find(|side| side * side >= num).expect("numbers go on")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: 16 x 16 pixels in 4 x 4 codes; a cell is all of them. In 8 x 8 it is 8 x 8 pixels about the code's middle.
    #[test]
    fn a_cell_lies_about_its_code_within_the_sample() {
        let shape = SampleShape::image(1, 16, 16);
        let sample: Vec<u8> = (0..=255).collect();
        let all = Cell::of(shape, &[4, 4]);
        assert_eq!(all.cut(&sample, &[3, 0]), sample);
        let part = Cell::of(shape, &[8, 8]);
        assert_eq!((part.height, part.width), (8, 8));
        // The code at row 4, column 5 is about pixel 9, 11: rows 5 to 12, columns 7 to 14.
        let cut = part.cut(&sample, &[4, 5]);
        assert_eq!((cut[0], cut[63]), (5 * 16 + 7, 12 * 16 + 14));
        assert_eq!(part.cut(&sample, &[0, 7])[0], 8);
        // 17 frames in 5 codes of 3 frames: those of the third code about frame 7: of 8, every second.
        let clip =
            Cell::of(SampleShape { frames: 17, ..SampleShape::image(1, 16, 16) }, &[5, 4, 4]);
        assert_eq!(clip.moments(&[2, 0, 0]), [3, 5, 7, 9]);
        assert_eq!(clip.moments(&[0, 0, 0]), [0, 2, 4, 6]);
        // Tokens without places: the middle.
        assert_eq!(Cell::of(shape, &[32]).cut(&sample, &[31]).len(), 256);
    }

    #[test]
    fn cells_lie_side_by_side() {
        let mut sheet = Sheet::of_gray((1, 2), 3);
        [[1, 2], [3, 4], [5, 6]].iter().for_each(|cell| sheet.add(cell));
        assert_eq!(sheet.pixels, [1, 2, 3, 4, 5, 6, 255, 255]);
        assert_eq!(sheet.about(), json!({ "columns": 2, "width": 2, "height": 1 }));
    }
}
