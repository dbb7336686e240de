//! How many threads a rank computes with: its fair share of the cores that it may use.

use tch::{Device, Kind, Tensor};
use tessera_comm::{Communicator, all_gather_bytes};
use tessera_train::TrainError;

/// Cores that this rank may use, divided among the ranks of this host that may use them too.
/// Collective. At least 1.
///
/// Workers that mpirun has bound to cores of their own divide nothing; workers that are bound to
/// nothing divide the whole host.
pub(crate) fn share_of_cores(comm: &dyn Communicator) -> Result<usize, TrainError> {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let mine = (host, allowed_cores());
    let all = all_gather_bytes(comm, &serde_json::to_vec(&mine).expect("plain data"))?;
    let mut ranks = Vec::with_capacity(all.len());
    for bytes in &all {
        ranks.push(serde_json::from_slice(bytes).expect("every rank sends its cores"));
    }
    Ok(share(&mine, &ranks))
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

fn share(mine: &(String, Vec<usize>), ranks: &[(String, Vec<usize>)]) -> usize {
    let (host, cores) = mine;
    let rivals = ranks
        .iter()
        .filter(|(theirs, used)| theirs == host && used.iter().any(|core| cores.contains(core)))
        .count();
    (cores.len() / rivals.max(1)).max(1)
}

/// The cores that the system lets this process run on.
fn allowed_cores() -> Vec<usize> {
    match rustix::thread::sched_getaffinity(None) {
        Ok(set) => (0..rustix::thread::CpuSet::MAX_CPU).filter(|&core| set.is_set(core)).collect(),
        Err(_) => {
            (0..std::thread::available_parallelism().map_or(1, |cores| cores.get())).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ranks_that_may_use_the_same_cores_divide_them() {
        let rank = |host: &str, cores: std::ops::Range<usize>| (host.to_owned(), cores.collect());
        let free = [rank("a", 0..8), rank("a", 0..8), rank("b", 0..8)];
        assert_eq!(share(&free[0], &free), 4);
        assert_eq!(share(&free[2], &free), 8);
        let bound = [rank("a", 0..4), rank("a", 4..8)];
        assert_eq!(share(&bound[1], &bound), 4);
        let many = [rank("a", 0..1), rank("a", 0..1)];
        assert_eq!(share(&many[0], &many), 1);
    }
}
