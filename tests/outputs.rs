//! What a run leaves, read by others than those that wrote it: TensorBoard, Python's safetensors,
//! a PNG decoder.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::BufReader;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;
use tessera_control::{ExitCode, RunState, RunStatus};

use crate::support::{
    checkpoints, errors, flip_bit, packed, python, root, rows, run, tensors, tessera, train,
    write_idx,
};

/// The documented keys of a row of `metrics.jsonl`, sorted.
const ROW: [&str; 21] = [
    "bits_per_token",
    "codes_replaced",
    "codes_used",
    "comm_ms",
    "data_wait_ms",
    "epoch",
    "grad_norm",
    "learning_rate",
    "level_codes_used",
    "level_perplexity",
    "loss",
    "memory_mib",
    "perplexity",
    "quantizer_loss",
    "recon_mse",
    "samples_per_second",
    "samples_seen",
    "samples_skipped",
    "step",
    "step_ms",
    "world_size",
];

/// The smoke configuration run to its end on two ranks, with another learning rate.
fn smoke() -> TempDir {
    let folder = TempDir::new().unwrap();
    let (code, stdout, stderr) =
        run(&mut train(2, folder.path(), &["optimizer.learning_rate=0.002"]));
    assert_eq!(code, Some(0), "{stderr}");
    let said = format!("run folder {}\n", folder.path().display());
    assert!(stdout.ends_with(&said), "{stdout}");
    folder
}

/// Every line of a file as JSON.
fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What one run leaves.
#[test]
fn all_that_a_run_leaves_is_as_documented_and_others_read_it() {
    let folder = smoke();
    let run_dir = folder.path();
    the_configuration_reads_back_and_names_its_origins(run_dir);
    rows_and_logs_and_status_are_as_documented(run_dir);
    tensorboard_reads_the_rows_and_the_pictures(run_dir);
    tensorboards_server_shows_histograms_and_hyperparameters(run_dir);
    python_reads_a_checkpoint_and_finds_the_promised_hashes_names_and_shapes(run_dir);
    an_evaluation_is_the_same_on_any_number_of_ranks_and_counts_each_sample_once(run_dir);
}

/// All keys that the worker finds in a configuration file with these settings.
fn resolved(config: &Path, settings: &[&str]) -> Value {
    let worker = Path::new(tessera().get_program()).with_file_name("tessera-worker");
    let mut command = Command::new(worker);
    command.current_dir(root()).args(["resolve", "--config"]).arg(config);
    for setting in settings {
        command.args(["--set", setting]);
    }
    let (code, stdout, stderr) = run(&mut command);
    assert_eq!(code, Some(0), "{stderr}");
    serde_json::from_str::<Value>(&stdout).unwrap()["config"].take()
}

fn the_configuration_reads_back_and_names_its_origins(run_dir: &Path) {
    let file = root().join("configs/smoke.toml");
    let expected = resolved(&file, &["optimizer.learning_rate=0.002", "checkpoint.file_mib=0"]);
    assert_eq!(resolved(&run_dir.join("config.toml"), &[]), expected);

    let text = fs::read_to_string(run_dir.join("config.toml")).unwrap();
    let smoke = fs::read_to_string(file).unwrap();
    let line = 1 + smoke.lines().position(|line| line == "num_codes = 64").unwrap();
    assert!(text.contains(&format!("num_codes = 64 # configs/smoke.toml:{line}\n")), "{text}");
    assert!(text.contains("learning_rate = 0.002 # --set\n"), "{text}");
    assert!(text.contains("decay = 0.99 # default\n"), "{text}");
    for line in text.lines().filter(|line| line.contains(" = ")) {
        assert!(line.contains(" # "), "no origin: {line}");
    }
}

fn rows_and_logs_and_status_are_as_documented(run_dir: &Path) {
    let metrics = lines(&run_dir.join("metrics.jsonl"));
    let steps: Vec<u64> = metrics.iter().map(|row| row["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, [5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55, 60]);
    for row in &metrics {
        let mut keys: Vec<&str> = row.as_object().unwrap().keys().map(String::as_str).collect();
        keys.sort_unstable();
        assert_eq!(keys, ROW);
        let number = |key: &str| row[key].as_f64().unwrap();
        // 32 samples a step, 512 an epoch, the last sample of step s is number 32 s - 1.
        assert_eq!(row["samples_seen"], 32 * row["step"].as_u64().unwrap());
        assert_eq!(row["epoch"], (32 * row["step"].as_u64().unwrap() - 1) / 512);
        assert_eq!(number("loss"), number("recon_mse") + number("quantizer_loss"));
        assert_eq!((row["world_size"].as_u64(), number("learning_rate")), (Some(2), 0.002));
        let used = number("codes_used");
        assert_eq!(row["level_codes_used"], Value::from(vec![row["codes_used"].clone()]));
        assert!((number("bits_per_token") - number("perplexity").log2()).abs() < 1e-9, "{row}");
        assert!(number("perplexity") >= 1.0 && number("perplexity") <= used + 1e-9, "{row}");
        assert!(used <= 64.0 && number("grad_norm") > 0.0 && number("comm_ms") >= 0.0, "{row}");
        let per_second = 32.0 * 1e3 / number("step_ms");
        assert!((number("samples_per_second") - per_second).abs() < 1e-6 * per_second, "{row}");
    }
    let (first, last) = (metrics[0]["loss"].as_f64(), metrics[11]["loss"].as_f64());
    assert!(last < first, "nothing was learned: {first:?} {last:?}");

    let evaluations = lines(&run_dir.join("eval.jsonl"));
    let seen: Vec<_> = evaluations.iter().map(|row| (&row["step"], &row["samples"])).collect();
    assert_eq!(seen, [(&30.into(), &64.into()), (&60.into(), &64.into())]);
    // A sweep has the names of the figures once more, by which it refuses one before any trial.
    let numbers = evaluations[0].as_object().unwrap().iter().filter(|(_, value)| value.is_number());
    let mut names: BTreeSet<&str> = numbers.map(|(name, _)| name.as_str()).collect();
    assert!(names.remove("step") && names.remove("samples"));
    names.insert("parameters");
    // Those of a probe are looked at in `probes.rs`.
    names.extend(["accuracy", "cross_entropy", "calibration_error"]);
    // Pictures of 16 x 16 have one scale; `figures.rs` has what features give.
    names.extend(["ms_ssim", "ms_ssim_2", "ms_ssim_3", "ms_ssim_4", "lpips", "feature_distance"]);
    names.extend(["frechet", "precision", "recall", "density", "coverage"]);
    // Sound alone has these.
    names.extend(["si_sdr", "si_sdr_median", "snr"]);
    names.extend(["mel_distance", "stft_distance", "spectral_convergence"]);
    // And film.
    names.extend(["difference_psnr", "flicker"]);
    assert_eq!(names, BTreeSet::from(tessera_sweep::FIGURES));

    for rank in 0..2 {
        let log = lines(&run_dir.join(format!("logs/rank-{rank}.jsonl")));
        let rows = log.iter().filter(|line| line["message"] == "step done").count();
        assert_eq!(rows, if rank == 0 { 12 } else { 0 }, "all ranks have the same rows");
        assert!(log.iter().all(|line| line["rank"] == rank));
    }
    let status = RunStatus::read(run_dir).unwrap().unwrap();
    assert_eq!((status.state, status.exit_code), (RunState::Done, Some(ExitCode::Done)));
    assert_eq!((status.step, status.world_size), (60, 2));
    assert_eq!(checkpoints(run_dir), [20, 40, 60]);
    let left: Vec<_> = fs::read_dir(run_dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with('.') || name.ends_with(".tmp"))
        .collect();
    assert_eq!(left, [""; 0], "a temporary file is left");
}

fn tensorboard_reads_the_rows_and_the_pictures(run_dir: &Path) {
    let read = python("read_events.py", &run_dir.join("tensorboard"));
    let metrics = lines(&run_dir.join("metrics.jsonl"));
    let evaluations = lines(&run_dir.join("eval.jsonl"));
    let mut compared = 0;
    for (tag, points) in read["scalars"].as_object().unwrap() {
        let (group, key) = tag.split_once('/').unwrap();
        let rows = if group == "eval" { &evaluations } else { &metrics };
        // An event holds float32.
        let expected: Vec<Value> = rows
            .iter()
            .map(|row| {
                let value = row[key].as_f64().unwrap() as f32;
                Value::from(vec![row["step"].clone(), f64::from(value).into()])
            })
            .collect();
        assert_eq!(points.as_array().unwrap(), &expected, "{tag}");
        compared += 1;
    }
    // All single numbers of a row but step, epoch, samples_seen and world_size; seven figures of an
    // evaluation.
    assert_eq!(compared, 15 + 7);

    let config = fs::read_to_string(run_dir.join("config.toml")).unwrap();
    let text: String = config.lines().map(|line| format!("    {line}\n")).collect();
    assert_eq!(read["config"], text.as_str());
    let group = run_dir.file_name().unwrap().to_str().unwrap();
    let values = &read["hparams"]["values"];
    assert_eq!((&read["hparams"]["group"], &values["train.steps"]), (&group.into(), &60.0.into()));
    assert!(values.get("optimizer.epsilon").is_none(), "nobody has set it: {values}");

    let pictures = read["images"]["reconstructions"].as_array().unwrap();
    assert_eq!(pictures.len(), 2);
    for (picture, step) in pictures.iter().zip([30, 60]) {
        let path = run_dir.join(format!("reconstructions/step-{step}.png"));
        let bytes = fs::read(&path).unwrap();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!((&picture["step"], &picture["png"]), (&step.into(), &hex.into()));
        // 16 images of 16 x 16, each shown as 96 x 96, in 8 columns, gaps of 2: 8 * 98 + 2 wide; two rows of input,
        // output and error, each 3 * 96 + 4 * 2 high.
        let (width, height) = (786, 592);
        assert_eq!((&picture["width"], &picture["height"]), (&width.into(), &height.into()));
        let file = BufReader::new(fs::File::open(&path).unwrap());
        let mut png = png::Decoder::new(file).read_info().unwrap();
        let mut pixels = vec![0; png.output_buffer_size().unwrap()];
        let info = png.next_frame(&mut pixels).unwrap();
        let size = (info.width as usize, info.height as usize, info.buffer_size());
        assert_eq!(size, (width, height, width * height));
        assert_eq!(info.color_type, png::ColorType::Grayscale);
    }
}

fn tensorboards_server_shows_histograms_and_hyperparameters(run_dir: &Path) {
    let read = python("read_tensorboard.py", run_dir);
    // A point is its time, its step and its buckets: left, right, count.
    let sums = |tag: &str| -> Vec<(u64, f64)> {
        let points = read["histograms"]["tensorboard"][tag].as_array().unwrap();
        let count = |bucket: &Value| bucket[2].as_f64().unwrap();
        let sum = |point: &Value| point[2].as_array().unwrap().iter().map(count).sum();
        points.iter().map(|point| (point[1].as_u64().unwrap(), sum(point))).collect()
    };
    // 5 steps of 32 samples of 4 x 4 codes; 8 x 1 x 4 x 4 weights.
    assert_eq!(sums("usage/level-0"), [(30, 2560.0), (60, 2560.0)]);
    assert_eq!(sums("weights/encoder.down1.weight"), [(30, 128.0), (60, 128.0)]);
    assert_eq!(sums("weights/quantizer.codebook"), [(30, 512.0), (60, 512.0)]);
    let sessions = &read["session_groups"][0]["sessions"];
    assert_eq!(sessions[0]["status"], "STATUS_SUCCESS", "{sessions}");
    let text = &read["text"]["tensorboard"]["config"][0]["text"];
    assert!(text.as_str().is_some_and(|text| text.contains("[train]")), "{text}");
}

fn python_reads_a_checkpoint_and_finds_the_promised_hashes_names_and_shapes(run_dir: &Path) {
    let checkpoint = run_dir.join("checkpoints/step-00000060");
    let read = python("read_checkpoint.py", &checkpoint);
    let files = read["files"].as_object().unwrap();
    assert_eq!(files.len(), 2, "one file a rank");
    for (name, file) in files {
        assert_eq!(file["sha256"], file["promised"], "{name}");
        assert_eq!(file["bytes"], file["promised_bytes"], "{name}");
    }

    let found = read["tensors"].as_object().unwrap();
    // 16 channels, 8 in the outermost layers and in the residual block, codes of 8 channels.
    // Convolutions are [out, in, h, w], transposed ones [in, out, h, w], as in PyTorch.
    let parameters: [(&str, &[u64]); 18] = [
        ("encoder.down1.weight", &[8, 1, 4, 4]),
        ("encoder.down1.bias", &[8]),
        ("encoder.down2.weight", &[16, 8, 4, 4]),
        ("encoder.down2.bias", &[16]),
        ("encoder.conv.weight", &[16, 16, 3, 3]),
        ("encoder.conv.bias", &[16]),
        ("encoder.residual.0.conv1.weight", &[8, 16, 3, 3]),
        ("encoder.residual.0.conv2.weight", &[16, 8, 1, 1]),
        ("encoder.to_code.weight", &[8, 16, 1, 1]),
        ("encoder.to_code.bias", &[8]),
        ("decoder.conv.weight", &[16, 8, 3, 3]),
        ("decoder.conv.bias", &[16]),
        ("decoder.residual.0.conv1.weight", &[8, 16, 3, 3]),
        ("decoder.residual.0.conv2.weight", &[16, 8, 1, 1]),
        ("decoder.up1.weight", &[16, 8, 4, 4]),
        ("decoder.up1.bias", &[8]),
        ("decoder.up2.weight", &[8, 1, 4, 4]),
        ("decoder.up2.bias", &[1]),
    ];
    let mut expected = BTreeMap::new();
    for (name, shape) in parameters {
        for prefix in ["", "optimizer.exp_avg.", "optimizer.exp_avg_sq."] {
            expected.insert(format!("{prefix}{name}"), shape);
        }
    }
    expected.insert("quantizer.codebook".into(), &[64, 8]);
    expected.insert("quantizer.ema_counts".into(), &[64]);
    expected.insert("quantizer.ema_sums".into(), &[64, 8]);
    for (name, shape) in &expected {
        let tensor = found.get(name).unwrap_or_else(|| panic!("no tensor {name}"));
        assert_eq!(tensor["shape"], Value::from(shape.to_vec()), "{name}");
        assert_eq!(tensor["dtype"], "float32", "{name}");
    }
    let others: Vec<&String> = found.keys().filter(|name| !expected.contains_key(*name)).collect();
    assert_eq!(others, ["metrics.window_counts", "metrics.window_sums", "optimizer.updates"]);

    // The values are the same for both readers, so neither transposes.
    let ours = &tensors(run_dir, 60)["encoder.down2.weight"].2;
    let sum: f64 = ours
        .chunks_exact(4)
        .map(|bytes| f64::from(f32::from_le_bytes(bytes.try_into().unwrap())))
        .sum();
    let theirs = found["encoder.down2.weight"]["sum"].as_f64().unwrap();
    assert!((sum - theirs).abs() < 1e-9, "{sum} {theirs}");

    let (code, stdout, stderr) = run(tessera().args(["inspect", "--json"]).arg(&checkpoint));
    assert_eq!(code, Some(0), "{stderr}");
    let report: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&report["step"], &report["intact"]), (&60.into(), &true.into()));
    assert_eq!(report["tensors"].as_array().unwrap().len(), 18 * 3 + 6);
}

#[test]
fn a_checkpoint_has_the_same_tensors_for_every_number_of_ranks() {
    let shapes = |nproc: usize| -> Vec<_> {
        let folder = TempDir::new().unwrap();
        let (code, _, stderr) = run(&mut train(nproc, folder.path(), &["train.steps=2"]));
        assert_eq!(code, Some(0), "{stderr}");
        let all = tensors(folder.path(), 2).into_iter();
        all.map(|(name, (kind, shape, _))| (name, kind, shape)).collect()
    };
    let one = shapes(1);
    assert_eq!(one.len(), 18 * 3 + 6);
    assert_eq!(one, shapes(2));
    assert_eq!(one, shapes(3));
}

fn an_evaluation_is_the_same_on_any_number_of_ranks_and_counts_each_sample_once(run_dir: &Path) {
    let of_training = rows(run_dir, "eval.jsonl").pop().unwrap();
    let mut commands = vec![tessera()];
    for nproc in ["2", "3"] {
        let mut command = tessera();
        command.args(["launch", "--nproc", nproc, "--"]);
        commands.push(command);
    }
    for mut command in commands {
        let (code, stdout, stderr) = run(command.args(["eval", "--json", "--run"]).arg(run_dir));
        assert_eq!(code, Some(0), "{stderr}");
        let figures: Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!((&figures["samples"], &figures["step"]), (&64.into(), &60.into()));
        assert_eq!(figures["codes_used"], of_training["codes_used"]);
        for key in ["mse", "psnr", "ssim", "perplexity"] {
            let (found, expected) =
                (figures[key].as_f64().unwrap(), of_training[key].as_f64().unwrap());
            // fp32 forward passes of batches of other sizes; the sums are float64.
            assert!((found - expected).abs() < 1e-6 * expected.abs(), "{key} {found} {expected}");
        }
        let mse = figures["mse"].as_f64().unwrap();
        assert!((figures["psnr"].as_f64().unwrap() + 10.0 * mse.log10()).abs() < 1e-9);
    }
    let (code, stdout, stderr) =
        run(tessera().args(["eval", "--checkpoint", "20", "--run"]).arg(run_dir));
    assert_eq!(code, Some(0), "{stderr}");
    assert!(
        stdout.contains("step            20\n") && stdout.contains("samples         64\n"),
        "{stdout}"
    );
}

#[test]
fn a_tiny_idx_data_set_is_packed_verified_and_described() {
    let folder = TempDir::new().unwrap();
    let shards = packed(folder.path());
    let (code, stdout, stderr) = run(tessera().args(["data", "verify"]).arg(&shards));
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.starts_with("whole: 24 samples in 6 shards"), "{stdout}");

    let (code, stdout, _) = run(tessera().args(["data", "inspect", "--json"]).arg(&shards));
    let summary: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(code, Some(0));
    assert_eq!(summary["shape"], serde_json::json!({"channels": 1, "height": 8, "width": 8}));
    let train = &summary["splits"]["train"];
    assert_eq!((&train["num_samples"], &train["num_shards"]), (&16.into(), &4.into()));
    // Image i is 8 i everywhere: the mean of 0, 8, .. 120 is 60, the variance
    // 64 (16^2 - 1) / 12 = 1360.
    let mean = train["pixel_mean"][0].as_f64().unwrap();
    let variance = train["pixel_variance"][0].as_f64().unwrap();
    assert!((mean - 60.0 / 255.0).abs() < 1e-12, "{mean}");
    assert!((variance - 1360.0 / (255.0 * 255.0)).abs() < 1e-12, "{variance}");

    flip_bit(&shards.join("test-00001.safetensors"), -1);
    let (code, stdout, stderr) = run(tessera().args(["data", "verify"]).arg(&shards));
    assert_eq!(code, Some(6), "{stderr}");
    assert!(stdout.contains("sample 3 of shard "), "{stdout}");
    assert!(errors(&stderr)[0].contains("make it again"), "{stderr}");

    // The same input gives the same bytes, in another folder too.
    let other = TempDir::new().unwrap();
    write_idx(&other.path().join("idx"));
    let again = packed(other.path());
    let manifest = |shards: &Path| fs::read(shards.join("manifest.json")).unwrap();
    assert_eq!(manifest(&again), manifest(&shards));
}

#[test]
fn the_doctor_finds_this_machine_healthy() {
    let (code, stdout, stderr) = run(tessera().args(["doctor", "--json"]));
    let report: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &report["healthy"]), (Some(0), &true.into()), "{stdout}{stderr}");
    let findings = report["findings"].as_array().unwrap();
    let worker = findings.iter().find(|finding| finding["name"] == "worker").unwrap();
    assert_eq!(worker["state"], "ok");
}

/// Rank 1 sleeps 10 ms in every step, which is longer than a step of the smoke configuration takes.
#[test]
fn the_trace_of_all_ranks_says_whom_the_others_waited_for() {
    let folder = TempDir::new().unwrap();
    let settings = ["train.steps=20", "checkpoint.every=20", "eval.every=0"];
    let mut command = train(2, folder.path(), &settings);
    command.arg("--trace").env("TESSERA_FAULTS", "rank=1,step=0,at=data,do=slow,ms=60");
    let (code, _, stderr) = run(&mut command);
    assert_eq!(code, Some(0), "{stderr}");
    let (code, stdout, stderr) = run(tessera().arg("trace").arg(folder.path()));
    assert_eq!(code, Some(0), "{stderr}");
    let late = |rank: usize| -> u64 {
        let begin = format!("rank {rank} came last to ");
        let line = stdout.lines().find_map(|line| line.strip_prefix(&begin)).unwrap();
        line.split(' ').next().unwrap().parse().unwrap()
    };
    assert_eq!(late(0) + late(1), 20, "{stdout}");
    assert!(late(1) >= 15, "{stdout}");
    let merged = fs::read(folder.path().join("trace/all.json")).unwrap();
    let merged: Value = serde_json::from_slice(&merged).unwrap();
    let events = merged["traceEvents"].as_array().unwrap();
    let named = |name: &str| events.iter().filter(|event| event["name"] == name).count();
    assert_eq!((named("encoder forward"), named("AdamW"), named("process_name")), (40, 40, 2));
    let (code, _, stderr) = run(tessera().args(["trace", "/nowhere"]));
    assert_eq!(code, Some(2));
    assert!(stderr.contains("tessera train --trace"), "{stderr}");
}
