//! Settings in the environment that all ranks have to find the same.
//!
//! NCCL with one setting on one rank and another on the next can hang, threads that wait in two ways take turns at being
//! late. Compared is what the launcher has sent to all hosts, and of NCCL's settings, whoever has started the ranks,
//! those that a communicator has to have in common. Only names and hashes leave a rank, and no secret's hash: the
//! launcher does not name those.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use tessera_control::variables;
use xxhash_rust::xxh3::xxh3_64;

/// Beginning of the names of NCCL's settings.
const NCCL: &str = "NCCL_";

/// Settings of NCCL that say something of one host or one rank: its network, its GPUs' places, where it logs.
const OF_ONE_RANK: [&str; 13] = [
    "NCCL_SOCKET_IFNAME",
    "NCCL_OOB_NET_IFNAME",
    "NCCL_IB_HCA",
    "NCCL_IB_GID_INDEX",
    "NCCL_NET_DEVICE",
    "NCCL_TOPO_FILE",
    "NCCL_TOPO_DUMP_FILE",
    "NCCL_TOPO_DUMP_FILE_RANK",
    "NCCL_GRAPH_DUMP_FILE",
    "NCCL_DEBUG",
    "NCCL_DEBUG_SUBSYS",
    "NCCL_DEBUG_FILE",
    "NCCL_RAS_ADDR",
];

/// Variables that may be sent and still differ: ranks that share a GPU draw the first for themselves, and an mpirun
/// that has a prefix puts its own folders into the others.
const NEVER_COMPARED: [&str; 3] = ["NCCL_HOSTID", "LD_LIBRARY_PATH", "PATH"];

/// A hash of each value, by the variable's name.
pub(crate) type Settings = BTreeMap<String, String>;

/// Those of this rank.
pub(crate) fn own() -> Settings {
    of(std::env::vars_os(), std::env::var(variables::FORWARDED).unwrap_or_default().split(','))
}

fn of<'a>(
    environment: impl Iterator<Item = (OsString, OsString)>,
    forwarded: impl Iterator<Item = &'a str>,
) -> Settings {
    let forwarded: Vec<&str> = forwarded.collect();
    environment
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .filter(|(name, _)| {
            let name = name.as_str();
            let is_common = name.starts_with(NCCL) && !OF_ONE_RANK.contains(&name);
            (is_common || forwarded.contains(&name)) && !NEVER_COMPARED.contains(&name)
        })
        .map(|(name, value)| (name, format!("{:016x}", xxh3_64(value.as_bytes()))))
        .collect()
}

/// The first variable that has another value there than here, or that only one of them has.
pub(crate) fn first_difference<'a>(here: &'a Settings, there: &'a Settings) -> Option<&'a str> {
    let names = here.keys().chain(there.keys());
    let differing = names.filter(|name| here.get(*name) != there.get(*name));
    differing.min().map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(environment: &[(&str, &str)], forwarded: &str) -> Settings {
        of(
            environment.iter().map(|(name, value)| (name.into(), value.into())),
            forwarded.split(','),
        )
    }

    #[test]
    fn a_setting_that_differs_or_is_missing_is_named() {
        let first = [("NCCL_ALGO", "Ring"), ("UCX_TLS", "tcp"), ("PATH", "/bin")];
        let same = [("UCX_TLS", "tcp"), ("NCCL_ALGO", "Ring"), ("PATH", "/usr/bin")];
        let here = settings(&first, "UCX_TLS,OMP_NUM_THREADS");
        assert_eq!(first_difference(&here, &settings(&same, "UCX_TLS")), None);
        for (other, name) in [
            (&[("NCCL_ALGO", "Tree"), ("UCX_TLS", "tcp")][..], "NCCL_ALGO"),
            (&[("UCX_TLS", "tcp")], "NCCL_ALGO"),
            (&[("NCCL_ALGO", "Ring"), ("UCX_TLS", "rc")], "UCX_TLS"),
            (&[("NCCL_ALGO", "Ring")], "UCX_TLS"),
        ] {
            let there = settings(other, "UCX_TLS,OMP_NUM_THREADS");
            assert_eq!(first_difference(&here, &there), Some(name), "{other:?}");
            assert_eq!(first_difference(&there, &here), Some(name), "{other:?}");
        }
    }

    #[test]
    fn what_differs_from_host_to_host_is_compared_only_if_it_was_sent() {
        let (first, other) = ([("NCCL_IB_HCA", "mlx5_0")], [("NCCL_IB_HCA", "mlx5_1")]);
        let differ = |forwarded: &str| {
            let there = settings(&other, forwarded);
            first_difference(&settings(&first, forwarded), &there).map(str::to_owned)
        };
        assert_eq!(differ(""), None);
        assert_eq!(differ("NCCL_IB_HCA").as_deref(), Some("NCCL_IB_HCA"));
        for name in NEVER_COMPARED {
            assert_eq!(settings(&[(name, "tessera-rank-1")], name), Settings::new());
        }
    }

    #[test]
    fn a_value_does_not_leave_the_rank() {
        let settings = settings(&[("NCCL_ALGO", "visible")], "");
        assert!(!format!("{settings:?}").contains("visible"));
    }
}
