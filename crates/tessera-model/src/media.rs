//! Samples as files that people look at and listen to: PNG, animated PNG (<https://www.w3.org/TR/png-3/>), and WAV of 16 bits.
//!
//! Knows bytes only, as they lie in memory ([`Signal::to_raw`](tessera_nn::Signal::to_raw)).

use std::io::{self, Cursor};

/// Pictures a second of film that people look at, whose own rate samples do not keep.
pub const FRAMES_PER_SECOND: u16 = 12;
/// Moments of a film on a sheet, at most.
const MOMENTS: i64 = 8;

/// The numbers of up to eight of so many frames, evenly over their time, the first and the last among them: what a sheet
/// shows of a film.
pub fn moments(num_frames: i64) -> Vec<i64> {
    let num = num_frames.min(MOMENTS);
    let at = |moment: i64| if num == 1 { 0 } else { moment * (num_frames - 1) / (num - 1) };
    (0..num).map(at).collect()
}

/// Size of one picture, laid out as rows of pixels with the channels side by side (HWC).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageShape {
    /// Rows.
    pub height: usize,
    /// Pixels in a row.
    pub width: usize,
    /// 1 for gray, 3 for RGB.
    pub channels: usize,
}

impl ImageShape {
    /// Bytes of a picture.
    pub fn num_bytes(&self) -> usize {
        self.height * self.width * self.channels
    }
}

/// A picture as PNG, of 8 bits a channel.
///
/// # Errors
///
/// `InvalidInput` if a side is over 2^32 pixels.
///
/// # Panics
///
/// If `pixels` are not those of a picture of 1 or 3 channels and this shape.
pub fn png(pixels: &[u8], shape: ImageShape) -> io::Result<Vec<u8>> {
    assert_eq!(pixels.len(), shape.num_bytes());
    frames_of(pixels, shape, 1, None)
}

/// Pictures of one shape, one after the other, as an animated PNG that begins anew without end. Viewers that know no
/// animation show the first.
///
/// # Errors
///
/// `InvalidInput` if a side is over 2^32 pixels.
///
/// # Panics
///
/// If `pixels` are not those of one picture or more, of 1 or 3 channels and this shape.
pub fn animated_png(
    pixels: &[u8],
    shape: ImageShape,
    frames_per_second: u16,
) -> io::Result<Vec<u8>> {
    let num = pixels.len() / shape.num_bytes();
    assert_eq!(pixels.len(), num * shape.num_bytes());
    frames_of(pixels, shape, num, Some(frames_per_second))
}

fn frames_of(
    pixels: &[u8],
    shape: ImageShape,
    num: usize,
    frames_per_second: Option<u16>,
) -> io::Result<Vec<u8>> {
    assert!(matches!(shape.channels, 1 | 3), "a picture of {} channels", shape.channels);
    assert!(num > 0, "a film without pictures");
    let too_large = |_| io::Error::new(io::ErrorKind::InvalidInput, "a side over 2^32 pixels");
    let width = u32::try_from(shape.width).map_err(too_large)?;
    let height = u32::try_from(shape.height).map_err(too_large)?;
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(match shape.channels {
        1 => png::ColorType::Grayscale,
        _ => png::ColorType::Rgb,
    });
    encoder.set_depth(png::BitDepth::Eight);
    if let Some(rate) = frames_per_second.filter(|_| num > 1) {
        encoder.set_animated(u32::try_from(num).map_err(too_large)?, 0)?;
        encoder.set_frame_delay(1, rate)?;
    }
    let mut writer = encoder.write_header()?;
    for picture in pixels.chunks_exact(shape.num_bytes()) {
        writer.write_image_data(picture)?;
    }
    writer.finish()?;
    Ok(bytes)
}

/// Sound as WAV: numbers of 16 bits, those of an instant's channels side by side.
///
/// # Errors
///
/// `InvalidInput` if it is over 4 GiB, or of no channels.
pub fn wav(samples: &[i16], channels: u16, sample_rate: u32) -> io::Result<Vec<u8>> {
    let spec = hound::WavSpec {
        channels,
        sample_rate,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let refused = |error: hound::Error| match error {
        hound::Error::IoError(error) => error,
        other => io::Error::new(io::ErrorKind::InvalidInput, other),
    };
    if channels == 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "sound of no channels"));
    }
    let mut bytes = Cursor::new(Vec::new());
    let mut writer = hound::WavWriter::new(&mut bytes, spec).map_err(refused)?;
    for &sample in samples {
        writer.write_sample(sample).map_err(refused)?;
    }
    writer.finalize().map_err(refused)?;
    Ok(bytes.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: ImageShape = ImageShape { height: 2, width: 3, channels: 1 };

    #[test]
    fn moments_are_spread_over_all_of_a_film() {
        assert_eq!(moments(17), [0, 2, 4, 6, 9, 11, 13, 16]);
        assert_eq!((moments(3), moments(1)), (vec![0, 1, 2], vec![0]));
    }

    #[test]
    fn a_film_has_all_its_pictures_and_its_rate() {
        let pixels: Vec<u8> = (0..18).collect();
        let bytes = animated_png(&pixels, SHAPE, 8).unwrap();
        let mut reader = png::Decoder::new(Cursor::new(&bytes)).read_info().unwrap();
        let control = reader.info().animation_control.unwrap();
        assert_eq!((control.num_frames, control.num_plays), (3, 0));
        let mut picture = vec![0; 6];
        for expected in pixels.chunks_exact(6) {
            reader.next_frame(&mut picture).unwrap();
            assert_eq!(picture, expected);
            let frame = reader.info().frame_control.unwrap();
            assert_eq!((frame.delay_num, frame.delay_den), (1, 8));
        }
        let alone = animated_png(&pixels[..6], SHAPE, 8).unwrap();
        assert_eq!(alone, png(&pixels[..6], SHAPE).unwrap(), "one picture is no film");
    }

    /// By hand: 44 bytes of header, the rate at 24, bytes a second at 28, then the numbers from the lowest byte on.
    #[test]
    fn sound_is_written_as_it_is() {
        let bytes = wav(&[1, -2, 256, 0], 2, 8000).unwrap();
        assert_eq!(&bytes[..4], b"RIFF");
        assert_eq!(u32::from_le_bytes(bytes[24..28].try_into().unwrap()), 8000);
        assert_eq!(u32::from_le_bytes(bytes[28..32].try_into().unwrap()), 8000 * 2 * 2);
        assert_eq!(&bytes[44..], [1, 0, 0xfe, 0xff, 0, 1, 0, 0]);
        assert!(wav(&[], 0, 8000).is_err());
    }
}
