//! What is damaged is left out wherever it stands; what was asked for and cannot be had is not its
//! fault.

use crate::*;
use tessera_data::{MixturePart, Resize, SampleShape};

/// A wav file of 16 bits, one channel, with so many frames a second.
fn wav(rate: u32, samples: &[i16]) -> Vec<u8> {
    let bytes = 2 * samples.len() as u32;
    let mut wav = b"RIFF".to_vec();
    wav.extend((36 + bytes).to_le_bytes());
    wav.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    wav.extend(rate.to_le_bytes());
    wav.extend((2 * rate).to_le_bytes());
    wav.extend(b"\x02\0\x10\0data");
    wav.extend(bytes.to_le_bytes());
    wav.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
    wav
}

fn skipping(data: DataConfig) -> DataConfig {
    DataConfig { on_corrupt: OnCorrupt::Skip, ..data }
}

/// A pack either way of asking for it: by its option, or by the key.
fn packed_without(data: &DataConfig) -> Vec<Vec<String>> {
    let folder = tempfile::tempdir().unwrap();
    let by_option = PackOptions {
        on_corrupt: OnCorrupt::Skip,
        ..options(data.clone(), &folder.path().join("option"))
    };
    let by_key = options(skipping(data.clone()), &folder.path().join("key"));
    [by_option, by_key]
        .into_iter()
        .map(|options| pack(&options, &|_, _| {}).unwrap().splits["train"].skipped.clone())
        .collect()
}

#[test]
fn the_first_file_that_can_be_read_decides_what_is_left_open() {
    let folder = tempfile::tempdir().unwrap();
    // The header of the second one is whole, and says another size; its pixels are not there.
    let cut = png(1, 20, 10);
    write(
        folder.path(),
        &[
            ("p/0.png", b"bad".to_vec()),
            ("p/1.png", cut[..cut.len() / 2].to_vec()),
            ("p/2.png", png(2, 5, 3)),
            ("p/3.png", png(3, 5, 3)),
            ("s/0.wav", b"bad".to_vec()),
            ("s/1.wav", wav(8000, &[1; 10])),
            ("s/2.wav", wav(16000, &[1; 10])),
        ],
    );
    let data = config(DataKind::Folder, &folder.path().join("p"));
    let error = source::open(&data, "train").err().unwrap();
    assert_eq!(error.kind(), DataErrorKind::Corrupt);
    assert!(error.to_string().contains("sample 0.png of"), "{error}");
    let source = source::open(&skipping(data.clone()), "train").unwrap();
    assert_eq!((source.num_samples(), source.shape()), (4, SampleShape::image(3, 3, 5)));
    assert_eq!(packed_without(&data), [["0.png", "1.png"]; 2]);

    let mut data = config(DataKind::Folder, &folder.path().join("s"));
    data.modality = Modality::Audio;
    data.audio.length = 4;
    let source = source::open(&skipping(data.clone()), "train").unwrap();
    // Three windows of the first, and of ten frames at twice the rate five: two windows.
    assert_eq!((source.num_samples(), source.shape()), (5, SampleShape::audio(1, 4, 8000)));
    assert_eq!(packed_without(&data), [["0.wav"]; 2]);

    // What a mixture does with damaged samples, its parts do.
    let path = folder.path().join("p");
    let part = MixturePart { weight: 1.0, data: config(DataKind::Folder, &path) };
    let data = DataConfig { mixture: vec![part], ..config(DataKind::Mixture, Path::new("")) };
    assert!(source::open(&data, "train").is_err());
    assert_eq!(source::open(&skipping(data), "train").unwrap().num_samples(), 4);
}

#[test]
fn a_data_set_without_anything_that_can_be_read_is_one_error() {
    let folder = tempfile::tempdir().unwrap();
    let files = ["a.png", "b.png", "c.png"].map(|name| (name, b"bad".to_vec()));
    write(folder.path(), &files);
    let data = skipping(config(DataKind::Folder, folder.path()));
    let sized = |tiles: bool| {
        let mut data = data.clone();
        (data.image.height, data.image.width, data.image.tiles) = (2, 2, tiles);
        data
    };
    for data in [data.clone(), sized(true)] {
        let error = source::open(&data, "train").err().unwrap();
        assert_eq!(error.kind(), DataErrorKind::Corrupt, "{error}");
        let message = error.to_string();
        assert!(message.contains("all 3 are damaged, and the first is sample a.png"), "{message}");
        assert!(!message.contains('\n'), "{message}");
    }
    let out = folder.path().join("packed");
    let error = pack(&options(sized(false), &out), &|_, _| {}).unwrap_err();
    assert_eq!(error.kind(), DataErrorKind::Corrupt);
    assert!(error.to_string().contains("all 3 are damaged, the first is a.png"), "{error}");
    assert!(!out.exists() && !folder.path().join("packed.partial").exists());
}

/// With the key's name, before anything is read where no file is needed to know it, and never
/// skipped.
#[test]
fn a_wish_that_cannot_be_met_is_the_fault_of_its_key() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &[("0.png", png(1, 8, 8)), ("1.png", png(1, 6, 6))]);
    let data = skipping(config(DataKind::Folder, folder.path()));
    let refused_with = |change: &dyn Fn(&mut DataConfig)| {
        let mut data = data.clone();
        change(&mut data);
        refused(&data)
    };
    let huge = refused_with(&|data| (data.image.height, data.image.width) = (100_000, 100_000));
    let words = "data.image.height and image.width: such a shape has samples of 30000000000 bytes";
    assert!(huge.starts_with(words), "{huge}");
    let long = refused_with(&|data| data.audio.length = u32::MAX);
    assert!(long.starts_with("data.audio.length is too large"), "{long}");
    let tiles = refused_with(&|data| {
        (data.image.height, data.image.width, data.image.tiles) = (9, 9, true);
    });
    assert!(tiles.starts_with("data.image.height is too large: "), "{tiles}");

    // One picture is large enough and the other is not.
    let mut data = data.clone();
    (data.image.height, data.image.width, data.image.resize) = (7, 7, Resize::None);
    let error = read_error(&*source::open(&data, "train").unwrap(), 1);
    assert_eq!(error.kind(), DataErrorKind::BadInput, "{error}");
    let message = error.to_string();
    assert!(message.starts_with("data.image.resize cannot be met: sample 1.png of"), "{message}");
    assert!(message.ends_with("is 6 x 6 pixels, smaller than 7 x 7: set it to \"cover\""));
    let out = folder.path().join("packed");
    let error = pack(&options(data, &out), &|_, _| {}).unwrap_err();
    assert!(error.to_string().starts_with("data.image.resize cannot be met"), "{error}");
}
