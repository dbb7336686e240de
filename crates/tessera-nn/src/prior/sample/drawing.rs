//! What schemes draw with: tokens so far, logits on the host, and where uniform numbers come from.

use std::ops::Range;

use tch::{Device, Kind, Tensor};

use super::{Guidance, Request, Samples, Sampling, whole_numbers};
use crate::prior::{TokenBatch, class_rows};
use crate::random::{Draws, Purpose, draws};

/// Samples on their way.
pub(in crate::prior) struct Drawing<'a> {
    sampling: &'a Sampling,
    request: &'a Request<'a>,
    num_tokens: i64,
    /// `[N * T]`, -1: not yet.
    pub(in crate::prior) tokens: Vec<i64>,
    /// `[N * T]`, -ln p of those that were drawn.
    nats: Vec<f64>,
}

impl<'a> Drawing<'a> {
    pub(in crate::prior) fn new(
        sampling: &'a Sampling,
        request: &'a Request<'a>,
        num_tokens: i64,
    ) -> Self {
        let tokens = match request.known_nt {
            Some(known_nt) => whole_numbers(known_nt),
            None => vec![-1; request.ids.len() * num_tokens as usize],
        };
        let nats = vec![0.0; tokens.len()];
        Self { sampling, request, num_tokens, tokens, nats }
    }

    /// Rows of the class table, those without class behind them where there is guidance.
    pub(in crate::prior) fn class_rows(&self, none: i64, device: Device) -> Tensor {
        let Request { ids, classes_n, .. } = *self.request;
        // The tokens are not looked at.
        let tokens_nt = &Tensor::new();
        let rows_n = class_rows(&TokenBatch { tokens_nt, classes_n, ids }, none, None, device);
        if !self.sampling.guidance.is_on() {
            return rows_n;
        }
        Tensor::cat(&[&rows_n, &rows_n.full_like(none)], 0)
    }

    /// Rows that a network computes: samples, twice with guidance.
    pub(in crate::prior) fn num_rows(&self) -> i64 {
        let num = self.request.ids.len() as i64;
        if self.sampling.guidance.is_on() { 2 * num } else { num }
    }

    /// Numbers of all samples, twice with guidance.
    pub(in crate::prior) fn for_all_rows(&self, mut numbers: Vec<i64>) -> Vec<i64> {
        if self.sampling.guidance.is_on() {
            numbers.extend_from_within(..);
        }
        numbers
    }

    pub(in crate::prior) fn num_samples(&self) -> usize {
        self.request.ids.len()
    }

    pub(in crate::prior) fn token(&self, row: usize, token: i64) -> i64 {
        self.tokens[row * self.num_tokens as usize + token as usize]
    }

    /// Sets a token that was drawn, with its -ln p.
    pub(in crate::prior) fn set(&mut self, row: usize, token: i64, code: i64, nats: f64) {
        let at = row * self.num_tokens as usize + token as usize;
        (self.tokens[at], self.nats[at]) = (code, nats);
    }

    /// Whether all samples have this token.
    pub(in crate::prior) fn has_all(&self, token: i64) -> bool {
        (0..self.request.ids.len()).all(|row| self.token(row, token) >= 0)
    }

    /// The draws for a token of a row in a pass.
    pub(in crate::prior) fn draws(
        &self,
        purpose: Purpose,
        row: usize,
        pass: i64,
        token: i64,
    ) -> Draws {
        let step = (pass * self.num_tokens + token) as u64;
        draws(self.request.seed, purpose, step, self.request.ids[row])
    }

    /// Which of the codes of a level, whose tokens these are, a row has already.
    pub(in crate::prior) fn used(
        &self,
        row: usize,
        level: Range<i64>,
        codes: i64,
    ) -> Option<Vec<bool>> {
        if self.sampling.filter.repetition == 1.0 {
            return None;
        }
        let mut is_used = vec![false; codes as usize];
        for token in level {
            if let Ok(code) = usize::try_from(self.token(row, token)) {
                is_used[code] = true;
            }
        }
        Some(is_used)
    }

    /// What has been drawn.
    pub(in crate::prior) fn finish(self) -> Samples {
        let shape = [self.request.ids.len() as i64, self.num_tokens];
        Samples {
            tokens_nt: Tensor::from_slice(&self.tokens).view(shape),
            nats_nt: Tensor::from_slice(&self.nats).view(shape),
        }
    }
}

/// Logits of a batch on the host, with guidance.
pub(in crate::prior) struct Logits {
    numbers: Vec<f64>,
    num_codes: usize,
    /// Numbers of the samples with their class; behind them those without.
    with_class: usize,
    scale: f64,
}

impl Logits {
    /// Of `[rows, .., K]`, at step or pass `at` of `num`.
    pub(in crate::prior) fn new(logits: &Tensor, guidance: &Guidance, at: i64, num: i64) -> Self {
        let num_codes = logits.size()[logits.dim() - 1] as usize;
        let flat = logits.to_kind(Kind::Double).to_device(Device::Cpu).reshape([-1]);
        let numbers = Vec::<f64>::try_from(flat).expect("float64 numbers on one axis");
        let with_class = if guidance.is_on() { numbers.len() / 2 } else { numbers.len() };
        Self { numbers, num_codes, with_class, scale: guidance.at(at, num) }
    }

    /// Of one place, in row-major order.
    pub(in crate::prior) fn at(&self, place: usize) -> Vec<f64> {
        let start = place * self.num_codes;
        let with_class = &self.numbers[start..start + self.num_codes];
        if self.with_class == self.numbers.len() || self.scale == 1.0 {
            return with_class.to_vec();
        }
        let without = &self.numbers[self.with_class + start..][..self.num_codes];
        without.iter().zip(with_class).map(|(u, c)| u + self.scale * (c - u)).collect()
    }
}
