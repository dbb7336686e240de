//! Points in a plane: codes on a map, trials of a sweep against a parameter.

use maud::{Markup, html};

use super::{Figure, Frame, Scale, WIDTH};
use crate::page::Page;

/// A point.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Mark {
    pub(crate) x: f64,
    pub(crate) y: f64,
    pub(crate) radius: f64,
    /// Drawn as a ring: a dead code, a trial that did not come to the end.
    pub(crate) is_hollow: bool,
    /// A few letters beside it.
    pub(crate) name: String,
}

/// Points with their axes, or with none where places mean nothing by themselves.
pub(crate) struct Scatter<'a> {
    pub(crate) title: &'a str,
    pub(crate) says: &'a str,
    pub(crate) description: &'a str,
    pub(crate) marks: Vec<Mark>,
    /// What is across, and whether ratios count there and up; none: a map.
    pub(crate) axes: Option<(&'a str, bool, bool)>,
    /// Places across that have names, instead of numbers.
    pub(crate) names: Vec<String>,
    pub(crate) table: Markup,
}

impl Scatter<'_> {
    pub(crate) fn draw(self, page: &Page) -> Markup {
        let height = if self.axes.is_some() { 220.0 } else { 300.0 };
        let bounds = |of: fn(&Mark) -> f64| {
            let values = self.marks.iter().map(of).filter(|value| value.is_finite());
            values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), at| {
                (low.min(at), high.max(at))
            })
        };
        let (across, up) = (bounds(|mark| mark.x), bounds(|mark| mark.y));
        let (x_log, y_log) = self.axes.map_or((false, false), |(_, x, y)| (x, y));
        let frame = match (self.axes, self.names.len()) {
            (None, _) => Frame {
                x: apart(across, (10.0, WIDTH - 10.0)),
                y: apart(up, (height - 10.0, 10.0)),
            },
            (Some(_), 0) => Frame {
                x: Scale {
                    values: roomy(across, x_log),
                    places: (46.0, WIDTH - 14.0),
                    is_log: x_log,
                },
                y: Scale::of(up, (height - 34.0, 8.0), y_log),
            },
            (Some(_), num) => Frame {
                x: Scale {
                    values: (-0.5, num as f64 - 0.5),
                    places: (46.0, WIDTH - 14.0),
                    is_log: false,
                },
                y: Scale::of(up, (height - 34.0, 8.0), y_log),
            },
        };
        let drawing = html! {
            @if let Some((x_name, ..)) = self.axes {
                (self.axes_of(&frame, x_name))
            }
            @for mark in self.marks.iter().filter(|mark| mark.x.is_finite() && mark.y.is_finite()) {
                @let (x, y) = (frame.x.place(mark.x), frame.y.place(mark.y));
                circle class=(if mark.is_hollow { "ring" } else { "disc s0" }) r=(format!("{:.1}", mark.radius))
                    cx=(format!("{x:.1}")) cy=(format!("{y:.1}")) {}
                @if !mark.name.is_empty() {
                    text class="tick" x=(format!("{:.1}", x + mark.radius + 2.0)) y=(format!("{:.1}", y - 3.0)) { (mark.name) }
                }
            }
        };
        Figure {
            title: self.title,
            says: self.says,
            description: self.description,
            height,
            drawing,
            table: self.table,
        }
        .draw(page)
    }

    fn axes_of(&self, frame: &Frame, x_name: &str) -> Markup {
        if self.names.is_empty() {
            return frame.draw(x_name);
        }
        let bottom = frame.y.places.0;
        let bare = Frame { x: Scale { values: (0.0, 0.0), ..frame.x }, y: frame.y };
        html! {
            (Frame { x: Scale { values: (0.1, 0.2), ..bare.x }, y: bare.y }.draw_up(x_name))
            @for (at, name) in self.names.iter().enumerate() {
                text class="tick middle" x=(format!("{:.1}", frame.x.place(at as f64))) y=(format!("{:.1}", bottom + 16.0)) { (name) }
            }
        }
    }
}

impl Frame {
    /// The axis up alone.
    fn draw_up(&self, x_name: &str) -> Markup {
        let (left, right) = self.x.places;
        let (bottom, top) = self.y.places;
        html! {
            @for value in self.y.ticks(4) {
                @let y = self.y.place(value);
                path class="grid" d=(format!("M{left:.1} {y:.1}H{right:.1}")) {}
                text class="tick end" x=(format!("{:.1}", left - 5.0)) y=(format!("{:.1}", y + 3.8)) { (crate::numbers::tick(value)) }
            }
            path class="axis" d=(format!("M{left:.1} {top:.1}V{bottom:.1}H{right:.1}")) {}
            text class="tick end" x=(format!("{right:.1}")) y=(format!("{:.1}", bottom + 29.0)) { (x_name) }
        }
    }
}

/// A scale with a margin.
fn roomy((low, high): (f64, f64), is_log: bool) -> (f64, f64) {
    if !low.is_finite() || !high.is_finite() {
        (0.0, 1.0)
    } else if is_log {
        let room = (high / low).powf(0.05).max(1.05);
        (low / room, high * room)
    } else {
        let room = if high > low { 0.05 * (high - low) } else { high.abs().max(1.0) * 0.1 };
        (low - room, high + room)
    }
}

fn apart(values: (f64, f64), places: (f64, f64)) -> Scale {
    Scale { values: roomy(values, false), places, is_log: false }
}
