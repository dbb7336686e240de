//! Promises about data in whole runs: every source trains, a damaged sample is one decision of all
//! ranks, and what is counted is counted over all of them.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{errors, flip_bit, packed, rows, run, tensors, tessera, train};

/// A short run in fp64, a row each step.
const SHORT: [&str; 5] = [
    "train.steps=12",
    "train.precision=fp64",
    "metrics.every=1",
    "checkpoint.every=6",
    "metrics.images_every=0",
];

fn with<'a>(settings: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    settings.iter().chain(more).copied().collect()
}

fn skipped(rows: &[Value]) -> u64 {
    rows.iter().map(|row| row["samples_skipped"].as_u64().unwrap()).sum()
}

/// One flipped bit, not looked for at the start (`faults.rs` has the run that it ends): another
/// sample takes its place, the same one on one rank as on two, and it is counted.
#[test]
fn a_damaged_sample_is_skipped_alike_on_every_world_and_after_a_resume() {
    let folder = TempDir::new().unwrap();
    let set = packed(folder.path());
    flip_bit(&set.join("train-00000.safetensors"), -1);
    let path = format!("data.path={}", set.display());
    let common =
        with(&SHORT, &["data.kind=packed", &path, "data.verify=never", "train.global_batch=8"]);
    let skips = with(&common, &["data.on_corrupt=skip"]);
    let mut found = Vec::new();
    for nproc in [1, 2] {
        let run_dir = folder.path().join(format!("skips-{nproc}"));
        let (code, _, stderr) = run(&mut train(nproc, &run_dir, &skips));
        assert_eq!(code, Some(0), "{stderr}");
        found.push(rows(&run_dir, "metrics.jsonl"));
    }
    assert!(skipped(&found[0]) > 0, "{:?}", found[0]);
    for (one, two) in found[0].iter().zip(&found[1]) {
        assert_eq!(one["samples_skipped"], two["samples_skipped"]);
        let (a, b) = (one["loss"].as_f64().unwrap(), two["loss"].as_f64().unwrap());
        assert!((a - b).abs() < 1e-9 * a.abs(), "{a} and {b}");
    }
    // Stopped and gone on, bit for bit.
    let parts = folder.path().join("parts");
    let (code, _, stderr) = run(&mut train(2, &parts, &with(&skips, &["train.stop_at=6"])));
    assert_eq!(code, Some(75), "{stderr}");
    let (code, _, stderr) = run(&mut train(2, &parts, &skips));
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(rows(&parts, "metrics.jsonl"), found[1]);
    assert_eq!(tensors(&parts, 12), tensors(&folder.path().join("skips-2"), 12));
}

/// A shard that is gone: refused at the start, or all of its samples are skipped.
#[test]
fn a_missing_shard_is_refused_or_skipped() {
    let folder = TempDir::new().unwrap();
    let set = packed(folder.path());
    fs::remove_file(set.join("train-00001.safetensors")).unwrap();
    let path = format!("data.path={}", set.display());
    let common = with(&SHORT, &["data.kind=packed", &path, "train.global_batch=8"]);
    let run_dir = folder.path().join("run");
    let (code, _, stderr) = run(&mut train(2, &run_dir, &common));
    assert_eq!(code, Some(2), "{stderr}");
    assert!(errors(&stderr)[0].contains("train-00001.safetensors is missing"), "{stderr}");
    let skips = with(&common, &["data.on_corrupt=skip"]);
    let (code, _, stderr) = run(&mut train(2, &run_dir, &skips));
    assert_eq!(code, Some(0), "{stderr}");
    // 12 steps of 8 are six epochs of 16 samples, of which a shard has 4; a substitute can be one
    // of those as well.
    assert!(skipped(&rows(&run_dir, "metrics.jsonl")) >= 24);
}

/// Colour pictures in a folder, in archives and packed are the same samples in the same order.
#[test]
fn a_folder_its_archives_and_its_shards_train_alike() {
    let folder = TempDir::new().unwrap();
    let pictures = folder.path().join("pictures");
    fs::create_dir_all(&pictures).unwrap();
    let archive = fs::File::create(folder.path().join("pictures.tar")).unwrap();
    let mut archive = tar::Builder::new(archive);
    for id in 0..24u32 {
        let color =
            |x: u32, y: u32| image::Rgb([(x * 9 + id) as u8, (y * 7) as u8, (id * 5) as u8]);
        let picture = image::RgbImage::from_fn(20, 18, color);
        let name = format!("{id:03}.png");
        picture.save(pictures.join(&name)).unwrap();
        archive.append_path_with_name(pictures.join(&name), &name).unwrap();
    }
    archive.finish().unwrap();
    drop(archive);
    let sized = ["image.height=16", "image.width=16", "holdout=0.25"];
    let mut pack = tessera();
    pack.args(["data", "pack", "--format", "folder", "--input"]).arg(&pictures).arg("--out");
    pack.arg(folder.path().join("packed")).args(["--zstd", "3"]);
    pack.args(sized.iter().flat_map(|key| ["--set", key]));
    let (code, stdout, stderr) = run(&mut pack);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.starts_with("packed "), "{stdout}");

    let mut found = Vec::new();
    let kinds = [("folder", "pictures"), ("webdataset", "pictures.tar"), ("packed", "packed")];
    for (kind, name) in kinds {
        let run_dir = folder.path().join(format!("run-{kind}"));
        let (kind, path) = (
            format!("data.kind={kind}"),
            format!("data.path={}", folder.path().join(name).display()),
        );
        let settings = [
            &kind,
            &path,
            "data.image.height=16",
            "data.image.width=16",
            "train.global_batch=8",
            "data.holdout=0.25",
            "eval.every=12",
            "eval.batch=4",
        ];
        let (code, _, stderr) = run(&mut train(2, &run_dir, &with(&SHORT, &settings)));
        assert_eq!(code, Some(0), "{stderr}");
        found.push((rows(&run_dir, "metrics.jsonl"), tensors(&run_dir, 12)));
    }
    assert!(found[0].0.iter().all(|row| row["loss"].as_f64().unwrap().is_finite()));
    for (kind, other) in ["webdataset", "packed"].iter().zip(&found[1..]) {
        assert_eq!(found[0].0, other.0, "{kind}");
        assert!(found[0].1 == other.1, "{kind}");
    }
    assert!(Path::new(&folder.path().join("pictures.tar.index")).exists());
}
