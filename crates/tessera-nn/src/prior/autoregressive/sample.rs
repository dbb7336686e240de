//! Drawing unit after unit, with the keys and values of those before kept.

use tch::Tensor;

use super::Autoregressive;
use super::inner::Within;
use crate::chain::Block;
use crate::parameters::Parameters;
use crate::prior::codes::Place;
use crate::prior::sample::{
    Choice, Drawing, Logits, Request, Samples, Sampling, Walk, likelihood, pick,
};
use crate::prior::vocabulary::on;
use crate::random::{Draws, Purpose};

impl Autoregressive {
    /// As [`Prior::sample`](crate::Prior::sample), or as [`Prior::walk`](crate::Prior::walk) with a walk. Given tokens are gone through one after another too, so that what
    /// becomes of a sample does not depend on how many the others have.
    pub(super) fn draw(
        &self,
        parameters: &Parameters,
        sampling: &Sampling,
        request: &Request<'_>,
        walk: Option<Walk<'_>>,
    ) -> Samples {
        let drawing = Drawing::new(sampling, request, self.codes.num_tokens());
        let options = (parameters.compute_kind(), parameters.flat().device());
        let within = self.inner.as_ref().map(|inner| {
            let slots = self.pattern.num_slots() * self.vocabulary.num_parts() as i64;
            Within::new(inner, drawing.num_rows(), slots, options)
        });
        let mut cache = self.body.cache(drawing.num_rows(), options);
        let places = self.body.places(parameters);
        let rows_n = drawing.class_rows(self.body.no_class(), options.1);
        let mut token_n1w = self.body.class_tokens(parameters, &rows_n);
        let mut sampler = Sampler { prior: self, parameters, sampling, drawing, within, walk };
        let num_units = self.pattern.num_units();
        let end = sampler.walk.as_ref().and_then(|walk| walk.steps).unwrap_or(num_units);
        for at in 0..end.min(num_units) {
            let state_nw = self.body.step(parameters, &token_n1w, at, places.as_ref(), &mut cache);
            sampler.draw_unit(at, &state_nw);
            if at + 1 < num_units {
                token_n1w = sampler.unit_token(at);
            }
        }
        sampler.drawing.finish()
    }
}

/// Samples on their way.
struct Sampler<'a, 'w> {
    prior: &'a Autoregressive,
    parameters: &'a Parameters,
    sampling: &'a Sampling,
    drawing: Drawing<'a>,
    within: Option<Within<'a>>,
    /// Who says all values, instead of draws.
    walk: Option<Walk<'w>>,
}

impl Sampler<'_, '_> {
    /// Draws those tokens of a unit that are not given, of what the body says of it.
    fn draw_unit(&mut self, at: i64, state_nw: &Tensor) {
        let unit = &self.prior.pattern.of_units[at as usize];
        let is_known = unit.iter().flatten().all(|place| self.drawing.has_all(place.token));
        if is_known && self.walk.is_none() {
            return;
        }
        if let Some(within) = &mut self.within {
            within.begin();
        }
        for (slot, place) in unit.iter().enumerate() {
            if let Some(place) = place {
                self.draw_token(*place, at, slot, state_nw);
            }
        }
    }

    /// Draws a token, part after part.
    fn draw_token(&mut self, place: Place, at: i64, slot: usize, state_nw: &Tensor) {
        let vocabulary = &self.prior.vocabulary;
        let (parts, num) = (vocabulary.num_parts(), self.drawing.num_samples());
        let draws = |row| self.drawing.draws(Purpose::PriorSample, row, 0, place.token);
        let mut draws: Vec<Draws> = (0..num).map(draws).collect();
        let (mut values, mut nats) = (vec![Vec::with_capacity(parts); num], vec![0.0; num]);
        for part in 0..parts {
            let state = match &mut self.within {
                None => state_nw.shallow_clone(),
                Some(within) => within.step(self.parameters, state_nw, slot * parts + part),
            };
            let logits = vocabulary.heads[place.level][part].forward(self.parameters, &state);
            let num_units = self.prior.pattern.num_units();
            let logits = Logits::new(&logits, &self.sampling.guidance, at, num_units);
            for row in 0..num {
                let code = self.drawing.token(row, place.token);
                let given = (code >= 0).then(|| vocabulary.part_of(code, part));
                let value = match (&mut self.walk, given) {
                    (Some(walk), given) => {
                        let (logits, given) = (&logits.at(row), given.map(|value| value as usize));
                        (walk.choose)(Choice { row, logits, given }) as i64
                    }
                    (None, Some(value)) => value,
                    (None, None) => {
                        let logits = logits.at(row);
                        let value = self.choose(&logits, row, place, draws[row].unit());
                        nats[row] -= likelihood(&logits, value);
                        value as i64
                    }
                };
                values[row].push(value);
            }
            if let Some(within) = &mut self.within {
                let first = vocabulary.first_rows(place.level)[part];
                let rows = values.iter().map(|values| first + values[part]).collect();
                let rows = on(&self.drawing.for_all_rows(rows), state_nw.device());
                within.see(vocabulary.vectors(self.parameters, &rows));
            }
        }
        for (row, values) in values.iter().enumerate() {
            self.drawing.set(row, place.token, vocabulary.join(values), nats[row]);
        }
    }

    fn choose(&self, logits: &[f64], row: usize, place: Place, unit: f64) -> usize {
        let level = &self.prior.codes.levels[place.level];
        let start = self.prior.codes.starts()[place.level];
        let of_level = start..start + level.num_positions();
        let is_used = self.drawing.used(row, of_level, level.num_codes);
        pick(&self.sampling.filter.weights(logits, is_used.as_deref()), unit)
    }

    /// What the body reads of a unit that is drawn, `[rows, 1, W]`.
    fn unit_token(&self, at: i64) -> Tensor {
        let vocabulary = &self.prior.vocabulary;
        let mut rows = Vec::new();
        for row in 0..self.drawing.num_samples() {
            for (level, slot) in self.prior.pattern.of_units[at as usize].iter().enumerate() {
                let Some(place) = slot else {
                    rows.push(vocabulary.special_row(level));
                    continue;
                };
                let code = self.drawing.token(row, place.token);
                let first = vocabulary.first_rows(place.level).iter().enumerate();
                rows.extend(first.map(|(part, row)| row + vocabulary.part_of(code, part)));
            }
        }
        let device = self.parameters.flat().device();
        let rows = on(&self.drawing.for_all_rows(rows), device);
        let rows = rows.view([self.drawing.num_rows(), -1]);
        let vectors = vocabulary.vectors(self.parameters, &rows);
        vectors.sum_dim_intlist([1i64].as_slice(), true, vectors.kind())
    }
}
