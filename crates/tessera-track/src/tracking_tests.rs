//! Runs that go back, and rows that are not final.

use std::fs;

use tessera_control::RunState;

use super::*;
use crate::run::tests::{folder, say};

fn options(is_eager: bool) -> Options {
    Options {
        target: Target::Wandb,
        project: "tests".to_owned(),
        uri: String::new(),
        is_eager,
        out: None,
        timeout: Duration::from_secs(1),
        stop: Arc::new(AtomicBool::new(false)),
    }
}

/// Replaces the rows, as a resume does.
fn write_rows(dir: &Path, rows: impl Iterator<Item = (u64, u64)>) {
    let text: String =
        rows.map(|(step, loss)| format!("{{\"step\":{step},\"loss\":{loss}}}\n")).collect();
    fs::write(dir.join("new"), text).unwrap();
    fs::rename(dir.join("new"), dir.join("metrics.jsonl")).unwrap();
}

fn save(dir: &Path, step: u64) {
    fs::create_dir_all(dir.join(format!("checkpoints/step-{step:08}"))).unwrap();
}

#[test]
fn rows_wait_for_the_checkpoint_that_makes_them_final() {
    let run = folder();
    let dir = run.path();
    say(dir, RunState::Running, 0);
    write_rows(dir, (1..=25).map(|step| (step, 0)));
    let mut tracking = Tracking::open(dir, &options(false)).unwrap();
    assert_eq!(tracking.advance().unwrap(), 0);
    assert_eq!(tracking.num_waiting().unwrap(), (25, None));
    save(dir, 10);
    assert_eq!(tracking.advance().unwrap(), 10);
    // A crash: the run resumes from step 10, and writes its rows anew.
    write_rows(dir, (1..=10).map(|step| (step, 0)));
    assert_eq!(tracking.advance().unwrap(), 0);
    write_rows(dir, (1..=10).map(|step| (step, 0)).chain((11..=22).map(|step| (step, 1))));
    save(dir, 20);
    assert_eq!(tracking.advance().unwrap(), 10);
    let (generation, id) = (tracking.cursor().generation, tracking.cursor().id.clone());
    assert_eq!(generation, 0);
    drop(tracking);
    let mut again = Tracking::open(dir, &options(false)).unwrap();
    assert_eq!((again.advance().unwrap(), &again.cursor().id), (0, &id));
    assert_eq!(again.num_waiting().unwrap(), (2, Some(20)));
    say(dir, RunState::Failed, 20);
    assert_eq!(again.advance().unwrap(), 0, "the same command writes them again");
    say(dir, RunState::Done, 22);
    assert_eq!(again.advance().unwrap(), 2);
}

#[test]
fn a_run_that_goes_back_to_before_what_was_final_is_another_run_of_the_tracker() {
    for is_eager in [false, true] {
        let run = folder();
        let dir = run.path();
        say(dir, RunState::Running, 0);
        write_rows(dir, (1..=20).map(|step| (step, 0)));
        save(dir, 10);
        save(dir, 20);
        let mut tracking = Tracking::open(dir, &options(is_eager)).unwrap();
        assert_eq!(tracking.advance().unwrap(), 20);
        let id = tracking.cursor().id.clone();
        fs::rename(dir.join("checkpoints/step-00000020"), dir.join("away")).unwrap();
        write_rows(dir, (1..=10).map(|step| (step, 0)));
        assert_eq!(tracking.advance().unwrap(), 10);
        assert_eq!(tracking.cursor().generation, 1);
        assert_ne!(tracking.cursor().id, id);
        assert_eq!(fs::read_dir(dir.join("track/wandb")).unwrap().count(), 2);
    }
}

#[test]
fn eager_rows_go_at_once_and_those_that_a_resume_takes_back_again() {
    let run = folder();
    let dir = run.path();
    say(dir, RunState::Running, 0);
    write_rows(dir, (1..=15).map(|step| (step, 0)));
    save(dir, 10);
    let mut tracking = Tracking::open(dir, &options(true)).unwrap();
    assert_eq!(tracking.advance().unwrap(), 15);
    write_rows(dir, (1..=10).map(|step| (step, 0)).chain([(11, 1), (12, 1)]));
    assert_eq!(tracking.advance().unwrap(), 2, "11 and 12, which are other ones now");
    assert_eq!(tracking.cursor().generation, 0);
    assert_eq!(tracking.cursor().position.last_step(), Some(12));
}
