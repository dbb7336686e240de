//! What a prior is of: levels of codes, and the orders in which their tokens can be read.
//!
//! The tokens of a sample are stored level after level, each with its positions in row-major order. Levels of one grid
//! are those of a residual quantiser; levels of several grids are a hierarchy, from coarse to fine.

/// What a prior is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Codes {
    /// Levels, from coarse to fine for a hierarchy, in the quantiser's order on one grid.
    pub levels: Vec<Level>,
    /// Classes of samples; 0: none.
    pub num_classes: i64,
}

/// Codes of one level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Level {
    /// Sizes of the positional axes, rows first.
    pub axes: Vec<i64>,
    /// Number of codes, K.
    pub num_codes: i64,
}

impl Level {
    /// Positions of the level.
    pub fn num_positions(&self) -> i64 {
        self.axes.iter().product()
    }
}

impl Codes {
    /// Tokens of a sample, T.
    pub fn num_tokens(&self) -> i64 {
        self.levels.iter().map(Level::num_positions).sum()
    }

    /// The first token of each level.
    pub fn starts(&self) -> Vec<i64> {
        let mut end = 0;
        let mut start_of = |level: &Level| {
            end += level.num_positions();
            end - level.num_positions()
        };
        self.levels.iter().map(&mut start_of).collect()
    }

    /// Whether all levels are of the same positions: levels of a residual quantiser, or one level.
    pub fn is_one_grid(&self) -> bool {
        self.levels.iter().all(|level| level.axes == self.levels[0].axes)
    }

    /// What is wrong with the codes, if anything.
    ///
    /// # Errors
    ///
    /// One line.
    pub fn validate(&self) -> Result<(), String> {
        let Some(first) = self.levels.first() else {
            return Err("a prior needs codes of one level at least, found none".to_owned());
        };
        for level in &self.levels {
            let Level { axes, num_codes } = level;
            let is_size = |size: &i64| *size > 0;
            if !(1..=3).contains(&axes.len()) || !axes.iter().all(is_size) || *num_codes < 1 {
                return Err(format!(
                    "a prior takes levels of one to three axes with codes, found {num_codes} codes on {axes:?}"
                ));
            }
            if axes.len() != first.axes.len() {
                return Err(format!(
                    "levels of a prior should have as many axes as one another, found {:?} and {axes:?}",
                    first.axes
                ));
            }
        }
        if self.num_classes < 0 {
            return Err(format!("classes should be 0 or more, found {}", self.num_classes));
        }
        Ok(())
    }

    /// The tokens as they are stored.
    pub(super) fn stored(&self) -> Vec<Place> {
        let starts = self.starts();
        let mut places = Vec::with_capacity(self.num_tokens() as usize);
        for (level, of_level) in self.levels.iter().enumerate() {
            for position in 0..of_level.num_positions() {
                places.push(Place { level, position, token: starts[level] + position });
            }
        }
        places
    }

    /// The tokens one after another: of one grid all levels of a position before the next position, of a hierarchy a
    /// level after the coarser one.
    pub(super) fn flattened(&self) -> Vec<Place> {
        let mut places = self.stored();
        if self.is_one_grid() {
            places.sort_by_key(|place| (place.position, place.level));
        }
        places
    }

    /// Coordinates of a position, one an axis, in units of the finest level's positions.
    pub(super) fn coordinates(&self, level: usize, position: i64) -> Vec<f64> {
        let (axes, finest) = (&self.levels[level].axes, &self.levels[self.levels.len() - 1].axes);
        let mut left = position;
        let mut coordinates = vec![0.0; axes.len()];
        for axis in (0..axes.len()).rev() {
            let unit = finest[axis] as f64 / axes[axis] as f64;
            coordinates[axis] = (left % axes[axis]) as f64 * unit;
            left /= axes[axis];
        }
        coordinates
    }
}

/// One token of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) level: usize,
    /// Within its level, row-major.
    pub(super) position: i64,
    /// Its place as stored.
    pub(super) token: i64,
}
