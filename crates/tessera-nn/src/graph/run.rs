//! A graph computed with libtorch, by operations that take any batch and size in a trace too.

use tch::{Kind, Tensor};

use super::{Each, Graph, MIN_LENGTH, Op, SNAKE_EPS, Value};
use crate::layers::Fill;
use crate::layers::padding::libtorch_order;

impl Graph {
    /// What the last node makes of `input`.
    pub fn run(&self, input: &Tensor) -> Tensor {
        let mut values = vec![input.shallow_clone()];
        for node in &self.nodes {
            let of: Vec<&Tensor> =
                node.inputs.iter().map(|&Value(number)| &values[number]).collect();
            values.push(self.compute(&node.op, &of));
        }
        values.pop().expect("the input is there")
    }

    fn compute(&self, op: &Op, of: &[&Tensor]) -> Tensor {
        let axes = self.num_axes;
        match op {
            Op::Conv { weight, bias, stride, dilation, groups, zeros } => {
                let padded = match zeros.iter().all(|&ends| ends == (0, 0)) {
                    true => of[0].shallow_clone(),
                    false => of[0].constant_pad_nd(libtorch_order(zeros)),
                };
                let none = vec![0; axes];
                padded.convolution(
                    weight,
                    bias.as_ref(),
                    stride.as_slice(),
                    none.as_slice(),
                    dilation.as_slice(),
                    false,
                    none.as_slice(),
                    *groups,
                )
            }
            Op::ConvTranspose { weight, bias, stride, dilation, groups, cut } => {
                let none = vec![0; axes];
                let whole = of[0].convolution(
                    weight,
                    bias.as_ref(),
                    stride.as_slice(),
                    none.as_slice(),
                    dilation.as_slice(),
                    true,
                    none.as_slice(),
                    *groups,
                );
                cut.iter().enumerate().fold(whole, |whole, (axis, &(before, behind))| {
                    let end = (behind > 0).then_some(-behind);
                    whole.slice(axis as i64 + 2, before, end, 1)
                })
            }
            Op::Pad { ends, fill } => {
                let mode = if *fill == Fill::Reflect { "reflect" } else { "replicate" };
                of[0].pad(libtorch_order(ends), mode, None)
            }
            Op::GroupNorm { groups, eps, weight, bias } => {
                of[0].group_norm(*groups, Some(weight), Some(bias), *eps, false)
            }
            Op::Each(each) => each_of(*each, of[0]),
            Op::Snake { alpha } => of[0] + (of[0] * alpha).sin().square() / (alpha + SNAKE_EPS),
            Op::Add => of[0] + of[1],
            Op::Subtract => of[0] - of[1],
            Op::Affine { scale, shift } => of[0] * scale + shift,
            Op::Repeat(factors) => repeat(of[0], factors),
            Op::Attention(_) => attention(of[0], of[1], of[2]),
            Op::Lstm(weights) => lstm(of[0], weights),
            Op::Unit => {
                let lengths = of[0].norm_scalaropt_dim(2, [1i64], true).clamp_min(MIN_LENGTH);
                of[0] * lengths.reciprocal()
            }
            Op::ArgMin => of[0].argmin(1, false),
            Op::Index => of[0].squeeze_dim(1).to_kind(Kind::Int64),
            Op::LookUp(table) => {
                let rows = Tensor::embedding(table, of[0], -1, false, false);
                rows.movedim_int(-1, 1)
            }
            Op::Stack => Tensor::stack(of, 1),
            Op::Pick(level) => of[0].select(1, *level),
            Op::Channels(start, num) => of[0].narrow(1, *start, *num),
            Op::Join => Tensor::cat(of, 1),
        }
    }
}

fn each_of(each: Each, input: &Tensor) -> Tensor {
    match each {
        Each::Relu => input.relu(),
        Each::Silu => input.silu(),
        Each::Elu => input.elu(),
        Each::Gelu => input.gelu("none"),
        Each::Tanh => input.tanh(),
        Each::Round => input.round(),
        Each::Floor => input.floor(),
        Each::IsPositive => input.gt(0.0).to_kind(Kind::Float),
        Each::IsNotNegative => input.ge(0.0).to_kind(Kind::Float),
        Each::Clamp(low, high) => input.clamp(low, high),
    }
}

fn repeat(input: &Tensor, factors: &[i64]) -> Tensor {
    factors.iter().enumerate().fold(input.shallow_clone(), |input, (axis, &factor)| {
        input.repeat_interleave_self_int(factor, axis as i64 + 2, None)
    })
}

/// Attention over all positions, of `[N, C, ..]` each.
fn attention(query: &Tensor, key: &Tensor, value: &Tensor) -> Tensor {
    let rows = |input: &Tensor| input.flatten(2, -1).transpose(1, 2).unsqueeze(1);
    let seen = Tensor::scaled_dot_product_attention(
        &rows(query),
        &rows(key),
        &rows(value),
        None::<&Tensor>,
        0.0,
        false,
        None,
        false,
    );
    seen.squeeze_dim(1).transpose(1, 2).reshape_as(query)
}

fn lstm(input: &Tensor, weights: &[Tensor; 4]) -> Tensor {
    let steps_tnc = input.permute([2, 0, 1]);
    // Zeros of [1, N, C], of whatever N there is.
    let start = (steps_tnc.narrow(0, 0, 1) * 0.0).contiguous();
    let (output, _, _) =
        steps_tnc.lstm(&[&start, &start], &weights.each_ref(), true, 1, 0.0, false, false, false);
    output.permute([1, 2, 0])
}
