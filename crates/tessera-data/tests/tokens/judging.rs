//! Baselines by hand, what a set is told to be, and a set of version 1.

use tessera_data::tokens::{Histograms, baselines, inspect, is_token_set};
use tessera_data::verify;

use super::*;

/// Two codes, two positions, two classes. Trained on two samples of class 0, (0, 1) and (0, 0), and one of
/// class 1, (1, 1); held out is (0, 1) of class 1.
///
/// In all, code 0 came 3 times of 6 and code 1 as often: with one added, 4/8 each. At position 0 the
/// counts are (2, 1), so 0 has 3/5; at position 1 they are (1, 2), so 1 has 3/5. In class 1 they are
/// (0, 1) at both: 0 has 1/3 at position 0, 1 has 2/3 at position 1.
#[test]
fn baselines_are_those_of_tables_with_one_added() {
    let counted = |levels: [u64; 2], positions: [u32; 4], classes: [u32; 8]| Histograms {
        levels: vec![levels.to_vec()],
        positions: Some(vec![positions.to_vec()]),
        classes: Some(vec![classes.to_vec()]),
    };
    let train = counted([3, 3], [2, 1, 1, 2], [2, 0, 1, 1, 0, 1, 0, 1]);
    let held_out = counted([1, 1], [1, 0, 0, 1], [0, 0, 0, 0, 1, 0, 0, 1]);
    let found = baselines(&train, &held_out).unwrap();
    let close = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-12, "{found}");
    close(found.all.uniform, 2f64.ln());
    close(found.all.unigram, 2f64.ln());
    close(found.all.position.unwrap(), -(0.6f64.ln()));
    close(
        found.all.position_and_class.unwrap(),
        -((1.0f64 / 3.0).ln() + (2.0f64 / 3.0).ln()) / 2.0,
    );
    assert_eq!(found.levels, [found.all]);
}

/// A level of four codes beside that of two, each with one position: its codes were 3, 3, 3, and held
/// out are 3 and 0. Code 3 has 4/7 and code 0 has 1/7. Of the other, (1, 2) were counted, and 0 held out
/// twice: 2/5. Costs of all tokens are means over all four.
#[test]
fn levels_count_by_their_codes() {
    let counted = |first: [u64; 2], second: [u64; 4]| Histograms {
        levels: vec![first.to_vec(), second.to_vec()],
        positions: None,
        classes: None,
    };
    let train = counted([1, 2], [0, 0, 0, 3]);
    let found = baselines(&train, &counted([2, 0], [1, 0, 0, 1])).unwrap();
    let close = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-12, "{found}");
    close(found.levels[0].unigram, -(0.4f64.ln()));
    close(found.levels[1].unigram, -((1.0f64 / 7.0).ln() + (4.0f64 / 7.0).ln()) / 2.0);
    close(found.all.unigram, (found.levels[0].unigram + found.levels[1].unigram) / 2.0);
    close(found.all.uniform, (2f64.ln() + 4f64.ln()) / 2.0);
    assert_eq!((found.all.position, found.all.position_and_class), (None, None));
    assert_eq!(baselines(&train, &counted([0, 0], [0, 0, 0, 0])), None, "nothing is held out");
    let other = Histograms { levels: vec![vec![1, 2]], positions: None, classes: None };
    assert_eq!(baselines(&train, &other), None);
    // By hand: shares 1/3 and 2/3 have an entropy of ln 3 - 2/3 ln 2.
    close(train.perplexity(0), 3.0 / 2f64.powf(2.0 / 3.0));
    assert_eq!((train.num_used(1), train.perplexity(1)), (1, 1.0));
}

#[test]
fn a_set_tells_what_it_is() {
    let (_folder, path) = written();
    assert!(is_token_set(&path));
    let summary = inspect(&path).unwrap();
    assert_eq!((summary.num_tokens, summary.levels), (14, levels()));
    assert_eq!(summary.fingerprint, open(&path, "train").fingerprint());
    let train = &summary.splits["train"];
    assert_eq!((train.num_samples, train.num_labels, train.num_shards), (11, 10, 3));
    let [first, ..] = train.levels.as_deref().unwrap() else { panic!("levels") };
    assert!(first.perplexity <= first.num_used as f64 && first.num_used <= 66);
    assert!(summary.baselines.unwrap().uniform > 0.0);
    fs::remove_file(path.join("histograms-test.safetensors")).unwrap();
    let summary = inspect(&path).unwrap();
    assert!(summary.splits["test"].levels.is_none() && summary.baselines.is_none());
    assert!(!is_token_set(Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap())));
}

/// As the first program that wrote token sets made it: it stays readable, and is made alike today.
#[test]
fn a_set_of_version_1_is_read_and_written() {
    let path =
        Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("tests/fixtures/tokens-1");
    assert_eq!(verify(&path, &|_, _| {}).unwrap().problems, []);
    let source = open(&path, "train");
    assert_eq!(source.num_samples(), NUM_TRAIN);
    let small = |num_codes| TokenLevel { num_codes, axes: vec![2, 2] };
    let levels = vec![small(256), small(300)];
    for id in 0..NUM_TRAIN {
        assert_eq!(read(&*source, id, Draw::NONE).unwrap(), codes(&levels, id, 0));
    }
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("set");
    write(&target, &plan_of(levels, &["plain", "flip"], 8));
    assert_eq!(files(&target), files(&path));
}
