//! Where the worker's program is, and whether it could start.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::{LaunchError, WORKER};

/// Name of the worker's program.
const NAME: &str = "tessera-worker";

/// How versions of libtorch begin that the worker is built for.
const TORCH: &str = "2.11.";

/// Finds the worker: `TESSERA_WORKER`, then the folder of this executable, then the path.
///
/// # Errors
///
/// [`LaunchError::NoWorker`] if it is at none of these.
pub fn find_worker() -> Result<PathBuf, LaunchError> {
    if let Some(named) = std::env::var_os(WORKER) {
        let named = PathBuf::from(named);
        if !named.is_file() {
            let looked_at = format!("{WORKER} names {}", named.display());
            return Err(LaunchError::NoWorker { looked_at });
        }
        return Ok(named);
    }
    let executable =
        std::env::current_exe().map_err(LaunchError::system("find the own executable"))?;
    sibling(NAME).or_else(|| on_path(NAME)).ok_or_else(|| LaunchError::NoWorker {
        looked_at: format!("neither {} nor on the path", executable.with_file_name(NAME).display()),
    })
}

/// The file called `name` beside this program.
pub(crate) fn sibling(name: &str) -> Option<PathBuf> {
    let file = std::env::current_exe().ok()?.with_file_name(name);
    file.is_file().then_some(file)
}

/// The first executable file called `name` on the path.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| {
        file.metadata()
            .is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
    })
}

/// Names of the shared libraries that the program needs and the loader does not find.
///
/// Asks the dynamic loader itself, as `ldd` does: the program's own code does not run, and a
/// worker without libtorch would die before its first line.
pub fn missing_libraries(program: &Path) -> Vec<String> {
    not_found(&listing(program))
}

/// The file that the loader takes for the library `name` of the program, asked in the same way.
pub fn loaded_library(program: &Path, name: &str) -> Option<PathBuf> {
    file_of(&listing(program), name)
}

fn listing(program: &Path) -> String {
    let listing = Command::new(program)
        .env("LD_TRACE_LOADED_OBJECTS", "1")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    match listing {
        Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Err(_) => String::new(), // Not executable: starting it says so in the system's words.
    }
}

/// The first library of the listing whose name begins so.
fn file_of(listing: &str, name: &str) -> Option<PathBuf> {
    let line = listing.lines().map(str::trim).find(|line| line.starts_with(name))?;
    let file = line.split_once("=> ")?.1.rsplit_once(" (")?.0;
    Some(file.into())
}

/// Refuses a worker that the loader cannot start, or would start with another libtorch than it was built for, before it is started many
/// times.
///
/// # Errors
///
/// [`LaunchError::WorkerLibraries`] names what is missing, [`LaunchError::TorchVersion`] the version.
pub fn check_libraries(worker: &Path) -> Result<(), LaunchError> {
    let listing = listing(worker);
    let missing = not_found(&listing);
    if !missing.is_empty() {
        let (path, libraries) = (worker.to_owned(), missing.join(", "));
        return Err(LaunchError::WorkerLibraries { path, libraries });
    }
    match file_of(&listing, "libtorch_cpu.so")
        .and_then(|library| Some((python_torch(&library)?, library)))
    {
        Some((found, library)) if !found.starts_with(TORCH) => {
            Err(LaunchError::TorchVersion { library, found })
        }
        _ => Ok(()),
    }
}

/// The version of the Python package that a library is of; none of a libtorch of another kind.
fn python_torch(library: &Path) -> Option<String> {
    let text = std::fs::read_to_string(library.parent()?.with_file_name("version.py")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("__version__ = "))?;
    Some(line.trim().trim_matches(['\'', '"']).to_owned())
}

fn not_found(listing: &str) -> Vec<String> {
    let missing = listing.lines().filter_map(|line| line.trim().strip_suffix("=> not found"));
    let mut names: Vec<String> = missing.map(|name| name.trim().to_owned()).collect();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_that_the_loader_misses_are_named() {
        let listing = "\tlinux-vdso.so.1 (0x1)\n\tlibtorch_cpu.so => not found\n\
                       \tlibc.so.6 => /lib/libc.so.6 (0x2)\n";
        assert_eq!(not_found(listing), ["libtorch_cpu.so"]);
        assert_eq!(file_of(listing, "libc.so"), Some("/lib/libc.so.6".into()));
        assert_eq!(file_of(listing, "libtorch_cpu.so"), None);
    }

    #[test]
    fn the_version_of_a_python_package_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let library = folder.path().join("torch/lib/libtorch_cpu.so");
        assert_eq!(python_torch(&library), None);
        std::fs::create_dir_all(library.parent().unwrap()).unwrap();
        let text = "from typing import Optional\n__version__ = '2.12.1+cu130'\ndebug = False\n";
        std::fs::write(folder.path().join("torch/version.py"), text).unwrap();
        assert_eq!(python_torch(&library).as_deref(), Some("2.12.1+cu130"));
    }

    #[test]
    fn this_test_lacks_no_library() {
        assert_eq!(missing_libraries(&std::env::current_exe().unwrap()), [""; 0]);
    }
}
