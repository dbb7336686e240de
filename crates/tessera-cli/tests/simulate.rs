//! The launcher and many ranks that one process plays, in a short form; `tessera chaos --simulate 4096` is the
//! long one.

#![allow(clippy::unwrap_used)] // clippy takes helpers outside a test function for no test

use std::process::Command;

use serde_json::Value;

#[test]
fn a_start_a_death_a_silent_host_and_restarts_of_64_ranks_end_as_promised() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tessera"));
    let output = command.args(["chaos", "--simulate", "64", "--json"]).output().unwrap();
    let (stdout, stderr) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{stdout}{stderr}");
    let rows: Vec<Value> = serde_json::from_str(&stdout).unwrap();
    let of = |key: &str| rows.iter().map(|row| row[key].clone()).collect::<Vec<_>>();
    assert_eq!(of("scenario"), ["start", "death", "silent-host", "restarts"]);
    assert_eq!(of("exit_code"), [0, 3, 4, 0]);
    for row in &rows {
        // One a worker, and a few: pipes, the poll, the log.
        assert!(row["descriptors"].as_u64().unwrap() < 64 + 40, "{row}");
    }
}

#[test]
fn what_is_too_few_to_be_played_is_refused() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tessera"));
    let output = command.args(["chaos", "--simulate", "8"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let mut command = Command::new(env!("CARGO_BIN_EXE_tessera"));
    assert_eq!(command.arg("chaos").output().unwrap().status.code(), Some(2), "no configuration");
}
