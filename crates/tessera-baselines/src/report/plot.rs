//! Where things stand in a picture: scales, their marks, and labels that do not lie on each other.

/// A range of values on a range of pixels, by their logarithm or as they are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
    logarithmic: bool,
}

impl Scale {
    /// Values with some room around them.
    pub(super) fn new(values: &[f64], (from, to): (f64, f64), logarithmic: bool) -> Self {
        let turned = values.iter().map(|value| if logarithmic { value.log10() } else { *value });
        let (low, high) = turned
            .filter(|value| value.is_finite())
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), at| {
                (low.min(at), high.max(at))
            });
        let (low, high) = if low <= high { (low, high) } else { (0.0, 1.0) };
        let room = if high > low { 0.05 * (high - low) } else { 0.5 };
        Self { low: low - room, high: high + room, from, to, logarithmic }
    }

    /// The pixel of a value.
    pub(super) fn place(&self, value: f64) -> f64 {
        let value = if self.logarithmic { value.log10() } else { value };
        self.from + (value - self.low) / (self.high - self.low) * (self.to - self.from)
    }

    /// Values that get a mark.
    pub(super) fn marks(&self) -> Vec<f64> {
        if self.logarithmic { self.logarithmic_marks() } else { self.even_marks() }
    }

    fn logarithmic_marks(&self) -> Vec<f64> {
        let steps: &[f64] = match self.high - self.low {
            span if span < 1.0 => &[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0],
            span if span < 2.6 => &[1.0, 2.0, 5.0],
            span if span < 4.0 => &[1.0, 3.0],
            _ => &[1.0],
        };
        let decades = self.low.floor() as i32..=self.high.ceil() as i32;
        let all =
            decades.flat_map(|decade| steps.iter().map(move |step| step * 10f64.powi(decade)));
        all.filter(|mark| (self.low..=self.high).contains(&mark.log10())).collect()
    }

    fn even_marks(&self) -> Vec<f64> {
        let rough = (self.high - self.low) / 6.0;
        let decade = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|step| step * decade);
        let step = step.into_iter().find(|step| *step >= rough).unwrap_or(rough);
        let (first, last) = ((self.low / step).ceil() as i64, (self.high / step).floor() as i64);
        (first..=last).map(|at| at as f64 * step).collect()
    }
}

/// Moves places apart until each is `gap` from the next, as little as that needs, within `low` to `high`
/// where there is room for all. The order stays.
pub(super) fn spread(places: &[f64], gap: f64, (low, high): (f64, f64)) -> Vec<f64> {
    let mut order: Vec<usize> = (0..places.len()).collect();
    order.sort_by(|a, b| places[*a].total_cmp(&places[*b]));
    // Groups of labels that touch, each (sum of the wished begins, number): a group stands where its mean wants.
    let mut groups: Vec<(f64, usize)> = Vec::new();
    let begin = |(sum, number): (f64, usize)| {
        let room = (high - gap * (number - 1) as f64).max(low);
        (sum / number as f64).clamp(low, room)
    };
    for at in &order {
        let mut group = (places[*at], 1);
        while let Some(last) = groups.pop() {
            if begin(last) + gap * last.1 as f64 <= begin(group) {
                groups.push(last);
                break;
            }
            let later = gap * last.1 as f64 * group.1 as f64;
            group = (last.0 + group.0 - later, last.1 + group.1);
        }
        groups.push(group);
    }
    let mut spread = vec![0.0; places.len()];
    let mut next = order.into_iter();
    for group in groups {
        for (step, at) in (0..group.1).zip(next.by_ref()) {
            spread[at] = begin(group) + gap * step as f64;
        }
    }
    spread
}

/// A mark in few letters.
pub(super) fn short(value: f64) -> String {
    let rounded = (value * 1e9).round() / 1e9;
    if rounded.abs() >= 1e6 {
        format!("{}M", rounded / 1e6)
    } else if rounded.abs() >= 1e4 {
        format!("{}k", rounded / 1e3)
    } else {
        rounded.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_moved_apart_and_no_further() {
        assert_eq!(spread(&[10.0, 50.0], 10.0, (0.0, 100.0)), [10.0, 50.0]);
        // 20 and 22 need 10 between them: 16 and 26, as far for one as for the other.
        assert_eq!(spread(&[22.0, 20.0], 10.0, (0.0, 100.0)), [26.0, 16.0]);
        assert_eq!(spread(&[99.0, 98.0], 10.0, (0.0, 100.0)), [100.0, 90.0]);
        let three = spread(&[0.0, 1.0, 2.0], 10.0, (0.0, 100.0));
        assert_eq!(three, [0.0, 10.0, 20.0]);
    }

    #[test]
    fn scales_have_round_marks() {
        let scale = Scale::new(&[0.1, 10.0], (0.0, 100.0), true);
        assert_eq!(scale.marks(), [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0]);
        assert!((scale.place(1.0) - 50.0).abs() < 1e-9);
        let scale = Scale::new(&[20.0, 40.0], (100.0, 0.0), false);
        assert_eq!(scale.marks(), [20.0, 25.0, 30.0, 35.0, 40.0]);
        assert!(scale.place(20.0) > scale.place(40.0));
        let one = Scale::new(&[3.0], (0.0, 1.0), false);
        assert!(one.marks().contains(&3.0));
        assert!(!Scale::new(&[], (0.0, 1.0), false).marks().is_empty());
    }

    #[test]
    fn marks_are_short() {
        let texts = [0.30000000000000004, 20.0, 5000.0, 20_000.0, 1.5e6].map(short);
        assert_eq!(texts, ["0.3", "20", "5000", "20k", "1.5M"]);
    }
}
