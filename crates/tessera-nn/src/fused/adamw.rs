//! A step of AdamW (Loshchilov and Hutter 2019, <https://arxiv.org/abs/1711.05101>, algorithm 2), in one pass.

use std::ffi::c_char;
use std::ptr;

use tch::{Device, Kind, Tensor};
use torch_sys::C_tensor;

use super::made;

// SAFETY: as `adamw.cpp` defines it. It changes the first tensor and both moments, and is given six numbers and room for a
// message.
unsafe extern "C" {
    fn tessera_adamw(
        x: *const C_tensor,
        gradient: *const C_tensor,
        decayed: *const C_tensor,
        average: *const C_tensor,
        square: *const C_tensor,
        by: *const f64,
        error: *mut c_char,
        error_len: usize,
    ) -> *mut C_tensor;
}

/// The numbers of a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// What a weight that decays loses, of itself.
    pub decay: f64,
    /// How far each moment goes to the gradient, and to its square: 1 less its decay.
    pub rates: [f64; 2],
    /// What the root of the second moment is divided by.
    pub correction: f64,
    /// What is added to that.
    pub epsilon: f64,
    /// How far a parameter goes.
    pub rate: f64,
}

/// Whether [`step`] computes with such parameters.
pub fn takes(parameters: &Tensor) -> bool {
    parameters.device() == Device::Cpu && matches!(parameters.kind(), Kind::Float | Kind::Double)
}

/// Moves parameters along their gradient, and both moments with them; `decayed` is 1 where weights decay. All are of one
/// shape and kind, and whole in memory.
///
/// # Panics
///
/// If they are not, or not what [`takes`] says.
pub fn step(
    parameters: &Tensor,
    gradient: &Tensor,
    decayed: Option<&Tensor>,
    moments: [&Tensor; 2],
    by: Step,
) {
    let Step { decay, rates: [rate1, rate2], correction, epsilon, rate } = by;
    let by = [decay, rate1, rate2, 1.0 / correction, epsilon, rate];
    let [x, gradient, average, square] =
        [parameters, gradient, moments[0], moments[1]].map(Tensor::as_ptr);
    let decayed = decayed.map_or(ptr::null(), Tensor::as_ptr);
    // SAFETY: tensors of libtorch that the references keep, or null for none; `by` has six numbers, and `error` is as
    // long as is said. As with tch's own functions in place, nothing of Rust refers to the memory that is written.
    drop(made("AdamW", |error, len| unsafe {
        tessera_adamw(x, gradient, decayed, average, square, by.as_ptr(), error, len)
    }));
}
