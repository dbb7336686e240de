//! Trainings that begin from others, with parts that stay as they are, and the average of their weights.

use std::collections::BTreeMap;
use std::path::Path;

use tempfile::TempDir;

use crate::support::{errors, run, tensors, tessera, train};

/// A short run; its folder.
fn trained(settings: &[&str]) -> TempDir {
    let folder = TempDir::new().unwrap();
    let short = ["train.steps=6", "checkpoint.every=0", "eval.every=0", "metrics.images_every=0"];
    let (code, _, stderr) = run(&mut train(1, folder.path(), &[&short, settings].concat()));
    assert_eq!(code, Some(0), "{stderr}");
    folder
}

fn init_from(run: &TempDir) -> String {
    format!("model.init_from={}", run.path().display())
}

/// The tensors of a checkpoint whose names begin so.
fn of(run_dir: &Path, step: u64, start: &str) -> BTreeMap<String, (String, Vec<usize>, Vec<u8>)> {
    let mut all = tensors(run_dir, step);
    all.retain(|name, _| name.starts_with(start));
    all
}

/// The figures of `tessera eval` with these arguments.
fn evaluated(run_dir: &Path, arguments: &[&str]) -> serde_json::Value {
    let mut eval = tessera();
    let (code, stdout, stderr) =
        run(eval.args(["eval", "--json", "--run"]).arg(run_dir).args(arguments));
    assert_eq!(code, Some(0), "{stderr}");
    serde_json::from_str(&stdout).unwrap()
}

/// Two ranks begin from what one has trained, with more codes, losses in balance and an encoder that stays: its bytes do, nothing
/// of it is kept by the optimiser, and the run stops and goes on as any other.
#[test]
fn a_training_begins_from_another_with_more_codes_and_a_frozen_encoder() {
    let first = trained(&[]);
    let folder = TempDir::new().unwrap();
    let from = init_from(&first);
    let settings = [
        &*from,
        "model.quantizer.num_codes=96",
        "optimizer.groups.encoder.frozen=true",
        "optimizer.groups.decoder.learning_rate=0.002",
        "train.ema_decay=0.9",
        "train.steps=8",
        "eval.every=8",
        "loss.balanced=true",
        "loss.absolute=0.5",
    ];
    let stop = [&settings[..], &["train.stop_at=5"]].concat();
    let (code, _, stderr) = run(&mut train(2, folder.path(), &stop));
    assert_eq!(code, Some(75), "{stderr}");
    for words in ["begun from ", "step 6: ", "quantizer.codebook: 64 codes there, 96 here"] {
        assert!(stderr.contains(words), "no '{words}' in {stderr}");
    }
    let (code, _, stderr) = run(&mut train(2, folder.path(), &settings));
    assert_eq!(code, Some(0), "{stderr}");
    assert!(!stderr.contains("begun from"), "a resume begins from nothing else: {stderr}");

    let encoder = of(first.path(), 6, "encoder.");
    assert!(encoder.len() >= 8);
    assert_eq!(of(folder.path(), 8, "encoder."), encoder, "frozen");
    let kept = tensors(folder.path(), 8);
    for prefix in ["optimizer.exp_avg.", "optimizer.exp_avg_sq.", "average."] {
        assert!(kept.keys().any(|name| name.starts_with(&format!("{prefix}decoder."))), "{prefix}");
        assert!(
            !kept.keys().any(|name| name.starts_with(&format!("{prefix}encoder."))),
            "{prefix}"
        );
    }
    assert_ne!(of(folder.path(), 8, "decoder."), of(first.path(), 6, "decoder."), "trained");
    assert_eq!(kept["quantizer.codebook"].1, [96, 8]);

    let rows = crate::support::rows(folder.path(), "metrics.jsonl");
    assert_eq!(
        (&rows[0]["learning_rate"], &rows[0]["learning_rate_decoder"]),
        (&0.001.into(), &0.002.into())
    );
    // What the run has evaluated is the average; either can be asked for. One rank and two differ by rounding.
    let mse = |row: &serde_json::Value| row["mse"].as_f64().unwrap();
    let average = mse(&crate::support::rows(folder.path(), "eval.jsonl")[0]);
    for (arguments, is_same) in
        [(&[][..], true), (&["--weights", "average"], true), (&["--weights", "trained"], false)]
    {
        let off = (mse(&evaluated(folder.path(), arguments)) - average).abs();
        assert_eq!(off < 1e-8, is_same, "{arguments:?}: off by {off}");
    }

    // What begins from it gets the average, and fewer codes; what it takes whole, the first batch does not set anew.
    let third = trained(&[
        &init_from(&folder),
        "model.quantizer.num_codes=16",
        "optimizer.learning_rate=0",
    ]);
    let averages: BTreeMap<_, _> = of(folder.path(), 8, "average.decoder.")
        .into_iter()
        .map(|(name, value)| (name["average.".len()..].to_owned(), value))
        .collect();
    assert_eq!(of(third.path(), 6, "decoder."), averages);
}

/// Nothing before the decoder moves where that alone is trained, codes and counts included; the same for any world.
#[test]
fn a_decoder_is_trained_alone() {
    let first = trained(&[]);
    let from = init_from(&first);
    let frozen = ["optimizer.groups.encoder.frozen=true", "optimizer.groups.quantizer.frozen=true"];
    let settings = [&[&*from], &frozen[..], &["train.steps=5", "eval.every=0"]].concat();
    let folders = [1, 3].map(|nproc| {
        let folder = TempDir::new().unwrap();
        let (code, _, stderr) = run(&mut train(nproc, folder.path(), &settings));
        assert_eq!(code, Some(0), "{stderr}");
        for part in ["encoder.", "quantizer."] {
            assert_eq!(of(folder.path(), 5, part), of(first.path(), 6, part), "{part}");
        }
        folder
    });
    let rows =
        folders.each_ref().map(|folder| crate::support::rows(folder.path(), "metrics.jsonl"));
    assert_eq!(rows[0][0]["quantizer_loss"], 0.0);
    let codes_used = rows.each_ref().map(|rows| &rows[0]["codes_used"]);
    assert_eq!(codes_used[0], codes_used[1]);
}

#[test]
fn what_cannot_begin_a_training_is_refused() {
    let first = trained(&[]);
    let from = init_from(&first);
    let residual = ["model.quantizer.kind=residual", "model.quantizer.quantizer.code_dim=8"];
    for (settings, words) in [
        (
            vec!["model.init_from=/nowhere/at/all"],
            "model.init_from /nowhere/at/all is not there: name a run folder",
        ),
        (
            vec![&*from, "model.backbone.channels=8"],
            "decoder.conv.bias is [16] there and [8] here; set [model] as it is there",
        ),
        ([&[&*from], &residual[..]].concat(), "nothing of its quantizer has a place here"),
        (
            vec![&*from, "model.init_parts=[\"encoders\"]"],
            "model.init_parts should be any of quantizer, encoder, decoder, found \"encoders\"",
        ),
        (vec!["optimizer.groups.middle.frozen=true"], "optimizer.groups.middle"),
        (vec!["optimizer.groups.head.frozen=true"], "optimizer.groups.head is set, but this task"),
        (vec!["train.ema_decay=1"], "train.ema_decay should be from 0 (no average) to below 1"),
        (vec!["train.micro_batch=-1"], "train.micro_batch should be"),
    ] {
        let folder = TempDir::new().unwrap();
        let (code, _, stderr) = run(&mut train(2, folder.path(), &settings));
        assert_eq!(code, Some(2), "{settings:?}: {stderr}");
        assert_eq!(errors(&stderr).len(), 1, "{stderr}");
        assert!(errors(&stderr)[0].contains(words), "{settings:?}: {stderr}");
    }
    // What is not wanted is left.
    let encoder = [&*from, "model.init_parts=[\"encoder\"]"];
    let parts = trained(&[&encoder[..], &residual].concat());
    let codebooks = of(parts.path(), 6, "quantizer.").into_keys();
    assert!(codebooks.filter(|name| name.ends_with(".codebook")).count() > 1);
    let mut eval = tessera();
    let eval = eval.args(["eval", "--weights", "average", "--run"]).arg(first.path());
    let (code, _, stderr) = run(eval);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(errors(&stderr)[0].contains("train with train.ema_decay above 0"), "{stderr}");
}
