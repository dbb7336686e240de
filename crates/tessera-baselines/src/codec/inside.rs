//! Codecs of pictures that run in this process: PNG and JPEG.

use mozjpeg::{ColorSpace, Compress, Decompress};
use png::{BitDepth, ColorType, Decoder, DeflateCompression, Encoder, Filter};

use crate::baseline::Coded;
use crate::error::BaselineError;
use crate::item::Picture;
use crate::payload::{jpeg_payload, png_payload};

/// Most pixels of a side: JPEG's.
pub(super) const MOST_SIDE: u32 = 65_500;
/// From this quality on the chroma of a JPEG keeps its height, then its width too; as MozJPEG's `cjpeg` has it.
const FULL_HEIGHT: f32 = 80.0;
const FULL_CHROMA: f32 = 90.0;
/// Filters that the smallest PNG is found among.
const FILTERS: [Filter; 6] =
    [Filter::Adaptive, Filter::NoFilter, Filter::Sub, Filter::Up, Filter::Avg, Filter::Paeth];

/// The smallest PNG of all filters.
pub(super) fn png(picture: &Picture) -> Result<Coded<Picture>, BaselineError> {
    let files: Result<Vec<Vec<u8>>, BaselineError> =
        FILTERS.into_iter().map(|filter| png_file(picture, filter, 9)).collect();
    let file = files?.into_iter().min_by_key(Vec::len).expect("there are filters");
    let payload_bytes = png_payload(&file)?;
    Ok(Coded { file_bytes: file.len() as u64, payload_bytes, decoded: read_png(&file)? })
}

/// A PNG without anything that says how its colors are meant.
pub(super) fn png_file(
    picture: &Picture,
    filter: Filter,
    level: u8,
) -> Result<Vec<u8>, BaselineError> {
    let failed = |error: png::EncodingError| BaselineError::format("PNG", error.to_string());
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, picture.width, picture.height);
    encoder.set_color(if picture.channels == 1 { ColorType::Grayscale } else { ColorType::Rgb });
    encoder.set_depth(BitDepth::Eight);
    encoder.set_deflate_compression(DeflateCompression::Level(level));
    encoder.set_filter(filter);
    let mut writer = encoder.write_header().map_err(failed)?;
    writer.write_image_data(&picture.bytes).map_err(failed)?;
    writer.finish().map_err(failed)?;
    Ok(file)
}

/// A PNG of eight bits a channel, grey or RGB, with or without opacity, which is left out.
pub(super) fn read_png(file: &[u8]) -> Result<Picture, BaselineError> {
    let failed = |error: png::DecodingError| BaselineError::format("PNG", error.to_string());
    let mut reader = Decoder::new(std::io::Cursor::new(file)).read_info().map_err(failed)?;
    let size = reader.output_buffer_size();
    let size = size.ok_or_else(|| BaselineError::format("PNG", "too large"))?;
    let mut bytes = vec![0; size];
    let info = reader.next_frame(&mut bytes).map_err(failed)?;
    let (found, channels) = match info.color_type {
        ColorType::Grayscale => (1, 1),
        ColorType::GrayscaleAlpha => (2, 1),
        ColorType::Rgb => (3, 3),
        ColorType::Rgba => (4, 3),
        ColorType::Indexed => return Err(BaselineError::format("PNG", "it has a palette")),
    };
    if info.bit_depth != BitDepth::Eight {
        return Err(BaselineError::format("PNG", format!("{:?} bits a channel", info.bit_depth)));
    }
    if found != channels {
        let pixels = bytes.chunks_exact(found).flat_map(|pixel| &pixel[..channels]);
        bytes = pixels.copied().collect();
    }
    Ok(Picture { height: info.height, width: info.width, channels: channels as u32, bytes })
}

/// A JPEG of MozJPEG's defaults, which are those of the smallest files.
pub(super) fn jpeg(picture: &Picture, quality: &str) -> Result<Coded<Picture>, BaselineError> {
    let quality = quality.parse().expect("qualities are numbers");
    let failed = |error: std::io::Error| BaselineError::format("JPEG", error.to_string());
    let file = jpeg_file(picture, quality).map_err(failed)?;
    let decoded = read_jpeg(&file, picture).map_err(failed)?;
    let payload_bytes = jpeg_payload(&file)?;
    Ok(Coded { file_bytes: file.len() as u64, payload_bytes, decoded })
}

fn jpeg_file(picture: &Picture, quality: f32) -> std::io::Result<Vec<u8>> {
    let grey = picture.channels == 1;
    let mut jpeg =
        Compress::new(if grey { ColorSpace::JCS_GRAYSCALE } else { ColorSpace::JCS_RGB });
    jpeg.set_size(picture.width as usize, picture.height as usize);
    jpeg.set_quality(quality);
    if !grey {
        let chroma = (1 + u8::from(quality < FULL_CHROMA), 1 + u8::from(quality < FULL_HEIGHT));
        jpeg.set_chroma_sampling_pixel_sizes(chroma, chroma);
    }
    let mut jpeg = jpeg.start_compress(Vec::new())?;
    jpeg.write_scanlines(&picture.bytes)?;
    jpeg.finish()
}

fn read_jpeg(file: &[u8], like: &Picture) -> std::io::Result<Picture> {
    let jpeg = Decompress::new_mem(file)?;
    let mut jpeg = if like.channels == 1 { jpeg.grayscale()? } else { jpeg.rgb()? };
    let (width, height) = (jpeg.width() as u32, jpeg.height() as u32);
    let bytes = jpeg.read_scanlines::<u8>()?;
    jpeg.finish()?;
    Ok(Picture { height, width, channels: like.channels, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 256 values that only a filter makes equal: the best file is smaller than that without a filter.
    #[test]
    fn the_smallest_png_is_taken() {
        let ramp = (0..64 * 64).map(|at| (at % 64 * 4) as u8).collect();
        let picture = Picture { height: 64, width: 64, channels: 1, bytes: ramp };
        let plain = png_file(&picture, Filter::NoFilter, 9).expect("memory");
        let best = png(&picture).expect("memory");
        assert!((best.file_bytes as usize) <= plain.len());
        assert_eq!(best.decoded, picture);
        // Signature 8, IHDR 25, IEND 12, the frame of one IDAT 12.
        assert_eq!(best.file_bytes - best.payload_bytes, 57);
    }
}
