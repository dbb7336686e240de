//! Causal convolutions over time, of a sound that comes in pieces.
//!
//! Pieces are multiples of the stride. With K = (kernel - 1) dilation + 1 a convolution keeps its last K - stride inputs,
//! and a transposed one what its last kernel - stride outputs have so far, without the bias. The results are those of
//! the whole sound, but for the order of a few sums. What padding before the first input is made of is known once there
//! is an input; to mirror n values takes n + 1, see [`ConvStream::first_len`].
//!
//! Weights are read when a stream begins. No graph is made.

use tch::Tensor;

use super::conv_transpose::{ConvTranspose, ConvTransposeConfig};
use super::padding::{Amount, Fill, fill_ends};
use super::steps::Steps;
use super::{Conv, ConvConfig};
use crate::parameters::Parameters;

/// A [`Conv`] over time with [`Amount::Causal`] padding.
#[derive(Debug)]
pub struct ConvStream<'a> {
    config: &'a ConvConfig,
    weight: Tensor,
    bias: Option<Tensor>,
    /// Inputs that are kept.
    num_kept: i64,
    /// The last of them, `[N, C, num_kept]`; none before the first piece.
    past: Option<Tensor>,
}

impl<'a> ConvStream<'a> {
    /// Before the first piece; none where the convolution is not causal, or not over one axis.
    pub fn new(conv: &'a Conv, parameters: &Parameters) -> Option<Self> {
        let config = &conv.config;
        let is_causal = matches!(config.padding.as_slice(), [pad] if pad.amount == Amount::Causal);
        is_causal.then(|| Self {
            config,
            weight: conv.weight.get(parameters).detach(),
            bias: conv.bias().map(|bias| parameters.get(bias).detach()),
            num_kept: conv.reach[0] - config.stride[0],
            past: None,
        })
    }

    /// Inputs for each output.
    pub fn stride(&self) -> i64 {
        self.config.stride[0]
    }

    /// Inputs that the first piece has at least.
    pub fn first_len(&self) -> i64 {
        match self.config.padding[0].fill {
            Fill::Reflect => self.num_kept + 1,
            Fill::Zeros | Fill::Replicate => 1,
        }
    }

    /// `[N, C, T]` to `[N, C', T / stride]`.
    pub fn push(&mut self, piece: &Tensor) -> Tensor {
        let ConvConfig { stride, dilation, groups, padding, .. } = self.config;
        let input = match self.past.take() {
            _ if self.num_kept == 0 => piece.shallow_clone(),
            None => fill_ends(piece, &[(self.num_kept, 0)], padding[0].fill),
            Some(past) => Tensor::cat(&[&past, piece], 2),
        };
        let start = input.size()[2] - self.num_kept;
        // A copy: a view would hold the whole piece.
        self.past = Some(input.narrow(2, start, self.num_kept).copy());
        let steps = Steps { stride, padding: &[0], dilation, groups: *groups };
        steps.convolve(&input, &self.weight, self.bias.as_ref(), None)
    }
}

/// A [`ConvTranspose`] over time of which all that is cut is cut behind.
#[derive(Debug)]
pub struct ConvTransposeStream<'a> {
    config: &'a ConvTransposeConfig,
    weight: Tensor,
    /// `[C', 1]`.
    bias: Option<Tensor>,
    /// What the next outputs have so far, `[N, C', kernel - stride]`; none before the first piece.
    begun: Option<Tensor>,
}

impl<'a> ConvTransposeStream<'a> {
    /// Before the first piece; none where an output depends on later inputs, the kernel is shorter than the stride, or
    /// there is more than one axis.
    pub fn new(conv: &'a ConvTranspose, parameters: &Parameters) -> Option<Self> {
        let config = &conv.config;
        let ConvTransposeConfig { kernel, stride, dilation, trim, output_padding, .. } = config;
        let (&[kernel], &[stride], &[trim]) = (&kernel[..], &stride[..], &trim[..]) else {
            return None;
        };
        let is_plain = dilation == &[1] && output_padding == &[0] && kernel >= stride;
        (is_plain && trim.ends(kernel, stride) == (0, kernel - stride)).then(|| Self {
            config,
            weight: conv.weight.get(parameters).detach(),
            bias: conv.bias().map(|bias| parameters.get(bias).detach().unsqueeze(1)),
            begun: None,
        })
    }

    /// Outputs for each input.
    pub fn stride(&self) -> i64 {
        self.config.stride[0]
    }

    /// `[N, C, T]` to `[N, C', T stride]`.
    pub fn push(&mut self, piece: &Tensor) -> Tensor {
        let ConvTransposeConfig { kernel, stride, dilation, groups, .. } = self.config;
        let steps = Steps { stride, padding: &[0], dilation, groups: *groups };
        let all = steps.convolve(piece, &self.weight, None, Some(&[0]));
        let (num_done, num_begun) = (piece.size()[2] * stride[0], kernel[0] - stride[0]);
        if let Some(begun) = self.begun.take() {
            let mut first = all.narrow(2, 0, num_begun);
            first += begun;
        }
        self.begun = Some(all.narrow(2, num_done, num_begun).copy());
        let done = all.narrow(2, 0, num_done);
        match &self.bias {
            Some(bias) => done + bias,
            None => done,
        }
    }
}
