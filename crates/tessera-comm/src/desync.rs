//! A check that ranks agree on a number, at no collective of its own.
//!
//! A 64-bit hash is cut into [`PIECES`] pieces `p` of four bits. Each rank adds its pieces and
//! their squares to the buffer that the step sums anyway. Over `W` ranks,
//! `W * sum p^2 == (sum p)^2` holds exactly when all ranks have the same `p`
//! (Cauchy-Schwarz, equality only for equal vectors). In fp32 the sums are exact integers up to
//! 74,000 ranks.

/// Pieces of a hash.
pub const PIECES: usize = 16;
/// Numbers that a rank adds to the reduction: the pieces, then their squares.
pub const NUMBERS: usize = 2 * PIECES;

/// What a rank with this `hash` adds to the sum.
pub fn encode(hash: u64) -> [f64; NUMBERS] {
    let mut numbers = [0.0; NUMBERS];
    for at in 0..PIECES {
        let piece = ((hash >> (4 * at)) & 15) as f64;
        numbers[at] = piece;
        numbers[PIECES + at] = piece * piece;
    }
    numbers
}

/// Whether the summed numbers of `world_size` ranks say that all of them had the same hash.
///
/// # Panics
///
/// If `sums` has not [`NUMBERS`] entries.
pub fn agree(sums: &[f64], world_size: usize) -> bool {
    assert_eq!(sums.len(), NUMBERS, "sums of the numbers that encode gave");
    (0..PIECES).all(|at| world_size as f64 * sums[PIECES + at] == sums[at] * sums[at])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summed(hashes: &[u64]) -> [f64; NUMBERS] {
        let mut sums = [0.0; NUMBERS];
        for &hash in hashes {
            for (sum, number) in sums.iter_mut().zip(encode(hash)) {
                *sum += number;
            }
        }
        sums
    }

    #[test]
    fn equal_hashes_agree_and_one_other_bit_does_not() {
        let hash = 0x0123_4567_89ab_cdef;
        for world_size in 1..=9 {
            let mut hashes = vec![hash; world_size];
            assert!(agree(&summed(&hashes), world_size));
            for bit in 0..64 {
                hashes[world_size - 1] = hash ^ (1 << bit);
                assert_eq!(agree(&summed(&hashes), world_size), world_size == 1);
            }
        }
    }

    /// A plain sum would not see this: 1 + 3 = 2 + 2. By hand: 2 * (1 + 9) = 20, (1 + 3)^2 = 16.
    #[test]
    fn differences_that_cancel_in_the_sum_are_seen() {
        assert!(!agree(&summed(&[1, 3]), 2));
    }
}
