//! Parallel coordinates: an axis for each parameter and one for the metric, a line for each trial across all of them
//! (Inselberg 1985, <https://doi.org/10.1007/BF01898350>).

use maud::{Markup, html};

use super::{Figure, Scale, WIDTH};
use crate::numbers::tick;
use crate::page::Page;

const HEIGHT: f64 = 250.0;
/// Where axes begin and end, up and across.
const UP: (f64, f64) = (HEIGHT - 46.0, 18.0);
const ACROSS: (f64, f64) = (34.0, WIDTH - 40.0);

/// An axis.
pub(crate) struct Axis<'a> {
    /// A short name.
    pub(crate) name: &'a str,
    /// Whether ratios count.
    pub(crate) is_log: bool,
    /// Places that have names, instead of numbers.
    pub(crate) names: Vec<String>,
}

/// A line across all axes.
pub(crate) struct Path {
    /// A value for each axis; where there is none the line has a gap.
    pub(crate) values: Vec<Option<f64>>,
    /// A few letters at its end, of one that stands out; empty for the others.
    pub(crate) name: String,
}

/// Lines across axes.
pub(crate) struct Parallel<'a> {
    pub(crate) title: &'a str,
    pub(crate) says: &'a str,
    pub(crate) description: &'a str,
    pub(crate) axes: Vec<Axis<'a>>,
    pub(crate) paths: Vec<Path>,
    pub(crate) table: Markup,
}

impl Parallel<'_> {
    pub(crate) fn draw(self, page: &Page) -> Markup {
        let scales: Vec<Scale> = (0..self.axes.len()).map(|at| self.scale(at)).collect();
        let gap = (ACROSS.1 - ACROSS.0) / (self.axes.len() - 1).max(1) as f64;
        let x = |at: usize| ACROSS.0 + gap * at as f64;
        // Those that stand out lie above the others.
        let (named, plain): (Vec<&Path>, Vec<&Path>) =
            self.paths.iter().partition(|path| !path.name.is_empty());
        let drawing = html! {
            @for path in plain { path class="trial" d=(line(path, &scales, &x)) {} }
            @for (rank, path) in named.iter().enumerate() {
                path class=(format!("trial best s{rank}")) d=(line(path, &scales, &x)) {}
            }
            @for (at, (axis, scale)) in self.axes.iter().zip(&scales).enumerate() {
                path class="axis" d=(format!("M{:.1} {:.1}V{:.1}", x(at), UP.1, UP.0)) {}
                // Names of neighbours lie below one another, so that they do not meet.
                text class="tick middle" x=(format!("{:.1}", x(at))) y=(format!("{:.1}", UP.0 + 26.0 + 14.0 * (at % 2) as f64)) { (axis.name) }
                @for (value, word) in labels(axis, scale) {
                    @if axis.names.is_empty() {
                        // Above and below the ends.
                        @let off = if value == scale.values.0 { 12.0 } else { -5.0 };
                        text class="tick middle" x=(format!("{:.1}", x(at))) y=(format!("{:.1}", scale.place(value) + off)) { (word) }
                    } @else {
                        text class="tick" x=(format!("{:.1}", x(at) + 4.0)) y=(format!("{:.1}", scale.place(value) - 3.0)) { (word) }
                    }
                }
            }
            @if let Some(scale) = scales.last() {
                @for path in &named {
                    @if let Some(Some(value)) = path.values.last() {
                        text class="tick" x=(format!("{:.1}", ACROSS.1 + 5.0)) y=(format!("{:.1}", scale.place(*value) + 3.8)) { "no. " (path.name) }
                    }
                }
            }
        };
        Figure {
            title: self.title,
            says: self.says,
            description: self.description,
            height: HEIGHT,
            drawing,
            table: self.table,
        }
        .draw(page)
    }

    /// From the least to the largest value on an axis.
    fn scale(&self, at: usize) -> Scale {
        let Axis { is_log, names, .. } = &self.axes[at];
        if !names.is_empty() {
            let last = (names.len() - 1).max(1) as f64;
            return Scale { values: (0.0, last), places: UP, is_log: false };
        }
        let values = self.paths.iter().filter_map(|path| path.values[at]);
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(value), high.max(value))
        });
        let values = match low < high {
            true => (low, high),
            false if low.is_finite() => (low - 1.0, low + 1.0),
            // No trial has a value of a parameter that is one of some trials only.
            false => (0.0, 1.0),
        };
        Scale { values, places: UP, is_log: *is_log && low > 0.0 && low < high }
    }
}

/// The words on an axis: all of names, the ends of numbers.
fn labels(axis: &Axis<'_>, scale: &Scale) -> Vec<(f64, String)> {
    if axis.names.is_empty() {
        let (low, high) = scale.values;
        return vec![(low, tick(low)), (high, tick(high))];
    }
    axis.names.iter().enumerate().map(|(at, name)| (at as f64, name.clone())).collect()
}

/// A line from axis to axis.
fn line(path: &Path, scales: &[Scale], x: &dyn Fn(usize) -> f64) -> String {
    let mut text = String::new();
    let mut is_drawing = false;
    for (at, (value, scale)) in path.values.iter().zip(scales).enumerate() {
        if let Some(value) = value {
            let letter = if is_drawing { 'L' } else { 'M' };
            text += &format!("{letter}{:.1} {:.1}", x(at), scale.place(*value));
        }
        is_drawing = value.is_some();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: axes at 34 and 320, from 204 up to 18; 10 is in the middle of 1 to 100 where ratios count.
    #[test]
    fn a_line_goes_from_axis_to_axis_and_has_gaps() {
        let axis = |is_log, names: &[&str]| Axis {
            name: "axis",
            is_log,
            names: names.iter().map(|name| (*name).to_owned()).collect(),
        };
        let path = |values: &[Option<f64>]| Path { values: values.to_vec(), name: String::new() };
        let parallel = Parallel {
            title: "",
            says: "",
            description: "",
            axes: vec![axis(true, &[]), axis(false, &["a", "b"])],
            paths: [[Some(1.0), Some(0.0)], [Some(100.0), Some(1.0)], [Some(10.0), None]]
                .map(|values| path(&values))
                .into(),
            table: html! {},
        };
        let scales = [parallel.scale(0), parallel.scale(1)];
        let x = |at: usize| [34.0, 320.0][at];
        let lines: Vec<String> =
            parallel.paths.iter().map(|path| line(path, &scales, &x)).collect();
        assert_eq!(lines, ["M34.0 204.0L320.0 204.0", "M34.0 18.0L320.0 18.0", "M34.0 111.0"]);
        let unused = Parallel { paths: vec![path(&[None, Some(1.0)])], ..parallel };
        assert_eq!(unused.scale(0).values, (0.0, 1.0));
        let words = labels(&unused.axes[1], &scales[1]);
        assert_eq!(words, [(0.0, "a".to_owned()), (1.0, "b".to_owned())]);
    }
}
