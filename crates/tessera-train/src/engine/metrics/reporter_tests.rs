//! What becomes of reports where storage refuses them or stands still.

use std::fs;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;

use tempfile::TempDir;
use tessera_checkpoint::{Fate, Operation, Storage};

use super::*;
use crate::engine::metrics;
use crate::engine::metrics::tensorboard::Beginning;
use crate::engine::metrics::tests::row;
use crate::engine::run_folder::{RunFolder, Tenure};

const PATIENCE: Duration = Duration::from_secs(20);

/// A reporter of a run whose appends and syncs fare as `judge` says, and what it tells.
fn reporter(
    judge: impl Fn(Operation, &Path) -> Fate + Send + Sync + 'static,
) -> (TempDir, Reporter, Receiver<String>) {
    let run_dir = tempfile::tempdir().unwrap();
    let folder = RunFolder { root: run_dir.path().to_owned() };
    fs::create_dir_all(folder.tensorboard()).unwrap();
    let attempt = "9f3a07c2b1d4-0".parse().unwrap();
    let tenure = Tenure::without_lock(folder, attempt);
    let folder = &tenure.folder;
    let sinks = metrics::open(&tenure, 0, &Storage::judged(judge), &Beginning::default()).unwrap();
    let (told, hears) = channel();
    let tell = move |text| told.send(text).unwrap_or(());
    let reporter = Reporter::start(&folder.root, sinks, None, || Ok(()), tell);
    (run_dir, reporter.unwrap(), hears)
}

fn steps(run_dir: &TempDir) -> Vec<u64> {
    let text = fs::read_to_string(run_dir.path().join("metrics.jsonl")).unwrap();
    let rows = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    rows.map(|row| row["step"].as_u64().unwrap()).collect()
}

#[test]
fn rows_that_a_full_disk_refuses_are_kept_in_order_and_told_once() {
    let is_full = Arc::new(AtomicBool::new(true));
    let judged = Arc::clone(&is_full);
    let (run_dir, mut reporter, told) = reporter(move |operation, _| {
        match operation == Operation::Append && judged.load(Ordering::Acquire) {
            true => Fate::Short,
            false => Fate::Done,
        }
    });
    for step in 1..=50 {
        reporter.row(&row(step));
    }
    let refused = reporter.durable().settle().unwrap_err().to_string();
    assert!(refused.contains("metrics.jsonl"), "{refused}");
    assert!(reporter.missing().unwrap().starts_with("rows: 50, events of TensorBoard: 50"));
    assert_eq!(steps(&run_dir), [0; 0], "nothing half-written is left");
    is_full.store(false, Ordering::Release);
    reporter.row(&row(51));
    reporter.durable().settle().unwrap();
    assert_eq!(steps(&run_dir), (1..=51).collect::<Vec<_>>());
    assert_eq!(reporter.missing(), None);
    let told: Vec<String> = told.try_iter().collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].contains("are kept and tried again") && told[1].contains("takes rows again"));
}

#[test]
fn no_step_waits_for_a_storage_that_stands_still() {
    let (go, goes) = channel::<()>();
    let goes = Mutex::new(goes);
    let (run_dir, mut reporter, told) = reporter(move |operation, _| {
        if operation == Operation::Append {
            let _ = goes.lock().unwrap().recv();
        }
        Fate::Done
    });
    for step in 1..=50 {
        reporter.row(&row(step));
    }
    assert!(!reporter.wait(Duration::from_millis(1)));
    assert!(reporter.missing().is_some());
    drop(go);
    assert!(reporter.wait(PATIENCE));
    assert_eq!((steps(&run_dir).len(), told.try_iter().count()), (50, 0));
}

#[test]
fn all_files_of_rows_are_synced_once_they_hold_what_was_reported() {
    let (noted, notes) = channel();
    let noted = Mutex::new(noted);
    let (_run_dir, mut reporter, _told) = reporter(move |operation, path| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let _ = noted.lock().unwrap().send((operation, name));
        Fate::Done
    });
    reporter.row(&row(1));
    reporter.durable().settle().unwrap();
    let notes: Vec<(Operation, String)> = notes.try_iter().collect();
    let of = |wanted, name: &str| {
        let is_it =
            |(operation, file): &(_, String)| *operation == wanted && file.starts_with(name);
        notes.iter().position(is_it).unwrap()
    };
    for name in ["metrics.jsonl", "events.out"] {
        assert!(of(Operation::Append, name) < of(Operation::Sync, name), "{notes:?}");
    }
    of(Operation::Sync, "eval.jsonl");
}

#[test]
fn a_status_that_cannot_be_written_is_kept_and_the_newest_counts() {
    let (run_dir, reporter, told) = reporter(|_, _| Fate::Done);
    let status = |step| RunStatus {
        state: tessera_control::RunState::Running,
        exit_code: None,
        step,
        world_size: 1,
        message: String::new(),
        process: None,
        attempt: None,
    };
    // A folder in the way of the file.
    let file = RunStatus::file(run_dir.path());
    fs::create_dir_all(file.join("in the way")).unwrap();
    reporter.status(status(1));
    let trouble = told.recv_timeout(PATIENCE).unwrap();
    assert!(trouble.contains("the status of"), "{trouble}");
    assert_eq!(reporter.missing().unwrap(), "status.json");
    fs::remove_dir_all(&file).unwrap();
    reporter.status(status(2));
    assert!(reporter.wait(PATIENCE));
    assert_eq!(RunStatus::read(run_dir.path()).unwrap(), Some(status(2)));
}

#[test]
fn a_run_that_has_lost_its_folder_tells_its_checkpoint_and_its_steps() {
    let run_dir = tempfile::tempdir().unwrap();
    let lost = || Err(TrainError::Lost("it is another one's".to_owned()));
    let mut reporter = Reporter::start(run_dir.path(), Vec::new(), None, lost, |_| ()).unwrap();
    reporter.row(&row(1));
    let error = reporter.durable().settle().unwrap_err();
    assert!(matches!(error, CheckpointError::Lost(_)), "{error}");
    assert!(matches!(reporter.still_ours(), Err(TrainError::Lost(_))));
}

#[test]
fn rows_of_a_file_that_was_removed_do_not_count_as_durable() {
    let (run_dir, mut reporter, _told) = reporter(|_, _| Fate::Done);
    fs::remove_file(run_dir.path().join("metrics.jsonl")).unwrap();
    reporter.row(&row(1));
    let error = reporter.durable().settle().unwrap_err();
    let CheckpointError::File { source, .. } = error else { panic!("{error}") };
    assert_eq!(source.kind(), io::ErrorKind::NotFound);
}
