//! The cores that this process may compute on: those that the system lets it run on, and the CPU time that
//! its control groups leave it.
//!
//! A container with a quota (`docker --cpus=1`, a limit of Kubernetes) sees all cores of its host, and is
//! stopped for the rest of each period once it has used its time up. So a quota counts as cores, rounded up.
//! Both versions of control groups are read, and every group from the process's own up to the root: the
//! tightest one counts.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use rustix::thread::{CpuSet, sched_getaffinity};
use serde::{Deserialize, Serialize};

/// The cores that the system lets this process run on, in order.
pub fn allowed_cores() -> Vec<usize> {
    match sched_getaffinity(None) {
        Ok(set) => (0..CpuSet::MAX_CPU).filter(|&core| set.is_set(core)).collect(),
        Err(_) => (0..std::thread::available_parallelism().map_or(1, usize::from)).collect(),
    }
}

/// Of [`allowed_cores`], as many as the tightest of [`quotas`] has the time for; at least one.
pub fn usable_cores() -> Vec<usize> {
    let mut cores = allowed_cores();
    if let Some(least) = quotas().iter().map(Quota::num_cores).min() {
        cores.truncate(least);
    }
    cores
}

/// A limit of the CPU time of one control group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Quota {
    /// How many cores' time, such as 1.5.
    pub cores: f64,
    /// Which group: the same text for all processes of this host that share the limit.
    pub group: String,
}

impl Quota {
    /// As many whole cores, rounded up.
    pub fn num_cores(&self) -> usize {
        (self.cores.ceil() as usize).max(1)
    }
}

/// The limits that hold for this process: its own group's and those of the groups above it.
pub fn quotas() -> Vec<Quota> {
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    quotas_of(Path::new("/"), &read("/proc/self/cgroup"), &read("/proc/self/mountinfo"))
}

/// The limits of a process with these files in `/proc`, whose mount points lie below `root`.
fn quotas_of(root: &Path, groups: &str, mounts: &str) -> Vec<Quota> {
    let mut found = Vec::new();
    for line in groups.lines() {
        // NUMBER:CONTROLLERS:PATH; the unified hierarchy of version 2 names no controllers.
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let is_cpu = controllers.split(',').any(|controller| controller == "cpu");
        if !is_cpu && !controllers.is_empty() {
            continue;
        }
        let Some((point, own)) = mounts.lines().find_map(|line| mounted(line, is_cpu, path)) else {
            continue;
        };
        let top = root.join(point.strip_prefix("/").unwrap_or(&point));
        let own = if top.join(&own).is_dir() { top.join(own) } else { top.clone() };
        for group in own.ancestors().take_while(|group| group.starts_with(&top)) {
            if let Some(cores) = limit_of(group)
                && let Ok(about) = group.metadata()
            {
                // Two containers may call their groups alike; no two groups have one inode.
                let group = format!("{}:{}", about.dev(), about.ino());
                found.push(Quota { cores, group });
            }
        }
    }
    found
}

/// Where a line of `mountinfo` mounts the hierarchy asked for, and where the group `path` lies below that.
fn mounted(line: &str, is_version_1: bool, path: &str) -> Option<(PathBuf, PathBuf)> {
    let (before, after) = line.split_once(" - ")?;
    let (kind, options) = (after.split(' ').next()?, after.rsplit(' ').next()?);
    let fits = match is_version_1 {
        true => kind == "cgroup" && options.split(',').any(|option| option == "cpu"),
        false => kind == "cgroup2",
    };
    let mut fields = before.split(' ').skip(3);
    let (root, point) = (fields.next()?, fields.next()?);
    // In a container the root of the mount is the container's own group, or the path leads out of it.
    let below = Path::new(path).strip_prefix(root).unwrap_or(Path::new(""));
    let leads_out = below.components().any(|part| part == Component::ParentDir);
    let below = if leads_out { Path::new("") } else { below };
    fits.then(|| (PathBuf::from(point), below.to_owned()))
}

/// Cores' worth of time that a group may use, if it is limited.
fn limit_of(group: &Path) -> Option<f64> {
    let read = |file: &str| fs::read_to_string(group.join(file)).ok();
    let (quota, period) = match read("cpu.max") {
        Some(line) => {
            let (quota, period) = line.trim().split_once(' ')?;
            (quota.to_owned(), period.to_owned())
        }
        None => (read("cpu.cfs_quota_us")?, read("cpu.cfs_period_us")?),
    };
    // Without a limit the quota is "max", or -1.
    let number = |text: &str| text.trim().parse::<f64>().ok().filter(|number| *number > 0.0);
    Some(number(&quota)? / number(&period)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with the files of some groups: path and content.
    fn groups(files: &[(&str, &str)]) -> PathBuf {
        let name = std::thread::current().name().unwrap_or_default().replace(':', "-");
        let root = std::env::temp_dir().join(format!("tessera-{}-{name}", std::process::id()));
        for (path, content) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        root
    }

    fn cores(root: &Path, groups: &str, mounts: &str) -> Vec<f64> {
        let found = quotas_of(root, groups, mounts);
        let mut names: Vec<&str> = found.iter().map(|quota| quota.group.as_str()).collect();
        names.dedup();
        assert_eq!(names.len(), found.len(), "each group has a name of its own");
        found.iter().map(|quota| quota.cores).collect()
    }

    const TWO: &str = "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n";

    #[test]
    fn version_2_is_read_up_the_tree() {
        let root = groups(&[
            ("sys/fs/cgroup/a/b/cpu.max", "max 100000\n"),
            ("sys/fs/cgroup/a/cpu.max", "150000 100000\n"),
            ("sys/fs/cgroup/cpu.max", "300000 50000\n"),
        ]);
        // By hand: 150000 / 100000 is 1.5 cores, 2 in whole; 300000 / 50000 is 6.
        assert_eq!(cores(&root, "0::/a/b\n", TWO), [1.5, 6.0]);
        assert_eq!(quotas_of(&root, "0::/a/b\n", TWO)[0].num_cores(), 2);
        // A group that is not to be seen here, as in a container of its own: what is mounted counts.
        assert_eq!(cores(&root, "0::/gone\n", TWO), [6.0]);
        assert_eq!(cores(&root, "0::/../../x\n", TWO), [6.0]);
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn version_1_is_read_up_the_tree() {
        let mounts = "33 31 0:29 /docker/c /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                      34 31 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n";
        let folder = "sys/fs/cgroup/cpu,cpuacct";
        let file = |group: &str, name: &str| format!("{folder}/{group}cpu.cfs_{name}_us");
        let root = groups(&[
            (&file("job/", "quota"), "25000\n"),
            (&file("job/", "period"), "100000\n"),
            (&file("", "quota"), "-1\n"),
            (&file("", "period"), "100000\n"),
        ]);
        // The root of the mount is /docker/c: of the path, /job is left below it.
        let own = "7:cpuset:/docker/c\n4:cpu,cpuacct:/docker/c/job\n0::/\n";
        assert_eq!(cores(&root, own, mounts), [0.25]);
        assert_eq!(quotas_of(&root, own, mounts)[0].num_cores(), 1);
        assert_eq!(cores(&root, "4:cpu,cpuacct:/docker/c\n", mounts), [0.0; 0]);
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn without_control_groups_there_is_no_limit() {
        assert_eq!(quotas_of(Path::new("/nowhere"), "", ""), []);
        assert!(!usable_cores().is_empty());
    }
}
