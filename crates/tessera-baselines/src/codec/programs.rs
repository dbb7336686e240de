//! Codecs of pictures that are programs: WebP, JPEG XL and AVIF.
//!
//! All get the picture as a PNG that says nothing about color, and give back a PNG.

use png::Filter;

use super::inside::{png_file, read_png};
use crate::baseline::Coded;
use crate::error::BaselineError;
use crate::item::Picture;
use crate::payload::{avif_payload, jpeg_xl_payload, webp_payload};
use crate::tool::{Bench, Tool};

/// Most pixels of a side of a WebP.
pub(super) const WEBP_SIDE: u32 = 16_383;
pub(super) const WEBP: Pair = pair("webp", "cwebp", "dwebp");
pub(super) const JPEG_XL: Pair = pair("libjxl-tools", "cjxl", "djxl");
pub(super) const AVIF: Pair = pair("libavif-bin", "avifenc", "avifdec");

/// An encoder and its decoder.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair {
    pub(super) encoder: Tool,
    pub(super) decoder: Tool,
}

pub(super) const fn pair(
    package: &'static str,
    encoder: &'static str,
    decoder: &'static str,
) -> Pair {
    Pair {
        encoder: Tool { program: encoder, package },
        decoder: Tool { program: decoder, package },
    }
}

impl Pair {
    /// Which of the two is missing, if one is.
    pub(super) fn missing(self) -> Option<String> {
        self.encoder.missing().or_else(|| self.decoder.missing())
    }
}

pub(super) fn webp(picture: &Picture, words: &[&str]) -> Result<Coded<Picture>, BaselineError> {
    let words = [&["-quiet"], words, &["in.png", "-o", "coded"]].concat();
    code(picture, WEBP, &words, &["-quiet", "coded", "-o", "out.png"], webp_payload)
}

pub(super) fn jpeg_xl(picture: &Picture, words: &[&str]) -> Result<Coded<Picture>, BaselineError> {
    let words = [&["in.png", "coded.jxl", "--quiet", "--num_threads=0"], words].concat();
    code(picture, JPEG_XL, &words, &["coded.jxl", "out.png", "--quiet"], jpeg_xl_payload)
}

pub(super) fn avif(picture: &Picture, level: &str) -> Result<Coded<Picture>, BaselineError> {
    let level = format!("cq-level={level}");
    let chroma = if picture.channels == 1 { "400" } else { "444" };
    // The quantizer may go where the level asks for.
    let words = ["-c", "aom", "-s", "4", "-j", "1", "-y", chroma, "--min", "0", "--max", "63"];
    let words = [&words[..], &["-a", "end-usage=q", "-a", &level, "-a", "tune=psnr"]].concat();
    let words = [&words[..], &["in.png", "coded.avif"]].concat();
    code(picture, AVIF, &words, &["-j", "1", "coded.avif", "out.png"], avif_payload)
}

fn code(
    picture: &Picture,
    pair: Pair,
    encode: &[&str],
    decode: &[&str],
    payload: fn(&[u8]) -> Result<u64, BaselineError>,
) -> Result<Coded<Picture>, BaselineError> {
    let bench = Bench::new()?;
    bench.write("in.png", &png_file(picture, Filter::Sub, 1)?)?;
    pair.encoder.run(encode, bench.path())?;
    let name = encode.iter().find(|word| word.starts_with("coded")).expect("it has a name");
    let file = bench.read(name)?;
    let payload_bytes = payload(&file)?;
    pair.decoder.run(decode, bench.path())?;
    let decoded = like(picture, read_png(&bench.read("out.png")?)?, pair)?;
    Ok(Coded { file_bytes: file.len() as u64, payload_bytes, decoded })
}

/// The decoded picture with the channels of the original: WebP and AVIF give RGB for grey.
fn like(original: &Picture, decoded: Picture, pair: Pair) -> Result<Picture, BaselineError> {
    let same = (decoded.height, decoded.width) == (original.height, original.width);
    let bytes = match (original.channels, decoded.channels) {
        (a, b) if a == b => decoded.bytes,
        (1, 3) => decoded.bytes.chunks_exact(3).map(grey).collect(),
        (3, 1) => decoded.bytes.iter().flat_map(|value| [*value; 3]).collect(),
        _ => Vec::new(),
    };
    let picture = Picture { channels: original.channels, bytes, ..decoded };
    if !same || picture.check().is_err() {
        let problem = format!("gave {} x {} pixels", picture.height, picture.width);
        return Err(BaselineError::Tool { program: pair.decoder.program, problem });
    }
    Ok(picture)
}

/// The rounded mean of three values that differ by rounding at most.
fn grey(pixel: &[u8]) -> u8 {
    let sum: u16 = pixel.iter().map(|value| u16::from(*value)).sum();
    ((sum + 1) / 3) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grey_is_the_mean() {
        assert_eq!([grey(&[7, 7, 7]), grey(&[7, 7, 8]), grey(&[7, 8, 8])], [7, 7, 8]);
    }

    #[test]
    fn a_failing_program_says_why() {
        if let Some(reason) = WEBP.missing() {
            println!("not tested: {reason}");
            return;
        }
        let picture = Picture { height: 1, width: 1, channels: 1, bytes: vec![0] };
        let error = webp(&picture, &["-q", "no number"]).expect_err("that is no quality");
        assert!(error.to_string().starts_with("cwebp: exit status: "), "{error}");
    }
}
