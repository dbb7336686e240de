//! The fault matrix: every fault of `tessera chaos`, once, on a short run. Each has its culprit named
//! and its exit code, and ends, resumed or started again, bit for bit like the undisturbed run.

use tempfile::TempDir;

use crate::support::{run, tessera};

/// Runs the faults whose names begin so.
fn chaos(faults: &str) -> String {
    let folder = TempDir::new().unwrap();
    let mut command = tessera();
    command.args(["chaos", "--config", "configs/smoke.toml", "--faults", faults, "--seed", "3"]);
    command.args(["--kills", "8", "--out"]).arg(folder.path());
    let (code, stdout, stderr) = run(&mut command);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    println!("{stdout}");
    stdout
}

fn assert_passed(table: &str, num: usize) {
    assert_eq!(table.lines().filter(|line| line.contains("| ok |")).count(), num, "{table}");
}

#[test]
fn workers_killed_in_any_phase() {
    assert_passed(&chaos("kill-"), 6);
}

#[test]
fn workers_that_end_stop_or_disagree() {
    assert_passed(&chaos("exit,panic,segfault,stop,skip,shape"), 6);
}

#[test]
fn numbers_saves_signals_and_neighbours() {
    assert_passed(&chaos("nan,slow,save-,bit-flip,signal-,launcher-kill,two,worlds"), 12);
}

#[test]
fn one_run_killed_again_and_again() {
    assert_passed(&chaos("many-kills"), 1);
}

#[test]
fn every_fault_is_in_one_of_these_tests() {
    let (code, stdout, _) = run(tessera().args(["chaos", "--config", "x", "--faults", "list"]));
    assert_eq!(code, Some(0));
    assert_eq!(stdout.lines().count(), 6 + 6 + 12 + 1, "{stdout}");
}
