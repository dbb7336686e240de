//! When a worker has to stop, or to die.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};

/// A flag that SIGTERM, SIGINT and SIGUSR1 set; the training loop carries it to all ranks.
pub(crate) fn stop_on_signals() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT, SIGUSR1] {
        signal_hook::flag::register(signal, Arc::clone(&stop))
            .expect("these signals can be handled");
    }
    stop
}

/// Under mpirun or the launcher: asks the kernel to kill this process when its parent dies, and
/// looks whether that has happened already. A worker that a person started by hand outlives the
/// shell it was started from.
pub(crate) fn end_with_parent() {
    const STARTERS: [&str; 4] =
        ["TESSERA_CONTROL", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK"];
    if STARTERS.iter().all(|name| std::env::var_os(name).is_none()) {
        return;
    }
    let parent = getppid();
    // A failure leaves the control connection as the lifeline.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    if getppid() != parent {
        tessera_comm::exit_now(tessera_control::ExitCode::WorkerLost.code());
    }
}
