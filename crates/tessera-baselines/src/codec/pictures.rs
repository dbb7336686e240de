//! The codecs of pictures, their settings, and what is below their lowest quality.

use std::fmt;

use tessera_resample::Cut;

use super::{inside, programs};
use crate::baseline::{Baseline, Coded};
use crate::curve::Kind;
use crate::error::BaselineError;
use crate::item::Picture;

/// A codec of pictures. All but PNG and JPEG are programs of Debian's packages `webp`,
/// `libjxl-tools` and `libavif-bin`, each run with one thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PictureCodec {
    /// The smallest of six filters at deflate's highest level.
    Png,
    /// WebP without loss.
    WebpLossless,
    /// JPEG XL without loss.
    JpegXlLossless,
    /// JPEG by MozJPEG.
    Jpeg,
    /// WebP with loss.
    Webp,
    /// JPEG XL with loss.
    JpegXl,
    /// AVIF by libaom.
    Avif,
}

/// How a codec of pictures is asked for a rate.
///
/// A model works at rates that codecs of today do not reach: for those, a picture is shrunk before it is
/// coded, and enlarged afterwards, both bilinearly with antialiasing. That is what a person would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PictureSetting {
    /// The option's name in tables.
    pub(crate) option: &'static str,
    /// Its value, as the program takes it.
    pub(crate) value: &'static str,
    /// What sides are divided by before coding.
    pub(crate) shrink: u32,
}

impl fmt::Display for PictureSetting {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let space = if self.value.is_empty() { "" } else { " " };
        write!(to, "{}{space}{}", self.option, self.value)?;
        if self.shrink > 1 { write!(to, ", sides / {}", self.shrink) } else { Ok(()) }
    }
}

const fn at(option: &'static str, value: &'static str, shrink: u32) -> PictureSetting {
    PictureSetting { option, value, shrink }
}

const LOSSLESS: [PictureSetting; 1] = [at("lossless", "", 1)];
const JPEG: [PictureSetting; 12] = [
    at("quality", "10", 4),
    at("quality", "30", 4),
    at("quality", "10", 2),
    at("quality", "30", 2),
    at("quality", "5", 1),
    at("quality", "10", 1),
    at("quality", "20", 1),
    at("quality", "35", 1),
    at("quality", "50", 1),
    at("quality", "70", 1),
    at("quality", "85", 1),
    at("quality", "95", 1),
];
const WEBP: [PictureSetting; 12] = [
    at("-q", "0", 4),
    at("-q", "20", 4),
    at("-q", "0", 2),
    at("-q", "20", 2),
    at("-q", "0", 1),
    at("-q", "5", 1),
    at("-q", "15", 1),
    at("-q", "30", 1),
    at("-q", "50", 1),
    at("-q", "70", 1),
    at("-q", "85", 1),
    at("-q", "95", 1),
];
const JPEG_XL: [PictureSetting; 12] = [
    at("-d", "15", 4),
    at("-d", "8", 4),
    at("-d", "15", 2),
    at("-d", "8", 2),
    at("-d", "25", 1),
    at("-d", "15", 1),
    at("-d", "10", 1),
    at("-d", "6", 1),
    at("-d", "4", 1),
    at("-d", "2.5", 1),
    at("-d", "1.5", 1),
    at("-d", "0.7", 1),
];
const AVIF: [PictureSetting; 12] = [
    at("cq-level", "63", 4),
    at("cq-level", "50", 4),
    at("cq-level", "63", 2),
    at("cq-level", "50", 2),
    at("cq-level", "63", 1),
    at("cq-level", "56", 1),
    at("cq-level", "50", 1),
    at("cq-level", "44", 1),
    at("cq-level", "36", 1),
    at("cq-level", "28", 1),
    at("cq-level", "18", 1),
    at("cq-level", "10", 1),
];

impl PictureCodec {
    /// All of them: those that lose nothing first.
    pub const ALL: [Self; 7] = [
        Self::Png,
        Self::WebpLossless,
        Self::JpegXlLossless,
        Self::Jpeg,
        Self::Webp,
        Self::JpegXl,
        Self::Avif,
    ];

    fn code_as_it_is(
        self,
        picture: &Picture,
        value: &str,
    ) -> Result<Coded<Picture>, BaselineError> {
        match self {
            Self::Png => inside::png(picture),
            Self::Jpeg => inside::jpeg(picture, value),
            Self::WebpLossless => programs::webp(picture, &["-z", "8", "-exact"]),
            Self::Webp => programs::webp(picture, &["-q", value, "-m", "6"]),
            Self::JpegXlLossless => programs::jpeg_xl(picture, &["-d", "0", "-e", "9"]),
            Self::JpegXl => programs::jpeg_xl(picture, &["-d", value, "-e", "7"]),
            Self::Avif => programs::avif(picture, value),
        }
    }
}

impl Baseline for PictureCodec {
    type Item = Picture;
    type Setting = PictureSetting;

    fn name(&self) -> &'static str {
        match self {
            Self::Png => "PNG",
            Self::WebpLossless => "WebP lossless",
            Self::JpegXlLossless => "JPEG XL lossless",
            Self::Jpeg => "JPEG",
            Self::Webp => "WebP",
            Self::JpegXl => "JPEG XL",
            Self::Avif => "AVIF",
        }
    }

    fn about(&self) -> &'static str {
        match self {
            Self::Png => "the smallest of six filters, deflate level 9",
            Self::WebpLossless => "cwebp -z 8 -exact",
            Self::JpegXlLossless => "cjxl -d 0 -e 9",
            Self::Jpeg => {
                "MozJPEG, its default tuning: progressive, optimized Huffman tables and scans, trellis \
                 quantization; chroma 4:2:0 below quality 80, 4:2:2 below 90"
            }
            Self::Webp => "cwebp -m 6, chroma 4:2:0",
            Self::JpegXl => "cjxl -e 7",
            Self::Avif => "avifenc by aom, speed 4, end-usage=q, tune=psnr, chroma 4:4:4",
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Png | Self::WebpLossless | Self::JpegXlLossless => Kind::Lossless,
            Self::Jpeg | Self::Webp | Self::JpegXl | Self::Avif => Kind::Lossy,
        }
    }

    fn settings(&self) -> &'static [PictureSetting] {
        match self {
            Self::Png | Self::WebpLossless | Self::JpegXlLossless => &LOSSLESS,
            Self::Jpeg => &JPEG,
            Self::Webp => &WEBP,
            Self::JpegXl => &JPEG_XL,
            Self::Avif => &AVIF,
        }
    }

    fn obstacle(&self, picture: &Picture) -> Option<String> {
        let side = picture.height.max(picture.width);
        match self {
            Self::Png | Self::Jpeg => (side > inside::MOST_SIDE)
                .then(|| format!("a side of {side} pixels is more than its {}", inside::MOST_SIDE)),
            Self::Webp | Self::WebpLossless => programs::WEBP.missing().or_else(|| {
                let most = programs::WEBP_SIDE;
                (side > most).then(|| format!("a side of {side} pixels is more than its {most}"))
            }),
            Self::JpegXl | Self::JpegXlLossless => programs::JPEG_XL.missing(),
            Self::Avif => programs::AVIF.missing(),
        }
    }

    fn code(
        &self,
        picture: &Picture,
        setting: PictureSetting,
    ) -> Result<Coded<Picture>, BaselineError> {
        picture.check()?;
        if setting.shrink == 1 {
            return self.code_as_it_is(picture, setting.value);
        }
        let [height, width] =
            [picture.height, picture.width].map(|side| side.div_ceil(setting.shrink));
        let small = self.code_as_it_is(&resized(picture, height, width), setting.value)?;
        let decoded = resized(&small.decoded, picture.height, picture.width);
        Ok(Coded { decoded, ..small })
    }
}

fn resized(picture: &Picture, height: u32, width: u32) -> Picture {
    let Picture { channels, .. } = *picture;
    let mut bytes = vec![0; height as usize * width as usize * channels as usize];
    let (wide, high) = (picture.width, picture.height);
    let from =
        tessera_resample::Picture { bytes: &picture.bytes, width: wide, height: high, channels };
    let whole = Cut { left: 0.0, top: 0.0, width: f64::from(wide), height: f64::from(high) };
    tessera_resample::resize(from, whole, (width, height), &mut bytes);
    Picture { height, width, channels, bytes }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waves with an edge, and odd sides, so that a codec has something of everything to do.
    fn picture(channels: u32) -> Picture {
        let (height, width) = (53, 70);
        let mut bytes = Vec::new();
        for at in 0..height * width * channels {
            let (y, x, c) = (at / channels / width, at / channels % width, (at % channels) as f64);
            let wave = (f64::from(x) / 9.0 + c).sin() * (f64::from(y) / 13.0 + c).cos();
            let edge = if x + y > 60 { 40.0 } else { -40.0 };
            bytes.push((127.0 + 80.0 * wave + edge) as u8);
        }
        Picture { height, width, channels, bytes }
    }

    fn squares(a: &Picture, b: &Picture) -> f64 {
        let pairs = a.bytes.iter().zip(&b.bytes);
        let sum: f64 = pairs.map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
        sum / a.bytes.len() as f64
    }

    /// Prints why not where a program is missing.
    fn runs(codec: PictureCodec, picture: &Picture) -> bool {
        let obstacle = codec.obstacle(picture);
        if let Some(reason) = &obstacle {
            println!("not tested: {reason}");
        }
        obstacle.is_none()
    }

    #[test]
    fn every_codec_gives_back_a_picture_of_the_same_sizes() {
        for (codec, channels) in
            PictureCodec::ALL.into_iter().flat_map(|codec| [(codec, 1), (codec, 3)])
        {
            let picture = picture(channels);
            if !runs(codec, &picture) {
                continue;
            }
            for setting in codec.settings() {
                let coded = codec.code(&picture, *setting).expect("it codes");
                let found = (coded.decoded.height, coded.decoded.width, coded.decoded.channels);
                assert_eq!(found, (53, 70, channels), "{codec:?} {setting}");
                coded.decoded.check().expect("whole");
                assert!(coded.payload_bytes > 0, "{codec:?} {setting}");
                assert!(coded.payload_bytes <= coded.file_bytes, "{codec:?} {setting}");
                if codec.kind() == Kind::Lossless {
                    assert_eq!(coded.decoded, picture, "{codec:?}");
                }
            }
        }
    }

    /// The highest setting of each is near to the original, and takes more bytes than the lowest,
    /// which is further away.
    #[test]
    fn settings_rise_in_quality() {
        let picture = picture(3);
        let lossy = PictureCodec::ALL.into_iter().filter(|codec| codec.kind() == Kind::Lossy);
        for codec in lossy.filter(|codec| runs(*codec, &picture)) {
            let settings = codec.settings();
            assert!(settings.len() >= 6);
            let [low, high] = [settings[0], settings[settings.len() - 1]]
                .map(|setting| codec.code(&picture, setting).expect("it codes"));
            assert!(low.file_bytes < high.file_bytes, "{codec:?}");
            let [far, near] = [low, high].map(|coded| squares(&coded.decoded, &picture));
            assert!(near < 20.0 && far > 2.0 * near, "{codec:?}: {near} and {far}");
        }
    }

    #[test]
    fn a_picture_of_one_value_comes_back_with_it() {
        let flat = Picture { height: 16, width: 16, channels: 1, bytes: vec![77; 256] };
        for codec in PictureCodec::ALL.into_iter().filter(|codec| runs(*codec, &flat)) {
            let setting = codec.settings()[codec.settings().len() - 1];
            let coded = codec.code(&flat, setting).expect("it codes");
            // Limited range of YUV has 219 values for 256.
            assert!(squares(&coded.decoded, &flat) <= 1.0, "{codec:?}");
        }
    }

    #[test]
    fn settings_have_words() {
        assert_eq!(JPEG[0].to_string(), "quality 10, sides / 4");
        assert_eq!(LOSSLESS[0].to_string(), "lossless");
        assert_eq!(AVIF[11].to_string(), "cq-level 10");
    }
}
