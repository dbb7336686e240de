//! Promises about data in whole runs: every source trains, a damaged sample is one decision of all
//! ranks, and what is counted is counted over all of them.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    errors, flip_bit, packed, root, rows, run, tensors, tessera, train, train_file,
};

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
        // Once, not by each rank: which samples are in which split.
        let told = stderr.matches("held out by their names (data.holdout = 0.25)").count();
        assert_eq!(told, usize::from(name != "packed"), "{stderr}");
        found.push((rows(&run_dir, "metrics.jsonl"), tensors(&run_dir, 12)));
    }
    assert!(found[0].0.iter().all(|row| row["loss"].as_f64().unwrap().is_finite()));
    for (kind, other) in ["webdataset", "packed"].iter().zip(&found[1..]) {
        assert_eq!(found[0].0, other.0, "{kind}");
        assert!(found[0].1 == other.1, "{kind}");
    }
    assert!(Path::new(&folder.path().join("pictures.tar.index")).exists());
}

/// The smoke configuration over two data sets that are drawn, by weights 3 and 1.
const MIXTURE: &str = "\
[data]
kind = 'mixture'
[[data.mixture]]
weight = 3
data = { kind = 'synthetic', synthetic = { height = 16, width = 16, num_train = 24, num_test = 8 } }
[[data.mixture]]
weight = 1.0
[data.mixture.data]
kind = 'synthetic'
synthetic = { height = 16, width = 16, num_train = 40, num_test = 24, seed = 1 }
";

/// A mixture is trained, goes on bit for bit, and is measured as a whole and part by part.
#[test]
fn a_mixture_trains_resumes_and_is_evaluated() {
    let folder = TempDir::new().unwrap();
    let smoke = fs::read_to_string(root().join("configs/smoke.toml")).unwrap();
    let (head, rest) = smoke.split_once("[data]").unwrap();
    let (_, model) = rest.split_once("[model.backbone]").unwrap();
    let file = folder.path().join("mixture.toml");
    fs::write(&file, format!("{head}{MIXTURE}[model.backbone]{model}")).unwrap();
    let settings =
        with(&SHORT, &["train.global_batch=8", "eval.every=12", "data.mixture.1.weight=2"]);
    let whole = folder.path().join("whole");
    let (code, _, stderr) = run(&mut train_file(&file, 2, &whole, &settings));
    assert_eq!(code, Some(0), "{stderr}");
    let text = fs::read_to_string(whole.join("config.toml")).unwrap();
    assert!(text.contains("[[data.mixture]]\nweight = 2.0 # --set\n"), "{text}");

    let parts = folder.path().join("parts");
    let stop = with(&settings, &["train.stop_at=6"]);
    let (code, _, stderr) = run(&mut train_file(&file, 2, &parts, &stop));
    assert_eq!(code, Some(75), "{stderr}");
    let (code, _, stderr) = run(&mut train_file(&file, 2, &parts, &settings));
    assert_eq!(code, Some(0), "{stderr}");
    for name in ["metrics.jsonl", "eval.jsonl"] {
        assert_eq!(rows(&parts, name), rows(&whole, name), "{name}");
    }
    assert!(tensors(&parts, 12) == tensors(&whole, 12));

    let measured = |part: &[&str]| -> Value {
        let (code, stdout, stderr) =
            run(tessera().args(["eval", "--json", "--run"]).arg(&whole).args(part));
        assert_eq!(code, Some(0), "{stderr}");
        serde_json::from_str(&stdout).unwrap()
    };
    let all = measured(&[]);
    let [first, second] = ["0", "1"].map(|part| measured(&["--part", part]));
    let mse = |figures: &Value| figures["mse"].as_f64().unwrap();
    assert_eq!([&all, &first, &second].map(|figures| &figures["samples"]), [32, 8, 24]);
    // Every sample counts once, whatever the weights: 8 and 24 of 32.
    let mean = 0.25 * mse(&first) + 0.75 * mse(&second);
    assert!((mse(&all) - mean).abs() < 1e-12, "{mean}: {all}");
    let in_training = &rows(&whole, "eval.jsonl")[0];
    assert!((mse(&all) - mse(in_training)).abs() < 1e-12, "{in_training}");
    let (code, _, stderr) = run(tessera().args(["eval", "--part", "2", "--run"]).arg(&whole));
    assert_eq!(code, Some(2), "{stderr}");
    assert!(errors(&stderr)[0].contains("--part should be from 0 to 1, found 2"), "{stderr}");
}

/// Nothing held out and no split `test`: the run says so, is trained, and has no evaluations.
#[test]
fn without_a_split_for_the_test_a_run_is_trained_and_not_evaluated() {
    let folder = TempDir::new().unwrap();
    let array = folder.path().join("2026-11-26");
    let mut bytes = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    bytes.extend(
        format!("{:117}\n", "{'descr': '|u1', 'fortran_order': False, 'shape': (9, 16, 16), }")
            .into_bytes(),
    );
    bytes.extend((0..9 * 256).map(|at| (at * 7 % 251) as u8));
    fs::write(&array, bytes).unwrap();
    let run_dir = folder.path().join("run");
    let start = |more: &[&str]| {
        let mut command = tessera();
        command.args(["train", "--config"]).arg(root().join("configs/smoke.toml"));
        command.arg("--run-dir").arg(&run_dir).current_dir(folder.path());
        let settings = ["data.kind=npy", "data.path=2026-11-26", "train.steps=2", "eval.every=1"];
        for setting in settings.iter().chain(more) {
            command.args(["--set", setting]);
        }
        run(&mut command)
    };
    let (code, _, stderr) = start(&["data.holdout=0", "checkpoint.keep_best=1"]);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(errors(&stderr)[0].contains("checkpoint.keep_best is 1, but there is no split test"));
    let (code, _, stderr) = start(&["data.holdout=0", "metrics.images_every=2"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("nothing is evaluated"), "{stderr}");
    assert!(rows(&run_dir, "eval.jsonl").is_empty());
    assert!(run_dir.join("reconstructions/step-2.png").is_file());
    let (code, _, stderr) =
        run(tessera().args(["eval", "--run"]).arg(&run_dir).current_dir(folder.path()));
    assert_eq!(code, Some(2), "{stderr}");
    assert!(errors(&stderr)[0].contains("there is nothing to evaluate on"), "{stderr}");
}

/// A part of the data: the same samples on one rank as on two, and other data to a checkpoint.
#[test]
fn a_fraction_is_trained_alike_on_every_world_and_never_changes_on_a_resume() {
    let folder = TempDir::new().unwrap();
    let set = packed(folder.path());
    let path = format!("data.path={}", set.display());
    let common = with(&SHORT, &["data.kind=packed", &path, "train.global_batch=8"]);
    let halves = with(&common, &["data.fraction=0.5"]);
    let mut found = Vec::new();
    for nproc in [1, 2] {
        let run_dir = folder.path().join(format!("half-{nproc}"));
        let (code, _, stderr) = run(&mut train(nproc, &run_dir, &halves));
        assert_eq!(code, Some(0), "{stderr}");
        let told = "8 of 16 samples of train are used (data.fraction = 0.5)";
        assert_eq!(stderr.matches(told).count(), 1, "{stderr}");
        found.push(rows(&run_dir, "metrics.jsonl"));
    }
    for (one, two) in found[0].iter().zip(&found[1]) {
        let (a, b) = (one["loss"].as_f64().unwrap(), two["loss"].as_f64().unwrap());
        assert!((a - b).abs() < 1e-9 * a.abs(), "{a} and {b}");
    }
    let more = with(&common, &["data.fraction=0.75", "train.steps=14"]);
    let (code, _, stderr) = run(&mut train(2, &folder.path().join("half-2"), &more));
    assert_eq!(code, Some(2), "{stderr}");
    assert!(errors(&stderr)[0].contains("not the one that the checkpoint"), "{stderr}");
    let none = with(&common, &["data.fraction=0.001"]);
    let (code, _, stderr) = run(&mut train(1, &folder.path().join("none"), &none));
    assert_eq!(code, Some(2), "{stderr}");
    assert!(errors(&stderr)[0].contains("leaves none of 16 samples"), "{stderr}");
}

/// What a person sees of labels: how many samples each class has, and which picture is of which.
#[test]
fn classes_are_counted_and_told_beside_the_pictures() {
    let folder = TempDir::new().unwrap();
    for (name, value) in [("cat/0", 10u8), ("cat/1", 60), ("tiger/2", 200), ("tiger/3", 250)] {
        let path = folder.path().join(format!("in/{name}.pgm"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, [b"P5 4 4 255\n".to_vec(), vec![value; 16]].concat()).unwrap();
    }
    let out = folder.path().join("out");
    let mut pack = tessera();
    pack.args(["data", "pack", "--format", "folder", "--input"]).arg(folder.path().join("in"));
    pack.arg("--out").arg(&out).args(["--set", "holdout=0"]);
    let (code, _, stderr) = run(&mut pack);
    assert_eq!(code, Some(0), "{stderr}");
    let (code, stdout, stderr) = run(tessera().args(["data", "inspect"]).arg(&out));
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("with labels of 2 classes\n"), "{stdout}");
    assert!(stdout.contains("  train has    2 of cat, 2 of tiger\n"), "{stdout}");
    let sheet = folder.path().join("sheet.png");
    let (code, stdout, stderr) =
        run(tessera().args(["data", "preview", "--out"]).arg(&sheet).arg(&out));
    assert_eq!(code, Some(0), "{stderr}");
    let (_, classes) = stdout.split_once("their classes, row by row:\n").unwrap();
    let told: Vec<&str> = classes.split_whitespace().collect();
    // Two rows of two pictures of 4 x 4, with 2 pixels between; tigers are the bright ones.
    let drawn = image::load_from_memory(&fs::read(&sheet).unwrap()).unwrap().into_luma8();
    let corners = [(2, 2), (8, 2), (2, 8), (8, 8)];
    let seen = corners.map(|(x, y)| if drawn.get_pixel(x, y).0[0] > 100 { "tiger" } else { "cat" });
    assert_eq!(told, seen, "{stdout}");
    assert_eq!(classes.lines().count(), 2);
}

/// A token set is described and checked by the commands of any data set; damage ends a run with 6, and
/// a network of pictures refuses tokens.
#[test]
fn a_token_set_is_described_checked_and_refused_where_pictures_are_needed() {
    let folder = TempDir::new().unwrap();
    let set = folder.path().join("tokens");
    fs::create_dir(&set).unwrap();
    for entry in fs::read_dir(root().join("crates/tessera-data/tests/fixtures/tokens-1")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), set.join(entry.file_name())).unwrap();
    }
    let (code, stdout, stderr) = run(tessera().args(["data", "inspect"]).arg(&set));
    assert_eq!(code, Some(0), "{stderr}");
    for line in [
        "  tokens       8 a sample, on 2 levels\n",
        "  level 1      2 x 2 of 300 codes\n",
        "  variants     2: plain, flip\n",
        "  train        11 samples in 2 shards, ",
        "10 with labels of 3 classes\n",
        "  baselines    uniform 5.6245, unigram ",
    ] {
        assert!(stdout.contains(line), "{line} is not in {stdout}");
    }
    let (code, stdout, stderr) = run(tessera().args(["data", "inspect", "--json"]).arg(&set));
    assert_eq!(code, Some(0), "{stderr}");
    let summary: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(summary["levels"][1]["num_codes"], 300);
    let verify = || run(tessera().args(["data", "verify"]).arg(&set));
    let (code, stdout, stderr) = verify();
    assert_eq!(
        (code, stdout.starts_with("whole: 16 samples in 3 shards")),
        (Some(0), true),
        "{stderr}"
    );

    let path = format!("data.path={}", set.display());
    let settings = ["data.kind=tokens", &path, "train.steps=2"];
    let run_dir = folder.path().join("run");
    let (code, _, stderr) = run(&mut train(2, &run_dir, &settings));
    assert_eq!(code, Some(2), "{stderr}");
    assert!(errors(&stderr)[0].contains("these data are tokens"), "{stderr}");
    let shard = set.join("train-00001.safetensors");
    let whole = fs::read(&shard).unwrap();
    fs::write(&shard, &whole[..whole.len() - 1]).unwrap();
    let (code, _, stderr) = run(&mut train(2, &run_dir, &settings));
    assert_eq!(code, Some(6), "{stderr}");
    assert!(errors(&stderr)[0].contains("train-00001.safetensors is cut short"), "{stderr}");
    let (code, stdout, _) = verify();
    assert_eq!((code, stdout.contains("is cut short")), (Some(6), true), "{stdout}");
}
