//! A graph computed with libtorch, by operations that take any batch and size in a trace too.

use tch::{Kind, Tensor};

use super::{Each, Graph, MIN_LENGTH, Op, SNAKE_EPS, Sight, Value};
use crate::layers::Fill;
use crate::layers::padding::libtorch_order;
use crate::layers::resample::average_pool;

impl Graph {
    /// What comes out for `inputs`.
    ///
    /// # Panics
    ///
    /// If these are not as many as the graph has inputs, or of other sizes than a graph of one size takes.
    pub fn run(&self, inputs: &[Tensor]) -> Vec<Tensor> {
        assert_eq!(inputs.len(), self.inputs.len(), "an input for each");
        let mut values: Vec<Tensor> = inputs.iter().map(Tensor::shallow_clone).collect();
        for node in &self.nodes {
            let of: Vec<&Tensor> =
                node.inputs.iter().map(|&Value(number)| &values[number]).collect();
            values.push(node.op.compute(&of));
        }
        self.outputs.iter().map(|&Value(number)| values[number].shallow_clone()).collect()
    }
}

impl Op {
    fn compute(&self, of: &[&Tensor]) -> Tensor {
        match self {
            Op::Conv { weight, bias, stride, dilation, groups, zeros } => {
                let padded = match zeros.iter().all(|&ends| ends == (0, 0)) {
                    true => of[0].shallow_clone(),
                    false => of[0].constant_pad_nd(libtorch_order(zeros)),
                };
                let none = vec![0; stride.len()];
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
                let none = vec![0; stride.len()];
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
            Op::AveragePool(factors) => average_pool(of[0], factors),
            Op::LayerNorm { eps, weight, bias } => {
                let rows = of[0].movedim_int(1, -1);
                let normed = rows.layer_norm(weight.size(), Some(weight), Some(bias), *eps, false);
                normed.movedim_int(-1, 1)
            }
            Op::Each(each) => each_of(*each, of[0]),
            Op::Snake { alpha } => of[0] + (of[0] * alpha).sin().square() / (alpha + SNAKE_EPS),
            Op::Add => of[0] + of[1],
            Op::Subtract => of[0] - of[1],
            Op::Affine { scale, shift } => of[0] * scale + shift,
            Op::Repeat(factors) => repeat(of[0], factors),
            Op::Attention { heads, sight, .. } => attention(of, *heads, *sight),
            Op::Rotary { heads, frequencies } => rotary(of[0], *heads, frequencies),
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
            Op::Slice { axis, start, end } => of[0].slice(*axis, *start, *end, 1),
            Op::Join => Tensor::cat(of, 1),
            Op::Surround { before, behind } => {
                // Zeros of [N, C, 1], of whatever N there is.
                let zeros = of[0].slice(2, 0, 1, 1).zeros_like();
                let [before, behind] =
                    [before, behind].map(|constant| constant.as_ref().map(|each| each + &zeros));
                let parts: Vec<&Tensor> =
                    before.iter().chain([of[0]]).chain(behind.iter()).collect();
                Tensor::cat(&parts, 2)
            }
            Op::Reshape(shape) => of[0].flatten(1, -1).unflatten(1, shape.as_slice()),
            Op::PixelShuffle(side) => of[0].pixel_shuffle(*side),
            Op::Fold(axes) => {
                of[0].permute(folded(axes, of[0].dim())).flatten(0, axes.len() as i64)
            }
            Op::Unfold(axes) => {
                let order = folded(axes, of[1].dim());
                let mut back = vec![0; order.len()];
                for (to, &from) in (0..).zip(&order) {
                    back[from as usize] = to;
                }
                of[0].reshape_as(&of[1].permute(order)).permute(back)
            }
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

/// Attention among all positions, of queries, keys and values `[N, C, ..]`.
fn attention(of: &[&Tensor], heads: i64, sight: Sight) -> Tensor {
    let rows = |input: &Tensor| {
        input.flatten(2, -1).unflatten(1, [heads, -1]).transpose(2, 3).contiguous()
    };
    let [query, key, value] = [0, 1, 2].map(|which| rows(of[which]));
    let (mask, is_causal) = match sight {
        Sight::ALL => (None, false),
        Sight::CAUSAL => (None, true),
        _ => (Some(mask(&query, &key, sight)), false),
    };
    let seen = Tensor::scaled_dot_product_attention(
        &query,
        &key,
        &value,
        mask.as_ref(),
        0.0,
        is_causal,
        None,
        false,
    );
    seen.transpose(2, 3).reshape_as(of[0])
}

/// Which positions see which, `[1, 1, L, L]`, for queries and keys `[N, heads, L, d]` of whatever L there is.
fn mask(query: &Tensor, key: &Tensor, sight: Sight) -> Tensor {
    let [query, key] = [query, key].map(|rows| rows.slice(0, 0, 1, 1).slice(1, 0, 1, 1));
    let mut seen = query.matmul(&key.transpose(2, 3)).ones_like();
    if let Some(behind) = sight.behind {
        seen = seen.tril(behind);
    }
    if let Some(before) = sight.before {
        seen = seen.triu(-before);
    }
    seen.to_kind(Kind::Bool)
}

/// The turn of `[N, C, L]` by position, with angles in float64 as [`crate::layers::Rotary`] has them.
fn rotary(input: &Tensor, heads: i64, frequencies: &Tensor) -> Tensor {
    let pairs = input.unflatten(1, [heads, -1, 2]);
    let ones = input.slice(0, 0, 1, 1).slice(1, 0, 1, 1).ones_like();
    let places = ones.to_kind(Kind::Double).cumsum(2, Kind::Double) - 1.0;
    let angles = frequencies.unsqueeze(1) * places;
    let [cos, sin] = [angles.cos(), angles.sin()].map(|each| each.to_kind(Kind::Float));
    let (real, imaginary) = (pairs.select(3, 0), pairs.select(3, 1));
    let turned = [&real * &cos - &imaginary * &sin, &real * &sin + &imaginary * &cos];
    Tensor::stack(&turned, 3).reshape_as(input)
}

/// All axes of a tensor with `num` of them, these positional ones behind the samples.
fn folded(axes: &[usize], num: usize) -> Vec<i64> {
    let folded = axes.iter().map(|axis| axis + 2);
    let others = (2..num).filter(|axis| !axes.contains(&(axis - 2)));
    [0].into_iter().chain(folded).chain([1]).chain(others).map(|axis| axis as i64).collect()
}

fn lstm(input: &Tensor, weights: &[Tensor; 4]) -> Tensor {
    let steps_tnc = input.permute([2, 0, 1]);
    // Zeros of [1, N, C], of whatever N there is.
    let start = (steps_tnc.narrow(0, 0, 1) * 0.0).contiguous();
    let (output, _, _) =
        steps_tnc.lstm(&[&start, &start], &weights.each_ref(), true, 1, 0.0, false, false, false);
    output.permute([1, 2, 0])
}
