//! The decoders of pictures against Pillow's, whose pixels lie beside the pictures in
//! `tests/pictures`, made by the script that lies there too.

use std::fs;
use std::path::Path;

use super::has_extension;
use super::image::{self, Picture};
use crate::shape::Modality;

/// Names and bytes of all pictures, sorted.
fn pictures() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("tests/pictures");
    let mut pictures = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if !name.starts_with('.') && !name.ends_with(".py") {
            pictures.push((name, fs::read(path).unwrap()));
        }
    }
    pictures.sort();
    assert!(pictures.len() > 100, "the pictures are not there");
    pictures
}

/// Pictures, each with what Pillow makes of it.
fn pairs() -> Vec<(String, Vec<u8>, Picture)> {
    let all = pictures();
    let expected = |name: &str| {
        let wanted = format!("{name}.expected.png");
        let (_, bytes) = all.iter().find(|(name, _)| *name == wanted)?;
        Some(image::decode(bytes, 3, 1 << 20).unwrap())
    };
    let pairs =
        all.iter().filter_map(|(name, bytes)| Some((name.clone(), bytes.clone(), expected(name)?)));
    pairs.collect()
}

/// Most that a value may differ from Pillow's: lossless formats and JPEG not at all.
fn tolerance(name: &str) -> i16 {
    match name {
        // Other arithmetic of YCbCr and of inks.
        "lossy.webp" | "jpeg.tif" => 8,
        "cmyk.tif" => 1,
        _ => 0,
    }
}

#[test]
fn pictures_have_the_pixels_that_pillow_reads() {
    let mut wrong = Vec::new();
    for (name, bytes, expected) in pairs() {
        assert!(has_extension(&name, Modality::Image.extensions()), "{name}");
        let found = match image::decode(&bytes, 3, 1 << 20) {
            Ok(found) => found,
            Err(problem) => {
                wrong.push(format!("{name} {problem}"));
                continue;
            }
        };
        let size = (found.width, found.height);
        if image::dimensions(&bytes) != Ok(size) || size != (expected.width, expected.height) {
            wrong.push(format!("{name} is {} x {}", size.0, size.1));
            continue;
        }
        let values = found.bytes.iter().zip(&expected.bytes);
        let most = values.map(|(&a, &b)| (i16::from(a) - i16::from(b)).abs()).max();
        if most > Some(tolerance(&name)) {
            wrong.push(format!("{name} differs by {most:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Wherever a picture is cut, it is refused, or nothing that is shown was cut off.
#[test]
fn a_picture_that_was_cut_is_refused_or_has_all_its_pixels() {
    let mut wrong = Vec::new();
    for (name, bytes, _) in pairs() {
        let Ok(whole) = image::decode(&bytes, 3, 1 << 20) else { continue };
        let step = bytes.len() / 60 + 1;
        for cut in (0..bytes.len()).filter(|at| at % step == 0 || at + 16 > bytes.len()) {
            if let Ok(found) = image::decode(&bytes[..cut], 3, 1 << 20)
                && found != whole
            {
                wrong.push(format!("{name} at {cut} of {}", bytes.len()));
            }
        }
    }
    assert!(wrong.is_empty(), "taken although cut: {}", wrong.join(", "));
}

#[test]
fn what_cannot_be_decoded_is_refused_in_words_that_say_why() {
    let all = pictures();
    for (name, words) in [
        ("refused-12-bit.jpg", "Unsupported JPEG data precision 12"),
        ("refused-arithmetic.jpg", "arithmetic coding"),
        ("refused-lossless.jpg", "SOF type 0xc3"),
        ("refused-bytes-too-many.jpg", "is cut short or damaged"),
        ("refused-float.tif", "floating-point"),
        ("refused-gray-float.tif", "cannot be decoded"),
        ("refused-palette.tif", "RGBPalette"),
        ("refused.avif", "is avif, which is not read: save it as png or jpg"),
        ("refused.jp2", "is jpeg 2000, which is not read: save it as png or jpg"),
    ] {
        let (_, bytes) = all.iter().find(|(known, _)| known == name).unwrap();
        let problem = image::decode(bytes, 3, 1 << 20).unwrap_err();
        assert!(problem.contains(words), "{name} {problem}");
    }
    for (bytes, words) in [
        (&b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"[..], "is heic"),
        (b"\xff\x0a\xfa\x1f", "is jpeg xl"),
        (b"<?xml version=\"1.0\"?>\n<svg xmlns=\"http://www.w3.org/2000/svg\"/>", "is svg"),
        (b"8BPS\0\x01", "is psd"),
        (b"%PDF-1.7", "is pdf"),
        (b"qoif\0\0\0\x01\0\0\0\x01", "is qoi"),
        (b"<!DOCTYPE html><html>", "is a page of html"),
        (b"no picture", "is no jpg, png, webp, bmp, gif, tiff or pnm"),
        (b"", "is empty"),
    ] {
        let problem = image::decode(bytes, 3, 1 << 20).unwrap_err();
        assert!(problem.starts_with(words), "{problem}");
    }
}

/// More scans than any encoder writes cost time, not bytes.
#[test]
fn a_jpeg_of_endless_scans_is_refused() {
    let all = pictures();
    let (_, bytes) = all.iter().find(|(name, _)| name == "s420-progressive.jpg").unwrap();
    let last = bytes.windows(2).rposition(|marker| marker == [0xff, 0xda]).unwrap();
    let mut long = bytes[..last].to_vec();
    for _ in 0..1100 {
        long.extend(&bytes[last..bytes.len() - 2]);
    }
    long.extend([0xff, 0xd9]);
    let problem = image::decode(&long, 3, 1 << 20).unwrap_err();
    assert!(problem.contains("scans, the limit is 1000"), "{problem}");
}
