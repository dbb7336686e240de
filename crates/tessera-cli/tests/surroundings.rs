//! Commands whose surroundings are not as usual: streams that are closed or that nobody reads, a full disk
//! behind them, names of any bytes, a parent that ignores its children.
//!
//! What is promised: the result and its code, or one line and 2, or an end by SIGPIPE; never a panic.

#![allow(clippy::unwrap_used)] // clippy takes helpers outside a test function for no test

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

const TESSERA: &str = env!("CARGO_BIN_EXE_tessera");
fn fake_worker() -> String {
    std::env::var("CARGO_MANIFEST_DIR").unwrap() + "/tests/fake_worker.sh"
}

fn tessera(words: &[&OsStr]) -> Command {
    let mut command = Command::new(TESSERA);
    command.args(words).env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

/// The same command from a line of a shell, which has it as `"$@"`.
fn through(line: &str, command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", line, "sh"]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell.stdin(Stdio::null());
    shell
}

fn words<'a>(words: &'a [&'a str]) -> Vec<&'a OsStr> {
    words.iter().map(OsStr::new).collect()
}

/// A launch of two workers that speak the protocol and train nothing.
fn launch(run_dir: &Path) -> Command {
    let mut command = tessera(&words(&["launch", "--nproc", "2", "--", "train"]));
    command.env("TESSERA_WORKER", fake_worker()).env("FAKE_RUN", run_dir).env("FAKE_MODE", "end");
    command
}

/// A packed data set of 8 gray pictures, in a folder of this name.
fn packed(folder: &TempDir, name: &OsStr) -> PathBuf {
    let input = folder.path().join("idx");
    fs::create_dir_all(&input).unwrap();
    let mut images = vec![0, 0, 8, 3, 0, 0, 0, 8, 0, 0, 0, 4, 0, 0, 0, 4];
    images.extend([7; 8 * 4 * 4]);
    fs::write(input.join("train-images-idx3-ubyte"), &images).unwrap();
    fs::write(input.join("t10k-images-idx3-ubyte"), &images).unwrap();
    let out = folder.path().join(name);
    let mut pack = words(&["data", "pack", "--format", "idx", "--input"]);
    pack.extend([input.as_os_str(), OsStr::new("--out"), out.as_os_str()]);
    let output = tessera(&pack).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    out
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs with a stdout whose reader has gone.
fn unread(mut command: Command) -> Output {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    command.stdout(writer).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap()
}

#[test]
fn a_result_that_nobody_reads_ends_a_command_by_sigpipe_without_a_word() {
    let folder = TempDir::new().unwrap();
    let data = packed(&folder, "set".as_ref());
    for before in [&["data", "inspect"][..], &["data", "verify"], &["completions"]] {
        let last = if before == ["completions"] { OsStr::new("bash") } else { data.as_os_str() };
        let all: Vec<&OsStr> = words(before).into_iter().chain([last]).collect();
        let Output { status, stderr, .. } = unread(tessera(&all));
        assert_eq!((status.signal(), text(&stderr)), (Some(13), String::new()), "{before:?}");
    }
}

#[test]
fn a_full_disk_behind_stdout_is_one_line_and_2() {
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let output = tessera(&words(&["completions", "bash"])).stdout(full).output().unwrap();
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.contains("cannot be written to standard output"), "{stderr}");
}

#[test]
fn names_of_any_bytes_are_taken_and_leave_one_line() {
    let folder = TempDir::new().unwrap();
    for name in [&b"r\xe9s"[..], b"two\nlines"] {
        let data = packed(&folder, OsStr::from_bytes(name));
        for before in [&["data", "inspect", "--json"][..], &["data", "verify"]] {
            let all: Vec<&OsStr> = words(before).into_iter().chain([data.as_os_str()]).collect();
            let Output { status, stderr, .. } = tessera(&all).output().unwrap();
            assert_eq!(status.code(), Some(0), "{}", text(&stderr));
        }
        let no_run = [OsStr::new("watch"), data.as_os_str()];
        let Output { status, stderr, .. } = tessera(&no_run).output().unwrap();
        let stderr = text(&stderr);
        assert_eq!((status.code(), stderr.lines().count()), (Some(2), 1), "{stderr}");
    }
    let link = folder.path().join("link");
    std::os::unix::fs::symlink("nowhere", &link).unwrap();
    let mut pack = words(&["data", "pack", "--format", "idx", "--input"]);
    let input = folder.path().join("idx");
    pack.extend([input.as_os_str(), OsStr::new("--out"), link.as_os_str()]);
    let output = tessera(&pack).output().unwrap();
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("is a link to nowhere"), "{stderr}");
}

#[test]
fn a_launch_ends_with_the_code_of_the_run_whoever_reads_it_and_whatever_it_inherits() {
    let folder = TempDir::new().unwrap();
    let command = || launch(folder.path());
    let Output { status, stderr, .. } = unread(command());
    assert_eq!(status.code(), Some(0), "{}", text(&stderr));
    for line in [
        "trap '' CHLD; exec \"$@\"",
        "exec \"$@\" <&- >&- 2>&-",
        // Names and values of other programs may be any bytes.
        "exec env \"$(printf 'V\\351=\\351')\" \"$@\"",
    ] {
        let Output { status, stderr, .. } = through(line, &command()).output().unwrap();
        assert_eq!(status.code(), Some(0), "{line}: {}", text(&stderr));
    }
}

#[test]
fn a_temporary_folder_that_open_mpi_cannot_use_is_one_line_and_2() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let Output { status, stderr, .. } =
        launch(folder.path()).env("TMPDIR", &file).output().unwrap();
    let stderr = text(&stderr);
    assert_eq!((status.code(), stderr.lines().count()), (Some(2), 1), "{stderr}");
    let told = format!("mpirun cannot use {} for its temporary files", file.display());
    assert!(stderr.contains(&told) && stderr.contains("set TMPDIR"), "{stderr}");
}

#[test]
fn a_run_folder_is_taken_from_the_worker_by_its_bytes() {
    let folder = TempDir::new().unwrap();
    let name = OsString::from_vec(b"r\xe9s".to_vec());
    let run_dir = folder.path().join(name);
    fs::create_dir(&run_dir).unwrap();
    // Stands in for `tessera-worker resolve`, whose line has a name that is not UTF-8 as its bytes.
    let bytes: Vec<String> =
        run_dir.as_os_str().as_bytes().iter().map(ToString::to_string).collect();
    let worker = folder.path().join("worker");
    let line = format!(r#"{{"run_dir":[{}],"steps":30,"config":{{}}}}"#, bytes.join(","));
    let fake = fake_worker();
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = resolve ] && {{ echo '{line}'; exit 0; }}\nexec {fake} \"$@\"\n"
    );
    fs::write(&worker, script).unwrap();
    fs::set_permissions(&worker, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let Output { status, stdout, stderr } =
        launch(folder.path()).env("TESSERA_WORKER", &worker).output().unwrap();
    assert_eq!(status.code(), Some(0), "{}", text(&stderr));
    assert_eq!(text(&stdout).lines().count(), 1);
    assert!(run_dir.join("workers.json").is_file(), "what is known of the workers is kept there");
}
