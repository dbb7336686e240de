//! Group norm and SiLU in one pass over memory on a CPU, where libtorch's own take several and its backward pass is slow
//! with few channels that are last in memory (`docs/results/2026-11-26-group-norm.md`).
//!
//! The C++ beside this file is a function of libtorch's autograd: forward keeps the input, and the mean and deviation of
//! each group; backward computes the rest again. A sample's output and its gradient are bit for bit the same in every
//! batch and with any number of threads; those of scale and shift are sums over samples in their order. Numbers of
//! bfloat16 are computed in float32. There is no second derivative, and asking for one is an error. Other devices and
//! kinds are the caller's affair ([`takes`]).
#![allow(unsafe_code)] // libtorch's C++; each block says what must hold

use std::ffi::{CStr, c_char};

use tch::{Device, Kind, Tensor};
use torch_sys::C_tensor;

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

/// Whether [`group_norm`] computes with such a tensor.
pub(super) fn takes(input: &Tensor) -> bool {
    input.device() == Device::Cpu
        && matches!(input.kind(), Kind::Float | Kind::Double | Kind::BFloat16)
}

/// `[N, C, ..]` to the same shape and order in memory: the norm, and SiLU of it where `is_silu`.
///
/// # Panics
///
/// If the input is not what [`takes`] says, has no channels, or the groups do not divide them, as other functions of
/// libtorch do.
pub(super) fn group_norm(
    input: &Tensor,
    [weight, bias]: [&Tensor; 2],
    groups: i64,
    eps: f64,
    is_silu: bool,
) -> Tensor {
    let mut error = [0 as c_char; 1024];
    let [input, weight, bias] = [input, weight, bias].map(Tensor::as_ptr);
    // SAFETY: the three are tensors of libtorch that the references above keep; `error` is as long as is said.
    let output = unsafe {
        tessera_group_norm(
            input,
            weight,
            bias,
            groups,
            eps,
            is_silu,
            error.as_mut_ptr(),
            error.len(),
        )
    };
    if output.is_null() {
        // SAFETY: where it gives no tensor, the function has ended its message by a zero within the buffer.
        let message = unsafe { CStr::from_ptr(error.as_ptr()) };
        panic!("group norm: {}", message.to_string_lossy());
    }
    // SAFETY: a new tensor that nothing else refers to; dropping ours frees it as torch-sys allocates its own, by
    // delete.
    unsafe { Tensor::from_ptr(output) }
}
