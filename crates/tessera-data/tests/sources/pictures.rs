//! Pictures of a folder.

use crate::*;
use std::collections::BTreeSet;
use tessera_data::{Crop, ImageConfig, Resize, SampleShape};

#[test]
fn pictures_of_a_folder_are_found_sorted_labelled_and_decoded() {
    let folder = tempfile::tempdir().unwrap();
    let bmp = encoded(&picture(2, 4, 6), ImageFormat::Bmp);
    write(
        folder.path(),
        &[
            ("b/1.png", png(3, 4, 6)),
            ("a/2.PNG", png(1, 4, 6)),
            ("b/0.bmp", bmp),
            ("b/notes.txt", b"no picture".to_vec()),
        ],
    );
    let data = config(DataKind::Folder, folder.path());
    let source = source::open(&data, "train").unwrap();
    assert_eq!((source.num_samples(), source.shape()), (3, SampleShape::image(3, 6, 4)));
    for (id, (name, number, label)) in
        (0..).zip([("a/2.PNG", 1, 0), ("b/0.bmp", 2, 1), ("b/1.png", 3, 1)])
    {
        assert_eq!(source.name(id), name);
        assert_eq!(source.label(id).unwrap(), Some(label));
        assert_eq!(read(&*source, id, Draw::NONE), picture(number, 4, 6).into_raw());
    }
    packs_as_it_is_read(&data);
}

#[test]
fn pictures_are_cut_resized_mirrored_and_made_gray() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &[("0.png", png(9, 11, 7))]);
    let open = |image: ImageConfig| {
        let data = DataConfig { image, ..config(DataKind::Folder, folder.path()) };
        source::open(&data, "train").unwrap()
    };
    let size = ImageConfig { height: 3, width: 5, ..ImageConfig::default() };
    // By hand: in the middle of 11 x 7, 5 x 3 pixels begin at (3, 2).
    let cut = open(ImageConfig { resize: Resize::None, ..size.clone() });
    let pixels = |left: u8, top: u8| -> Vec<u8> {
        (0..3).flat_map(|y| (0..5).flat_map(move |x| [left + x, top + y, 9])).collect()
    };
    assert_eq!(read(&*cut, 0, Draw::NONE), pixels(3, 2));

    // At random: a cut that is there, the same for the same draw, several over epochs.
    let random = ImageConfig { resize: Resize::None, crop: Crop::Random, ..size.clone() };
    let source = open(random.clone());
    let mut seen = BTreeSet::new();
    for epoch in 0..200 {
        let sample = read(&*source, 0, Draw::new(1, epoch, 0));
        assert_eq!(sample, pixels(sample[0], sample[1]));
        assert_eq!(sample, read(&*source, 0, Draw::new(1, epoch, 0)));
        seen.insert((sample[0], sample[1]));
    }
    // 7 x 5 places; that one of them is missed 200 times has a chance of 35 (34/35)^200 = 0.1.
    assert!(seen.len() >= 34, "{seen:?}");

    let flipped = open(ImageConfig { flip: true, ..random });
    let mirrored = (0..64)
        .map(|epoch| read(&*flipped, 0, Draw::new(1, epoch, 0)))
        .filter(|sample| sample[0] > sample[3])
        .count();
    assert!((16..=48).contains(&mirrored), "{mirrored} of 64");

    // By hand: stretched to one pixel, the mean of columns 0 to 10 and of rows 0 to 6, weighted by
    // a triangle around the middle, is that of the middle.
    let one = ImageConfig { height: 1, width: 1, resize: Resize::Stretch, ..size.clone() };
    assert_eq!(read(&*open(one), 0, Draw::NONE), [5, 3, 9]);
    let gray = ImageConfig { channels: 1, height: 7, width: 11, ..size.clone() };
    let gray = read(&*open(gray), 0, Draw::NONE);
    // Rec. 709: (0.2126 * 10 + 0.7152 * 6 + 0.0722 * 9) = 7.07.
    assert_eq!(gray[10 + 6 * 11], 7);

    // Tiles: two side by side and two rows; the rest is not used.
    let tiles = open(ImageConfig { tiles: true, ..size });
    assert_eq!(tiles.num_samples(), 4);
    assert_eq!(read(&*tiles, 1, Draw::NONE), pixels(5, 0));
    assert_eq!(read(&*tiles, 2, Draw::NONE), pixels(0, 3));
    assert_eq!(tiles.name(2), "0.png#2");

    let large = ImageConfig { height: 8, width: 5, resize: Resize::None, ..ImageConfig::default() };
    let message = read_error(&*open(large), 0).to_string();
    assert!(
        message.contains("sample 0.png of") && message.contains("is 11 x 7 pixels"),
        "{message}"
    );
}

#[test]
fn splits_are_said_by_folders_or_held_out_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let files: Vec<(String, Vec<u8>)> =
        (0..40).map(|id| (format!("{id}.png"), png(id, 2, 2))).collect();
    let files: Vec<(&str, Vec<u8>)> =
        files.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect();
    write(folder.path(), &files);
    let data = DataConfig { holdout: 0.25, ..config(DataKind::Folder, folder.path()) };
    let names = |split| -> BTreeSet<String> {
        let source = source::open(&data, split).unwrap();
        (0..source.num_samples()).map(|id| source.name(id)).collect()
    };
    let (train, test) = (names("train"), names("test"));
    assert!(train.is_disjoint(&test) && train.len() + test.len() == 40 && test.len() > 2);
    let none = DataConfig { holdout: 0.0, ..data };
    let error = source::open(&none, "test").err().unwrap();
    assert!(error.to_string().contains("no samples in a split named \"test\""), "{error}");

    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &[("train/0.png", png(0, 2, 2)), ("val/x/1.png", png(1, 2, 2))]);
    let data = config(DataKind::Folder, folder.path());
    assert_eq!(source::open(&data, "train").unwrap().name(0), "train/0.png");
    assert_eq!(source::open(&data, "test").unwrap().name(0), "val/x/1.png");
}

#[test]
fn damaged_pictures_are_named_or_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let whole = png(1, 8, 8);
    // A header that claims more pixels than are allowed: width and height lie at bytes 16 to 24.
    let mut bomb = png(2, 8, 8);
    bomb[16..24].copy_from_slice(&[0, 1, 0, 0, 0, 1, 0, 0]);
    let crc = crc32fast::hash(&bomb[12..29]).to_be_bytes();
    bomb[29..33].copy_from_slice(&crc);
    write(
        folder.path(),
        &[
            ("0.png", whole.clone()),
            ("1.png", whole[..whole.len() / 2].to_vec()),
            ("2.png", bomb),
            ("3.png", b"not a picture".to_vec()),
            ("4.png", vec![]),
        ],
    );
    let data = config(DataKind::Folder, folder.path());
    let source = source::open(&data, "train").unwrap();
    for (id, expected) in [
        (1, "sample 1.png of"),
        (2, "claims 65536 x 65536 pixels, the limit is 134217728"),
        (3, "is no jpg, png, webp, bmp, gif, tiff or pnm"),
        (4, "is empty"),
    ] {
        let error = read_error(&*source, id);
        assert_eq!(error.kind(), DataErrorKind::Corrupt);
        assert!(error.to_string().contains(expected), "{error}");
    }
    let out = folder.path().join("packed");
    let fails = options(data.clone(), &out);
    assert!(pack(&fails, &|_, _| {}).unwrap_err().to_string().contains("sample "));
    assert!(!folder.path().join("packed.partial").exists(), "something was left");
    let skips = PackOptions { on_corrupt: OnCorrupt::Skip, ..fails };
    let manifest = pack(&skips, &|_, _| {}).unwrap();
    assert_eq!(manifest.splits["train"].num_samples, 1);
    assert_eq!(manifest.splits["train"].skipped, ["1.png", "2.png", "3.png", "4.png"]);
}
