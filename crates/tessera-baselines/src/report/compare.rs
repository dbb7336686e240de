//! Bytes of the baselines at the quality of each of the model's points.

use super::Report;
use crate::curve::{Best, Bytes, Column, Curve, Kind};

/// What a baseline takes for a quality.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum EqualQuality {
    /// So many bytes, on the line between two of its points: of the logarithm of bytes over the figure.
    At(f64),
    /// The quality is below its range: so many bytes are the fewest that it takes, for this figure.
    BelowRange {
        /// Its fewest bytes.
        bytes: f64,
        /// The figure that those give.
        figure: f64,
    },
    /// The quality is above its range: so many bytes give its best figure.
    AboveRange {
        /// Bytes of its best point.
        bytes: f64,
        /// The figure that those give.
        figure: f64,
    },
}

/// Who takes fewer bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Winner {
    /// The model: fewer bytes for equal quality, or as few for more.
    Model,
    /// The baseline: likewise.
    Baseline,
    /// One has fewer bytes and the other more quality, or they are equal.
    Nobody,
}

/// A baseline beside a point of the model.
#[derive(Debug, Clone, PartialEq)]
pub struct Match {
    /// The baseline.
    pub baseline: String,
    /// By bytes of files.
    pub file: EqualQuality,
    /// Who wins by those.
    pub file_winner: Winner,
    /// By bytes of payloads.
    pub payload: EqualQuality,
    /// Who wins by those.
    pub payload_winner: Winner,
}

/// A point of the model beside all baselines.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// The model's curve.
    pub model: String,
    /// The setting of its point.
    pub setting: String,
    /// The figure at which bytes are compared.
    pub figure: f64,
    /// Bytes of its files.
    pub file_bytes: u64,
    /// Bytes of its payloads.
    pub payload_bytes: u64,
    /// All baselines that have a point, in the order of the report.
    pub matches: Vec<Match>,
}

impl Report {
    /// Sets each point of the model's curves beside all baselines at equal quality, by the figure of a column.
    ///
    /// Nothing is guessed beyond a baseline's range. Points that another of the same baseline beats in both
    /// bytes and quality are not used. Points of the model without a finite figure are left out.
    ///
    /// # Panics
    ///
    /// If there is no such column.
    pub fn at_equal_quality(&self, column: usize) -> Vec<Comparison> {
        let models = self.curves.iter().filter(|curve| curve.kind == Kind::Model);
        let mut comparisons = Vec::new();
        for model in models {
            for point in &model.points {
                let figure = point.figures[column];
                if !figure.is_finite() {
                    continue;
                }
                let (file_bytes, payload_bytes) = (point.file_bytes, point.payload_bytes);
                let baselines = self.curves.iter().filter(|curve| curve.kind != Kind::Model);
                let bytes = (file_bytes as f64, payload_bytes as f64);
                let matches =
                    baselines.filter_map(|curve| self.matched(curve, column, figure, bytes));
                comparisons.push(Comparison {
                    model: model.name.clone(),
                    setting: point.setting.clone(),
                    figure,
                    file_bytes,
                    payload_bytes,
                    matches: matches.collect(),
                });
            }
        }
        comparisons
    }

    fn matched(
        &self,
        curve: &Curve,
        column: usize,
        figure: f64,
        (file_bytes, payload_bytes): (f64, f64),
    ) -> Option<Match> {
        let order = &self.columns[column];
        let file = equal_quality(curve, column, order, figure, Bytes::File)?;
        let payload = equal_quality(curve, column, order, figure, Bytes::Payload)?;
        Some(Match {
            baseline: curve.name.clone(),
            file,
            file_winner: file.winner(file_bytes),
            payload,
            payload_winner: payload.winner(payload_bytes),
        })
    }
}

impl EqualQuality {
    fn winner(self, model: f64) -> Winner {
        match self {
            Self::At(bytes) if model < bytes => Winner::Model,
            Self::At(bytes) if bytes < model => Winner::Baseline,
            Self::BelowRange { bytes, .. } if bytes <= model => Winner::Baseline,
            Self::AboveRange { bytes, .. } if model <= bytes => Winner::Model,
            _ => Winner::Nobody,
        }
    }
}

fn equal_quality(
    curve: &Curve,
    column: usize,
    order: &Column,
    figure: f64,
    which: Bytes,
) -> Option<EqualQuality> {
    let quality = order.quality(figure);
    let front = curve.front(column, order, which);
    let (Some(first), Some(last)) = (front.first(), front.last()) else {
        return exact(curve, column, order, which);
    };
    if quality < first.quality {
        let figure = order.quality(first.quality);
        return Some(EqualQuality::BelowRange { bytes: first.bytes, figure });
    }
    if quality > last.quality {
        let figure = order.quality(last.quality);
        return Some(EqualQuality::AboveRange { bytes: last.bytes, figure });
    }
    let pair = front.windows(2).find(|pair| quality <= pair[1].quality);
    Some(EqualQuality::At(pair.map_or(first.bytes, |pair| between(pair[0], pair[1], quality))))
}

/// A codec that loses nothing has one quality without end.
fn exact(curve: &Curve, column: usize, order: &Column, which: Bytes) -> Option<EqualQuality> {
    let exact = curve.points.iter().filter(|point| point.figures[column].is_infinite());
    let bytes = exact.map(|point| point.bytes(which)).min()? as f64;
    Some(EqualQuality::BelowRange { bytes, figure: order.quality(f64::INFINITY) })
}

fn between(low: Best, high: Best, quality: f64) -> f64 {
    let share = (quality - low.quality) / (high.quality - low.quality);
    low.bytes * (high.bytes / low.bytes).powf(share)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{curve, report};
    use super::*;

    /// By hand: 26 dB is half between WebP's 26.5 and 24, 400 and 260 bytes, at a share of 0.8:
    /// 260 (400 / 260)^0.8 = 367.0; JPEG's second point is 26 dB for 700 bytes.
    #[test]
    fn bytes_are_on_the_line_of_the_logarithm() {
        let report = report();
        let order = &report.columns[0];
        let at = |curve: usize, figure: f64| {
            equal_quality(&report.curves[curve], 0, order, figure, Bytes::File)
        };
        let Some(EqualQuality::At(bytes)) = at(3, 26.0) else { panic!("within its range") };
        assert!((bytes - 367.0).abs() < 0.05, "{bytes}");
        assert_eq!(at(2, 26.0), Some(EqualQuality::At(700.0)));
        assert_eq!(at(2, 23.0), Some(EqualQuality::At(500.0)));
        assert_eq!(at(2, 22.9), Some(EqualQuality::BelowRange { bytes: 500.0, figure: 23.0 }));
        assert_eq!(at(2, 37.5), Some(EqualQuality::AboveRange { bytes: 4000.0, figure: 37.0 }));
        let exact = EqualQuality::BelowRange { bytes: 6000.0, figure: f64::INFINITY };
        assert_eq!(at(1, 22.0), Some(exact));
    }

    #[test]
    fn a_winner_needs_fewer_bytes_for_as_much_quality() {
        let all = report().at_equal_quality(0);
        assert_eq!(all.len(), 4);
        let winners = |at: usize| -> Vec<Winner> {
            all[at].matches.iter().map(|one: &Match| one.file_winner).collect()
        };
        // 200 bytes for 22 dB: no baseline goes as low, and all of them are larger.
        assert_eq!(winners(0), [Winner::Nobody; 3]);
        // 400 bytes for 25 dB: JPEG takes 626, WebP 309.
        assert_eq!(winners(1), [Winner::Nobody, Winner::Model, Winner::Baseline]);
        let above = EqualQuality::AboveRange { bytes: 10.0, figure: 5.0 };
        assert_eq!([above.winner(10.0), above.winner(11.0)], [Winner::Model, Winner::Nobody]);
        let below = EqualQuality::BelowRange { bytes: 10.0, figure: 5.0 };
        assert_eq!([below.winner(10.0), below.winner(9.0)], [Winner::Baseline, Winner::Nobody]);
    }

    /// Of a distance, less is better: 1.0 lies between 2.0 and 0.5 at a share of 2/3.
    #[test]
    fn a_figure_of_which_less_is_better_is_turned_around() {
        let lower = Column::lower("distance");
        let codec = curve("codec", Kind::Lossy, &[(100, 2.0), (800, 0.5)]);
        let found = equal_quality(&codec, 0, &lower, 1.0, Bytes::File);
        let Some(EqualQuality::At(bytes)) = found else { panic!("within its range") };
        assert!((bytes - 400.0).abs() < 1e-9, "{bytes}");
        let found = equal_quality(&codec, 0, &lower, 3.0, Bytes::File);
        assert_eq!(found, Some(EqualQuality::BelowRange { bytes: 100.0, figure: 2.0 }));
    }
}
