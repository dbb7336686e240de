//! Run folders of W&B: their records, and kills between any two bytes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tessera_control::RunState;

use super::*;
use crate::run::tests::{folder, say};
use crate::{Options, Target, Tracking};

fn options() -> Options {
    Options {
        target: Target::Wandb,
        project: "tests".to_owned(),
        uri: String::new(),
        is_eager: false,
        out: None,
        timeout: Duration::from_secs(1),
        stop: Arc::new(AtomicBool::new(false)),
    }
}

/// A run of `steps` steps with a row each, `loss` = 1 / step.
fn write_run(dir: &Path, steps: u64) {
    let rows: Vec<String> = (1..=steps)
        .map(|step| {
            format!("{{\"step\":{step},\"loss\":{},\"step_ms\":1000.0}}\n", 1.0 / step as f64)
        })
        .collect();
    fs::write(dir.join("metrics.jsonl"), rows.concat()).unwrap();
    fs::write(dir.join("config.toml"), "seed = 7\n[train]\nsteps = 5\n").unwrap();
    say(dir, RunState::Done, steps);
}

fn log_of(dir: &Path) -> PathBuf {
    let mut runs = fs::read_dir(dir.join("track/wandb")).unwrap();
    let folder = runs.next().unwrap().unwrap().path();
    assert!(runs.next().is_none(), "one run");
    let name = folder.file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with("offline-run-") && folder.join("files").is_dir(), "{name}");
    let id = name.rsplit('-').next().unwrap();
    folder.join(format!("run-{id}.wandb"))
}

fn read(log: &Path) -> Vec<Record> {
    let records = super::log::records(&fs::read(log).unwrap()).expect("whole records");
    let records: Vec<_> =
        records.iter().map(|record| Record::decode(record.as_slice()).unwrap()).collect();
    let numbers: Vec<i64> = records.iter().map(|record| record.num).collect();
    assert_eq!(numbers, (1..=records.len() as i64).collect::<Vec<_>>(), "numbered");
    records
}

/// Steps and losses of the rows.
fn rows(log: &Path) -> Vec<(i64, f64)> {
    let history = read(log).into_iter().filter_map(|record| record.history);
    let row = |history: History| {
        let items = history.items.iter().map(|item| (item.key.as_str(), item.value_json.as_str()));
        let items: BTreeMap<&str, &str> = items.collect();
        let step = history.step.unwrap().num;
        assert_eq!(items["_step"].parse::<i64>().unwrap(), step);
        (step, items["train/loss"].parse().unwrap())
    };
    history.map(row).collect()
}

fn expected(steps: u64) -> Vec<(i64, f64)> {
    (1..=steps).map(|step| (step as i64, 1.0 / step as f64)).collect()
}

fn track(dir: &Path) {
    let mut tracking = Tracking::open(dir, &options()).unwrap();
    tracking.advance().unwrap();
    tracking.close(Some(Ending::Done)).unwrap();
}

#[test]
fn a_finished_run_is_a_run_record_its_rows_a_summary_and_an_exit() {
    let run = folder();
    write_run(run.path(), 5);
    track(run.path());
    let log = log_of(run.path());
    let records = read(&log);
    let first = records[0].run.as_ref().unwrap();
    assert_eq!(first.project, "tests");
    let config = &first.config.as_ref().unwrap().update;
    assert_eq!(config[0], Item { key: "seed".into(), value_json: "7".into() });
    assert_eq!(config[1], Item { key: "train".into(), value_json: "{\"steps\":5}".into() });
    assert_eq!(rows(&log), expected(5));
    let summary = &records[6].summary.as_ref().unwrap().update;
    assert!(summary.contains(&Item { key: "train/loss".into(), value_json: "0.2".into() }));
    assert_eq!(records[7].exit.unwrap().exit_code, 0);
    assert_eq!(records.len(), 8);
    // The same again changes nothing that a server would see.
    track(run.path());
    assert_eq!(read(&log), records);
    let yaml = fs::read_to_string(log.with_file_name("files/config.yaml")).unwrap();
    assert_eq!(yaml, "wandb_version: 1\nseed:\n  value: 7\ntrain:\n  value: {\"steps\":5}\n");
}

#[test]
fn a_kill_at_any_byte_of_what_is_appended_leaves_every_row_once() {
    let run = folder();
    write_run(run.path(), 3);
    track(run.path());
    let log = log_of(run.path());
    let counted = Tracking::open(run.path(), &options()).unwrap().cursor().wandb.bytes;
    let cursor = fs::read_dir(run.path().join("track")).unwrap();
    let cursor = cursor.map(|entry| entry.unwrap().path());
    let cursor = cursor.filter(|path| path.extension().is_some_and(|name| name == "json"));
    let cursor = cursor.last().unwrap();
    let before = fs::read(&cursor).unwrap();
    // Two more rows are written, and the process dies before the cursor is: at each length of the log.
    write_run(run.path(), 5);
    track(run.path());
    let whole = fs::read(&log).unwrap();
    for length in counted as usize..=whole.len() {
        fs::write(&log, &whole[..length]).unwrap();
        fs::write(&cursor, &before).unwrap();
        track(run.path());
        assert_eq!(rows(&log), expected(5), "{length} of {} bytes", whole.len());
    }
    // A log that was damaged before what the cursor counts is written again.
    for length in [0, 1, 7, 100, counted as usize - 1] {
        fs::write(&log, &whole[..length]).unwrap();
        track(run.path());
        assert_eq!(rows(&log_of(run.path())), expected(5), "{length} bytes are left");
    }
    fs::remove_dir_all(run.path().join("track/wandb")).unwrap();
    track(run.path());
    assert_eq!(rows(&log), expected(5), "the folder was removed");
}

#[test]
fn a_run_that_goes_on_after_its_end_has_one_end_and_its_new_configuration() {
    let run = folder();
    write_run(run.path(), 3);
    track(run.path());
    write_run(run.path(), 4);
    fs::write(run.path().join("config.toml"), "seed = 8\n").unwrap();
    track(run.path());
    let log = log_of(run.path());
    assert_eq!(rows(&log), expected(4));
    let records = read(&log);
    assert_eq!(records.iter().filter(|record| record.exit.is_some()).count(), 1);
    let config = records.iter().find_map(|record| record.config.clone()).unwrap();
    assert_eq!(config.update, [Item { key: "seed".into(), value_json: "8".into() }]);
}

#[test]
fn pictures_and_sounds_are_copied_and_named_in_the_row_of_their_step() {
    let run = folder();
    write_run(run.path(), 2);
    let pictures = run.path().join("reconstructions");
    fs::create_dir(&pictures).unwrap();
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
    png.extend([0, 0, 0, 3, 0, 0, 0, 2]);
    fs::write(pictures.join("step-2.png"), &png).unwrap();
    fs::write(pictures.join("step-2.wav"), b"RIFF").unwrap();
    fs::write(pictures.join("step-1.png"), b"not a picture").unwrap();
    fs::create_dir(run.path().join("model")).unwrap();
    fs::write(run.path().join("model/model.safetensors"), b"weights").unwrap();
    track(run.path());
    let log = log_of(run.path());
    let records = read(&log);
    let files = records.iter().find_map(|record| record.files.clone()).unwrap().files;
    let history = records.iter().filter_map(|record| record.history.clone()).next_back().unwrap();
    let value = |key: &str| {
        let item = history.items.iter().find(|item| item.key == key).unwrap();
        serde_json::from_str::<Value>(&item.value_json).unwrap()
    };
    let picture = value("reconstructions");
    assert_eq!(picture["_type"], "image-file");
    assert_eq!((&picture["width"], &picture["height"]), (&json!(3), &json!(2)));
    assert_eq!(value("reconstructions_sound")["_type"], "audio-file");
    for (file, bytes) in files.iter().zip([&png[..], b"RIFF"]) {
        assert_eq!(fs::read(log.with_file_name("files").join(&file.path)).unwrap(), bytes);
    }
    let last = records.iter().filter_map(|record| record.files.clone()).next_back().unwrap().files;
    assert_eq!(last[0].path, "model/model.safetensors");
    let model = log.with_file_name("files/model/model.safetensors");
    assert_eq!(fs::read(model).unwrap(), b"weights");
    assert_eq!(rows(&log), expected(2));
}

#[test]
fn dates_are_those_of_the_calendar() {
    // `date -u -d @SECONDS +%Y%m%d_%H%M%S`
    for (seconds, text) in [
        (0, "19700101_000000"),
        (951_782_400, "20000229_000000"),
        (1_709_251_199, "20240229_235959"),
        (4_107_542_400, "21000301_000000"),
    ] {
        assert_eq!(date(seconds), text);
    }
}
