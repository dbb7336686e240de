//! How a quantiser takes its codes, in numbers.

use tch::Tensor;

use super::{Each, Graph, Op, Value, constant};

/// What an index is of a latent, and a code of an index.
#[derive(Debug)]
pub enum Rule {
    /// The nearest row of a codebook `[K, D]`, by Euclidean distance.
    Nearest {
        /// What latents are compared with.
        compared_kd: Tensor,
        /// What comes out, `[K, D]`.
        codes_kd: Tensor,
        /// Whether latents are brought to length one first.
        is_unit: bool,
    },
    /// Bits: whether each channel is positive, the first the most significant.
    Signs {
        /// What comes out, `[K, D]`.
        codes_kd: Tensor,
    },
    /// Each channel rounded to a few levels: whole numbers from 0 on.
    Levels {
        /// Steps from a latent to the number of its level.
        steps: Vec<Step>,
        /// Channels of two levels, whose number is whether they are not negative; `[D]` of 0 and 1.
        is_sign_d: Tensor,
        /// What a channel's number counts in the index, `[D]`.
        basis_d: Tensor,
        /// What comes out, `[K, D]`.
        codes_kd: Tensor,
    },
    /// Linear layers around another one: weight and bias each way.
    Projected {
        /// To its channels.
        into: (Tensor, Option<Tensor>),
        /// Back.
        out: (Tensor, Option<Tensor>),
        /// Between them.
        inner: Box<Rule>,
    },
    /// Rules in a row, each of what those before it left over.
    Residual {
        /// The rules, each of one level.
        levels: Vec<Rule>,
        /// Where the input is bounded first, c tanh(z / c): c by channel.
        clamp_d: Option<Tensor>,
    },
    /// Rules side by side, each of so many channels.
    Grouped(Vec<(Rule, i64)>),
}

/// A step on the way to the number of a level, by channel `[D]`.
#[derive(Debug)]
pub enum Step {
    /// x scale + shift.
    Affine(Tensor, Tensor),
    /// A function of each number.
    Each(Each),
}

impl Rule {
    /// Levels of a position.
    pub fn num_levels(&self) -> usize {
        match self {
            Self::Nearest { .. } | Self::Signs { .. } | Self::Levels { .. } => 1,
            Self::Projected { inner, .. } => inner.num_levels(),
            Self::Residual { levels, .. } => levels.len(),
            Self::Grouped(groups) => groups.iter().map(|(rule, _)| rule.num_levels()).sum(),
        }
    }

    /// The codebook `[K, D]` of a single level without layers around it.
    pub fn codes(&self) -> Option<&Tensor> {
        match self {
            Self::Nearest { codes_kd, .. }
            | Self::Signs { codes_kd }
            | Self::Levels { codes_kd, .. } => Some(codes_kd),
            _ => None,
        }
    }

    /// Latents `[N, D, ..]` to indices: `[N, ..]`, where there are several levels `[N, L, ..]`.
    pub(super) fn describe(&self, graph: &mut Graph, latents: Value) -> Value {
        let mut all = Vec::new();
        self.search(graph, latents, &mut all);
        match all.as_slice() {
            [one] => *one,
            several => graph.push(Op::Stack, several),
        }
    }

    /// Indices to codes `[N, D, ..]`.
    pub(super) fn describe_look_up(&self, graph: &mut Graph, indices: Value) -> Value {
        let each: Vec<Value> = match self.num_levels() {
            1 => vec![indices],
            num => (0..num as i64).map(|level| graph.push(Op::Pick(level), &[indices])).collect(),
        };
        self.look_up(graph, &each)
    }

    /// Adds the indices of each level to `all`.
    fn search(&self, graph: &mut Graph, latents: Value, all: &mut Vec<Value>) {
        match self {
            Self::Nearest { compared_kd, is_unit, .. } => {
                let latents = match is_unit {
                    true => graph.push(Op::Unit, &[latents]),
                    false => latents,
                };
                // |e|^2 / 2 - z.e: half of the squared distance, but for what all codes have.
                let codes = constant(compared_kd);
                let half = codes.square().sum_dim_intlist([1i64].as_slice(), false, None) * 0.5;
                let scores = graph.linear(latents, &-codes, Some(&half));
                all.push(graph.push(Op::ArgMin, &[scores]));
            }
            Self::Signs { codes_kd } => {
                let bits = graph.each(Each::IsPositive, latents);
                let num = codes_kd.size()[1];
                let weights: Vec<f32> = (0..num).rev().map(|bit| (1i64 << bit) as f32).collect();
                let sum = graph.linear(bits, &Tensor::from_slice(&weights).unsqueeze(0), None);
                all.push(graph.push(Op::Index, &[sum]));
            }
            Self::Levels { steps, is_sign_d, basis_d, .. } => {
                let numbers = numbers(graph, latents, steps, is_sign_d);
                let sum = graph.linear(numbers, &basis_d.unsqueeze(0), None);
                all.push(graph.push(Op::Index, &[sum]));
            }
            Self::Projected { into: (weight, bias), inner, .. } => {
                let latents = graph.linear(latents, weight, bias.as_ref());
                inner.search(graph, latents, all);
            }
            Self::Residual { levels, clamp_d } => {
                let mut left = match clamp_d {
                    Some(clamp_d) => bounded(graph, latents, clamp_d),
                    None => latents,
                };
                for (number, rule) in levels.iter().enumerate() {
                    rule.search(graph, left, all);
                    if number + 1 < levels.len() {
                        let code = rule.look_up(graph, &all[all.len() - 1..]);
                        left = graph.push(Op::Subtract, &[left, code]);
                    }
                }
            }
            Self::Grouped(groups) => {
                let mut start = 0;
                for (rule, channels) in groups {
                    let own = graph.channels(latents, start, *channels);
                    rule.search(graph, own, all);
                    start += channels;
                }
            }
        }
    }

    /// Codes of the indices of each level.
    fn look_up(&self, graph: &mut Graph, indices: &[Value]) -> Value {
        match self {
            Self::Nearest { codes_kd, .. }
            | Self::Signs { codes_kd }
            | Self::Levels { codes_kd, .. } => {
                graph.push(Op::LookUp(constant(codes_kd)), &indices[..1])
            }
            Self::Projected { out: (weight, bias), inner, .. } => {
                let codes = inner.look_up(graph, indices);
                graph.linear(codes, weight, bias.as_ref())
            }
            Self::Residual { levels, .. } => {
                let codes: Vec<Value> = levels
                    .iter()
                    .zip(indices)
                    .map(|(rule, &index)| rule.look_up(graph, &[index]))
                    .collect();
                let add = |sum, code| graph.push(Op::Add, &[sum, code]);
                codes.into_iter().reduce(add).expect("a level at least")
            }
            Self::Grouped(groups) => {
                let (mut start, mut codes) = (0, Vec::new());
                for (rule, _) in groups {
                    let num = rule.num_levels();
                    codes.push(rule.look_up(graph, &indices[start..start + num]));
                    start += num;
                }
                graph.push(Op::Join, &codes)
            }
        }
    }
}

/// Numbers of the levels of each channel.
fn numbers(graph: &mut Graph, latents: Value, steps: &[Step], is_sign_d: &Tensor) -> Value {
    let mut numbers = latents;
    for step in steps {
        numbers = match step {
            Step::Affine(scale, shift) => affine(graph, numbers, scale, shift),
            Step::Each(each) => graph.each(*each, numbers),
        };
    }
    if is_sign_d.sum(None).double_value(&[]) == 0.0 {
        return numbers;
    }
    let signs = graph.each(Each::IsNotNegative, latents);
    let zeros = is_sign_d.zeros_like();
    let signs = affine(graph, signs, is_sign_d, &zeros);
    let others = affine(graph, numbers, &(1.0 - is_sign_d), &zeros);
    graph.push(Op::Add, &[signs, others])
}

/// c tanh(z / c).
fn bounded(graph: &mut Graph, latents: Value, clamp_d: &Tensor) -> Value {
    let zeros = clamp_d.zeros_like();
    let small = affine(graph, latents, &clamp_d.reciprocal(), &zeros);
    let small = graph.each(Each::Tanh, small);
    affine(graph, small, clamp_d, &zeros)
}

/// x scale + shift, both `[D]`.
fn affine(graph: &mut Graph, input: Value, scale_d: &Tensor, shift_d: &Tensor) -> Value {
    let shape = [vec![1, -1], vec![1; graph.num_axes(input)]].concat();
    let [scale, shift] = [scale_d, shift_d].map(|each| constant(each).view(shape.as_slice()));
    graph.push(Op::Affine { scale, shift }, &[input])
}
