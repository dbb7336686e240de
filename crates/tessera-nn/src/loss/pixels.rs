//! Errors of single values and of their differences to neighbours.

use tch::Tensor;

/// Sum of squared errors over all values, a scalar of the kind of the inputs.
pub fn squared_error(outputs: &Tensor, targets: &Tensor) -> Tensor {
    (outputs - targets).square().sum(outputs.kind())
}

/// Sum of absolute errors over all values, a scalar of the kind of the inputs. The gradient where
/// both are equal is 0.
pub fn absolute_error(outputs: &Tensor, targets: &Tensor) -> Tensor {
    (outputs - targets).abs().sum(outputs.kind())
}

/// How much less sharp outputs are than targets, or where else edges are: the sum over samples of
/// a term for each positional axis, the mean of |d y - d x| with d the difference to the next value
/// along that axis.
///
/// Follows Mathieu et al. 2016 (<https://arxiv.org/abs/1511.05440>) with alpha = 1, but
/// compares differences with their signs, as is usual since: an edge from dark to light is not one
/// from light to dark. Nothing is padded; an axis of one value has no term.
///
/// * `outputs`, `targets`: `[N, C, ..]` with any number of positional axes.
///
/// Returns a scalar of the kind of the inputs.
pub fn gradient_difference(outputs: &Tensor, targets: &Tensor) -> Tensor {
    let errors = outputs - targets;
    let shape = errors.size();
    let mut total = errors.new_zeros([0i64; 0], (errors.kind(), errors.device()));
    for (axis, &size) in shape.iter().enumerate().skip(2) {
        if size < 2 {
            continue;
        }
        let last = size - 1;
        let steps = errors.narrow(axis as i64, 1, last) - errors.narrow(axis as i64, 0, last);
        let count: i64 = shape[1..].iter().product::<i64>() / size * last;
        total += steps.abs().sum(errors.kind()) / count as f64;
    }
    total
}

/// How differently outputs move: the sum over samples of the mean of (d y - d x)^2, with d the difference
/// of a frame to the next one. An error that stays the same from frame to frame, which people hardly
/// see, counts nothing; one that flickers does. Film of one frame has no term.
///
/// * `outputs`, `targets`: `[N, C, T, H, W]`.
///
/// Returns a scalar of the kind of the inputs.
pub fn frame_difference(outputs: &Tensor, targets: &Tensor) -> Tensor {
    let errors = outputs - targets;
    let [_, channels, frames, height, width] = errors.size()[..] else {
        panic!("film is [N, C, T, H, W]")
    };
    let last = (frames - 1).max(0);
    let steps = errors.narrow(2, frames - last, last) - errors.narrow(2, 0, last);
    let count = (channels * last * height * width).max(1);
    steps.square().sum(errors.kind()) / count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    /// By hand: errors 0, 1, -1 on one axis have the differences 1 and -2: mean 1.5; the second
    /// sample's are 2 and 0: mean 1.
    #[test]
    fn differences_are_averaged_over_a_sample_and_summed_over_samples() {
        let outputs = Tensor::from_slice(&[0.0, 1.0, -1.0, 0.0, 2.0, 2.0]).view([2, 1, 3]);
        let found = gradient_difference(&outputs, &outputs.zeros_like());
        assert_eq!(found.double_value(&[]), 2.5);
    }

    /// By hand: rows (0, 1), (0, 3): along the height 0 and 2, mean 1; along the width 1 and 3,
    /// mean 2.
    #[test]
    fn each_axis_has_a_term_and_one_of_a_single_value_has_none() {
        let outputs = Tensor::from_slice(&[0.0, 1.0, 0.0, 3.0]);
        let of = |shape: &[i64]| {
            let outputs = outputs.view(shape);
            gradient_difference(&outputs, &outputs.zeros_like()).double_value(&[])
        };
        assert_eq!(of(&[1, 1, 2, 2]), 3.0);
        assert_eq!(of(&[1, 1, 1, 2, 2]), 3.0);
        assert_eq!(of(&[4, 1, 1, 1]), 0.0);
    }

    /// By hand: errors (0, 1), (2, 1), (2, 4) of three frames of two pixels have the differences 2, 0 and 0, 3: mean
    /// (4 + 9) / 4. The second sample's errors stay.
    #[test]
    fn differences_of_frames_are_those_to_the_next() {
        let errors = [0.0, 1.0, 2.0, 1.0, 2.0, 4.0, 5.0, -1.0, 5.0, -1.0, 5.0, -1.0];
        let outputs = Tensor::from_slice(&errors).view([2, 1, 3, 1, 2]);
        let targets = Tensor::from_slice(&errors.map(f64::cos)).view([2, 1, 3, 1, 2]);
        let found = frame_difference(&(&outputs + &targets), &targets).double_value(&[]);
        assert!((found - 13.0 / 4.0).abs() < 1e-12, "{found}");
        let first = outputs.narrow(2, 0, 1);
        assert_eq!(frame_difference(&first, &first.zeros_like()).double_value(&[]), 0.0);
        let none = outputs.narrow(0, 0, 0);
        assert_eq!(frame_difference(&none, &none).double_value(&[]), 0.0);
    }

    #[test]
    fn a_constant_error_is_no_difference() {
        let outputs = Tensor::full([1, 2, 4, 4], 0.3, (Kind::Double, Device::Cpu));
        let targets = outputs.zeros_like();
        assert_eq!(gradient_difference(&outputs, &targets).double_value(&[]), 0.0);
        assert!((absolute_error(&outputs, &targets).double_value(&[]) - 9.6).abs() < 1e-12);
    }
}
