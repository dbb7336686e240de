//! NumPy arrays and CIFAR binaries.

use crate::*;
use tessera_data::SampleShape;

#[test]
fn arrays_and_cifar_binaries_are_read_record_by_record() {
    let folder = tempfile::tempdir().unwrap();
    let npy = |shape: &str, elements: &[u8]| {
        // The format's version 1.0: magic, version, header length, header.
        let header = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}\n");
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(elements);
        bytes
    };
    let path = folder.path().join("images.npy");
    let elements: Vec<u8> = (0..24).collect();
    fs::write(&path, npy("(4, 2, 3)", &elements)).unwrap();
    let data = config(DataKind::Npy, &path);
    let source = source::open(&data, "train").unwrap();
    assert_eq!((source.num_samples(), source.shape()), (4, SampleShape::image(1, 2, 3)));
    assert_eq!(read(&*source, 2, Draw::NONE), elements[12..18]);
    packs_as_it_is_read(&data);
    for (bytes, expected) in [
        (npy("(4, 2, 3)", &elements[..20]), "is cut short"),
        (npy("(4, 6)", &elements), "has shape [4, 6], expected [n, height, width]"),
        (npy("(4, 2, 3)", &elements)[..30].to_vec(), "is no NumPy array"),
        (b"hello".to_vec(), "is no NumPy array"),
        (npy("(4, 2, 3)", &[0; 40]), "holds 4 samples in"),
    ] {
        fs::write(&path, bytes).unwrap();
        let message = refused(&data);
        assert!(message.contains(expected), "{message}");
    }

    let folder = tempfile::tempdir().unwrap();
    let record = |label: u8| {
        let mut record = vec![label];
        record.extend((0..3072u32).map(|at| (at / 1024 * 50 + u32::from(label)) as u8));
        record
    };
    for (name, labels) in [
        ("x/data_batch_1.bin", [1, 2]),
        ("x/data_batch_2.bin", [3, 4]),
        ("x/test_batch.bin", [5, 6]),
    ] {
        write(folder.path(), &[(name, labels.map(record).concat())]);
    }
    let data = config(DataKind::Cifar, folder.path());
    let source = source::open(&data, "train").unwrap();
    assert_eq!((source.num_samples(), source.shape()), (4, SampleShape::image(3, 32, 32)));
    assert_eq!(source.label(2).unwrap(), Some(3));
    assert_eq!(read(&*source, 2, Draw::NONE)[..6], [3, 53, 103, 3, 53, 103]);
    assert_eq!(source::open(&data, "test").unwrap().label(1).unwrap(), Some(6));
    packs_as_it_is_read(&data);
    write(folder.path(), &[("x/data_batch_2.bin", vec![0; 3000])]);
    assert!(refused(&data).contains("no multiple of a record's 3073"));
}

/// CIFAR's names in upper case, a set without its test, two copies, and a second set beside it.
#[test]
fn binaries_of_cifar_are_of_one_set_and_each_is_read_once() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("in");
    let record = |label: u8| [vec![label], vec![label; 3072]].concat();
    write(&root, &[("x/DATA_BATCH_1.BIN", record(1)), ("x/data_batch_2.bin", record(2))]);
    let data = config(DataKind::Cifar, &root);
    assert_eq!(source::open(&data, "train").unwrap().num_samples(), 2);
    let manifest = pack(&options(data.clone(), &folder.path().join("out")), &|_, _| {}).unwrap();
    assert_eq!(manifest.splits.keys().collect::<Vec<_>>(), ["train"]);
    // The same folder under two names is read once; a copy of it is named.
    std::os::unix::fs::symlink(root.join("x"), root.join("latest")).unwrap();
    assert_eq!(source::open(&data, "train").unwrap().num_samples(), 2);
    write(&root, &[("y/data_batch_1.bin", record(1))]);
    assert!(refused(&data).contains("holds data_batch_1.bin twice"));
    fs::remove_dir_all(root.join("y")).unwrap();
    write(&root, &[("z/test.bin", record(1))]);
    assert!(refused(&data).contains("holds CIFAR-10 and CIFAR-100"));
}

#[test]
fn arrays_of_a_folder_are_splits_if_all_are_named_so_or_the_configuration_says_it() {
    let folder = tempfile::tempdir().unwrap();
    let array = |name: &str, value: u8| {
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        let header = "{'descr': '|u1', 'fortran_order': False, 'shape': (1, 2, 2), }\n";
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend([value; 4]);
        write(folder.path(), &[(name, bytes)]);
    };
    let value =
        |data: &DataConfig, split| read(&*source::open(data, split).unwrap(), 0, Draw::NONE)[0];
    let data = config(DataKind::Npy, folder.path());
    array("Train_x.NPY", 1);
    assert_eq!(value(&data, "train"), 1, "one array is all there is");
    array("test.npy", 2);
    assert_eq!((value(&data, "train"), value(&data, "test")), (1, 2));
    array("valley.npy", 3);
    let message = refused(&data);
    assert!(
        message.contains("holds 3 arrays for split \"train\" (Train_x.NPY, test.npy"),
        "{message}"
    );
    let split = tessera_data::SplitConfig {
        train: vec!["valley.npy".to_owned()],
        test: vec!["test.npy".to_owned()],
    };
    let data = DataConfig { split, ..data };
    assert_eq!((value(&data, "train"), value(&data, "test")), (3, 2));
}
