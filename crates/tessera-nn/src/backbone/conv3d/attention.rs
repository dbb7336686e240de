//! Attention over film: within frames and then over time, or along each axis by itself.

use tch::Tensor;

use super::blocks::EPS;
use crate::chain::Block;
use crate::cost;
use crate::graph::{Graph, Op, Sight, Value};
use crate::layers::attention::attend;
use crate::layers::{Attention, AttentionConfig, FrameNorm, LinearConfig, Mask, Pointwise, Scope};
use crate::parameters::{Declarations, Parameters};
use crate::signal::{channels_first, channels_last};

/// What a position sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Along {
    /// All positions of its frame.
    Space,
    /// Its place in its frame and in those before.
    Time,
}

impl Along {
    /// Film to sequences `[M, L, C]`: frames, row by row, or the instants of a place.
    fn rows(self, film_ncthw: &Tensor) -> Tensor {
        let film = channels_last(film_ncthw);
        match self {
            Self::Space => film.flatten(2, 3).flatten(0, 1),
            Self::Time => film.permute([0, 2, 3, 1, 4]).flatten(0, 2),
        }
    }

    /// The way back to the shape of `like`.
    fn film(self, rows_mlc: &Tensor, like: &Tensor) -> Tensor {
        let [num, _, frames, height, width] = like.size()[..] else { panic!("film has 5 axes") };
        match self {
            Self::Space => {
                let frames_mhwc = rows_mlc.unflatten(1, [height, width]);
                channels_first(&frames_mhwc.unflatten(0, [num, frames]))
            }
            Self::Time => rows_mlc.unflatten(0, [num, height, width]).permute([0, 4, 3, 1, 2]),
        }
    }

    /// The positional axes that are no part of a sequence.
    fn others(self) -> Vec<usize> {
        match self {
            Self::Space => vec![0],
            Self::Time => vec![1, 2],
        }
    }

    fn sight(self) -> Sight {
        match self {
            Self::Space => Sight::ALL,
            Self::Time => Sight::CAUSAL,
        }
    }

    fn mask(self) -> Mask<'static> {
        match self {
            Self::Space => Mask::All,
            Self::Time => Mask::Causal,
        }
    }
}

/// Norm of each frame, one head of attention, added to the input.
#[derive(Debug)]
pub(super) struct SingleHead {
    along: Along,
    norm: FrameNorm,
    query: Pointwise,
    key: Pointwise,
    value: Pointwise,
    proj_out: Pointwise,
}

impl SingleHead {
    pub(super) fn new(to: &mut Declarations, scope: &Scope, channels: i64, along: Along) -> Self {
        let scope = scope.child(match along {
            Along::Space => "space",
            Along::Time => "time",
        });
        let norm = FrameNorm::new(to, &scope.child("norm"), channels, EPS);
        let config = LinearConfig::new(channels, channels);
        let mut layer = |name| Pointwise::with_axes(to, &scope.child(name), config, 3);
        let [query, key, value, proj_out] = ["q", "k", "v", "proj_out"].map(&mut layer);
        Self { along, norm, query, key, value, proj_out }
    }
}

impl Block for SingleHead {
    fn forward(&self, parameters: &Parameters, input: &Tensor) -> Tensor {
        let rows_mlc = self.along.rows(&self.norm.forward(parameters, input));
        let [query, key, value] = [&self.query, &self.key, &self.value]
            .map(|layer| layer.forward(parameters, &rows_mlc).unsqueeze(1));
        cost::tell(|meter| {
            // Scores, and sums of values by them.
            meter.multiply_add(2 * rows_mlc.numel() as i64 * rows_mlc.size()[1]);
            for kept in [&query, &key, &value] {
                meter.keep(kept);
            }
        });
        let seen = attend([&query, &key, &value], self.along.mask());
        let output_mlc = self.proj_out.forward(parameters, &seen.squeeze_dim(1));
        input + self.along.film(&output_mlc, input)
    }

    fn describe(
        &self,
        parameters: &Parameters,
        graph: &mut Graph,
        input: Value,
    ) -> Result<Value, String> {
        let normed = self.norm.describe(parameters, graph, input)?;
        let others = self.along.others();
        let rows = graph.push(Op::Fold(others.clone()), &[normed]);
        let mut parts = Vec::new();
        for layer in [&self.query, &self.key, &self.value] {
            parts.push(layer.describe(parameters, graph, rows)?);
        }
        let head_dim = parameters.get(self.query.weight()).size()[0];
        let sight = self.along.sight();
        let seen = graph.push(Op::Attention { heads: 1, head_dim, sight }, &parts);
        let output = self.proj_out.describe(parameters, graph, seen)?;
        let output = graph.push(Op::Unfold(others), &[output, input]);
        Ok(graph.push(Op::Add, &[input, output]))
    }
}

/// Norm of each frame, then the sum of three attentions, along the width, the height and the frames so
/// far, added to the input.
///
/// VideoGPT's (Yan et al. 2021, <https://arxiv.org/abs/2104.10157>, section 3.1), whose attention along time sees
/// later frames too: here it is causal, as all else is.
#[derive(Debug)]
pub(super) struct Axial {
    norm: FrameNorm,
    width: Attention,
    height: Attention,
    time: Attention,
}

impl Axial {
    pub(super) fn new(to: &mut Declarations, scope: &Scope, channels: i64, heads: i64) -> Self {
        let norm = FrameNorm::new(to, &scope.child("norm"), channels, EPS);
        let deviation = Some(1.0 / (channels as f64).sqrt());
        let config = AttentionConfig { width: channels, heads, has_bias: false, deviation };
        let mut along = |name| Attention::new(to, &scope.child(name), config);
        let [width, height, time] = ["width", "height", "time"].map(&mut along);
        Self { norm, width, height, time }
    }
}

impl Block for Axial {
    fn forward(&self, parameters: &Parameters, input: &Tensor) -> Tensor {
        let film_nthwc = channels_last(&self.norm.forward(parameters, input));
        // The axis that is seen comes fourth, the others before it. Each order exchanges two axes, so it is its own way
        // back.
        let [width, height, time] = [
            (&self.width, [0, 1, 2, 3, 4], Mask::All),
            (&self.height, [0, 1, 3, 2, 4], Mask::All),
            (&self.time, [0, 3, 2, 1, 4], Mask::Causal),
        ]
        .map(|(attention, order, mask)| {
            let turned = film_nthwc.permute(order);
            let seen_mlc = attention.forward(parameters, &turned.flatten(0, 2), mask, None);
            channels_first(&seen_mlc.view(turned.size().as_slice()).permute(order))
        });
        input + (width + height + time)
    }

    fn describe(
        &self,
        parameters: &Parameters,
        graph: &mut Graph,
        input: Value,
    ) -> Result<Value, String> {
        let normed = self.norm.describe(parameters, graph, input)?;
        let mut output = input;
        for (attention, others, sight) in [
            (&self.width, vec![0, 1], Sight::ALL),
            (&self.height, vec![0, 2], Sight::ALL),
            (&self.time, vec![1, 2], Sight::CAUSAL),
        ] {
            let rows = graph.push(Op::Fold(others.clone()), &[normed]);
            let seen = attention.describe(parameters, graph, rows, sight, None)?;
            let seen = graph.push(Op::Unfold(others), &[seen, input]);
            output = graph.push(Op::Add, &[output, seen]);
        }
        Ok(output)
    }
}
