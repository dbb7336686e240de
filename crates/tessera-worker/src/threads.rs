//! How many threads a rank computes with: what it was told to, or else its fair share of the cores and of the
//! CPU time that it may use.

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};
use tessera_comm::{Communicator, all_gather_bytes};
use tessera_control::{Quota, allowed_cores, quotas};
use tessera_train::TrainError;

/// What OpenMP's programs take their number of threads from.
const OPENMP: &str = "OMP_NUM_THREADS";
/// The cores that Slurm has given each task of a job.
const SLURM: &str = "SLURM_CPUS_PER_TASK";

/// A number of threads, and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Threads {
    pub(crate) count: usize,
    /// In words for a person.
    pub(crate) source: String,
}

/// What a rank may use of its host.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Place {
    host: String,
    cores: Vec<usize>,
    quotas: Vec<Quota>,
}

/// How many threads this rank computes with. Collective.
///
/// `wanted`, which is `train.threads`, goes first where it is not 0, then `OMP_NUM_THREADS`. Otherwise the
/// cores that this rank may use are divided among the ranks of this host that may use them too, and so is the
/// CPU time of each control group; the least of these counts, and no more than `SLURM_CPUS_PER_TASK`.
///
/// Workers that mpirun has bound to cores of their own divide nothing; workers that are bound to
/// nothing divide the whole host.
pub(crate) fn choose(comm: &dyn Communicator, wanted: u64) -> Result<Threads, TrainError> {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let mine = Place { host, cores: allowed_cores(), quotas: quotas() };
    let all = all_gather_bytes(comm, &serde_json::to_vec(&mine).expect("plain data"))?;
    let mut ranks = Vec::with_capacity(all.len());
    for bytes in &all {
        ranks.push(serde_json::from_slice(bytes).expect("every rank sends its cores"));
    }
    Ok(told(wanted, share(&mine, &ranks), |name| std::env::var(name).ok()))
}

/// What was asked for, or the share.
fn told(wanted: u64, share: Threads, variable: impl Fn(&str) -> Option<String>) -> Threads {
    if let Ok(count @ 1..) = usize::try_from(wanted) {
        return Threads { count, source: "train.threads".to_owned() };
    }
    let slurm = variable(SLURM).as_deref().and_then(first_number);
    let share = match slurm.filter(|&count| count < share.count) {
        Some(count) => Threads { count, source: SLURM.to_owned() },
        None => share,
    };
    match variable(OPENMP) {
        Some(text) => match first_number(&text) {
            Some(count) => Threads { count, source: OPENMP.to_owned() },
            None => {
                let source = format!("{}; {OPENMP}={text:?} is no number of threads", share.source);
                Threads { source, ..share }
            }
        },
        None => share,
    }
}

/// The first of a list such as `4,2`, which has a number for each level of nesting; from 1 on.
fn first_number(text: &str) -> Option<usize> {
    let first = text.split(',').next()?.trim();
    first.parse().ok().filter(|&count| (1..=1024).contains(&count))
}

/// Lets libtorch compute with so many threads from now on.
///
/// The first call of one of MKL's vector functions (here `sqrt`, `exp`, `log`, `tanh`) finds out which
/// variant to take. Where two threads share that first call, one of them now and then takes a variant of
/// fewer digits, for this call alone: with two threads, one start of about a hundred changed the first
/// AdamW step by 1e-4 of its length, in half of the parameters. So each function is called here before
/// it counts: alone first, and then by all threads, each of which may have something to find out, too.
pub(crate) fn compute_with(threads: usize) {
    let values = Tensor::ones([1 << 16], (Kind::Float, Device::Cpu));
    for threads in [1, i32::try_from(threads).unwrap_or(1)] {
        tch::set_num_threads(threads);
        for kind in [Kind::Float, Kind::Double] {
            let values = values.to_kind(kind);
            drop([values.sqrt(), values.exp(), values.log(), values.tanh()]);
        }
    }
}

fn share(mine: &Place, ranks: &[Place]) -> Threads {
    let neighbors = || ranks.iter().filter(|rank| rank.host == mine.host);
    let rivals = neighbors().filter(|rank| rank.cores.iter().any(|core| mine.cores.contains(core)));
    let count = (mine.cores.len() / rivals.count().max(1)).max(1);
    let mut least = Threads { count, source: "cores / workers".to_owned() };
    for Quota { cores, group } in &mine.quotas {
        let rivals =
            neighbors().filter(|rank| rank.quotas.iter().any(|theirs| theirs.group == *group));
        let num_cores = Quota { cores: *cores, group: String::new() }.num_cores();
        let count = (num_cores / rivals.count().max(1)).max(1);
        if count < least.count {
            least = Threads { count, source: format!("CPU quota of {cores} cores / workers") };
        }
    }
    least
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rank(host: &str, cores: std::ops::Range<usize>, quotas: &[(f64, &str)]) -> Place {
        let quota = |&(cores, group): &(f64, &str)| Quota { cores, group: group.to_owned() };
        let quotas = quotas.iter().map(quota).collect();
        Place { host: host.to_owned(), cores: cores.collect(), quotas }
    }

    #[test]
    fn only_ranks_that_may_use_the_same_cores_divide_them() {
        let count = |mine: &Place, ranks: &[Place]| share(mine, ranks).count;
        let free = [rank("a", 0..8, &[]), rank("a", 0..8, &[]), rank("b", 0..8, &[])];
        assert_eq!(count(&free[0], &free), 4);
        assert_eq!(count(&free[2], &free), 8);
        let bound = [rank("a", 0..4, &[]), rank("a", 4..8, &[])];
        assert_eq!(count(&bound[1], &bound), 4);
        let many = [rank("a", 0..1, &[]), rank("a", 0..1, &[])];
        assert_eq!(count(&many[0], &many), 1);
    }

    #[test]
    fn ranks_of_one_group_divide_its_time_and_the_tightest_group_counts() {
        // By hand, of 8 cores for two ranks each has 4. A quota of 5.5 cores is 6, 3 for each of two ranks;
        // one of 2.5 that is a rank's own is 3, and of 1.5 it is 2.
        let both = [rank("a", 0..8, &[(5.5, "pod")]), rank("a", 0..8, &[(5.5, "pod")])];
        let threads = share(&both[0], &both);
        assert_eq!((threads.count, &*threads.source), (3, "CPU quota of 5.5 cores / workers"));
        let nested = [rank("a", 0..8, &[(1.5, "one"), (5.5, "pod")]), both[1].clone()];
        assert_eq!(share(&nested[0], &nested).count, 2);
        assert_eq!(share(&nested[1], &nested).count, 3);
        // Quotas that are larger than the share of the cores change nothing.
        let wide = [rank("a", 0..2, &[(8.0, "pod")])];
        let threads = share(&wide[0], &wide);
        assert_eq!((threads.count, &*threads.source), (2, "cores / workers"));
        let tiny = [rank("a", 0..8, &[(0.2, "pod")]), rank("a", 0..8, &[(0.2, "pod")])];
        assert_eq!(share(&tiny[0], &tiny).count, 1);
    }

    #[test]
    fn the_key_goes_before_the_variables_and_these_before_the_share() {
        let told = |wanted, variables: &[(&str, &str)]| {
            let share = Threads { count: 4, source: "cores / workers".to_owned() };
            let find = |name: &str| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            let Threads { count, source } = super::told(wanted, share, find);
            (count, source)
        };
        let is = |count: usize, source: &str| (count, source.to_owned());
        assert_eq!(told(0, &[]), is(4, "cores / workers"));
        assert_eq!(told(3, &[(OPENMP, "1")]), is(3, "train.threads"));
        assert_eq!(told(0, &[(OPENMP, "6,2"), (SLURM, "2")]), is(6, OPENMP));
        // Slurm says what a task may use at most: eight cores of a task that starts two workers are four each.
        assert_eq!(told(0, &[(SLURM, "2")]), is(2, SLURM));
        assert_eq!(told(0, &[(SLURM, "8")]), is(4, "cores / workers"));
        for wrong in ["0", "many", "-1", ""] {
            let (count, source) = told(0, &[(OPENMP, wrong)]);
            assert_eq!(count, 4);
            assert!(source.contains("OMP_NUM_THREADS") && source.contains("no number"), "{source}");
        }
    }
}
