//! Points of rate and distortion, and the curve that they make.

/// A figure that all points of a report have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name with its unit: `psnr_db`.
    pub name: String,
    /// Whether more of it is better.
    pub higher_is_better: bool,
}

impl Column {
    /// A figure of which more is better.
    pub fn higher(name: &str) -> Self {
        Self { name: name.to_owned(), higher_is_better: true }
    }

    /// A figure of which less is better.
    pub fn lower(name: &str) -> Self {
        Self { name: name.to_owned(), higher_is_better: false }
    }

    /// The figure such that more is better.
    pub fn quality(&self, figure: f64) -> f64 {
        if self.higher_is_better { figure } else { -figure }
    }
}

/// How much was coded: what rates are counted by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Amount {
    /// Pixels of all pictures; places of sheets that are empty are not counted.
    Pixels(u64),
    /// Seconds of all sounds.
    Seconds(f64),
}

impl Amount {
    /// Bits a pixel or a second.
    pub fn rate(self, bytes: u64) -> f64 {
        let bits = 8.0 * bytes as f64;
        match self {
            Self::Pixels(pixels) => bits / pixels as f64,
            Self::Seconds(seconds) => bits / seconds,
        }
    }

    /// What it counts, as a column has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pixels(_) => "pixels",
            Self::Seconds(_) => "seconds",
        }
    }

    /// What a rate is, as a column has it.
    pub fn rate_name(self) -> &'static str {
        match self {
            Self::Pixels(_) => "bits_per_pixel",
            Self::Seconds(_) => "bits_per_second",
        }
    }
}

/// Whose curve it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The model's.
    Model,
    /// That of a codec that loses something.
    Lossy,
    /// That of a codec that loses nothing: its points have bytes, and no end of quality.
    Lossless,
}

/// All items at one setting.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// The setting, for a person.
    pub setting: String,
    /// Bytes of all files.
    pub file_bytes: u64,
    /// Bytes of all files without containers.
    pub payload_bytes: u64,
    /// A figure for each column of the report; infinite where nothing is lost, NaN where there is none.
    pub figures: Vec<f64>,
}

/// Which bytes are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bytes {
    File,
    Payload,
}

impl Point {
    pub(crate) fn bytes(&self, which: Bytes) -> u64 {
        match which {
            Bytes::File => self.file_bytes,
            Bytes::Payload => self.payload_bytes,
        }
    }
}

/// A codec or a model at several settings.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// What it is called in tables and pictures.
    pub name: String,
    /// The encoder and its options, or the model and what changes along the curve, in a few words.
    pub about: String,
    /// Whose it is.
    pub kind: Kind,
    /// Its points, from the lowest quality upward.
    pub points: Vec<Point>,
}

/// A point of a front.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Best {
    pub(crate) bytes: f64,
    /// The figure, such that more is better.
    pub(crate) quality: f64,
}

impl Curve {
    /// Whether a point of it loses nothing.
    pub(crate) fn exact(&self, column: usize) -> bool {
        self.points.iter().any(|point| point.figures[column].is_infinite())
    }

    /// The points that no other of the curve beats in both bytes and quality, from the smallest on. Both
    /// then rise from each to the next. Points without a finite figure are left out.
    pub(crate) fn front(&self, column: usize, order: &Column, which: Bytes) -> Vec<Best> {
        let best = |point: &Point| Best {
            bytes: point.bytes(which) as f64,
            quality: order.quality(point.figures[column]),
        };
        let mut all: Vec<Best> = self.points.iter().map(best).collect();
        all.retain(|point| point.quality.is_finite() && point.bytes > 0.0);
        all.sort_by(|a, b| a.bytes.total_cmp(&b.bytes).then(b.quality.total_cmp(&a.quality)));
        let mut front: Vec<Best> = Vec::new();
        for point in all {
            if front.last().is_none_or(|last| point.quality > last.quality) {
                front.push(point);
            }
        }
        front
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: of (bytes, figure) 40/30, 20/25, 20/26, 30/24, 50/30, 60/31 remain 20/26, 40/30, 60/31.
    #[test]
    fn the_front_has_the_points_that_none_beats() {
        let point = |(bytes, figure): (u64, f64)| Point {
            setting: String::new(),
            file_bytes: bytes,
            payload_bytes: bytes - 1,
            figures: vec![figure, -figure],
        };
        let points = [(40, 30.0), (20, 25.0), (20, 26.0), (30, 24.0), (50, 30.0), (60, 31.0)];
        let points = points.into_iter().chain([(70, f64::INFINITY), (10, f64::NAN)]);
        let curve = Curve {
            name: String::new(),
            about: String::new(),
            kind: Kind::Lossy,
            points: points.map(point).collect(),
        };
        let list = |front: Vec<Best>| -> Vec<(f64, f64)> {
            front.into_iter().map(|best| (best.bytes, best.quality)).collect()
        };
        let front = list(curve.front(0, &Column::higher("psnr_db"), Bytes::File));
        assert_eq!(front, [(20.0, 26.0), (40.0, 30.0), (60.0, 31.0)]);
        let front = list(curve.front(1, &Column::lower("distance"), Bytes::Payload));
        assert_eq!(front, [(19.0, 26.0), (39.0, 30.0), (59.0, 31.0)]);
    }

    #[test]
    fn rates_are_bits_of_what_was_coded() {
        assert_eq!(Amount::Pixels(64).rate(8), 1.0);
        assert_eq!(Amount::Seconds(0.5).rate(100), 1600.0);
    }
}
