//! Each token from those before it.
//!
//! A sequence is one of *units*, and a unit is a few tokens: the transformer reads the class and all units but the
//! last, each as the sum of the vectors of its tokens, and what becomes of a unit says what the next one is.
//!
//! | `levels` | a unit | how its tokens are read out |
//! |---|---|---|
//! | `flatten` | a token | a head |
//! | `delay` | the tokens of all levels at one step, level q of position s - q | a head each, independent of one another |
//! | `depth` | the tokens of all levels at one position | one after another, by a transformer within the unit |
//!
//! `delay` is MusicGen's (<https://arxiv.org/abs/2306.05284>), run for P + Q - 1 steps so that each token has a loss;
//! `depth` that of the RQ-transformer (<https://arxiv.org/abs/2203.01941>), whose input is the unit's state and then the
//! running sum of the vectors of the tokens so far. With `factors` the parts of a token are read out as `depth` reads
//! tokens.

mod inner;
mod pattern;
mod sample;

use tch::{Device, Kind, Tensor};

use self::inner::Inner;
use self::pattern::Pattern;
use super::body::Body;
use super::codes::Codes;
use super::config::{AutoregressiveConfig, Levels};
use super::dropout::{Masks, Sites};
use super::losses::cross_entropy;
use super::sample::{Request, Samples, Sampling, Walk};
use super::vocabulary::Vocabulary;
use super::{Scheme, TokenBatch, TokenLosses, TrainingDraws, class_rows};
use crate::chain::Block;
use crate::layers::{Mask, Scope};
use crate::parameters::{Declarations, Parameters};
use crate::random::{Purpose, draws};
use crate::vqvae::to_device;

/// An autoregressive prior.
#[derive(Debug)]
pub(super) struct Autoregressive {
    config: AutoregressiveConfig,
    codes: Codes,
    pattern: Pattern,
    vocabulary: Vocabulary,
    body: Body,
    inner: Option<Inner>,
}

impl Autoregressive {
    pub(super) fn new(
        config: &AutoregressiveConfig,
        codes: &Codes,
        to: &mut Declarations,
        scope: &Scope,
        (kind, device): (Kind, Device),
    ) -> Self {
        let (network, factors) = (&config.network, &config.factors);
        let width = network.width;
        let is_delayed = config.levels == Levels::Delay;
        let mut vocabulary = Vocabulary::new(to, scope, codes, width, factors, is_delayed);
        let pattern = Pattern::new(config.levels, codes, &vocabulary, device);
        let options = (kind, device);
        let body = Body::new(to, scope, network, &pattern.units, codes.num_classes, options);
        let inner = (config.levels == Levels::Depth || !factors.is_empty()).then(|| {
            let slots = pattern.num_slots() * vocabulary.num_parts() as i64;
            Inner::new(to, &scope.child("inner"), network, config.inner_layers, slots)
        });
        vocabulary.declare_heads(to, scope, codes, width, factors);
        Self { config: config.clone(), codes: codes.clone(), pattern, vocabulary, body, inner }
    }

    /// Rows of the table of each unit's parts, `[N, U * S * parts]`, of tokens `[N, T]`.
    fn rows(&self, tokens_nt: &Tensor) -> Tensor {
        let values = self.vocabulary.split(&tokens_nt.index_select(1, &self.pattern.tokens));
        let values = match &self.pattern.is_token {
            None => values,
            Some(is_token) => values * is_token,
        };
        values.flatten(1, -1) + &self.pattern.first_rows
    }

    /// What each token is read out of, with parts of `[N, P, W]`, of each level.
    fn states(
        &self,
        parameters: &Parameters,
        tokens_nt: &Tensor,
        class_rows_n: &Tensor,
        masks: &[Option<Masks>],
    ) -> Vec<Vec<Tensor>> {
        let vectors = self.vocabulary.vectors(parameters, &self.rows(tokens_nt));
        let num_units = self.pattern.num_units();
        let vectors_nusw = vectors.unflatten(1, [num_units, -1]);
        let before = vectors_nusw.narrow(1, 0, num_units - 1);
        let before_nuw = if before.size()[2] == 1 {
            before.squeeze_dim(2)
        } else {
            before.sum_dim_intlist([2i64].as_slice(), false, before.kind())
        };
        let of_body = masks[0].as_ref();
        let hidden_nuw =
            self.body.forward(parameters, class_rows_n, &before_nuw, Mask::Causal, of_body);
        let inner_nusw = self
            .inner
            .as_ref()
            .map(|inner| inner.forward(parameters, &hidden_nuw, &vectors_nusw, masks[1].as_ref()));
        let parts = self.vocabulary.num_parts();
        let of_level = |level: usize| {
            let of_part = |part: usize| match &inner_nusw {
                None => self.pattern.of_level(&hidden_nuw, level),
                Some(inner_nusw) => {
                    let slot = self.pattern.readouts[level].slot * parts + part;
                    self.pattern.of_level(&inner_nusw.select(2, slot as i64), level)
                }
            };
            (0..parts).map(of_part).collect()
        };
        (0..self.codes.levels.len()).map(of_level).collect()
    }

    /// Losses with a graph and nats without, of each token, `[N, P]` of each level.
    fn each(
        &self,
        parameters: &Parameters,
        states: &[Vec<Tensor>],
        tokens_nt: &Tensor,
        smoothing: f64,
    ) -> Vec<(Tensor, Tensor)> {
        let (starts, kind) = (self.codes.starts(), parameters.flat().kind());
        let mut of_levels = Vec::new();
        for (level, states) in states.iter().enumerate() {
            let num = self.codes.levels[level].num_positions();
            let codes_np = tokens_nt.narrow(1, starts[level], num);
            let values = self.vocabulary.split(&codes_np.contiguous());
            let mut sums: Option<(Tensor, Tensor)> = None;
            for (part, state_npw) in states.iter().enumerate() {
                let head = &self.vocabulary.heads[level][part];
                let logits_mk = head.forward(parameters, state_npw).flatten(0, 1);
                let values_m = values.select(-1, part as i64).flatten(0, 1);
                let (loss, nats) = cross_entropy(&logits_mk, &values_m, smoothing, kind);
                sums = Some(match sums {
                    None => (loss, nats),
                    Some((losses, all)) => (losses + loss, all + nats),
                });
            }
            let (losses, nats) = sums.expect("a token has a part");
            of_levels.push((losses.unflatten(0, [-1, num]), nats.unflatten(0, [-1, num])));
        }
        of_levels
    }

    /// Tokens with some replaced by any code, as keyed.
    fn noised(&self, batch: &TokenBatch<'_>, by: TrainingDraws) -> Tensor {
        let mut noise = Vec::new();
        for &id in batch.ids {
            let mut drawn = draws(by.seed, Purpose::InputNoise, by.step, id);
            for level in &self.codes.levels {
                for _ in 0..level.num_positions() {
                    let is_kept = drawn.unit() < self.config.keep_input;
                    let code = drawn.below(level.num_codes as u64) as i64;
                    noise.push(if is_kept { -1 } else { code });
                }
            }
        }
        let device = batch.tokens_nt.device();
        let noise_nt = to_device(Tensor::from_slice(&noise).view_as(batch.tokens_nt), device);
        noise_nt.where_self(&noise_nt.ge(0), batch.tokens_nt)
    }

    /// What is dropped of a step: of the body, and within units.
    fn masks(&self, ids: &[u64], by: TrainingDraws, device: Device) -> Vec<Option<Masks>> {
        let num_units = self.pattern.num_units();
        let mut sites = vec![self.body.sites(num_units - 1)];
        if let Some(inner) = &self.inner {
            let len = num_units * self.pattern.num_slots() * self.vocabulary.num_parts() as i64;
            let (num, width) = (inner.transformer.num_sites(), self.config.network.width);
            sites.push(Sites { num, len, width });
        }
        Masks::draw(self.config.network.dropout, by, ids, &sites, device)
    }
}

impl Scheme for Autoregressive {
    fn losses(
        &self,
        parameters: &Parameters,
        batch: &TokenBatch<'_>,
        by: TrainingDraws,
    ) -> TokenLosses {
        let device = batch.tokens_nt.device();
        let hidden = Some((self.config.hide_class, by));
        let class_rows_n = class_rows(batch, self.body.no_class(), hidden, device);
        let inputs_nt = match self.config.keep_input {
            1.0 => batch.tokens_nt.shallow_clone(),
            _ => self.noised(batch, by),
        };
        let mut masks = self.masks(batch.ids, by, device);
        masks.resize_with(2, || None);
        let states = self.states(parameters, &inputs_nt, &class_rows_n, &masks);
        let all = self.each(parameters, &states, batch.tokens_nt, self.config.label_smoothing);
        let (starts, carries) = (self.codes.starts(), self.carries_loss());
        let (mut sums, mut nats, mut num_l) = (Vec::new(), Vec::new(), Vec::new());
        for (level, (losses, of_level)) in all.into_iter().enumerate() {
            let start = starts[level] as usize;
            let carries = &carries[start..start + losses.size()[1] as usize];
            let num = carries.iter().filter(|carries| **carries).count();
            num_l.push((num * batch.ids.len()) as u64);
            let (losses, of_level) = match num == carries.len() {
                true => (losses, of_level),
                false => {
                    let weights = to_device(Tensor::from_slice(carries), device);
                    (losses * &weights, of_level * &weights)
                }
            };
            sums.push(losses.sum(losses.kind()));
            nats.push(of_level.sum(Kind::Double));
        }
        let sum = Tensor::stack(&sums, 0).sum(sums[0].kind());
        TokenLosses { sum, nats_l: Tensor::stack(&nats, 0), num_l }
    }

    fn weight(&self, ids: &[u64], _by: TrainingDraws) -> f64 {
        (ids.len() as i64 * (self.codes.num_tokens() - self.config.prefix)) as f64
    }

    fn nats(&self, parameters: &Parameters, batch: &TokenBatch<'_>, _seed: u64) -> Tensor {
        let class_rows_n = class_rows(batch, self.body.no_class(), None, batch.tokens_nt.device());
        let states = self.states(parameters, batch.tokens_nt, &class_rows_n, &[None, None]);
        let all = self.each(parameters, &states, batch.tokens_nt, 0.0);
        let nats: Vec<Tensor> = all.into_iter().map(|(_, nats)| nats).collect();
        Tensor::cat(&nats, 1).to_kind(Kind::Double)
    }

    fn nats_of_hidden(
        &self,
        _parameters: &Parameters,
        _batch: &TokenBatch<'_>,
        _is_hidden_nt: &Tensor,
    ) -> Option<Tensor> {
        None
    }

    fn carries_loss(&self) -> Vec<bool> {
        let mut carries = vec![true; self.codes.num_tokens() as usize];
        for &token in &self.pattern.order()[..self.config.prefix as usize] {
            carries[token as usize] = false;
        }
        carries
    }

    fn sample(
        &self,
        parameters: &Parameters,
        sampling: &Sampling,
        request: &Request<'_>,
    ) -> Samples {
        self.draw(parameters, sampling, request, None)
    }

    fn walk(
        &self,
        parameters: &Parameters,
        request: &Request<'_>,
        walk: Walk<'_>,
    ) -> Option<Samples> {
        Some(self.draw(parameters, &Sampling::default(), request, Some(walk)))
    }

    fn num_parts(&self) -> usize {
        self.vocabulary.num_parts()
    }

    fn check_known(&self, known_t: &[i64]) -> Result<(), String> {
        let is_given = |token: &i64| known_t[*token as usize] >= 0;
        let is_prefix = |mut tokens: Vec<i64>| {
            tokens.reverse();
            tokens.into_iter().skip_while(|token| !is_given(token)).all(|token| is_given(&token))
        };
        let starts = self.codes.starts();
        let of_level = |level: usize| {
            let num = self.codes.levels[level].num_positions();
            (starts[level]..starts[level] + num).collect()
        };
        let is_good = match self.config.levels {
            // A prompt of whole positions is not the beginning of a delayed sequence.
            Levels::Delay => (0..starts.len()).all(|level| is_prefix(of_level(level))),
            Levels::Flatten | Levels::Depth => is_prefix(self.pattern.order()),
        };
        if is_good {
            return Ok(());
        }
        Err("an autoregressive prior draws what follows given tokens: give the first ones alone, or take a masked prior"
            .to_owned())
    }
}
