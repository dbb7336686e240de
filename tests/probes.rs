//! Probes: heads trained on labels, from pixels and from what a frozen model makes of them.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{errors, idx, rows, run, tensors, tessera, train};

/// 64 training and 32 test images, 8 by 8, of two classes: a bright upper half is class 0, a bright lower half class 1.
pub(crate) fn write_halves(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    for (name, count) in [("train", 64u8), ("t10k", 32)] {
        let pixel = |image: u8, row: usize| match (usize::from(image % 2) == row / 4, image) {
            (true, _) => 120 + image,
            (false, _) => image,
        };
        let pixels: Vec<u8> =
            (0..count).flat_map(|image| (0..64).map(move |at| pixel(image, at / 8))).collect();
        let labels: Vec<u8> = (0..count).map(|image| image % 2).collect();
        let images = idx(&[u32::from(count), 8, 8], &pixels);
        std::fs::write(folder.join(format!("{name}-images-idx3-ubyte")), images).unwrap();
        std::fs::write(
            folder.join(format!("{name}-labels-idx1-ubyte")),
            idx(&[count.into()], &labels),
        )
        .unwrap();
    }
}

/// Settings of a short training on them.
pub(crate) fn on(folder: &Path) -> Vec<String> {
    [
        "data.kind=idx",
        &format!("data.path={}", folder.display()),
        "train.global_batch=16",
        "train.steps=20",
        "eval.every=20",
        "eval.batch=7",
        "checkpoint.every=0",
        "metrics.images_every=0",
    ]
    .map(str::to_owned)
    .to_vec()
}

pub(crate) fn trained(nproc: usize, run_dir: &Path, settings: &[String]) -> String {
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let (code, _, stderr) = run(&mut train(nproc, run_dir, &settings));
    assert_eq!(code, Some(0), "{stderr}");
    stderr
}

fn data() -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("halves");
    write_halves(&path);
    (folder, path)
}

/// By hand: what is told apart has no entry beside the diagonal, and is counted once on any number of ranks.
#[test]
fn a_probe_finds_classes_from_pixels_from_latents_and_from_codes() {
    let (folder, halves) = data();
    let of = |name: &str| folder.path().join(name);
    trained(2, &of("model"), &on(&halves));
    let from = format!("model.init_from={}", of("model").display());
    for (features, head) in
        [("pixels", "linear"), ("pixels", "conv"), ("latents", "mlp"), ("codes", "linear")]
    {
        let name = format!("{features}-{head}");
        let probe = [
            "task=probe",
            "probe.channels=4",
            "probe.stages=2",
            "train.ema_decay=0.5",
            "optimizer.learning_rate=0.02",
            &format!("probe.features={features}"),
            &format!("probe.head={head}"),
        ];
        let mut settings = on(&halves);
        settings.extend(probe.map(str::to_owned));
        if features != "pixels" {
            settings.push(from.clone());
        }
        let told = trained(2, &of(&name), &settings);
        assert_eq!(told.contains("begun from"), features != "pixels", "{told}");
        let evaluated = &rows(&of(&name), "eval.jsonl")[0];
        assert_eq!(evaluated["samples"], 32);
        if features != "codes" {
            assert_eq!(evaluated["accuracy"], 1.0, "{name}: {evaluated}");
            assert_eq!(evaluated["confusion"], serde_json::json!([[16, 0], [0, 16]]));
        }
        let row = &rows(&of(&name), "metrics.jsonl")[3];
        for figure in ["loss", "cross_entropy", "accuracy", "grad_norm"] {
            assert!(row[figure].is_f64(), "{name}: {figure} in {row}");
        }
        // What it reads is in its checkpoints, untouched, and nothing of it is kept by the optimiser.
        let kept = tensors(&of(&name), 20);
        if features != "pixels" {
            for (tensor, value) in tensors(&of("model"), 20) {
                if tensor.starts_with("encoder.") || tensor.starts_with("quantizer.") {
                    assert_eq!(kept[&tensor], value, "{tensor}");
                }
            }
        }
        assert!(kept.keys().all(|name| !name.starts_with("optimizer.exp_avg.encoder")));

        let mut eval = tessera();
        let (code, table, stderr) = run(eval.args(["eval", "--run"]).arg(of(&name)));
        assert_eq!(code, Some(0), "{stderr}");
        for words in
            ["accuracy", "cross entropy", "calibration error", "a row for each class that is"]
        {
            assert!(table.contains(words), "no '{words}' in {table}");
        }
        let mut eval = tessera();
        let (_, json, _) = run(eval.args(["eval", "--json", "--run"]).arg(of(&name)));
        let json: Value = serde_json::from_str(&json).unwrap();
        // Over one rank and over two: sums of 32 numbers in another order.
        let both = [&json, evaluated].map(|row| row["cross_entropy"].as_f64().unwrap());
        assert!((both[0] - both[1]).abs() < 1e-12, "{both:?}");
    }
    // It goes on without the run that it began from.
    std::fs::remove_dir_all(of("model")).unwrap();
    let mut settings = on(&halves);
    settings.extend(
        ["task=probe", "probe.features=codes", "train.ema_decay=0.5", "probe.channels=4"]
            .map(str::to_owned),
    );
    settings.extend(["probe.stages=2", "optimizer.learning_rate=0.02", &from].map(str::to_owned));
    settings.push("train.steps=24".to_owned());
    trained(1, &of("codes-linear"), &settings);
}

#[test]
fn what_cannot_be_probed_is_refused() {
    let (folder, halves) = data();
    let [plain, probe] = ["plain", "probe"].map(|name| folder.path().join(name));
    crate::support::write_idx(&plain);
    let labels = idx(&[64], &[0; 64]);
    for (data, settings, words) in [
        (&plain, vec![], "task = \"probe\" is trained on labels, and these data have none"),
        (&halves, vec!["probe.features=codes"], "set model.init_from to its run folder"),
        (
            &halves,
            vec!["probe.head=conv", "probe.stages=5"],
            "an axis of 8 can be halved 3 times: lower it",
        ),
        (
            &halves,
            vec!["probe.label_smoothing=1"],
            "probe.label_smoothing should be at least 0 and below 1",
        ),
        (&halves, vec!["optimizer.groups.encoder.frozen=true"], "this task trains head alone"),
        (&halves, vec!["checkpoint.keep_best=1"], "set it to \"accuracy\" or \"cross_entropy\""),
        (&halves, vec!["task=probes"], "task should be one of"),
    ] {
        let mut all = on(data);
        all.extend(["task=probe".to_owned()]);
        all.extend(settings.iter().map(|&setting| setting.to_owned()));
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let (code, _, stderr) = run(&mut train(2, &probe, &all));
        assert_eq!(code, Some(2), "{settings:?}: {stderr}");
        assert_eq!(errors(&stderr).len(), 1, "{stderr}");
        assert!(errors(&stderr)[0].contains(words), "{settings:?}: {stderr}");
    }
    std::fs::write(halves.join("train-labels-idx1-ubyte"), labels).unwrap();
    std::fs::write(halves.join("t10k-labels-idx1-ubyte"), idx(&[32], &[0; 32])).unwrap();
    let mut all = on(&halves);
    all.push("task=probe".to_owned());
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let (code, _, stderr) = run(&mut train(1, &probe, &all));
    assert_eq!(code, Some(2), "{stderr}");
    assert!(
        errors(&stderr)[0].contains("needs two classes at least, these data have 1"),
        "{stderr}"
    );
}
