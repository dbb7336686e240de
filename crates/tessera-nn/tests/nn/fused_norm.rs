//! What group norm and SiLU in one promise beside their values, which `layers.rs` has.

use std::process::Command;

use tch::{Device, Kind, Tensor};
use tessera_nn::layers::{GroupNorm, Scope};
use tessera_nn::parameters::{Declarations, Stage};
use tessera_nn::{Kinds, Parameters};

const GROUPS: i64 = 4;

fn layer(channels: i64, kind: Kind) -> (GroupNorm, Parameters) {
    let mut to = Declarations::default();
    let layer = GroupNorm::new(&mut to, &Scope::new(Stage::Head, "norm"), channels, GROUPS, 1e-6);
    let parameters = to.allocate(0, Kinds::same(kind), Device::Cpu);
    let mut flat = parameters.flat().shallow_clone();
    flat.copy_(&pattern(&flat.size(), 0.9));
    (layer, parameters)
}

fn pattern(shape: &[i64], step: f64) -> Tensor {
    let count = Tensor::arange(shape.iter().product::<i64>(), (Kind::Double, Device::Cpu));
    ((count * step).sin() + 0.3).view(shape)
}

/// The same values with channels last in memory.
fn channels_last(tensor: &Tensor) -> Tensor {
    let last = tensor.dim() as i64 - 1;
    tensor.movedim_int(1, last).contiguous().movedim_int(last, 1)
}

/// Output, and the gradients of <output, upstream> at the input, the scale and the shift.
fn through(
    layer: &GroupNorm,
    parameters: &Parameters,
    input: &Tensor,
    upstream: &Tensor,
) -> (Tensor, Vec<Tensor>) {
    let input = input.detach().set_requires_grad(true);
    let output = layer.forward_silu(parameters, &input);
    let root = (&output * upstream).sum(output.kind());
    let leaves = parameters.leaves_of(Stage::Head);
    let targets: Vec<&Tensor> = [&input].into_iter().chain(leaves).collect();
    (output.detach(), Tensor::run_backward(&[root], &targets, false, false))
}

/// The largest difference, over the largest number.
fn off(found: &Tensor, expected: &Tensor) -> f64 {
    let (found, expected) = (found.to_kind(Kind::Double), expected.to_kind(Kind::Double));
    let most = |tensor: Tensor| tensor.abs().max().double_value(&[]);
    most(found - &expected) / most(expected)
}

/// 4608 positions of 16 channels are two pieces of a sample, which threads share where samples are few.
#[test]
fn a_sample_is_the_same_bit_for_bit_in_every_batch_and_with_any_number_of_threads() {
    let shape = [3, 16, 72, 64];
    for kind in [Kind::Float, Kind::BFloat16] {
        for lay_out in [channels_last, Tensor::contiguous] {
            let (layer, parameters) = layer(16, kind);
            let [input, upstream] =
                [1.3, 0.7].map(|step| lay_out(&pattern(&shape, step).to_kind(kind)));
            tch::set_num_threads(1);
            let (output, gradients) = through(&layer, &parameters, &input, &upstream);
            tch::set_num_threads(2);
            let again = through(&layer, &parameters, &input, &upstream);
            assert_eq!((&output, &gradients), (&again.0, &again.1));

            let mut sums: Vec<Tensor> = gradients[1..].iter().map(Tensor::zeros_like).collect();
            for sample in 0..3 {
                let part = |whole: &Tensor| whole.narrow(0, sample, 1);
                let of_part = through(&layer, &parameters, &part(&input), &part(&upstream));
                assert_eq!(part(&output), of_part.0);
                assert_eq!(part(&gradients[0]), of_part.1[0]);
                for (sum, gradient) in sums.iter_mut().zip(&of_part.1[1..]) {
                    *sum += gradient;
                }
            }
            // Parts are rounded to the kind before they are added: 2^-24 and 2^-8 each.
            let tolerance = if kind == Kind::Float { 1e-6 } else { 2e-2 };
            for (sum, gradient) in sums.iter().zip(&gradients[1..]) {
                assert!(off(sum, gradient) < tolerance, "{kind:?}: {:e}", off(sum, gradient));
            }
        }
    }
}

/// SiLU from -30 to 30 and beyond; and a mean that is some 140 deviations from zero, which makes as much of the rounding
/// of an input, 2^-24 = 6e-8 of it.
#[test]
fn float32_is_near_float64() {
    for (scale, mean, tolerance) in [(1.0, 0.0, 2e-6), (30.0, 1.0, 2e-6), (0.01, 1.0, 2e-5)] {
        let input = (pattern(&[2, 24, 9, 7], 1.3) * scale + mean).to_kind(Kind::Float);
        let upstream = pattern(&[2, 24, 9, 7], 0.7).to_kind(Kind::Float);
        let [single, double] = [Kind::Float, Kind::Double].map(|kind| {
            let (layer, parameters) = layer(24, kind);
            let mut flat = parameters.flat().shallow_clone();
            flat *= scale.max(1.0);
            let [input, upstream] =
                [&input, &upstream].map(|tensor| channels_last(&tensor.to_kind(kind)));
            let (output, gradients) = through(&layer, &parameters, &input, &upstream);
            [output].into_iter().chain(gradients).collect::<Vec<_>>()
        });
        for (what, (found, expected)) in single.iter().zip(&double).enumerate() {
            let off = off(found, expected);
            assert!(off < tolerance, "{what} of scale {scale}, mean {mean} is off by {off:e}");
        }
    }
}

/// libtorch takes the set of instructions from this variable, and so does the norm.
#[test]
fn older_instructions_give_the_same_up_to_rounding() {
    let mut levels = vec!["default"];
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        levels.push("avx2");
    }
    for level in levels {
        let mut again = Command::new(std::env::current_exe().unwrap());
        again
            .args(["--exact", "fused_norm::float32_is_near_float64"])
            .env("ATEN_CPU_CAPABILITY", level);
        let said = again.output().unwrap();
        let text = String::from_utf8_lossy(&said.stdout);
        assert!(said.status.success() && text.contains("1 passed"), "{level}: {text}");
    }
}

/// Both compute in float32 from the same numbers.
#[test]
fn bfloat16_is_float32_rounded() {
    for lay_out in [channels_last, Tensor::contiguous] {
        let input = lay_out(&pattern(&[2, 12, 5, 7], 1.3).to_kind(Kind::BFloat16));
        let (layer, parameters) = layer(12, Kind::BFloat16);
        let output = layer.forward_silu(&parameters, &input);
        let (wide, wider) = self::layer(12, Kind::Float);
        wider.flat().shallow_clone().copy_(parameters.flat());
        let expected = wide.forward_silu(&wider, &input.to_kind(Kind::Float));
        assert_eq!(output, expected.to_kind(Kind::BFloat16));
    }
}

#[test]
fn the_order_in_memory_stays_and_the_input_is_not_written() {
    let (layer, parameters) = layer(8, Kind::Float);
    for shape in [&[2, 8, 5][..], &[2, 8, 4, 3], &[2, 8, 2, 3, 2]] {
        let given = pattern(shape, 1.3).to_kind(Kind::Float);
        // Every other position along the last axis: whole in neither order.
        let apart = Tensor::stack(&[&given, &given], -1).flatten(-2, -1);
        let apart = apart.slice(-1, None, None, 2);
        let expected = layer.forward_silu(&parameters, &given);
        for input in [given.copy(), channels_last(&given), apart] {
            let (output, gradients) = through(&layer, &parameters, &input, &given.ones_like());
            assert_eq!(input, given);
            assert!(off(&output, &expected) < 1e-6);
            if input.stride() == channels_last(&given).stride() {
                assert_eq!(output.stride(), input.stride());
                assert_eq!(gradients[0].stride(), input.stride());
            }
        }
    }
}

#[test]
fn a_second_derivative_is_refused_and_a_first_one_with_a_graph_is_not() {
    let (layer, parameters) = layer(8, Kind::Float);
    let input = pattern(&[2, 8, 3, 3], 1.3).to_kind(Kind::Float).set_requires_grad(true);
    let root = layer.forward_silu(&parameters, &input).square().sum(Kind::Float);
    let first = Tensor::run_backward(&[root], &[&input], true, true);
    let penalty = first[0].square().sum(Kind::Float);
    let error = Tensor::f_run_backward(&[penalty], &[&input], false, false).unwrap_err();
    assert!(error.to_string().contains("no second derivative"), "{error}");
}

#[test]
#[should_panic(expected = "group norm: 4 groups of 6 channels")]
fn groups_that_do_not_divide_the_channels_are_named() {
    let (layer, parameters) = layer(6, Kind::Float);
    drop(layer.forward_silu(&parameters, &Tensor::zeros([1, 6, 2], (Kind::Float, Device::Cpu))));
}
