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
