//! Rotary positions: queries and keys turned by angles that grow with their position.
//!
//! Follows Su et al. 2021 (<https://arxiv.org/abs/2104.09864>), equations 14 and 34. The convention is
//! that of the paper, of LLaMA and of LlamaGen: channels 2 j and 2 j + 1 are one complex number
//! (interleaved pairs, not halves), and the base is 10000. On several axes the channels of a head
//! are split among them in order, each axis with p = 2 floor(d / (2 axes)) of them, whose pair j
//! turns by position * base^(-2 j / p). What is left over at the end does not turn.

use tch::{Device, Kind, Tensor};

/// Pair 0 turns by one radian a position, the last by about 1 / this.
const BASE: f64 = 10000.0;

/// Radians a position by which each of these pairs of channels turns along an axis, `[pairs]` float64 on the CPU.
pub(crate) fn frequencies(pairs: i64) -> Tensor {
    (Tensor::arange(pairs, (Kind::Double, Device::Cpu)) * (-BASE.ln() / pairs as f64)).exp()
}

/// The turn of each pair of channels at each position, positions in row-major order.
#[derive(Debug)]
pub struct Rotary {
    /// Cosines, `[L, d / 2]`.
    pub cos: Tensor,
    /// Sines, `[L, d / 2]`.
    pub sin: Tensor,
}

impl Rotary {
    /// For positions on `axes` and heads of `head_dim` channels; angles are computed in float64.
    ///
    /// # Panics
    ///
    /// If `head_dim` is odd, or too small to turn anything on so many axes.
    pub fn new(axes: &[i64], head_dim: i64, kind: Kind, device: Device) -> Self {
        let pairs = head_dim / 2 / axes.len() as i64;
        assert!(head_dim % 2 == 0 && pairs > 0, "{head_dim} channels on {} axes", axes.len());
        let along = |axis: usize| {
            let mut shape = vec![1; axes.len()];
            shape[axis] = axes[axis];
            let places = Tensor::arange(axes[axis], (Kind::Double, Device::Cpu));
            places.view(shape.as_slice()).expand(axes, false).reshape([-1])
        };
        let coordinates_la = Tensor::stack(&(0..axes.len()).map(along).collect::<Vec<_>>(), 1);
        Self::at(&coordinates_la, &vec![pairs; axes.len()], head_dim, kind, device)
    }

    /// For positions with these coordinates, `[L, axes]` float64 on the CPU, and so many pairs of channels for each
    /// axis; angles are computed in float64.
    ///
    /// # Panics
    ///
    /// If these are more pairs than `head_dim` channels have.
    pub fn at(
        coordinates_la: &Tensor,
        pairs: &[i64],
        head_dim: i64,
        kind: Kind,
        device: Device,
    ) -> Self {
        let left_over = head_dim / 2 - pairs.iter().sum::<i64>();
        assert!(left_over >= 0, "{pairs:?} pairs of {head_dim} channels");
        let double = (Kind::Double, Device::Cpu);
        let mut parts = Vec::new();
        for (axis, &pairs) in pairs.iter().enumerate() {
            parts.push(coordinates_la.select(1, axis as i64).outer(&frequencies(pairs)));
        }
        parts.push(Tensor::zeros([coordinates_la.size()[0], left_over], double));
        let angles = Tensor::cat(&parts, 1);
        let to = |tensor: Tensor| tensor.to_kind(kind).to(device);
        Self { cos: to(angles.cos()), sin: to(angles.sin()) }
    }

    /// The turns of `len` positions from `start` on.
    pub fn narrow(&self, start: i64, len: i64) -> Self {
        let part = |table: &Tensor| table.narrow(0, start, len);
        Self { cos: part(&self.cos), sin: part(&self.sin) }
    }

    /// Turns `[.., L, d]`, of the kind of the table.
    pub fn turn(&self, heads: &Tensor) -> Tensor {
        let pairs = heads.unflatten(-1, [-1, 2]);
        let (real, imaginary) = (pairs.select(-1, 0), pairs.select(-1, 1));
        let turned = [
            &real * &self.cos - &imaginary * &self.sin,
            &real * &self.sin + &imaginary * &self.cos,
        ];
        Tensor::stack(&turned, -1).flatten(-2, -1)
    }
}
