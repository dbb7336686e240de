//! Where the worker's program is, and whether it could start.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::{LaunchError, WORKER};

/// Name of the worker's program.
const NAME: &str = "tessera-worker";

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
    let sibling = executable.with_file_name(NAME);
    if sibling.is_file() {
        return Ok(sibling);
    }
    on_path(NAME).ok_or_else(|| LaunchError::NoWorker {
        looked_at: format!("neither {} nor on the path", sibling.display()),
    })
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

/// Refuses a worker that the loader cannot start, before it is started many times.
///
/// # Errors
///
/// [`LaunchError::WorkerLibraries`] names what is missing.
pub fn check_libraries(worker: &Path) -> Result<(), LaunchError> {
    let missing = missing_libraries(worker);
    if missing.is_empty() {
        return Ok(());
    }
    Err(LaunchError::WorkerLibraries { path: worker.to_owned(), libraries: missing.join(", ") })
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
    fn this_test_lacks_no_library() {
        assert_eq!(missing_libraries(&std::env::current_exe().unwrap()), [""; 0]);
    }
}
