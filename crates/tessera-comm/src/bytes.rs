//! Short messages between ranks, as byte tensors over any [`Communicator`].

use tch::{Kind, Tensor};

use crate::{CommError, Communicator};

/// Rank 0's bytes, on every rank. The `bytes` of other ranks are not looked at.
///
/// # Errors
///
/// [`CommError`] as the communicator gives it.
pub fn broadcast_bytes(comm: &dyn Communicator, bytes: &[u8]) -> Result<Vec<u8>, CommError> {
    let length = comm.broadcast(Tensor::from_slice(&[bytes.len() as i64]), 0)?.wait()?;
    let length = length.int64_value(&[0]);
    let mine = if comm.rank() == 0 {
        Tensor::from_slice(bytes)
    } else {
        Tensor::zeros([length], (Kind::Uint8, tch::Device::Cpu))
    };
    to_bytes(&comm.broadcast(mine, 0)?.wait()?)
}

/// Every rank's bytes, in order of ranks; lengths may differ.
///
/// # Errors
///
/// [`CommError`] as the communicator gives it.
pub fn all_gather_bytes(comm: &dyn Communicator, bytes: &[u8]) -> Result<Vec<Vec<u8>>, CommError> {
    let lengths = comm.all_gather(&Tensor::from_slice(&[bytes.len() as i64]))?;
    let lengths: Vec<i64> = Vec::try_from(lengths.flatten(0, -1))?;
    let longest = lengths.iter().copied().max().unwrap_or(0) as usize;
    let mut padded = bytes.to_vec();
    padded.resize(longest, 0);
    let all = comm.all_gather(&Tensor::from_slice(&padded))?;
    let mut gathered = Vec::with_capacity(lengths.len());
    for (rank, &length) in lengths.iter().enumerate() {
        gathered.push(to_bytes(&all.get(rank as i64).narrow(0, 0, length))?);
    }
    Ok(gathered)
}

fn to_bytes(tensor: &Tensor) -> Result<Vec<u8>, CommError> {
    Ok(Vec::try_from(tensor)?)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::Threads;

    #[test]
    fn bytes_of_different_lengths_reach_every_rank() {
        let answers = Threads::run(3, Duration::from_secs(20), |comm| {
            let mine = vec![comm.rank() as u8 + 1; comm.rank()];
            let root = broadcast_bytes(&comm, &[mine, vec![9, 9]].concat())?;
            Ok((root, all_gather_bytes(&comm, &vec![7; comm.rank()])?))
        });
        for answer in answers {
            let (root, all) = answer.expect("no rank fails");
            assert_eq!(root, [9, 9]);
            assert_eq!(all, [vec![], vec![7], vec![7, 7]]);
        }
    }
}
