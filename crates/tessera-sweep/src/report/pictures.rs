//! Pictures of a sweep, as SVG: the metric against each parameter, parallel coordinates, size against
//! the metric with its Pareto front, and learning curves.

use std::path::{Path, PathBuf};

use plotters::coord::Shift;
use plotters::prelude::*;
use serde_json::Value;

use super::{Review, Table};
use crate::error::SweepError;
use crate::space::{Domain, Parameter};
use crate::trial::run_dir;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

const WIDTH: u32 = 900;
const HEIGHT: u32 = 560;
/// Height of the picture of one parameter.
const ROW: u32 = 260;
const FONT: (&str, u32) = ("sans-serif", 14);

/// Draws all pictures of the sweep in `folder` into `out` and returns their paths.
///
/// # Errors
///
/// [`SweepError::Picture`] or [`SweepError::File`].
pub fn draw(result: &Review, folder: &Path, out: &Path) -> Result<Vec<PathBuf>, SweepError> {
    std::fs::create_dir_all(out).map_err(SweepError::file("make", out))?;
    let parameters = &result.about.sweep.space.parameters;
    let tall = ROW * u32::try_from(parameters.len().div_ceil(2)).unwrap_or(1);
    let mut made = Vec::new();
    let mut one = |name: &str, height: u32, draw: &dyn Fn(&Area<'_>) -> Drawn| {
        let path = out.join(name);
        let area = SVGBackend::new(&path, (WIDTH, height)).into_drawing_area();
        area.fill(&WHITE)
            .map_err(Into::into)
            .and_then(|()| draw(&area))
            .and_then(|()| area.present().map_err(Into::into))
            .map_err(|error| SweepError::Picture {
                path: path.clone(),
                problem: error.to_string(),
            })?;
        made.push(path.clone());
        Ok::<(), SweepError>(())
    };
    let seen = Seen::of(result);
    if seen.trials.is_empty() {
        return Ok(made);
    }
    one("parameters.svg", tall, &|area| seen.scatters(area))?;
    one("parallel.svg", HEIGHT, &|area| seen.parallel(area))?;
    one("pareto.svg", HEIGHT, &|area| seen.pareto(area))?;
    one("curves.svg", HEIGHT, &|area| seen.curves(area, folder))?;
    Ok(made)
}

/// A trial that has come somewhere.
struct SeenTrial {
    number: usize,
    /// The metric at its last rung.
    metric: f64,
    size: Option<f64>,
    /// Whether it has come to the end.
    done: bool,
    /// Where it is along each parameter, from 0 to 1.
    units: Vec<Option<f64>>,
}

struct Seen<'a> {
    result: &'a Review,
    trials: Vec<SeenTrial>,
    /// The least and the largest metric.
    bounds: (f64, f64),
}

impl<'a> Seen<'a> {
    fn of(result: &'a Review) -> Self {
        let sweep = &result.about.sweep;
        let table = Table::of(result);
        let size_at = table.figures.iter().position(|name| *name == sweep.report.size);
        let mut trials = Vec::new();
        for row in &table.rows {
            let Some(metric) = row.figures.first().copied().flatten() else { continue };
            let units = sweep.space.parameters.iter().zip(&row.values);
            trials.push(SeenTrial {
                number: row.trial,
                metric,
                size: size_at.and_then(|at| row.figures[at]),
                done: row.steps == result.about.steps,
                units: units
                    .map(|(parameter, value)| parameter.domain.unit_of(value.as_ref()?))
                    .collect(),
            });
        }
        let bounds = bounds(trials.iter().map(|trial| trial.metric));
        Self { result, trials, bounds }
    }

    fn metric(&self) -> &str {
        &self.result.about.sweep.metric.name
    }

    /// From dark blue, the best, to light yellow, the worst.
    fn color(&self, value: f64) -> RGBColor {
        let (low, high) = self.bounds;
        let metric = &self.result.about.sweep.metric;
        let share = (value - low) / (high - low);
        let bad = if metric.cost(1.0) > 0.0 { share } else { 1.0 - share };
        let mix = |good: f64, worst: f64| (good + bad.clamp(0.0, 1.0) * (worst - good)) as u8;
        RGBColor(mix(38.0, 230.0), mix(70.0, 200.0), mix(150.0, 90.0))
    }

    /// The metric against each parameter.
    fn scatters(&self, area: &Area<'_>) -> Drawn {
        let parameters = &self.result.about.sweep.space.parameters;
        let columns = parameters.len().min(2);
        let areas = area.split_evenly((parameters.len().div_ceil(columns), columns));
        for (at, (area, parameter)) in areas.iter().zip(parameters).enumerate() {
            let (low, high) = self.bounds;
            let mut chart = ChartBuilder::on(area)
                .caption(&parameter.key, FONT)
                .margin(12)
                .x_label_area_size(32)
                .y_label_area_size(70)
                .build_cartesian_2d(across(&parameter.domain), low..high)?;
            chart
                .configure_mesh()
                .disable_x_mesh()
                .x_labels(match &parameter.domain {
                    Domain::Values(values) => values.len(),
                    Domain::Range { .. } => 6,
                })
                .x_label_formatter(&|at| value_at(parameter, unit_at(&parameter.domain, *at)))
                .y_labels(5)
                .y_label_formatter(&|value| short(*value))
                .y_desc(self.metric())
                .label_style(FONT)
                .draw()?;
            chart.draw_series(self.trials.iter().filter_map(|trial| {
                let color = self.color(trial.metric);
                let style = if trial.done { color.filled() } else { color.stroke_width(1) };
                let x = place_of(&parameter.domain, trial.units[at]?);
                Some(Circle::new((x, trial.metric), 4, style))
            }))?;
        }
        Ok(())
    }

    /// A line a trial over all parameters and the metric.
    fn parallel(&self, area: &Area<'_>) -> Drawn {
        let parameters = &self.result.about.sweep.space.parameters;
        let last = parameters.len();
        let (low, high) = self.bounds;
        let end = last as f64;
        let mut chart =
            ChartBuilder::on(area).margin(30).build_cartesian_2d(-0.3..end + 0.5, -0.14..1.1)?;
        // The worst first, so that the best lie on top; the table has the best first.
        for trial in self.trials.iter().rev() {
            let points = trial.units.iter().enumerate();
            let points = points.filter_map(|(at, unit)| Some((at as f64, (*unit)?)));
            let metric = (end, (trial.metric - low) / (high - low));
            let width = if trial.done { 2 } else { 1 };
            let style = self.color(trial.metric).stroke_width(width);
            chart.draw_series([PathElement::new(
                points.chain([metric]).collect::<Vec<_>>(),
                style,
            )])?;
        }
        let text = |x: f64, y: f64, words: String| Text::new(words, (x, y), FONT);
        for (at, parameter) in parameters.iter().enumerate() {
            let x = at as f64;
            chart.draw_series([PathElement::new(vec![(x, 0.0), (x, 1.0)], BLACK)])?;
            let name = parameter.key.rsplit('.').next().unwrap_or(&parameter.key).to_owned();
            chart.draw_series([text(x - 0.05, -0.08, name)])?;
            let marks = marks(&parameter.domain);
            chart.draw_series(
                marks.into_iter().map(|unit| text(x + 0.02, unit, value_at(parameter, unit))),
            )?;
        }
        chart.draw_series([PathElement::new(vec![(end, 0.0), (end, 1.0)], BLACK)])?;
        let ends = [(-0.08, self.metric().to_owned()), (0.0, short(low)), (1.0, short(high))];
        chart.draw_series(ends.into_iter().map(|(y, words)| text(end + 0.02, y, words)))?;
        Ok(())
    }

    /// The metric against the size, and the trials that none beats in both.
    fn pareto(&self, area: &Area<'_>) -> Drawn {
        let size = &self.result.about.sweep.report.size;
        let all: Vec<(f64, &SeenTrial)> = self
            .trials
            .iter()
            .filter(|trial| trial.done)
            .filter_map(|trial| Some((trial.size?, trial)))
            .collect();
        if all.is_empty() {
            let words = format!("no trial has come to the end and has a figure {size}");
            return Ok(area.draw(&Text::new(words, (30, 30), FONT))?);
        }
        let across = bounds(all.iter().map(|(size, _)| *size));
        let up = bounds(all.iter().map(|(_, trial)| trial.metric));
        let mut chart = ChartBuilder::on(area)
            .margin(16)
            .x_label_area_size(40)
            .y_label_area_size(80)
            .build_cartesian_2d(across.0..across.1, up.0..up.1)?;
        chart
            .configure_mesh()
            .x_desc(size.as_str())
            .y_desc(self.metric())
            .x_label_formatter(&|value| short(*value))
            .y_label_formatter(&|value| short(*value))
            .label_style(FONT)
            .draw()?;
        let points = all.iter().map(|(size, trial)| (*size, trial.metric));
        let front =
            front(&points.collect::<Vec<_>>(), |value| self.result.about.sweep.metric.cost(value));
        chart.draw_series([PathElement::new(front, BLACK.stroke_width(1))])?;
        chart.draw_series(all.iter().map(|(size, trial)| {
            Circle::new((*size, trial.metric), 5, self.color(trial.metric).filled())
        }))?;
        chart.draw_series(all.iter().map(|(size, trial)| {
            let small = ("sans-serif", 11);
            EmptyElement::at((*size, trial.metric))
                + Text::new(trial.number.to_string(), (7, -5), small)
        }))?;
        Ok(())
    }

    /// The metric over steps, as the evaluations of each trial say.
    fn curves(&self, area: &Area<'_>, folder: &Path) -> Drawn {
        let folds = self.result.about.sweep.trials.folds > 0;
        let curves: Vec<(&SeenTrial, Vec<(f64, f64)>)> = self
            .trials
            .iter()
            .map(|trial| {
                let run = run_dir(folder, trial.number, folds.then_some(0));
                (trial, curve(&run.join("eval.jsonl"), self.metric()))
            })
            .collect();
        let up = bounds(curves.iter().flat_map(|(_, curve)| curve).map(|(_, value)| *value));
        let steps = self.result.about.steps as f64;
        let mut chart = ChartBuilder::on(area)
            .margin(16)
            .x_label_area_size(40)
            .y_label_area_size(80)
            .build_cartesian_2d(0.0..steps * 1.02, up.0..up.1)?;
        chart
            .configure_mesh()
            .x_desc("step")
            .y_desc(self.metric())
            .y_label_formatter(&|value| short(*value))
            .label_style(FONT)
            .draw()?;
        for (trial, curve) in curves.into_iter().rev() {
            let color = self.color(trial.metric);
            let end = curve.last().copied();
            chart.draw_series([PathElement::new(curve, color.stroke_width(2))])?;
            chart.draw_series(end.map(|end| Circle::new(end, 3, color.filled())))?;
        }
        Ok(())
    }
}

/// Points that no other beats in both size and cost, by size, as steps.
fn front(points: &[(f64, f64)], cost: impl Fn(f64) -> f64) -> Vec<(f64, f64)> {
    let mut sorted = points.to_vec();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0).then(cost(a.1).total_cmp(&cost(b.1))));
    let mut front: Vec<(f64, f64)> = Vec::new();
    for (size, value) in sorted {
        match front.last() {
            Some(&(_, best)) if cost(value) >= cost(best) => {}
            Some(&(_, best)) => front.extend([(size, best), (size, value)]),
            None => front.push((size, value)),
        }
    }
    front
}

/// Rows of `eval.jsonl`: step and metric.
fn curve(path: &Path, metric: &str) -> Vec<(f64, f64)> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let rows = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    rows.filter_map(|row| Some((row.get("step")?.as_f64()?, row.get(metric)?.as_f64()?))).collect()
}

/// The least and the largest value, somewhat apart.
fn bounds(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values
        .filter(|value| value.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), at| (low.min(at), high.max(at)));
    if !low.is_finite() {
        return (0.0, 1.0);
    }
    let room = if high > low { 0.04 * (high - low) } else { 0.05 * low.abs().max(1e-9) };
    (low - room, high + room)
}

/// The axis of a parameter: of a list, one place a value, so that each can have its mark.
fn across(domain: &Domain) -> std::ops::Range<f64> {
    match domain {
        Domain::Values(values) => -0.5..values.len() as f64 - 0.5,
        Domain::Range { .. } => -0.03..1.03,
    }
}

fn place_of(domain: &Domain, unit: f64) -> f64 {
    match domain {
        Domain::Values(values) => unit * values.len() as f64 - 0.5,
        Domain::Range { .. } => unit,
    }
}

fn unit_at(domain: &Domain, place: f64) -> f64 {
    match domain {
        Domain::Values(values) => (place + 0.5) / values.len() as f64,
        Domain::Range { .. } => place,
    }
}

/// Where along a parameter its values are written.
fn marks(domain: &Domain) -> Vec<f64> {
    match domain {
        Domain::Values(values) => {
            (0..values.len()).map(|at| (at as f64 + 0.5) / values.len() as f64).collect()
        }
        Domain::Range { integer: true, .. } => {
            let units = [0.0, 0.5, 1.0].map(|unit| domain.unit_of(&domain.at(unit)));
            let mut units: Vec<f64> = units.into_iter().flatten().collect();
            units.dedup();
            units
        }
        Domain::Range { .. } => vec![0.0, 0.5, 1.0],
    }
}

/// The value of a parameter at a unit, for a person.
fn value_at(parameter: &Parameter, unit: f64) -> String {
    if !(-0.001..=1.001).contains(&unit) {
        return String::new();
    }
    match &parameter.domain {
        Domain::Values(values) => {
            let at = unit * values.len() as f64 - 0.5;
            // A label stands for a value only at the middle of its part.
            let near = at.round();
            let is_middle = (at - near).abs() < 0.26 && near >= 0.0;
            match values.get(near as usize).filter(|_| is_middle) {
                Some(Value::String(text)) => text.clone(),
                Some(value) => value.to_string(),
                None => String::new(),
            }
        }
        Domain::Range { .. } => match parameter.domain.at(unit) {
            Value::Number(whole) if !whole.is_f64() => whole.to_string(),
            value => short(value.as_f64().expect("a range has numbers")),
        },
    }
}

/// A number in few letters.
fn short(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 {
        "0".to_owned()
    } else if !(1e-3..1e5).contains(&size) {
        format!("{value:.1e}")
    } else if size >= 100.0 {
        format!("{value:.0}")
    } else if size >= 1.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.4}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_front_goes_down_in_steps_over_what_none_beats() {
        let points = [(3.0, 1.0), (1.0, 5.0), (2.0, 5.5), (2.0, 4.0), (4.0, 2.0)];
        let steps = [(1.0, 5.0), (2.0, 5.0), (2.0, 4.0), (3.0, 4.0), (3.0, 1.0)];
        assert_eq!(front(&points, |value| value), steps);
        assert_eq!(front(&points, |value| -value), [(1.0, 5.0), (2.0, 5.0), (2.0, 5.5)]);
    }

    #[test]
    fn numbers_are_short() {
        let shown = [0.0, 0.00732, 0.0000123, 12.345, 512.0, 1_234_567.0].map(short);
        assert_eq!(shown, ["0", "0.0073", "1.2e-5", "12.35", "512", "1.2e6"]);
    }
}
