//! bfloat16 is the layers' business: everything that is kept is float32.

use tempfile::TempDir;

use crate::support::{rows, run, tensors, train};

const SHORT: [&str; 4] =
    ["train.steps=6", "metrics.every=1", "checkpoint.every=3", "train.precision=bf16"];

#[test]
fn a_bf16_run_keeps_float32_and_resumes_bit_for_bit() {
    let folder = TempDir::new().unwrap();
    let [whole, parts] = ["whole", "parts"].map(|name| folder.path().join(name));
    let (code, _, stderr) = run(&mut train(2, &whole, &SHORT));
    assert_eq!(code, Some(0), "{stderr}");
    let stopped: Vec<&str> = SHORT.iter().chain(&["train.stop_at=3"]).copied().collect();
    let (code, _, stderr) = run(&mut train(2, &parts, &stopped));
    assert_eq!(code, Some(75), "{stderr}");
    let (code, _, stderr) = run(&mut train(2, &parts, &SHORT));
    assert_eq!(code, Some(0), "{stderr}");
    let kept = tensors(&whole, 6);
    assert!(kept.len() > 10 && kept.values().all(|(kind, ..)| kind != "BF16"), "{:?}", kept.keys());
    assert_eq!(kept, tensors(&parts, 6));
    assert_eq!(rows(&whole, "metrics.jsonl"), rows(&parts, "metrics.jsonl"));
}

/// The first step has the same initial values, so its loss differs by rounding alone; 8 bits of
/// mantissa round to 2^-9 = 0.2 %, and the loss is a mean over many pixels.
#[test]
fn bf16_differs_from_fp32_by_its_rounding_and_either_goes_on_from_the_other() {
    let folder = TempDir::new().unwrap();
    let [half, single] = ["half", "single"].map(|name| folder.path().join(name));
    let (code, _, stderr) = run(&mut train(1, &half, &SHORT));
    assert_eq!(code, Some(0), "{stderr}");
    let (code, _, stderr) = run(&mut train(1, &single, &SHORT[..3]));
    assert_eq!(code, Some(0), "{stderr}");
    let first = |run_dir| rows(run_dir, "metrics.jsonl")[0]["recon_mse"].as_f64().unwrap();
    let off = (first(&half) - first(&single)).abs() / first(&single);
    assert!(off > 0.0 && off < 0.01, "{off}");

    let (code, _, stderr) = run(&mut train(1, &half, &["train.steps=8", "metrics.every=1"]));
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(rows(&half, "metrics.jsonl").len(), 8);
}
