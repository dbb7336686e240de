//! The picture of a report: rate from left to right, by its logarithm, and a figure upward.
//!
//! Written as SVG by hand: a label stands beside the end of its line, which needs more say over places than a
//! library of charts gives, and no font is measured. Colors are those of Okabe and Ito, which people who see
//! fewer colors tell apart; shapes of points say the same again.

use std::fmt::Write as _;

use super::Report;
use super::plot::{Scale, short, spread};
use crate::curve::{Bytes, Curve, Kind};

const WIDTH: f64 = 1180.0;
const HEIGHT: f64 = 560.0;
/// Between the left edge of a panel and its axis.
const LEFT: f64 = 70.0;
/// Of one panel, from axis to end.
const ACROSS: f64 = 360.0;
/// From one panel to the next: axis, plot and labels.
const PANEL: f64 = 580.0;
const TOP: f64 = 96.0;
const BOTTOM: f64 = 500.0;
/// Where points stand that lose nothing.
const EXACT: f64 = 74.0;
const LABEL_GAP: f64 = 17.0;
const MODEL: &str = "#000000";
const COLORS: [&str; 7] =
    ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442"];
/// Of several models' lines.
const DASHES: [&str; 4] = ["", "7 4", "2 3", "9 3 2 3"];

/// How a curve looks.
struct Look<'a> {
    curve: &'a Curve,
    color: &'static str,
    shape: usize,
    dashes: &'static str,
}

impl Report {
    /// The picture of the figure of a column as SVG: whole files on the left, payloads on the right.
    ///
    /// Lines go through the points that no other of the curve beats; the others are faint. Points that lose
    /// nothing stand above the plot.
    ///
    /// # Panics
    ///
    /// If there is no such column.
    pub fn svg(&self, column: usize) -> String {
        let name = &self.columns[column].name;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" \
             height=\"{HEIGHT}\" role=\"img\" aria-labelledby=\"title desc\" \
             font-family=\"sans-serif\" font-size=\"13\" fill=\"#222222\">\n\
             <title id=\"title\">{}</title>\n<desc id=\"desc\">{}</desc>\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#FFFFFF\"/>\n",
            escaped(&format!("Rate and {name}: {}", self.data_set)),
            escaped(&self.described(column)),
        );
        text(&mut svg, (16.0, 26.0), "start", "font-size=\"16\"", &self.data_set);
        let looks = self.looks();
        let panels = [(Bytes::File, "whole files"), (Bytes::Payload, "payload without containers")];
        for (at, (which, words)) in panels.into_iter().enumerate() {
            let panel = Panel::new(self, column, which, PANEL * at as f64 + LEFT);
            panel.axes(&mut svg, words);
            panel.curves(&mut svg, &looks);
        }
        svg.push_str("</svg>\n");
        svg
    }

    /// The picture in words, for who does not see it.
    fn described(&self, column: usize) -> String {
        let name = &self.columns[column].name;
        let rate = self.amount.rate_name().replace('_', " ");
        let mut words = format!("{name} over {rate} of files.");
        for curve in &self.curves {
            let all = curve.points.iter();
            let points: Vec<String> = all
                .map(|point| {
                    let rate = self.amount.rate(point.file_bytes);
                    format!("{rate:.3}: {}", super::page::figure_text(point.figures[column]))
                })
                .collect();
            write!(words, " {}: {}.", curve.name, points.join(", ")).expect("memory");
        }
        words
    }

    fn looks(&self) -> Vec<Look<'_>> {
        let (mut models, mut lossy, mut lossless) = (0, 0, 0);
        let mut looks = Vec::new();
        for (shape, curve) in self.curves.iter().enumerate() {
            let (color, dashes) = match curve.kind {
                Kind::Model => (MODEL, DASHES[models % DASHES.len()]),
                Kind::Lossy => (COLORS[lossy % COLORS.len()], ""),
                // From the other end: these need no line, so that light colors are theirs.
                Kind::Lossless => (COLORS[COLORS.len() - 1 - lossless % COLORS.len()], ""),
            };
            match curve.kind {
                Kind::Model => models += 1,
                Kind::Lossy => lossy += 1,
                Kind::Lossless => lossless += 1,
            }
            looks.push(Look { curve, color, shape, dashes });
        }
        looks
    }
}

/// One of the two plots.
struct Panel<'a> {
    report: &'a Report,
    column: usize,
    which: Bytes,
    left: f64,
    across: Scale,
    up: Scale,
}

impl<'a> Panel<'a> {
    fn new(report: &'a Report, column: usize, which: Bytes, left: f64) -> Self {
        let points = || report.curves.iter().flat_map(|curve| &curve.points);
        // Both panels have one scale, so that they can be compared.
        let rates: Vec<f64> = points()
            .flat_map(|point| [point.file_bytes, point.payload_bytes])
            .map(|bytes| report.amount.rate(bytes))
            .filter(|rate| *rate > 0.0)
            .collect();
        let figures: Vec<f64> = points().map(|point| point.figures[column]).collect();
        let across = Scale::new(&rates, (left, left + ACROSS), true);
        Self { report, column, which, left, across, up: Scale::new(&figures, (BOTTOM, TOP), false) }
    }

    fn axes(&self, svg: &mut String, words: &str) {
        let (left, right) = (self.left, self.left + ACROSS);
        let grid = "stroke=\"#DDDDDD\"";
        for mark in self.up.marks() {
            let y = self.up.place(mark);
            line(svg, (left, y), (right, y), grid);
            text(svg, (left - 8.0, y + 4.5), "end", "", &short(mark));
        }
        for mark in self.across.marks() {
            let x = self.across.place(mark);
            line(svg, (x, TOP), (x, BOTTOM), grid);
            text(svg, (x, BOTTOM + 20.0), "middle", "", &short(mark));
        }
        if self.report.curves.iter().any(|curve| curve.exact(self.column)) {
            text(svg, (left - 8.0, EXACT + 4.5), "end", "", "exact");
        }
        line(svg, (left, BOTTOM), (right, BOTTOM), "stroke=\"#222222\"");
        line(svg, (left, TOP), (left, BOTTOM), "stroke=\"#222222\"");
        let rate = self.report.amount.rate_name().replace('_', " ");
        let middle = (left + right) / 2.0;
        text(svg, (middle, BOTTOM + 44.0), "middle", "", &format!("{rate}, {words}"));
        let name = &self.report.columns[self.column];
        let way = if name.higher_is_better { "" } else { " (lower is better)" };
        let (x, y) = (left - 52.0, (TOP + BOTTOM) / 2.0);
        let turned = format!("transform=\"rotate(-90 {x:.1} {y:.1})\"");
        text(svg, (x, y), "middle", &turned, &format!("{}{way}", name.name));
    }

    fn curves(&self, svg: &mut String, looks: &[Look<'_>]) {
        let mut ends = Vec::new();
        for look in looks {
            let end = self.curve(svg, look);
            ends.extend(end.map(|end| (look, end)));
        }
        let wished: Vec<f64> = ends.iter().map(|(_, (_, y))| *y).collect();
        let places = spread(&wished, LABEL_GAP, (EXACT, BOTTOM));
        for ((look, (x, y)), place) in ends.iter().zip(places) {
            let right = self.left + ACROSS;
            // From the last point to its label.
            let guide = "stroke=\"#999999\" stroke-width=\"0.8\" stroke-dasharray=\"1 3\"";
            line(svg, (x + 6.0, *y), (right + 12.0, place), guide);
            shape(svg, (right + 20.0, place), look, "");
            text(svg, (right + 30.0, place + 4.5), "start", "", &look.curve.name);
        }
    }

    /// Draws a curve and says where its line ends.
    fn curve(&self, svg: &mut String, look: &Look<'_>) -> Option<(f64, f64)> {
        let rate = |bytes: f64| self.across.place(self.report.amount.rate(1) * bytes);
        let order = &self.report.columns[self.column];
        let front = look.curve.front(self.column, order, self.which);
        let line: Vec<(f64, f64)> = front
            .iter()
            .map(|best| (rate(best.bytes), self.up.place(order.quality(best.quality))))
            .collect();
        let width = if look.curve.kind == Kind::Model { 2.8 } else { 1.6 };
        polyline(svg, &line, look, width);
        let mut end = line.last().copied();
        for point in &look.curve.points {
            let (bytes, figure) = (point.bytes(self.which) as f64, point.figures[self.column]);
            if figure.is_nan() || bytes == 0.0 {
                continue;
            }
            if figure.is_infinite() {
                let place = (rate(bytes), EXACT);
                shape(svg, place, look, "");
                end = end.or(Some(place));
                continue;
            }
            let quality = order.quality(figure);
            let best = front.iter().any(|best| best.bytes == bytes && best.quality == quality);
            let faint = if best { "" } else { "opacity=\"0.35\"" };
            shape(svg, (rate(bytes), self.up.place(figure)), look, faint);
        }
        end
    }
}

fn polyline(svg: &mut String, points: &[(f64, f64)], look: &Look<'_>, width: f64) {
    let places: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let dashes = match look.dashes {
        "" => String::new(),
        dashes => format!(" stroke-dasharray=\"{dashes}\""),
    };
    writeln!(
        svg,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"{width}\"{dashes}/>",
        places.join(" "),
        look.color
    )
    .expect("memory");
}

/// A point: seven shapes, so that color is never needed.
fn shape(svg: &mut String, (x, y): (f64, f64), look: &Look<'_>, more: &str) {
    let corners: &[(f64, f64)] = match look.shape % 7 {
        1 => &[(-3.8, -3.8), (3.8, -3.8), (3.8, 3.8), (-3.8, 3.8)],
        2 => &[(0.0, -5.2), (5.0, 3.8), (-5.0, 3.8)],
        3 => &[(0.0, -5.4), (5.4, 0.0), (0.0, 5.4), (-5.4, 0.0)],
        4 => &[(0.0, 5.2), (5.0, -3.8), (-5.0, -3.8)],
        5 => &[(-2.0, -5.5), (2.0, -5.5), (2.0, 5.5), (-2.0, 5.5)],
        6 => &[(-5.5, -2.0), (5.5, -2.0), (5.5, 2.0), (-5.5, 2.0)],
        _ => &[],
    };
    // A thin edge, so that light colors stand out from white.
    let style = format!("fill=\"{}\" stroke=\"#222222\" stroke-width=\"0.6\" {more}", look.color);
    if corners.is_empty() {
        writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4.4\" {style}/>").expect("memory");
        return;
    }
    let places: Vec<String> =
        corners.iter().map(|(dx, dy)| format!("{:.1},{:.1}", x + dx, y + dy)).collect();
    writeln!(svg, "<polygon points=\"{}\" {style}/>", places.join(" ")).expect("memory");
}

fn line(svg: &mut String, (x1, y1): (f64, f64), (x2, y2): (f64, f64), style: &str) {
    let ends = format!("x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"");
    writeln!(svg, "<line {ends} {style}/>").expect("memory");
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, more: &str, words: &str) {
    let place = format!("x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\"");
    writeln!(svg, "<text {place} {more}>{}</text>", escaped(words)).expect("memory");
}

fn escaped(words: &str) -> String {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    words.replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::super::tests::report;

    #[test]
    fn a_picture_has_words_and_a_label_for_each_curve_in_both_panels() {
        let svg = report().svg(0);
        assert!(
            svg.contains("<title id=\"title\">Rate and psnr_db: waves, &quot;test&quot;</title>")
        );
        assert!(svg.contains("model: 0.391: 22.00, 0.781: 25.00"), "{svg}");
        for name in ["model", "PNG", "JPEG", "WebP"] {
            let label = format!(">{name}</text>");
            assert_eq!(svg.matches(&label).count(), 2, "{name}");
        }
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn a_curve_without_figures_leaves_no_mark() {
        let mut report = report();
        for point in &mut report.curves[0].points {
            point.figures[1] = f64::NAN;
        }
        let svg = report.svg(1);
        assert!(!svg.contains("NaN"), "{svg}");
        assert!(!svg.contains(">model</text>"));
    }
}
