//! The documents: what is made from the code is what stands there, links lead somewhere, commands and keys
//! that are shown exist, and the tutorial works word for word.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use tempfile::TempDir;

use crate::support::{outside_cargo, python, root, run, steps_logged, tessera};

/// The README and all pages of the book.
pub(crate) fn pages() -> Vec<PathBuf> {
    let mut all = vec![root().join("README.md")];
    let mut folders = vec![root().join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                all.push(path);
            }
        }
    }
    all.sort();
    all
}

/// A page's path from the root.
pub(crate) fn short(page: &Path) -> String {
    page.strip_prefix(root()).unwrap().display().to_string()
}

/// The anchor that a heading gets.
fn anchor(heading: &str) -> String {
    let heading = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = heading.chars().filter(|&c| c.is_alphanumeric() || " -_".contains(c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// A page's blocks of code: what is behind the opening fence, and the text.
pub(crate) fn blocks(page: &str) -> Vec<(&str, String)> {
    let mut all = Vec::new();
    let mut inside = false;
    for line in page.lines() {
        if let Some(language) = line.strip_prefix("```") {
            inside = !inside;
            if inside {
                all.push((language, String::new()));
            }
        } else if let (true, Some((_, text))) = (inside, all.last_mut()) {
            text.push_str(line);
            text.push('\n');
        }
    }
    all
}

/// The lines within blocks of code, with those that go on joined.
fn code_lines(page: &str) -> Vec<String> {
    let joined = blocks(page).into_iter().map(|(_, text)| text.replace("\\\n", ""));
    joined.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect()
}

#[test]
fn the_reference_is_what_the_code_says() {
    let folder = tempfile::tempdir().unwrap();
    let (code, _, stderr) = run(tessera().arg("reference").arg(folder.path()));
    assert_eq!(code, Some(0), "{stderr}");
    for page in ["commands.md", "keys.md"] {
        let made = fs::read_to_string(folder.path().join(page)).unwrap();
        let kept = fs::read_to_string(root().join("docs/reference").join(page)).unwrap();
        let first = made.lines().zip(kept.lines()).find(|(made, kept)| made != kept);
        assert!(
            made == kept,
            "run `tessera reference docs/reference`; {page} differs at {first:?}"
        );
    }
}

#[test]
fn every_page_is_in_the_summary_and_every_link_leads_somewhere() {
    let mut linked = BTreeSet::new();
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1) {
            let target = link.split(')').next().unwrap();
            if target.starts_with("http") {
                continue;
            }
            let (file, anchor_of) = target.split_once('#').unwrap_or((target, ""));
            let there =
                if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            assert!(there.exists(), "{} links to {target}", short(&page));
            if !anchor_of.is_empty() {
                let text = fs::read_to_string(&there).unwrap();
                let mut headings = text.lines().filter(|line| line.starts_with('#'));
                let found = headings.any(|heading| anchor(heading) == anchor_of);
                assert!(found, "{} links to {target}, a heading that is not there", short(&page));
            }
            if page.ends_with("docs/SUMMARY.md") {
                linked.insert(there.canonicalize().unwrap());
            }
        }
    }
    for page in pages() {
        let known = page.ends_with("README.md") || page.ends_with("SUMMARY.md");
        assert!(known || linked.contains(&page.canonicalize().unwrap()), "{}", short(&page));
    }
}

/// What `tessera COMMAND... --help` says, asked once: a start of the worker takes a third of a second.
fn help(words: &[&str]) -> String {
    static SAID: Mutex<BTreeMap<String, String>> = Mutex::new(BTreeMap::new());
    let ask = || {
        let (code, stdout, stderr) = run(tessera().args(words).arg("--help"));
        assert_eq!(code, Some(0), "tessera {words:?}: {stderr}");
        stdout
    };
    SAID.lock().unwrap().entry(words.join(" ")).or_insert_with(ask).clone()
}

/// Options, keys and commands of one line `tessera ...` that do not exist.
fn unknown(line: &str, keys: &BTreeSet<String>) -> Vec<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let mut commands: Vec<&str> = vec![words[1]];
    // Commands within commands.
    if ["data", "bench", "sweep"].contains(&words[1]) {
        let inner = words.get(2).filter(|word| !word.starts_with('-') && **word != "PATH");
        commands.extend(inner);
    }
    let mut wrong = Vec::new();
    let mut says = help(&commands);
    for (at, word) in words.iter().enumerate().skip(1) {
        if *word == "--" {
            commands = vec![words[at + 1]];
            says = help(&commands);
        }
        let name = word.split('=').next().unwrap();
        if name.len() > 2 && name.starts_with("--") && name != "--help" && !says.contains(name) {
            wrong.push(format!("{name} of {commands:?}"));
        }
        let set = words[at - 1] == "--set" && ["train", "sweep", "launch"].contains(&commands[0]);
        let key = name.trim_matches(|c| "\"'".contains(c));
        if set && key.contains('.') && !keys.contains(key) {
            wrong.push(format!("key {key}"));
        }
    }
    wrong
}

#[test]
fn commands_that_are_shown_have_the_options_and_keys_that_they_are_shown_with() {
    let reference = fs::read_to_string(root().join("docs/reference/keys.md")).unwrap();
    let mut keys = BTreeSet::new();
    let mut table = String::new();
    for line in reference.lines() {
        if let Some(name) = line.strip_prefix("## `[").and_then(|rest| rest.strip_suffix("]`")) {
            table = name.to_owned();
        } else if let Some(rest) = line.strip_prefix("| `") {
            keys.insert(format!("{table}.{}", rest.split('`').next().unwrap()));
        }
    }
    let mut checked = 0;
    for page in pages() {
        // Results tell what was run, with the options of their day.
        if short(&page).starts_with("docs/results") || short(&page).starts_with("docs/reference") {
            continue;
        }
        for line in code_lines(&fs::read_to_string(&page).unwrap()) {
            let Some(at) = line.find("tessera ") else { continue };
            let is_command = line[..at].is_empty() || line[..at].ends_with([' ', '/', '`']);
            let next = line[at + 8..].split_whitespace().next().unwrap_or("");
            if !is_command || !next.chars().all(|c| c.is_ascii_lowercase()) || next.is_empty() {
                continue;
            }
            let line = line[at..].split(['|', ';', '#']).next().unwrap();
            let wrong = unknown(line, &keys);
            assert!(wrong.is_empty(), "{}: {line}: {wrong:?}", short(&page));
            checked += 1;
        }
    }
    assert!(checked > 30, "{checked}");
}

/// Follows the sections of the tutorial that match in an empty folder; what it prints, and the folder.
fn follow_tutorial(sections: &str) -> (String, TempDir) {
    let folder = TempDir::new().unwrap();
    let mut command = Command::new(root().join("launch/follow.sh"));
    command.arg(root().join("docs/tutorial.md")).arg(folder.path());
    command.env("SECTIONS", sections);
    outside_cargo(&mut command);
    let (code, stdout, stderr) = run(&mut command);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    (stdout + &stderr, folder)
}

/// With the programs that are there: its first run.
#[test]
fn the_tutorial_works_as_far_as_its_first_run() {
    let (said, folder) = follow_tutorial("^## 2");
    assert!(said.contains("perplexity"), "{said}");
    assert_eq!(steps_logged(&folder.path().join("runs/first")), 60);
}

mod full {
    use super::*;

    /// From the first run to the page, with the programs of the target folder; with the wheel: launch/test-roots.sh.
    #[test]
    fn the_tutorial_works_word_for_word() {
        let (said, folder) = follow_tutorial("^## [2-9]");
        for words in ["exit code 75", "best", "perplexity"] {
            assert!(said.contains(words), "no {words}: {said}");
        }
        let steps = |run: &str| steps_logged(&folder.path().join("runs").join(run));
        assert_eq!([steps("first"), steps("resumed"), steps("killed"), steps("hosts")], [60; 4]);
        assert!(folder.path().join("sweep.html").is_file());
    }
}

#[test]
fn the_job_for_kubernetes_is_valid() {
    let said = python("kubernetes.py", &root().join("launch/kubernetes.yaml"));
    assert_eq!(said, serde_json::json!({"Launcher": 1, "Worker": 2}));
}
