//! WebDataset archives.

use crate::*;
use std::fs::File;
use tempfile::TempDir;
use tessera_data::{SampleShape, Shuffle};

/// An archive of these members.
fn tar(path: &Path, members: &[(&str, Vec<u8>)]) {
    let mut builder = tar::Builder::new(File::create(path).unwrap());
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        // Past the checks of the builder, which refuses what a bad archive may hold.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        builder.append(&header, bytes.as_slice()).unwrap();
    }
    builder.finish().unwrap();
}

/// Ten samples in two archives: a picture and its class.
fn archives() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for archive in 0..2u8 {
        let mut members = Vec::new();
        for id in 5 * archive..5 * archive + 5 {
            members.push((format!("{id:03}.cls"), format!("{}\n", id % 3).into_bytes()));
            members.push((format!("{id:03}.png"), png(id, 3, 2)));
            members.push((format!("{id:03}.seg.png"), png(100 + id, 3, 2)));
        }
        let members: Vec<(&str, Vec<u8>)> =
            members.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect();
        tar(&folder.path().join(format!("set-{archive}.tar")), &members);
    }
    folder
}

#[test]
fn archives_are_indexed_once_and_read_in_any_order() {
    let folder = archives();
    let data = config(DataKind::Webdataset, folder.path());
    let source = source::open(&data, "train").unwrap();
    assert_eq!((source.num_samples(), source.shape()), (10, SampleShape::image(3, 2, 3)));
    assert!(folder.path().join("set-0.tar.index").exists());
    for id in [7u8, 0, 9, 4] {
        let (at, number) = (u64::from(id), i64::from(id));
        assert_eq!(read(&*source, at, Draw::NONE), picture(id, 3, 2).into_raw());
        assert_eq!(source.label(at).unwrap(), Some(number % 3));
        assert_eq!(source.name(at), format!("{id:03}.png"));
    }
    let segments = DataConfig { member: "seg.png".to_owned(), ..data.clone() };
    let segments = source::open(&segments, "train").unwrap();
    assert_eq!(read(&*segments, 6, Draw::NONE), picture(106, 3, 2).into_raw());
    let pattern = DataConfig { path: folder.path().join("set-{1..1}.tar"), ..data.clone() };
    assert_eq!(source::open(&pattern, "train").unwrap().num_samples(), 5);

    let calls = std::sync::Mutex::new((0, 0));
    let indexed = source::index(folder.path(), &|done, total| {
        let mut calls = calls.lock().unwrap();
        *calls = (calls.0.max(done), total);
    });
    assert_eq!(indexed.unwrap(), (2, 10));
    let (done, total) = *calls.lock().unwrap();
    assert!(done == total && total > 20_000, "{done} of {total}");

    // Two shards of five: in each epoch of the two-level order one after the other.
    let order = DataConfig { shuffle: Shuffle::TwoLevel, shuffle_shards: 1, ..data.clone() };
    let sampler = source.sampler(&order.shuffling(), 3);
    let archives: Vec<u64> = (0..10).map(|at| sampler.sample_at(at).id / 5).collect();
    assert!(
        archives == [0, 0, 0, 0, 0, 1, 1, 1, 1, 1] || archives == [1, 1, 1, 1, 1, 0, 0, 0, 0, 0]
    );
    packs_as_it_is_read(&data);
}

#[test]
fn damaged_archives_are_refused_or_their_samples_named() {
    let folder = archives();
    let data = config(DataKind::Webdataset, folder.path());
    let path = folder.path().join("set-1.tar");
    let whole = fs::read(&path).unwrap();
    let anew = |bytes: &[u8]| {
        let _ = fs::remove_file(folder.path().join("set-1.tar.index"));
        fs::write(&path, bytes).unwrap();
        refused(&data)
    };
    // In the middle of a member, and between the last member and the end mark.
    assert!(anew(&whole[..5000]).contains("set-1.tar is cut short"));
    let end = whole.len() - whole.iter().rev().take_while(|&&byte| byte == 0).count();
    assert!(anew(&whole[..end.next_multiple_of(512)]).contains("is cut short"));
    let mut bad = whole.clone();
    bad[1024] ^= 0x10; // the name of the second member: its header's checksum is wrong
    assert!(anew(&bad).contains("set-1.tar is damaged"));

    for (name, expected) in [
        ("../../etc/x.png", "leads out of its folder"),
        ("/x.png", "leads out of its folder"),
        ("a/../../x.png", "leads out of its folder"),
    ] {
        tar(&path, &[("000.png", png(1, 3, 2)), (name, png(2, 3, 2))]);
        let _ = fs::remove_file(folder.path().join("set-1.tar.index"));
        let message = refused(&data);
        assert!(message.contains(expected) && message.contains(name), "{message}");
    }
    tar(&path, &[("0.png", png(1, 3, 2)), ("0.png", png(2, 3, 2))]);
    assert!(refused(&data).contains("\"0.png\" twice"));
    tar(&path, &[("0.txt", b"x".to_vec())]);
    assert_eq!(source::open(&data, "train").unwrap().num_samples(), 5, "of the other archive");

    // A bit that flips behind an index is found when the sample is read.
    let _ = fs::remove_file(folder.path().join("set-1.tar.index"));
    fs::write(&path, &whole).unwrap();
    let source = source::open(&data, "train").unwrap();
    let at = whole.windows(4).position(|bytes| bytes == b"IDAT").unwrap() + 6;
    let mut flipped = whole.clone();
    flipped[at] ^= 1;
    fs::write(&path, &flipped).unwrap();
    let error = read_error(&*source, 5);
    assert_eq!(error.kind(), DataErrorKind::Corrupt);
    let message = error.to_string();
    assert!(message.contains("sample 005.png of") && message.contains("has crc32"), "{message}");
    // A stale index of an archive of another length is not believed.
    fs::write(&path, &whole[..1024]).unwrap();
    assert!(refused(&data).contains("is cut short"));
    fs::remove_file(&path).unwrap();
    assert!(read_error(&*source, 5).to_string().starts_with("cannot read sample"));
}

#[test]
fn damaged_archives_are_skipped_but_not_all_and_none_that_is_not_there() {
    let folder = archives();
    let skip = |path: &Path| DataConfig {
        on_corrupt: OnCorrupt::Skip,
        ..config(DataKind::Webdataset, path)
    };
    let cut = |name: &str| {
        let path = folder.path().join(name);
        let whole = fs::read(&path).unwrap();
        fs::write(path, &whole[..3000]).unwrap();
    };
    cut("set-0.tar");
    let source = source::open(&skip(folder.path()), "train").unwrap();
    assert_eq!((source.num_samples(), source.name(0)), (5, "005.png".to_owned()));
    let named = refused(&skip(&folder.path().join("set-{0..2}.tar")));
    assert!(named.contains("cannot read") && named.contains("set-2.tar"), "{named}");
    cut("set-1.tar");
    let error = source::open(&skip(folder.path()), "train").err().unwrap();
    assert_eq!(error.kind(), DataErrorKind::Corrupt, "{error}");
    assert!(error.to_string().contains("all 2 are damaged, and the first is "), "{error}");
}

#[test]
fn archives_are_verified_against_what_was_indexed() {
    let folder = archives();
    let check = || verify(folder.path(), &|_, _| {}).unwrap();
    // The first check makes the indices, the second reads against them.
    for _ in 0..2 {
        let report = check();
        assert_eq!((report.num_shards, report.num_samples), (2, 10));
        assert_eq!(report.problems, []);
    }
    let path = folder.path().join("set-1.tar");
    let whole = fs::read(&path).unwrap();
    let at = whole.windows(4).position(|bytes| bytes == b"IDAT").unwrap() + 6;
    let mut flipped = whole.clone();
    flipped[at] ^= 1;
    fs::write(&path, &flipped).unwrap();
    for _ in 0..2 {
        // The index stays what it was: a second check finds the same.
        let messages: Vec<String> =
            check().problems.into_iter().map(|problem| problem.message).collect();
        let file = path.display();
        assert_eq!(
            messages,
            [
                format!("archive {file} has another SHA-256 than when it was indexed"),
                format!("sample 005 of archive {file} is not what was indexed"),
            ]
        );
    }
    fs::write(&path, &whole[..5000]).unwrap();
    let problems = check().problems;
    assert!(problems.len() == 1 && problems[0].message.contains("cut short"), "{problems:?}");
    // One archive by its name, and a folder that holds neither shards nor archives.
    let one = verify(&folder.path().join("set-0.tar"), &|_, _| {}).unwrap();
    assert_eq!((one.num_shards, one.num_samples, one.problems.len()), (1, 5, 0));
    let empty = tempfile::tempdir().unwrap();
    assert!(verify(empty.path(), &|_, _| {}).unwrap_err().to_string().contains("no data set at"));
}
