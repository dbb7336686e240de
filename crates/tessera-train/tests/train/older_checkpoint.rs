//! Checkpoints of each version of the format are read, and training goes on from them.
//! `fixtures/checkpoint-anchors/` is of version 1, before `optimizer.updates` and `ema_use`, and
//! `fixtures/checkpoint-2/` of version 2; `checkpoint-anchors.toml` is the run that made them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tch::{Device, Kind, Tensor};
use tessera_checkpoint::upgrade::{Upgraded, upgrade};
use tessera_checkpoint::{Checkpoint, Storage, diff};
use tessera_comm::{RankDevice, Solo};
use tessera_train::{
    Clock, Samples, StepInput, Stepped, TrainConfig, Training, checkpoint, training_batches,
};

fn fixture(name: &str) -> PathBuf {
    Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("tests/fixtures").join(name)
}

#[test]
fn a_checkpoint_of_version_1_is_read_and_goes_on() {
    let (saved, training) = goes_on("checkpoint-anchors", 1);
    let written = &saved.manifest.files[0].tensors;
    for newer in ["optimizer.updates", "quantizer.ema_use"] {
        assert!(!written.iter().any(|name| name == newer), "{written:?}");
    }
    assert_eq!(saved.manifest.attempt, None);
    assert_eq!(training.optimizer.updates.max().double_value(&[]), 4.0);
}

#[test]
fn a_checkpoint_of_version_2_is_read_and_goes_on() {
    let (saved, _) = goes_on("checkpoint-2", 2);
    assert!(saved.manifest.attempt.is_some());
}

/// Reads a fixture, and takes one step from it.
fn goes_on(name: &str, version: u32) -> (Checkpoint, Training) {
    let saved = Checkpoint::read(&fixture(name)).unwrap();
    assert_eq!((saved.manifest.step, saved.manifest.version), (3, version));

    let config: TrainConfig = serde_json::from_value(saved.manifest.config.clone()).unwrap();
    config.validate().unwrap();
    let source = tessera_data::source::open(&config.data, "train").unwrap();
    let elsewhere = TrainConfig { seed: 99, ..config.clone() };
    let mut training =
        Training::new(&elsewhere, Samples::of(config.task, &*source).unwrap(), Device::Cpu)
            .unwrap();
    checkpoint::restore(&saved, &training).unwrap();
    let updates = &training.optimizer.updates;
    assert_eq!(*updates, updates.full_like(3.0), "each step counted for each parameter");
    let state: std::collections::BTreeMap<String, Tensor> =
        checkpoint::state(&training).into_iter().collect();
    if version == 1 {
        let (counts_k, use_k) = (&state["quantizer.ema_counts"], &state["quantizer.ema_use"]);
        assert!(use_k.allclose(&(counts_k / counts_k.sum(Kind::Float)), 1e-6, 0.0, false));
    }
    // All else is there as it was written.
    for (name, tensor) in saved.tensors() {
        let expected =
            Tensor::from_data_size(tensor.bytes, &state[&name].size(), state[&name].kind());
        assert_eq!(state[&name], expected, "{name}");
    }

    let comm = Solo::default();
    // The plan of the run ends with its third step; this one is as if it had begun there.
    let mut batch = training_batches(source, &config, 2, &comm, RankDevice::cpu())
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    let input = StepInput {
        step: 3,
        stop: false,
        compare_state: true,
        num_skipped: 0,
        check_finite: true,
        saves: [0.0; 4],
    };
    let mut clock = Clock::start(Arc::default(), &*training.task);
    assert!(training.optimizer.has_begun());
    let stepped = training.step(&comm, &mut batch, input, &mut clock).unwrap();
    assert!(matches!(stepped, Stepped::Done(_)), "{stepped:?}");
    (saved, training)
}

/// Of the same training: what version 1 lacks is worked out when it is read, or written by an upgrade.
#[test]
fn an_upgraded_checkpoint_is_what_is_read_from_the_old_one_and_the_old_one_is_kept() {
    let fixture = fixture("checkpoint-anchors");
    let run = tempfile::tempdir().unwrap();
    let folder = run.path().join("step-00000003");
    std::fs::create_dir(&folder).unwrap();
    for entry in std::fs::read_dir(&fixture).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, folder.join(path.file_name().unwrap())).unwrap();
    }
    let from = upgrade(&Storage::new(), &folder).unwrap();
    let path = folder.canonicalize().unwrap();
    assert_eq!(from, Upgraded::From { version: 1, path });
    let (old, new) = (Checkpoint::read(&fixture).unwrap(), Checkpoint::read(&folder).unwrap());
    assert_eq!(new.manifest.version, 2);
    assert_eq!((new.manifest.step, &new.manifest.config), (3, &old.manifest.config));
    assert_eq!(diff(&old, &new).tensors, []);
    assert!(new.manifest.files[0].tensors.contains(&"quantizer.ema_use".to_owned()));
    let kept = Checkpoint::read(&run.path().join("superseded/step-00000003")).unwrap();
    assert_eq!(kept.manifest, old.manifest);
    assert_eq!(upgrade(&Storage::new(), &folder).unwrap(), Upgraded::Already);
}
