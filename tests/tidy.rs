//! What holds for the source itself: the arrows between crates, what the programs link, where
//! `unsafe` may stand, how long a file is, that every configuration resolves.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::{root, run, tessera};

/// Section 2 of docs/architecture.md: a crate and the crates of ours that it may depend on.
const ARROWS: [(&str, &[&str]); 19] = [
    ("nccl-rs", &[]),
    ("tessera-checkpoint", &[]),
    (
        "tessera-cli",
        &[
            "tessera-report",
            "tessera-sweep",
            "tessera-track",
            "tessera-launch",
            "tessera-data",
            "tessera-checkpoint",
            "tessera-control",
        ],
    ),
    ("tessera-baselines", &["tessera-resample"]),
    ("tessera-codec", &[]),
    ("tessera-comm", &["nccl-rs"]),
    ("tessera-control", &[]),
    ("tessera-data", &["tessera-resample"]),
    ("tessera-launch", &["tessera-control"]),
    ("tessera-model", &["tessera-nn", "tessera-data", "tessera-checkpoint", "tessera-codec"]),
    ("tessera-nn", &[]),
    ("tessera-report", &["tessera-sweep", "tessera-launch", "tessera-control"]),
    ("tessera-resample", &[]),
    ("tessera-serve", &[]),
    ("tessera-track", &["tessera-checkpoint", "tessera-control"]),
    ("tessera-sweep", &["tessera-launch", "tessera-checkpoint", "tessera-control"]),
    (
        "tessera-train",
        &[
            "tessera-model",
            "tessera-comm",
            "tessera-nn",
            "tessera-data",
            "tessera-checkpoint",
            "tessera-control",
        ],
    ),
    (
        "tessera-apply",
        &[
            "tessera-model",
            "tessera-comm",
            "tessera-nn",
            "tessera-data",
            "tessera-baselines",
            "tessera-serve",
            "tessera-checkpoint",
            "tessera-codec",
            "tessera-control",
        ],
    ),
    (
        "tessera-worker",
        &[
            "tessera-train",
            "tessera-apply",
            "tessera-serve",
            "tessera-model",
            "tessera-comm",
            "tessera-data",
            "tessera-checkpoint",
            "tessera-control",
        ],
    ),
];
/// Crates that own system libraries, and the file that calls C++ of ours, and so have `unsafe` code.
const OWNS_SYSTEM_LIBRARIES: [&str; 3] = ["nccl-rs", "tessera-comm", "tessera-nn/src/fused"];
const LONGEST_FILE: usize = 500;

/// What cargo says of all packages for this machine: those for others need not have been downloaded.
///
/// Read as plain JSON: a crate that knows the format asks for another feature of serde_json, and would have
/// everything compiled once for the programs and once more for the tests.
fn metadata() -> Value {
    let (_, version, _) = run(Command::new("rustc").arg("-vV"));
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let mut command = Command::new("cargo");
    command.args(["metadata", "--format-version", "1", "--locked", "--offline"]);
    command.args(["--filter-platform", host]).current_dir(root());
    let (code, stdout, stderr) = run(&mut command);
    assert_eq!(code, Some(0), "{stderr}");
    serde_json::from_str(&stdout).unwrap()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

/// The packages of this workspace, each with its name.
fn ours(metadata: &Value) -> Vec<(&str, &Value)> {
    let members = list(&metadata["workspace_members"]);
    let packages = list(&metadata["packages"]).iter();
    let ours = packages.filter(|package| members.contains(&package["id"]));
    ours.map(|package| (package["name"].as_str().unwrap(), package)).collect()
}

#[test]
fn crates_depend_on_one_another_only_along_the_arrows() {
    let metadata = metadata();
    let ours = ours(&metadata);
    let names: BTreeSet<&str> = ours.iter().map(|(name, _)| *name).collect();
    let known: BTreeSet<&str> = ARROWS.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, known, "a crate is new or gone: draw its arrows here and in the docs");
    for (name, allowed) in ARROWS {
        let (_, package) = ours.iter().find(|(found, _)| *found == name).unwrap();
        for dependency in list(&package["dependencies"]) {
            let other = dependency["name"].as_str().unwrap();
            // Of a normal dependency cargo gives no kind.
            let is_arrow = dependency["kind"].is_null() && names.contains(other);
            assert!(!is_arrow || allowed.contains(&other), "{name} must not depend on {other}");
        }
    }
}

/// Major, minor and patch of a version of Rust such as `1.89`.
fn version(text: &str) -> [u64; 3] {
    let mut parts = text.split('.').map(|part| part.parse().unwrap());
    [(); 3].map(|()| parts.next().unwrap_or(0))
}

#[test]
fn no_dependency_asks_for_a_newer_rust_than_we_say() {
    let metadata = metadata();
    let says = ours(&metadata)[0].1["rust_version"].as_str().unwrap().to_owned();
    for package in list(&metadata["packages"]) {
        let asked = package["rust_version"].as_str();
        let fits = asked.is_none_or(|asked| version(asked) <= version(&says));
        assert!(fits, "{} wants {asked:?}", package["name"]);
    }
}

/// Packages with the features that they are compiled with.
fn compiled(words: &[&str]) -> BTreeSet<String> {
    let mut command = Command::new("cargo");
    command.args(["tree", "--locked", "--offline", "--prefix", "none", "--format", "{p} {f}"]);
    let (code, stdout, stderr) = run(command.args(words).current_dir(root()));
    assert_eq!(code, Some(0), "{stderr}");
    stdout.lines().map(|line| line.trim_end_matches(" (*)").to_owned()).collect()
}

/// One dependency of a test that asks for one more feature of, say, serde_json would have both compiled twice,
/// and all that stands on it.
#[test]
fn the_tests_are_built_on_what_the_programs_are_built_on() {
    let programs = compiled(&["-p", "tessera-cli", "-p", "tessera-worker", "-e", "normal,build"]);
    let tests = compiled(&["--workspace", "-e", "normal,build,dev"]);
    let twice: Vec<&String> = programs.difference(&tests).collect();
    assert!(twice.is_empty(), "compiled again for the tests, with other features: {twice:?}");
}

#[test]
fn the_architecture_page_draws_the_same_arrows() {
    let page = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    for (name, allowed) in ARROWS.iter().filter(|(_, allowed)| !allowed.is_empty()) {
        let short = |name: &'static str| name.strip_prefix("tessera").unwrap_or(name);
        let short: Vec<&str> = allowed.iter().map(|name| short(name)).collect();
        let row = format!("| `{name}` | {} |", short.join(", "));
        assert!(page.contains(&row), "docs/architecture.md has no row {row}");
    }
}

/// Names of all packages that building `name` needs, apart from those of its tests.
fn all_dependencies(metadata: &Value, name: &str) -> BTreeSet<String> {
    let nodes: BTreeMap<&str, &Value> = list(&metadata["resolve"]["nodes"])
        .iter()
        .map(|node| (node["id"].as_str().unwrap(), node))
        .collect();
    let names: BTreeMap<&str, &str> = list(&metadata["packages"])
        .iter()
        .map(|package| (package["id"].as_str().unwrap(), package["name"].as_str().unwrap()))
        .collect();
    let start = *names.iter().find(|(_, found)| **found == name).unwrap().0;
    let (mut seen, mut open) = (BTreeSet::new(), vec![start]);
    while let Some(id) = open.pop() {
        if seen.insert(id) {
            let used = list(&nodes[id]["deps"]).iter().filter(|dependency| {
                list(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"] != "dev")
            });
            open.extend(used.map(|dependency| dependency["pkg"].as_str().unwrap()));
        }
    }
    seen.into_iter().map(|id| names[id].to_owned()).collect()
}

#[test]
fn what_a_person_types_needs_neither_torch_nor_mpi() {
    let metadata = metadata();
    for name in [
        "tessera-control",
        "tessera-checkpoint",
        "tessera-data",
        "tessera-launch",
        "tessera-track",
        "tessera-cli",
    ] {
        let all = all_dependencies(&metadata, name);
        for heavy in ["tch", "torch-sys", "mpi", "mpi-sys"] {
            assert!(!all.contains(heavy), "{name} depends on {heavy}");
        }
    }
    // The same question to a crate that does.
    let worker = all_dependencies(&metadata, "tessera-worker");
    assert!(worker.contains("torch-sys") && worker.contains("mpi-sys"), "{worker:?}");
}

/// Names of the libraries that the loader is told to find.
fn needed(program: &Path) -> Vec<String> {
    let (code, stdout, stderr) = run(Command::new("readelf").arg("-d").arg(program));
    assert_eq!(code, Some(0), "readelf, of binutils: {stderr}");
    let lines = stdout.lines().filter(|line| line.contains("(NEEDED)"));
    lines.map(|line| line.split(['[', ']']).nth(1).unwrap().to_owned()).collect()
}

#[test]
fn tessera_links_neither_libtorch_nor_mpi_and_its_worker_both() {
    let tessera = tessera();
    let program = Path::new(tessera.get_program());
    let links = |libraries: &[String], name: &str| {
        libraries.iter().any(|library| library.starts_with(name))
    };
    let own = needed(program);
    assert!(links(&own, "libc.so"), "{own:?}");
    for heavy in ["libtorch", "libc10", "libmpi"] {
        assert!(!links(&own, heavy), "{own:?}");
    }
    let worker = needed(&program.with_file_name("tessera-worker"));
    assert!(links(&worker, "libtorch") && links(&worker, "libmpi"), "{worker:?}");
}

/// Every file below `folder` with one of these extensions, tracked or not; build outputs are left
/// out, and links are not followed.
fn files(folder: &Path, extensions: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let (path, name) = (entry.path(), entry.file_name().into_string().unwrap());
        if entry.file_type().unwrap().is_dir() {
            if !matches!(name.as_str(), "target" | ".git") {
                found.extend(files(&path, extensions));
            }
        } else if path.extension().is_some_and(|e| extensions.iter().any(|&wanted| e == wanted)) {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[test]
fn no_source_file_is_longer_than_500_lines() {
    let mut all = files(&root(), &["rs", "sh", "py"]);
    all.push(root().join(".ci/run"));
    assert!(all.len() > 100, "the search went astray: {} files", all.len());
    for path in all {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= LONGEST_FILE, "{} has {lines} lines", path.display());
    }
}

/// Whether the word stands in the line as code: before any comment, as a whole word.
/// What is built in one clone counts in another (`launch/times.py`), so no program has a clone's place in it: tests are told it when they
/// run.
#[test]
fn no_program_knows_the_clone_that_it_was_built_in() {
    let word = ["env!(\"CARGO_", "MANIFEST_DIR"].concat();
    for folder in ["crates", "tests"] {
        for path in files(&root().join(folder), &["rs"]) {
            let text = fs::read_to_string(&path).unwrap();
            assert!(!text.contains(&word), "{}: ask std::env::var", path.display());
        }
    }
}

fn has_word(line: &str, word: &str) -> bool {
    let code = line.split("//").next().unwrap();
    let is_part = |letter: char| letter.is_alphanumeric() || letter == '_';
    code.match_indices(word).any(|(at, _)| {
        !code[..at].ends_with(is_part) && !code[at + word.len()..].starts_with(is_part)
    })
}

#[test]
fn code_that_is_not_checked_stands_only_where_system_libraries_are_and_says_why_it_holds() {
    let word = concat!("un", "safe");
    let mut blocks = 0;
    for path in files(&root(), &["rs"]) {
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for (at, _) in lines.iter().enumerate().filter(|(_, line)| has_word(line, word)) {
            let place = format!("{}:{}", path.display(), at + 1);
            let owned = OWNS_SYSTEM_LIBRARIES
                .iter()
                .any(|name| path.starts_with(root().join("crates").join(name)));
            assert!(owned, "{place}: no such code here");
            if has_word(lines[at], "extern") {
                continue; // the type of a function of C's, not a block
            }
            // What a caller must see to stands in the documentation; what makes a block hold, above
            // the statement that it is in.
            let above = lines[..at].iter().rev().take_while(|line| !line.trim().is_empty());
            let is_noted = if has_word(lines[at], "fn") {
                above.take(40).any(|line| line.trim() == "/// # Safety")
            } else {
                above.take(12).any(|line| line.trim().starts_with("// SAFETY: "))
            };
            assert!(is_noted, "{place}: no SAFETY note");
            blocks += 1;
        }
    }
    assert!(blocks >= 5, "the search went astray: {blocks} blocks");
}

/// `configurations.rs` resolves them.
#[test]
fn every_configuration_begins_with_its_command() {
    let all = files(&root().join("configs"), &["toml"]);
    assert!(all.len() >= 2, "{all:?}");
    for path in all {
        let text = fs::read_to_string(&path).unwrap();
        let first = text.lines().next().unwrap();
        let name = path.strip_prefix(root()).unwrap().display();
        if path.starts_with(root().join("configs/sweeps")) {
            let sweep = tessera_sweep::Sweep::read(&path, &[]).unwrap();
            sweep.validate(1 << 40).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(first, format!("# tessera sweep --config {name}"));
            continue;
        }
        assert!(first.starts_with("# tessera launch "), "{name}: {first}");
        assert!(first.ends_with(&format!("train --config {name}")), "{name}: {first}");
    }
}
