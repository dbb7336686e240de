//! What the system tells of this process, by the names that Prometheus clients use. Linux alone; elsewhere nothing is told.

use std::fs;

/// Ticks of a second in `/proc`; Linux has had this one on all machines we build for.
const TICKS: f64 = 100.0;

/// One figure of the process.
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) help: &'static str,
    pub(crate) value: f64,
}

/// What is known of the process now.
pub(crate) fn figures() -> Vec<Figure> {
    let mut figures = Vec::new();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| -> Option<f64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    };
    let mut gauge = |name, help, value: Option<f64>| {
        figures.extend(value.map(|value| Figure { name, kind: "gauge", help, value }));
    };
    let resident = field("VmRSS:").map(|kib| kib * 1024.0);
    gauge("process_resident_memory_bytes", "Resident memory.", resident);
    gauge("process_threads", "Threads.", field("Threads:"));
    let open = fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as f64);
    gauge("process_open_fds", "Open file descriptors.", open);
    if let Some(value) = cpu_seconds() {
        let (name, help) = ("process_cpu_seconds_total", "Processor time.");
        figures.push(Figure { name, kind: "counter", help, value });
    }
    figures
}

fn cpu_seconds() -> Option<f64> {
    let text = fs::read_to_string("/proc/self/stat").ok()?;
    // The program's name may hold spaces; what follows its closing bracket does not. Fields 14 and 15 of proc(5).
    let after_name = text.rsplit_once(')')?.1;
    let mut times = after_name.split_whitespace().skip(11);
    let (user, system): (f64, f64) = (times.next()?.parse().ok()?, times.next()?.parse().ok()?);
    Some((user + system) / TICKS)
}
