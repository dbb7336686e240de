//! A save that fails, or whose process ends, at each of its file operations.
#![allow(clippy::unwrap_used)] // a test may

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use tempfile::TempDir;
use tessera_checkpoint::{
    BestMetric, Checkpoint, CheckpointError, CheckpointErrorKind, Committed, Dtype, Fate,
    HostTensor, Manifest, Operation, Retention, Storage, checkpoint_at, commit, diff, discard,
    list, newest_good, partial_folder, remove_partials, supersede_after, survey, write_part,
};

const WORLD: usize = 2;
const KEEP_2: Retention = Retention { last: 2, every: 0, best: 0, metric: BestMetric::Mse };

/// Two parts and a commit; the values hang on the step.
fn save(storage: &Storage, folder: &Path, step: u64) -> Result<Committed, CheckpointError> {
    let partial = partial_folder(folder, step);
    for rank in 0..WORLD {
        let values: Vec<u8> =
            (0..6u8).flat_map(|at| (step as f32 + f32::from(at)).to_le_bytes()).collect();
        let tensor = HostTensor { dtype: Dtype::F32, shape: vec![2, 3], bytes: &values };
        let name = format!("layer.{rank}");
        write_part(storage, &partial, (rank, WORLD), vec![(&name, tensor)])?;
    }
    commit(storage, folder, draft(step), &KEEP_2)
}

fn draft(step: u64) -> Manifest {
    let config = json!({"seed": 7, "train": {"steps": 100 + step}});
    Manifest::draft(step, 10 * step, WORLD, config, "hash".into(), "data".into())
}

fn steps(folder: &Path) -> Vec<u64> {
    list(folder).unwrap().into_iter().map(|(step, _)| step).collect()
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Storage whose operation number `fatal`, counted from 0, meets this fate; and the count.
fn failing(
    fatal: usize,
    fate: impl Fn() -> Fate + Send + Sync + 'static,
) -> (Storage, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let storage = Storage::judged(move |_, _| match counted.fetch_add(1, Ordering::Relaxed) {
        number if number == fatal => fate(),
        _ => Fate::Done,
    });
    (storage, count)
}

#[test]
fn a_save_is_what_the_parts_were_and_old_ones_go() {
    let folder = TempDir::new().unwrap();
    for step in [1, 2, 3] {
        let committed = save(&Storage::new(), folder.path(), step).unwrap();
        assert_eq!(committed.removed, if step == 3 { vec![1] } else { vec![] });
    }
    assert_eq!(names(folder.path()), ["step-00000002", "step-00000003"]);
    assert_eq!(
        names(&folder.path().join("step-00000003")),
        [
            "manifest.json",
            "manifest.sha256",
            "state-00001-of-00002.safetensors",
            "state-00002-of-00002.safetensors"
        ]
    );
    let (found, refused) = newest_good(folder.path()).unwrap();
    let found = found.unwrap();
    assert!(refused.is_empty());
    assert_eq!((found.manifest.step, found.manifest.samples_seen), (3, 30));
    let tensors = found.tensors();
    assert_eq!(tensors[1].0, "layer.1");
    assert_eq!(tensors[1].1.bytes[20..], 8f32.to_le_bytes(), "3 + 5");
    let survey = survey(&found.path).unwrap();
    assert!(survey.files.iter().all(|file| file.problem.is_none()));
    assert_eq!(survey.tensors.len(), 2);
}

/// The process ends in operation n, for every n: nothing after it happens.
#[test]
fn a_process_that_ends_at_any_operation_leaves_a_good_checkpoint() {
    let folder = TempDir::new().unwrap();
    save(&Storage::new(), folder.path(), 1).unwrap();
    let (storage, count) = failing(usize::MAX, || Fate::Done);
    save(&storage, folder.path(), 2).unwrap();
    save(&storage, folder.path(), 3).unwrap();
    let total = count.load(Ordering::Relaxed) / 2;
    assert!(total >= 20, "{total} operations of a save");
    for fatal in 0..=total {
        let folder = TempDir::new().unwrap();
        for step in [1, 2] {
            save(&Storage::new(), folder.path(), step).unwrap();
        }
        let ended = std::panic::catch_unwind(|| {
            let (storage, _) = failing(fatal, || std::panic::panic_any("the process ends"));
            save(&storage, folder.path(), 3).map(|_| ())
        });
        let (found, refused) = newest_good(folder.path()).unwrap();
        let step = found.unwrap().manifest.step;
        assert!(refused.is_empty(), "{fatal}: {refused:?}");
        let renamed = steps(folder.path()).contains(&3);
        assert_eq!(step, if renamed { 3 } else { 2 }, "after operation {fatal}");
        assert!(ended.is_err() || renamed, "operation {fatal}");
        // The next run clears up and saves the same step.
        remove_partials(&Storage::new(), folder.path()).unwrap();
        save(&Storage::new(), folder.path(), 3).unwrap();
        assert_eq!(steps(folder.path()).last(), Some(&3));
        assert!(names(folder.path()).iter().all(|name| !name.contains("partial")));
    }
}

#[test]
fn storage_that_fails_at_any_operation_leaves_older_checkpoints_and_nothing_half() {
    let causes: [fn() -> Fate; 3] = [
        || Fate::Failed(io::ErrorKind::StorageFull.into()),
        || Fate::Failed(io::Error::from_raw_os_error(5)), // EIO
        || Fate::Short,
    ];
    for cause in causes {
        for fatal in 0.. {
            let folder = TempDir::new().unwrap();
            for step in [1, 2] {
                save(&Storage::new(), folder.path(), step).unwrap();
            }
            let (storage, count) = failing(fatal, cause);
            let saved = save(&storage, folder.path(), 3);
            if count.load(Ordering::Relaxed) <= fatal {
                saved.unwrap();
                break;
            }
            match saved {
                // What cannot be removed any more is kept.
                Ok(committed) => assert_eq!(committed.removed, [0; 0]),
                Err(error) => {
                    assert_eq!(error.kind(), CheckpointErrorKind::File, "{error}");
                    discard(&Storage::new(), folder.path(), 3).unwrap();
                }
            }
            let (found, refused) = newest_good(folder.path()).unwrap();
            assert!(refused.is_empty() && found.is_some());
            assert!(steps(folder.path()).contains(&2), "{:?}", steps(folder.path()));
            assert!(names(folder.path()).iter().all(|name| name.starts_with("step-")));
            save(&Storage::new(), folder.path(), 4).unwrap();
        }
    }
}

/// A part that is not what its rank wrote is found before anything becomes visible.
#[test]
fn a_part_that_changed_on_its_way_to_the_disk_is_never_committed() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().to_owned();
    let storage = Storage::judged(move |operation, file| {
        if operation == Operation::Create && file.ends_with("manifest.json") {
            let part = partial_folder(&path, 5).join("state-00002-of-00002.safetensors");
            let mut bytes = fs::read(&part).unwrap();
            let last = bytes.len() - 1;
            bytes[last] ^= 4;
            fs::write(&part, bytes).unwrap();
        }
        Fate::Done
    });
    let error = save(&storage, folder.path(), 5).unwrap_err();
    assert_eq!(error.kind(), CheckpointErrorKind::Damaged);
    assert!(error.to_string().contains("state-00002-of-00002.safetensors"), "{error}");
    assert_eq!(steps(folder.path()), [0; 0]);
}

#[test]
fn a_checkpoint_that_is_in_the_way_is_set_aside() {
    let folder = TempDir::new().unwrap();
    for step in [1, 2, 2] {
        save(&Storage::new(), folder.path(), step).unwrap();
    }
    assert_eq!(names(folder.path()), ["step-00000001", "step-00000002", "superseded"]);
    supersede_after(&Storage::new(), folder.path(), 1).unwrap();
    assert_eq!(steps(folder.path()), [1]);
    assert_eq!(names(&folder.path().join("superseded")), ["step-00000002"]);
    assert_eq!(checkpoint_at(folder.path()).unwrap(), folder.path().join("step-00000001"));
}

#[test]
fn names_that_lead_out_of_the_folder_are_refused() {
    let folder = TempDir::new().unwrap();
    save(&Storage::new(), folder.path(), 1).unwrap();
    let path = folder.path().join("step-00000001");
    fs::write(folder.path().join("secret"), "x").unwrap();
    let whole = fs::read_to_string(path.join("manifest.json")).unwrap();
    for name in ["../secret", "/etc/passwd", "..", "a/b"] {
        let text = whole.replace("state-00001-of-00002.safetensors", name);
        fs::write(path.join("manifest.json"), &text).unwrap();
        let hash = tessera_checkpoint::sha256_hex(text.as_bytes());
        fs::write(path.join("manifest.sha256"), format!("{hash}  manifest.json\n")).unwrap();
        let error = Checkpoint::verify(&path).unwrap_err().to_string();
        assert!(error.contains("not a plain file name"), "{name}: {error}");
        let survey = survey(&path).unwrap();
        assert!(survey.files[0].problem.as_ref().unwrap().contains("plain file name"));
    }
}

/// By hand: step 3 is step 1 plus 2 in each of six values; |2, ..., 2| over |1, 2, 3, 4, 5, 6|.
#[test]
fn a_difference_names_tensors_and_how_far_they_are_apart() {
    let folder = TempDir::new().unwrap();
    for step in [1, 3] {
        save(&Storage::new(), folder.path(), step).unwrap();
    }
    let read = |step| Checkpoint::verify(&folder.path().join(format!("step-{step:08}"))).unwrap();
    let found = diff(&read(1), &read(3));
    assert_eq!((found.tensors.len(), found.num_equal), (2, 0));
    let first = &found.tensors[0];
    assert_eq!((first.name.as_str(), first.num_values, first.num_elements), ("layer.0", 6, 6));
    assert_eq!(first.max_abs, 2.0);
    assert!((first.relative - (24.0f64 / 91.0).sqrt()).abs() < 1e-12);
    assert_eq!(found.config, [("train.steps".into(), "101".into(), "103".into())]);
    assert_eq!(diff(&read(1), &read(1)).num_equal, 2);
}
