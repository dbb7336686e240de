//! What a sweep varies: parameters, each with its values, its condition, and what may not come together.
//!
//! A point of the space is a value for each parameter whose condition holds. Parameters are looked at in
//! the order of the sweep file, and a condition asks for one that comes before.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::SweepError;

/// A value for each active parameter, by its configuration key.
pub type Point = BTreeMap<String, Value>;

/// Most points of a space that are counted one by one.
const MAX_POINTS: usize = 100_000;
/// Significant digits of numbers drawn from a range: enough to tell them apart, few enough to read.
const DIGITS: usize = 6;
/// As many parts of a range can be told apart at least.
const MIN_PARTS: f64 = 1e4;

/// What a parameter may be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Domain {
    /// One of these.
    Values(Vec<Value>),
    /// Numbers from the first to the second, both included.
    Range {
        /// The least.
        low: f64,
        /// The largest.
        high: f64,
        /// Whether ratios count, not differences.
        log: bool,
        /// Whether only whole numbers do.
        integer: bool,
        /// How many a grid takes; for whole numbers 0 is all of them.
        points: usize,
    },
}

/// What a sweep varies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Parameter {
    /// Its configuration key.
    pub key: String,
    /// What it may be.
    pub domain: Domain,
    /// It is varied only where these parameters have one of these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub when: BTreeMap<String, Vec<Value>>,
}

/// All that a sweep varies.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Space {
    /// The parameters.
    pub parameters: Vec<Parameter>,
    /// Values that may not come together: a point that has one of each key's is left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forbidden: Vec<BTreeMap<String, Vec<Value>>>,
}

impl Domain {
    /// The value at `unit`, from 0 to below 1.
    pub(crate) fn at(&self, unit: f64) -> Value {
        match *self {
            Self::Values(ref values) => {
                let at = (unit * values.len() as f64) as usize;
                values[at.min(values.len() - 1)].clone()
            }
            Self::Range { low, high, log, integer: false, .. } => {
                number(between(low, high, log, unit), low, high)
            }
            Self::Range { low, high, log, integer: true, .. } => {
                // Every whole number has an equal part of the range that ends half a step beyond both.
                let value = between(low - 0.5, high + 0.5, log, unit);
                Value::from(value.round().clamp(low, high) as i64)
            }
        }
    }

    /// How many values [`Self::grid`] takes at most.
    fn grid_len(&self) -> usize {
        match *self {
            Self::Values(ref values) => values.len(),
            Self::Range { low, high, integer: true, points: 0, .. } => {
                ((high - low) as usize).saturating_add(1)
            }
            Self::Range { points, .. } => points.max(2),
        }
    }

    /// The values that a grid takes.
    pub(crate) fn grid(&self) -> Vec<Value> {
        match *self {
            Self::Values(ref values) => values.clone(),
            Self::Range { low, high, integer: true, points: 0, .. } => {
                (low as i64..=high as i64).map(Value::from).collect()
            }
            Self::Range { low, high, log, integer, points } => {
                let last = points.max(2) - 1;
                let mut values: Vec<Value> = Vec::new();
                for at in 0..=last {
                    let exact = between(low, high, log, at as f64 / last as f64);
                    let value = if integer {
                        Value::from(exact.round() as i64)
                    } else {
                        number(exact, low, high)
                    };
                    if values.last() != Some(&value) {
                        values.push(value);
                    }
                }
                values
            }
        }
    }

    /// Whether there are only so many values as [`Self::grid`] has.
    fn is_finite(&self) -> bool {
        matches!(self, Self::Values(_) | Self::Range { integer: true, points: 0, .. })
    }

    /// Where a value is, from 0 to below 1; of lists and whole numbers, the middle of its part. There
    /// [`Self::at`] gives the value again.
    pub(crate) fn unit_of(&self, value: &Value) -> Option<f64> {
        match *self {
            Self::Values(ref values) => {
                let at = values.iter().position(|known| known == value)?;
                Some((at as f64 + 0.5) / values.len() as f64)
            }
            Self::Range { low, high, log, integer, .. } => {
                let value = value.as_f64()?;
                if integer {
                    let (from, to) = self.part_of_integer(value.clamp(low, high));
                    return Some((from + to) / 2.0);
                }
                let unit = where_between(low, high, log, value);
                Some(if unit.is_finite() { unit.clamp(0.0, 1.0 - f64::EPSILON) } else { 0.0 })
            }
        }
    }

    /// From where to where [`Self::at`] gives the same value as at `unit`; of numbers that are not whole,
    /// the unit itself twice.
    pub(crate) fn part_of(&self, unit: f64) -> (f64, f64) {
        match *self {
            Self::Values(ref values) => {
                let num = values.len() as f64;
                let at = (unit * num).floor();
                (at / num, (at + 1.0) / num)
            }
            Self::Range { integer: false, .. } => (unit, unit),
            Self::Range { integer: true, .. } => {
                self.part_of_integer(self.at(unit).as_f64().expect("a whole number"))
            }
        }
    }

    fn part_of_integer(&self, value: f64) -> (f64, f64) {
        let Self::Range { low, high, log, .. } = *self else { return (0.0, 1.0) };
        let edge = |value: f64| where_between(low - 0.5, high + 0.5, log, value).clamp(0.0, 1.0);
        (edge(value - 0.5), edge(value + 0.5))
    }
}

fn between(low: f64, high: f64, log: bool, unit: f64) -> f64 {
    if log { low * (high / low).powf(unit) } else { low + unit * (high - low) }
}

/// The unit at which [`between`] gives the value.
fn where_between(low: f64, high: f64, log: bool, value: f64) -> f64 {
    if log { (value / low).ln() / (high / low).ln() } else { (value - low) / (high - low) }
}

/// A number of few digits from `low` to `high`; of more where these are close together.
fn number(value: f64, low: f64, high: f64) -> Value {
    let parts = low.abs().max(high.abs()) / (high - low) * MIN_PARTS;
    let digits = DIGITS.max(parts.log10().ceil() as usize).min(17);
    let short = format!("{value:.*e}", digits - 1);
    let short = short.parse::<f64>().expect("a number was just printed");
    Value::from(short.clamp(low, high))
}

impl Space {
    /// The point at these units, one a parameter; `None` where it is forbidden.
    ///
    /// # Panics
    ///
    /// If there are fewer units than parameters.
    pub fn at(&self, units: &[f64]) -> Option<Point> {
        assert!(units.len() >= self.parameters.len(), "a unit for each parameter");
        self.point(|at| self.parameters[at].domain.at(units[at]))
    }

    /// The point of what `value` says of each parameter that is active, by its number; `None` where it is
    /// forbidden.
    pub(crate) fn point(&self, mut value: impl FnMut(usize) -> Value) -> Option<Point> {
        let mut point = Point::new();
        for (at, parameter) in self.parameters.iter().enumerate() {
            if all_hold(&parameter.when, &point) {
                point.insert(parameter.key.clone(), value(at));
            }
        }
        let forbidden = self.forbidden.iter().any(|together| all_hold(together, &point));
        (!forbidden).then_some(point)
    }

    /// All points of a grid, the last parameter going round fastest.
    ///
    /// # Errors
    ///
    /// [`SweepError::Space`] if they are too many to try, or none is allowed.
    pub fn grid(&self) -> Result<Vec<Point>, SweepError> {
        let lens = self.parameters.iter().map(|one| one.domain.grid_len());
        let size = lens.into_iter().try_fold(1_usize, usize::checked_mul);
        if size.is_none_or(|size| size > MAX_POINTS) {
            return Err(SweepError::Space(format!(
                "a grid of more than {MAX_POINTS} points: give fewer values, or choose another strategy"
            )));
        }
        let values: Vec<Vec<Value>> = self.parameters.iter().map(|one| one.domain.grid()).collect();
        let size = values.iter().map(Vec::len).product(); // values that are equal are one
        let mut points: Vec<Point> = Vec::new();
        let mut seen = std::collections::BTreeSet::new();
        for number in 0..size {
            let mut rest = number;
            let mut picked: Vec<&Value> = Vec::new();
            for values in values.iter().rev() {
                picked.push(&values[rest % values.len()]);
                rest /= values.len();
            }
            picked.reverse();
            if let Some(point) = self.point(|at| picked[at].clone())
                && seen.insert(text_of(&point))
            {
                points.push(point);
            }
        }
        if points.is_empty() {
            return Err(SweepError::Space("every point is forbidden".to_owned()));
        }
        Ok(points)
    }

    /// All points, where there are only so many and they can be counted.
    pub(crate) fn all(&self) -> Option<Vec<Point>> {
        let finite = self.parameters.iter().all(|parameter| parameter.domain.is_finite());
        if finite { self.grid().ok() } else { None }
    }

    /// What is wrong with the space, if anything.
    ///
    /// # Errors
    ///
    /// [`SweepError::Space`] in one line.
    pub fn validate(&self) -> Result<(), SweepError> {
        let refused = |problem: String| Err(SweepError::Space(problem));
        if self.parameters.is_empty() {
            return refused("nothing is varied: name a parameter and its values".to_owned());
        }
        let mut known: Vec<&str> = Vec::new();
        for Parameter { key, domain, when } in &self.parameters {
            if known.contains(&key.as_str()) {
                return refused(format!("{key} is named twice"));
            }
            match domain {
                Domain::Values(values) if values.is_empty() => {
                    return refused(format!("{key} has no values"));
                }
                Domain::Values(values) => {
                    let mut rest = values.iter().enumerate();
                    if let Some((_, twice)) = rest.find(|(at, one)| values[..*at].contains(one)) {
                        return refused(format!("{key} has the value {twice} twice"));
                    }
                }
                Domain::Range { low, high, log, .. } => {
                    if !(low.is_finite() && high.is_finite() && low < high) {
                        return refused(format!(
                            "{key} should go from a number to a larger one, found {low} to {high}"
                        ));
                    }
                    if *log && *low <= 0.0 {
                        return refused(format!(
                            "{key} has ratios, and so should begin above 0, found {low}"
                        ));
                    }
                }
            }
            if let Some(parent) = when.keys().find(|parent| !known.contains(&parent.as_str())) {
                return refused(format!(
                    "{key} hangs on {parent}, which is no parameter that stands before it"
                ));
            }
            known.push(key);
        }
        for key in self.forbidden.iter().flat_map(BTreeMap::keys) {
            if !known.contains(&key.as_str()) {
                return refused(format!("what is forbidden names {key}, which is no parameter"));
            }
        }
        Ok(())
    }
}

/// Whether the point has one of the values of each key.
fn all_hold(wanted: &BTreeMap<String, Vec<Value>>, point: &Point) -> bool {
    wanted.iter().all(|(key, values)| point.get(key).is_some_and(|value| values.contains(value)))
}

/// A point as text: equal for equal points.
pub(crate) fn text_of(point: &Point) -> String {
    serde_json::to_string(point).expect("a point is plain data")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn values(key: &str, values: &[Value]) -> Parameter {
        Parameter {
            key: key.into(),
            domain: Domain::Values(values.to_vec()),
            when: BTreeMap::new(),
        }
    }

    fn range(low: f64, high: f64, log: bool, integer: bool, points: usize) -> Domain {
        Domain::Range { low, high, log, integer, points }
    }

    #[test]
    fn a_grid_goes_through_all_values_of_all_parameters() {
        let parameters =
            vec![values("a", &[json!(1), json!(2)]), values("b", &[json!("x"), json!("y")])];
        let grid = Space { parameters, forbidden: vec![] }.grid().unwrap();
        let texts: Vec<String> = grid.iter().map(text_of).collect();
        assert_eq!(
            texts,
            [
                r#"{"a":1,"b":"x"}"#,
                r#"{"a":1,"b":"y"}"#,
                r#"{"a":2,"b":"x"}"#,
                r#"{"a":2,"b":"y"}"#
            ]
        );
    }

    #[test]
    fn ranges_are_cut_by_differences_or_ratios() {
        assert_eq!(
            range(0.0, 1.0, false, false, 5).grid(),
            [0.0, 0.25, 0.5, 0.75, 1.0].map(Value::from)
        );
        assert_eq!(
            range(1e-4, 1e-2, true, false, 5).grid(),
            [1e-4, 3.16228e-4, 1e-3, 3.16228e-3, 1e-2].map(Value::from)
        );
        assert_eq!(range(16.0, 64.0, true, true, 3).grid(), [16, 32, 64].map(Value::from));
        assert_eq!(range(1.0, 4.0, false, true, 0).grid(), [1, 2, 3, 4].map(Value::from));
        // The middle of two decades is one; half a step beyond both ends the ends have their full part.
        assert_eq!(range(1e-4, 1e-2, true, false, 0).at(0.5), json!(1e-3));
        let dice = range(1.0, 6.0, false, true, 0);
        let thrown: Vec<Value> = (0..12).map(|at| dice.at((f64::from(at) + 0.5) / 12.0)).collect();
        assert_eq!(thrown, [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6].map(Value::from));
    }

    #[test]
    fn a_parameter_without_its_condition_is_left_out_and_its_points_are_one() {
        let mut size = values("size", &[json!(4), json!(8)]);
        size.when = BTreeMap::from([("kind".to_owned(), vec![json!("big")])]);
        let parameters = vec![values("kind", &[json!("big"), json!("small")]), size];
        let space = Space { parameters, forbidden: vec![] };
        space.validate().unwrap();
        let texts: Vec<String> = space.grid().unwrap().iter().map(text_of).collect();
        assert_eq!(
            texts,
            [r#"{"kind":"big","size":4}"#, r#"{"kind":"big","size":8}"#, r#"{"kind":"small"}"#]
        );
    }

    #[test]
    fn points_that_are_forbidden_do_not_exist() {
        let parameters =
            vec![values("a", &[json!(1), json!(2)]), values("b", &[json!(1), json!(2)])];
        let both = |a: i64, b: &[i64]| {
            let of = |values: &[i64]| values.iter().map(|&value| json!(value)).collect::<Vec<_>>();
            BTreeMap::from([("a".to_owned(), of(&[a])), ("b".to_owned(), of(b))])
        };
        let mut space = Space { parameters, forbidden: vec![both(1, &[1, 2]), both(2, &[1])] };
        assert_eq!(space.grid().unwrap().len(), 1);
        assert_eq!(space.at(&[0.0, 0.0]), None);
        space.forbidden.push(both(2, &[2]));
        assert!(space.grid().unwrap_err().to_string().contains("every point is forbidden"));
    }

    #[test]
    fn spaces_that_make_no_sense_are_refused_by_name() {
        let of = |parameters: Vec<Parameter>| Space { parameters, forbidden: vec![] }.validate();
        let ranged = |domain| vec![Parameter { key: "lr".into(), domain, when: BTreeMap::new() }];
        let mut child = values("b", &[json!(1)]);
        child.when = BTreeMap::from([("a".to_owned(), vec![json!(1)])]);
        for (space, words) in [
            (vec![], "nothing is varied"),
            (vec![values("a", &[])], "a has no values"),
            (vec![values("a", &[json!(1), json!(2), json!(1)])], "a has the value 1 twice"),
            (vec![values("a", &[json!(1)]), values("a", &[json!(1)])], "a is named twice"),
            (vec![child, values("a", &[json!(1)])], "b hangs on a"),
            (
                ranged(range(1.0, 1.0, false, false, 0)),
                "lr should go from a number to a larger one",
            ),
            (ranged(range(0.0, 1.0, true, false, 0)), "begin above 0"),
        ] {
            let problem = of(space).unwrap_err().to_string();
            assert!(problem.contains(words), "{problem}");
        }
    }

    /// What a sampler is told of a value has to bring that value back.
    #[test]
    fn a_value_comes_back_from_where_it_is() {
        let there_and_back = |domain: &Domain, value: Value| {
            let unit = domain.unit_of(&value).unwrap();
            assert_eq!(domain.at(unit), value, "{domain:?} at {unit}");
            let (from, to) = domain.part_of(unit);
            assert!(from <= unit && unit <= to, "{domain:?}: {unit} is not in {from} to {to}");
            if from < to {
                let inside = [0.01, 0.99].map(|share| domain.at(from + share * (to - from)));
                assert_eq!(inside, [value.clone(), value], "{domain:?}");
            }
        };
        let list = Domain::Values(vec![json!(64), json!(0.5), json!("a"), json!([8, 5])]);
        list.grid().into_iter().for_each(|value| there_and_back(&list, value));
        for (low, high) in [(1, 9), (16, 4096), (1000, 1003)] {
            for log in [false, true] {
                let domain = range(f64::from(low), f64::from(high), log, true, 0);
                (low..=high).for_each(|value| there_and_back(&domain, json!(value)));
            }
        }
        let rates = range(1e-5, 1e-1, true, false, 5);
        [1e-5, 3e-3, 0.0123456].into_iter().for_each(|value| there_and_back(&rates, json!(value)));
    }

    /// Six digits are none of what differs between a million and ten more.
    #[test]
    fn numbers_of_a_narrow_range_can_be_told_apart_and_stay_in_it() {
        let narrow = range(1e6, 1e6 + 10.0, false, false, 5);
        assert_eq!(narrow.grid(), [0.0, 2.5, 5.0, 7.5, 10.0].map(|more| json!(1e6 + more)));
        let uneven = range(0.123_456_78, 0.2, false, false, 5);
        assert!(uneven.at(0.0).as_f64().unwrap() >= 0.123_456_78);
    }

    /// Of a thousand million seeds no list is made.
    #[test]
    fn a_range_of_more_whole_numbers_than_can_be_counted_has_no_grid() {
        let seeds = Parameter {
            key: "seed".into(),
            domain: range(0.0, 1e9, false, true, 0),
            when: BTreeMap::new(),
        };
        let space = Space { parameters: vec![seeds], forbidden: vec![] };
        assert!(space.grid().unwrap_err().to_string().contains("more than 100000 points"));
        assert_eq!(space.all(), None);
    }

    #[test]
    fn units_and_values_go_both_ways() {
        let domain = range(1e-4, 1e-2, true, false, 0);
        assert!((domain.unit_of(&json!(1e-3)).unwrap() - 0.5).abs() < 1e-9);
        let list = Domain::Values(vec![json!("a"), json!("b")]);
        assert_eq!(list.unit_of(&json!("b")), Some(0.75));
        assert_eq!(list.at(0.75), json!("b"));
        assert_eq!(list.unit_of(&json!("c")), None);
    }
}
