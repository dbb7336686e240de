//! Bjontegaard's delta: how many more bytes one curve takes than another, over all qualities that both have.
//!
//! Bjontegaard, "Calculation of average PSNR differences between RD-curves", VCEG-M33, 2001, with piecewise
//! cubic interpolation that keeps monotone data monotone (PCHIP; Fritsch and Butland 1984) in place of his one
//! cubic, as JVET's common test conditions do: one cubic through many points swings.

use super::Report;
use crate::curve::{Best, Bytes, Kind};

/// Points that each curve needs.
const LEAST_POINTS: usize = 4;
/// The share of the shorter range of qualities that both curves have to have.
const LEAST_OVERLAP: f64 = 0.5;

/// A mean difference of rates.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Delta {
    /// More bytes of the curve than of the anchor at equal quality, in percent; negative where fewer.
    pub percent: f64,
    /// The qualities that it is the mean over: what both curves have.
    pub range: (f64, f64),
}

/// The BD-rate of a curve against an anchor. Both are (rate, quality), both of which rise from each
/// point to the next; more quality is better.
///
/// `None` where a curve has fewer than four points, or where the qualities that both have are less than half of
/// the shorter range: then a mean over them says nothing of the curves.
pub fn bd_rate(anchor: &[(f64, f64)], curve: &[(f64, f64)]) -> Option<Delta> {
    if anchor.len() < LEAST_POINTS || curve.len() < LEAST_POINTS {
        return None;
    }
    let ends = |points: &[(f64, f64)]| (points[0].1, points[points.len() - 1].1);
    let (a, c) = (ends(anchor), ends(curve));
    let (low, high) = (a.0.max(c.0), a.1.min(c.1));
    let shorter = (a.1 - a.0).min(c.1 - c.0);
    if high <= low || high - low < LEAST_OVERLAP * shorter {
        return None;
    }
    let [of_anchor, of_curve] =
        [anchor, curve].map(|points| Interpolated::new(points).integral(low, high));
    let mean = (of_curve - of_anchor) / (high - low);
    Some(Delta { percent: 100.0 * (10f64.powf(mean) - 1.0), range: (low, high) })
}

impl Report {
    /// The BD-rate of each model's curve against each lossy baseline, by bytes of files and of payloads, at a
    /// column: (model, baseline, file, payload).
    pub(super) fn deltas(&self, column: usize) -> Vec<(&str, &str, Option<Delta>, Option<Delta>)> {
        let order = &self.columns[column];
        let kind = |kind: Kind| self.curves.iter().filter(move |curve| curve.kind == kind);
        let mut deltas = Vec::new();
        for model in kind(Kind::Model) {
            for baseline in kind(Kind::Lossy) {
                let [file, payload] = [Bytes::File, Bytes::Payload].map(|which| {
                    let [anchor, curve] = [baseline, model].map(|curve| {
                        let front = curve.front(column, order, which);
                        front.iter().map(|Best { bytes, quality }| (*bytes, *quality)).collect()
                    });
                    let (anchor, curve): (Vec<_>, Vec<_>) = (anchor, curve);
                    bd_rate(&anchor, &curve)
                });
                deltas.push((model.name.as_str(), baseline.name.as_str(), file, payload));
            }
        }
        deltas
    }
}

/// log10 of the rate over quality: a cubic between each two points.
struct Interpolated {
    x: Vec<f64>,
    y: Vec<f64>,
    slopes: Vec<f64>,
}

impl Interpolated {
    fn new(points: &[(f64, f64)]) -> Self {
        let x: Vec<f64> = points.iter().map(|point| point.1).collect();
        let y: Vec<f64> = points.iter().map(|point| point.0.log10()).collect();
        let slopes = slopes(&x, &y);
        Self { x, y, slopes }
    }

    fn integral(&self, low: f64, high: f64) -> f64 {
        let parts = 0..self.x.len() - 1;
        parts.map(|at| self.part(at, low.max(self.x[at]), high.min(self.x[at + 1]))).sum()
    }

    /// The integral of one cubic, which is nothing where its end is before its begin.
    fn part(&self, at: usize, low: f64, high: f64) -> f64 {
        if high <= low {
            return 0.0;
        }
        let width = self.x[at + 1] - self.x[at];
        let secant = (self.y[at + 1] - self.y[at]) / width;
        let (d0, d1) = (self.slopes[at], self.slopes[at + 1]);
        // y + d0 t + c t^2 + d t^3, t from the left point.
        let c = (3.0 * secant - 2.0 * d0 - d1) / width;
        let d = (d0 + d1 - 2.0 * secant) / (width * width);
        let until = |t: f64| t * (self.y[at] + t * (d0 / 2.0 + t * (c / 3.0 + t * d / 4.0)));
        until(high - self.x[at]) - until(low - self.x[at])
    }
}

/// PCHIP's slopes: weighted harmonic means of neighbouring secants, none at an extremum.
fn slopes(x: &[f64], y: &[f64]) -> Vec<f64> {
    let widths: Vec<f64> = x.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let secants: Vec<f64> =
        y.windows(2).zip(&widths).map(|(pair, width)| (pair[1] - pair[0]) / width).collect();
    let last = secants.len() - 1;
    let mut slopes = vec![end_slope(widths[0], widths[1], secants[0], secants[1])];
    for (h, s) in widths.windows(2).zip(secants.windows(2)) {
        slopes.push(if s[0] * s[1] <= 0.0 { 0.0 } else { weighted(h, s) });
    }
    slopes.push(end_slope(widths[last], widths[last - 1], secants[last], secants[last - 1]));
    slopes
}

/// The secant over the shorter part counts more.
fn weighted(h: &[f64], s: &[f64]) -> f64 {
    let (w0, w1) = (2.0 * h[1] + h[0], h[1] + 2.0 * h[0]);
    (w0 + w1) / (w0 / s[0] + w1 / s[1])
}

/// The slope of a parabola through three points at the first, as far as it keeps the shape.
fn end_slope(h0: f64, h1: f64, s0: f64, s1: f64) -> f64 {
    let slope = ((2.0 * h0 + h1) * s0 - h0 * s1) / (h0 + h1);
    if slope * s0 <= 0.0 {
        0.0
    } else if s0 * s1 <= 0.0 && slope.abs() > 3.0 * s0.abs() {
        3.0 * s0
    } else {
        slope
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(anchor: &[(f64, f64)], curve: &[(f64, f64)], expected: f64) {
        let found = bd_rate(anchor, curve).expect("enough of both").percent;
        assert!((found - expected).abs() < 1e-8, "{found} instead of {expected}");
    }

    /// Values of the package `bjontegaard` 1.3.0, method `pchip`, by `tests/bd_rate.py`.
    #[test]
    fn deltas_are_those_of_the_package() {
        let a = [(9487.76, 40.037), (4593.60, 38.615), (2486.44, 36.845), (1358.24, 34.851)];
        let b = [(9787.80, 40.121), (4469.00, 38.651), (2451.52, 36.970), (1356.24, 34.987)];
        let (mut a, mut b) = (a.to_vec(), b.to_vec());
        a.reverse();
        b.reverse();
        close(&a, &b, -4.417485350589045);
        close(&b, &a, 4.621645880307734);
        let c = [(200.0, 22.0), (260.0, 24.5), (410.0, 25.0), (800.0, 29.5), (1600.0, 31.0)];
        let d = [(230.0, 23.0), (400.0, 26.5), (800.0, 30.0), (1600.0, 34.0), (3000.0, 39.0)];
        close(&c, &d, -15.09668977983437);
    }

    /// By hand: all rates half of the anchor's are 50 % fewer bytes.
    #[test]
    fn half_of_the_rate_is_minus_fifty_percent() {
        let anchor = [(100.0, 20.0), (200.0, 24.0), (300.0, 25.0), (900.0, 33.0)];
        close(&anchor, &anchor.map(|(rate, quality)| (rate / 2.0, quality)), -50.0);
    }

    #[test]
    fn curves_that_have_little_in_common_have_no_delta() {
        let curve = |from: f64| [0.0, 1.0, 2.0, 3.0].map(|at| (100.0 + at, from + at));
        assert!(bd_rate(&curve(20.0), &curve(21.4)).is_some());
        assert!(bd_rate(&curve(20.0), &curve(21.6)).is_none());
        assert!(bd_rate(&curve(20.0), &curve(30.0)).is_none());
        assert!(bd_rate(&curve(20.0)[..3], &curve(20.0)).is_none());
    }
}
