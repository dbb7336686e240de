//! The rule that fixtures of whole networks take their values by, which `fixtures/networks.py` states, and what they keep.

use serde::Deserialize;
use tch::{Device, Kind, Tensor};

/// Outputs are of size 1, sums of size 100.
const TOLERANCE: f64 = 1e-9;
/// Of outputs and gradients at inputs every fifth value is kept.
const SPACING: i64 = 5;

#[derive(Deserialize)]
pub(crate) struct Summary {
    pub(crate) shape: Vec<i64>,
    pub(crate) some: Vec<f64>,
    pub(crate) sum: f64,
}

/// The rule of the script: uniform in [-1, 1), by a hash of `key` and the place in row-major order.
pub(crate) fn uniform(key: &str, shape: &[i64]) -> Tensor {
    let fnv = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    let seed = key.bytes().fold(0x811c_9dc5, fnv);
    let value = |at: u32| {
        let bits = seed ^ at.wrapping_mul(0x9e37_79b1);
        let bits = (bits ^ (bits >> 16)).wrapping_mul(0x85eb_ca6b);
        let bits = (bits ^ (bits >> 13)).wrapping_mul(0xc2b2_ae35);
        f64::from(bits ^ (bits >> 16)) / f64::from(1u32 << 31) - 1.0
    };
    let num = u32::try_from(shape.iter().product::<i64>()).unwrap();
    Tensor::from_slice(&(0..num).map(value).collect::<Vec<f64>>()).view(shape)
}

/// The rule of the script for a tensor of this name there.
pub(crate) fn weight(name: &str, shape: &[i64]) -> Tensor {
    let uniform = uniform(name, shape);
    match shape {
        [_] if name.ends_with("weight") => uniform * 0.3 + 1.0,
        [_, others @ ..] if name.ends_with("weight") => {
            uniform * (3.0 / others.iter().product::<i64>() as f64).sqrt()
        }
        _ => uniform * 0.3,
    }
}

/// cos(0.7 i - 0.3) at place i in row-major order.
pub(crate) fn upstream(shape: &[i64]) -> Tensor {
    let count = Tensor::arange(shape.iter().product::<i64>(), (Kind::Double, Device::Cpu));
    (count * 0.7 - 0.3).cos().view(shape)
}

#[track_caller]
pub(crate) fn assert_near(what: &str, found: &Tensor, expected: &[f64]) {
    let found = found.detach().contiguous().flatten(0, -1);
    assert_eq!(found.size()[0] as usize, expected.len(), "{what}");
    let off = (found - Tensor::from_slice(expected)).abs().max().double_value(&[]);
    assert!(off < TOLERANCE, "{what} is off by {off:e}");
}

#[track_caller]
pub(crate) fn assert_sum(what: &str, found: &Tensor, expected: f64) {
    let sum = (found.detach().contiguous() * upstream(&found.size())).sum(Kind::Double);
    assert_near(what, &sum.view(1), &[expected]);
}

#[track_caller]
pub(crate) fn assert_summary(what: &str, found: &Tensor, expected: &Summary) {
    assert_eq!(found.size(), expected.shape, "{what}");
    let some = found.contiguous().flatten(0, -1).slice(0, None, None, SPACING);
    assert_near(what, &some, &expected.some);
    assert_sum(what, found, expected.sum);
}
