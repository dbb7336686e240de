//! RMS norm, SwiGLU and dropout over rows whose values lie next to one another.

use std::ffi::c_char;
use std::ptr;

use tch::Tensor;
use torch_sys::C_tensor;

use super::made;

// SAFETY: as `rows.cpp` defines them. They are given tensors that they do not change, and room for a message.
unsafe extern "C" {
    fn tessera_rms_norm(
        input: *const C_tensor,
        weight: *const C_tensor,
        eps: f64,
        error: *mut c_char,
        error_len: usize,
    ) -> *mut C_tensor;
    fn tessera_swiglu(
        within: *const C_tensor,
        error: *mut c_char,
        error_len: usize,
    ) -> *mut C_tensor;
    fn tessera_keep(
        x: *const C_tensor,
        v: *const C_tensor,
        bytes: *const C_tensor,
        dropped: i64,
        error: *mut c_char,
        error_len: usize,
    ) -> *mut C_tensor;
}

/// `[.., C]` to the same shape: rows over the root of their mean square, times the weight `[C]`.
pub(crate) fn rms_norm(input: &Tensor, weight: &Tensor, eps: f64) -> Tensor {
    // SAFETY: both are tensors of libtorch that the references keep; `error` is as long as is said.
    made("RMS norm", |error, len| unsafe {
        tessera_rms_norm(input.as_ptr(), weight.as_ptr(), eps, error, len)
    })
}

/// `[.., 2 C]` to `[.., C]`: SiLU of the first half of each row, times the second.
pub(crate) fn swiglu(within: &Tensor) -> Tensor {
    // SAFETY: a tensor of libtorch that the reference keeps; `error` is as long as is said.
    made("SwiGLU", |error, len| unsafe { tessera_swiglu(within.as_ptr(), error, len) })
}

/// The numbers whose byte, of the same shape, is not below `dropped`, over the share of such bytes, and zeros; added to
/// `to`, if that is given.
pub(crate) fn keep(to: Option<&Tensor>, numbers: &Tensor, bytes: &Tensor, dropped: i64) -> Tensor {
    let to = to.map_or(ptr::null(), Tensor::as_ptr);
    // SAFETY: tensors of libtorch that the references keep, or null for none; `error` is as long as is said.
    made("dropout", |error, len| unsafe {
        tessera_keep(to, numbers.as_ptr(), bytes.as_ptr(), dropped, error, len)
    })
}

#[cfg(test)]
mod tests {
    use tch::{Device, IndexOp, Kind};

    use super::*;

    /// Numbers of a kind that no machine draws, from -1.2 to 1.8.
    fn pattern(shape: &[i64], step: f64, kind: Kind) -> Tensor {
        let count = Tensor::arange(shape.iter().product::<i64>(), (Kind::Double, Device::Cpu));
        ((count * step).sin() * 1.5 + 0.3).view(shape).to_kind(kind)
    }

    fn bytes(shape: &[i64]) -> Tensor {
        let count = Tensor::arange(shape.iter().product::<i64>(), (Kind::Int64, Device::Cpu));
        (count * 97).remainder(256).to_kind(Kind::Uint8).view(shape)
    }

    type Function<'a> = &'a dyn Fn(&[Tensor]) -> Tensor;

    /// The output of a function, and the gradients of <output, upstream> at its inputs.
    fn through(function: Function<'_>, inputs: &[Tensor]) -> Vec<Tensor> {
        let inputs: Vec<Tensor> =
            inputs.iter().map(|input| input.detach().set_requires_grad(true)).collect();
        let output = function(&inputs);
        let upstream = pattern(&output.size(), 0.7, output.kind());
        let root = (&output * upstream).sum(output.kind());
        let found = Tensor::run_backward(&[root], &inputs, false, false);
        std::iter::once(output.detach()).chain(found).collect()
    }

    fn off(found: &Tensor, expected: &Tensor) -> f64 {
        let (found, expected) = (found.to_kind(Kind::Double), expected.to_kind(Kind::Double));
        let most = |tensor: Tensor| tensor.abs().max().double_value(&[]);
        most(found - &expected) / most(expected)
    }

    /// Each function over rows with the same one made of libtorch's; widths are whole vectors, and not.
    #[test]
    fn outputs_and_gradients_are_those_of_libtorch() {
        for (kind, tolerance) in
            [(Kind::Double, 1e-13), (Kind::Float, 2e-6), (Kind::BFloat16, 2e-2)]
        {
            for width in [1, 3, 16, 40, 128] {
                let (rows, weight) =
                    (pattern(&[5, 7, width], 1.3, kind), pattern(&[width], 0.9, kind));
                let within = pattern(&[5, 7, 2 * width], 1.7, kind) * 4.0;
                // Of a sample next to one another, of samples apart.
                let bytes = bytes(&[5, 2, 7, width]).select(1, 1);
                let kept = bytes.ge(26).to_kind(kind) * (256.0 / 230.0);
                let both = vec![rows.shallow_clone(), pattern(&[5, 7, width], 0.3, kind)];
                let cases: [(&str, Vec<Tensor>, Function<'_>, Function<'_>); 4] = [
                    (
                        "RMS norm",
                        vec![rows.shallow_clone(), weight],
                        &|of| rms_norm(&of[0], &of[1], 1e-5),
                        &|of| of[0].rms_norm([width], Some(&of[1]), 1e-5),
                    ),
                    ("SwiGLU", vec![within], &|of| swiglu(&of[0]), &|of| {
                        of[0].narrow(-1, 0, width).silu() * of[0].narrow(-1, width, width)
                    }),
                    (
                        "dropout",
                        vec![rows.shallow_clone()],
                        &|of| keep(None, &of[0], &bytes, 26),
                        &|of| &of[0] * &kept,
                    ),
                    ("dropout beside", both, &|of| keep(Some(&of[0]), &of[1], &bytes, 26), &|of| {
                        of[0].addcmul(&of[1], &kept)
                    }),
                ];
                for (name, inputs, ours, theirs) in cases {
                    let (found, expected) = (through(ours, &inputs), through(theirs, &inputs));
                    for (what, (found, expected)) in found.iter().zip(&expected).enumerate() {
                        let off = off(found, expected);
                        assert!(off < tolerance, "{name}, {width} of {kind:?}, {what}: {off:e}");
                    }
                }
            }
        }
    }

    /// 200 rows are four pieces, which threads share.
    #[test]
    fn a_row_is_the_same_bit_for_bit_in_every_batch_and_with_any_number_of_threads() {
        for width in [24, 128] {
            let inputs =
                [pattern(&[200, width], 1.3, Kind::Float), pattern(&[width], 0.9, Kind::Float)];
            let norm: Function<'_> = &|of| rms_norm(&of[0], &of[1], 1e-5);
            let gated: Function<'_> = &|of| swiglu(&of[0]);
            for (function, inputs) in [(norm, &inputs[..]), (gated, &inputs[..1])] {
                tch::set_num_threads(1);
                let all = through(function, inputs);
                tch::set_num_threads(2);
                assert_eq!(through(function, inputs), all);
                for at in [0, 77, 199] {
                    let mut alone = vec![inputs[0].i(at..=at)];
                    alone.extend(inputs[1..].iter().map(Tensor::shallow_clone));
                    assert_eq!(function(&alone), all[0].i(at..=at));
                }
            }
        }
    }

    #[test]
    fn a_second_derivative_is_refused() {
        let input = pattern(&[3, 8], 1.3, Kind::Float).set_requires_grad(true);
        let first = Tensor::run_backward(
            &[swiglu(&input).square().sum(Kind::Float)],
            &[&input],
            true,
            true,
        );
        let penalty = first[0].square().sum(Kind::Float);
        let error = Tensor::f_run_backward(&[penalty], &[&input], false, false).unwrap_err();
        assert!(error.to_string().contains("SwiGLU on a CPU has no second derivative"), "{error}");
    }
}
