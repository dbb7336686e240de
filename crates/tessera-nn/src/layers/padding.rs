//! What a convolution sees beyond the ends of its input, axis by axis.
//!
//! [`Amount::Causal`] and [`Amount::Centered`] are the rules of SEANet as EnCodec and AudioCraft
//! have it (<https://arxiv.org/abs/2210.13438>). With K = (kernel - 1) dilation + 1 and
//! P = K - stride, an input of length L is padded by P and by
//!
//! e = (ceil((L - K + P) / stride + 1) - 1) stride + K - P - L
//!
//! so that its last values are seen too: the output has ceil(L / stride) positions.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// Padding of one axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pad {
    /// How much of it.
    pub amount: Amount,
    /// Of what.
    pub fill: Fill,
}

/// How much an axis is padded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    /// So much before and so much behind.
    Fixed(i64, i64),
    /// P before and e behind: an output depends on no later input.
    Causal,
    /// P - P / 2 before, and P / 2 + e behind.
    Centered,
}

/// What padding is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fill {
    /// Zeros.
    Zeros,
    /// The input mirrored at its end, which itself is not repeated. An input that is too short for
    /// that is first lengthened by zeros behind, as EnCodec does.
    Reflect,
    /// The value at the end.
    Replicate,
}

impl Pad {
    /// No padding.
    pub const NONE: Self = Self::zeros(0, 0);

    /// So many zeros before and behind.
    pub const fn zeros(before: i64, behind: i64) -> Self {
        Self { amount: Amount::Fixed(before, behind), fill: Fill::Zeros }
    }

    /// Numbers before and behind an axis of length `len` under a window of `reach` (K) and
    /// `stride`.
    /// The ends of an input whose length is a multiple of the stride.
    pub(super) fn of_whole_strides(&self, reach: i64, stride: i64) -> (i64, i64) {
        self.ends(stride, reach, stride)
    }

    fn ends(&self, len: i64, reach: i64, stride: i64) -> (i64, i64) {
        let whole = reach - stride;
        // K - P is the stride, so the formula is what L lacks to a multiple of it.
        let extra = (stride - len % stride) % stride;
        match self.amount {
            Amount::Fixed(before, behind) => (before, behind),
            Amount::Causal => (whole, extra),
            Amount::Centered => (whole - whole / 2, whole / 2 + extra),
        }
    }
}

/// Pads the positional axes of `[N, C, ..]`; returns with it, for each axis, the zeros that are
/// still to come on both sides, which the convolution itself sees without a copy.
pub(super) fn pad(
    input: &Tensor,
    pads: &[Pad],
    reach: &[i64],
    stride: &[i64],
) -> (Tensor, Vec<i64>) {
    let sizes = input.size();
    let (mut ends, mut left) = (vec![(0, 0); pads.len()], vec![0; pads.len()]);
    for (axis, pad) in pads.iter().enumerate() {
        let (before, behind) = pad.ends(sizes[axis + 2], reach[axis], stride[axis]);
        if before == behind && pad.fill == Fill::Zeros {
            left[axis] = before;
        } else {
            ends[axis] = (before, behind);
        }
    }
    let mut padded = input.shallow_clone();
    for fill in [Fill::Zeros, Fill::Reflect, Fill::Replicate] {
        let of_fill =
            |(pad, &ends): (&Pad, &(i64, i64))| if pad.fill == fill { ends } else { (0, 0) };
        let of_fill: Vec<(i64, i64)> = pads.iter().zip(&ends).map(of_fill).collect();
        if of_fill.iter().any(|&ends| ends != (0, 0)) {
            padded = fill_ends(&padded, &of_fill, fill);
        }
    }
    (padded, left)
}

/// Pads each positional axis by these numbers before and behind.
pub(super) fn fill_ends(input: &Tensor, ends: &[(i64, i64)], fill: Fill) -> Tensor {
    match fill {
        Fill::Zeros => input.constant_pad_nd(libtorch_order(ends)),
        Fill::Replicate => ends.iter().enumerate().fold(input.shallow_clone(), repeat_ends),
        Fill::Reflect => {
            // Mirroring n values takes n + 1.
            let sizes = &input.size()[2..];
            let missing = |(&(before, behind), size): (&(i64, i64), &i64)| {
                let most = before.max(behind);
                if most == 0 { 0 } else { (most + 1 - size).max(0) }
            };
            let missing: Vec<i64> = ends.iter().zip(sizes).map(missing).collect();
            if missing.iter().all(|&missing| missing == 0) {
                return input.pad(libtorch_order(ends), "reflect", None);
            }
            let longer: Vec<_> = missing.iter().map(|&missing| (0, missing)).collect();
            let mut padded = input.constant_pad_nd(libtorch_order(&longer));
            padded = padded.pad(libtorch_order(ends), "reflect", None);
            for (axis, missing) in missing.iter().enumerate() {
                let axis = axis as i64 + 2;
                padded = padded.narrow(axis, 0, padded.size()[axis as usize] - missing);
            }
            padded
        }
    }
}

/// Repeats the values at the ends of a positional axis. Unlike libtorch's own padding it keeps channels last in memory, and
/// its backward pass adds in one order on every device.
fn repeat_ends(input: Tensor, (axis, &(before, behind)): (usize, &(i64, i64))) -> Tensor {
    if (before, behind) == (0, 0) {
        return input;
    }
    let axis = axis as i64 + 2;
    let last = input.size()[axis as usize] - 1;
    let times = |at: i64, times: i64| {
        let mut shape = vec![-1; input.dim()];
        shape[axis as usize] = times;
        input.narrow(axis, at, 1).expand(shape, false)
    };
    Tensor::cat(&[times(0, before), input.shallow_clone(), times(last, behind)], axis)
}

/// libtorch names the last axis first.
pub(crate) fn libtorch_order(ends: &[(i64, i64)]) -> Vec<i64> {
    ends.iter().rev().flat_map(|&(before, behind)| [before, behind]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The formula of the module, in floating point as the sources have it.
    #[test]
    fn the_last_window_is_whole() {
        for kernel in 1..8 {
            for stride in 1..=kernel {
                for dilation in 1..3 {
                    let reach = (kernel - 1) * dilation + 1;
                    let total = reach - stride;
                    for len in 1..20 {
                        let windows = (len - reach + total) as f64 / stride as f64 + 1.0;
                        let ideal = (windows.ceil() as i64 - 1) * stride + (reach - total);
                        let extra = ideal - len;
                        let of =
                            |amount| Pad { amount, fill: Fill::Zeros }.ends(len, reach, stride);
                        assert_eq!(of(Amount::Causal), (total, extra));
                        let half = total / 2;
                        assert_eq!(of(Amount::Centered), (total - half, half + extra));
                    }
                }
            }
        }
    }
}
