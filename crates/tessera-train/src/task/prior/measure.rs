//! How well a prior foretells tokens, over a split, beside what is known without one.

use std::f64::consts::LN_2;

use tch::{Kind, Tensor};
use tessera_nn::Signal;
use tessera_nn::prior::Level;

use super::TokenPrior;
use super::baselines::NAMES;
use crate::engine::figures::Figure;
use crate::task::{Measure, Part};

/// A prior under measurement. Sums: nats of each token; of each baseline; of each token by the counts of its level.
pub(super) struct Likelihood<'a> {
    pub(super) prior: &'a TokenPrior,
}

impl Likelihood<'_> {
    fn num_tokens(&self) -> i64 {
        self.prior.model.codes.num_tokens()
    }
}

impl Measure for Likelihood<'_> {
    fn len(&self) -> i64 {
        2 * self.num_tokens() + NAMES.len() as i64
    }

    fn add(&self, part: &Part, sums: &Tensor) {
        let prior = self.prior;
        let nats_nt =
            prior.with_batch(part, part.first, |batch| prior.model.nats(batch, prior.seed));
        let raw_nt = part.values(Kind::Int64).flatten(1, -1);
        let baselines = prior.baselines.sums(&raw_nt, part.labels.as_ref());
        let nats_t = nats_nt.sum_dim_intlist(0, false, Kind::Double);
        let unigram_t = prior.baselines.unigram_of_tokens(&raw_nt);
        let mut sums = sums.shallow_clone();
        sums += Tensor::cat(&[nats_t, baselines, unigram_t], 0);
    }

    fn figures(&self, sums: &[f64], num_samples: u64, _signal: Signal) -> Vec<Figure> {
        let (tokens, rest) = sums.split_at(self.num_tokens() as usize);
        let (baselines, unigram) = rest.split_at(NAMES.len());
        let samples = num_samples as f64;
        let all = tokens.len() as f64 * samples;
        let nats = tokens.iter().sum::<f64>() / all;
        let charted = |name, value| Figure::number(name, value).charted("eval");
        let mut figures = vec![
            charted("nats_per_token", nats).shown(4),
            charted("bits_per_token", nats / LN_2).shown(3),
        ];
        let words = NAMES.into_iter().zip(baselines);
        let known = words.filter(|(_, sum)| sum.is_finite());
        figures.extend(known.map(|(name, sum)| charted(name, sum / all).shown(4)));
        let per_value = tokens.len() as f64 / self.prior.num_values as f64;
        figures.extend([
            charted("bits_per_dim", nats / LN_2 * per_value).shown(4),
            charted("nats_first_token", tokens[0] / samples),
            Figure::numbers("level_nats_per_token", self.of_levels(tokens, samples)),
            Figure::numbers("level_nats_unigram", self.of_levels(unigram, samples)),
            Figure::numbers("token_nats", tokens.iter().map(|sum| sum / samples).collect()),
        ]);
        figures
    }

    fn finite(&self) -> &'static [(&'static str, &'static str)] {
        &[("nats_per_token", "nats a token")]
    }
}

impl Likelihood<'_> {
    /// Nats a token of each level.
    fn of_levels(&self, mut tokens: &[f64], samples: f64) -> Vec<f64> {
        let levels = self.prior.model.codes.levels.iter();
        let mean = |level: &Level| {
            let num = level.num_positions() as usize;
            let (own, rest) = tokens.split_at(num);
            tokens = rest;
            own.iter().sum::<f64>() / (num as f64 * samples)
        };
        levels.map(mean).collect()
    }
}
