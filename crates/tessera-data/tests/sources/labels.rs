//! Labels and numbers of classes of every kind of data set, as they are and packed.

use crate::*;
use std::sync::Arc;
use tessera_data::{
    Batch, LoadOptions, Loader, Manifest, MixturePart, Order, Preview, eval_plan, inspect, preview,
};

/// A NumPy array of this type and shape.
fn npy(element: &str, shape: &str, bytes: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{element}', 'fortran_order': False, 'shape': {shape}, }}\n");
    let mut array = b"\x93NUMPY\x01\x00".to_vec();
    array.extend((header.len() as u16).to_le_bytes());
    array.extend(header.as_bytes());
    array.extend(bytes);
    array
}

/// An IDX file of images of 2 x 2, or of labels.
fn idx(num_axes: u8, num: u8, bytes: &[u8]) -> Vec<u8> {
    let mut file = vec![0, 0, 8, num_axes];
    let dims: &[u32] = if num_axes == 3 { &[num as u32, 2, 2] } else { &[num as u32] };
    file.extend(dims.iter().flat_map(|dim| dim.to_be_bytes()));
    file.extend(bytes);
    file
}

/// Labels of a split, and how many classes there are.
fn labels(data: &DataConfig, split: &str) -> (Vec<Option<i64>>, Option<u64>) {
    let source = source::open(data, split).unwrap();
    let labels = (0..source.num_samples()).map(|id| source.label(id).unwrap()).collect();
    let num_classes = source.num_classes().unwrap();
    assert_eq!(source.has_labels(), num_classes.is_some());
    (labels, num_classes)
}

fn some(labels: &[i64]) -> Vec<Option<i64>> {
    labels.iter().copied().map(Some).collect()
}

/// The labels of a data set as it is, and packed, with the number of classes in its manifest.
fn assert_labels(data: &DataConfig, train: &[i64], test: &[i64], num_classes: u64) {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let manifest = pack(&options(data.clone(), &out), &|_, _| {}).unwrap();
    assert_eq!(manifest.noted_classes(), Some(num_classes));
    for data in [data, &config(DataKind::Packed, &out)] {
        assert_eq!(labels(data, "train"), (some(train), Some(num_classes)));
        assert_eq!(labels(data, "test"), (some(test), Some(num_classes)));
    }
    // Counted for a person, and given with every batch.
    let told = inspect(&out).unwrap();
    assert_eq!(told.num_classes, Some(num_classes));
    let count = |class| train.iter().filter(|label| **label == class).count() as u64;
    let counts: Vec<u64> = (0..num_classes as i64).map(count).collect();
    assert_eq!(told.splits["train"].samples_per_class, Some(counts));
    let source = source::open(data, "train").unwrap();
    let plan = eval_plan(train.len() as u64, 2, 0, 1);
    let asked = LoadOptions { labels: true, ..LoadOptions::default() };
    let loader = Loader::new(source, Order::Sequential, plan, asked).unwrap();
    let read: Vec<i64> = loader.flat_map(|batch: Result<Batch, _>| batch.unwrap().labels).collect();
    assert_eq!(read, train);
}

#[test]
fn labels_of_idx_files_are_of_as_many_classes_in_every_split() {
    let folder = tempfile::tempdir().unwrap();
    write(
        folder.path(),
        &[
            ("train-images-idx3-ubyte", idx(3, 3, &[7; 12])),
            ("train-labels-idx1-ubyte", idx(1, 3, &[4, 0, 2])),
            ("t10k-images-idx3-ubyte", idx(3, 2, &[7; 8])),
            ("t10k-labels-idx1-ubyte", idx(1, 2, &[5, 1])),
        ],
    );
    let data = config(DataKind::Idx, folder.path());
    assert_labels(&data, &[4, 0, 2], &[5, 1], 6);
    fs::remove_file(folder.path().join("train-labels-idx1-ubyte")).unwrap();
    assert_eq!(labels(&data, "train"), (vec![None; 3], None));
}

#[test]
fn labels_of_cifar_are_the_fine_ones_and_no_others() {
    let record = |labels: &[u8]| [labels, &[1; 3072]].concat();
    let folder = tempfile::tempdir().unwrap();
    let ten = |label| record(&[label]);
    write(folder.path(), &[("data_batch_1.bin", [3, 9].map(ten).concat())]);
    write(folder.path(), &[("test_batch.bin", ten(0))]);
    let data = config(DataKind::Cifar, folder.path());
    assert_labels(&data, &[3, 9], &[0], 10);
    write(folder.path(), &[("data_batch_1.bin", [3, 10].map(ten).concat())]);
    let error = source::open(&data, "train").unwrap().label(1).unwrap_err();
    assert_eq!(error.kind(), DataErrorKind::Corrupt);
    let expected = "data_batch_1.bin has label 10, expected below 10: repair or remove it";
    assert!(error.to_string().ends_with(expected), "{error}");

    let folder = tempfile::tempdir().unwrap();
    let hundred = |fine| record(&[19, fine]);
    write(folder.path(), &[("train.bin", [99, 20].map(hundred).concat())]);
    write(folder.path(), &[("test.bin", hundred(7))]);
    let data = config(DataKind::Cifar, folder.path());
    assert_eq!(labels(&data, "train"), (some(&[99, 20]), Some(100)));
    assert_eq!(labels(&data, "test"), (some(&[7]), Some(100)));
}

#[test]
fn labels_of_arrays_lie_beside_them() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let images = |num: usize| npy("|u1", &format!("({num}, 2, 2)"), &vec![5; 4 * num]);
    let wide = |labels: &[i64]| -> Vec<u8> {
        let bytes: Vec<u8> = labels.iter().flat_map(|label| label.to_le_bytes()).collect();
        npy("<i8", &format!("({},)", labels.len()), &bytes)
    };
    write(root, &[("train.npy", images(3)), ("train_labels.npy", wide(&[1, 0, 2]))]);
    write(root, &[("test.npy", images(2)), ("test_labels.npy", npy(">u2", "(2,)", &[0, 1, 0, 4]))]);
    let data = config(DataKind::Npy, root);
    assert_labels(&data, &[1, 0, 2], &[1, 4], 5);

    // One array, by its path or its folder, a part of it held out.
    for name in ["labels.npy", "images_labels.npy"] {
        let folder = tempfile::tempdir().unwrap();
        let many: Vec<i64> = (0..40).collect();
        write(folder.path(), &[("images.npy", images(40)), (name, wide(&many))]);
        for path in [folder.path().to_owned(), folder.path().join("images.npy")] {
            let data = DataConfig { holdout: 0.5, ..config(DataKind::Npy, &path) };
            let (train, num_classes) = labels(&data, "train");
            let (test, _) = labels(&data, "test");
            assert_eq!(num_classes, Some(40));
            let mut all: Vec<i64> = train.into_iter().chain(test).flatten().collect();
            all.sort_unstable();
            assert_eq!(all, many, "each sample keeps its label: {name}");
        }
    }

    for (file, expected) in [
        (wide(&[1, 2]), "holds 2 labels for the 3 samples of train.npy: save one for each"),
        (npy("<f4", "(3,)", &[0; 12]), "has elements '<f4', expected integers"),
        (npy("<i8", "(3, 1)", &[0; 24]), "has shape [3, 1], expected [n]"),
        (npy("<i8", "(3,)", &[0; 16]), "is cut short: expected 24 bytes of labels, found 16"),
        (npy("<i8", "(3,)", &[0; 32]), "holds 3 labels in 32 bytes"),
        (b"hello".to_vec(), "is no NumPy array"),
    ] {
        write(root, &[("train_labels.npy", file)]);
        let message = refused(&data);
        assert!(message.contains("train_labels.npy ") && message.contains(expected), "{message}");
    }
    // One that is no class is the error of its sample, and of the pack that reads it.
    write(root, &[("train_labels.npy", wide(&[0, -1, 1]))]);
    let source = source::open(&data, "train").unwrap();
    assert_eq!((source.label(0).unwrap(), source.num_classes().unwrap()), (Some(0), Some(5)));
    let error = source.label(1).unwrap_err();
    assert_eq!(error.kind(), DataErrorKind::Corrupt);
    let expected = "train_labels.npy has label -1, expected 0 or more: repair or remove it";
    assert!(error.to_string().starts_with("sample 1 of "), "{error}");
    assert!(error.to_string().ends_with(expected), "{error}");
    let mut options = options(data, &root.join("out"));
    assert!(pack(&options, &|_, _| {}).unwrap_err().to_string().ends_with(expected));
    options.on_corrupt = OnCorrupt::Skip;
    assert_eq!(pack(&options, &|_, _| {}).unwrap().splits["train"].skipped, ["1"]);
}

/// An archive of pictures; each with the text of its class, if it has one.
fn archive(root: &Path, classes: &[Option<&str>]) -> DataConfig {
    let path = root.join("all.tar");
    let mut builder = tar::Builder::new(fs::File::create(&path).unwrap());
    let mut add = |name: String, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, name, bytes).unwrap();
    };
    for (number, class) in (0..).zip(classes) {
        add(format!("{number}.png"), &png(number, 2, 2));
        class.iter().for_each(|class| add(format!("{number}.cls"), class.as_bytes()));
    }
    builder.finish().unwrap();
    config(DataKind::Webdataset, &path)
}

#[test]
fn labels_of_archives_are_the_numbers_in_their_classes() {
    let folder = tempfile::tempdir().unwrap();
    let data = archive(folder.path(), &[Some("3"), Some("0\n"), Some(" 7 ")]);
    assert_eq!(labels(&data, "train"), (some(&[3, 0, 7]), Some(8)));
    let folder = tempfile::tempdir().unwrap();
    let data = archive(folder.path(), &[Some("3"), Some("-2"), Some("cat"), None]);
    let source = source::open(&data, "train").unwrap();
    assert_eq!(source.num_classes().unwrap(), Some(4));
    assert_eq!(source.label(3).unwrap(), None);
    for (id, expected) in [(1, "has a class (cls) of -2, expected 0 or more"), (2, "is no number")]
    {
        let error = source.label(id).unwrap_err().to_string();
        assert!(error.starts_with(&format!("sample {id}.png of ")), "{error}");
        assert!(error.contains(expected), "{error}");
    }
    // Who needs labels goes without what has none, or ends there, with its name.
    let load = |on_corrupt| -> Vec<Result<Batch, DataError>> {
        let options = LoadOptions { labels: true, on_corrupt, ..LoadOptions::default() };
        let plan = eval_plan(4, 1, 0, 1);
        Loader::new(Arc::clone(&source), Order::Sequential, plan, options).unwrap().collect()
    };
    let kept: Vec<i64> =
        load(OnCorrupt::Skip).into_iter().flat_map(|batch| batch.unwrap().labels).collect();
    assert_eq!(kept, [3]);
    let error = load(OnCorrupt::Fail).pop().unwrap().unwrap_err();
    assert!(error.to_string().starts_with("sample 1.png of "), "{error}");
    let folder = tempfile::tempdir().unwrap();
    let data = archive(folder.path(), &[Some("3"), None]);
    let options = LoadOptions { labels: true, ..LoadOptions::default() };
    let source = source::open(&data, "train").unwrap();
    let loader = Loader::new(source, Order::Sequential, eval_plan(2, 1, 0, 1), options).unwrap();
    let error = loader.last().unwrap().map(|batch: Batch| batch.ids).unwrap_err();
    assert!(error.to_string().starts_with("sample 1.png has no label in the data"), "{error}");
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(labels(&archive(folder.path(), &[None]), "train"), (vec![None], None));
}

/// Folders of classes; of a mixture those of all parts; and parts that do not agree.
#[test]
fn classes_of_folders_have_names_and_those_of_a_mixture_must_agree() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let picture = || png(1, 2, 2);
    write(
        root,
        &[
            ("a/train/cat/0.png", picture()),
            ("a/test/dog/1.png", picture()),
            ("b/train/ant/2.png", picture()),
            ("b/test/cat/3.png", picture()),
            ("plain/4.png", picture()),
        ],
    );
    let part = |kind, name: &str| MixturePart { weight: 1.0, data: config(kind, &root.join(name)) };
    let data = config(DataKind::Folder, &root.join("a"));
    assert_labels(&data, &[0], &[1], 2);
    let mixture = |mixture| DataConfig { mixture, ..config(DataKind::Mixture, Path::new("")) };
    let folders = mixture(vec![part(DataKind::Folder, "a"), part(DataKind::Folder, "b")]);
    assert_labels(&folders, &[1, 0], &[2, 1], 3);
    let drawn = preview(
        &*source::open(&folders, "train").unwrap(),
        &[1, 0],
        OnCorrupt::Fail,
        &root.join("x.png"),
    );
    let expected =
        Preview { num_drawn: 2, num_columns: 2, classes: vec!["ant".to_owned(), "cat".to_owned()] };
    assert_eq!(drawn.unwrap(), expected);

    let array = |name: &str, labels: &[u8]| {
        let files = [
            ("images.npy", npy("|u1", "(2, 2, 2, 3)", &[0; 24])),
            ("labels.npy", npy("|u1", "(2,)", labels)),
        ];
        write(&root.join(name), &files);
    };
    array("five", &[4, 1]);
    array("also-five", &[4, 0]);
    array("nine", &[8, 1]);
    let two =
        |first, second| mixture(vec![part(DataKind::Npy, first), part(DataKind::Npy, second)]);
    assert_eq!(labels(&two("five", "also-five"), "train"), (some(&[4, 1, 4, 0]), Some(5)));
    let refused = |data: &DataConfig| {
        let source = source::open(data, "train").unwrap();
        assert!(source.has_labels());
        let error = source.num_classes().unwrap_err();
        assert_eq!(error.kind(), DataErrorKind::BadInput);
        error.to_string()
    };
    let told = refused(&two("five", "nine"));
    assert!(told.contains("part 1 has 5 and part 2 has 9"), "{told}");
    let plain = mixture(vec![part(DataKind::Npy, "five"), part(DataKind::Folder, "plain")]);
    assert!(refused(&plain).contains("with and without labels: part 2 has none"));
    let named = mixture(vec![part(DataKind::Npy, "five"), part(DataKind::Folder, "a")]);
    assert!(refused(&named).contains("part 1 has 5 and part 2 has 2"));

    // A fold has all classes of its data set, whichever it sees.
    let data = DataConfig { folds: 2, ..config(DataKind::Npy, &root.join("nine")) };
    let (train, test) = (labels(&data, "train"), labels(&data, "test"));
    assert_eq!((train.1, test.1), (Some(9), Some(9)));
    let mut both = [train.0, test.0].concat();
    both.sort_unstable();
    assert_eq!(both, some(&[1, 8]));
}

/// A set of an older version does not say how many classes there are: its labels do.
#[test]
fn packed_labels_are_counted_where_the_manifest_does_not_say_their_classes() {
    let folder = tempfile::tempdir().unwrap();
    let from =
        Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("tests/fixtures/packed-1");
    for entry in fs::read_dir(&from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    assert_eq!(Manifest::read(folder.path()).unwrap().noted_classes(), None);
    let data = config(DataKind::Packed, folder.path());
    assert_eq!(labels(&data, "train"), (some(&[0, 0, 0, 0, 1, 1]), Some(2)));
    assert_eq!(inspect(folder.path()).unwrap().num_classes, Some(2));

    // One that says fewer than there are is damaged: each sample beyond is named.
    let manifest = folder.path().join("manifest.json");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replace("\"version\": 1,", "\"version\": 1, \"num_classes\": 1,"))
        .unwrap();
    let source = source::open(&data, "train").unwrap();
    assert_eq!((source.num_classes().unwrap(), source.label(3).unwrap()), (Some(1), Some(0)));
    let error = source.label(4).unwrap_err();
    assert_eq!(error.kind(), DataErrorKind::Corrupt);
    let expected = "has label 1, expected below 1, the classes of the manifest";
    assert!(error.to_string().starts_with("sample 0 of shard "), "{error}");
    assert!(error.to_string().contains(expected), "{error}");
    let problems = verify(folder.path(), &|_, _| {}).unwrap().problems;
    assert!(problems.len() == 2 && problems[0].message.contains(expected), "{problems:?}");
    assert_eq!(inspect(folder.path()).unwrap().splits["train"].samples_per_class, None);
}
