//! Which tokens make up each unit of a sequence, and where each level is read out.

use tch::{Device, Tensor};

use crate::prior::body::Units;
use crate::prior::codes::{Codes, Place};
use crate::prior::config::Levels;
use crate::prior::vocabulary::{Vocabulary, on};

/// Units of tokens.
#[derive(Debug)]
pub(super) struct Pattern {
    /// Of each unit, its tokens by level; none: there is none at this step.
    pub(super) of_units: Vec<Vec<Option<Place>>>,
    /// Where the units are.
    pub(super) units: Units,
    /// Where each level is read out.
    pub(super) readouts: Vec<Readout>,
    /// The stored token of each slot, `[U * S]`, 0 where there is none.
    pub(super) tokens: Tensor,
    /// `[U * S, 1]` int64, 0 where there is no token; none: there is one everywhere.
    pub(super) is_token: Option<Tensor>,
    /// The row of each part's first value, `[U * S * parts]`.
    pub(super) first_rows: Tensor,
}

/// The units that a level's tokens are in, one after another, and their slot there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Readout {
    pub(super) first: i64,
    pub(super) stride: i64,
    pub(super) num: i64,
    pub(super) slot: usize,
}

impl Pattern {
    pub(super) fn new(
        levels: Levels,
        codes: &Codes,
        vocabulary: &Vocabulary,
        device: Device,
    ) -> Self {
        let (num_levels, is_one_grid) = (codes.levels.len(), codes.is_one_grid());
        let stored = codes.stored();
        let num_positions = codes.levels[0].num_positions();
        let of_units: Vec<Vec<Option<Place>>> = match levels {
            Levels::Flatten => {
                codes.flattened().into_iter().map(|place| vec![Some(place)]).collect()
            }
            Levels::Delay | Levels::Depth => {
                let late = i64::from(levels == Levels::Delay);
                let num_units = num_positions + late * (num_levels as i64 - 1);
                let slot = |unit: i64, level: usize| {
                    let position = unit - late * level as i64;
                    let token = level as i64 * num_positions + position;
                    (0..num_positions).contains(&position).then(|| stored[token as usize])
                };
                let unit = |unit| (0..num_levels).map(|level| slot(unit, level)).collect();
                (0..num_units).map(unit).collect()
            }
        };
        let readout = |level: usize| {
            let num = codes.levels[level].num_positions();
            let (first, stride, slot) = match levels {
                Levels::Flatten if is_one_grid => (level as i64, num_levels as i64, 0),
                Levels::Flatten => (codes.starts()[level], 1, 0),
                Levels::Delay => (level as i64, 1, level),
                Levels::Depth => (0, 1, level),
            };
            Readout { first, stride, num, slot }
        };
        let (mut tokens, mut is_token, mut first_rows) = (Vec::new(), Vec::new(), Vec::new());
        for unit in &of_units {
            for (level, slot) in unit.iter().enumerate() {
                tokens.push(slot.map_or(0, |place| place.token));
                is_token.push(i64::from(slot.is_some()));
                match slot {
                    Some(place) => first_rows.extend(vocabulary.first_rows(place.level)),
                    None => first_rows.push(vocabulary.special_row(level)),
                }
            }
        }
        Self {
            units: units(levels, codes, &of_units),
            readouts: (0..num_levels).map(readout).collect(),
            tokens: on(&tokens, device),
            is_token: is_token.contains(&0).then(|| on(&is_token, device).unsqueeze(-1)),
            first_rows: on(&first_rows, device),
            of_units,
        }
    }

    pub(super) fn num_units(&self) -> i64 {
        self.of_units.len() as i64
    }

    /// Tokens of a unit.
    pub(super) fn num_slots(&self) -> i64 {
        self.of_units[0].len() as i64
    }

    /// Stored tokens in the order of the sequence.
    pub(super) fn order(&self) -> Vec<i64> {
        self.of_units.iter().flatten().flatten().map(|place| place.token).collect()
    }

    /// What of `[N, U, ..]` the positions of a level are read out of.
    pub(super) fn of_level(&self, units: &Tensor, level: usize) -> Tensor {
        let Readout { first, stride, num, .. } = self.readouts[level];
        units.slice(1, first, first + (num - 1) * stride + 1, stride)
    }
}

/// Where units are: that of their token or position, or their step.
fn units(levels: Levels, codes: &Codes, of_units: &[Vec<Option<Place>>]) -> Units {
    let is_one_grid = codes.is_one_grid();
    let (mut positions, mut of_levels, mut coordinates) = (Vec::new(), Vec::new(), Vec::new());
    for (step, unit) in of_units.iter().enumerate() {
        match (levels, unit[0]) {
            (Levels::Flatten | Levels::Depth, Some(place)) => {
                positions.push(if is_one_grid { place.position } else { place.token });
                of_levels.push(place.level as i64);
                coordinates.push(codes.coordinates(place.level, place.position));
            }
            _ => {
                positions.push(step as i64);
                coordinates.push(vec![step as f64]);
            }
        }
    }
    if levels != Levels::Flatten || codes.levels.len() == 1 {
        of_levels.clear();
    }
    Units { positions, levels: of_levels, coordinates }
}
