//! The blocks of Cosmos' network for film. Tensors `[N, C, T, H, W]` have their channels last in memory
//! throughout, so frames `[N T, C, H, W]` and rows `[N, C, T, H W]` are views of them.

use tch::Tensor;

use super::FilmNorm;
use crate::backbone::residual::describe_sum;
use crate::chain::Block;
use crate::graph::{Each, Graph, Op, Value};
use crate::layers::haar::FromPatches;
use crate::layers::resample::{average_pool, upsample_nearest};
use crate::layers::{Activation, Amount, Conv, ConvConfig, Fill, FrameNorm, Pad, Scope};
use crate::parameters::{Declarations, ParameterId, Parameters};
use crate::signal::{from_frames, to_frames};

/// That of the source, where PyTorch's default is 1e-5.
pub(super) const EPS: f64 = 1e-6;

/// So many copies of the first frame before it.
const fn first_frame(copies: i64) -> Pad {
    Pad { amount: Amount::Fixed(copies, 0), fill: Fill::Replicate }
}

/// 3 x 3 within each frame, with zeros around it.
fn space(to: &mut Declarations, scope: &Scope, inputs: i64, outputs: i64) -> Conv {
    let config = ConvConfig::same_size(inputs, outputs, &[1, 3, 3]);
    Conv::new(to, &scope.child("space"), config)
}

/// Each frame with the two before it; before the first one are copies of it.
pub(super) fn time(to: &mut Declarations, scope: &Scope, inputs: i64, outputs: i64) -> Conv {
    let config = ConvConfig::new(inputs, outputs, &[3, 1, 1]);
    let padding = vec![first_frame(2), Pad::NONE, Pad::NONE];
    Conv::new(to, &scope.child("time"), ConvConfig { padding, ..config })
}

/// A convolution of each position by itself.
pub(super) fn point(to: &mut Declarations, scope: &Scope, inputs: i64, outputs: i64) -> Conv {
    Conv::new(to, scope, ConvConfig::new(inputs, outputs, &[1, 1, 1]))
}

/// A causal convolution in two: 3 x 3 within each frame, then 3 frames at each place.
#[derive(Debug)]
pub(super) struct Factorized {
    space: Conv,
    time: Conv,
}

impl Factorized {
    pub(super) fn new(to: &mut Declarations, scope: &Scope, inputs: i64, outputs: i64) -> Self {
        let space = space(to, scope, inputs, outputs);
        Self { space, time: time(to, scope, outputs, outputs) }
    }

    /// Weight and bias of what sees the input.
    pub(super) fn tensors(&self) -> (ParameterId, ParameterId) {
        (self.space.weight(), self.space.bias().expect("declared with a bias"))
    }
}

impl Block for Factorized {
    fn forward(&self, parameters: &Parameters, input: &Tensor) -> Tensor {
        self.time.forward(parameters, &self.space.forward(parameters, input))
    }

    fn describe(
        &self,
        parameters: &Parameters,
        graph: &mut Graph,
        input: Value,
    ) -> Result<Value, String> {
        let hidden = self.space.describe(parameters, graph, input)?;
        self.time.describe(parameters, graph, hidden)
    }
}

/// The norm of each frame, if there is one, and x / (1 + exp(-x)) of what it gives.
#[derive(Debug)]
pub(super) struct NormSwish(Option<FrameNorm>);

impl NormSwish {
    pub(super) fn new(to: &mut Declarations, scope: &Scope, channels: i64, norm: FilmNorm) -> Self {
        Self(match norm {
            FilmNorm::Frame => Some(FrameNorm::new(to, scope, channels, EPS)),
            FilmNorm::None => None,
        })
    }
}

impl Block for NormSwish {
    fn forward(&self, parameters: &Parameters, input: &Tensor) -> Tensor {
        match &self.0 {
            Some(norm) => norm.forward_silu(parameters, input),
            None => Activation::Silu.of(input),
        }
    }

    fn describe(
        &self,
        parameters: &Parameters,
        graph: &mut Graph,
        input: Value,
    ) -> Result<Value, String> {
        let normed = match &self.0 {
            Some(norm) => norm.describe(parameters, graph, input)?,
            None => input,
        };
        Ok(graph.each(Each::Silu, normed))
    }
}

/// Norm, swish, a convolution in two, and the same again, added to the input, which passes a
/// convolution of single positions where channels change.
#[derive(Debug)]
pub(super) struct Residual {
    norm1: NormSwish,
    conv1: Factorized,
    norm2: NormSwish,
    conv2: Factorized,
    shortcut: Option<Conv>,
}

impl Residual {
    pub(super) fn new(
        to: &mut Declarations,
        scope: &Scope,
        (inputs, outputs): (i64, i64),
        norm: FilmNorm,
    ) -> Self {
        let [norm1, conv1, norm2, conv2] =
            ["norm1", "conv1", "norm2", "conv2"].map(|name| scope.child(name));
        Self {
            norm1: NormSwish::new(to, &norm1, inputs, norm),
            conv1: Factorized::new(to, &conv1, inputs, outputs),
            norm2: NormSwish::new(to, &norm2, outputs, norm),
            conv2: Factorized::new(to, &conv2, outputs, outputs),
            shortcut: (inputs != outputs)
                .then(|| point(to, &scope.child("nin_shortcut"), inputs, outputs)),
        }
    }
}

impl Block for Residual {
    fn forward(&self, parameters: &Parameters, input: &Tensor) -> Tensor {
        let hidden = self.norm1.forward(parameters, input);
        let hidden = self.conv1.forward(parameters, &hidden);
        let hidden = self.norm2.forward(parameters, &hidden);
        let mut output = self.conv2.forward(parameters, &hidden);
        match &self.shortcut {
            Some(shortcut) => output += shortcut.forward(parameters, input),
            None => output += input,
        }
        output
    }

    fn describe(
        &self,
        parameters: &Parameters,
        graph: &mut Graph,
        input: Value,
    ) -> Result<Value, String> {
        let mut hidden = input;
        let blocks: [&dyn Block; 4] = [&self.norm1, &self.conv1, &self.norm2, &self.conv2];
        for block in blocks {
            hidden = block.describe(parameters, graph, hidden)?;
        }
        describe_sum(self.shortcut.as_ref(), parameters, graph, hidden, input)
    }
}

/// What is halved or doubled between two levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scaled {
    /// Height and width.
    pub(super) space: bool,
    /// Time, where the first frame stays one.
    pub(super) time: bool,
}

impl Scaled {
    /// Whether there is something to do.
    pub(super) fn is_any(self) -> bool {
        self.space || self.time
    }
}

/// Half the height and width, then half the time, each by a convolution of stride 2 plus the mean of
/// pairs; then a convolution of single positions.
#[derive(Debug)]
pub(super) struct Down {
    space: Option<Conv>,
    time: Option<Conv>,
    out: Conv,
}

impl Down {
    pub(super) fn new(to: &mut Declarations, scope: &Scope, channels: i64, scaled: Scaled) -> Self {
        let strided = |to: &mut Declarations, name, kernel: &[i64], stride: &[i64], padding| {
            let config = ConvConfig::new(channels, channels, kernel);
            let config = ConvConfig { stride: stride.to_vec(), padding, ..config };
            Conv::new(to, &scope.child(name), config)
        };
        let behind = vec![Pad::NONE, Pad::zeros(0, 1), Pad::zeros(0, 1)];
        // One more copy is put there before, for the mean as well.
        let before = vec![first_frame(1), Pad::NONE, Pad::NONE];
        let space = scaled.space.then(|| strided(to, "space", &[1, 3, 3], &[1, 2, 2], behind));
        let time = scaled.time.then(|| strided(to, "time", &[3, 1, 1], &[2, 1, 1], before));
        Self { space, time, out: point(to, &scope.child("out"), channels, channels) }
    }
}

impl Block for Down {
    fn forward(&self, parameters: &Parameters, input: &Tensor) -> Tensor {
        let mut hidden = input.shallow_clone();
        if let Some(conv) = &self.space {
            let means = average_pool(&to_frames(&hidden), &[2, 2]);
            let means = from_frames(&means, hidden.size()[2]);
            hidden = conv.forward(parameters, &hidden) + means;
        }
        if let Some(conv) = &self.time {
            let longer = Tensor::cat(&[hidden.narrow(2, 0, 1), hidden], 2);
            let means = along_time(&longer, |rows| average_pool(rows, &[2, 1]));
            hidden = conv.forward(parameters, &longer) + means;
        }
        self.out.forward(parameters, &hidden)
    }

    fn describe(
        &self,
        parameters: &Parameters,
        graph: &mut Graph,
        input: Value,
    ) -> Result<Value, String> {
        let mut hidden = input;
        if let Some(conv) = &self.space {
            let means = graph.push(Op::AveragePool(vec![1, 2, 2]), &[hidden]);
            hidden = conv.describe(parameters, graph, hidden)?;
            hidden = graph.push(Op::Add, &[hidden, means]);
        }
        if let Some(conv) = &self.time {
            let ends = vec![(1, 0), (0, 0), (0, 0)];
            let longer = graph.push(Op::Pad { ends, fill: Fill::Replicate }, &[hidden]);
            let means = graph.push(Op::AveragePool(vec![2, 1, 1]), &[longer]);
            hidden = conv.describe(parameters, graph, longer)?;
            hidden = graph.push(Op::Add, &[hidden, means]);
        }
        self.out.describe(parameters, graph, hidden)
    }
}

/// Twice the time, then twice the height and width: positions repeated, plus a convolution of them;
/// then a convolution of single positions. Of T frames become 2 T - 1: the first stays one.
#[derive(Debug)]
pub(super) struct Up {
    space: Option<Conv>,
    time: Option<Conv>,
    out: Conv,
}

impl Up {
    pub(super) fn new(to: &mut Declarations, scope: &Scope, channels: i64, scaled: Scaled) -> Self {
        let time = scaled.time.then(|| time(to, scope, channels, channels));
        let space = scaled.space.then(|| space(to, scope, channels, channels));
        Self { space, time, out: point(to, &scope.child("out"), channels, channels) }
    }
}

impl Block for Up {
    fn forward(&self, parameters: &Parameters, input: &Tensor) -> Tensor {
        let mut hidden = input.shallow_clone();
        if let Some(conv) = &self.time {
            let twice = along_time(&hidden, |rows| upsample_nearest(rows, &[2, 1]));
            hidden = twice.narrow(2, 1, twice.size()[2] - 1);
            hidden = conv.forward(parameters, &hidden) + hidden;
        }
        if let Some(conv) = &self.space {
            let frames = upsample_nearest(&to_frames(&hidden), &[2, 2]);
            hidden = from_frames(&frames, hidden.size()[2]);
            hidden = conv.forward(parameters, &hidden) + hidden;
        }
        self.out.forward(parameters, &hidden)
    }

    fn describe(
        &self,
        parameters: &Parameters,
        graph: &mut Graph,
        input: Value,
    ) -> Result<Value, String> {
        let mut hidden = input;
        if let Some(conv) = &self.time {
            let twice = graph.push(Op::Repeat(vec![2, 1, 1]), &[hidden]);
            let twice = graph.push(Op::Slice { axis: 2, start: 1, end: None }, &[twice]);
            let seen = conv.describe(parameters, graph, twice)?;
            hidden = graph.push(Op::Add, &[seen, twice]);
        }
        if let Some(conv) = &self.space {
            let twice = graph.push(Op::Repeat(vec![1, 2, 2]), &[hidden]);
            let seen = conv.describe(parameters, graph, twice)?;
            hidden = graph.push(Op::Add, &[seen, twice]);
        }
        self.out.describe(parameters, graph, hidden)
    }
}

/// `f` of rows `[N, C, T, H W]`, which may change T.
fn along_time(input: &Tensor, f: impl FnOnce(&Tensor) -> Tensor) -> Tensor {
    let size = input.size();
    f(&input.flatten(3, 4)).unflatten(3, [size[3], size[4]])
}

/// The decoder's last two layers: 3 x 3 within each frame, which is a block by itself, and 3 frames at
/// each place with the patches unfolded.
pub(super) fn output(
    to: &mut Declarations,
    scope: &Scope,
    inputs: i64,
    outputs: i64,
    unfold: FromPatches,
) -> (Conv, Output) {
    let space = space(to, scope, inputs, outputs);
    (space, Output { time: time(to, scope, outputs, outputs), unfold })
}

/// See [`output`].
#[derive(Debug)]
pub(super) struct Output {
    time: Conv,
    unfold: FromPatches,
}

impl Output {
    /// Weight and bias.
    pub(super) fn tensors(&self) -> (ParameterId, ParameterId) {
        (self.time.weight(), self.time.bias().expect("declared with a bias"))
    }
}

impl Block for Output {
    fn forward(&self, parameters: &Parameters, input: &Tensor) -> Tensor {
        self.unfold.forward(parameters, &self.time.forward(parameters, input))
    }

    fn describe(
        &self,
        parameters: &Parameters,
        graph: &mut Graph,
        input: Value,
    ) -> Result<Value, String> {
        let patches = self.time.describe(parameters, graph, input)?;
        self.unfold.describe(parameters, graph, patches)
    }
}
