//! A trained model in use: the folder that a training leaves, tokens of a data set, and pictures of tokens.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{root, run, tessera, train};

/// A training of seconds, with an average of its weights.
fn trained(folder: &TempDir) -> PathBuf {
    let run_dir = folder.path().join("run");
    let settings =
        ["train.steps=20", "checkpoint.every=0", "metrics.images_every=0", "train.ema_decay=0.9"];
    let (code, _, stderr) = run(&mut train(2, &run_dir, &settings));
    assert_eq!(code, Some(0), "{stderr}");
    run_dir
}

/// Runs `tessera` with these words; stdout, and stderr.
fn done(words: &[&str], code: i32) -> (String, String) {
    let (found, stdout, stderr) = run(tessera().args(words));
    assert_eq!(found, Some(code), "{words:?}: {stdout}{stderr}");
    (stdout, stderr)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries
        .filter(|entry| entry.path().is_file())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect()
}

#[test]
fn a_training_leaves_its_model_and_tokens_go_there_and_back() {
    let folder = TempDir::new().unwrap();
    let run_dir = trained(&folder);
    let path = |name: &str| folder.path().join(name);
    let left = run_dir.join("model");
    let (told, _) =
        done(&["export", "--run", text(&run_dir), "--out", text(&path("model")), "--json"], 0);
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((&told["step"], &told["weights"]), (&20.into(), &"average".into()));
    assert!(files(&left) == files(&path("model")), "what is left is what is exported");
    let config: Value = serde_json::from_slice(&files(&left)["config.json"]).unwrap();
    assert_eq!(config["hash"], told["hash"]);

    let encode = |by: &[&str], from: [&str; 2], out: &Path| {
        let words =
            ["encode", from[0], from[1], "--out", text(out), "--shard-samples", "192", "--json"];
        let (stdout, _) = done(&[by, &words].concat(), 0);
        let encoded: Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!(encoded["tokenizer"], config["hash"]);
        assert_eq!(encoded["splits"]["train"]["num_samples"], 512);
    };
    encode(&["launch", "--nproc", "2", "--"], ["--model", text(&left)], &path("two"));
    encode(&[], ["--run", text(&run_dir)], &path("one"));
    assert!(files(&path("one")) == files(&path("two")));
    assert!(files(&path("two/tokenizer")) == files(&left), "the model is there too");

    let (tokens, out, sheet) = (path("two"), path("out"), path("sheet.png"));
    let decode = ["decode", "--model", text(&left), "--tokens", text(&tokens)];
    done(&[&decode[..], &["--out", text(&out), "--ids", "63,3"]].concat(), 0);
    let names: Vec<String> = files(&out).into_keys().collect();
    assert_eq!(names, ["00000003.png", "00000063.png"]);
    assert_eq!(image::open(out.join(&names[0])).unwrap().width(), 16);
    done(&[&decode[..], &["--grid", text(&sheet), "--limit", "9"]].concat(), 0);
    // By hand: three pictures of 16 beside one another, and two pixels around each.
    assert_eq!(image::open(&sheet).unwrap().width(), 3 * 16 + 4 * 2);

    let trained_weights = ["export", "--run", text(&run_dir), "--weights", "trained", "--out"];
    done(&[&trained_weights[..], &[text(&path("trained"))]].concat(), 0);
    let other = path("trained");
    let refused = ["decode", "--model", text(&other), "--tokens", text(&tokens), "--out", "x"];
    let (_, stderr) = done(&refused, 2);
    assert!(stderr.contains(&config["hash"].as_str().unwrap()[..12]), "{stderr}");

    // The folder has the figures of the run, and may be measured on other data.
    let eval = |words: &[&str]| {
        let (stdout, _) = done(&[&["eval", "--json"], words].concat(), 0);
        serde_json::from_str::<Value>(&stdout).unwrap()
    };
    let of_folder = eval(&["--model", text(&left), "--set", "eval.batch=32"]);
    assert_eq!(of_folder["samples"], 64);
    assert_eq!(of_folder, eval(&["--run", text(&run_dir)]));
    let fewer = ["--model", text(&left), "--set", "data.synthetic.num_test=9"];
    assert_eq!(eval(&fewer)["samples"], 9);

    // The folder is found damaged, and a run that goes on makes it anew.
    let weights = left.join("model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&weights, bytes).unwrap();
    let words = ["encode", "--model", text(&left), "--out", "x"];
    let (_, stderr) = done(&words, 6);
    assert!(stderr.contains("is no good model folder"), "{stderr}");
    fs::remove_dir_all(&left).unwrap();
    let settings =
        ["train.steps=20", "checkpoint.every=0", "metrics.images_every=0", "train.ema_decay=0.9"];
    let (code, _, stderr) = run(&mut train(2, &run_dir, &settings));
    assert_eq!(code, Some(0), "{stderr}");
    assert!(files(&left) == files(&path("model")));
}

#[test]
fn one_model_has_to_be_named_and_no_more() {
    let (_, stderr) = done(&["encode", "--out", "x"], 2);
    assert!(stderr.contains("--run <DIR>|--model <DIR>"), "{stderr}");
    let (_, stderr) = done(&["export", "--run", "a", "--model", "b", "--out", "x"], 2);
    assert!(stderr.contains("cannot be used with"), "{stderr}");
    let (_, stderr) = done(&["export", "--model", "nowhere", "--out", "x"], 2);
    assert!(stderr.starts_with("error: nowhere does not exist"), "{stderr}");
}

/// A model of diffusers becomes a model folder, goes back to diffusers as it came, is evaluated, and trained on from the table
/// that the import prints.
#[test]
fn weights_of_another_program_are_imported_and_trained_on() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (model, out) = (path("model"), path("back"));
    let from = root().join("tests/fixtures/interop/diffusers-tiny");
    let (told, _) = done(&["import", text(&from), text(&model)], 0);
    assert!(told.contains("made of diffusers' VQModel"), "{told}");
    let back = ["export", "--model", text(&model), "--format", "diffusers", "--out"];
    done(&[&back[..], &[text(&out)]].concat(), 0);
    let weights = "diffusion_pytorch_model.safetensors";
    assert!(files(&path("back"))[weights].len() == files(&from)[weights].len());
    let (_, stderr) = done(&[&back[..], &[text(&out)]].concat(), 2);
    assert!(stderr.contains("--force"), "{stderr}");
    let onnx = ["export", "--model", text(&model), "--format", "transformers", "--out", "x"];
    let (_, stderr) = done(&onnx, 2);
    assert!(stderr.contains("this model has no transformers form"), "{stderr}");

    let data = "[data]\nkind = \"synthetic\"\n[data.synthetic]\nchannels = 3\nheight = 16\nwidth = 16\nnum_train = 64\nnum_test = 32\n\
                [train]\nsteps = 2\nglobal_batch = 16\n[eval]\nbatch = 16\n";
    let table = &told[told.find("[model]").unwrap()..];
    fs::write(path("config.toml"), format!("{data}\n{table}")).unwrap();
    let mut training = tessera();
    training.args(["train", "--config"]).arg(path("config.toml"));
    let (code, _, stderr) = run(training.arg("--run-dir").arg(path("run")));
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("begun from") && stderr.contains("new here: none"), "{stderr}");
    let mut eval = vec!["eval", "--model", text(&model), "--json", "--set", "eval.batch=16"];
    let data =
        ["kind=synthetic", "synthetic.channels=3", "synthetic.height=16", "synthetic.width=16"];
    let data: Vec<String> = data.iter().map(|setting| format!("data.{setting}")).collect();
    data.iter().for_each(|setting| eval.extend(["--set", setting]));
    eval.extend(["--set", "data.synthetic.num_test=32"]);
    let (stdout, _) = done(&eval, 0);
    let measured: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(measured["samples"], 32);
}

/// Sound through pipes, from a writer that knows no length: codes come out while more sound goes in, and sound while more codes do. In
/// the end it is what the file gives.
#[test]
fn sound_goes_through_pipes_while_it_is_made() {
    const RATE: u32 = 8000;
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    done(
        &["import", text(&root().join("tests/fixtures/interop/encodec")), text(&path("model"))],
        0,
    );
    let samples: Vec<u8> = (0..RATE / 3 + 7)
        .flat_map(|at| (((f64::from(at) * 0.05).sin() * 9000.0) as i16).to_le_bytes())
        .collect();
    let head = |size: u32| {
        let mut head = b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\x01\0\x01\0".to_vec();
        head.extend([RATE.to_le_bytes(), (2 * RATE).to_le_bytes()].concat());
        head.extend(b"\x02\0\x10\0data");
        head.extend(size.to_le_bytes());
        head
    };
    fs::write(path("in.wav"), [head(samples.len() as u32), samples.clone()].concat()).unwrap();
    let model =
        ["--model", text(&path("model")), "--stream", "--latency", "0.04"].map(str::to_owned);
    let piped = |words: &[&str], more: &[String]| {
        let mut command = tessera();
        command.args(words).args(more).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        (child.stdin.take().unwrap(), child.stdout.take().unwrap(), child)
    };
    let (mut sound, mut codes, mut compress) = piped(&["compress", "-", "-"], &model);
    let (mut back, mut heard, mut decompress) = piped(&["decompress", "-", "-"], &model[..2]);
    sound.write_all(&head(u32::MAX)).unwrap();
    let (first, second) = samples.split_at((3 * samples.len() / 4) & !1);
    sound.write_all(first).unwrap();
    // The header and two blocks: how much of a piece is sound is known when the next one comes.
    let mut file = vec![0; 500];
    codes.read_exact(&mut file).unwrap();
    back.write_all(&file).unwrap();
    let mut out = vec![0; 44 + 500];
    heard.read_exact(&mut out).unwrap();
    assert_eq!((&out[..4], &out[40..44]), (&b"RIFF"[..], &[0xff; 4][..]));
    sound.write_all(second).unwrap();
    drop(sound);
    let mut rest = Vec::new();
    codes.read_to_end(&mut rest).unwrap();
    back.write_all(&rest).unwrap();
    drop(back);
    heard.read_to_end(&mut out).unwrap();
    assert!(compress.wait().unwrap().success() && decompress.wait().unwrap().success());

    let by = |command: &str, input: &str, out: &str, options: &[String], code: i32| {
        let words = [command, text(&path(input)), text(&path(out))].map(str::to_owned);
        let words = [&words, options].concat();
        done(&words.iter().map(String::as_str).collect::<Vec<_>>(), code).1
    };
    by("reconstruct", "in.wav", "out.wav", &model, 0);
    assert!(out[44..] == fs::read(path("out.wav")).unwrap()[44..]);
    assert_eq!(out.len(), 44 + samples.len());
    let file = [file, rest].concat();
    fs::write(path("cut.tsc"), &file[..file.len() - 30]).unwrap();
    let stderr = by("decompress", "cut.tsc", "cut.wav", &model[..2], 6);
    assert!(stderr.contains("is cut off behind its last sample"), "{stderr}");
    let (_, stderr) = done(&["compress", "a", "b", "--model", "m", "--latency", "1"], 2);
    assert!(stderr.contains("--stream"), "{stderr}");
}
