//! The job that PBS (or Torque) has given this launcher, if it has: its hosts and their processes.
//!
//! An mpirun that was built with PBS' library starts its daemons through it; another one, such as Debian's, does not
//! know of the job. So the hosts are given to mpirun as those of a host file are.

use std::path::PathBuf;

use crate::LaunchError;
use crate::hosts::{Host, add, parse_host};

/// The file that names a host for each process of the job.
const NODEFILE: &str = "PBS_NODEFILE";

/// A PBS job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PbsJob {
    /// Its name, such as `17.server`.
    pub id: String,
    /// Its hosts, each with its processes.
    pub hosts: Vec<Host>,
}

impl PbsJob {
    /// The job that this process is in, if it is in one.
    ///
    /// # Errors
    ///
    /// [`LaunchError::Pbs`] if its file of hosts makes no sense.
    pub fn find() -> Result<Option<Self>, LaunchError> {
        Self::of(std::env::var("PBS_JOBID").ok(), std::env::var_os(NODEFILE).map(PathBuf::from))
    }

    fn of(id: Option<String>, nodefile: Option<PathBuf>) -> Result<Option<Self>, LaunchError> {
        let (Some(id), Some(nodefile)) = (id, nodefile) else { return Ok(None) };
        let wrong = |problem: String| LaunchError::Pbs {
            problem: format!("{NODEFILE}={} {problem}", nodefile.display()),
        };
        let text = std::fs::read_to_string(&nodefile)
            .map_err(|error| wrong(format!("cannot be read ({error})")))?;
        let mut hosts = Vec::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (host, slots) = parse_host(line).map_err(wrong)?;
            add(&mut hosts, Host { slots: slots.unwrap_or(1), ..host });
        }
        if hosts.is_empty() {
            return Err(wrong("names no host".to_owned()));
        }
        Ok(Some(Self { id, hosts }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_as_many_workers_as_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("17.server");
        let of = |text: &str| {
            std::fs::write(&path, text).unwrap();
            PbsJob::of(Some("17.server".into()), Some(path.clone()))
        };
        // `qsub -l select=2:mpiprocs=2+1:mpiprocs=1`.
        let job = of("n1.cluster\nn1.cluster\nn2.cluster\nn2.cluster\nn3.cluster\n").unwrap();
        let job = job.expect("a job");
        let hosts = [("n1.cluster", 2), ("n2.cluster", 2), ("n3.cluster", 1)];
        assert_eq!(job.hosts, hosts.map(|(name, slots)| Host::new(name, slots)));
        assert!(of("\n").unwrap_err().to_string().contains("names no host"));
        assert!(of("a b\n").unwrap_err().to_string().contains("`a b`"));
    }

    #[test]
    fn there_is_a_job_only_where_both_variables_are() {
        assert_eq!(PbsJob::of(None, Some("hosts".into())).unwrap(), None);
        assert_eq!(PbsJob::of(Some("1".into()), None).unwrap(), None);
        let told = PbsJob::of(Some("1".into()), Some("/nowhere".into())).unwrap_err().to_string();
        assert!(told.contains("PBS_NODEFILE=/nowhere cannot be read"), "{told}");
    }
}
