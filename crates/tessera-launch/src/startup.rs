//! Why mpirun has ended before any worker came, where that is known: its surroundings, and what to do.
//!
//! Open MPI crashes or gives up at its start where the host's name is too long for it, where it cannot use the
//! temporary folder, and where the user has no entry in the list of users. What it prints then is pages
//! long and names none of these.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// Letters of a host's name that every Open MPI takes: 4.1.4 writes behind its buffer with 57.
const LONGEST_NAME: usize = 56;

/// The reason, from what mpirun `said` last, its `status`, and the name of this host.
pub(crate) fn explain(said: &[&str], status: ExitStatus, host: &str) -> Option<String> {
    if let Some(problem) = no_folder(said) {
        return Some(problem);
    }
    // Its own signal: for that of a worker it answers 128 and the signal.
    let crashed = status.signal().filter(|signal| matches!(signal, 6 | 7 | 11))?;
    if host.len() > LONGEST_NAME {
        return Some(format!(
            "mpirun crashed at its start (signal {crashed}): the name of this host has {} letters, more than \
             Open MPI takes; give it one of at most {LONGEST_NAME}, as with docker run --hostname",
            host.len()
        ));
    }
    let text = said.join(" ");
    if text.contains("home_directory") {
        return Some(format!(
            "mpirun crashed at its start (signal {crashed}): it finds no home folder of this user; set HOME"
        ));
    }
    Some(format!(
        "mpirun crashed at its start (signal {crashed}), before any worker: try `mpirun -n 1 true`, and if that \
         crashes too, name another one with --mpirun"
    ))
}

/// The temporary folder that cannot be used, with mpirun's reason.
fn no_folder(said: &[&str]) -> Option<String> {
    let behind = |start: &str| said.iter().find_map(|line| line.trim().strip_prefix(start));
    let folder = behind("Directory:")?.trim();
    let reason = behind("Error:").map_or("no reason given", str::trim);
    // Open MPI's own folder lies in it: TMPDIR/ompi.HOST.UID/...
    let folder = folder.split_once("/ompi.").map_or(folder, |(above, _)| above);
    Some(format!(
        "mpirun cannot use {folder} for its temporary files ({reason}): set TMPDIR to a folder that can be \
         written and has space"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words of Open MPI 4.1.4 with a file, and with a folder of another user, as TMPDIR.
    #[test]
    fn a_temporary_folder_that_cannot_be_used_is_named() {
        let said = [
            "A call to mkdir was unable to create the desired directory:",
            "  Directory: /data/x/ompi.vm.65534",
            "  Error:     Permission denied",
        ];
        let message = explain(&said, ExitStatus::from_raw(1 << 8), "vm").unwrap();
        assert!(message.contains("cannot use /data/x for its temporary files (Permission denied)"));
        assert!(message.contains("set TMPDIR"), "{message}");
    }

    #[test]
    fn a_crash_at_the_start_is_laid_to_the_long_name_or_the_missing_home() {
        let (aborted, segfault) = (ExitStatus::from_raw(6), ExitStatus::from_raw(11));
        let message = explain(&[], aborted, &"h".repeat(57)).unwrap();
        assert!(message.contains("has 57 letters") && message.contains("at most 56"), "{message}");
        let said = ["[vm:7] [ 1] /lib/libpmix.so.2(pmix_home_directory+0x19)[0x7fe4df8e3ca9]"];
        assert!(explain(&said, segfault, "vm").unwrap().ends_with("set HOME"));
        assert!(explain(&[], segfault, "vm").unwrap().contains("--mpirun"));
        // Killed from outside, or ended with a code of its own: nothing is known of that.
        assert_eq!(explain(&[], ExitStatus::from_raw(9), "vm"), None);
        assert_eq!(explain(&["what"], ExitStatus::from_raw(139 << 8), &"h".repeat(60)), None);
    }
}
