//! The transformer over a sample's units: a class in front, and where each unit is.
//!
//! The class is a token from a table of one row a class and one for none, which is also what an unconditional prior
//! starts with. Learned positions are a row each, with one for the class; turned ones leave the class as it is.

use tch::{Device, Kind, Tensor};

use super::config::{NetworkConfig, Positions};
use super::dropout::{Masks, Sites};
use super::transformer::{Cache, DEVIATION, Transformer};
use super::vocabulary::on;
use crate::layers::{Mask, Rotary, Scope};
use crate::parameters::{Declarations, Init, ParameterId, Parameters, Role};

/// Where the units of a sequence are.
#[derive(Debug)]
pub(super) struct Units {
    /// Of each unit, its learned position.
    pub(super) positions: Vec<i64>,
    /// Of each unit, its level, where units are tokens of several levels; else empty.
    pub(super) levels: Vec<i64>,
    /// Of each unit, its coordinates.
    pub(super) coordinates: Vec<Vec<f64>>,
}

/// Class, positions and blocks.
#[derive(Debug)]
pub(super) struct Body {
    /// `[C + 1, W]`.
    classes: ParameterId,
    num_classes: i64,
    /// `[1 + positions, W]`, and the row of the class and of each unit.
    positions: Option<(ParameterId, Tensor)>,
    /// `[levels, W]`, and the row of each unit.
    levels: Option<(ParameterId, Tensor)>,
    rotary: Option<Rotary>,
    transformer: Transformer,
    width: i64,
    num_units: i64,
}

impl Body {
    /// Declares it for such units.
    pub(super) fn new(
        to: &mut Declarations,
        scope: &Scope,
        config: &NetworkConfig,
        units: &Units,
        num_classes: i64,
        (kind, device): (Kind, Device),
    ) -> Self {
        let width = config.width;
        let table = |to: &mut Declarations, name: &str, rows: i64, role: Role| {
            scope.declare(to, name, &[rows, width], role, Init::Normal(DEVIATION))
        };
        let classes = table(to, "classes", num_classes + 1, Role::Weight);
        let positions = (config.positions == Positions::Learned).then(|| {
            let last = units.positions.iter().copied().max().unwrap_or(0);
            let rows: Vec<i64> =
                std::iter::once(0).chain(units.positions.iter().map(|row| row + 1)).collect();
            (table(to, "positions", last + 2, Role::Position), on(&rows, device))
        });
        let levels =
            units.levels.iter().max().map(|last| {
                (table(to, "levels", last + 1, Role::Position), on(&units.levels, device))
            });
        let rotary = (config.positions == Positions::Rotary)
            .then(|| rotary(&units.coordinates, config.head_dim(), kind, device));
        let transformer = Transformer::new(to, scope, config, config.layers);
        let num_units = units.positions.len() as i64;
        Self { classes, num_classes, positions, levels, rotary, transformer, width, num_units }
    }

    /// Where numbers may be dropped, of the class and `num` units.
    pub(super) fn sites(&self, num: i64) -> Sites {
        Sites { num: self.transformer.num_sites(), len: 1 + num, width: self.width }
    }

    /// The row of the class table that stands for no class.
    pub(super) fn no_class(&self) -> i64 {
        self.num_classes
    }

    /// What is added to the class and to each unit, `[1 + units, W]`, where anything is.
    pub(super) fn places(&self, parameters: &Parameters) -> Option<Tensor> {
        let rows = |(table, rows): &(ParameterId, Tensor)| {
            Tensor::embedding(parameters.get(*table), rows, -1, false, false)
        };
        let levels = self.levels.as_ref().map(|levels| {
            let of_units = rows(levels);
            Tensor::cat(&[of_units.narrow(0, 0, 1).zeros_like(), of_units], 0)
        });
        match (self.positions.as_ref().map(rows), levels) {
            (Some(positions), Some(levels)) => Some(positions + levels),
            (positions, levels) => positions.or(levels),
        }
    }

    /// The tokens of rows of the class table, `[N, 1, W]`.
    pub(super) fn class_tokens(&self, parameters: &Parameters, rows_n: &Tensor) -> Tensor {
        Tensor::embedding(parameters.get(self.classes), rows_n, -1, false, false).unsqueeze(1)
    }

    /// What becomes of the class and of the first units, `[N, U, W]` of any U: `[N, 1 + U, W]`.
    pub(super) fn forward(
        &self,
        parameters: &Parameters,
        class_rows_n: &Tensor,
        units_nuw: &Tensor,
        mask: Mask<'_>,
        masks: Option<&Masks>,
    ) -> Tensor {
        let class = self.class_tokens(parameters, class_rows_n);
        let tokens = Tensor::cat(&[&class, units_nuw], 1);
        let len = tokens.size()[1];
        let tokens = match self.places(parameters) {
            None => tokens,
            Some(places) => tokens + places.narrow(0, 0, len),
        };
        let rotary = self.rotary.as_ref().map(|rotary| rotary.narrow(0, len));
        self.transformer.forward(parameters, &tokens, mask, rotary.as_ref(), masks)
    }

    /// What becomes of the token behind those that `cache` has, the class being the first: `[N, 1, W]` to `[N, W]`.
    /// `places` is what [`Self::places`] gives.
    pub(super) fn step(
        &self,
        parameters: &Parameters,
        token_n1w: &Tensor,
        at: i64,
        places: Option<&Tensor>,
        cache: &mut Cache,
    ) -> Tensor {
        let token = match places {
            Some(places) => token_n1w + places.narrow(0, at, 1),
            None => token_n1w.shallow_clone(),
        };
        let rotary = self.rotary.as_ref().map(|rotary| rotary.narrow(at, 1));
        self.transformer.step(parameters, &token, rotary.as_ref(), cache).squeeze_dim(1)
    }

    /// Room for all that `num` samples have.
    pub(super) fn cache(&self, num: i64, options: (Kind, Device)) -> Cache {
        self.transformer.cache(num, 1 + self.num_units, options)
    }
}

/// The turns of the class, which is not turned, and of each unit. Pairs of channels: all, half for rows and half for
/// columns, or a quarter for instants and the rest halved.
fn rotary(coordinates: &[Vec<f64>], head_dim: i64, kind: Kind, device: Device) -> Rotary {
    let pairs = head_dim / 2;
    let axes = coordinates[0].len();
    let split = match axes {
        1 => vec![pairs],
        2 => vec![pairs / 2, pairs - pairs / 2],
        _ => {
            let rest = pairs - pairs / 4;
            vec![pairs / 4, rest / 2, rest - rest / 2]
        }
    };
    let mut numbers = vec![0.0; axes];
    numbers.extend(coordinates.iter().flatten());
    let coordinates_la = Tensor::from_slice(&numbers).view([-1, axes as i64]);
    let kind = if kind == Kind::Double { kind } else { Kind::Float };
    Rotary::at(&coordinates_la, &split, head_dim, kind, device)
}
