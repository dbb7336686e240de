//! Each operation of a graph in operators of ONNX.

use tch::Tensor;
use tessera_nn::graph::{Each, MIN_LENGTH, Node, Op, SNAKE_EPS};

use super::{FLOAT, INT64, Writer, float, int, ints, word};

impl Writer {
    /// Writes what makes `out` of the values `of`.
    pub(super) fn write(&mut self, node: &Node, of: &[&str], out: &str) {
        match &node.op {
            Op::Conv { weight, bias, stride, dilation, groups, zeros } => {
                let inputs = self.weighted(of[0], weight, bias.as_ref());
                let all = steps(stride, dilation, *groups, zeros);
                self.named("Conv", &refs(&inputs), all, out);
            }
            Op::ConvTranspose { weight, bias, stride, dilation, groups, cut } => {
                let inputs = self.weighted(of[0], weight, bias.as_ref());
                let all = steps(stride, dilation, *groups, cut);
                self.named("ConvTranspose", &refs(&inputs), all, out);
            }
            Op::Pad { ends, fill } => {
                let before = ends.iter().map(|ends| ends.0);
                let behind = ends.iter().map(|ends| ends.1);
                let pads: Vec<i64> =
                    [0, 0].into_iter().chain(before).chain([0, 0]).chain(behind).collect();
                let pads = self.ints(&pads);
                let is_mirror = *fill == tessera_nn::layers::Fill::Reflect;
                let mode = word("mode", if is_mirror { "reflect" } else { "edge" });
                self.named("Pad", &[of[0], &pads], vec![mode], out);
            }
            Op::AveragePool(factors) => {
                let shape = vec![ints("kernel_shape", factors), ints("strides", factors)];
                self.named("AveragePool", &of[..1], shape, out);
            }
            Op::GroupNorm { groups, eps, weight, bias } => {
                let by_channel = [vec![-1], vec![1; node.num_axes]].concat();
                let affine = [weight, bias].map(|each| each.view(by_channel.as_slice()));
                self.group_norm(of[0], (*groups, *eps), affine, out);
            }
            Op::LayerNorm { eps, weight, bias } => {
                let [there, back] = channels_behind(node.num_axes);
                let rows = self.node("Transpose", &of[..1], vec![ints("perm", &there)]);
                let (weight, bias) = (self.floats(weight), self.floats(bias));
                let along = vec![int("axis", -1), float("epsilon", *eps)];
                let normed = self.node("LayerNormalization", &[&rows, &weight, &bias], along);
                self.named("Transpose", &[&normed], vec![ints("perm", &back)], out);
            }
            Op::Each(each) => self.each(*each, of[0], out),
            Op::Snake { alpha } => self.snake(of[0], alpha, out),
            Op::Add => self.named("Add", &of[..2], vec![], out),
            Op::Subtract => self.named("Sub", &of[..2], vec![], out),
            Op::Affine { scale, shift } => {
                let (scale, shift) = (self.floats(scale), self.floats(shift));
                let scaled = self.node("Mul", &[of[0], &scale], vec![]);
                self.named("Add", &[&scaled, &shift], vec![], out);
            }
            Op::Repeat(factors) => {
                let scales: Vec<f32> =
                    [1, 1].iter().chain(factors).map(|&factor| factor as f32).collect();
                let scales = self.floats(&Tensor::from_slice(&scales));
                let modes = vec![
                    word("mode", "nearest"),
                    word("coordinate_transformation_mode", "asymmetric"),
                    word("nearest_mode", "floor"),
                ];
                self.named("Resize", &[of[0], "", &scales], modes, out);
            }
            Op::Attention { heads, head_dim, sight } => {
                self.attention(of, [*heads, *head_dim], *sight, out);
            }
            Op::Rotary { heads, frequencies } => self.rotary(of[0], *heads, frequencies, out),
            Op::Lstm(weights) => self.lstm(of[0], weights, out),
            Op::Unit => {
                let along = vec![ints("axes", &[1]), int("keepdims", 1)];
                let length = self.node("ReduceL2", &[of[0]], along);
                let tiny = self.float(MIN_LENGTH);
                let length = self.node("Max", &[&length, &tiny], vec![]);
                self.named("Div", &[of[0], &length], vec![], out);
            }
            Op::ArgMin => {
                let along = vec![int("axis", 1), int("keepdims", 0)];
                self.named("ArgMin", &[of[0]], along, out);
            }
            Op::Index => {
                let axes = self.ints(&[1]);
                let plain = self.node("Squeeze", &[of[0], &axes], vec![]);
                self.named("Cast", &[&plain], vec![int("to", i64::from(INT64))], out);
            }
            Op::LookUp(table) => {
                let table = self.floats(table);
                let rows = self.node("Gather", &[&table, of[0]], vec![int("axis", 0)]);
                let [_, order] = channels_behind(node.num_axes);
                self.named("Transpose", &[&rows], vec![ints("perm", &order)], out);
            }
            Op::Stack => {
                let axes = self.ints(&[1]);
                let each: Vec<String> = of
                    .iter()
                    .map(|value| self.node("Unsqueeze", &[value, &axes], vec![]))
                    .collect();
                self.named("Concat", &refs(&each), vec![int("axis", 1)], out);
            }
            Op::Pick(level) => {
                let level = self.int(*level);
                self.named("Gather", &[of[0], &level], vec![int("axis", 1)], out);
            }
            Op::Slice { axis, start, end } => {
                let ends = [*start, end.unwrap_or(i64::MAX), *axis];
                let [start, end, axes] = ends.map(|value| self.ints(&[value]));
                self.named("Slice", &[of[0], &start, &end, &axes], vec![], out);
            }
            Op::Join => self.named("Concat", of, vec![int("axis", 1)], out),
            Op::Surround { before, behind } => {
                let num = self.sizes(of[0], &[0]);
                let ones = self.ints(&[1, 1]);
                let shape = self.node("Concat", &[&num, &ones], vec![int("axis", 0)]);
                let [before, behind] = [before, behind].map(|constant| {
                    let constant = self.floats(constant.as_ref()?);
                    Some(self.node("Expand", &[&constant, &shape], vec![]))
                });
                let parts: Vec<&str> = before
                    .iter()
                    .map(String::as_str)
                    .chain([of[0]])
                    .chain(behind.iter().map(String::as_str))
                    .collect();
                self.named("Concat", &parts, vec![int("axis", 2)], out);
            }
            Op::Reshape(shape) => {
                // 0: as many samples as there are.
                let shape = self.ints(&[&[0], shape.as_slice()].concat());
                self.named("Reshape", &[of[0], &shape], vec![], out);
            }
            Op::PixelShuffle(side) => {
                let how = vec![int("blocksize", *side), word("mode", "CRD")];
                self.named("DepthToSpace", &of[..1], how, out);
            }
            Op::Fold(axes) => self.fold(of[0], axes, node.num_axes, out),
            Op::Unfold(axes) => {
                let order = folded(axes, node.num_axes);
                let mut back = order.clone();
                for (to, &from) in (0..).zip(&order) {
                    back[from as usize] = to;
                }
                let shape = self.sizes(of[1], &order);
                let apart = self.node("Reshape", &[of[0], &shape], vec![]);
                self.named("Transpose", &[&apart], vec![ints("perm", &back)], out);
            }
        }
    }

    /// The inputs of a convolution.
    fn weighted(&mut self, of: &str, weight: &Tensor, bias: Option<&Tensor>) -> Vec<String> {
        let mut inputs = vec![of.to_owned(), self.floats(weight)];
        inputs.extend(bias.map(|bias| self.floats(bias)));
        inputs
    }

    /// A group is an instance of one channel: opset 17 has no other group norm.
    fn group_norm(&mut self, of: &str, (groups, eps): (i64, f64), affine: [Tensor; 2], out: &str) {
        let shape = self.node("Shape", &[of], vec![]);
        let grouped = self.ints(&[0, groups, -1]);
        let grouped = self.node("Reshape", &[of, &grouped], vec![]);
        let ones = Tensor::ones([groups], tch::kind::FLOAT_CPU);
        let (one, zero) = (self.floats(&ones), self.floats(&ones.zeros_like()));
        let eps = vec![float("epsilon", eps)];
        let normed = self.node("InstanceNormalization", &[&grouped, &one, &zero], eps);
        let normed = self.node("Reshape", &[&normed, &shape], vec![]);
        let [weight, bias] = affine.map(|each| self.floats(&each));
        let scaled = self.node("Mul", &[&normed, &weight], vec![]);
        self.named("Add", &[&scaled, &bias], vec![], out);
    }

    fn each(&mut self, each: Each, of: &str, out: &str) {
        match each {
            Each::Relu => self.named("Relu", &[of], vec![], out),
            Each::Silu => {
                let gate = self.node("Sigmoid", &[of], vec![]);
                self.named("Mul", &[of, &gate], vec![], out);
            }
            Each::Elu => self.named("Elu", &[of], vec![float("alpha", 1.0)], out),
            Each::Gelu => {
                let [root, one, half] =
                    [std::f64::consts::SQRT_2, 1.0, 0.5].map(|value| self.float(value));
                let scaled = self.node("Div", &[of, &root], vec![]);
                let erf = self.node("Erf", &[&scaled], vec![]);
                let gate = self.node("Add", &[&erf, &one], vec![]);
                let gated = self.node("Mul", &[of, &gate], vec![]);
                self.named("Mul", &[&gated, &half], vec![], out);
            }
            Each::Tanh => self.named("Tanh", &[of], vec![], out),
            Each::Round => self.named("Round", &[of], vec![], out),
            Each::Floor => self.named("Floor", &[of], vec![], out),
            Each::IsPositive => self.compared("Greater", of, out),
            Each::IsNotNegative => self.compared("GreaterOrEqual", of, out),
            Each::Clamp(low, high) => {
                let (low, high) = (self.float(low), self.float(high));
                self.named("Clip", &[of, &low, &high], vec![], out);
            }
        }
    }

    /// 1 where a comparison with 0 holds, otherwise 0.
    fn compared(&mut self, op: &str, of: &str, out: &str) {
        let zero = self.float(0.0);
        let holds = self.node(op, &[of, &zero], vec![]);
        self.named("Cast", &[&holds], vec![int("to", i64::from(FLOAT))], out);
    }

    fn snake(&mut self, of: &str, alpha: &Tensor, out: &str) {
        let (frequency, divisor) = (self.floats(alpha), self.floats(&(alpha + SNAKE_EPS)));
        let scaled = self.node("Mul", &[of, &frequency], vec![]);
        let sine = self.node("Sin", &[&scaled], vec![]);
        let square = self.node("Mul", &[&sine, &sine], vec![]);
        let bent = self.node("Div", &[&square, &divisor], vec![]);
        self.named("Add", &[of, &bent], vec![], out);
    }

    /// Sizes of a value along these of all its axes, `[axes]`.
    pub(super) fn sizes(&mut self, of: &str, axes: &[i64]) -> String {
        let shape = self.node("Shape", &[of], vec![]);
        let axes = self.ints(axes);
        self.node("Gather", &[&shape, &axes], vec![int("axis", 0)])
    }

    /// Places along some axes as samples; `num_left` axes are left.
    fn fold(&mut self, of: &str, axes: &[usize], num_left: usize, out: &str) {
        let order = folded(axes, num_left + axes.len());
        let others = self.sizes(of, &order[axes.len() + 1..]);
        let any = self.ints(&[-1]);
        let shape = self.node("Concat", &[&any, &others], vec![int("axis", 0)]);
        let turned = self.node("Transpose", &[of], vec![ints("perm", &order)]);
        self.named("Reshape", &[&turned, &shape], vec![], out);
    }

    /// Gates come in the order i, o, f, g here, in PyTorch i, f, g, o.
    fn lstm(&mut self, of: &str, [input, hidden, of_input, of_hidden]: &[Tensor; 4], out: &str) {
        let reordered = |tensor: &Tensor| {
            let gates = tensor.chunk(4, 0);
            Tensor::cat(&[&gates[0], &gates[3], &gates[1], &gates[2]], 0)
        };
        let biases = Tensor::cat(&[reordered(of_input), reordered(of_hidden)], 0);
        let channels = hidden.size()[1];
        let [input, hidden] =
            [input, hidden].map(|weight| self.floats(&reordered(weight).unsqueeze(0)));
        let biases = self.floats(&biases.unsqueeze(0));
        let steps = self.node("Transpose", &[of], vec![ints("perm", &[2, 0, 1])]);
        let size = vec![int("hidden_size", channels)];
        let all = self.node("LSTM", &[&steps, &input, &hidden, &biases], size);
        let directions = self.ints(&[1]);
        let plain = self.node("Squeeze", &[&all, &directions], vec![]);
        self.named("Transpose", &[&plain], vec![ints("perm", &[1, 2, 0])], out);
    }
}

/// Attributes of a convolution; `ends` are zeros beyond the ends, or what is cut off them.
fn steps(
    stride: &[i64],
    dilation: &[i64],
    groups: i64,
    ends: &[(i64, i64)],
) -> Vec<super::Attribute> {
    let (before, behind) = (ends.iter().map(|ends| ends.0), ends.iter().map(|ends| ends.1));
    let pads: Vec<i64> = before.chain(behind).collect();
    vec![
        ints("strides", stride),
        ints("dilations", dilation),
        int("group", groups),
        ints("pads", &pads),
    ]
}

/// The order of axes that puts the channels last, and the way back.
fn channels_behind(num_axes: usize) -> [Vec<i64>; 2] {
    let last = num_axes as i64 + 1;
    let there = [0].into_iter().chain(2..=last).chain([1]).collect();
    let back = [0, last].into_iter().chain(1..last).collect();
    [there, back]
}

/// All axes of a value with `num_axes` positional ones, these behind the samples.
fn folded(axes: &[usize], num_axes: usize) -> Vec<i64> {
    let folded = axes.iter().map(|axis| axis + 2);
    let others = (0..num_axes).filter(|axis| !axes.contains(axis)).map(|axis| axis + 2);
    [0].into_iter().chain(folded).chain([1]).chain(others).map(|axis| axis as i64).collect()
}

fn refs(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}
