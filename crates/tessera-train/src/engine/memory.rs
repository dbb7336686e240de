//! How much memory rank 0 takes, for its rows.

use std::fs;

use tessera_comm::RankDevice;

use super::figures::Figure;

/// Most memory that this process has had, and what is in use on its GPU, in MiB; each only where the system says.
pub(super) fn figures(device: &RankDevice) -> impl Iterator<Item = Figure> {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let host = fs::read_to_string("/proc/self/status").ok().and_then(|status| most_of(&status));
    let named = [("memory_mib", host), ("gpu_memory_mib", device.gpu_bytes())];
    named.into_iter().filter_map(move |(name, bytes)| {
        Some(Figure::number(name, mib(bytes?).round()).charted("memory").in_unit("MiB"))
    })
}

/// The peak of resident memory in a process' status, in bytes.
fn most_of(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_that_of_the_system() {
        assert_eq!(most_of("VmPeak:\t  900 kB\nVmHWM:\t  2048 kB\n"), Some(2 << 20));
        assert_eq!(most_of("VmPeak:\t  900 kB\n"), None);
        let [figure] = figures(&RankDevice::cpu()).collect::<Vec<_>>().try_into().unwrap();
        assert_eq!(figure.name, "memory_mib");
        assert!(figure.as_number().is_some_and(|mib| mib > 1.0), "{figure:?}");
    }
}
