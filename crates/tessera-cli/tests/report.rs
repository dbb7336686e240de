//! `tessera report` as a person types it; what is on its pages, `tessera-report` tests itself.

#![allow(clippy::unwrap_used)] // a folder that cannot be made fails its test

use std::fs;
use std::process::{Command, Output};

fn report(words: &[&str], folder: &std::path::Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tessera"));
    command.arg("report").args(words).current_dir(folder).output().unwrap()
}

#[test]
fn a_page_is_written_once_and_replaced_only_on_request() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["runs/a", "runs/b"] {
        fs::create_dir_all(folder.path().join(name)).unwrap();
        let rows = "{\"step\":1,\"loss\":0.5}\n{\"step\":2,\"loss\":0.25}\n";
        fs::write(folder.path().join(name).join("metrics.jsonl"), rows).unwrap();
    }
    let words = ["runs/a", "runs/b", "--out", "compared.html"];
    let done = report(&words, folder.path());
    let said = String::from_utf8(done.stdout).unwrap();
    assert_eq!((done.status.code(), said.as_str()), (Some(0), "compared.html: 2 runs, 0.0 MB\n"));
    let page = fs::read_to_string(folder.path().join("compared.html")).unwrap();
    assert!(page.contains("<h1>Runs a, b</h1>"));

    let refused = report(&words, folder.path());
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("error: compared.html is there already: give --force"), "{said}");
    let titled = ["runs/a", "--out", "compared.html", "--force", "--title", "A & B"];
    assert_eq!(report(&titled, folder.path()).status.code(), Some(0));
    let page = fs::read_to_string(folder.path().join("compared.html")).unwrap();
    assert!(page.contains("<h1>A &amp; B</h1>"));

    let nothing = report(&["runs", "--out", "other.html"], folder.path());
    let said = String::from_utf8(nothing.stderr).unwrap();
    assert_eq!(nothing.status.code(), Some(2), "{said}");
    assert!(
        said.contains("error: runs: no run is there") && !folder.path().join("other.html").exists()
    );
}
