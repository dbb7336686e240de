//! Curves over steps.
//!
//! A curve that has a bucket a row is drawn as it is. A longer one is drawn as the means of its buckets, within a band from
//! their least to their largest values.

use std::fmt::Write as _;

use maud::{Markup, html};

use super::{Figure, Frame, STYLES, Scale, WIDTH};
use crate::numbers::{long, short};
use crate::page::Page;
use crate::read::Bucket;

const HEIGHT: f64 = 200.0;
/// Height of a name at the end of a line.
const NAME: f64 = 13.0;

/// A curve of a chart.
pub(crate) struct Line {
    /// Its name at its end; empty where it is alone.
    pub(crate) end: String,
    /// Its name in the table.
    pub(crate) name: String,
    /// Its style, from 0.
    pub(crate) style: usize,
    pub(crate) buckets: Vec<Bucket>,
}

/// Curves with one pair of axes.
pub(crate) struct LineChart<'a> {
    pub(crate) title: &'a str,
    /// What the axis across counts.
    pub(crate) x_name: &'a str,
    pub(crate) lines: Vec<Line>,
    /// From which ratio of the largest to the least value on ratios count; none: never.
    pub(crate) log_from: Option<f64>,
}

impl LineChart<'_> {
    /// The chart; nothing where no curve has a value.
    pub(crate) fn draw(self, page: &Page) -> Markup {
        let values =
            || self.lines.iter().flat_map(|line| &line.buckets).filter(|bucket| bucket.num > 0);
        if values().next().is_none() {
            return html! {};
        }
        let bounds = |low: fn(&Bucket) -> f64, high: fn(&Bucket) -> f64| {
            let low = values().map(low).fold(f64::INFINITY, f64::min);
            (low, values().map(high).fold(f64::NEG_INFINITY, f64::max))
        };
        let across = bounds(|bucket| bucket.steps.0 as f64, |bucket| bucket.steps.1 as f64);
        let up = bounds(|bucket| bucket.low.0, |bucket| bucket.high.0);
        let is_log = self.log_from.is_some_and(|from| up.0 > 0.0 && up.1 / up.0 > from);
        let longest = self.lines.iter().map(|line| line.end.chars().count()).max().unwrap_or(0);
        let room = if longest == 0 { 10.0 } else { 12.0 + 6.6 * longest as f64 };
        let first = if across.0 < 0.2 * across.1 { 0.0 } else { across.0 };
        let x = Scale {
            values: (first, across.1.max(first + 1.0)),
            places: (46.0, WIDTH - room),
            is_log: false,
        };
        let frame = Frame { x, y: Scale::of(up, (HEIGHT - 34.0, 8.0), is_log) };
        let x_name =
            if is_log { format!("{}; log scale", self.x_name) } else { self.x_name.to_owned() };
        let drawing = html! {
            (frame.draw(&x_name))
            @for line in &self.lines { (line.draw(&frame)) }
            (names(&self.lines, &frame))
        };
        let says = match &self.lines[..] {
            [line] => line.says(),
            _ => String::new(),
        };
        let description = self.description();
        let table = table(&self.lines, self.x_name, page.most_rows());
        Figure {
            title: self.title,
            says: &says,
            description: &description,
            height: HEIGHT,
            drawing,
            table,
        }
        .draw(page)
    }

    /// A sentence for each line.
    fn description(&self) -> String {
        let mut text = String::new();
        for line in &self.lines {
            let Some((low, high)) = line.ends() else { continue };
            let (low, high) = (low.low, high.high);
            let _ = write!(
                text,
                "{}: {} at {} {}, least {} at {}, largest {} at {}. ",
                line.name,
                line.last().map_or("not finite".to_owned(), short),
                self.x_name,
                line.buckets.last().map_or(0, |bucket| bucket.steps.1),
                short(low.0),
                low.1,
                short(high.0),
                high.1,
            );
        }
        text.push_str("The numbers are in the table below.");
        text
    }
}

impl Line {
    fn last(&self) -> Option<f64> {
        self.buckets.last().and_then(Bucket::mean)
    }

    fn ends(&self) -> Option<(Bucket, Bucket)> {
        let finite = || self.buckets.iter().filter(|bucket| bucket.num > 0);
        let low = finite().min_by(|a, b| a.low.0.total_cmp(&b.low.0))?;
        let high = finite().max_by(|a, b| a.high.0.total_cmp(&b.high.0))?;
        Some((*low, *high))
    }

    /// The last value, and between which all lie.
    fn says(&self) -> String {
        let Some((low, high)) = self.ends() else { return String::new() };
        let range = format!("from {} to {}", short(low.low.0), short(high.high.0));
        match self.last() {
            Some(last) => format!("{} at the end, {range}", short(last)),
            None => format!("not finite at the end, {range}"),
        }
    }

    fn draw(&self, frame: &Frame) -> Markup {
        let style = self.style % STYLES;
        let mut pieces: Vec<&[Bucket]> = self.buckets.split(|bucket| bucket.num == 0).collect();
        pieces.retain(|piece| !piece.is_empty());
        let place = |bucket: &Bucket, value: f64| {
            let step = (bucket.steps.0 as f64 + bucket.steps.1 as f64) / 2.0;
            format!("{:.1} {:.1}", frame.x.place(step), frame.y.place(value))
        };
        let mean = |bucket: &Bucket| place(bucket, bucket.mean().expect("it has values"));
        let (mut line, mut band) = (String::new(), String::new());
        for piece in &pieces {
            let points: Vec<String> = piece.iter().map(mean).collect();
            let _ = write!(line, "M{}", points.join("L"));
            if piece.iter().any(|bucket| bucket.num > 1) {
                let high = piece.iter().map(|bucket| place(bucket, bucket.high.0));
                let low = piece.iter().rev().map(|bucket| place(bucket, bucket.low.0));
                let _ = write!(band, "M{}Z", high.chain(low).collect::<Vec<_>>().join("L"));
            }
        }
        // A value between two that are not finite, or few values: a line alone would not show them.
        let is_few = self.buckets.len() <= 24;
        let dots =
            pieces.iter().filter(|piece| is_few || piece.len() == 1).flat_map(|piece| piece.iter());
        html! {
            @if !band.is_empty() { path class=(format!("band s{style}")) d=(band) {} }
            path class=(format!("line s{style}")) d=(line) {}
            @for bucket in dots {
                @let step = (bucket.steps.0 as f64 + bucket.steps.1 as f64) / 2.0;
                @if let Some(value) = bucket.mean() {
                    circle class=(format!("dot s{style}")) r="2.4"
                        cx=(format!("{:.1}", frame.x.place(step))) cy=(format!("{:.1}", frame.y.place(value))) {}
                }
            }
        }
    }
}

/// The names at the ends of lines, apart from one another.
fn names(lines: &[Line], frame: &Frame) -> Markup {
    let mut ends: Vec<(f64, f64, &Line)> = Vec::new();
    for line in lines.iter().filter(|line| !line.end.is_empty()) {
        let last = line.buckets.iter().rev().find(|bucket| bucket.num > 0);
        if let Some((bucket, mean)) = last.and_then(|bucket| Some((bucket, bucket.mean()?))) {
            ends.push((frame.y.place(mean), frame.x.place(bucket.steps.1 as f64), line));
        }
    }
    ends.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (bottom, top) = frame.y.places;
    let lowest = bottom - NAME * ends.len().saturating_sub(1) as f64;
    let mut above = f64::NEG_INFINITY;
    for (at, end) in ends.iter_mut().enumerate() {
        // Those below need room too.
        end.0 = end.0.max(above + NAME).min(lowest + NAME * at as f64).max(top);
        above = end.0;
    }
    html! {
        @for (y, x, line) in ends {
            text class=(format!("name s{}", line.style % STYLES)) x=(format!("{:.1}", x + 5.0)) y=(format!("{:.1}", y + 4.0)) {
                (line.end)
            }
        }
    }
}

/// The numbers of all lines: in one table where they have the same steps, or else one after the other.
fn table(lines: &[Line], x_name: &str, most: usize) -> Markup {
    let few: Vec<Vec<Bucket>> = lines.iter().map(|line| fewer(&line.buckets, most)).collect();
    let steps = |buckets: &[Bucket]| buckets.iter().map(|bucket| bucket.steps).collect::<Vec<_>>();
    let is_single = few.iter().flatten().all(|bucket| bucket.steps.0 == bucket.steps.1);
    let is_same = few.iter().all(|buckets| steps(buckets) == steps(&few[0]));
    if is_single && is_same {
        return html! {
            table {
                thead { tr { th scope="col" { (x_name) } @for line in lines { th scope="col" { (line.name) } } } }
                tbody {
                    @for (at, bucket) in few[0].iter().enumerate() {
                        tr {
                            th scope="row" { (bucket.steps.0) }
                            @for buckets in &few { td { (buckets[at].mean().map_or("not finite".to_owned(), long)) } }
                        }
                    }
                }
            }
        };
    }
    html! {
        @for (line, buckets) in lines.iter().zip(&few) {
            table {
                caption { (line.name) }
                thead { tr {
                    th scope="col" { (x_name) } th scope="col" { "mean" } th scope="col" { "least" } th scope="col" { "largest" }
                } }
                tbody {
                    @for bucket in buckets {
                        tr {
                            th scope="row" {
                                (bucket.steps.0) @if bucket.steps.1 > bucket.steps.0 { " to " (bucket.steps.1) }
                            }
                            @match bucket.mean() {
                                Some(mean) => { td { (long(mean)) } td { (long(bucket.low.0)) } td { (long(bucket.high.0)) } }
                                None => td colspan="3" { "not finite" },
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The same in at most `most` buckets.
fn fewer(buckets: &[Bucket], most: usize) -> Vec<Bucket> {
    crate::read::join(buckets, buckets.len().div_ceil(most.max(1)).max(1))
}
