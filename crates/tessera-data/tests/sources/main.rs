//! Published files of every kind: read as they are, packed, and broken.

#![allow(clippy::unwrap_used)] // the lint knows `#[test]` functions, not their helpers

mod archives;
mod arrays;
mod containers;
mod ffmpeg;
mod labels;
mod media;
mod native;
mod packing;
mod pictures;
mod skipping;
mod splits;
mod told;
mod volumes;

use std::fs;
use std::io::Cursor;
use std::path::Path;

use image::{ImageFormat, Rgb, RgbImage};
use tessera_data::{
    DataConfig, DataError, DataErrorKind, DataKind, Draw, Groups, Modality, OnCorrupt, PackOptions,
    Source, VerifyMode, pack, source, verify,
};

/// A picture whose pixel (x, y) is (x, y, number).
pub(crate) fn picture(number: u8, width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| Rgb([x as u8, y as u8, number]))
}

pub(crate) fn encoded(picture: &RgbImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

pub(crate) fn png(number: u8, width: u32, height: u32) -> Vec<u8> {
    encoded(&picture(number, width, height), ImageFormat::Png)
}

/// Writes files, making their folders.
pub(crate) fn write(root: &Path, files: &[(&str, Vec<u8>)]) {
    for (name, bytes) in files {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

pub(crate) fn config(kind: DataKind, path: &Path) -> DataConfig {
    DataConfig { kind, path: path.to_owned(), holdout: 0.0, ..DataConfig::default() }
}

pub(crate) fn read(source: &dyn Source, id: u64, draw: Draw) -> Vec<u8> {
    let mut sample = vec![0; source.shape().num_bytes()];
    source.read(id, draw, &mut sample).unwrap();
    sample
}

pub(crate) fn read_error(source: &dyn Source, id: u64) -> DataError {
    let mut sample = vec![0; source.shape().num_bytes()];
    let error = source.read(id, Draw::NONE, &mut sample).unwrap_err();
    assert!(!error.to_string().contains('\n'), "{error}");
    error
}

/// The message of a data set that cannot be opened.
pub(crate) fn refused(config: &DataConfig) -> String {
    let error = source::open(config, "train").err().expect("it cannot be opened");
    assert_eq!(error.kind(), DataErrorKind::BadInput, "{error}");
    assert!(!error.to_string().contains('\n'), "{error}");
    error.to_string()
}

pub(crate) fn options(data: DataConfig, out: &Path) -> PackOptions {
    PackOptions {
        data,
        out: out.to_owned(),
        shard_samples: 3,
        zstd_level: None,
        on_corrupt: OnCorrupt::Fail,
    }
}

/// Packs a source, with and without compression, and checks that each sample comes back.
pub(crate) fn packs_as_it_is_read(data: &DataConfig) {
    let folder = tempfile::tempdir().unwrap();
    let published = source::open(data, "train").unwrap();
    for (name, zstd_level) in [("plain", None), ("compressed", Some(3))] {
        let out = folder.path().join(name);
        let options = PackOptions { zstd_level, ..options(data.clone(), &out) };
        let manifest = pack(&options, &|_, _| {}).unwrap();
        let plain_picture = published.shape().modality == Modality::Image && zstd_level.is_none();
        let version = match published.groups().unwrap() {
            Groups::Single if plain_picture => 1,
            Groups::Single => 2,
            _ => 3,
        };
        assert_eq!(manifest.version, version);
        assert_eq!(verify(&out, &|_, _| {}).unwrap().problems, []);
        let packed = config(DataKind::Packed, &out);
        let packed = DataConfig { verify: VerifyMode::Always, ..packed };
        let packed = source::open(&packed, "train").unwrap();
        assert_eq!(packed.shape(), published.shape());
        assert_eq!(packed.num_samples(), published.num_samples());
        for id in 0..packed.num_samples() {
            let expected = read(&*published, id, Draw::NONE);
            assert_eq!(read(&*packed, id, Draw::NONE), expected, "{name} {id}");
        }
    }
}
