//! Tokens as vectors and vectors as logits: one table for the codes of all levels, and a head for each.
//!
//! A code's index may be split into parts of some bits, the highest first, as Open-MAGVIT2
//! (<https://arxiv.org/abs/2409.04410>) does for large numbers of codes: a token is the sum of the vectors of its
//! parts, and each part has a head. A level may have one more vector, for a token that is hidden or that there is not.

use tch::{Device, Tensor};

use super::codes::Codes;
use super::transformer::DEVIATION;
use crate::layers::{Linear, LinearConfig, Scope};
use crate::parameters::{Declarations, Init, ParameterId, Parameters, Role};

/// Table and heads.
#[derive(Debug)]
pub(super) struct Vocabulary {
    /// `[rows, W]`: of each level its parts, and the vector beside the codes.
    table: ParameterId,
    /// Of each level, of each part.
    pub(super) heads: Vec<Vec<Linear>>,
    /// Of each level, of each part: where its rows start.
    first_rows: Vec<Vec<i64>>,
    /// Of each level: the row beside its codes, where there is one.
    special_rows: Vec<i64>,
    /// Of each part, how far it is shifted within the index, and its mask; none: not split.
    splits: Vec<(i64, i64)>,
}

impl Vocabulary {
    /// Declares the table; where `factors` are bits of parts, codes are split. The heads follow by
    /// [`Self::declare_heads`].
    pub(super) fn new(
        to: &mut Declarations,
        scope: &Scope,
        codes: &Codes,
        width: i64,
        factors: &[i64],
        has_special: bool,
    ) -> Self {
        let (mut first_rows, mut special_rows, mut rows) = (Vec::new(), Vec::new(), 0);
        for level in &codes.levels {
            let mut of_level = Vec::new();
            for size in sizes(factors, level.num_codes) {
                of_level.push(rows);
                rows += size;
            }
            first_rows.push(of_level);
            if has_special {
                special_rows.push(rows);
                rows += 1;
            }
        }
        let init = Init::Normal(DEVIATION);
        let table = scope.declare(to, "tokens", &[rows, width], Role::Weight, init);
        let mut splits = Vec::new();
        let mut shift = factors.iter().sum::<i64>();
        for bits in factors {
            shift -= bits;
            splits.push((shift, (1 << bits) - 1));
        }
        Self { table, heads: Vec::new(), first_rows, special_rows, splits }
    }

    /// Declares the heads, which start at zero, so that all codes are as likely as one another.
    pub(super) fn declare_heads(
        &mut self,
        to: &mut Declarations,
        scope: &Scope,
        codes: &Codes,
        width: i64,
        factors: &[i64],
    ) {
        for (number, level) in codes.levels.iter().enumerate() {
            let mut heads = Vec::new();
            for (part, outputs) in sizes(factors, level.num_codes).into_iter().enumerate() {
                let name = match factors {
                    [] => format!("heads.{number}"),
                    _ => format!("heads.{number}.{part}"),
                };
                let config =
                    LinearConfig { inputs: width, outputs, has_bias: false, deviation: Some(0.0) };
                heads.push(Linear::new(to, &scope.child(&name), config));
            }
            self.heads.push(heads);
        }
    }

    /// Parts of a token.
    pub(super) fn num_parts(&self) -> usize {
        self.splits.len().max(1)
    }

    /// The rows of each part of a level's first code.
    pub(super) fn first_rows(&self, level: usize) -> &[i64] {
        &self.first_rows[level]
    }

    /// The row beside a level's codes.
    pub(super) fn special_row(&self, level: usize) -> i64 {
        self.special_rows[level]
    }

    /// Codes `[.., X]` as values of their parts, `[.., X, parts]`.
    pub(super) fn split(&self, codes: &Tensor) -> Tensor {
        if self.splits.is_empty() {
            return codes.unsqueeze(-1);
        }
        let part = |&(shift, mask): &(i64, i64)| {
            codes.bitwise_right_shift_tensor_scalar(shift).bitwise_and(mask)
        };
        Tensor::stack(&self.splits.iter().map(part).collect::<Vec<_>>(), -1)
    }

    /// The value of one part of a code.
    pub(super) fn part_of(&self, code: i64, part: usize) -> i64 {
        self.splits.get(part).map_or(code, |(shift, mask)| (code >> shift) & mask)
    }

    /// The code of these values of its parts.
    pub(super) fn join(&self, values: &[i64]) -> i64 {
        if self.splits.is_empty() {
            return values[0];
        }
        self.splits.iter().zip(values).map(|((shift, _), value)| value << shift).sum()
    }

    /// Vectors of rows, `[.., W]`.
    pub(super) fn vectors(&self, parameters: &Parameters, rows: &Tensor) -> Tensor {
        Tensor::embedding(parameters.get(self.table), rows, -1, false, false)
    }
}

/// Values of each part of a code of `num_codes`.
fn sizes(factors: &[i64], num_codes: i64) -> Vec<i64> {
    if factors.is_empty() {
        return vec![num_codes];
    }
    factors.iter().map(|bits| 1 << bits).collect()
}

/// Numbers as a tensor of a device.
pub(super) fn on(numbers: &[i64], device: Device) -> Tensor {
    Tensor::from_slice(numbers).to(device)
}
