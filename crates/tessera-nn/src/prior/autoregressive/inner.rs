//! The transformer within a unit, whose parts are read out one after another.

use tch::{Device, Kind, Tensor};

use crate::layers::{Mask, Scope};
use crate::parameters::{Declarations, Init, ParameterId, Parameters, Role};
use crate::prior::config::NetworkConfig;
use crate::prior::dropout::Masks;
use crate::prior::transformer::{Cache, DEVIATION, Transformer};

/// The transformer within a unit.
#[derive(Debug)]
pub(super) struct Inner {
    /// `[S, W]`.
    positions: ParameterId,
    pub(super) transformer: Transformer,
}

impl Inner {
    /// Declares it for so many parts of a unit.
    pub(super) fn new(
        to: &mut Declarations,
        scope: &Scope,
        config: &NetworkConfig,
        layers: i64,
        slots: i64,
    ) -> Self {
        let init = Init::Normal(DEVIATION);
        let positions =
            scope.declare(to, "positions", &[slots, config.width], Role::Position, init);
        Self { positions, transformer: Transformer::new(to, scope, config, layers) }
    }

    /// What each part of each unit is read out of, `[N, U, S, W]`, of what the body makes of all before, `[N, U, W]`,
    /// and the vectors of the parts, `[N, U, S, W]`, of which each sees those before it.
    pub(super) fn forward(
        &self,
        parameters: &Parameters,
        hidden_nuw: &Tensor,
        vectors_nusw: &Tensor,
        masks: Option<&Masks>,
    ) -> Tensor {
        let [_, num_units, slots, _] = vectors_nusw.size()[..] else {
            unreachable!("vectors have four axes");
        };
        let kind = vectors_nusw.kind();
        let before = vectors_nusw.narrow(2, 0, slots - 1).cumsum(2, kind);
        let tokens = Tensor::cat(&[&hidden_nuw.unsqueeze(2), &before], 2).flatten(0, 1)
            + parameters.get(self.positions);
        let masks = masks.map(|masks| masks.within(num_units));
        let states =
            self.transformer.forward(parameters, &tokens, Mask::Causal, None, masks.as_ref());
        states.unflatten(0, [-1, num_units])
    }
}

/// The transformer within a unit, on its way through it.
pub(super) struct Within<'a> {
    inner: &'a Inner,
    cache: Cache,
    /// The sum of the vectors of the parts so far, `[rows, W]`.
    seen: Option<Tensor>,
}

impl<'a> Within<'a> {
    /// For so many rows and parts of a unit.
    pub(super) fn new(inner: &'a Inner, num: i64, slots: i64, options: (Kind, Device)) -> Self {
        Self { inner, cache: inner.transformer.cache(num, slots, options), seen: None }
    }

    /// Goes to the next unit.
    pub(super) fn begin(&mut self) {
        self.cache.clear();
        self.seen = None;
    }

    /// What slot `at` is read out of, `[rows, W]`: the first one of the unit's state, others of the parts so far.
    pub(super) fn step(&mut self, parameters: &Parameters, state_nw: &Tensor, at: usize) -> Tensor {
        let input_nw = self.seen.as_ref().unwrap_or(state_nw);
        let token = input_nw + parameters.get(self.inner.positions).narrow(0, at as i64, 1);
        let transformer = &self.inner.transformer;
        transformer.step(parameters, &token.unsqueeze(1), None, &mut self.cache).squeeze_dim(1)
    }

    /// The vectors of a part that is drawn, `[rows, W]`.
    pub(super) fn see(&mut self, vectors: Tensor) {
        self.seen = Some(match self.seen.take() {
            None => vectors,
            Some(seen) => seen + vectors,
        });
    }
}
