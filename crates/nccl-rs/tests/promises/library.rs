//! Finding the library, and what is said when it is not the right one.

use std::path::Path;
use std::process::Command;

use nccl_rs::{Communicator, Error, Library, Version};

use crate::stand_in::{compile, load, lonely_id, options};

#[test]
fn a_library_tells_its_version_and_where_it_lies() {
    let path = compile(&[]);
    let library = Library::open(&path).unwrap();
    assert_eq!(library.version(), Version { major: 2, minor: 28, patch: 9 });
    assert_eq!(library.path().canonicalize().unwrap(), path.canonicalize().unwrap());
}

#[test]
fn a_missing_library_is_an_error_that_names_what_was_tried() {
    let error = Library::open(Path::new("/nowhere/libnccl.so.2")).unwrap_err();
    let Error::NotFound { tried } = &error else { panic!("{error}") };
    assert_eq!(tried.len(), 1);
    let text = error.to_string();
    assert!(text.contains("/nowhere/libnccl.so.2") && text.contains("No such file"), "{text}");
    assert!(text.contains("NCCL_RS_LIBRARY"), "{text}");
}

#[test]
fn a_file_that_is_no_library_is_an_error_that_names_it() {
    let file = Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("Cargo.toml");
    let text = Library::open(&file).unwrap_err().to_string();
    assert!(text.contains("Cargo.toml") && text.contains("invalid ELF header"), "{text}");
}

/// Prints what `Library::load` finds, for the test below, which runs it in another process.
#[test]
fn loading_is_an_answer_or_an_error_and_no_panic() {
    match Library::load() {
        Ok(library) => println!("found {library:?}"),
        Err(error) => println!("error {error}"),
    }
}

/// In a process of its own, since the variable and the loaded libraries are the process's.
#[test]
fn the_variable_decides_and_without_nccl_both_names_are_reported() {
    let load = |library: Option<&Path>| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "--nocapture"]);
        command.arg("library::loading_is_an_answer_or_an_error_and_no_panic");
        match library {
            Some(path) => command.env("NCCL_RS_LIBRARY", path),
            None => command.env_remove("NCCL_RS_LIBRARY"),
        };
        let output = command.env_remove("LD_LIBRARY_PATH").output().unwrap();
        assert!(output.status.success());
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let path = compile(&["VERSION=22403"]);
    let answer = load(Some(&path));
    assert!(answer.contains(&format!("found NCCL 2.24.3 from {}\n", path.display())), "{answer}");

    let answer = load(Some(Path::new("/nowhere/libnccl.so.2")));
    assert!(answer.contains("error NCCL was not found; tried /nowhere/libnccl.so.2"), "{answer}");

    let answer = load(None);
    if answer.contains("found NCCL") {
        println!("not checked: this machine has NCCL, {answer}");
    } else {
        assert!(answer.contains("libnccl.so.2 (") && answer.contains("libnccl.so ("), "{answer}");
    }
}

#[test]
fn a_library_that_is_too_old_is_refused_with_both_versions() {
    let error = Library::open(&compile(&["VERSION=21302", "WITHOUT_FINALIZE"])).unwrap_err();
    assert!(error.to_string().contains("is NCCL 2.13.2; 2.14.3 or newer is needed"), "{error}");
}

#[test]
fn a_library_of_a_generation_to_come_is_refused() {
    let error = Library::open(&compile(&["VERSION=30001"])).unwrap_err();
    assert!(error.to_string().contains("is NCCL 3.0.1, of which"), "{error}");
}

/// It would leave a file behind.
#[test]
fn another_library_is_refused_before_anything_of_it_runs() {
    let folder = tempfile::tempdir().unwrap();
    let [source, library, ran] =
        ["other.c", "libother.so", "ran"].map(|name| folder.path().join(name));
    let code = format!(
        "#include <fcntl.h>\n__attribute__((constructor)) void run(void) {{ creat({:?}, 0600); }}",
        ran
    );
    std::fs::write(&source, code).unwrap();
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-o"]).args([&library, &source]);
    assert!(cc.status().unwrap().success());
    let error = Library::open(&library).unwrap_err();
    assert!(matches!(error, Error::MissingSymbol { symbol: "ncclGetVersion", .. }), "{error}");
    assert!(!ran.exists());
}

#[test]
fn a_missing_function_is_an_error_that_names_it() {
    let error = Library::open(&compile(&["WITHOUT_FINALIZE"])).unwrap_err();
    assert!(matches!(error, Error::MissingSymbol { symbol: "ncclCommFinalize", .. }), "{error}");
}

#[test]
fn a_function_that_came_later_is_missed_only_when_it_is_called() {
    let library = load(&["VERSION=21705", "WITHOUT_SPLIT", "WITHOUT_REVOKE"]);
    let comm =
        Communicator::init(&library, lonely_id(&library), 1, 0, &options(), || Ok(())).unwrap();
    let error = comm.split(Some(0), 0, &options()).unwrap_err();
    assert_eq!(error.to_string(), "ncclCommSplit needs NCCL 2.18.1 or newer, found 2.17.5");
    let error = comm.revoke().unwrap_err();
    assert_eq!(error.to_string(), "ncclCommRevoke needs NCCL 2.28.7 or newer, found 2.17.5");
    comm.finish().unwrap();
}
