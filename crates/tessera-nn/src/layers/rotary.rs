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
        let double = (Kind::Double, Device::Cpu);
        let frequencies_j = (Tensor::arange(pairs, double) * (-BASE.ln() / pairs as f64)).exp();
        let mut parts = Vec::new();
        for (axis, &size) in axes.iter().enumerate() {
            let angles = Tensor::arange(size, double).outer(&frequencies_j);
            let mut shape = vec![1; axes.len()];
            shape[axis] = size;
            shape.push(pairs);
            let whole = [axes, &[pairs]].concat();
            parts.push(angles.view(shape.as_slice()).expand(whole, false).reshape([-1, pairs]));
        }
        let left_over = head_dim / 2 - pairs * axes.len() as i64;
        parts.push(Tensor::zeros([axes.iter().product(), left_over], double));
        let angles = Tensor::cat(&parts, 1);
        let to = |tensor: Tensor| tensor.to_kind(kind).to(device);
        Self { cos: to(angles.cos()), sin: to(angles.sin()) }
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
