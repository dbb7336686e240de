//! What is known of tokens without a model of them: how often codes came in the training split.
//!
//! Each baseline is a table of -ln p, with one added to each count (Laplace's rule), so that a code that training never saw
//! has a price. It is measured over the same samples as the prior. [`tessera_data::tokens::baselines`] makes the same of
//! two histograms.

use tch::{Device, Kind, Tensor};
use tessera_data::tokens::{Histograms, TokenLevel};

use crate::task::TrainTokens;

/// Names of the baselines as figures, in their order.
pub(super) const NAMES: [&str; 4] =
    ["nats_uniform", "nats_unigram", "nats_position", "nats_position_and_class"];

/// Nats of codes, looked up. Tokens are in the order of the token set.
#[derive(Debug)]
pub(super) struct Baselines {
    /// The sum over a sample's tokens of ln K.
    uniform: f64,
    unigram: Table,
    position: Option<Table>,
    position_and_class: Option<Table>,
}

/// Nats of each code in one row after another, and the first entry of each token's row, `[T]`.
#[derive(Debug)]
struct Table {
    nats: Tensor,
    rows_t: Tensor,
    /// Entries of one class; 0 where the rows are those of all.
    class_len: i64,
}

impl Baselines {
    pub(super) fn new(tokens: &TrainTokens, device: Device) -> Self {
        let (levels, Histograms { levels: counts, positions, classes }) =
            (&tokens.codes.levels, &tokens.histograms);
        let of_level =
            |level: &TokenLevel| level.num_positions() as f64 * f64::from(level.num_codes).ln();
        let nats = |counts: &[Vec<u32>]| -> Vec<Vec<f64>> {
            counts.iter().zip(levels).map(|(counts, level)| nats_of(counts, level)).collect()
        };
        let unigram =
            counts.iter().zip(levels).map(|(counts, level)| nats_of(counts, level)).collect();
        Self {
            uniform: levels.iter().map(of_level).sum(),
            unigram: Table::new(unigram, levels, Rows::Level, device),
            position: positions
                .as_ref()
                .map(|counts| Table::new(nats(counts), levels, Rows::Position, device)),
            position_and_class: classes
                .as_ref()
                .map(|counts| Table::new(nats(counts), levels, Rows::Position, device)),
        }
    }

    /// Sums over tokens `[N, T]` of what each baseline makes of them, `[4]`; NaN where there is none.
    pub(super) fn sums(&self, tokens_nt: &Tensor, classes_n: Option<&Tensor>) -> Tensor {
        let double = (Kind::Double, tokens_nt.device());
        let none = || Tensor::full([], f64::NAN, double);
        let uniform = Tensor::full([], self.uniform * tokens_nt.size()[0] as f64, double);
        let position = self.position.as_ref().map(|table| table.sum(tokens_nt, None));
        let of_class = self
            .position_and_class
            .as_ref()
            .zip(classes_n)
            .map(|(table, classes_n)| table.sum(tokens_nt, Some(classes_n)));
        let unigram = self.unigram.sum(tokens_nt, None);
        let all = [uniform, unigram, position.unwrap_or_else(none), of_class.unwrap_or_else(none)];
        Tensor::stack(&all, 0)
    }

    /// Sums over samples of what the counts of its level make of each token of `[N, T]`: `[T]`.
    pub(super) fn unigram_of_tokens(&self, tokens_nt: &Tensor) -> Tensor {
        self.unigram.each(tokens_nt, None).sum_dim_intlist(0, false, Kind::Double)
    }
}

/// -ln p of each code in rows of K counts.
fn nats_of<C: Copy + Into<u64>>(counts: &[C], level: &TokenLevel) -> Vec<f64> {
    let row = |counts: &[C]| -> Vec<f64> {
        let total: u64 = counts.iter().map(|&count| count.into() + 1).sum();
        let nats = |&count: &C| -> f64 { ((total as f64) / (count.into() + 1) as f64).ln() };
        counts.iter().map(nats).collect()
    };
    counts.chunks(level.num_codes as usize).flat_map(row).collect()
}

/// What has a row of its own.
#[derive(Clone, Copy, PartialEq)]
enum Rows {
    Level,
    Position,
}

impl Table {
    /// Of the nats of each level, those of several classes one after another.
    fn new(levels_nats: Vec<Vec<f64>>, levels: &[TokenLevel], rows: Rows, device: Device) -> Self {
        let (mut rows_t, mut len) = (Vec::new(), 0);
        for level in levels {
            let codes = i64::from(level.num_codes);
            for position in 0..level.num_positions() as i64 {
                rows_t.push(len + if rows == Rows::Position { position * codes } else { 0 });
            }
            let of_level = if rows == Rows::Position { level.num_positions() as i64 } else { 1 };
            len += of_level * codes;
        }
        // Class after class, and in each level after level.
        let all: usize = levels_nats.iter().map(Vec::len).sum();
        let num_classes = all / len as usize;
        let mut nats = Vec::with_capacity(all);
        for class in 0..num_classes {
            for of_level in &levels_nats {
                let each = of_level.len() / num_classes;
                nats.extend_from_slice(&of_level[class * each..][..each]);
            }
        }
        Self {
            nats: Tensor::from_slice(&nats).to(device),
            rows_t: Tensor::from_slice(&rows_t).to(device),
            class_len: if num_classes > 1 { len } else { 0 },
        }
    }

    fn sum(&self, tokens_nt: &Tensor, classes_n: Option<&Tensor>) -> Tensor {
        self.each(tokens_nt, classes_n).sum(Kind::Double)
    }

    /// Of each token, `[N, T]`.
    fn each(&self, tokens_nt: &Tensor, classes_n: Option<&Tensor>) -> Tensor {
        let mut at_nt = tokens_nt + &self.rows_t;
        if let Some(classes_n) = classes_n {
            at_nt += (classes_n * self.class_len).unsqueeze(1);
        }
        self.nats.index_select(0, &at_nt.flatten(0, 1)).view_as(tokens_nt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tessera_data::SampleShape;
    use tessera_model::CodesFile;

    /// By hand: two levels, of two positions with two codes and of one with three; two classes. Each count gets one more:
    /// of level 0 (3 + 1) and (1 + 1) of 6, and so on.
    #[test]
    fn baselines_are_those_of_the_counts() {
        let level = |num_codes, axes: &[u32]| TokenLevel { num_codes, axes: axes.to_vec() };
        let codes = CodesFile {
            tokenizer: "0".to_owned(),
            shape: SampleShape::image(1, 2, 2),
            levels: vec![level(2, &[2]), level(3, &[1])],
            num_classes: 2,
            classes: Vec::new(),
        };
        let histograms = Histograms {
            levels: vec![vec![3, 1], vec![0, 1, 1]],
            positions: Some(vec![vec![2, 0, 1, 1], vec![0, 1, 1]]),
            classes: Some(vec![vec![1, 0, 0, 1, 1, 0, 1, 0], vec![0, 1, 0, 0, 0, 1]]),
        };
        let baselines = Baselines::new(&TrainTokens { codes, histograms }, Device::Cpu);
        // Codes 0 and 1 of level 0, code 2 of level 1, of class 1.
        let tokens_nt = Tensor::from_slice(&[0i64, 1, 2]).view([1, 3]);
        let sums = baselines.sums(&tokens_nt, Some(&Tensor::from_slice(&[1i64])));
        let found: Vec<f64> = Vec::try_from(sums).unwrap();
        let wanted = [
            2.0 * 2f64.ln() + 3f64.ln(),
            (6.0 / 4.0f64).ln() + (6.0 / 2.0f64).ln() + (5.0 / 2.0f64).ln(),
            (4.0 / 3.0f64).ln() + (4.0 / 2.0f64).ln() + (5.0 / 2.0f64).ln(),
            (3.0 / 2.0f64).ln() + (3.0 / 1.0f64).ln() + (4.0 / 2.0f64).ln(),
        ];
        for (found, wanted) in found.iter().zip(wanted) {
            assert!((found - wanted).abs() < 1e-12, "{found} {wanted}");
        }
        let of_tokens: Vec<f64> = Vec::try_from(baselines.unigram_of_tokens(&tokens_nt)).unwrap();
        for (found, wanted) in of_tokens.iter().zip([6.0 / 4.0f64, 6.0 / 2.0, 5.0 / 2.0]) {
            assert!((found - wanted.ln()).abs() < 1e-12, "{found}");
        }
    }
}
