//! Functions in one pass over memory on a CPU, where libtorch's own take several: group norm with SiLU, RMS norm, SwiGLU,
//! dropout, the nearest code, and AdamW.
//!
//! Except for the last two, the C++ beside this file makes functions of libtorch's autograd. There is no second derivative,
//! and asking for one is an error. Numbers of bfloat16 are computed in float32. A row's or a sample's output and its
//! gradient are bit for bit the same in every batch and with any number of threads. Other devices and kinds are the
//! caller's affair (`takes`).
#![allow(unsafe_code)] // libtorch's C++; each block says what must hold

pub(crate) mod group_norm;
pub(crate) mod nearest;
pub(crate) mod rows;

pub mod adamw;

use std::ffi::{CStr, c_char};

use tch::{Device, Kind, Tensor};
use torch_sys::C_tensor;

/// Whether functions of this module compute with such a tensor.
pub(crate) fn takes(input: &Tensor) -> bool {
    input.device() == Device::Cpu
        && matches!(input.kind(), Kind::Float | Kind::Double | Kind::BFloat16)
}

/// The tensor that a function of the C++ gives, which takes room for a message and its length.
///
/// # Panics
///
/// With `name` and the message where it gives none, as other functions of libtorch do.
fn made(name: &str, call: impl FnOnce(*mut c_char, usize) -> *mut C_tensor) -> Tensor {
    let mut error = [0 as c_char; 1024];
    let output = call(error.as_mut_ptr(), error.len());
    if output.is_null() {
        // SAFETY: where it gives no tensor, the function has ended its message by a zero within the buffer.
        let message = unsafe { CStr::from_ptr(error.as_ptr()) };
        panic!("{name}: {}", message.to_string_lossy());
    }
    // SAFETY: a new tensor that nothing else refers to; dropping ours frees it as torch-sys allocates its own, by
    // delete.
    unsafe { Tensor::from_ptr(output) }
}
