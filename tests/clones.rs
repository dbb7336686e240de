//! Clones that share a target folder share what was built in it: `launch/times.py`.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use crate::support::{root, run};

/// A file that was changed so many seconds ago.
fn write(path: &Path, text: &str, seconds: u64) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    let then = SystemTime::now() - Duration::from_secs(seconds);
    File::options().write(true).open(path).unwrap().set_modified(then).unwrap();
}

fn seconds_old(path: &Path) -> u64 {
    let changed = path.metadata().unwrap().modified().unwrap();
    changed.elapsed().unwrap_or_default().as_secs()
}

fn times(words: &[&Path]) {
    let mut command = Command::new("python3");
    let (code, _, stderr) = run(command.arg(root().join("launch/times.py")).args(words));
    assert_eq!(code, Some(0), "{stderr}");
}

#[test]
fn a_file_that_is_the_same_is_as_old_as_where_it_was_built_and_every_other_is_new() {
    let folder = TempDir::new().unwrap();
    let [last, here, list] = ["last", "here", "list"].map(|name| folder.path().join(name));
    write(&last.join("crates/same.rs"), "same", 5000);
    write(&last.join("crates/edited.rs"), "before", 5000);
    let clone = || {
        write(&here.join("crates/same.rs"), "same", 10);
        write(&here.join("crates/edited.rs"), "after", 9000);
        write(&here.join("tests/added.rs"), "added", 9000);
    };
    let ages = || {
        ["crates/same.rs", "crates/edited.rs", "tests/added.rs"]
            .map(|name| seconds_old(&here.join(name)))
    };
    let shared = |[same, edited, added]: [u64; 3]| {
        (4999..5200).contains(&same) && edited < 200 && added < 200
    };
    clone();
    times(&[&last, &here, &list]);
    assert!(shared(ages()), "{:?}", ages());

    // What a clone that is gone has left, if all of it was committed.
    let git = |words: &[&str]| {
        let (code, _, stderr) = run(Command::new("git").arg("-C").arg(&last).args(words));
        assert_eq!(code, Some(0), "{stderr}");
    };
    git(&["init", "-q"]);
    times(&[Path::new("--note"), &last, &list]);
    assert!(!list.exists(), "nothing of it is committed");
    git(&["add", "."]);
    let name = ["-c", "user.name=a", "-c", "user.email=a@b"];
    git(&[&name[..], &["commit", "-qm", "all"]].concat());
    times(&[Path::new("--note"), &last, &list]);
    fs::remove_dir_all(&last).unwrap();
    clone();
    times(&[&last, &here, &list]);
    assert!(shared(ages()), "{:?}", ages());
    assert!(!list.exists(), "it is of another clone now");
    // Of a third clone nothing is known.
    clone();
    times(&[&folder.path().join("other"), &here, &list]);
    assert!(ages().iter().all(|age| *age < 200), "{:?}", ages());
}
