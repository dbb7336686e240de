//! A data set from its published files to its samples, and every way in which it can break.

#![allow(clippy::unwrap_used)] // the lint knows `#[test]` functions, not their helpers

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use flate2::Compression;
use flate2::write::GzEncoder;
use safetensors::{Dtype, SafeTensors};
use tempfile::TempDir;
use tessera_data::{
    DataConfig, DataError, DataErrorKind, DataKind, Draw, Manifest, OnCorrupt, PackOptions,
    VerifyMode, inspect, pack, source, verify,
};

const NUM_TRAIN: u32 = 10;
const NUM_TEST: u32 = 3;

/// IDX bytes by hand: magic, then big-endian lengths, then the elements.
fn idx(dims: &[u32], elements: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, dims.len() as u8];
    for dim in dims {
        bytes.extend(dim.to_be_bytes());
    }
    bytes.extend(elements);
    bytes
}

/// Image `id` of two rows and three columns: 10 id, 10 id + 1, ...
fn image(id: u32) -> Vec<u8> {
    (0..6).map(|pixel| (10 * id + pixel) as u8).collect()
}

fn images(count: u32) -> Vec<u8> {
    idx(&[count, 2, 3], &(0..count).flat_map(image).collect::<Vec<u8>>())
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A folder with an IDX data set in `in/`: plain and gzipped, both spellings, labels for both.
fn published() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let deep = folder.path().join("in/a/b");
    fs::create_dir_all(&deep).unwrap();
    let train_labels: Vec<u8> = (0..NUM_TRAIN as u8).collect();
    let test_labels = [7, 8, 9];
    fs::write(deep.join("train-images-idx3-ubyte.gz"), gzip(&images(NUM_TRAIN))).unwrap();
    fs::write(deep.join("train-labels-idx1-ubyte"), idx(&[NUM_TRAIN], &train_labels)).unwrap();
    fs::write(deep.join("t10k-images.idx3-ubyte"), images(NUM_TEST)).unwrap();
    fs::write(deep.join("t10k-labels.idx1-ubyte.gz"), gzip(&idx(&[NUM_TEST], &test_labels)))
        .unwrap();
    folder
}

fn options(folder: &Path) -> PackOptions {
    let data = DataConfig { kind: DataKind::Idx, path: folder.join("in"), ..DataConfig::default() };
    PackOptions {
        data,
        out: folder.join("out/set"),
        shard_samples: 4,
        zstd_level: None,
        on_corrupt: OnCorrupt::Fail,
    }
}

/// The published data set, packed: train in shards of 4, 4 and 2 samples.
fn packed() -> (TempDir, PathBuf) {
    let folder = published();
    let options = options(folder.path());
    pack(&options, &|_, _| {}).unwrap();
    (folder, options.out)
}

/// The error of packing, after checking that nothing was left behind.
fn pack_error(folder: &TempDir) -> DataError {
    let error = pack(&options(folder.path()), &|_, _| {}).unwrap_err();
    assert_eq!(error.kind(), DataErrorKind::BadInput, "{error}");
    assert!(!error.to_string().contains('\n'), "{error}");
    let out = folder.path().join("out");
    let left = fs::read_dir(&out).map_or(0, |entries| entries.count());
    assert_eq!(left, 0, "something was left in {}", out.display());
    error
}

fn open(path: &Path, split: &str, mode: VerifyMode) -> Result<(), DataError> {
    let config = DataConfig { path: path.to_owned(), verify: mode, ..DataConfig::default() };
    source::open(&config, split).map(|_| ())
}

fn bad_input(result: Result<(), DataError>) -> String {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), DataErrorKind::BadInput, "{error}");
    let message = error.to_string();
    assert!(!message.contains('\n'), "{message}");
    message
}

/// Changes the bytes of one file.
fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

#[test]
fn every_sample_comes_back_as_it_was_published() {
    let (_folder, out) = packed();
    for (split, count) in [("train", NUM_TRAIN), ("test", NUM_TEST)] {
        let config = DataConfig { path: out.clone(), ..DataConfig::default() };
        let source = source::open(&config, split).unwrap();
        assert_eq!(source.num_samples(), u64::from(count));
        let mut sample = vec![0; source.shape().num_bytes()];
        for id in 0..count {
            source.read(u64::from(id), Draw::NONE, &mut sample).unwrap();
            assert_eq!(sample, image(id));
        }
    }
}

#[test]
fn a_shard_is_a_safetensors_file_with_labels_and_checksums() {
    let (_folder, out) = packed();
    let bytes = fs::read(out.join("train-00002.safetensors")).unwrap();
    let shard = SafeTensors::deserialize(&bytes).unwrap();
    let samples = shard.tensor("samples").unwrap();
    assert_eq!((samples.dtype(), samples.shape()), (Dtype::U8, [2, 2, 3, 1].as_slice()));
    assert_eq!(samples.data(), [image(8), image(9)].concat());
    let labels = shard.tensor("labels").unwrap();
    assert_eq!((labels.dtype(), labels.shape()), (Dtype::I64, [2].as_slice()));
    assert_eq!(labels.data(), [8i64.to_le_bytes(), 9i64.to_le_bytes()].concat());
    let crcs = shard.tensor("crc32").unwrap();
    assert_eq!(crcs.dtype(), Dtype::U32);
    assert_eq!(crcs.data()[..4], crc32fast::hash(&image(8)).to_le_bytes());
}

#[test]
fn packing_twice_gives_the_same_bytes_and_reports_progress() {
    let (_first_folder, first) = packed();
    let folder = published();
    let calls = Mutex::new(Vec::new());
    let options = options(folder.path());
    let manifest =
        pack(&options, &|done, total| calls.lock().unwrap().push((done, total))).unwrap();
    let mut calls = calls.into_inner().unwrap();
    calls.sort_unstable();
    assert!(calls.into_iter().eq((1..=13).map(|done| (done, 13))));
    let mut names = vec!["manifest.json".to_owned()];
    names.extend(manifest.splits.values().flat_map(|s| &s.shards).map(|s| s.file.clone()));
    assert_eq!(fs::read_dir(&options.out).unwrap().count(), names.len());
    for name in names {
        let same =
            fs::read(first.join(&name)).unwrap() == fs::read(options.out.join(&name)).unwrap();
        assert!(same, "{name}");
    }
}

#[test]
fn a_whole_data_set_verifies_and_is_described() {
    let (_folder, out) = packed();
    let report = verify(&out, &|_, _| {}).unwrap();
    assert_eq!((report.num_shards, report.num_samples), (4, 13));
    assert_eq!(report.problems, []);
    let summary = inspect(&out).unwrap();
    assert_eq!(summary.num_bytes, report.num_bytes);
    assert_eq!(summary.fingerprint.len(), 64);
    let train = &summary.splits["train"];
    assert_eq!((train.num_samples, train.num_shards, train.labels), (10, 3, true));
    // By hand: 10 id has mean 45 over ten ids, 0..6 has mean 2.5, of 255. The variances of
    // the two add up: 100 * 99 / 12 = 825 and 35 / 12.
    assert!((train.pixel_mean[0] - 47.5 / 255.0).abs() < 1e-12);
    let variance = (825.0 + 35.0 / 12.0) / (255.0 * 255.0);
    assert!((train.pixel_variance[0] - variance).abs() < 1e-12);
}

#[test]
fn a_flipped_bit_is_found_at_the_start_or_when_it_is_read() {
    let (_folder, out) = packed();
    let shard = out.join("train-00001.safetensors");
    // The last byte of the file: sample 3 of the shard, sample 7 of the split.
    edit(&shard, |bytes| *bytes.last_mut().unwrap() ^= 0x10);
    let message = bad_input(open(&out, "train", VerifyMode::Auto));
    assert!(message.contains("train-00001.safetensors is damaged (sha256"), "{message}");
    open(&out, "test", VerifyMode::Always).unwrap();

    let config =
        DataConfig { path: out.clone(), verify: VerifyMode::Never, ..DataConfig::default() };
    let source = source::open(&config, "train").unwrap();
    let mut sample = [0; 6];
    source.read(6, Draw::NONE, &mut sample).unwrap();
    let error = source.read(7, Draw::NONE, &mut sample).unwrap_err();
    assert_eq!(error.kind(), DataErrorKind::Corrupt);
    let message = error.to_string();
    assert!(message.starts_with("sample 3 of shard "), "{message}");
    assert!(message.ends_with(&format!("run `tessera data verify {}`", out.display())));

    let problems = verify(&out, &|_, _| {}).unwrap().problems;
    assert_eq!(problems.len(), 2, "the hash and the sample: {problems:?}");
    assert!(problems.iter().all(|problem| problem.file == shard));
}

#[test]
fn a_shard_of_another_length_is_refused() {
    let (_folder, out) = packed();
    let shard = out.join("test-00000.safetensors");
    let length = fs::metadata(&shard).unwrap().len();
    edit(&shard, |bytes| bytes.push(0));
    assert!(bad_input(open(&out, "test", VerifyMode::Never)).contains("expected"));
    edit(&shard, |bytes| bytes.truncate(bytes.len() - 5));
    let message = bad_input(open(&out, "test", VerifyMode::Never));
    let expected = format!("is cut short: expected {length} bytes, found {}", length - 4);
    assert!(message.contains(&expected), "{message}");
    fs::remove_file(&shard).unwrap();
    assert!(bad_input(open(&out, "test", VerifyMode::Never)).contains("is missing"));
    assert_eq!(verify(&out, &|_, _| {}).unwrap().problems.len(), 1);
}

#[test]
fn a_header_that_disagrees_with_the_manifest_is_refused() {
    let (_folder, out) = packed();
    let shard = out.join("test-00000.safetensors");
    let good = fs::read(&shard).unwrap();
    for (at, byte) in [(0, 0xff), (7, 1), (8, b'x')] {
        let mut bytes = good.clone();
        bytes[at] = byte;
        fs::write(&shard, bytes).unwrap();
        let message = bad_input(open(&out, "test", VerifyMode::Never));
        assert!(message.contains("header"), "{message}");
    }
    let at = good.windows(9).position(|text| text == b"[3,2,3,1]").expect("it is in the header");
    let mut bytes = good;
    bytes[at..at + 9].copy_from_slice(b"[3,3,2,1]");
    fs::write(&shard, bytes).unwrap();
    let message = bad_input(open(&out, "test", VerifyMode::Never));
    assert!(message.contains("[3, 3, 2, 1], the manifest says U8 [3, 2, 3, 1]"), "{message}");
}

#[test]
fn a_missing_data_set_split_or_manifest_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = folder.path().join("nowhere");
    let message = bad_input(open(&nowhere, "train", VerifyMode::Auto));
    assert!(message.starts_with("no data set at "), "{message}");
    assert!(message.contains("`tessera data pack "), "{message}");
    assert!(verify(&nowhere, &|_, _| {}).is_err() && inspect(&nowhere).is_err());

    let (_folder, out) = packed();
    let message = bad_input(open(&out, "valid", VerifyMode::Auto));
    assert!(message.ends_with("it has test, train"), "{message}");
    fs::write(out.join("manifest.json"), "{}").unwrap();
    let message = bad_input(open(&out, "train", VerifyMode::Auto));
    assert!(message.contains("manifest.json is not a manifest"), "{message}");
}

#[test]
fn idx_files_are_found_in_upper_case_with_test_for_t10k_and_through_links() {
    let folder = published();
    let (root, deep) = (folder.path().join("in"), folder.path().join("in/a/b"));
    for (from, to) in [
        ("train-images-idx3-ubyte.gz", "TRAIN-IMAGES-IDX3-UBYTE.GZ"),
        ("t10k-images.idx3-ubyte", "test-images.idx3-ubyte"),
        ("t10k-labels.idx1-ubyte.gz", "Test-labels-idx1-ubyte.gz"),
    ] {
        fs::rename(deep.join(from), deep.join(to)).unwrap();
    }
    // The same folder under another name is no second set.
    std::os::unix::fs::symlink(&deep, root.join("latest")).unwrap();
    let data = DataConfig { kind: DataKind::Idx, path: root.clone(), ..DataConfig::default() };
    let test = source::open(&data, "test").unwrap();
    assert_eq!((test.num_samples(), test.label(1).unwrap()), (u64::from(NUM_TEST), Some(8)));
    assert_eq!(source::open(&data, "train").unwrap().num_samples(), u64::from(NUM_TRAIN));
    fs::write(deep.join("t10k-images-idx3-ubyte"), images(NUM_TEST)).unwrap();
    let error = source::open(&data, "test").err().unwrap().to_string();
    assert!(error.contains("holds t10k-images twice"), "{error}");
}

#[test]
fn an_idx_file_cut_short_is_refused_with_its_lengths() {
    let folder = published();
    let plain = folder.path().join("in/a/b/t10k-images.idx3-ubyte");
    edit(&plain, |bytes| bytes.truncate(20));
    let message = pack_error(&folder).to_string();
    assert!(message.contains("cut short: expected 34 bytes, found 20"), "{message}");
    edit(&plain, |bytes| bytes.truncate(6));
    assert!(matches!(pack_error(&folder), DataError::Truncated { found: 6, .. }));

    let folder = published();
    let gzipped = folder.path().join("in/a/b/train-images-idx3-ubyte.gz");
    // Whole gzip of a file that was cut: 16 bytes of header and 5 images of 10.
    let mut half = images(NUM_TRAIN);
    half.truncate(16 + 5 * 6);
    fs::write(&gzipped, gzip(&half)).unwrap();
    let message = pack_error(&folder).to_string();
    assert!(message.contains("expected 76 bytes after decompression, found 46"), "{message}");
    // Gzip that was cut itself.
    let whole = gzip(&images(NUM_TRAIN));
    fs::write(&gzipped, &whole[..whole.len() / 2]).unwrap();
    assert!(matches!(pack_error(&folder), DataError::Truncated { expected: 76, .. }));
    // Gzip with a wrong checksum.
    let mut flipped = whole;
    let at = flipped.len() - 6;
    flipped[at] ^= 1;
    fs::write(&gzipped, flipped).unwrap();
    assert!(pack_error(&folder).to_string().contains("is damaged gzip"));
}

#[test]
fn other_malformed_idx_files_are_refused() {
    let cases: [(&str, Vec<u8>, &str); 5] = [
        (
            "t10k-images.idx3-ubyte",
            idx(&[3], &[0; 3]),
            "starts with 0x00000801, expected 0x00000803",
        ),
        ("t10k-images.idx3-ubyte", [images(3), vec![0]].concat(), "is longer than its header says"),
        ("t10k-images.idx3-ubyte", idx(&[3, 2, 2], &[0; 12]), "another shape"),
        ("t10k-images.idx3-ubyte", idx(&[0, 2, 3], &[]), "holds no items"),
        ("train-labels-idx1-ubyte", idx(&[9], &[0; 9]), "holds 9 labels for 10 images"),
    ];
    for (name, bytes, expected) in cases {
        let folder = published();
        fs::write(folder.path().join("in/a/b").join(name), bytes).unwrap();
        let message = pack_error(&folder).to_string();
        assert!(message.contains(expected), "{message}");
    }
    let folder = published();
    let huge = idx(&[u32::MAX, u32::MAX, u32::MAX], &[]);
    fs::write(folder.path().join("in/a/b/t10k-images.idx3-ubyte"), huge).unwrap();
    assert!(pack_error(&folder).to_string().contains("claims items of"));
}

#[test]
fn an_input_folder_without_or_with_two_data_sets_is_refused() {
    let folder = published();
    let second = folder.path().join("in/c");
    fs::create_dir_all(&second).unwrap();
    fs::write(second.join("train-images-idx3-ubyte"), images(2)).unwrap();
    assert!(pack_error(&folder).to_string().contains("holds train-images twice"));
    fs::remove_dir_all(folder.path().join("in")).unwrap();
    assert!(pack_error(&folder).to_string().starts_with("cannot read "));
    fs::create_dir(folder.path().join("in")).unwrap();
    assert!(pack_error(&folder).to_string().contains("holds no train-images-idx3-ubyte"));
}

#[test]
fn a_plain_file_goes_before_a_gzipped_one_beside_it_and_labels_are_optional() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("in");
    fs::create_dir(&input).unwrap();
    fs::write(input.join("train-images-idx3-ubyte"), images(2)).unwrap();
    fs::write(input.join("train-images-idx3-ubyte.gz"), "not gzip").unwrap();
    let manifest = pack(&options(folder.path()), &|_, _| {}).unwrap();
    assert_eq!(manifest.source.files, ["train-images-idx3-ubyte"]);
    assert!(!manifest.splits["train"].labels);
    open(&folder.path().join("out/set"), "train", VerifyMode::Always).unwrap();
}

#[test]
fn an_output_folder_in_use_is_refused_and_left_alone() {
    let (folder, out) = packed();
    let before = Manifest::read(&out).unwrap();
    let error = pack(&options(folder.path()), &|_, _| {}).unwrap_err();
    assert!(error.to_string().contains("it is not empty"), "{error}");
    assert_eq!(error.kind(), DataErrorKind::BadInput);
    assert_eq!(Manifest::read(&out).unwrap(), before);

    let refuse = |out: PathBuf, shard_samples, expected: &str| {
        let options = PackOptions { out, shard_samples, ..options(folder.path()) };
        let error = pack(&options, &|_, _| {}).unwrap_err();
        assert_eq!(error.kind(), DataErrorKind::BadInput);
        assert!(error.to_string().contains(expected), "{error}");
    };
    refuse(out.join("manifest.json"), 4, "is a file");
    refuse(out.join("manifest.json/set"), 4, "is a file");
    refuse(PathBuf::from("/proc/set"), 4, "cannot write /proc/");
    refuse(folder.path().join("other"), 0, "at least 1 sample");
    // An empty folder is fine.
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    pack(&PackOptions { out: empty, ..options(folder.path()) }, &|_, _| {}).unwrap();
}

#[test]
fn a_data_set_that_shrinks_in_use_is_corruption() {
    let (_folder, out) = packed();
    let config = DataConfig { path: out.clone(), ..DataConfig::default() };
    let source = source::open(&config, "test").unwrap();
    let shard =
        fs::OpenOptions::new().write(true).open(out.join("test-00000.safetensors")).unwrap();
    shard.set_len(16).unwrap();
    let error = source.read(2, Draw::NONE, &mut [0; 6]).unwrap_err();
    assert_eq!(error.kind(), DataErrorKind::Corrupt);
    assert!(error.to_string().contains("beyond the end"), "{error}");
}
