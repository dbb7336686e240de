//! What needs no prior: sets of codes that samples have to be better than.
//!
//! | | |
//! |---|---|
//! | by position and class | each code from some training sample of the class, at its position |
//! | by position | each code from some training sample, at its position |
//! | random | any code; an untrained prior, whose head begins at zero, draws the same |
//! | shuffled | the codes of a held-out sample, in another order |
//!
//! All are keyed by the number of the sample, so they are the same each time.

use std::collections::BTreeMap;

use tessera_model::Level;
use tessera_nn::random::{Draws, Purpose, draws};

use super::look::{Coded, Set};

/// What floors are made of.
pub(super) struct Floors<'a> {
    pub(super) training: &'a Set,
    pub(super) held_out: &'a Set,
    /// Whose classes they have.
    pub(super) like: &'a Set,
    pub(super) levels: &'a [Level],
}

impl Floors<'_> {
    /// Each by name; the first only where training samples have classes.
    pub(super) fn all(&self) -> Vec<(&'static str, Vec<Coded>)> {
        let by_class = self.rows_by_class();
        let mut all = Vec::new();
        let every: Vec<usize> = (0..self.training.len()).collect();
        if by_class.keys().any(|class| *class >= 0) {
            all.push((
                "codes by position and class",
                self.drawn(0, |class| by_class.get(&class).unwrap_or(&every)),
            ));
        }
        all.push(("codes by position", self.drawn(1, |_| &every)));
        all.push(("random codes", self.random()));
        all.push(("held-out codes, shuffled", self.shuffled()));
        all
    }

    fn rows_by_class(&self) -> BTreeMap<i64, Vec<usize>> {
        let mut rows: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
        for (row, &class) in self.training.classes.iter().enumerate() {
            rows.entry(class).or_default().push(row);
        }
        rows
    }

    /// Each code from one of the rows that a class has.
    fn drawn<'a>(&self, number: u64, rows_of: impl Fn(i64) -> &'a Vec<usize>) -> Vec<Coded> {
        self.each(number, |of_sample, class| {
            let rows = rows_of(class);
            (0..self.training.codes[0].len())
                .map(|place| {
                    self.training.codes[rows[of_sample.below(rows.len() as u64) as usize]][place]
                })
                .collect()
        })
    }

    fn random(&self) -> Vec<Coded> {
        let sizes: Vec<u64> = self.levels.iter().flat_map(sizes_of).collect();
        self.each(2, |of_sample, _| {
            sizes.iter().map(|size| of_sample.below(*size) as u32).collect()
        })
    }

    fn shuffled(&self) -> Vec<Coded> {
        let mut all = Vec::new();
        for (row, (mut codes, class)) in self.held_out.coded().into_iter().enumerate() {
            let mut of_sample = draws(0, Purpose::Floors, 3, row as u64);
            let mut start = 0;
            for level in self.levels {
                for _ in &level.num_codes {
                    let end = start + level.num_positions() as usize;
                    let of_level = &mut codes[start..end];
                    for last in (1..of_level.len()).rev() {
                        of_level.swap(last, of_sample.below(last as u64 + 1) as usize);
                    }
                    start = end;
                }
            }
            all.push((codes, class));
        }
        all
    }

    /// Codes for each sample, of its class, from draws of its own.
    fn each(&self, number: u64, make: impl Fn(&mut Draws, i64) -> Vec<u32>) -> Vec<Coded> {
        let one = |(row, &class): (usize, &i64)| {
            (make(&mut draws(0, Purpose::Floors, number, row as u64), class), class)
        };
        self.like.classes.iter().enumerate().map(one).collect()
    }
}

/// How many codes there are at each place of a level.
fn sizes_of(level: &Level) -> Vec<u64> {
    let positions = level.num_positions() as usize;
    level.num_codes.iter().flat_map(|&num| std::iter::repeat_n(num as u64, positions)).collect()
}
