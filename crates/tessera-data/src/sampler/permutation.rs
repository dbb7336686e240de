//! Permutations as arithmetic: a keyed balanced Feistel network (Luby and Rackoff 1988,
//! <https://doi.org/10.1137/0217022>) over the next even power of two, with cycle walking (Black
//! and Rogaway 2002, <https://doi.org/10.1007/3-540-45760-7_9>) down to the number of items.

/// Rounds of the network. Four suffice for a strong round function (Luby and Rackoff); the
/// rest is for ours, which is a mixer and not a cipher.
const NUM_ROUNDS: usize = 8;

/// One permutation of `0..num`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Permutation {
    num: u64,
    keys: [u64; NUM_ROUNDS],
    /// Bits of one half of the network's block; `2^(2 * half_bits)` is at least `num`.
    half_bits: u32,
}

impl Permutation {
    /// The permutation number `index` of those that `seed` gives to `num` items, at least one.
    pub(crate) fn new(seed: u64, index: u64, num: u64) -> Self {
        let base = mix(mix(seed).wrapping_add(index));
        let keys = std::array::from_fn(|round| mix(base.wrapping_add(round as u64)));
        let bits = u64::BITS - (num - 1).leading_zeros();
        Self { num, keys, half_bits: bits.div_ceil(2).max(1) }
    }

    /// Where `at`, below the number of items, goes.
    pub(crate) fn of(&self, at: u64) -> u64 {
        let mut to = self.network(at);
        // The network permutes a power of two, of which at least a quarter are items: this
        // walks along its cycle, which ends at the latest where it began.
        while to >= self.num {
            to = self.network(to);
        }
        to
    }

    /// The Feistel network on a block of `2 * half_bits` bits.
    fn network(&self, block: u64) -> u64 {
        let mask = (1u64 << self.half_bits) - 1;
        let (mut left, mut right) = (block >> self.half_bits, block & mask);
        for key in self.keys {
            (left, right) = (right, left ^ (mix(right.wrapping_add(key)) & mask));
        }
        (left << self.half_bits) | right
    }
}

/// A bijection of 64 bits in which each input bit moves each output bit: the output of
/// SplitMix64 (Steele, Lea and Flood 2014, <https://doi.org/10.1145/2660193.2660195>).
pub(crate) fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
