//! A model folder gives back the model that was written, bit for bit, and nothing else is believed.
//! `fixtures/model-1/` is of version 1: what `tessera export` made of a run as `checkpoint-anchors.toml` of
//! `tessera-train` has it.
#![allow(clippy::unwrap_used)] // a test may

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};
use tessera_checkpoint::{
    BestMetric, Dtype, Fate, HostTensor, Manifest, Operation, Retention, Save, Storage, commit,
    write_part,
};
use tessera_model::{
    ModelError, ModelErrorKind, ModelFile, ModelPath, OpenModel, TABLES_FILE, Weights, Which, open,
    open_run, read_file, read_tables, write, write_tables,
};
use tessera_nn::{Kinds, ModelConfig, Signal, VqVae};

const SIGNAL: Signal = Signal::Image { channels: 1, height: 8, width: 8 };

/// The configuration of a run with this `[model]` table.
fn run_config(model: &Value) -> Value {
    let synthetic = json!({ "height": 8, "width": 8, "num_train": 32, "num_test": 4 });
    json!({
        "task": "autoencoder",
        "data": { "kind": "synthetic", "synthetic": synthetic },
        "model": model,
        "train": { "precision": "fp32" },
        "eval": { "weights": "average" },
    })
}

fn small(quantizer: &Value) -> Value {
    let backbone = json!({ "kind": "conv2d", "channels": 4, "residual_layers": 1 });
    json!({ "backbone": backbone, "quantizer": quantizer })
}

fn vector() -> Value {
    small(&json!({ "kind": "vector", "num_codes": 16, "code_dim": 4 }))
}

/// A run folder whose one checkpoint has a model with the initial values of `seed`, and averages that are `shift` above
/// them, where that is not 0.
fn save_run(folder: &Path, config: Value, seed: u64, shift: f64) {
    let model: ModelConfig = serde_json::from_value(config["model"].clone()).unwrap();
    let vqvae = VqVae::new(&model, &SIGNAL, seed, Kinds::same(Kind::Float), Device::Cpu);
    let named = vqvae.parameters.named_views().map(|(name, tensor)| (name.to_owned(), tensor));
    let mut all: Vec<(String, Tensor)> = named.collect();
    if shift != 0.0 {
        let averages = all.iter().map(|(name, tensor)| (format!("average.{name}"), tensor + shift));
        all = all
            .iter()
            .map(|(name, tensor)| (name.clone(), tensor.copy()))
            .chain(averages)
            .collect();
    }
    all.extend(vqvae.quantizers.iter().flat_map(|quantizer| quantizer.state()));
    let bytes: Vec<Vec<u8>> = all
        .iter()
        .map(|(_, tensor)| {
            Vec::try_from(tensor.contiguous().reshape([-1]).view_dtype(Kind::Uint8)).unwrap()
        })
        .collect();
    let tensors = all.iter().zip(&bytes).map(|((name, tensor), bytes)| {
        let shape = tensor.size().iter().map(|&size| size as usize).collect();
        (name.as_str(), HostTensor { dtype: Dtype::F32, shape, bytes })
    });
    let (storage, checkpoints) = (Storage::new(), folder.join("checkpoints"));
    let save = Save { step: 3, attempt: "a".to_owned(), number: 0 };
    write_part(&storage, &checkpoints, &save, (0, 1), tensors.collect()).unwrap();
    let mut draft = Manifest::draft(3, 12, 1, config, "hash".into(), "data".into());
    draft.model = Some(json!({
        "shape": { "channels": 1, "height": 8, "width": 8 },
        "classes": ["square", "disc"],
    }));
    let retention = Retention { last: 1, every: 0, best: 0, metric: BestMetric::Mse };
    commit(&storage, &checkpoints, &save, 1, draft, &retention).unwrap();
}

/// A run in a new folder.
fn run(config: Value, seed: u64, shift: f64) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    save_run(folder.path(), config, seed, shift);
    folder
}

fn opened(run: &Path, weights: Option<Weights>) -> Result<OpenModel, ModelError> {
    open_run(run, Which::Latest, weights, Device::Cpu)
}

/// What a model makes of four samples.
fn outputs(model: &OpenModel) -> Vec<Tensor> {
    let samples = Tensor::arange(4 * 64, (Kind::Float, Device::Cpu)).view([4, 1, 8, 8]) / 256.0;
    tch::no_grad(|| {
        let codes = model.vqvae.descend(&samples, |level, z| model.vqvae.quantize(level, z).0);
        let mut all = model.vqvae.tokenize(&samples);
        all.push(model.vqvae.decode(&codes));
        all
    })
}

fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| (path.file_name().unwrap().into(), fs::read(&path).unwrap())).collect()
}

#[test]
fn a_run_and_its_export_are_one_model() {
    let residual = json!({
        "kind": "residual", "num_quantizers": 2,
        "quantizer": { "kind": "vector", "num_codes": 8, "code_dim": 4 },
    });
    let simvq = json!({ "kind": "simvq", "num_codes": 8, "code_dim": 4 });
    let fsq = json!({ "kind": "fsq", "levels": [3, 4], "latent_dim": 4 });
    let quantizers = [residual, simvq, fsq];
    for model in quantizers.iter().map(small).chain([vector()]) {
        let run = run(run_config(&model), 5, 0.25);
        let from_run = opened(run.path(), None).unwrap();
        let path = run.path().join("model");
        write(&Storage::new(), &path, &from_run).unwrap();
        let exported = open(&path, Device::Cpu).unwrap();
        assert_eq!(from_run.file, exported.file);
        assert_eq!(from_run.file.hash.len(), 64);
        assert_eq!(outputs(&from_run), outputs(&exported));
        let first = files(&path);
        write(&Storage::new(), &path, &exported).unwrap();
        assert_eq!(first, files(&path), "the same model gives the same bytes");
        assert_eq!(fs::read_dir(run.path()).unwrap().count(), 2, "nothing else is left");
    }
}

#[test]
fn a_folder_says_what_its_samples_and_codes_are() {
    let run = run(run_config(&vector()), 5, 0.0);
    let file: ModelFile = opened(run.path(), None).unwrap().file;
    let autoencoder = file.autoencoder();
    assert_eq!((file.step, file.weights), (3, Weights::Trained), "there are no averages");
    assert_eq!(autoencoder.classes, ["square", "disc"]);
    // Two strides of 2.
    assert_eq!(autoencoder.levels[0].axes, [2, 2]);
    assert_eq!(
        (autoencoder.levels[0].num_positions(), &*autoencoder.levels[0].num_codes),
        (4, &[16][..])
    );
    assert_eq!(autoencoder.preprocessing.range, [0.0, 1.0]);
    assert_eq!(file.data().unwrap().synthetic.num_test, 4);
}

#[test]
fn the_weights_that_are_for_use_are_the_averages_where_there_are_some() {
    let run = run(run_config(&vector()), 5, 0.25);
    let [used, averaged, trained] = [None, Some(Weights::Average), Some(Weights::Trained)]
        .map(|weights| opened(run.path(), weights).unwrap());
    assert_eq!(used.file, averaged.file);
    assert_ne!(used.file.hash, trained.file.hash);
    let [first, last] = [&trained, &used].map(|model| model.vqvae.parameters.named_views().next());
    let ((name, first), (_, last)) = (first.unwrap(), last.unwrap());
    let shift = (last - first).mean(Kind::Float).double_value(&[]);
    assert!((shift - 0.25).abs() < 1e-6, "{name} {shift}");
    let none = self::run(run_config(&vector()), 5, 0.0);
    let refused = opened(none.path(), Some(Weights::Average)).unwrap_err();
    assert_eq!(refused.kind(), ModelErrorKind::BadInput);
    assert!(refused.to_string().contains("has no average of its weights"), "{refused}");
}

#[test]
fn the_hash_is_of_what_decides_outputs_and_of_nothing_else() {
    let hash = |change: &dyn Fn(&mut Value), seed| {
        let mut config = run_config(&vector());
        change(&mut config);
        opened(run(config, seed, 0.0).path(), None).unwrap().file.hash
    };
    let plain = hash(&|_| {}, 5);
    assert_eq!(plain, hash(&|_| {}, 5));
    assert_eq!(plain, hash(&|config| config["data"]["prefetch"] = json!(2), 5));
    assert_eq!(plain, hash(&|config| config["model"]["init_from"] = json!("runs/other"), 5));
    assert_ne!(plain, hash(&|_| {}, 6), "other weights");
    assert_ne!(plain, hash(&|config| config["train"]["precision"] = json!("bf16"), 5));
    let distance = |config: &mut Value| config["model"]["quantizer"]["distance"] = json!("cosine");
    assert_ne!(plain, hash(&distance, 5));
}

#[test]
fn damage_is_found_wherever_it_decides_something() {
    let run = run(run_config(&vector()), 5, 0.0);
    let path = run.path().join("model");
    write(&Storage::new(), &path, &opened(run.path(), None).unwrap()).unwrap();
    let whole = files(&path);
    let damaged = |file: &str, bytes: &[u8]| {
        fs::write(path.join(file), bytes).unwrap();
        let error = open(&path, Device::Cpu).unwrap_err();
        assert_eq!(error.kind(), ModelErrorKind::Damaged, "{error}");
        let message = error.to_string();
        assert!(message.contains(file) && !message.contains('\n'), "{message}");
        fs::write(path.join(file), &whole[Path::new(file)]).unwrap();
    };
    let weights = &whole[Path::new("model.safetensors")];
    for at in [weights.len() - 1, weights.len() / 2] {
        let mut bytes = weights.clone();
        bytes[at] ^= 1;
        damaged("model.safetensors", &bytes);
    }
    damaged("model.safetensors", &weights[..weights.len() - 3]);
    let config = String::from_utf8(whole[Path::new("config.json")].clone()).unwrap();
    damaged("config.json", &config.as_bytes()[..config.len() / 2]);
    damaged("config.json", config.replace("\"hash\"", "\"hush\"").as_bytes());
    let changed = config.replace("\"precision\": \"fp32\"", "\"precision\": \"bf16\"");
    fs::write(path.join("config.json"), changed).unwrap();
    assert_eq!(open(&path, Device::Cpu).unwrap_err().kind(), ModelErrorKind::Damaged);
    fs::write(path.join("config.json"), &config).unwrap();
    fs::remove_file(path.join("model.safetensors")).unwrap();
    assert_eq!(open(&path, Device::Cpu).unwrap_err().kind(), ModelErrorKind::Damaged);
}

#[test]
fn what_is_no_model_folder_is_refused_in_a_line_that_says_what_it_is() {
    let run = run(run_config(&vector()), 5, 0.0);
    fs::write(run.path().join("config.toml"), "").unwrap();
    let path = run.path().join("model");
    write(&Storage::new(), &path, &opened(run.path(), None).unwrap()).unwrap();
    let refused = |at: &ModelPath| {
        let error = at.open(Device::Cpu).unwrap_err();
        assert_eq!(error.kind(), ModelErrorKind::BadInput, "{error}");
        let message = error.to_string();
        assert!(!message.contains('\n'), "{message}");
        message
    };
    let model = |path: &Path| refused(&ModelPath::Model(path.to_owned()));
    assert!(model(&run.path().join("gone")).ends_with("which `tessera export` writes"));
    assert!(model(run.path()).contains("is a run folder: give it as --run"));
    assert!(model(&run.path().join("checkpoints/step-00000003")).contains("is a checkpoint"));
    assert!(model(&run.path().join("checkpoints")).contains("it has no config.json"));
    let of_run = |folder: &Path, which| {
        refused(&ModelPath::Run { folder: folder.to_owned(), which, weights: None })
    };
    assert!(of_run(&path, Which::Latest).contains("is no run folder: give it as --model"));
    let other = of_run(run.path(), Which::Step(4));
    assert!(other.ends_with("has no such checkpoint; there are 3"), "{other}");

    let config = fs::read_to_string(path.join("config.json")).unwrap();
    fs::write(path.join("config.json"), config.replace("\"version\": 1", "\"version\": 9"))
        .unwrap();
    let newer = model(&path);
    assert!(newer.contains("has version 9 of the format, this program reads 1"), "{newer}");
    fs::write(path.join("config.json"), "{\"model_type\": \"encodec\"}").unwrap();
    assert!(model(&path).contains("is of another program"));
}

#[test]
fn a_run_of_another_task_has_no_such_model() {
    let mut config = run_config(&vector());
    config["task"] = json!("probe");
    let refused = opened(run(config, 5, 0.0).path(), None).unwrap_err();
    assert_eq!(refused.kind(), ModelErrorKind::BadInput);
    assert!(refused.to_string().contains("task = \"probe\""), "{refused}");
}

#[test]
fn a_write_that_fails_leaves_what_was_there() {
    let run = run(run_config(&vector()), 5, 0.0);
    let model = opened(run.path(), None).unwrap();
    let path = run.path().join("model");
    write(&Storage::new(), &path, &model).unwrap();
    let before = files(&path);
    for failing in [Operation::MakeFolder, Operation::Write, Operation::Sync, Operation::SyncFolder]
    {
        let full = move |operation, at: &Path| {
            let is_partial = at.to_string_lossy().contains(".partial");
            match operation == failing && is_partial {
                true => Fate::Failed(std::io::ErrorKind::StorageFull.into()),
                false => Fate::Done,
            }
        };
        let refused = write(&Storage::judged(full), &path, &model).unwrap_err();
        assert_eq!(refused.kind(), ModelErrorKind::Failed, "{refused}");
        assert_eq!(before, files(&path));
    }
    // What is no model folder stays, too.
    fs::create_dir(run.path().join("other")).unwrap();
    write(&Storage::new(), &run.path().join("other"), &model).unwrap();
    let refused = write(&Storage::new(), &run.path().join("checkpoints"), &model).unwrap_err();
    assert!(refused.to_string().contains("is there, and is no model folder"), "{refused}");
}

#[test]
fn a_folder_of_version_1_is_read() {
    let path =
        Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("tests/fixtures/model-1");
    let file = read_file(&path).unwrap();
    let model = open(&path, Device::Cpu).unwrap();
    assert_eq!((model.file.version, model.file.step), (1, 3));
    assert_eq!(model.file, file);
    assert_eq!(outputs(&model).len(), 2);
}

/// By hand: shares of 2^24 by counts 4, 1, 2, 3 at the second position, one of each code's own (`fixtures/tables.py`).
#[test]
fn tables_of_version_1_are_read_and_come_back_as_they_were_written() {
    let path =
        Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("tests/fixtures/model-1");
    let file = read_file(&path).unwrap();
    let tables = read_tables(&path, &file).unwrap().unwrap();
    assert_eq!(tables.levels()[0].num_positions(), 4);
    assert_eq!(tables.levels()[0].probabilities(1), [6_710_887, 1_677_722, 3_355_443, 5_033_164]);

    let folder = tempfile::tempdir().unwrap();
    assert!(read_tables(folder.path(), &file).unwrap().is_none(), "a folder may have none");
    write_tables(&Storage::new(), folder.path(), &file, &tables).unwrap();
    assert_eq!(read_tables(folder.path(), &file).unwrap().unwrap().id(), tables.id());
    let written = folder.path().join(TABLES_FILE);
    let mut other = file.clone();
    other.hash = "0".repeat(64);
    assert!(read_tables(folder.path(), &other).unwrap().is_none(), "those of another model");
    let bytes = fs::read(&written).unwrap();
    for at in [bytes.len() - 1, bytes.len() - 40, 3] {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        fs::write(&written, damaged).unwrap();
        let error = read_tables(folder.path(), &file).unwrap_err();
        assert_eq!(error.kind(), ModelErrorKind::Damaged, "{error}");
        assert!(error.to_string().contains("tessera tables"), "{error}");
    }

    // A model that is written anew keeps them.
    let again = folder.path().join("again");
    let model = open(&path, Device::Cpu).unwrap();
    write(&Storage::new(), &again, &model).unwrap();
    write_tables(&Storage::new(), &again, &model.file, &tables).unwrap();
    write(&Storage::new(), &again, &model).unwrap();
    assert_eq!(read_tables(&again, &model.file).unwrap().unwrap().id(), tables.id());
}
