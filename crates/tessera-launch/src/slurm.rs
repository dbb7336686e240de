//! The job that Slurm has given this launcher, if it has: its hosts and its tasks.
//!
//! mpirun finds the hosts of a Slurm job by itself; the launcher has to know them too, since workers on
//! other hosts reach it over the network and share no memory with it.
//!
//! mpirun starts a daemon on each of the other nodes by srun, which takes what the job asked for each of its *tasks*
//! from the environment, and where that says nothing, from the job: a GPU a task would leave the daemon, and all
//! workers of its node, with one GPU. So mpirun does not get those variables ([`OF_A_TASK`]), and others that
//! ask for all that the job has on each node instead ([`for_daemons`]).

use std::ffi::OsString;
use std::process::{Command, Stdio};

use crate::{Host, LaunchError};

/// Variables that hold for each task of a job, by which srun would ration mpirun's daemons. Of `SLURM_CPUS_PER_TASK`
/// workers learn how many threads they may have, and srun has not read it since 22.05.
pub(crate) const OF_A_TASK: [&str; 16] = [
    "SLURM_GPUS",
    "SLURM_GPUS_PER_TASK",
    "SLURM_GPUS_PER_SOCKET",
    "SLURM_GPU_BIND",
    "SLURM_TRES_PER_TASK",
    "SLURM_TRES_BIND",
    "SLURM_NTASKS_PER_GPU",
    "SLURM_NTASKS_PER_TRES",
    "SLURM_NTASKS_PER_NODE",
    "SLURM_NTASKS_PER_SOCKET",
    "SLURM_NTASKS_PER_CORE",
    "SLURM_CPUS_PER_GPU",
    "SLURM_MEM_PER_CPU",
    "SLURM_MEM_PER_GPU",
    "SLURM_MEM_PER_NODE",
    "SRUN_CPUS_PER_TASK",
];

/// What tells srun to give a daemon all CPUs and all memory that the job has on its node.
const WHOLE: [(&str, &str); 2] = [("SLURM_WHOLE", "1"), ("SLURM_MEM_PER_NODE", "0")];

/// What mpirun is to get and what it is not to get of the environment in a job; nothing outside of one.
pub(crate) fn for_daemons() -> (Vec<(OsString, OsString)>, &'static [&'static str]) {
    let variable = |name: &str| std::env::var(name).ok();
    if variable("SLURM_JOB_ID").is_none() {
        return (Vec::new(), &[]);
    }
    let whole = WHOLE.map(|(name, value)| (name, value.to_owned()));
    let set = whole.into_iter().chain(gpus_of_daemons(variable));
    (set.map(|(name, value)| (name.into(), value.into())).collect(), &OF_A_TASK)
}

/// The GPUs of the job on the nodes where mpirun starts daemons, in the words in which srun asks for them: as many on
/// each node, or all together where the nodes differ. `None` if the job says it so itself, or has none.
fn gpus_of_daemons(variable: impl Fn(&str) -> Option<String>) -> Option<(&'static str, String)> {
    const OF_A_NODE: &str = "SLURM_GPUS_PER_NODE";
    const OF_ALL: &str = "SLURM_GPUS";
    if variable(OF_A_NODE).is_some() {
        return None;
    }
    // The node of this process, which needs no daemon; none for a launcher outside of the nodes (salloc).
    let here: Option<usize> = variable("SLURM_NODEID").and_then(|text| text.parse().ok());
    let of_a_task =
        variable("SLURM_GPUS_PER_TASK").or_else(|| gpus_of_tres(&variable("SLURM_TRES_PER_TASK")?));
    if let Some(of_a_task) = of_a_task {
        let (kind, count) = counted(&of_a_task)?;
        let tasks = tasks(&variable("SLURM_TASKS_PER_NODE")?)?;
        if tasks.iter().all(|other| *other == tasks[0]) {
            return Some((OF_A_NODE, format!("{kind}{}", count * tasks[0])));
        }
        let others = tasks.iter().enumerate().filter(|(node, _)| Some(*node) != here);
        let num_tasks: usize = others.map(|(_, tasks)| tasks).sum();
        return Some((OF_ALL, format!("{kind}{}", count * num_tasks)));
    }
    let of_all = variable(OF_ALL)?;
    let (kind, count) = counted(&of_all)?;
    let on_this = here.and_then(|_| variable("SLURM_GPUS_ON_NODE")?.parse().ok()).unwrap_or(0);
    (count > on_this).then(|| (OF_ALL, format!("{kind}{}", count - on_this)))
}

/// A number of GPUs with the kind before it and its colon, as in `a100:2`.
fn counted(text: &str) -> Option<(&str, usize)> {
    let start = text.rfind(':').map_or(0, |at| at + 1);
    Some((&text[..start], text[start..].parse().ok()?))
}

/// The GPUs of `cpu=2,gres/gpu:a100=1`, or of `gres:gpu:a100:1` as older versions have it, in the words of `--gpus`.
fn gpus_of_tres(text: &str) -> Option<String> {
    text.split(',').find_map(|part| {
        let part = part.strip_prefix("gres/").or_else(|| part.strip_prefix("gres:"))?;
        let rest = part.strip_prefix("gpu")?;
        Some(rest.trim_start_matches([':', '=']).replace('=', ":"))
    })
}

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
            names.into_iter().zip(tasks).map(|(name, slots)| Host::new(name, slots)).collect();
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
    fn daemons_get_all_gpus_of_their_nodes_however_the_job_asked_for_them() {
        let asks = |variables: &[(&str, &str)]| {
            let find = |name: &str| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            gpus_of_daemons(find).map_or(String::new(), |(name, value)| format!("{name}={value}"))
        };
        let (even, uneven) = (("SLURM_TASKS_PER_NODE", "4(x2)"), ("SLURM_TASKS_PER_NODE", "4,2,3"));
        let (first, second) = (("SLURM_NODEID", "0"), ("SLURM_NODEID", "1"));
        let one = ("SLURM_GPUS_PER_TASK", "1");
        assert_eq!(asks(&[even, first]), "");
        assert_eq!(asks(&[one, even, ("SLURM_GPUS_PER_NODE", "4")]), "");
        assert_eq!(asks(&[one, even, first]), "SLURM_GPUS_PER_NODE=4");
        let two = ("SLURM_GPUS_PER_TASK", "a100:2");
        assert_eq!(asks(&[two, even, first]), "SLURM_GPUS_PER_NODE=a100:8");
        // 2 + 3 tasks on the nodes of daemons of one on the first, 4 + 3 of one on the second, all of one elsewhere.
        assert_eq!(asks(&[one, uneven, first]), "SLURM_GPUS=5");
        assert_eq!(asks(&[one, uneven, second]), "SLURM_GPUS=7");
        assert_eq!(asks(&[one, uneven]), "SLURM_GPUS=9");
        for tres in ["cpu=2,gres/gpu=1", "gres:gpu:1"] {
            assert_eq!(asks(&[("SLURM_TRES_PER_TASK", tres), even]), "SLURM_GPUS_PER_NODE=4");
        }
        for tres in ["gres/gpu:a100=2", "gres:gpu:a100:2"] {
            assert_eq!(asks(&[("SLURM_TRES_PER_TASK", tres), even]), "SLURM_GPUS_PER_NODE=a100:8");
        }
        let (all, here) = (("SLURM_GPUS", "8"), ("SLURM_GPUS_ON_NODE", "3"));
        assert_eq!(asks(&[all, even, first, here]), "SLURM_GPUS=5");
        assert_eq!(asks(&[all, even]), "SLURM_GPUS=8");
        // Of several kinds.
        assert_eq!(asks(&[("SLURM_GPUS", "a100:1,h100:1"), even, first, here]), "");
    }

    #[test]
    fn a_single_host_is_its_own_list() {
        assert_eq!(names("node7").unwrap(), ["node7"]);
    }
}
