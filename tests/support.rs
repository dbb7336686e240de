//! Starting the real programs on small runs, and reading what they leave.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::geteuid;
use serde_json::Value;

/// Far above what anything here takes, so that a slow machine fails nothing.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("../..").canonicalize().unwrap()
}

/// `tessera`, with its worker beside it.
pub(crate) fn tessera() -> Command {
    let program = Path::new(env!("CARGO_BIN_EXE_tessera"));
    let worker = program.with_file_name("tessera-worker");
    assert!(
        worker.is_file(),
        "{} is missing: run launch/test.sh, or cargo build --release -p tessera-worker",
        worker.display()
    );
    let mut command = Command::new(program);
    command.current_dir(root()).env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

/// `tessera launch --nproc N -- train` of the smoke configuration with these settings.
pub(crate) fn train(nproc: usize, run_dir: &Path, settings: &[&str]) -> Command {
    train_file(Path::new("configs/smoke.toml"), nproc, run_dir, settings)
}

/// The same of any configuration.
pub(crate) fn train_file(
    config: &Path,
    nproc: usize,
    run_dir: &Path,
    settings: &[&str],
) -> Command {
    let mut command = tessera();
    command.args(["launch", "--nproc", &nproc.to_string(), "--", "train", "--config"]);
    command.arg(config).arg("--run-dir").arg(run_dir);
    // Each rank writes a file, however small it is.
    for setting in ["checkpoint.file_mib=0"].iter().chain(settings) {
        command.args(["--set", setting]);
    }
    command
}

/// Makes a script find what it would find in a shell: the programs on the path, and nothing of what cargo tells tests.
pub(crate) fn outside_cargo(command: &mut Command) -> &mut Command {
    // `OUT_DIR` above all, which ring's build asks for, would have much compiled anew.
    for (name, _) in std::env::vars() {
        let is_kept = ["CARGO_HOME", "CARGO_TARGET_DIR"].contains(&&*name);
        let is_cargos =
            name == "OUT_DIR" || name.starts_with("CARGO") || name.starts_with("NEXTEST");
        let is_libtorchs = name == "LD_LIBRARY_PATH"
            || (name == "LIBTORCH"
                && Path::new(&std::env::var(&name).unwrap()).ends_with(".libtorch"));
        if (is_cargos && !is_kept) || is_libtorchs {
            command.env_remove(name);
        }
    }
    // Where a shared build folder has the programs, they are not in the clone's target/release.
    let program = tessera();
    let programs = Path::new(program.get_program()).parent().unwrap();
    let path = std::env::var("PATH").unwrap();
    command.env("PATH", format!("{}:{path}", programs.display()))
}

/// Runs to the end; code, stdout, stderr.
pub(crate) fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (status.code(), text(stdout), text(stderr))
}

/// Writes a script that can be run.
pub(crate) fn write_program(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// Starts in the background, with its output thrown away.
pub(crate) fn start(command: &mut Command) -> Child {
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Waits until `ready` holds; fails the test after [`PATIENCE`].
pub(crate) fn wait_until(what: &str, mut ready: impl FnMut() -> bool) {
    let start = Instant::now();
    while !ready() {
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Steps in `metrics.jsonl` so far.
pub(crate) fn steps_logged(run_dir: &Path) -> u64 {
    std::fs::read_to_string(run_dir.join("metrics.jsonl"))
        .unwrap_or_default()
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter_map(|row| row["step"].as_u64())
        .max()
        .unwrap_or(0)
}

/// The rows of `metrics.jsonl`, or of `eval.jsonl`, without what is measured.
pub(crate) fn rows(run_dir: &Path, file: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(run_dir.join(file)).unwrap();
    let mut rows: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for row in &mut rows {
        let row = row.as_object_mut().unwrap();
        for measured in tessera_control::MEASURED {
            row.remove(measured);
        }
    }
    rows
}

/// What a script of `tests/python` prints, as JSON.
pub(crate) fn python(script: &str, argument: &Path) -> Value {
    let made = || {
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
        cache.map(|cache| cache.join("tessera/python/bin/python"))
    };
    let python = std::env::var_os("TESSERA_PYTHON").map(PathBuf::from).or_else(made).unwrap();
    assert!(
        python.is_file(),
        "{} is missing: run launch/python.sh, or name a Python with tensorboard, safetensors and \
         numpy in TESSERA_PYTHON",
        python.display()
    );
    let mut command = Command::new(python);
    let (code, stdout, stderr) =
        run(command.arg(root().join("tests/python").join(script)).arg(argument));
    assert_eq!(code, Some(0), "{stderr}");
    serde_json::from_str(&stdout).unwrap()
}

/// Kind, shape and bytes of every tensor of the checkpoint of `step`.
pub(crate) fn tensors(
    run_dir: &Path,
    step: u64,
) -> BTreeMap<String, (String, Vec<usize>, Vec<u8>)> {
    let folder = run_dir.join(format!("checkpoints/step-{step:08}"));
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            let bytes = std::fs::read(&path).unwrap();
            for (name, view) in safetensors::SafeTensors::deserialize(&bytes).unwrap().tensors() {
                let value =
                    (format!("{:?}", view.dtype()), view.shape().to_vec(), view.data().to_vec());
                all.insert(name, value);
            }
        }
    }
    all
}

/// Processes, other than this one, whose command line or environment names `run_dir`.
pub(crate) fn processes_of(run_dir: &Path) -> Vec<String> {
    let needle = run_dir.to_str().unwrap().as_bytes().to_vec();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let folder = entry.path();
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let command = std::fs::read(folder.join("cmdline")).unwrap_or_default();
        let environment = std::fs::read(folder.join("environ")).unwrap_or_default();
        let names = |bytes: &[u8]| bytes.windows(needle.len()).any(|part| part == needle);
        if pid != std::process::id() && (names(&command) || names(&environment)) {
            let line = String::from_utf8_lossy(&command).replace('\0', " ");
            found.push(format!("{pid}: {line}"));
        }
    }
    found
}

/// A bare `mpirun` of this many workers, in the words of a person who knows their flags.
pub(crate) fn mpirun(nproc: usize) -> Command {
    let tessera = tessera();
    let mut command = Command::new("mpirun");
    command.current_dir(root()).env_remove("RUST_LOG").stdin(Stdio::null());
    for (name, value) in [
        // Open MPI refuses root, and more ranks than cores, unless told (4.x, then 5.x).
        ("OMPI_ALLOW_RUN_AS_ROOT", "1"),
        ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"),
        ("PRTE_ALLOW_RUN_AS_ROOT", "1"),
        ("PRTE_ALLOW_RUN_AS_ROOT_CONFIRM", "1"),
        ("OMPI_MCA_rmaps_base_oversubscribe", "1"),
        ("PRTE_MCA_rmaps_default_mapping_policy", ":oversubscribe"),
    ] {
        command.env(name, value);
    }
    command.args(["-np", &nproc.to_string()]).arg(tessera.get_program());
    command
}

/// Waits for the worker of `rank` and answers its process id.
pub(crate) fn worker_pid(run_dir: &Path, rank: usize) -> i32 {
    let mut pid = None;
    wait_until("the worker lives", || {
        pid = find_worker(run_dir, rank);
        pid.is_some()
    });
    pid.unwrap()
}

fn find_worker(run_dir: &Path, rank: usize) -> Option<i32> {
    let marks = ["OMPI_COMM_WORLD_RANK", "PMI_RANK"].map(|name| format!("{name}={rank}"));
    for line in processes_of(run_dir) {
        let pid: i32 = line.split_once(':')?.0.parse().ok()?;
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let is_rank = environment
            .split(|&byte| byte == 0)
            .any(|variable| marks.iter().any(|mark| mark.as_bytes() == variable));
        let program = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        if is_rank && program.file_name().is_some_and(|name| name == "tessera-worker") {
            return Some(pid);
        }
    }
    None
}

/// Lines of stderr that tell an error.
pub(crate) fn errors(stderr: &str) -> Vec<&str> {
    stderr.lines().filter(|line| line.starts_with("error:")).collect()
}

/// Steps of the checkpoints with a final name, oldest first.
pub(crate) fn checkpoints(run_dir: &Path) -> Vec<u64> {
    tessera_checkpoint::list(&run_dir.join("checkpoints"))
        .unwrap()
        .into_iter()
        .map(|(step, _)| step)
        .collect()
}

/// Flips the lowest bit of the byte at `at`; from the end if negative.
pub(crate) fn flip_bit(path: &Path, at: isize) {
    let mut bytes = std::fs::read(path).unwrap();
    let len = isize::try_from(bytes.len()).unwrap();
    bytes[usize::try_from(at.rem_euclid(len)).unwrap()] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

/// IDX bytes by hand: magic, big-endian lengths, elements.
pub(crate) fn idx(dims: &[u32], elements: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, u8::try_from(dims.len()).unwrap()];
    bytes.extend(dims.iter().flat_map(|dim| dim.to_be_bytes()));
    bytes.extend(elements);
    bytes
}

/// Writes an IDX data set of 16 training and 8 test images, 8 by 8: image i is 8 * i everywhere.
pub(crate) fn write_idx(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    for (name, count) in [("train", 16u8), ("t10k", 8)] {
        let pixels: Vec<u8> = (0..count).flat_map(|image| [8 * image; 64]).collect();
        let images = idx(&[u32::from(count), 8, 8], &pixels);
        std::fs::write(folder.join(format!("{name}-images-idx3-ubyte")), images).unwrap();
    }
}

/// That data set packed: four training shards of four samples, two test shards.
pub(crate) fn packed(folder: &Path) -> PathBuf {
    write_idx(&folder.join("idx"));
    let out = folder.join("packed");
    let mut pack = tessera();
    pack.args(["data", "pack", "--format", "idx", "--shard-samples", "4", "--input"]);
    let (code, _, stderr) = run(pack.arg(folder.join("idx")).arg("--out").arg(&out));
    assert_eq!(code, Some(0), "{stderr}");
    out
}

/// Settings that make a run read these shards.
pub(crate) fn data_settings(packed: &Path) -> [String; 3] {
    let path = format!("data.path={}", packed.display());
    ["data.kind=packed".into(), path, "train.global_batch=8".into()]
}

/// Runs `command` where `folder` is a file system of its own, made with these options of mount;
/// lists the folder's files after it, each as `left: PATH`.
///
/// A mount namespace of its own: nothing is mounted outside, and nothing stays if this test dies.
pub(crate) fn mounted(folder: &Path, options: &str, command: &Command) -> Command {
    let mut around = Command::new("unshare");
    if !geteuid().is_root() {
        around.arg("--map-root-user"); // a user namespace may mount for itself
    }
    let script = "mount -t tmpfs -o \"$1\" tessera-test \"$2\" || {
            echo 'this test needs to mount a tmpfs: root with CAP_SYS_ADMIN, or user namespaces' >&2
            exit 99
        }
        folder=$2; shift 2
        \"$@\"; code=$?
        find \"$folder\" -mindepth 1 | sort | sed 's/^/left: /' >&2
        exit $code";
    around.args(["--mount", "sh", "-c", script, "sh", options]).arg(folder);
    around.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => around.env(name, value),
            None => around.env_remove(name),
        };
    }
    around.current_dir(root());
    around
}
