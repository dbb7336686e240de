//! Drawing all hidden tokens at once, and hiding again those that are least sure.
//!
//! MaskGIT's decoding (<https://arxiv.org/abs/2202.04200>, section 3.3): in pass t of T each hidden token is drawn, and
//! n of them are hidden again, where n falls by the cosine of (t + 1) / T. Which ones is by ln p of the code drawn, with
//! Gumbel noise of a size that falls linearly. What is given, or was kept, is never hidden again.

use tch::{Device, Tensor};

use super::Masked;
use crate::chain::Block;
use crate::parameters::Parameters;
use crate::prior::sample::{
    Drawing, Logits, Request, Samples, Sampling, likelihood, num_hidden_again, pick,
};
use crate::prior::vocabulary::on;
use crate::random::Purpose;

/// Least number whose logarithm is taken twice; a uniform number is not below it but at 0.
const LEAST: f64 = 1.0 / (1u64 << 54) as f64;

/// A code that has been drawn for a hidden token.
struct Drawn {
    token: i64,
    code: i64,
    /// ln p.
    likelihood: f64,
    score: f64,
}

impl Masked {
    /// As [`Prior::sample`](crate::Prior::sample).
    pub(super) fn draw(
        &self,
        parameters: &Parameters,
        sampling: &Sampling,
        request: &Request<'_>,
    ) -> Samples {
        let num_tokens = self.codes.num_tokens();
        let mut drawing = Drawing::new(sampling, request, num_tokens);
        let device = parameters.flat().device();
        let rows_n = drawing.class_rows(self.body.no_class(), device);
        let count = |tokens: &[i64]| tokens.iter().filter(|token| **token < 0).count();
        let at_start: Vec<usize> = drawing.tokens.chunks(num_tokens as usize).map(count).collect();
        for at in 0..sampling.steps {
            if drawing.tokens.iter().all(|token| *token >= 0) {
                break;
            }
            let logits = self.logits(parameters, &drawing, &rows_n, device);
            let logits: Vec<Logits> = logits
                .iter()
                .map(|logits| Logits::new(logits, &sampling.guidance, at, sampling.steps))
                .collect();
            for (row, at_start) in at_start.iter().enumerate() {
                self.pass(&mut drawing, sampling, (row, *at_start), at, &logits);
            }
        }
        drawing.finish()
    }

    /// Logits `[rows, P, K]` of each level. All tokens have them, so that their bits do not depend on which are hidden.
    fn logits(
        &self,
        parameters: &Parameters,
        drawing: &Drawing<'_>,
        class_rows_n: &Tensor,
        device: Device,
    ) -> Vec<Tensor> {
        let num_rows = drawing.num_rows();
        let tokens = on(&drawing.tokens, device).view([drawing.num_samples() as i64, -1]);
        let tokens_nt =
            if num_rows > tokens.size()[0] { Tensor::cat(&[&tokens, &tokens], 0) } else { tokens };
        let is_hidden_nt = tokens_nt.lt(0);
        let states_ntw = self.states(parameters, &tokens_nt, &is_hidden_nt, class_rows_n, None);
        let starts = self.codes.starts();
        let of_level = |level: usize| {
            let num = self.codes.levels[level].num_positions();
            let states = states_ntw.narrow(1, starts[level], num);
            self.vocabulary.heads[level][0].forward(parameters, &states)
        };
        (0..self.codes.levels.len()).map(of_level).collect()
    }

    /// One pass of one sample.
    fn pass(
        &self,
        drawing: &mut Drawing<'_>,
        sampling: &Sampling,
        (row, at_start): (usize, usize),
        at: i64,
        logits: &[Logits],
    ) {
        let left = 1.0 - (at + 1) as f64 / sampling.steps as f64;
        let mut drawn = Vec::new();
        for (level, start) in self.codes.starts().into_iter().enumerate() {
            let of_level = &self.codes.levels[level];
            let num = of_level.num_positions();
            let used = drawing.used(row, start..start + num, of_level.num_codes);
            for position in 0..num {
                let token = start + position;
                if drawing.token(row, token) >= 0 {
                    continue;
                }
                let logits = logits[level].at(row * num as usize + position as usize);
                let weights = sampling.filter.weights(&logits, used.as_deref());
                let unit = drawing.draws(Purpose::PriorSample, row, at, token).unit();
                let code = pick(&weights, unit);
                let unit = drawing.draws(Purpose::PriorChoice, row, at, token).unit();
                let noise = -(-unit.max(LEAST).ln()).ln();
                let likelihood = likelihood(&logits, code);
                let score = likelihood + sampling.choice * left * noise;
                drawn.push(Drawn { token, code: code as i64, likelihood, score });
            }
        }
        if drawn.is_empty() {
            return;
        }
        let again = num_hidden_again(at, sampling.steps, drawn.len(), at_start);
        drawn.sort_by(|one, other| one.score.total_cmp(&other.score));
        for one in &drawn[again..] {
            drawing.set(row, one.token, one.code, -one.likelihood);
        }
    }
}
