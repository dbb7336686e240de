//! Charts as SVG: small ones of one width, which stand side by side on a desk and below one another on a phone, so
//! that their letters have the same size on both.
//!
//! Nobody has to tell colors apart: lines have dashes and names at their ends, and the table is behind each chart.

mod bars;
mod lines;
mod parallel;
mod points;

use maud::{Markup, html};

use crate::numbers::tick;
use crate::page::Page;

pub(crate) use bars::{Bar, bars};
pub(crate) use lines::{Line, LineChart};
pub(crate) use parallel::{Axis, Parallel, Path};
pub(crate) use points::{Mark, Scatter};

/// Width of a chart in its own units, which are pixels on a phone.
pub(crate) const WIDTH: f64 = 360.0;
/// Styles of lines; more lines begin again.
pub(crate) const STYLES: usize = 7;

/// How values become places.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Scale {
    /// The least and the largest value.
    pub(crate) values: (f64, f64),
    /// Where they are.
    pub(crate) places: (f64, f64),
    /// Whether ratios count.
    pub(crate) is_log: bool,
}

impl Scale {
    /// A scale that has room for the values, with a little around them unless it begins at 0.
    pub(crate) fn of(values: (f64, f64), places: (f64, f64), is_log: bool) -> Self {
        let (mut low, mut high) = values;
        if !low.is_finite() || !high.is_finite() || low > high {
            (low, high) = (0.0, 1.0);
        }
        if is_log {
            let room = ((high / low).ln() * 0.04).max(0.02).exp();
            return Self { values: (low / room, high * room), places, is_log };
        }
        let room = if high > low { (high - low) * 0.05 } else { high.abs().max(1e-9) * 0.1 };
        let begins = low == 0.0 || (low > 0.0 && low < 0.3 * high);
        (low, high) = (if begins { 0.0 } else { low - room }, high + room);
        Self { values: (low, high), places, is_log }
    }

    /// Where a value is.
    pub(crate) fn place(&self, value: f64) -> f64 {
        let (low, high) = self.values;
        let share = match self.is_log {
            true => (value / low).ln() / (high / low).ln(),
            false => (value - low) / (high - low),
        };
        self.places.0 + share.clamp(-0.01, 1.01) * (self.places.1 - self.places.0)
    }

    /// Values for labels, about `num` of them.
    pub(crate) fn ticks(&self, num: usize) -> Vec<f64> {
        let (low, high) = self.values;
        if self.is_log {
            let parts: &[f64] = match (high / low).log10() {
                decades if decades > 3.0 => &[1.0],
                decades if decades > 1.2 => &[1.0, 3.0],
                _ => &[1.0, 1.5, 2.0, 3.0, 5.0, 7.0],
            };
            let decades = low.log10().floor() as i32..=high.log10().ceil() as i32;
            let all =
                decades.flat_map(|decade| parts.iter().map(move |part| part * 10f64.powi(decade)));
            let mut all: Vec<f64> = all.filter(|value| (low..=high).contains(value)).collect();
            while all.len() > num + 2 {
                all = all.into_iter().step_by(2).collect();
            }
            return all;
        }
        let rough = (high - low) / num as f64;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|part| part * power);
        let step = step.into_iter().find(|step| *step >= rough * 0.999).unwrap_or(10.0 * power);
        let first = (low / step).ceil() as i64;
        let all = (first..).map(|at| at as f64 * step).take_while(|value| *value <= high);
        all.take(20).collect()
    }
}

/// The axes of a chart.
pub(crate) struct Frame {
    pub(crate) x: Scale,
    pub(crate) y: Scale,
}

impl Frame {
    /// Lines and labels of both axes, `x_name` below the right end.
    pub(crate) fn draw(&self, x_name: &str) -> Markup {
        let (left, right) = self.x.places;
        let (bottom, top) = self.y.places;
        html! {
            @for value in self.y.ticks(4) {
                @let y = self.y.place(value);
                path class="grid" d=(format!("M{left:.1} {y:.1}H{right:.1}")) {}
                text class="tick end" x=(format!("{:.1}", left - 5.0)) y=(format!("{:.1}", y + 3.8)) { (tick(value)) }
            }
            @for value in self.x.ticks(4) {
                @let x = self.x.place(value);
                path class="axis" d=(format!("M{x:.1} {bottom:.1}v4")) {}
                text class="tick middle" x=(format!("{x:.1}")) y=(format!("{:.1}", bottom + 16.0)) { (tick(value)) }
            }
            path class="axis" d=(format!("M{left:.1} {top:.1}V{bottom:.1}H{right:.1}")) {}
            text class="tick end" x=(format!("{right:.1}")) y=(format!("{:.1}", bottom + 29.0)) { (x_name) }
        }
    }
}

/// A figure with its drawing and the table behind it.
pub(crate) struct Figure<'a> {
    /// What it shows, in few words.
    pub(crate) title: &'a str,
    /// What a person sees in it first, such as the last value.
    pub(crate) says: &'a str,
    /// The same in a sentence for who does not see it.
    pub(crate) description: &'a str,
    pub(crate) height: f64,
    pub(crate) drawing: Markup,
    pub(crate) table: Markup,
}

impl Figure<'_> {
    pub(crate) fn draw(self, page: &Page) -> Markup {
        let id = page.id();
        html! {
            figure class="chart" {
                figcaption { strong { (self.title) } " " span class="quiet" { (self.says) } }
                svg role="img" viewBox=(format!("0 0 {WIDTH} {}", self.height))
                    aria-labelledby=(format!("{id}t {id}d")) {
                    title id=(format!("{id}t")) { (self.title) }
                    desc id=(format!("{id}d")) { (self.description) }
                    (self.drawing)
                }
                (behind(&format!("Table: {}", self.title), self.table))
            }
        }
    }
}

/// Something that is opened by whoever wants it, and can be scrolled by keys.
pub(crate) fn behind(summary: &str, content: Markup) -> Markup {
    html! {
        details { summary { (summary) } (scrolled(summary, content)) }
    }
}

/// Something that may be wider than a phone.
pub(crate) fn scrolled(name: &str, content: Markup) -> Markup {
    html! { div class="scroll" tabindex="0" role="group" aria-label=(name) { (content) } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_numbers_within_the_scale() {
        let ticks = |low, high, is_log| {
            let scale = Scale { values: (low, high), places: (0.0, 1.0), is_log };
            scale.ticks(4).into_iter().map(tick).collect::<Vec<_>>()
        };
        assert_eq!(ticks(0.0, 630.0, false), ["0", "200", "400", "600"]);
        assert_eq!(ticks(0.01, 2.0, true), ["0.01", "0.03", "0.1", "0.3", "1"]);
        assert_eq!(ticks(21.0, 21.5, false).len(), 3);
    }

    #[test]
    fn values_have_their_places_also_where_all_are_equal() {
        let scale = Scale::of((1.0, 100.0), (0.0, 100.0), true);
        assert!((scale.place(10.0) - 50.0).abs() < 1e-9);
        let flat = Scale::of((3.0, 3.0), (0.0, 100.0), false);
        assert!((flat.place(3.0) - 50.0).abs() < 1e-9);
        assert_eq!(Scale::of((f64::INFINITY, f64::NEG_INFINITY), (0.0, 1.0), false).values.0, 0.0);
    }
}
