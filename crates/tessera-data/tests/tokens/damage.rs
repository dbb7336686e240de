//! What is wrong with a token set is told in one line: damage as such (exit code 6), and what was asked
//! for wrongly as that (2).

use std::os::unix::fs::FileExt;

use tessera_data::{LoadOptions, Loader, OnCorrupt, Order, VerifyMode, eval_plan, verify};

use super::*;

fn refused(config: &DataConfig, kind: DataErrorKind) -> String {
    told(&source::open(config, "train").err().unwrap(), kind)
}

/// Changes the manifest as text.
fn edit_manifest(folder: &Path, from: &str, to: &str) {
    edit(&folder.join("manifest.json"), |bytes| {
        let text = String::from_utf8(bytes.clone()).unwrap();
        assert!(text.contains(from), "{text}");
        *bytes = text.replacen(from, to, 1).into_bytes();
    });
}

fn messages(folder: &Path) -> Vec<String> {
    verify(folder, &|_, _| {})
        .unwrap()
        .problems
        .into_iter()
        .map(|problem| problem.message)
        .collect()
}

#[test]
fn a_whole_set_has_no_problems() {
    let (_folder, path) = written();
    let report = verify(&path, &|_, _| {}).unwrap();
    assert_eq!((report.num_shards, report.num_samples, report.problems), (5, 16, vec![]));
    assert_eq!(report.num_bytes, TokenManifest::read(&path).unwrap().num_bytes());
}

#[test]
fn a_shard_that_is_cut_short_or_missing_is_damage() {
    let (_folder, path) = written();
    let shard = path.join("train-00001.safetensors");
    edit(&shard, |bytes| bytes.truncate(bytes.len() - 1));
    let message = refused(&config(&path), DataErrorKind::Corrupt);
    assert!(message.contains("train-00001.safetensors is cut short: expected "), "{message}");
    assert!(messages(&path)[0].contains("is cut short"));
    edit(&shard, |bytes| bytes.extend([0, 0]));
    assert!(refused(&config(&path), DataErrorKind::Corrupt).contains("bytes, expected "));
    fs::remove_file(&shard).unwrap();
    assert!(refused(&config(&path), DataErrorKind::Corrupt).contains("is missing"));
}

#[test]
fn a_flipped_bit_is_found_at_the_start_or_when_its_sample_is_read() {
    let (_folder, path) = written();
    let shard = path.join("train-00002.safetensors");
    // The last byte is a code of level 0, of the last variant of the last sample.
    edit(&shard, |bytes| *bytes.last_mut().unwrap() ^= 1);
    let message = refused(&config(&path), DataErrorKind::Corrupt);
    assert!(message.contains("train-00002.safetensors is damaged (sha256 "), "{message}");
    let unchecked = DataConfig { verify: VerifyMode::Never, ..config(&path) };
    let source = source::open(&unchecked, "train").unwrap();
    assert_eq!(read(&*source, 10, Draw::NONE).unwrap(), codes(&levels(), 10, 0));
    let flipped =
        (0..64).find_map(|seed| read(&*source, 10, Draw::new(seed, 0, 10)).err()).unwrap();
    let message = told(&flipped, DataErrorKind::Corrupt);
    assert!(message.contains("sample 2 of shard ") && message.contains(" has crc32 "), "{message}");
    let found = messages(&path);
    assert!(
        found[0].contains("is damaged (sha256 ") && found[1].contains("sample 2 of shard"),
        "{found:?}"
    );
    assert_eq!(found.len(), 2);
}

/// Of a set that was made with more codes than its manifest says.
#[test]
fn a_code_that_its_level_does_not_have_is_damage() {
    let (_folder, path) = written();
    edit_manifest(&path, "\"num_codes\": 256", "\"num_codes\": 255");
    let source = open(&path, "train");
    let message = told(&read(&*source, 0, Draw::NONE).unwrap_err(), DataErrorKind::Corrupt);
    assert!(message.contains("sample 0 of shard "), "{message}");
    assert!(message.contains("has code 255 at level 0, which has 255 codes"), "{message}");
    assert!(messages(&path)[0].contains("has code 255 at level 0"));
}

#[test]
fn a_label_of_no_class_is_damage() {
    let (_folder, path) = written();
    edit_manifest(&path, "\"num_classes\": 3", "\"num_classes\": 2");
    edit_manifest(&path, ",\n    \"cow\"", "");
    let message = told(&open(&path, "train").label(2).unwrap_err(), DataErrorKind::Corrupt);
    assert!(message.contains("has label 2, expected one of 2 classes"), "{message}");
}

#[test]
fn a_manifest_that_does_not_fit_is_bad_input() {
    let manifest = |from: &str, to: &str| {
        let (_folder, path) = written();
        edit_manifest(&path, from, to);
        refused(&config(&path), DataErrorKind::BadInput)
    };
    let message = manifest("        2,\n        3\n", "        3,\n        3\n");
    let expected = "\"codes.0\" of U8 [4, 2, 6], the manifest says U8 [4, 2, 9]";
    assert!(message.contains(expected), "{message}");
    let message = manifest("\"num_codes\": 256", "\"num_codes\": 512");
    assert!(message.contains("\"codes.0\" of U8 [4, 2, 6], the manifest says U16"), "{message}");
    let message = manifest("\"version\": 1", "\"version\": 2");
    assert!(
        message.contains("has version 2, this program reads 1: encode the data again"),
        "{message}"
    );
    let message = manifest("tessera-tokens", "something-else");
    assert!(message.contains("has format \"something-else\", not \"tessera-tokens\""), "{message}");
    let message = manifest("\"num_samples\": 11", "\"num_samples\": 12");
    assert!(message.contains("promises 12 samples in split \"train\", but its shards hold 11"));
    let message = manifest("test-00000.safetensors", "../test-00000.safetensors");
    assert!(message.contains("names a shard outside its folder"), "{message}");
    let message = manifest("{", "[");
    assert!(message.contains("is not a manifest"), "{message}");
}

#[test]
fn what_is_no_token_set_is_told_as_what_it_is() {
    let (folder, path) = written();
    let nothing = refused(&config(&folder.path().join("none")), DataErrorKind::BadInput);
    assert!(nothing.starts_with("no token set at "), "{nothing}");
    assert!(nothing.ends_with("make one with `tessera encode`"), "{nothing}");
    let error = source::open(&config(&path), "valid").err().unwrap();
    assert!(told(&error, DataErrorKind::BadInput).ends_with("it has test, train"), "{error}");
    let packed = DataConfig { kind: DataKind::Packed, ..config(&path) };
    let message = refused(&packed, DataErrorKind::BadInput);
    assert_eq!(message, "data.kind is packed, and data.path a token set: set it to \"tokens\"");
    let fixture =
        Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("tests/fixtures/packed-1");
    let message = refused(&config(&fixture), DataErrorKind::BadInput);
    assert!(
        message.contains("has format \"tessera-dataset\", not \"tessera-tokens\""),
        "{message}"
    );
}

/// The samples of a damaged shard are left out where that was asked for; all others keep their places.
#[test]
fn damage_can_be_passed_over() {
    let (_folder, path) = written();
    edit(&path.join("train-00001.safetensors"), |bytes| bytes.truncate(50));
    let skipping = DataConfig { on_corrupt: OnCorrupt::Skip, ..config(&path) };
    let source = source::open(&skipping, "train").unwrap();
    let options = LoadOptions { on_corrupt: OnCorrupt::Skip, ..LoadOptions::default() };
    let plan = eval_plan(NUM_TRAIN, 11, 0, 1);
    let mut loader = Loader::new(Arc::clone(&source), Order::Sequential, plan, options).unwrap();
    let batch = loader.next().unwrap().unwrap();
    assert_eq!((batch.ids, batch.num_skipped), (vec![0, 1, 2, 3, 8, 9, 10], 4));
    for shard in ["train-00000.safetensors", "train-00002.safetensors"] {
        edit(&path.join(shard), |bytes| bytes.truncate(50));
    }
    assert!(refused(&skipping, DataErrorKind::Corrupt).contains("no shard in this split"));
}

#[test]
fn damaged_counts_are_told_when_they_are_asked_for() {
    let (_folder, path) = written();
    let source = open(&path, "train");
    let file = path.join("histograms-train.safetensors");
    let bytes = fs::read(&file).unwrap();
    let at = bytes.len() as u64 - 1;
    let opened = fs::OpenOptions::new().write(true).open(&file).unwrap();
    opened.write_all_at(&[bytes[at as usize] ^ 1], at).unwrap();
    let message = told(&source.histograms().unwrap_err(), DataErrorKind::Corrupt);
    assert!(message.contains("histograms-train.safetensors is damaged (sha256 "), "{message}");
    assert!(messages(&path)[0].contains("histograms-train.safetensors is damaged"));
}
