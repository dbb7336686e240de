//! What is dropped of activations in training, keyed by sample.
//!
//! Each number has a random byte and stays where that is not below n = round(256 p), over 1 - n / 256. The bytes of a
//! sample are one sequence whose order is site, position, channel: they are the same for any number of ranks and any split
//! of a batch. The sequence is that of SplitMix64 (Steele et al. 2014, <https://doi.org/10.1145/2660193.2660195>), begun at
//! a number that is drawn by (seed, step, id). Word i of it hangs on i alone, so a GPU makes the same bytes where they are
//! needed, and nothing but one number a sample is uploaded.

use std::ops::Range;

use tch::{Device, Kind, Tensor};

use super::TrainingDraws;
use super::config::dropped;
use crate::fused;
use crate::random::{Purpose, draws};
use crate::vqvae::to_device;

/// What to drop at a number of sites of a network.
#[derive(Debug)]
pub(super) struct Masks {
    /// Random bytes, `[N, sites, L, W]`.
    bytes: Tensor,
    dropped: i64,
}

/// The sites of one network.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sites {
    pub(super) num: i64,
    /// Positions of a sample.
    pub(super) len: i64,
    pub(super) width: i64,
}

impl Sites {
    fn num_bytes(self) -> i64 {
        self.num * self.len * self.width
    }
}

impl Masks {
    /// Draws what to drop at each of some networks' sites; none where nothing is dropped.
    pub(super) fn draw(
        dropout: f64,
        by: TrainingDraws,
        ids: &[u64],
        networks: &[Sites],
        device: Device,
    ) -> Vec<Option<Self>> {
        let dropped = dropped(dropout);
        if dropped == 0 {
            return networks.iter().map(|_| None).collect();
        }
        let key = |&id: &u64| {
            let mut key = [0; 8];
            draws(by.seed, Purpose::Activations, by.step, id).bytes(&mut key);
            u64::from_le_bytes(key)
        };
        let keys: Vec<u64> = ids.iter().map(key).collect();
        let mut first = 0;
        let mut masks = Vec::with_capacity(networks.len());
        for sites in networks {
            let num_words = (sites.num_bytes() as u64).div_ceil(8);
            let words = first..first + num_words;
            first = words.end;
            let bytes = match device {
                Device::Cpu => bytes_on_host(&keys, words),
                _ => bytes_on_device(&keys, words, device),
            };
            let shape = [ids.len() as i64, sites.num, sites.len, sites.width];
            let bytes = bytes.narrow(1, 0, sites.num_bytes()).reshape(shape);
            masks.push(Some(Self { bytes, dropped }));
        }
        masks
    }

    /// What is left at a site of `[N, L, W]`, over the share of what stays; added to `to`, if that is given.
    pub(super) fn keep(&self, site: usize, to: Option<&Tensor>, what: &Tensor) -> Tensor {
        let bytes = self.bytes.select(1, site as i64);
        if fused::takes(what) {
            return fused::rows::keep(to, what, &bytes, self.dropped);
        }
        let kept = bytes.ge(self.dropped).to_kind(what.kind());
        let kept = kept * (256.0 / (256 - self.dropped) as f64);
        match to {
            None => what * kept,
            Some(to) => to.addcmul(what, &kept),
        }
    }

    /// The same for a network over `num` groups of a sample's positions, each on its own.
    pub(super) fn within(&self, num: i64) -> Self {
        // [N, sites, num * S, W] to [N * num, sites, S, W]
        let groups = self.bytes.unflatten(2, [num, -1]).transpose(1, 2).flatten(0, 1);
        Self { bytes: groups, ..*self }
    }
}

/// What a word's number is multiplied by, and the two factors and three shifts that mix it.
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
const FACTORS: [u64; 2] = [0xBF58_476D_1CE4_E5B9, 0x94D0_49BB_1331_11EB];
const SHIFTS: [u32; 3] = [30, 27, 31];

/// The bytes of these words of each key's sequence, `[keys, 8 words]`.
fn bytes_on_host(keys: &[u64], words: Range<u64>) -> Tensor {
    let num_words = (words.end - words.start) as usize;
    let mut bytes = Vec::with_capacity(8 * num_words * keys.len());
    for key in keys {
        for word in words.clone() {
            let mut mixed = key.wrapping_add((word + 1).wrapping_mul(STEP));
            for (shift, factor) in SHIFTS.into_iter().zip(FACTORS) {
                mixed = (mixed ^ (mixed >> shift)).wrapping_mul(factor);
            }
            bytes.extend((mixed ^ (mixed >> SHIFTS[2])).to_le_bytes());
        }
    }
    Tensor::from_slice(&bytes).view([keys.len() as i64, 8 * num_words as i64])
}

/// The same made on a device, whose int64 wraps as well.
fn bytes_on_device(keys: &[u64], words: Range<u64>, device: Device) -> Tensor {
    let keys: Vec<i64> = keys.iter().map(|key| key.cast_signed()).collect();
    let keys_n1 = to_device(Tensor::from_slice(&keys), device).unsqueeze(1);
    let numbers = words.start as i64 + 1..words.end as i64 + 1;
    let numbers_w = Tensor::arange_start(numbers.start, numbers.end, (Kind::Int64, device));
    let mut mixed = keys_n1 + numbers_w * STEP.cast_signed();
    // A shift of int64 brings the sign along.
    let shifted = |mixed: &Tensor, shift: u32| {
        let shift_by = Tensor::full([0i64; 0], i64::from(shift), (Kind::Int64, device));
        mixed.bitwise_right_shift(&shift_by).bitwise_and(i64::MAX >> (shift - 1))
    };
    for (shift, factor) in SHIFTS.into_iter().zip(FACTORS) {
        let folded = shifted(&mixed, shift);
        mixed = mixed.bitwise_xor_tensor(&folded) * factor.cast_signed();
    }
    let folded = shifted(&mixed, SHIFTS[2]);
    mixed.bitwise_xor_tensor(&folded).view_dtype(Kind::Uint8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first numbers of SplitMix64 begun at 0, as its authors' program prints them.
    const PUBLISHED: [u64; 3] =
        [0xE220_A839_7B1D_CDAF, 0x6E78_9E6A_A1B9_65F4, 0x06C4_5D18_8009_454F];

    #[test]
    fn bytes_are_those_of_splitmix64_on_a_host_and_on_a_device() {
        let keys = [0, u64::MAX, 0x0123_4567_89AB_CDEF];
        for make in [bytes_on_host as fn(&[u64], Range<u64>) -> Tensor, |keys, words| {
            bytes_on_device(keys, words, Device::Cpu)
        }] {
            let bytes: Vec<u8> = Vec::try_from(make(&keys, 0..3).get(0)).unwrap();
            assert_eq!(bytes, PUBLISHED.map(u64::to_le_bytes).concat());
        }
        let [host, device] =
            [bytes_on_host(&keys, 5..1000), bytes_on_device(&keys, 5..1000, Device::Cpu)];
        assert_eq!(host, device);
    }

    /// 240,000 bytes: a mean of 127.5 with a deviation of 0.15, each value 937.5 times with one of 31.
    #[test]
    fn bytes_are_even() {
        let bytes = bytes_on_host(&[7, 8, 9], 0..10_000).flatten(0, -1);
        let mean = bytes.to_kind(Kind::Double).mean(Kind::Double).double_value(&[]);
        assert!((mean - 127.5).abs() < 0.6, "{mean}");
        let counts = bytes.to_kind(Kind::Int64).bincount::<Tensor>(None, 256);
        let (least, most) = (counts.min().int64_value(&[]), counts.max().int64_value(&[]));
        assert!(least > 937 - 155 && most < 937 + 155, "{least} {most}");
    }
}
