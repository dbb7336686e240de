//! Samples side by side in one picture: pictures as they are, the frames of a clip in a row,
//! sound as the outline of its waveform.

use std::io::Cursor;
use std::path::Path;

use image::codecs::png::PngEncoder;
use image::{Rgb, RgbImage};

use crate::config::OnCorrupt;
use crate::draw::Draw;
use crate::error::{DataError, one_line};
use crate::file;
use crate::samples::Source;
use crate::shape::Modality;
use crate::shape::SampleShape;

/// Most samples in one picture.
pub const MAX_PREVIEW: u64 = 1024;

/// Pixels between samples.
const GAP: u32 = 2;
const BACKGROUND: Rgb<u8> = Rgb([64, 64, 64]);
/// Size of a waveform.
const WAVE: (u32, u32) = (256, 64);
/// Most frames of a clip that are drawn, evenly spaced.
const MAX_FRAMES: u32 = 16;

/// What was drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preview {
    /// Samples in the picture.
    pub num_drawn: usize,
    /// Samples in a row of it.
    pub num_columns: usize,
    /// The class of each sample, in their order: its name, or its number where it has none. Empty
    /// for one without a label, or that is a gap.
    pub classes: Vec<String>,
}

/// Draws samples `ids` into a PNG file. One that cannot be read leaves a gap where `on_corrupt` says
/// so.
///
/// # Errors
///
/// As [`Source::read`]; [`DataError::Write`] if the file cannot be written.
pub fn preview(
    source: &dyn Source,
    ids: &[u64],
    on_corrupt: OnCorrupt,
    path: &Path,
) -> Result<Preview, DataError> {
    let shape = source.shape();
    let (width, height) = size(shape);
    let columns = match shape.modality {
        Modality::Image => (ids.len() as f64).sqrt().ceil() as u32,
        Modality::Audio | Modality::Video => (ids.len() as u32).div_ceil(16),
        Modality::Tokens => {
            let problem = "is of tokens, which are no pictures: draw the data that was encoded";
            return Err(DataError::Config { key: "kind", problem: problem.to_owned() });
        }
    }
    .max(1);
    let rows = (ids.len() as u32).div_ceil(columns);
    let mut sheet = RgbImage::from_pixel(
        columns * (width + GAP) + GAP,
        rows * (height + GAP) + GAP,
        BACKGROUND,
    );
    let names = source.classes();
    let (mut sample, mut num_drawn) = (vec![0; shape.num_bytes()], 0);
    let mut classes = vec![String::new(); ids.len()];
    for (at, &id) in (0..).zip(ids) {
        match source.read(id, Draw::NONE, &mut sample).and_then(|()| source.label(id)) {
            Ok(label) => {
                num_drawn += 1;
                classes[at as usize] = label.map_or(String::new(), |label| named(label, &names));
            }
            Err(error) if on_corrupt == OnCorrupt::Skip && error.is_of_one_sample() => {
                tracing::warn!(%error, "sample skipped");
                continue;
            }
            Err(error) => return Err(error),
        }
        let (left, top) = (at % columns * (width + GAP) + GAP, at / columns * (height + GAP) + GAP);
        draw(shape, &sample, &mut |x, y, color| sheet.put_pixel(left + x, top + y, color));
    }
    let mut png = Cursor::new(Vec::new());
    // Not by its name, which would bring in the writers of all formats.
    let written = sheet.write_with_encoder(PngEncoder::new(&mut png));
    written.expect("a picture in memory can be written");
    file::write_synced(path, &[png.get_ref()])?;
    Ok(Preview { num_drawn, num_columns: columns as usize, classes })
}

/// A class as a person knows it.
fn named(label: i64, names: &[String]) -> String {
    let name = usize::try_from(label).ok().and_then(|number| names.get(number));
    name.map_or_else(|| label.to_string(), |name| one_line(name))
}

/// Width and height of a drawn sample.
fn size(shape: SampleShape) -> (u32, u32) {
    match shape.modality {
        Modality::Image => (shape.width, shape.height),
        Modality::Audio | Modality::Tokens => WAVE,
        Modality::Video => {
            let frames = shape.frames.min(MAX_FRAMES);
            (frames * shape.width + (frames - 1), shape.height)
        }
    }
}

fn draw(shape: SampleShape, sample: &[u8], put: &mut dyn FnMut(u32, u32, Rgb<u8>)) {
    match shape.modality {
        Modality::Audio | Modality::Tokens => wave(shape, sample, put),
        Modality::Image | Modality::Video => {
            let frames = shape.frames.min(MAX_FRAMES);
            let frame_bytes = shape.num_bytes() / shape.frames as usize;
            for at in 0..frames {
                let frame = (u64::from(at) * u64::from(shape.frames) / u64::from(frames)) as usize;
                let bytes = &sample[frame * frame_bytes..][..frame_bytes];
                let left = at * (shape.width + 1);
                for (pixel, channels) in (0..).zip(bytes.chunks_exact(shape.channels as usize)) {
                    let color = match *channels {
                        [red, green, blue, ..] => Rgb([red, green, blue]),
                        ref other => Rgb([other[0]; 3]),
                    };
                    put(left + pixel % shape.width, pixel / shape.width, color);
                }
            }
        }
    }
}

/// From the least to the greatest sample of each column, over all channels.
fn wave(shape: SampleShape, sample: &[u8], put: &mut dyn FnMut(u32, u32, Rgb<u8>)) {
    let (width, height) = WAVE;
    let (pairs, _) = sample.as_chunks::<2>();
    let instants = u64::from(shape.frames);
    let row = |value: i32| ((32767 - value) * (height as i32 - 1) / 65535) as u32;
    for x in 0..width {
        let cut = |x: u32| (u64::from(x) * instants / u64::from(width)) as usize;
        let (from, to) = (cut(x), cut(x + 1).max(cut(x) + 1).min(shape.frames as usize));
        let channels = shape.channels as usize;
        let column = &pairs[from * channels..to * channels];
        let values = column.iter().map(|pair| i32::from(i16::from_le_bytes(*pair)));
        let (low, high) = values
            .fold((i32::MAX, i32::MIN), |(low, high), value| (low.min(value), high.max(value)));
        for y in 0..height {
            let is_wave = (row(high)..=row(low)).contains(&y);
            put(x, y, if is_wave { Rgb([120, 200, 255]) } else { Rgb([16, 16, 16]) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two samples, of which the second has a label.
    struct Two(SampleShape);

    impl Source for Two {
        fn num_samples(&self) -> u64 {
            2
        }
        fn shape(&self) -> SampleShape {
            self.0
        }
        fn read(&self, id: u64, _draw: Draw, out: &mut [u8]) -> Result<(), DataError> {
            out.fill(100 * id as u8);
            match id {
                7 => Err(DataError::CorruptSample {
                    shard: "x".into(),
                    sample: id,
                    problem: "is broken".to_owned(),
                }),
                _ => Ok(()),
            }
        }
        fn label(&self, id: u64) -> Result<Option<i64>, DataError> {
            Ok((id == 1).then_some(1))
        }
        fn classes(&self) -> Vec<String> {
            vec!["cat".to_owned(), "dog".to_owned()]
        }
        fn fingerprint(&self) -> String {
            String::new()
        }
    }

    fn sheet_of(shape: SampleShape) -> RgbImage {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sheet.png");
        let drawn = preview(&Two(shape), &[1, 0], OnCorrupt::Fail, &path).unwrap();
        assert_eq!((drawn.num_drawn, drawn.classes), (2, vec!["dog".to_owned(), String::new()]));
        let broken = [7, 0];
        assert!(preview(&Two(shape), &broken, OnCorrupt::Fail, &path.join("x")).is_err());
        let gap = folder.path().join("gap.png");
        let drawn = preview(&Two(shape), &broken, OnCorrupt::Skip, &gap).unwrap();
        assert_eq!((drawn.num_drawn, drawn.classes.concat()), (1, String::new()));
        image::load_from_memory(&std::fs::read(path).unwrap()).unwrap().into_rgb8()
    }

    #[test]
    fn pictures_stand_side_by_side() {
        let sheet = sheet_of(SampleShape::image(1, 3, 4));
        assert_eq!(sheet.dimensions(), (2 * (4 + 2) + 2, 3 + 2 + 2));
        assert_eq!(sheet.get_pixel(0, 0), &BACKGROUND);
        assert_eq!((sheet.get_pixel(2, 2).0, sheet.get_pixel(8, 4).0), ([100; 3], [0; 3]));
    }

    #[test]
    fn clips_are_rows_of_frames_and_sound_is_a_line() {
        assert_eq!(
            sheet_of(SampleShape::video(3, 5, 6, 7)).dimensions(),
            (5 * 7 + 4 + 4, 2 * 8 + 2)
        );
        let sheet = sheet_of(SampleShape::audio(2, 1000, 8000));
        assert_eq!(sheet.dimensions(), (256 + 4, 2 * 66 + 2));
        // Sample 0 is silence: a line in the middle, and dark elsewhere.
        assert_eq!(sheet.get_pixel(100, 2 + 66 + 31).0, [120, 200, 255]);
        assert_eq!(sheet.get_pixel(100, 2 + 66).0, [16, 16, 16]);
    }
}
