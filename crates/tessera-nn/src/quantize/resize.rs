//! A trained codebook with another number of codes, for a training that begins from it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use tch::{Kind, Tensor};

use super::replace::SPLIT;
use super::vector::unit;
use crate::random::{Purpose, draws};

/// Codes and how often each is taken.
#[derive(Debug)]
pub struct Codes {
    /// `[K, D]`.
    pub codes_kd: Tensor,
    /// `[K]`, 0 or more.
    pub counts_k: Tensor,
}

/// The codebook with `num_codes` codes. It shrinks to those that are taken most, in their order. It grows by splitting:
/// again and again the code that is taken most is set a little to one side, and a new one behind all others to the
/// other side, with half of the count each (Linde, Buzo and Gray 1980, <https://doi.org/10.1109/TCOM.1980.1094577>).
/// Codes of length one keep it. Ties go to the lowest index. On the host, in float64.
///
/// # Panics
///
/// If there is no code, or not one count a code.
pub fn resize(codes: &Codes, num_codes: i64, seed: u64) -> Codes {
    let (kind, device) = (codes.codes_kd.kind(), codes.codes_kd.device());
    let (num_found, dim) = codes.codes_kd.size2().expect("codes are [K, D]");
    let mut counts: Vec<f64> = Vec::try_from(codes.counts_k.to_kind(Kind::Double)).expect("[K]");
    assert!(num_found > 0 && counts.len() == num_found as usize, "a count for each code");
    let mut source: Vec<i64> = (0..num_found).collect();
    if num_codes < num_found {
        source.sort_by(|&a, &b| counts[b as usize].total_cmp(&counts[a as usize]));
        source.truncate(num_codes as usize);
        source.sort_unstable();
        counts = source.iter().map(|&at| counts[at as usize]).collect();
    }
    // How far a row lies from its source, in multiples of its draw.
    let mut moves: Vec<(usize, f64)> = Vec::new();
    let most_used = |at: usize, count: f64| (ordered(count), Reverse(at));
    let mut heap: BinaryHeap<_> =
        counts.iter().enumerate().map(|(at, &count)| most_used(at, count)).collect();
    while source.len() < num_codes as usize {
        let (_, Reverse(parent)) = heap.pop().expect("there is a code");
        let (new, half) = (source.len(), counts[parent] / 2.0);
        source.push(source[parent]);
        counts[parent] = half;
        counts.push(half);
        moves.extend([(parent, -1.0), (new, 1.0)]);
        heap.extend([most_used(parent, half), most_used(new, half)]);
    }
    let from_kd = codes.codes_kd.to_kind(Kind::Double).to(tch::Device::Cpu);
    let is_spherical = from_kd.norm_scalaropt_dim(2, [1i64], false) - 1.0;
    let is_spherical = is_spherical.abs().max().double_value(&[]) < 1e-3;
    let size = from_kd.square().mean(Kind::Double).sqrt().double_value(&[]) * SPLIT;
    let mut rows_kd = from_kd.index_select(0, &Tensor::from_slice(&source));
    let mut generator = draws(seed, Purpose::Replacement, 0, u64::MAX);
    for pair in moves.chunks(2) {
        let noise = Tensor::from_slice(&generator.uniform(size, dim as usize));
        for (at, side) in pair {
            let mut row = rows_kd.get(*at as i64);
            row += &noise * *side;
        }
    }
    if is_spherical {
        rows_kd = unit(&rows_kd);
    }
    Codes {
        codes_kd: rows_kd.to_kind(kind).to(device),
        counts_k: Tensor::from_slice(&counts).to_kind(codes.counts_k.kind()).to(device),
    }
}

/// A count that is no NaN and not below zero, in an order of its own.
fn ordered(count: f64) -> u64 {
    count.max(0.0).to_bits()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(codes: &[f64], counts: &[f64]) -> Codes {
        Codes {
            codes_kd: Tensor::from_slice(codes).view([counts.len() as i64, -1]),
            counts_k: Tensor::from_slice(counts),
        }
    }

    fn numbers(tensor: &Tensor) -> Vec<f64> {
        Vec::try_from(tensor.flatten(0, -1)).unwrap()
    }

    #[test]
    fn a_codebook_shrinks_to_what_is_used_most() {
        let small = resize(&codes(&[1.0, 2.0, 3.0, 4.0], &[5.0, 0.0, 7.0, 5.0]), 2, 0);
        assert_eq!(numbers(&small.codes_kd), [1.0, 3.0], "a tie goes to the lower index");
        assert_eq!(numbers(&small.counts_k), [5.0, 7.0]);
    }

    /// By hand: 8 is split to 4 and 4; then the first of the two; of 3 and 4 that are left it is the code behind it.
    #[test]
    fn a_codebook_grows_by_splitting_what_is_used_most() {
        let large = resize(&codes(&[10.0, -10.0], &[3.0, 8.0]), 5, 0);
        assert_eq!(numbers(&large.counts_k), [3.0, 2.0, 2.0, 2.0, 2.0]);
        let found = numbers(&large.codes_kd);
        assert_eq!(found[0], 10.0);
        for (at, code) in found.iter().enumerate().skip(1) {
            assert!((code + 10.0).abs() < 0.3, "{found:?}");
            assert!(!found[..at].contains(code), "all are distinct: {found:?}");
        }
    }

    #[test]
    fn codes_on_the_sphere_stay_there() {
        let large = resize(&codes(&[1.0, 0.0, 0.6, 0.8], &[1.0, 2.0]), 4, 0);
        let lengths = large.codes_kd.norm_scalaropt_dim(2, [1i64], false);
        assert!(numbers(&lengths).iter().all(|length| (length - 1.0).abs() < 1e-12));
    }
}
