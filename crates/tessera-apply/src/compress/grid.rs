//! How a file of any size is made of samples of one: pictures in tiles, sound in windows, film in clips of tiles.
//!
//! Samples come clip by clip, of each row by row. What a sample has beyond the file is filled: in pictures and film by the
//! last pixels and frames, which cost an encoder least, in sound by silence, as samples of a training are. Tiles, and windows of
//! sound, may overlap, where what comes of them is blended ([`super::blend`]); in a compressed file they do not.

use std::ops::Range;

use tessera_data::{Modality, SampleShape};

/// A file in samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grid {
    /// Frames of the file and their size.
    native: SampleShape,
    /// Those of a sample.
    sample: SampleShape,
    /// Pixels that tiles beside one another share, or instants of windows of sound.
    overlap: u32,
}

impl Grid {
    /// A file of the shape `native`, whose frames are like those of samples but for their size.
    pub(crate) fn new(native: SampleShape, sample: SampleShape) -> Self {
        Self::overlapping(native, sample, 0)
    }

    /// The same with tiles that share so many pixels, or windows that share instants: fewer than a sample has.
    pub(crate) fn overlapping(native: SampleShape, sample: SampleShape, overlap: u32) -> Self {
        debug_assert_eq!((native.modality, native.channels), (sample.modality, sample.channels));
        Self { native, sample, overlap }
    }

    /// Samples of the file.
    pub(crate) fn num_samples(&self) -> u64 {
        self.num_clips() * self.per_clip()
    }

    /// Parts of its time.
    pub(crate) fn num_clips(&self) -> u64 {
        let overlap = if self.is_sound() { self.overlap } else { 0 };
        u64::from(parts(self.native.frames, self.sample.frames, overlap))
    }

    fn is_sound(&self) -> bool {
        self.native.modality == Modality::Audio
    }

    /// Samples of a clip.
    pub(crate) fn per_clip(&self) -> u64 {
        u64::from(self.rows()) * u64::from(self.columns())
    }

    fn rows(&self) -> u32 {
        if self.is_sound() {
            return 1;
        }
        parts(self.native.height, self.sample.height, self.overlap)
    }

    pub(crate) fn columns(&self) -> u32 {
        if self.is_sound() {
            return 1;
        }
        parts(self.native.width, self.sample.width, self.overlap)
    }

    /// Frames of the file that are in a clip.
    pub(crate) fn frames(&self, clip: u64) -> Range<u64> {
        let overlap = if self.is_sound() { self.overlap } else { 0 };
        let start = clip * u64::from(self.sample.frames - overlap);
        start..(start + u64::from(self.sample.frames)).min(u64::from(self.native.frames))
    }

    /// Bytes of a frame of the file.
    pub(crate) fn frame_bytes(&self) -> usize {
        self.native.num_bytes() / self.native.frames as usize
    }

    /// Cuts sample `tile` out of a clip whose frames lie in `clip`.
    pub(crate) fn cut(&self, clip: &[u8], tile: u64, out: &mut [u8]) {
        if self.native.modality == Modality::Audio {
            let there = clip.len().min(out.len());
            out[..there].copy_from_slice(&clip[..there]);
            out[there..].fill(0);
            return;
        }
        let (frame_bytes, pixel) = (self.frame_bytes(), self.native.channels as usize);
        let last_frame = clip.len() / frame_bytes - 1;
        let (top, left) = self.corner(tile);
        let height = self.sample.height as usize;
        let rows = out.chunks_exact_mut(self.sample.width as usize * pixel);
        for (at, row) in rows.enumerate() {
            let frame = &clip[(at / height).min(last_frame) * frame_bytes..][..frame_bytes];
            let line = &frame[self.line(top + at % height)];
            let there = &line[left * pixel..line.len().min(left * pixel + row.len())];
            row[..there.len()].copy_from_slice(there);
            let last = &there[there.len() - pixel..];
            row[there.len()..]
                .chunks_exact_mut(pixel)
                .for_each(|beyond| beyond.copy_from_slice(last));
        }
    }

    /// The way back of [`Self::cut`], without what lies beyond the file.
    pub(crate) fn put(&self, sample: &[u8], tile: u64, clip: &mut [u8]) {
        if self.native.modality == Modality::Audio {
            let there = clip.len();
            clip.copy_from_slice(&sample[..there]);
            return;
        }
        let (frame_bytes, pixel) = (self.frame_bytes(), self.native.channels as usize);
        let (top, left) = self.corner(tile);
        let (height, width) = (self.sample.height as usize, self.sample.width as usize);
        let sample_frame = height * width * pixel;
        for (frame, sample) in
            clip.chunks_exact_mut(frame_bytes).zip(sample.chunks_exact(sample_frame))
        {
            let there = height.min(self.native.height as usize - top);
            for (at, row) in sample.chunks_exact(width * pixel).take(there).enumerate() {
                let line = &mut frame[self.line(top + at)];
                let end = line.len().min(left * pixel + row.len());
                let part = &mut line[left * pixel..end];
                part.copy_from_slice(&row[..part.len()]);
            }
        }
    }

    /// Top and left of a tile, in pixels of the file.
    pub(crate) fn corner(&self, tile: u64) -> (usize, usize) {
        let columns = u64::from(self.columns());
        let [row, column] = [tile / columns, tile % columns].map(|number| number as usize);
        let step = |size: u32| (size - self.overlap) as usize;
        (row * step(self.sample.height), column * step(self.sample.width))
    }

    /// Bytes of a frame that are a line, the last one below the frame.
    fn line(&self, row: usize) -> Range<usize> {
        let bytes = self.native.width as usize * self.native.channels as usize;
        let row = row.min(self.native.height as usize - 1);
        row * bytes..(row + 1) * bytes
    }
}

/// How many parts of `size` cover `whole`, where those beside one another share `overlap`.
fn parts(whole: u32, size: u32, overlap: u32) -> u32 {
    1 + whole.saturating_sub(size).div_ceil(size - overlap)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: parts of 4 that share 1 begin at 0, 3 and 6, and end at 10.
    #[test]
    fn parts_cover_the_whole() {
        assert_eq!([1, 4, 5, 7, 8, 10, 11].map(|whole| parts(whole, 4, 1)), [1, 1, 2, 2, 3, 3, 4]);
        assert_eq!([1, 4, 5, 8, 9].map(|whole| parts(whole, 4, 0)), [1, 1, 2, 2, 3]);
        let grid = Grid::overlapping(SampleShape::image(1, 7, 5), SampleShape::image(1, 4, 4), 1);
        assert_eq!((grid.per_clip(), grid.corner(3)), (4, (3, 3)));
        let sound = Grid::overlapping(SampleShape::audio(1, 7, 8), SampleShape::audio(1, 4, 8), 1);
        assert_eq!((sound.num_samples(), sound.frames(1)), (2, 3..7));
    }

    /// By hand: 3 x 3 pixels in tiles of 2 x 2.
    #[test]
    fn a_picture_is_cut_into_tiles_and_put_together() {
        let grid = Grid::new(SampleShape::image(1, 3, 3), SampleShape::image(1, 2, 2));
        assert_eq!((grid.num_samples(), grid.num_clips()), (4, 1));
        let picture: Vec<u8> = (1..10).collect();
        let expected = [[1, 2, 4, 5], [3, 3, 6, 6], [7, 8, 7, 8], [9, 9, 9, 9]];
        let mut back = vec![0; 9];
        for (tile, expected) in (0..).zip(expected) {
            let mut sample = [0; 4];
            grid.cut(&picture, tile, &mut sample);
            assert_eq!(sample, expected);
            grid.put(&sample, tile, &mut back);
        }
        assert_eq!(back, picture);
    }

    /// By hand: three frames of 1 x 2 pixels in clips of two frames of 2 x 1: the last frame comes twice.
    #[test]
    fn a_film_ends_with_its_last_frame() {
        let grid = Grid::new(SampleShape::video(1, 3, 1, 2), SampleShape::video(1, 2, 2, 1));
        assert_eq!((grid.num_clips(), grid.per_clip(), grid.frames(1)), (2, 2, 2..3));
        let film = [1, 2, 3, 4, 5, 6];
        let mut sample = [0; 4];
        grid.cut(&film[..4], 1, &mut sample);
        assert_eq!(sample, [2, 2, 4, 4]);
        grid.cut(&film[4..], 0, &mut sample);
        assert_eq!(sample, [5, 5, 5, 5]);
        let mut clip = [0; 2];
        grid.put(&sample, 0, &mut clip);
        assert_eq!(clip, [5, 0]);
    }

    #[test]
    fn a_sound_ends_in_silence() {
        let grid = Grid::new(SampleShape::audio(1, 3, 8000), SampleShape::audio(1, 2, 8000));
        let mut sample = [9; 4];
        grid.cut(&[5, 6], 0, &mut sample);
        assert_eq!((grid.num_samples(), sample), (2, [5, 6, 0, 0]));
        let mut clip = [0; 2];
        grid.put(&sample, 0, &mut clip);
        assert_eq!(clip, [5, 6]);
    }
}
