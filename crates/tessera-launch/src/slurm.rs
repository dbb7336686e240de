//! The job that Slurm has given this launcher, if it has: its hosts and its tasks.
//!
//! mpirun finds the hosts of a Slurm job by itself; the launcher has to know them too, since workers on
//! other hosts reach it over the network and share no memory with it.

use std::process::{Command, Stdio};

use crate::{Host, LaunchError};

/// A Slurm job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlurmJob {
    /// Its number.
    pub id: String,
    /// Its hosts, each with its tasks.
    pub hosts: Vec<Host>,
}

impl SlurmJob {
    /// The job that this process is in, if it is in one.
    ///
    /// # Errors
    ///
    /// [`LaunchError::Slurm`] if its variables make no sense, or `scontrol` does not know its hosts.
    pub fn find() -> Result<Option<Self>, LaunchError> {
        let variable = |name: &str| std::env::var(name).ok();
        let Some(id) = variable("SLURM_JOB_ID") else { return Ok(None) };
        let Some(list) = variable("SLURM_JOB_NODELIST") else { return Ok(None) };
        let names = names(&list)?;
        // Without a number of tasks a job has one on each host.
        let tasks = match variable("SLURM_TASKS_PER_NODE") {
            Some(text) => {
                tasks(&text).filter(|tasks| tasks.len() == names.len()).ok_or_else(|| {
                    let problem =
                        format!("SLURM_TASKS_PER_NODE is {text:?} for {} hosts", names.len());
                    LaunchError::Slurm { problem }
                })?
            }
            None => vec![1; names.len()],
        };
        let hosts =
            names.into_iter().zip(tasks).map(|(name, slots)| Host { name, slots }).collect();
        Ok(Some(Self { id, hosts }))
    }

    /// Its tasks on all hosts.
    pub fn num_tasks(&self) -> usize {
        self.hosts.iter().map(|host| host.slots).sum()
    }
}

/// The names that a list such as `n[1-2,7]` stands for: Slurm's own command knows.
fn names(list: &str) -> Result<Vec<String>, LaunchError> {
    if !list.contains(['[', ',']) {
        return Ok(vec![list.to_owned()]);
    }
    let problem = |problem: String| LaunchError::Slurm { problem };
    let output = Command::new("scontrol")
        .args(["show", "hostnames", list])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| problem(format!("scontrol cannot be run ({error})")))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        return Err(problem(format!("scontrol does not know {list}: {}", words.trim())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}

/// Tasks of each host: `2(x3),1` is 2, 2, 2, 1.
fn tasks(text: &str) -> Option<Vec<usize>> {
    let mut all: Vec<usize> = Vec::new();
    for part in text.split(',') {
        let (tasks, times) = match part.split_once("(x") {
            Some((tasks, rest)) => (tasks, rest.strip_suffix(')')?.parse().ok()?),
            None => (part, 1),
        };
        all.extend(std::iter::repeat_n(tasks.parse::<usize>().ok()?, times));
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_counted_host_by_host() {
        assert_eq!(tasks("4"), Some(vec![4]));
        assert_eq!(tasks("2(x3),1"), Some(vec![2, 2, 2, 1]));
        assert_eq!(tasks("2(x"), None);
        assert_eq!(tasks("many"), None);
    }

    #[test]
    fn a_single_host_is_its_own_list() {
        assert_eq!(names("node7").unwrap(), ["node7"]);
    }
}
