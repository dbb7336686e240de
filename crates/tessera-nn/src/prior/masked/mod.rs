//! Hidden tokens from those that are seen, in any order.
//!
//! Follows MaskGIT (<https://arxiv.org/abs/2202.04200>), section 3.2: of each sample n tokens are hidden, n being
//! max(1, ceil(T g(r))) of a uniform r and a schedule g, and the loss is that of the hidden ones alone. The class is a
//! token in front.

mod look;
mod sample;

use tch::{Device, Kind, Tensor};

use super::body::{Body, Units};
use super::codes::Codes;
use super::config::{LossWeight, MaskedConfig};
use super::dropout::Masks;
use super::losses::cross_entropy;
use super::sample::{Request, Samples, Sampling, Walk};
use super::vocabulary::{Vocabulary, on};
use super::{Scheme, TokenBatch, TokenLosses, TrainingDraws, class_rows};
use crate::chain::Block;
use crate::layers::{Mask, Scope};
use crate::parameters::{Declarations, Parameters};
use crate::random::{Draws, Purpose, draws};
use crate::vqvae::to_device;

/// A masked prior.
#[derive(Debug)]
pub(super) struct Masked {
    config: MaskedConfig,
    codes: Codes,
    vocabulary: Vocabulary,
    body: Body,
    /// The row of each token's first code, `[T]`.
    first_rows: Tensor,
    /// The row of each token when it is hidden, `[T]`.
    hidden_rows: Tensor,
}

impl Masked {
    pub(super) fn new(
        config: &MaskedConfig,
        codes: &Codes,
        to: &mut Declarations,
        scope: &Scope,
        (kind, device): (Kind, Device),
    ) -> Self {
        let width = config.network.width;
        let mut vocabulary = Vocabulary::new(to, scope, codes, width, &[], true);
        let (places, is_one_grid) = (codes.stored(), codes.is_one_grid());
        let units = Units {
            positions: places
                .iter()
                .map(|place| if is_one_grid { place.position } else { place.token })
                .collect(),
            levels: match codes.levels.len() {
                1 => Vec::new(),
                _ => places.iter().map(|place| place.level as i64).collect(),
            },
            coordinates: places
                .iter()
                .map(|place| codes.coordinates(place.level, place.position))
                .collect(),
        };
        let options = (kind, device);
        let body = Body::new(to, scope, &config.network, &units, codes.num_classes, options);
        vocabulary.declare_heads(to, scope, codes, width, &[]);
        let rows = |of: &dyn Fn(usize) -> i64| {
            let rows: Vec<i64> = places.iter().map(|place| of(place.level)).collect();
            on(&rows, device)
        };
        Self {
            first_rows: rows(&|level| vocabulary.first_rows(level)[0]),
            hidden_rows: rows(&|level| vocabulary.special_row(level)),
            config: config.clone(),
            codes: codes.clone(),
            vocabulary,
            body,
        }
    }

    /// What becomes of each token, `[N, T, W]`, where those of `is_hidden_nt` are hidden.
    fn states(
        &self,
        parameters: &Parameters,
        tokens_nt: &Tensor,
        is_hidden_nt: &Tensor,
        class_rows_n: &Tensor,
        masks: Option<&Masks>,
    ) -> Tensor {
        let rows_nt = self.hidden_rows.where_self(is_hidden_nt, &(tokens_nt + &self.first_rows));
        let vectors_ntw = self.vocabulary.vectors(parameters, &rows_nt);
        let states = self.body.forward(parameters, class_rows_n, &vectors_ntw, Mask::All, masks);
        states.narrow(1, 1, vectors_ntw.size()[1])
    }

    /// How many tokens of a sample are hidden in a step.
    fn num_hidden(&self, id: u64, by: TrainingDraws) -> usize {
        let r = draws(by.seed, Purpose::MaskRatio, by.step, id).unit();
        let num_tokens = self.codes.num_tokens() as f64;
        ((num_tokens * self.config.schedule.part(r)).ceil() as usize).max(1)
    }

    /// The places of the `num` smallest of uniform draws, one a token, in order.
    fn hidden(&self, mut drawn: Draws, num: usize) -> Vec<usize> {
        let numbers: Vec<f64> = (0..self.codes.num_tokens()).map(|_| drawn.unit()).collect();
        let mut places: Vec<usize> = (0..numbers.len()).collect();
        places.sort_by(|&one, &other| numbers[one].total_cmp(&numbers[other]));
        places.truncate(num);
        places.sort_unstable();
        places
    }

    /// Losses with a graph and nats without of hidden tokens, level after level, each with the hidden tokens' places
    /// in the flat batch.
    fn each(
        &self,
        parameters: &Parameters,
        batch: &TokenBatch<'_>,
        hidden: &[Vec<usize>],
        training: Option<TrainingDraws>,
    ) -> Vec<OfLevel> {
        let device = batch.tokens_nt.device();
        let num_tokens = self.codes.num_tokens() as usize;
        let mut is_hidden = vec![false; hidden.len() * num_tokens];
        for (row, places) in hidden.iter().enumerate() {
            places.iter().for_each(|place| is_hidden[row * num_tokens + place] = true);
        }
        let is_hidden_nt = Tensor::from_slice(&is_hidden).view_as(batch.tokens_nt);
        let is_hidden_nt = to_device(is_hidden_nt, device);
        let hide_class = training.map(|by| (self.config.hide_class, by));
        let class_rows_n = class_rows(batch, self.body.no_class(), hide_class, device);
        let masks = training.and_then(|by| {
            let sites = [self.body.sites(num_tokens as i64)];
            Masks::draw(self.config.network.dropout, by, batch.ids, &sites, device).remove(0)
        });
        let tokens_nt = batch.tokens_nt;
        let states_ntw =
            self.states(parameters, tokens_nt, &is_hidden_nt, &class_rows_n, masks.as_ref());
        let (states_mw, codes_m) =
            (states_ntw.reshape([-1, states_ntw.size()[2]]), tokens_nt.reshape([-1]));
        let smoothing = training.map_or(0.0, |_| self.config.label_smoothing);
        let starts = self.codes.starts();
        let of_level = |level: usize| {
            let start = starts[level] as usize;
            let end = start + self.codes.levels[level].num_positions() as usize;
            let places: Vec<i64> = (0..is_hidden.len())
                .filter(|place| is_hidden[*place] && (start..end).contains(&(place % num_tokens)))
                .map(|place| place as i64)
                .collect();
            let at = to_device(Tensor::from_slice(&places), device);
            let head = &self.vocabulary.heads[level][0];
            let logits = head.forward(parameters, &states_mw.index_select(0, &at));
            let kind = parameters.flat().kind();
            let codes = codes_m.index_select(0, &at);
            let (losses, nats) = cross_entropy(&logits, &codes, smoothing, kind);
            OfLevel { places, losses, nats }
        };
        (0..self.codes.levels.len()).map(of_level).collect()
    }
}

/// Hidden tokens of one level.
struct OfLevel {
    /// In the flat batch.
    places: Vec<i64>,
    losses: Tensor,
    nats: Tensor,
}

impl Scheme for Masked {
    fn losses(
        &self,
        parameters: &Parameters,
        batch: &TokenBatch<'_>,
        by: TrainingDraws,
    ) -> TokenLosses {
        let hidden: Vec<Vec<usize>> = batch
            .ids
            .iter()
            .map(|&id| {
                let drawn = draws(by.seed, Purpose::MaskPlaces, by.step, id);
                self.hidden(drawn, self.num_hidden(id, by))
            })
            .collect();
        let (mut sums, mut nats, mut num_l) = (Vec::new(), Vec::new(), Vec::new());
        let num_tokens = self.codes.num_tokens();
        for of_level in self.each(parameters, batch, &hidden, Some(by)) {
            let losses = match self.config.weight {
                LossWeight::Token => of_level.losses,
                LossWeight::Sample => {
                    let num = |place: &i64| hidden[(place / num_tokens) as usize].len() as f64;
                    let shares: Vec<f64> =
                        of_level.places.iter().map(|place| 1.0 / num(place)).collect();
                    let shares = Tensor::from_slice(&shares).to_kind(of_level.losses.kind());
                    of_level.losses * to_device(shares, batch.tokens_nt.device())
                }
            };
            num_l.push(of_level.places.len() as u64);
            nats.push(of_level.nats.sum(Kind::Double));
            sums.push(losses.sum(losses.kind()));
        }
        let sum = Tensor::stack(&sums, 0).sum(sums[0].kind());
        TokenLosses { sum, nats_l: Tensor::stack(&nats, 0), num_l }
    }

    fn weight(&self, ids: &[u64], by: TrainingDraws) -> f64 {
        match self.config.weight {
            LossWeight::Token => ids.iter().map(|&id| self.num_hidden(id, by) as f64).sum(),
            LossWeight::Sample => ids.len() as f64,
        }
    }

    fn nats(&self, parameters: &Parameters, batch: &TokenBatch<'_>, seed: u64) -> Tensor {
        let num_tokens = self.codes.num_tokens();
        let hidden: Vec<Vec<usize>> = batch
            .ids
            .iter()
            .map(|&id| {
                let mut drawn = draws(seed, Purpose::MaskedTokens, 0, id);
                let num = 1 + drawn.below(num_tokens as u64) as usize;
                self.hidden(drawn, num)
            })
            .collect();
        let device = batch.tokens_nt.device();
        let nats_m = Tensor::zeros([hidden.len() as i64 * num_tokens], (Kind::Double, device));
        for of_level in self.each(parameters, batch, &hidden, None) {
            let share = |place: &i64| {
                num_tokens as f64 / hidden[(place / num_tokens) as usize].len() as f64
            };
            let shares: Vec<f64> = of_level.places.iter().map(share).collect();
            let nats = of_level.nats.to_kind(Kind::Double)
                * to_device(Tensor::from_slice(&shares), device);
            let at = to_device(Tensor::from_slice(&of_level.places), device);
            let _ = nats_m.shallow_clone().index_copy_(0, &at, &nats);
        }
        nats_m.view([-1, num_tokens])
    }

    fn nats_of_hidden(
        &self,
        parameters: &Parameters,
        batch: &TokenBatch<'_>,
        is_hidden_nt: &Tensor,
    ) -> Option<Tensor> {
        Some(self.look(parameters, batch, is_hidden_nt))
    }

    fn carries_loss(&self) -> Vec<bool> {
        vec![true; self.codes.num_tokens() as usize]
    }

    fn sample(
        &self,
        parameters: &Parameters,
        sampling: &Sampling,
        request: &Request<'_>,
    ) -> Samples {
        self.draw(parameters, sampling, request)
    }

    fn walk(
        &self,
        _parameters: &Parameters,
        _request: &Request<'_>,
        _walk: Walk<'_>,
    ) -> Option<Samples> {
        None
    }

    fn num_parts(&self) -> usize {
        1
    }

    fn check_known(&self, _known_t: &[i64]) -> Result<(), String> {
        Ok(())
    }
}
