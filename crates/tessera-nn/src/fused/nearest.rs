//! The largest of each row of scores.

use std::ffi::c_char;

use tch::{Device, Kind, Tensor};
use torch_sys::C_tensor;

use super::made;

// SAFETY: as `nearest.cpp` defines it. It changes the last two tensors alone, and is given room for a message.
unsafe extern "C" {
    fn tessera_best(
        scores: *const C_tensor,
        halves: *const C_tensor,
        first: i64,
        best: *const C_tensor,
        indices: *const C_tensor,
        error: *mut c_char,
        error_len: usize,
    ) -> *mut C_tensor;
}

/// Whether [`take_best`] computes with scores of such vectors.
pub(crate) fn takes(vectors: &Tensor) -> bool {
    vectors.device() == Device::Cpu && matches!(vectors.kind(), Kind::Float | Kind::Double)
}

/// Takes the largest of each row of `scores_nk` less `halves_k` into `best_n`, and its column, counted from `first`, into
/// `indices_n`, where it is above what is there. The first of those that are the same counts; a NaN is none. All are whole
/// in memory, indices int64, the others of one kind.
///
/// # Panics
///
/// If they are not.
pub(crate) fn take_best(
    scores_nk: &Tensor,
    halves_k: &Tensor,
    first: i64,
    best_n: &Tensor,
    indices_n: &Tensor,
) {
    let [scores, halves, best, indices] =
        [scores_nk, halves_k, best_n, indices_n].map(Tensor::as_ptr);
    // SAFETY: tensors of libtorch that the references keep; `error` is as long as is said. As with tch's own functions in
    // place, nothing of Rust refers to the memory that is written.
    drop(made("nearest code", |error, len| unsafe {
        tessera_best(scores, halves, first, best, indices, error, len)
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As many columns as vectors hold, and not; some are the largest more than once.
    #[test]
    fn the_first_of_the_largest_is_taken() {
        for kind in [Kind::Float, Kind::Double] {
            for width in [1, 5, 16, 33, 200] {
                let count = Tensor::arange(40 * width, (Kind::Int64, Device::Cpu));
                let scores_nk = (count * 37).remainder(11).to_kind(kind).view([40, width]);
                let halves_k = Tensor::arange(width, (kind, Device::Cpu)).remainder(3.0);
                let (expected_n, at_n) = (&scores_nk - &halves_k).max_dim(1, false);
                let best_n = Tensor::full([40], 4.0, (kind, Device::Cpu));
                let indices_n = Tensor::full([40], -1i64, (Kind::Int64, Device::Cpu));
                take_best(&scores_nk, &halves_k, 100, &best_n, &indices_n);
                // libtorch names any of those that are the same.
                let is_above_n = expected_n.gt(4.0);
                assert_eq!(best_n, expected_n.clamp_min(4.0), "{width} of {kind:?}");
                let is_largest_nk =
                    (&scores_nk - &halves_k).eq_tensor(&expected_n.unsqueeze(1)).to_kind(Kind::Int);
                let first_n = is_largest_nk.argmax(1, false) + 100;
                let first_n = first_n.where_self(&is_above_n, &at_n.full_like(-1));
                assert_eq!(indices_n, first_n, "{width} of {kind:?}");
            }
        }
    }
}
