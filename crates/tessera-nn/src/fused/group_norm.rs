//! Group norm and SiLU in one pass over memory on a CPU, where libtorch's own take several and its backward pass is slow
//! with few channels that are last in memory (`docs/results/2026-11-26-group-norm.md`).
//!
//! Forward keeps the input, and the mean and deviation of each group; backward computes the rest again. Gradients of scale
//! and shift are sums over samples in their order.

use std::ffi::c_char;

use tch::Tensor;
use torch_sys::C_tensor;

use super::made;

// SAFETY: as `group_norm.cpp` defines it. It is given tensors that it does not change, and room for a message.
unsafe extern "C" {
    fn tessera_group_norm(
        input: *const C_tensor,
        weight: *const C_tensor,
        bias: *const C_tensor,
        groups: i64,
        eps: f64,
        is_silu: bool,
        error: *mut c_char,
        error_len: usize,
    ) -> *mut C_tensor;
}

/// `[N, C, ..]` to the same shape and order in memory: the norm, and SiLU of it where `is_silu`.
///
/// # Panics
///
/// If the input is not what [`takes`](super::takes) says, has no channels, or the groups do not divide them, as other
/// functions of libtorch do.
pub(crate) fn group_norm(
    input: &Tensor,
    [weight, bias]: [&Tensor; 2],
    groups: i64,
    eps: f64,
    is_silu: bool,
) -> Tensor {
    let [input, weight, bias] = [input, weight, bias].map(Tensor::as_ptr);
    // SAFETY: the three are tensors of libtorch that the references above keep; `error` is as long as is said.
    made("group norm", |error, len| unsafe {
        tessera_group_norm(input, weight, bias, groups, eps, is_silu, error, len)
    })
}
