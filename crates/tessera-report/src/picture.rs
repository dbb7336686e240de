//! Pictures of a run: read, cut into the cells of a sheet, made smaller, written into the page.

use std::io;
use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

/// The gray between the cells of a sheet.
const GAP: u8 = 128;
/// How often a small picture's pixels are repeated at most.
const MOST_TIMES: usize = 96;
/// Pixels of a picture that is read at most.
const MOST_PIXELS: usize = 1 << 28;

/// A picture of 8 bits a channel, row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Picture {
    pub(crate) width: usize,
    pub(crate) height: usize,
    /// 1 or 3.
    pub(crate) channels: usize,
    pub(crate) pixels: Vec<u8>,
}

/// A rectangle of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) left: usize,
    pub(crate) top: usize,
    pub(crate) width: usize,
    pub(crate) height: usize,
}

/// The cells of a sheet, row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sheet {
    pub(crate) columns: usize,
    pub(crate) rows: usize,
    pub(crate) cells: Vec<Cell>,
}

impl Picture {
    /// Reads the PNG file at `path`; of an animated one its first picture. Says why it cannot.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
        Self::decode(&bytes)
    }

    /// Decodes a PNG file.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let mut decoder = png::Decoder::new(io::Cursor::new(bytes));
        decoder.set_transformations(png::Transformations::normalize_to_color8());
        let mut reader = decoder.read_info().map_err(|error| error.to_string())?;
        let size = reader.output_buffer_size().filter(|size| *size <= 4 * MOST_PIXELS);
        let mut raw = vec![0; size.ok_or("it is larger than a report takes")?];
        let frame = reader.next_frame(&mut raw).map_err(|error| error.to_string())?;
        raw.truncate(frame.buffer_size());
        let (width, height) = (frame.width as usize, frame.height as usize);
        let of_pixel = frame.color_type.samples();
        let channels = if of_pixel >= 3 { 3 } else { 1 };
        let pixels = match of_pixel {
            1 | 3 => raw,
            // Without what is transparent.
            _ => raw.chunks_exact(of_pixel).flat_map(|pixel| &pixel[..channels]).copied().collect(),
        };
        Ok(Self { width, height, channels, pixels })
    }

    /// A picture of one color.
    pub(crate) fn plain(width: usize, height: usize, channels: usize, gray: u8) -> Self {
        Self { width, height, channels, pixels: vec![gray; width * height * channels] }
    }

    /// As a PNG file.
    pub(crate) fn png(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, self.width as u32, self.height as u32);
        encoder.set_color(if self.channels == 3 {
            png::ColorType::Rgb
        } else {
            png::ColorType::Grayscale
        });
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_compression(png::Compression::Balanced);
        let mut writer = encoder.write_header().expect("a picture has sides, and memory takes all");
        writer.write_image_data(&self.pixels).expect("pixels are as many as the sides say");
        writer.finish().expect("memory takes all");
        bytes
    }

    /// As the address of an image.
    pub(crate) fn uri(&self) -> String {
        data_uri("image/png", &self.png())
    }

    fn row(&self, y: usize) -> &[u8] {
        &self.pixels[y * self.width * self.channels..][..self.width * self.channels]
    }

    /// A part of it.
    ///
    /// # Panics
    ///
    /// If the cell lies outside.
    pub(crate) fn cut(&self, cell: Cell) -> Self {
        let mut pixels = Vec::with_capacity(cell.width * cell.height * self.channels);
        for y in cell.top..cell.top + cell.height {
            pixels.extend(&self.row(y)[cell.left * self.channels..][..cell.width * self.channels]);
        }
        Self { width: cell.width, height: cell.height, channels: self.channels, pixels }
    }

    /// Puts another picture of as many channels into this one.
    ///
    /// # Panics
    ///
    /// If it does not fit.
    pub(crate) fn put(&mut self, part: &Self, left: usize, top: usize) {
        for y in 0..part.height {
            let from = ((top + y) * self.width + left) * self.channels;
            self.pixels[from..][..part.width * self.channels].copy_from_slice(part.row(y));
        }
    }

    /// Without the repetition of pixels that made a small picture larger.
    pub(crate) fn native(&self) -> Self {
        let fits = |times: &usize| {
            self.width.is_multiple_of(*times)
                && self.height.is_multiple_of(*times)
                && (0..self.height).all(|y| {
                    let (row, first) = (self.row(y), self.row(y / times * times));
                    let same = |x: usize| {
                        let at = |x: usize| &first[x * self.channels..][..self.channels];
                        at(x) == at(x / times * times)
                    };
                    row == first && (0..self.width).all(same)
                })
        };
        match (2..=self.width.min(self.height).min(MOST_TIMES)).rev().find(fits) {
            Some(times) => self.every(times),
            None => self.clone(),
        }
    }

    fn every(&self, times: usize) -> Self {
        let (width, height) = (self.width / times, self.height / times);
        let mut pixels = Vec::with_capacity(width * height * self.channels);
        for y in 0..height {
            let row = self.row(y * times);
            for x in 0..width {
                pixels.extend(&row[x * times * self.channels..][..self.channels]);
            }
        }
        Self { width, height, channels: self.channels, pixels }
    }

    /// A `by`-th of its sides: means of what lies in each square.
    pub(crate) fn shrunk(&self, by: usize) -> Self {
        if by <= 1 {
            return self.clone();
        }
        let (width, height) = (self.width.div_ceil(by), self.height.div_ceil(by));
        let mut pixels = Vec::with_capacity(width * height * self.channels);
        for y in 0..height {
            for x in 0..width {
                let (right, bottom) =
                    ((by * (x + 1)).min(self.width), (by * (y + 1)).min(self.height));
                let num = (right - by * x) * (bottom - by * y);
                for channel in 0..self.channels {
                    let mut sum = 0;
                    for row in (by * y..bottom).map(|y| self.row(y)) {
                        sum += (by * x..right)
                            .map(|x| usize::from(row[x * self.channels + channel]))
                            .sum::<usize>();
                    }
                    pixels.push(((sum + num / 2) / num) as u8);
                }
            }
        }
        Self { width, height, channels: self.channels, pixels }
    }

    /// The cells between lines of gray; none where the picture is no sheet.
    pub(crate) fn sheet(&self) -> Option<Sheet> {
        let mut gray_columns = vec![true; self.width];
        let mut gray_rows = vec![true; self.height];
        for (y, gray_row) in gray_rows.iter_mut().enumerate() {
            for (x, pixel) in self.row(y).chunks_exact(self.channels).enumerate() {
                if pixel.iter().any(|value| *value != GAP) {
                    gray_columns[x] = false;
                    *gray_row = false;
                }
            }
        }
        let (across, down) = (spans(&gray_columns)?, spans(&gray_rows)?);
        let cell = |(top, height): &(usize, usize), (left, width): &(usize, usize)| Cell {
            left: *left,
            top: *top,
            width: *width,
            height: *height,
        };
        let cells = down.iter().flat_map(|row| across.iter().map(move |column| cell(row, column)));
        let cells: Vec<Cell> = cells.collect();
        Some(Sheet { columns: across.len(), rows: down.len(), cells })
    }
}

/// Begin and length of what is not gray; none where these differ in length or no gray is around them.
fn spans(gray: &[bool]) -> Option<Vec<(usize, usize)>> {
    if !*gray.first()? || !*gray.last()? {
        return None;
    }
    let mut found: Vec<(usize, usize)> = Vec::new();
    for (at, is_gray) in gray.iter().enumerate() {
        match (is_gray, gray[at.saturating_sub(1)]) {
            (false, true) => found.push((at, 1)),
            (false, false) => found.last_mut()?.1 += 1,
            _ => {}
        }
    }
    let length = found.first()?.1;
    found.iter().all(|(_, other)| *other == length).then_some(found)
}

/// Bytes as an address that holds them.
pub(crate) fn data_uri(kind: &str, bytes: &[u8]) -> String {
    format!("data:{kind};base64,{}", BASE64_STANDARD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: two columns and three rows of 2 x 2 with gray of 2 around them, in which one cell is gray itself.
    #[test]
    fn a_sheet_is_cut_along_its_gray_lines() {
        let mut sheet = Picture::plain(10, 14, 1, GAP);
        for (at, gray) in [0, 50, 100, GAP, 200, 250].into_iter().enumerate() {
            sheet.put(&Picture::plain(2, 2, 1, gray), 2 + 4 * (at % 2), 2 + 4 * (at / 2));
        }
        let cells = sheet.sheet().unwrap();
        assert_eq!((cells.columns, cells.rows, cells.cells.len()), (2, 3, 6));
        assert_eq!(sheet.cut(cells.cells[5]), Picture::plain(2, 2, 1, 250));
        assert_eq!(Picture::plain(4, 4, 1, 0).sheet(), None, "no gray around it");
    }

    #[test]
    fn a_picture_comes_back_from_its_file_and_from_being_enlarged() {
        let small = Picture { width: 2, height: 1, channels: 3, pixels: vec![1, 2, 3, 4, 5, 6] };
        assert_eq!(Picture::decode(&small.png()).unwrap(), small);
        let row = [1, 2, 3, 1, 2, 3, 4, 5, 6, 4, 5, 6];
        let large = Picture { width: 4, height: 2, channels: 3, pixels: [row, row].concat() };
        assert_eq!(large.native(), small);
        assert_eq!(large.shrunk(2), small);
        let told = Picture::decode(&small.png()[..40]).unwrap_err();
        assert!(!told.is_empty());
    }
}
