//! Which samples are in which split, with which labels, and what is told of it.

use crate::*;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::symlink;
use tessera_data::{Grouping, Groups, Manifest, MixturePart, SplitConfig};

/// Names and labels of the samples of a split; none if there is no such split.
fn samples(data: &DataConfig, split: &str) -> Vec<(String, Option<i64>)> {
    match source::open(data, split) {
        Ok(source) => (0..source.num_samples())
            .map(|id| (source.name(id), source.label(id).unwrap()))
            .collect(),
        Err(DataError::NoSplit { .. }) => Vec::new(),
        Err(error) => panic!("{error}"),
    }
}

fn names(data: &DataConfig, split: &str) -> Vec<String> {
    samples(data, split).into_iter().map(|(name, _)| name).collect()
}

fn notes(data: &DataConfig) -> String {
    source::open(data, "train").unwrap().notes().join("\n")
}

/// Pictures of 2 x 2, each with the number of its place in the list.
fn pictures(root: &Path, names: &[&str]) {
    let files: Vec<(&str, Vec<u8>)> =
        (0..).zip(names).map(|(number, name)| (*name, png(number, 2, 2))).collect();
    write(root, &files);
}

#[test]
fn class_folders_that_begin_like_a_split_are_classes() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    pictures(root, &["airfield/0.png", "train_interior/1.png", "valley/2.png"]);
    let data = config(DataKind::Folder, root);
    let found = samples(&data, "train");
    assert_eq!(found.len(), 3);
    assert_eq!(found[2], ("valley/2.png".to_owned(), Some(2)));
    assert!(notes(&data).contains("train_interior beside airfield, valley are no splits"));
    // Sound and film are divided alike.
    write(root, &[("airfield/0.wav", vec![]), ("valley/1.wav", vec![])]);
    let mut sound = data.clone();
    sound.modality = Modality::Audio;
    sound.audio.length = 4;
    sound.audio.sample_rate = 8000;
    sound.on_corrupt = OnCorrupt::Skip;
    let error = source::open(&sound, "train").err().unwrap().to_string();
    assert!(error.contains("all 2 are damaged, and the first is sample airfield/0.wav"), "{error}");

    let asked = |train: &[&str], test: &[&str]| {
        let owned = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
        let split = SplitConfig { train: owned(train), test: owned(test) };
        DataConfig { split, ..data.clone() }
    };
    let valley = asked(&[], &["valley"]);
    assert_eq!(names(&valley, "test"), ["valley/2.png"]);
    assert_eq!(names(&valley, "train").len(), 2);
    let two = asked(&["air*"], &["valley"]);
    assert_eq!(names(&two, "train"), ["airfield/0.png"]);
    let told = notes(&two);
    assert!(
        told.contains("by data.split train is air*, test is valley: 1 file in train"),
        "{told}"
    );
    assert!(told.contains("left out") && told.contains("train_interior/1.png"), "{told}");
    assert!(
        refused(&asked(&["vallee"], &[])).contains("there are airfield, train_interior, valley")
    );
    assert!(refused(&asked(&["[a"], &[])).contains("no name or pattern"));
    let synthetic = DataConfig { kind: DataKind::Synthetic, ..asked(&["a"], &[]) };
    assert!(refused(&synthetic).contains("data.split is for kinds folder, webdataset and npy"));
}

#[test]
fn classes_are_numbered_by_the_names_of_all_splits() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("in");
    let all = ["train/a/0.png", "train/b/1.png", "train/c/2.png", "test/b/3.png", "test/d/4.png"];
    pictures(&root, &all);
    let data = config(DataKind::Folder, &root);
    let labels = |data: &DataConfig, split| -> Vec<Option<i64>> {
        samples(data, split).into_iter().map(|(_, label)| label).collect()
    };
    assert_eq!(labels(&data, "train"), [Some(0), Some(1), Some(2)]);
    assert_eq!(labels(&data, "test"), [Some(1), Some(3)]);

    // The same in a packed set, in one that is packed again, and in the names that it keeps.
    let mut input = data.clone();
    for name in ["first", "second"] {
        let out = folder.path().join(name);
        let manifest = pack(&options(input, &out), &|_, _| {}).unwrap();
        assert_eq!(manifest.classes, ["a", "b", "c", "d"]);
        input = config(DataKind::Packed, &out);
        assert_eq!(labels(&input, "train"), [Some(0), Some(1), Some(2)], "{name}");
        assert_eq!(labels(&input, "test"), [Some(1), Some(3)], "{name}");
    }

    // A file without a class takes the labels from all, and is named; the split is no class.
    pictures(&root, &["train/x.png"]);
    assert_eq!(labels(&data, "test"), [None, None]);
    assert!(notes(&data).contains("no labels: train/x.png is in no folder of a class"));
    let folder = tempfile::tempdir().unwrap();
    pictures(folder.path(), &["train/0.png", "test/1.png"]);
    assert_eq!(labels(&config(DataKind::Folder, folder.path()), "train"), [None]);
}

#[test]
fn classes_of_a_mixture_are_numbered_by_the_names_of_all_parts() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    pictures(root, &["one/train/cat/0.png", "one/train/dog/1.png", "one/test/dog/2.png"]);
    pictures(root, &["two/bird/0.png", "two/dog/1.png"]);
    let part = |name: &str| {
        let data = config(DataKind::Folder, &root.join(name));
        MixturePart { weight: 1.0, data }
    };
    let mixture = |names: &[&str]| DataConfig {
        mixture: names.iter().map(|name| part(name)).collect(),
        ..config(DataKind::Mixture, Path::new(""))
    };
    let data = mixture(&["one", "two"]);
    let train = source::open(&data, "train").unwrap();
    assert_eq!(train.classes(), ["bird", "cat", "dog"]);
    let labels: Vec<_> = (0..4).map(|id| train.label(id).unwrap().unwrap()).collect();
    assert_eq!(labels, [1, 2, 0, 2]);
    // Part two has no test split: that is told, its classes count, and nothing is left out.
    let test = source::open(&data, "test").unwrap();
    assert_eq!((test.num_samples(), test.label(0).unwrap()), (1, Some(2)));
    assert!(test.notes().iter().any(|note| note.contains("part 2 of the mixture: not in")));
    let mut wanted = data.clone();
    wanted.mixture[1].data.holdout = 1e-9;
    let error = source::open(&wanted, "test").err().unwrap().to_string();
    assert!(error.contains("part 2 should have one") && error.contains("holdout"), "{error}");
    assert!(pack(&options(wanted, &root.join("out")), &|_, _| {}).is_err());
    let none = source::open(&mixture(&["two"]), "test").err().unwrap();
    assert!(matches!(none, DataError::NoSplit { .. }), "{none}");
}

#[test]
fn links_are_followed_unless_they_lead_in_a_circle_or_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let (real, root) = (folder.path().join("real"), folder.path().join("set"));
    pictures(&real, &["x/0.png", "x/1.png", "y/2.png"]);
    pictures(&root, &["own/0.png"]);
    symlink(real.join("x"), root.join("linked")).unwrap();
    symlink(real.join("y/2.png"), root.join("own/2.png")).unwrap();
    symlink("/nonexistent/3.png", root.join("own/3.png")).unwrap();
    symlink("self.png", root.join("own/self.png")).unwrap();
    symlink("..", root.join("own/up")).unwrap();
    let data = config(DataKind::Folder, &root);
    let found = samples(&data, "train");
    let expected = [("linked/0.png", 0), ("linked/1.png", 0), ("own/0.png", 1), ("own/2.png", 1)];
    assert_eq!(found, expected.map(|(name, label)| (name.to_owned(), Some(label))));
    let told = notes(&data);
    assert!(told.contains("lead nowhere: the links own/3.png, own/self.png"), "{told}");
    assert!(told.contains("lead back to a folder that they are in: the links own/up"), "{told}");
    let manifest = pack(&options(data, &folder.path().join("out")), &|_, _| {}).unwrap();
    assert!(manifest.source.notes.concat().contains("own/3.png"));
}

#[test]
fn files_are_held_out_by_their_whole_name_and_samples_of_archives_up_to_the_first_dot() {
    let folder = tempfile::tempdir().unwrap();
    let frames: Vec<String> = (0..100).map(|at| format!("frame.{at:04}.png")).collect();
    pictures(folder.path(), &frames.iter().map(String::as_str).collect::<Vec<_>>());
    let data = DataConfig { holdout: 0.5, ..config(DataKind::Folder, folder.path()) };
    let (train, test) = (names(&data, "train").len(), names(&data, "test").len());
    // Five standard deviations of a binomial of 100 and 1/2 are 25.
    assert!(train + test == 100 && (25..=75).contains(&test), "{train} and {test}");
    assert!(notes(&data).contains("no folder is named as a split: "));

    // In an archive they are one sample with many extensions, of which the first is taken.
    let archive = folder.path().join("all.tar");
    let mut builder = tar::Builder::new(fs::File::create(&archive).unwrap());
    for name in ["frame.0000.png", "frame.0001.png"] {
        builder.append_path_with_name(folder.path().join(name), name).unwrap();
    }
    builder.finish().unwrap();
    let mut data = config(DataKind::Webdataset, &archive);
    data.member = "0001.png".to_owned();
    assert_eq!(names(&data, "train"), ["frame.0001.png"]);
}

#[test]
fn archives_are_splits_if_all_are_named_so_or_the_configuration_says_it() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    pictures(root, &["0.png"]);
    let archive = |name: &str, sample: &str| {
        fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
        let mut builder = tar::Builder::new(fs::File::create(root.join(name)).unwrap());
        builder.append_path_with_name(root.join("0.png"), sample).unwrap();
        builder.finish().unwrap();
    };
    archive("train-000.tar", "a.png");
    archive("VAL-000.tar", "b.png");
    archive("test/000.tar", "c.png");
    let data = config(DataKind::Webdataset, root);
    assert_eq!(names(&data, "train"), ["a.png"]);
    assert_eq!(names(&data, "test"), ["b.png", "c.png"]);
    let named = source::open(&data, "train").unwrap().fingerprint();

    archive("valley.tar", "d.png");
    assert_eq!(names(&data, "train").len(), 4);
    let told = notes(&data);
    assert!(
        told.contains("train-000.tar, VAL-000.tar, test beside valley.tar are no splits"),
        "{told}"
    );
    let split = SplitConfig { train: vec![], test: vec!["test".into(), "VAL-*.tar".into()] };
    let data = DataConfig { split, ..data };
    assert_eq!(names(&data, "train"), ["a.png", "d.png"]);
    assert_eq!(names(&data, "test"), ["b.png", "c.png"]);
    assert_ne!(source::open(&data, "train").unwrap().fingerprint(), named);
}

/// Three pictures of 4 x 2, 6 x 2 and 8 x 2 pixels, and tiles of 2 x 2: the last number of a pixel
/// says its picture.
fn tiled(root: &Path) -> DataConfig {
    write(root, &[("0.png", png(0, 4, 2)), ("1.png", png(1, 6, 2)), ("2.png", png(2, 8, 2))]);
    let mut data = config(DataKind::Folder, root);
    (data.image.height, data.image.width, data.image.tiles) = (2, 2, true);
    data
}

/// The pictures in each of three folds' test parts, which must share none.
fn pictures_of_folds(data: &DataConfig) -> Vec<BTreeMap<u8, usize>> {
    let folds = (0..3).map(|fold| {
        let data = DataConfig { folds: 3, fold, ..data.clone() };
        let of = |split| {
            let source = source::open(&data, split).unwrap();
            let mut found = BTreeMap::new();
            for id in 0..source.num_samples() {
                *found.entry(read(&*source, id, Draw::NONE)[2]).or_default() += 1;
            }
            found
        };
        let (train, test): (BTreeMap<u8, usize>, BTreeMap<u8, usize>) = (of("train"), of("test"));
        assert!(train.keys().all(|picture| !test.contains_key(picture)), "{train:?} {test:?}");
        test
    });
    folds.collect()
}

#[test]
fn folds_keep_the_samples_of_a_file_together_also_in_packed_sets() {
    let folder = tempfile::tempdir().unwrap();
    let data = tiled(&folder.path().join("in"));
    let train = source::open(&data, "train").unwrap();
    assert_eq!(train.groups().unwrap(), Groups::Of(vec![0, 0, 2, 2, 2, 5, 5, 5, 5]));
    let folds = pictures_of_folds(&data);
    let all: BTreeMap<u8, usize> = folds.iter().flatten().map(|(&at, &num)| (at, num)).collect();
    assert_eq!(all, BTreeMap::from([(0, 2), (1, 3), (2, 4)]), "each picture whole, in one fold");
    assert_eq!(folds.iter().filter(|fold| fold.len() == 1).count(), 3);

    // Packed in shards of three, so that files go on in the next shard; packed again; and of parts.
    let mixture = DataConfig {
        mixture: vec![MixturePart { weight: 1.0, data: data.clone() }],
        ..config(DataKind::Mixture, Path::new(""))
    };
    let mut input = data.clone();
    for (name, input_of) in [("first", None), ("second", None), ("mixed", Some(mixture))] {
        let out = folder.path().join(name);
        let input_of = input_of.unwrap_or(input);
        let manifest = pack(&options(input_of, &out), &|_, _| {}).unwrap();
        assert_eq!((manifest.version, manifest.groups), (3, Some(Grouping::Recorded)));
        assert_eq!(verify(&out, &|_, _| {}).unwrap().problems, []);
        input = config(DataKind::Packed, &out);
        assert_eq!(pictures_of_folds(&input), folds, "{name}");
    }
    let four = DataConfig { folds: 4, ..input.clone() };
    assert!(refused(&four).contains("at most the 3 files that there are, not 4"));

    // A part of a fold that is packed is again made of whole files.
    let fold = DataConfig { folds: 3, fold: 0, ..data };
    let subset = source::open(&fold, "train").unwrap();
    let Groups::Of(groups) = subset.groups().unwrap() else { panic!("there are groups") };
    let distinct: BTreeSet<u64> = groups.iter().copied().collect();
    assert_eq!((distinct.len(), groups[0]), (2, 0));
    assert_eq!(groups.partition_point(|&group| group == 0) as u64, *groups.last().unwrap());

    // Which samples are of one file is needed from every shard.
    let shard = folder.path().join("mixed/train-00001.safetensors");
    let mut bytes = fs::read(&shard).unwrap();
    let at = bytes.len() - 1;
    bytes[at] ^= 1;
    fs::write(&shard, bytes).unwrap();
    let damaged = DataConfig { folds: 3, on_corrupt: OnCorrupt::Skip, ..input };
    assert!(refused(&damaged).contains("says which samples are of one file and cannot be read"));
}

#[test]
fn tiles_of_a_file_are_held_out_together() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("in");
    for at in 0..20u8 {
        write(&root, &[(&format!("{at}.x.png"), png(at, 4, 2))]);
    }
    let mut data = DataConfig { holdout: 0.5, ..config(DataKind::Folder, &root) };
    (data.image.height, data.image.width, data.image.tiles) = (2, 2, true);
    let out = folder.path().join("out");
    pack(&options(data.clone(), &out), &|_, _| {}).unwrap();
    for data in [data, config(DataKind::Packed, &out)] {
        let pictures = |split| -> Vec<u8> {
            let source = source::open(&data, split).unwrap();
            (0..source.num_samples()).map(|id| read(&*source, id, Draw::NONE)[2]).collect()
        };
        let (train, test) = (pictures("train"), pictures("test"));
        // Five standard deviations of a binomial of 20 and 1/2 are 11; each picture has two tiles.
        assert!(train.len() + test.len() == 40 && !train.is_empty() && !test.is_empty());
        assert!(train.iter().all(|picture| !test.contains(picture)));
    }
}

#[test]
fn a_film_of_pictures_has_the_class_of_its_folder_and_may_lie_right_in_the_root() {
    let folder = tempfile::tempdir().unwrap();
    pictures(folder.path(), &["dogs/film.1/0.png", "dogs/film.1/1.png", "cats/film/0.png"]);
    let mut data = config(DataKind::Folder, folder.path());
    data.modality = Modality::Video;
    (data.video.frames, data.video.height, data.video.width) = (1, 2, 2);
    let found = samples(&data, "train");
    let expected = [("cats/film/#0", 0), ("dogs/film.1/#0", 1), ("dogs/film.1/#1", 1)];
    assert_eq!(found, expected.map(|(name, label)| (name.to_owned(), Some(label))));
    data.path = folder.path().join("dogs/film.1");
    assert_eq!(samples(&data, "train"), [("./#0".into(), None), ("./#1".into(), None)]);
    assert_eq!(read(&*source::open(&data, "train").unwrap(), 1, Draw::NONE)[2], 1);
}

/// Sets as the programs wrote them that knew only this version, of pictures of 4 x 2, two tiles
/// each: `a/0.png`, `a/1.png`, `b/2.png`; the third is what this one writes.
#[test]
fn packed_sets_of_every_version_are_read() {
    let fixtures = Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("tests/fixtures");
    for version in 1..=3u32 {
        let path = fixtures.join(format!("packed-{version}"));
        let data = DataConfig { verify: VerifyMode::Always, ..config(DataKind::Packed, &path) };
        let manifest = Manifest::read(&path).unwrap();
        assert_eq!(manifest.version, version);
        assert_eq!(verify(&path, &|_, _| {}).unwrap().problems, []);
        let source = source::open(&data, "train").unwrap();
        assert_eq!(source.num_samples(), 6);
        for id in 0..6u8 {
            let (left, picture) = (2 * (id % 2), id / 2);
            let expected =
                [left, 0, picture, left + 1, 0, picture, left, 1, picture, left + 1, 1, picture];
            assert_eq!(read(&*source, id.into(), Draw::NONE), expected);
            assert_eq!(source.label(id.into()).unwrap(), Some(i64::from(picture / 2)));
        }
        let fold = DataConfig { folds: 2, ..data.clone() };
        let (train, test) =
            (source::open(&fold, "train").unwrap(), source::open(&fold, "test").unwrap());
        let tiles = |source: &dyn Source| -> Vec<(u8, u8)> {
            let sample = |id| read(source, id, Draw::NONE);
            (0..source.num_samples()).map(|id| (sample(id)[2], sample(id)[0])).collect()
        };
        let word = train.notes().concat().contains("did not note which samples are of one file");
        if version == 3 {
            assert!(!word && source.classes() == ["a", "b"]);
            assert_eq!(source.groups().unwrap(), Groups::Of(vec![0, 0, 2, 2, 4, 4]));
            let pictures = |tiles: Vec<(u8, u8)>| -> BTreeSet<u8> {
                tiles.into_iter().map(|(picture, _)| picture).collect()
            };
            assert!(pictures(tiles(&*train)).is_disjoint(&pictures(tiles(&*test))));
        } else {
            // As ever: by sample, with a word about it.
            assert!(word && source.groups().unwrap() == Groups::Unknown);
            assert_eq!(tiles(&*test), OLD_FOLD);
            assert!(source.notes().is_empty(), "without folds it does not matter");
        }
    }
}

#[test]
fn a_shard_that_lacks_what_the_manifest_says_of_files_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let from =
        Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("tests/fixtures/packed-1");
    for entry in fs::read_dir(&from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    let manifest = folder.path().join("manifest.json");
    let text = fs::read_to_string(&manifest).unwrap();
    let text = text.replace("\"version\": 1,", "\"version\": 3, \"groups\": \"recorded\",");
    fs::write(&manifest, text).unwrap();
    let message = refused(&config(DataKind::Packed, folder.path()));
    assert!(message.contains("has no tensor \"groups\", the manifest says it has"), "{message}");
}

/// What the programs that wrote versions 1 and 2 had in fold 0 of 2: picture and left edge.
const OLD_FOLD: [(u8, u8); 3] = [(1, 0), (1, 2), (2, 2)];

#[test]
fn labels_that_only_some_samples_have_are_left_out_with_a_word() {
    let folder = tempfile::tempdir().unwrap();
    pictures(folder.path(), &["0.png"]);
    let archive = folder.path().join("all.tar");
    let mut builder = tar::Builder::new(fs::File::create(&archive).unwrap());
    fs::write(folder.path().join("cls"), "7").unwrap();
    for (file, name) in [("cls", "a.cls"), ("0.png", "a.png"), ("0.png", "b.png")] {
        builder.append_path_with_name(folder.path().join(file), name).unwrap();
    }
    builder.finish().unwrap();
    let data = config(DataKind::Webdataset, &archive);
    let out = folder.path().join("out");
    let manifest = pack(&options(data, &out), &|_, _| {}).unwrap();
    assert!(!manifest.splits["train"].labels);
    let told = manifest.source.notes.concat();
    assert!(told.contains("no labels in train: 1 of 2 samples have one"), "{told}");
    assert_eq!(samples(&config(DataKind::Packed, &out), "train")[0].1, None);
}
