//! Finer and coarser positions without parameters, by whole factors, for one to three axes.
//!
//! VQGAN's way down, a strided convolution of an input padded behind, is a
//! [`Conv`](super::Conv) with that padding.

use tch::Tensor;

/// `[N, C, ..]`: repeats each position `factors` times along each axis.
///
/// # Panics
///
/// If there is not one factor for each positional axis, 1 to 3 of them.
pub fn upsample_nearest(input: &Tensor, factors: &[i64]) -> Tensor {
    let axes = axes_of(input, factors);
    let sizes: Vec<i64> = axes.iter().zip(factors).map(|(size, factor)| size * factor).collect();
    match factors.len() {
        1 => input.upsample_nearest1d(sizes, None),
        2 => input.upsample_nearest2d(sizes, None, None),
        _ => input.upsample_nearest3d(sizes, None, None, None),
    }
}

/// `[N, C, ..]`: the mean of each block of `factors` positions. What is left over at the end of an
/// axis is left out.
///
/// # Panics
///
/// If there is not one factor for each positional axis, 1 to 3 of them.
pub fn average_pool(input: &Tensor, factors: &[i64]) -> Tensor {
    axes_of(input, factors);
    let none = vec![0; factors.len()];
    match factors.len() {
        1 => input.avg_pool1d(factors, factors, none, false, true),
        2 => input.avg_pool2d(factors, factors, none, false, true, None),
        _ => input.avg_pool3d(factors, factors, none, false, true, None),
    }
}

/// `[N, C, ..]`: the largest of each block of `factors` positions. What is left over at the end of an axis is left out.
///
/// # Panics
///
/// If there is not one factor for each positional axis, 1 to 3 of them.
pub fn max_pool(input: &Tensor, factors: &[i64]) -> Tensor {
    axes_of(input, factors);
    let (none, ones) = (vec![0; factors.len()], vec![1; factors.len()]);
    match factors.len() {
        1 => input.max_pool1d(factors, factors, none, ones, false),
        2 => input.max_pool2d(factors, factors, none, ones, false),
        _ => input.max_pool3d(factors, factors, none, ones, false),
    }
}

/// `[N, C, ..]`: the first of each block of `factors` positions, a view.
///
/// # Panics
///
/// If there is not one factor for each positional axis, 1 to 3 of them.
pub fn pick(input: &Tensor, factors: &[i64]) -> Tensor {
    axes_of(input, factors);
    let mut picked = input.shallow_clone();
    for (axis, &factor) in factors.iter().enumerate() {
        picked = picked.slice(axis as i64 + 2, None, None, factor);
    }
    picked
}

/// Sizes of the positional axes, one for each factor.
fn axes_of(input: &Tensor, factors: &[i64]) -> Vec<i64> {
    let axes = input.size().split_off(2);
    assert!(axes.len() == factors.len() && (1..=3).contains(&axes.len()), "{axes:?} {factors:?}");
    axes
}
