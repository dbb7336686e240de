//! Samples as files that people look at and listen to: PNG, animated PNG (<https://www.w3.org/TR/png-3/>), and WAV of 16 bits.
//!
//! Knows bytes only, as they lie in memory ([`Signal::to_raw`](tessera_nn::Signal::to_raw)).

use std::io::{self, Cursor, Seek, Write};

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
    assert!(num > 0, "a film without pictures");
    let mut bytes = Vec::new();
    let delay = frames_per_second.map(|rate| (1, rate));
    let mut writer = FilmWriter::begin(&mut bytes, shape, num, delay)?;
    pixels.chunks_exact(shape.num_bytes()).try_for_each(|picture| writer.frame(picture))?;
    writer.finish()?;
    Ok(bytes)
}

/// An animated PNG that is written frame by frame.
pub struct FilmWriter<W: Write>(png::Writer<W>);

impl<W: Write> std::fmt::Debug for FilmWriter<W> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("FilmWriter").finish_non_exhaustive()
    }
}

impl<W: Write> FilmWriter<W> {
    /// Begins a film of so many frames of a shape, `rate` of which are shown in a thousand seconds.
    ///
    /// # Errors
    ///
    /// Those of writing; `InvalidInput` if a side is over 2^32 pixels.
    ///
    /// # Panics
    ///
    /// If frames have other than 1 or 3 channels, or there are none.
    pub fn new(to: W, shape: ImageShape, num: usize, rate: u32) -> io::Result<Self> {
        // The part of a second that a frame is shown, in two numbers of 16 bits.
        let delay = match rate {
            0..=65_535 => (1000, rate.max(1) as u16),
            _ => (1, (rate / 1000).min(65_535) as u16),
        };
        Self::begin(to, shape, num, Some(delay))
    }

    fn begin(to: W, shape: ImageShape, num: usize, delay: Option<(u16, u16)>) -> io::Result<Self> {
        assert!(matches!(shape.channels, 1 | 3), "a picture of {} channels", shape.channels);
        let too_large = |_| io::Error::new(io::ErrorKind::InvalidInput, "a side over 2^32 pixels");
        let width = u32::try_from(shape.width).map_err(too_large)?;
        let height = u32::try_from(shape.height).map_err(too_large)?;
        let mut encoder = png::Encoder::new(to, width, height);
        encoder.set_color(match shape.channels {
            1 => png::ColorType::Grayscale,
            _ => png::ColorType::Rgb,
        });
        encoder.set_depth(png::BitDepth::Eight);
        if let Some((part, of)) = delay.filter(|_| num > 1) {
            encoder.set_animated(u32::try_from(num).map_err(too_large)?, 0)?;
            encoder.set_frame_delay(part, of)?;
        }
        Ok(Self(encoder.write_header()?))
    }

    /// Writes the next frame.
    ///
    /// # Errors
    ///
    /// Those of writing; if it is one more than were told, or of another shape.
    pub fn frame(&mut self, pixels: &[u8]) -> io::Result<()> {
        Ok(self.0.write_image_data(pixels)?)
    }

    /// Writes the end.
    ///
    /// # Errors
    ///
    /// Those of writing; if there were fewer frames than were told.
    pub fn finish(self) -> io::Result<()> {
        Ok(self.0.finish()?)
    }
}

/// Sound as WAV: numbers of 16 bits, those of an instant's channels side by side.
///
/// # Errors
///
/// `InvalidInput` if it is over 4 GiB, or of no channels.
pub fn wav(samples: &[i16], channels: u16, sample_rate: u32) -> io::Result<Vec<u8>> {
    let mut bytes = Cursor::new(Vec::new());
    let mut writer = SoundWriter::new(&mut bytes, channels, sample_rate)?;
    writer.add(samples)?;
    writer.finish()?;
    Ok(bytes.into_inner())
}

/// A WAV file of 16 bits that is written piece by piece.
pub struct SoundWriter<W: Write + Seek>(hound::WavWriter<W>);

impl<W: Write + Seek> std::fmt::Debug for SoundWriter<W> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("SoundWriter").field(&self.0.len()).finish()
    }
}

impl<W: Write + Seek> SoundWriter<W> {
    /// Begins a sound.
    ///
    /// # Errors
    ///
    /// Those of writing; `InvalidInput` if it has no channels.
    pub fn new(to: W, channels: u16, sample_rate: u32) -> io::Result<Self> {
        if channels == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "sound of no channels"));
        }
        let sample_format = hound::SampleFormat::Int;
        let spec = hound::WavSpec { channels, sample_rate, bits_per_sample: 16, sample_format };
        hound::WavWriter::new(to, spec).map(Self).map_err(plain)
    }

    /// Writes numbers, those of an instant's channels side by side.
    ///
    /// # Errors
    ///
    /// Those of writing; `InvalidInput` if they are over 4 GiB in all.
    pub fn add(&mut self, samples: &[i16]) -> io::Result<()> {
        samples.iter().try_for_each(|&sample| self.0.write_sample(sample)).map_err(plain)
    }

    /// Writes the sizes into the header.
    ///
    /// # Errors
    ///
    /// Those of writing.
    pub fn finish(self) -> io::Result<()> {
        self.0.finalize().map_err(plain)
    }
}

/// The head of a WAV file of 16 bits whose samples follow in a pipe: of so many frames, or of as many as come, which the sizes say by
/// their largest number, as FFmpeg does.
pub fn wav_head(channels: u16, sample_rate: u32, frames: Option<u64>) -> [u8; 44] {
    let frame = 2 * channels;
    let size = frames.and_then(|frames| frames.checked_mul(u64::from(frame)));
    let size = size.and_then(|size| u32::try_from(size).ok()).filter(|size| *size < u32::MAX - 36);
    let mut head = *b"RIFF....WAVEfmt \x10\0\0\0\x01\0........bbbb\x10\0data....";
    head[4..8].copy_from_slice(&size.map_or(u32::MAX, |size| size + 36).to_le_bytes());
    head[22..24].copy_from_slice(&channels.to_le_bytes());
    head[24..28].copy_from_slice(&sample_rate.to_le_bytes());
    head[28..32].copy_from_slice(&(sample_rate * u32::from(frame)).to_le_bytes());
    head[32..34].copy_from_slice(&frame.to_le_bytes());
    head[40..44].copy_from_slice(&size.unwrap_or(u32::MAX).to_le_bytes());
    head
}

fn plain(error: hound::Error) -> io::Error {
    match error {
        hound::Error::IoError(error) => error,
        other => io::Error::new(io::ErrorKind::InvalidInput, other),
    }
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
        assert_eq!(wav_head(2, 8000, Some(2)), bytes[..44]);
        let endless = wav_head(2, 8000, None);
        assert_eq!(
            (endless[4..8].to_vec(), endless[40..].to_vec()),
            (vec![0xff; 4], vec![0xff; 4])
        );
    }
}
