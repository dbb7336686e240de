//! The single looks that `tessera doctor` takes.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tessera_control::{Quota, allowed_cores, quotas, usable_cores};
use tessera_launch::{
    Gpus, LaunchError, Mpirun, find_gpus, find_worker, loaded_library, missing_libraries,
};

use super::Finding;

const SETUP: &str = "./launch/setup.sh";
const BUILD: &str = "cargo build --release";
const GIB: u64 = 1 << 30;

/// Everything, in the order in which it is needed.
pub(super) fn all() -> Vec<Finding> {
    let gpus = find_gpus();
    let libtorch = libtorch_folder();
    let shared = loader_cache();
    vec![
        mpirun(),
        libmpi(&shared),
        libtorch_finding(libtorch.as_deref(), !gpus.names.is_empty()),
        worker(),
        driver(&gpus),
        gpu_list(&gpus),
        nccl(&gpus, libtorch.as_deref(), &shared),
        cores(),
        memory(),
        shared_memory(),
    ]
}

fn mpirun() -> Finding {
    const FIX: &str = "./launch/setup.sh (or: apt-get install openmpi-bin)";
    match Mpirun::find(None) {
        Ok(found) => {
            Finding::ok("mpirun", format!("{} at {}", found.version, found.path.display()))
        }
        Err(error @ LaunchError::BrokenMpirun { .. }) => {
            Finding::missing("mpirun", error.to_string(), FIX)
        }
        Err(_) => Finding::missing("mpirun", "not on the path", FIX),
    }
}

fn libmpi(shared: &str) -> Finding {
    let found = of_the_worker("libmpi.so").map(shown);
    let found = found.or_else(|| in_loader_cache(shared, "libmpi.so"));
    let found = found.or_else(|| in_library_path("libmpi.so"));
    // Open MPI's wheel has one that finds no compiler.
    let compiler = Command::new("mpicc").arg("--version").stdin(Stdio::null()).output();
    let compiler = compiler.is_ok_and(|said| said.status.success());
    match (found, compiler) {
        (Some(path), true) => {
            Finding::ok("libmpi", format!("{path}, with mpicc to build against it"))
        }
        (Some(path), false) if find_worker().is_ok() => Finding::ok("libmpi", path),
        (Some(path), false) => Finding::warning(
            "libmpi",
            format!("{path}, but no mpicc: tessera-worker cannot be built"),
            "apt-get install libopenmpi-dev",
        ),
        (None, _) => {
            let fix = "./launch/setup.sh (or: apt-get install libopenmpi-dev)";
            Finding::missing("libmpi", "the loader does not find libmpi.so", fix)
        }
    }
}

/// The file that the loader takes for this library of the worker, wherever this command was started.
fn of_the_worker(library: &str) -> Option<PathBuf> {
    loaded_library(&find_worker().ok()?, library)
}

/// The libtorch of the worker; without a worker that which a build would take: the variable, the working
/// folder, the executable's tree.
fn libtorch_folder() -> Option<PathBuf> {
    if let Some(library) = of_the_worker("libtorch_cpu.so") {
        return library.parent().and_then(Path::parent).map(Path::to_owned);
    }
    if let Some(named) = std::env::var_os("LIBTORCH") {
        return Some(named.into());
    }
    let executable = std::env::current_exe().unwrap_or_default();
    let above = executable.ancestors().skip(1).map(Path::to_owned);
    let folders = std::env::current_dir().into_iter().chain(above);
    folders.map(|folder| folder.join(".libtorch")).find(|folder| folder.exists())
}

fn libtorch_finding(folder: Option<&Path>, has_gpu: bool) -> Finding {
    let name = "libtorch";
    let Some(folder) = folder else {
        return Finding::missing(name, "neither LIBTORCH nor .libtorch is there", SETUP);
    };
    let library = |file: &str| folder.join("lib").join(file).exists();
    if !library("libtorch_cpu.so") {
        let detail = format!("{} has no lib/libtorch_cpu.so", folder.display());
        return Finding::missing(name, detail, SETUP);
    }
    let version = libtorch_version(folder).unwrap_or_else(|| "of unknown version".into());
    let kind = if library("libtorch_cuda.so") { "CUDA" } else { "CPU" };
    let detail = format!("{version} ({kind}) at {}", folder.display());
    if has_gpu && kind == "CPU" {
        return Finding::warning(
            name,
            format!("{detail}: leaves the GPU idle"),
            "./launch/setup.sh --cuda",
        );
    }
    Finding::ok(name, detail)
}

fn libtorch_version(folder: &Path) -> Option<String> {
    if let Ok(version) = std::fs::read_to_string(folder.join("build-version")) {
        return Some(version.trim().to_owned());
    }
    // The wheel's header; in a plain download it lies below `include/torch/csrc/api`, too.
    let headers = ["include/torch/version.h", "include/torch/headeronly/version.h"];
    let headers = headers.iter().chain(&["include/torch/csrc/api/include/torch/version.h"]);
    let texts = headers.filter_map(|file| std::fs::read_to_string(folder.join(file)).ok());
    texts.into_iter().find_map(|text| version_of_header(&text))
}

fn version_of_header(text: &str) -> Option<String> {
    if let Some(line) = text.lines().find(|line| line.starts_with("#define TORCH_VERSION \"")) {
        return line.split('"').nth(1).map(str::to_owned);
    }
    let number = |name: &str| {
        let start = format!("#define TORCH_VERSION_{name} ");
        text.lines().find_map(|line| line.strip_prefix(&start)).map(str::trim)
    };
    Some(format!("{}.{}.{}", number("MAJOR")?, number("MINOR")?, number("PATCH")?))
}

fn worker() -> Finding {
    let name = "worker";
    let path = match find_worker() {
        Ok(path) => path,
        Err(error) => return Finding::missing(name, error.to_string(), BUILD),
    };
    let missing = missing_libraries(&path);
    if !missing.is_empty() {
        let detail = format!("{} lacks {}", path.display(), missing.join(", "));
        return Finding::missing(name, detail, "./launch/setup.sh && cargo build --release");
    }
    let answer = Command::new(&path).arg("--version").stdin(Stdio::null()).output();
    match answer {
        Ok(output) if output.status.success() => {
            let version = first_line(&output.stdout);
            Finding::ok(name, format!("{version} at {}", path.display()))
        }
        Ok(output) => {
            let said = first_line(&output.stderr);
            let detail = format!("{} --version: {}, {said}", path.display(), output.status);
            Finding::missing(name, detail, BUILD)
        }
        Err(error) => {
            Finding::missing(name, format!("{} does not start: {error}", path.display()), BUILD)
        }
    }
}

fn driver(gpus: &Gpus) -> Finding {
    let name = "driver";
    match std::fs::read_to_string("/proc/driver/nvidia/version") {
        Ok(text) => {
            let words: Vec<&str> =
                text.lines().next().unwrap_or_default().split_whitespace().collect();
            Finding::ok(name, words.join(" "))
        }
        Err(_) if gpus.names.is_empty() => {
            Finding::absent(name, "no NVIDIA driver: training on CPU")
        }
        Err(_) => Finding::warning(
            name,
            "GPUs are there, but the driver does not show itself in /proc",
            "nvidia-smi",
        ),
    }
}

fn gpu_list(gpus: &Gpus) -> Finding {
    match gpus.names.as_slice() {
        [] => Finding::absent("gpus", format!("none ({})", gpus.source)),
        names => {
            Finding::ok("gpus", format!("{}: {} ({})", names.len(), names.join("; "), gpus.source))
        }
    }
}

fn nccl(gpus: &Gpus, libtorch: Option<&Path>, shared: &str) -> Finding {
    const FILE: &str = "libnccl.so.2";
    let found = in_loader_cache(shared, FILE).or_else(|| in_library_path(FILE)).or_else(|| {
        let root = libtorch?.canonicalize().ok()?;
        // A wheel keeps NCCL beside torch, in nvidia/nccl/lib.
        let folders = [root.join("lib"), root.join("../nvidia/nccl/lib")];
        folders.iter().map(|folder| folder.join(FILE)).find(|file| file.exists()).map(shown)
    });
    match found {
        Some(path) => Finding::ok("nccl", path),
        None if gpus.names.is_empty() => Finding::absent("nccl", "not there, and no GPU needs it"),
        None => {
            let fix = "./launch/setup.sh --cuda";
            Finding::missing("nccl", format!("{FILE} not found, GPUs cannot talk"), fix)
        }
    }
}

fn cores() -> Finding {
    let (allowed, usable) = (allowed_cores().len(), usable_cores().len());
    let least = quotas().into_iter().map(|Quota { cores, .. }| cores).min_by(f64::total_cmp);
    Finding::ok(
        "cores",
        match least {
            Some(least) => format!(
                "{usable} for this process: it may run on {allowed}, with a CPU quota of {least}"
            ),
            None => format!("{usable} for this process"),
        },
    )
}

fn memory() -> Finding {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let (total, free) = (meminfo(&info, "MemTotal:"), meminfo(&info, "MemAvailable:"));
    let detail = format!("{} GiB, {} GiB available", total / GIB, free / GIB);
    if free < GIB {
        let detail = format!("{detail}: a worker takes about 1 GiB");
        return Finding::warning("memory", detail, "ps aux --sort=-rss | head");
    }
    Finding::ok("memory", detail)
}

/// A line of `/proc/meminfo` in bytes.
fn meminfo(info: &str, key: &str) -> u64 {
    let line = info.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap_or(0);
    kib * 1024
}

/// MPI and NCCL carry what ranks of one host exchange through this file system.
fn shared_memory() -> Finding {
    let name = "/dev/shm";
    match rustix::fs::statvfs("/dev/shm") {
        Ok(about) => {
            let mib = about.f_blocks * about.f_frsize / (1 << 20);
            if mib < 256 {
                let fix = "start the container with --shm-size=1g";
                return Finding::warning(name, format!("{mib} MiB: little for several ranks"), fix);
            }
            Finding::ok(name, format!("{mib} MiB"))
        }
        Err(error) => {
            let fix = "mount -t tmpfs tmpfs /dev/shm";
            Finding::missing(name, format!("cannot be used ({error})"), fix)
        }
    }
}

/// What the dynamic loader knows, as `ldconfig -p` lists it.
fn loader_cache() -> String {
    ["ldconfig", "/sbin/ldconfig"]
        .iter()
        .find_map(|program| Command::new(program).arg("-p").stdin(Stdio::null()).output().ok())
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default()
}

/// Path of the first library in the loader's cache whose name starts with `name`.
fn in_loader_cache(cache: &str, name: &str) -> Option<String> {
    let line = cache.lines().find(|line| line.trim_start().starts_with(name))?;
    Some(line.split_once("=> ")?.1.trim().to_owned())
}

fn in_library_path(name: &str) -> Option<String> {
    let folders: OsString = std::env::var_os("LD_LIBRARY_PATH")?;
    std::env::split_paths(&folders).map(|folder| folder.join(name)).find(|p| p.exists()).map(shown)
}

fn shown(path: impl AsRef<Path>) -> String {
    path.as_ref().display().to_string()
}

fn first_line(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_either_kind_of_header() {
        let parts = "#define TORCH_VERSION_MAJOR 2\n#define TORCH_VERSION_MINOR 11\n\
                     #define TORCH_VERSION_PATCH 0\n";
        assert_eq!(version_of_header(parts).as_deref(), Some("2.11.0"));
        let whole = "#define TORCH_VERSION \"2.11.0+cpu\"\n";
        assert_eq!(version_of_header(whole).as_deref(), Some("2.11.0+cpu"));
    }

    #[test]
    fn libraries_and_memory_are_read_from_the_systems_listings() {
        let cache = "2 libs\n\tlibmpi.so.40 (libc6,x86-64) => /usr/lib/libmpi.so.40\n";
        assert_eq!(in_loader_cache(cache, "libmpi.so").as_deref(), Some("/usr/lib/libmpi.so.40"));
        assert_eq!(in_loader_cache(cache, "libnccl.so.2"), None);
        assert_eq!(meminfo("MemTotal:       2048 kB\n", "MemTotal:"), 2 << 20);
    }
}
