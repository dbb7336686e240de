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
    HostTensor, Manifest, Operation, Retention, Save, Storage, Verified, checkpoint_at, commit,
    diff, discard, list, newest_good, remove_partials, supersede_after, survey, verify, write_part,
};

const WORLD: usize = 2;
const KEEP_2: Retention = Retention { last: 2, every: 0, best: 0, metric: BestMetric::Mse };

fn save_of(step: u64) -> Save {
    Save { step, attempt: "9f3a07c2b1d4-0".into(), number: 7 }
}

/// The newest good one, whoever wrote it.
fn newest(folder: &Path) -> (Option<Verified>, Vec<CheckpointError>) {
    newest_good(folder, |_| true).unwrap()
}

/// Two parts and a commit; the values hang on the step.
fn save(storage: &Storage, folder: &Path, step: u64) -> Result<Committed, CheckpointError> {
    for rank in 0..WORLD {
        let values: Vec<u8> =
            (0..6u8).flat_map(|at| (step as f32 + f32::from(at)).to_le_bytes()).collect();
        let tensor = HostTensor { dtype: Dtype::F32, shape: vec![2, 3], bytes: &values };
        let name = format!("layer.{rank}");
        write_part(storage, folder, &save_of(step), (rank, WORLD), vec![(&name, tensor)])?;
    }
    commit(storage, folder, &save_of(step), WORLD, draft(step), &KEEP_2)
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
    let (found, refused) = newest(folder.path());
    let found = found.unwrap();
    assert!(refused.is_empty());
    assert_eq!((found.manifest.step, found.manifest.samples_seen), (3, 30));
    assert_eq!(found.manifest.attempt.as_deref(), Some("9f3a07c2b1d4-0"));
    let read = Checkpoint::read(&found.path).unwrap();
    let tensors = read.tensors();
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
        let (found, refused) = newest(folder.path());
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
                    discard(&Storage::new(), folder.path(), &save_of(3)).unwrap();
                }
            }
            let (found, refused) = newest(folder.path());
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
            let part = save_of(5).folder(&path).join("state-00002-of-00002.safetensors");
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
        for error in [Checkpoint::read(&path).unwrap_err(), verify(&path).unwrap_err()] {
            assert!(error.to_string().contains("not a plain file name"), "{name}: {error}");
        }
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
    let read = |step| Checkpoint::read(&folder.path().join(format!("step-{step:08}"))).unwrap();
    let found = diff(&read(1), &read(3));
    assert_eq!((found.tensors.len(), found.num_equal), (2, 0));
    let first = &found.tensors[0];
    assert_eq!((first.name.as_str(), first.num_values, first.num_elements), ("layer.0", 6, 6));
    assert_eq!(first.max_abs, 2.0);
    assert!((first.relative - (24.0f64 / 91.0).sqrt()).abs() < 1e-12);
    assert_eq!(found.config, [("train.steps".into(), "101".into(), "103".into())]);
    assert_eq!(diff(&read(1), &read(1)).num_equal, 2);
}

/// Two attempts, or two tries of one, have folders of their own; what lies in the wrong one is refused.
#[test]
fn a_part_of_another_attempt_or_try_is_never_committed() {
    let folder = TempDir::new().unwrap();
    let ours = save_of(4);
    let late = Save { attempt: "0123456789ab-0".into(), ..ours.clone() };
    let again = Save { number: 8, ..ours.clone() };
    let part = |save: &Save, rank: usize| {
        let tensor = HostTensor { dtype: Dtype::F32, shape: vec![1], bytes: &[rank as u8; 4] };
        write_part(&Storage::new(), folder.path(), save, (rank, WORLD), vec![("a", tensor)])
            .unwrap()
    };
    part(&ours, 0);
    for other in [&late, &again] {
        part(other, 1);
        assert_ne!(ours.folder(folder.path()), other.folder(folder.path()));
        let commit = || commit(&Storage::new(), folder.path(), &ours, WORLD, draft(4), &KEEP_2);
        assert_eq!(commit().unwrap_err().kind(), CheckpointErrorKind::File, "its part is missing");
        // As a file system that mixes up two folders would have it.
        for name in ["part-00001.json", "state-00002-of-00002.safetensors"] {
            fs::copy(other.folder(folder.path()).join(name), ours.folder(folder.path()).join(name))
                .unwrap();
        }
        let error = commit().unwrap_err().to_string();
        assert!(error.contains(&format!("it is of save {other} and not of {ours}")), "{error}");
        fs::remove_file(ours.folder(folder.path()).join("part-00001.json")).unwrap();
        // Giving one up leaves the other.
        discard(&Storage::new(), folder.path(), other).unwrap();
        assert!(ours.folder(folder.path()).is_dir());
    }
    part(&ours, 1);
    commit(&Storage::new(), folder.path(), &ours, WORLD, draft(4), &KEEP_2).unwrap();
}

#[test]
fn who_has_lost_the_folder_renames_and_removes_nothing() {
    let folder = TempDir::new().unwrap();
    save(&Storage::new(), folder.path(), 1).unwrap();
    let operations = Arc::new(AtomicUsize::new(0));
    for lost_at in 0.. {
        let asked = Arc::clone(&operations);
        asked.store(0, Ordering::Relaxed);
        let storage = Storage::new().guarded(move || {
            match asked.fetch_add(1, Ordering::Relaxed) >= lost_at {
                true => Err("the folder is another run's".to_owned()),
                false => Ok(()),
            }
        });
        let saved = save(&storage, folder.path(), 2);
        if operations.load(Ordering::Relaxed) <= lost_at {
            saved.unwrap();
            break;
        }
        assert!(saved.is_ok() || !steps(folder.path()).contains(&2), "lost at {lost_at}");
        if let Err(error) = saved {
            assert_eq!(error.kind(), CheckpointErrorKind::Lost, "{error}");
        }
        remove_partials(&Storage::new(), folder.path()).unwrap();
    }
    assert_eq!(steps(folder.path()), [1, 2]);
}

/// By their kinds: an older one stands for what is damaged, and for nothing else.
#[test]
fn a_checkpoint_of_another_version_or_one_that_cannot_be_read_now_is_no_damaged_one() {
    let folder = TempDir::new().unwrap();
    for step in [1, 2] {
        save(&Storage::new(), folder.path(), step).unwrap();
    }
    let newer = folder.path().join("step-00000002");
    let whole = fs::read_to_string(newer.join("manifest.json")).unwrap();
    let rewrite = |text: &str| {
        fs::write(newer.join("manifest.json"), text).unwrap();
        let hash = tessera_checkpoint::sha256_hex(text.as_bytes());
        fs::write(newer.join("manifest.sha256"), format!("{hash}  manifest.json\n")).unwrap();
    };
    rewrite(&whole.replace("\"version\": 2", "\"version\": 3"));
    let error = newest_good(folder.path(), |_| true).unwrap_err();
    assert_eq!(error.kind(), CheckpointErrorKind::OtherVersion);
    let words =
        "has format version 3, this program reads 1 to 2: use Tessera 0.1.0, which wrote it";
    assert!(error.to_string().contains(words), "{error}");

    rewrite(&whole);
    assert_eq!(newest(folder.path()).0.unwrap().manifest.step, 2);
    // Only those that are wanted are looked at.
    let old = newest_good(folder.path(), |manifest| manifest.step < 2).unwrap().0.unwrap();
    assert_eq!(old.manifest.step, 1);

    fs::write(newer.join("state-00001-of-00002.safetensors"), "x").unwrap();
    let (found, refused) = newest(folder.path());
    assert_eq!((found.unwrap().manifest.step, refused.len()), (1, 1));
    assert_eq!(refused[0].kind(), CheckpointErrorKind::Damaged);
    // A loop of links is neither missing nor damaged: the storage refuses to look.
    fs::remove_file(newer.join("manifest.json")).unwrap();
    std::os::unix::fs::symlink("manifest.json", newer.join("manifest.json")).unwrap();
    let error = newest_good(folder.path(), |_| true).unwrap_err();
    assert_eq!(error.kind(), CheckpointErrorKind::Unreadable, "{error}");
}
