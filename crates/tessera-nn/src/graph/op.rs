//! What a node of a graph computes.

use tch::Tensor;

use crate::layers::Fill;

/// What a node computes. Tensors are `[N, C, ..]` unless a line says otherwise, and axes are the positional ones, from 0 on,
/// the first behind the channels; constants are float32 on the host, unless a line says otherwise.
#[derive(Debug)]
pub enum Op {
    /// A convolution, with zeros beyond the ends: of each axis so many before and behind.
    Conv {
        /// `[outputs, inputs / groups, ..]`.
        weight: Tensor,
        /// `[outputs]`.
        bias: Option<Tensor>,
        /// Of each axis.
        stride: Vec<i64>,
        /// Of each axis.
        dilation: Vec<i64>,
        /// Groups of channels.
        groups: i64,
        /// Zeros before and behind.
        zeros: Vec<(i64, i64)>,
    },
    /// A transposed convolution, of which so much is cut off each axis before and behind.
    ConvTranspose {
        /// `[inputs, outputs / groups, ..]`.
        weight: Tensor,
        /// `[outputs]`.
        bias: Option<Tensor>,
        /// Of each axis.
        stride: Vec<i64>,
        /// Of each axis.
        dilation: Vec<i64>,
        /// Groups of channels.
        groups: i64,
        /// Positions cut off before and behind.
        cut: Vec<(i64, i64)>,
    },
    /// More positions before and behind, mirrored or repeated.
    Pad {
        /// Of each axis.
        ends: Vec<(i64, i64)>,
        /// By what.
        fill: Fill,
    },
    /// The mean of each block of so many positions, by axis. Sizes are multiples of these.
    AveragePool(Vec<i64>),
    /// Group norm, with weight and bias `[C]`.
    GroupNorm {
        /// Groups of channels.
        groups: i64,
        /// Added to the variance.
        eps: f64,
        /// `[C]`.
        weight: Tensor,
        /// `[C]`.
        bias: Tensor,
    },
    /// Layer norm of the channels of each position, with weight and bias `[C]`.
    LayerNorm {
        /// Added to the variance.
        eps: f64,
        /// `[C]`.
        weight: Tensor,
        /// `[C]`.
        bias: Tensor,
    },
    /// A function of each number.
    Each(Each),
    /// x + sin^2(a x) / (a + [`SNAKE_EPS`](super::SNAKE_EPS)), with a of the shape `[1, C, 1..]`.
    Snake {
        /// a.
        alpha: Tensor,
    },
    /// The sum of two.
    Add,
    /// The first without the second.
    Subtract,
    /// x scale + shift: both of one number, or of a shape that expands to that of x.
    Affine {
        /// The factor.
        scale: Tensor,
        /// What is added.
        shift: Tensor,
    },
    /// Each position so many times, by axis.
    Repeat(Vec<i64>),
    /// Attention among all positions, which count in row-major order, of queries, keys and values.
    Attention {
        /// Heads, side by side on the channels.
        heads: i64,
        /// Channels of a head, by whose root scores are divided.
        head_dim: i64,
        /// Which positions a position sees.
        sight: Sight,
    },
    /// Rotary positions along one axis: in each head channels 2 j and 2 j + 1 turn by position times frequency j.
    Rotary {
        /// Heads, side by side on the channels.
        heads: i64,
        /// Radians a position, `[C / heads / 2]` float64.
        frequencies: Tensor,
    },
    /// A layer of an LSTM over time, `[N, C, T]`: input and hidden weights `[4 C, C]` and biases `[4 C]`, gates in
    /// PyTorch's order.
    Lstm([Tensor; 4]),
    /// Vectors along the channels at length one.
    Unit,
    /// The channel whose number is least, `[N, ..]` int64.
    ArgMin,
    /// Whole numbers in one channel as `[N, ..]` int64.
    Index,
    /// Rows `[K, D]` of a table by whole numbers `[N, ..]`: `[N, D, ..]`.
    LookUp(Tensor),
    /// Several `[N, ..]` of whole numbers as `[N, L, ..]`.
    Stack,
    /// Level so and so of `[N, L, ..]`.
    Pick(i64),
    /// Part of an axis.
    Slice {
        /// As libtorch counts: 1 are the channels.
        axis: i64,
        /// The first place that stays.
        start: i64,
        /// The first one behind that does not; none: all stay.
        end: Option<i64>,
    },
    /// Several, channels behind one another.
    Join,
    /// Constants `[1, C, L]` before and behind the positions of each sample `[N, C, L]`.
    Surround {
        /// What comes before.
        before: Option<Tensor>,
        /// What comes behind.
        behind: Option<Tensor>,
    },
    /// The values of a sample in another shape, `[C, ..]`, in row-major order.
    Reshape(Vec<i64>),
    /// Squares of so many rows and columns for each position, from `[N, C r r, H, W]`: channel c r r + i r + j is channel
    /// c in row i and column j of the square.
    PixelShuffle(i64),
    /// Each place along these axes as a sample of its own: `[N', C, ..]` with the other axes.
    Fold(Vec<usize>),
    /// The way back of [`Self::Fold`] of the same axes: the first value in the shape of the second.
    Unfold(Vec<usize>),
}

/// Which positions a position sees besides itself; none: all that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sight {
    /// So many before it.
    pub before: Option<i64>,
    /// So many behind it.
    pub behind: Option<i64>,
}

impl Sight {
    /// All positions.
    pub const ALL: Self = Self { before: None, behind: None };
    /// Those before it.
    pub const CAUSAL: Self = Self { before: None, behind: Some(0) };
}

/// A function of each number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Each {
    /// max(x, 0).
    Relu,
    /// x / (1 + exp(-x)).
    Silu,
    /// x above 0, exp(x) - 1 below.
    Elu,
    /// x Phi(x).
    Gelu,
    /// tanh(x).
    Tanh,
    /// The nearest whole number, halves to the even one.
    Round,
    /// The whole number below.
    Floor,
    /// 1 where x > 0, otherwise 0.
    IsPositive,
    /// 1 where x >= 0, otherwise 0.
    IsNotNegative,
    /// x within these two.
    Clamp(f64, f64),
}
