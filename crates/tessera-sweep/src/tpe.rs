//! Tree-structured Parzen estimators: values that are common among good trials and rare among the others.
//!
//! Bergstra et al. 2011, *Algorithms for hyper-parameter optimization*, section 4; the parts of it are
//! compared in Watanabe 2023, <https://arxiv.org/abs/2304.11127>. The trials are split at a quantile of
//! the cost. For each parameter by itself, `l` is a density of the values of the good trials and `g` one
//! of the others', both with the even density as one more observation. Of some values drawn from `l`, the
//! one with the largest `l / g` is taken, which is the one of the largest expected improvement.
//!
//! * A list has counts, each begun at 1: its order says nothing.
//! * Numbers have a normal density around each value, cut off at the ends of the range, as wide as the
//!   larger distance to its neighbors. All is measured in units of [`Domain::at`], so by ratios where the
//!   range is one of ratios; a whole number has all that lies in its part.
//! * A parameter is estimated from the trials where it was active, and drawn where it is.
//! * A failed trial is worse than any that did not fail. One that is on its way counts among the others,
//!   so that trials that run side by side are not alike (the "constant liar" of Ginsbourger et al. 2010).
//! * Where trials stop at rungs, one that came further goes before one that did not.
//!
//! Nothing is known here of how parameters act together.

use rand_chacha::ChaCha8Rng;

use crate::sampler::{Tried, unit};
use crate::space::{Domain, Parameter, Point, Space};

/// Share of the trials that are good ones (Bergstra et al. 2011).
const GOOD: f64 = 0.15;
/// Values that are drawn from the density of the good ones, of which one is taken.
pub(crate) const CANDIDATES: usize = 24;
/// No normal density is narrower than this part of the range.
const NARROWEST: f64 = 0.01;

/// What the good trials and the others say of each parameter.
#[derive(Debug)]
pub(crate) struct Estimators<'a> {
    space: &'a Space,
    /// The density of the good ones and of the others, one pair a parameter.
    densities: Vec<[Density; 2]>,
}

impl<'a> Estimators<'a> {
    pub(crate) fn new(space: &'a Space, tried: &[Tried]) -> Self {
        let parts = split(tried);
        let of = |parameter: &Parameter| {
            let values = |part: &[&Tried]| -> Vec<f64> {
                let values = part.iter().filter_map(|tried| tried.point.get(&parameter.key));
                values.filter_map(|value| parameter.domain.unit_of(value)).collect()
            };
            parts.each_ref().map(|part| Density::new(&parameter.domain, &values(part)))
        };
        Self { space, densities: space.parameters.iter().map(of).collect() }
    }

    /// A point, each of whose values is the best of so many; `None` where it is forbidden.
    pub(crate) fn point(&self, random: &mut ChaCha8Rng, candidates: usize) -> Option<Point> {
        self.space.point(|at| {
            let domain = &self.space.parameters[at].domain;
            let [good, others] = &self.densities[at];
            let mut best = (f64::NEG_INFINITY, 0.0);
            for _ in 0..candidates {
                let drawn = good.draw(random);
                let part = domain.part_of(drawn);
                let ratio = good.within(part) / others.within(part);
                if ratio > best.0 {
                    best = (ratio, drawn);
                }
            }
            domain.at(best.1)
        })
    }
}

/// The good trials, and the others.
fn split(tried: &[Tried]) -> [Vec<&Tried>; 2] {
    let (mut ended, running): (Vec<&Tried>, Vec<&Tried>) =
        tried.iter().partition(|tried| tried.standing.rank().is_some());
    let rank = |tried: &Tried| tried.standing.rank().expect("it has come to a rung");
    ended.sort_by(|a, b| rank(a).compare(&rank(b))); // stable: of equals the earlier one goes first
    let num_whole = ended.iter().filter(|tried| rank(tried).cost.is_finite()).count();
    let wanted = ((GOOD * ended.len() as f64).ceil() as usize).min(num_whole);
    let mut num = wanted;
    if let Some(last) = wanted.checked_sub(1).map(|last| rank(ended[last])) {
        // Equal ones stay together, on the side that leaves the number nearer to what it should be.
        let below = ended.iter().filter(|tried| rank(tried).compare(&last).is_lt()).count();
        let upto = ended.iter().filter(|tried| rank(tried).compare(&last).is_le()).count();
        num = if below > 0 && wanted - below <= upto - wanted { below } else { upto };
        if num == ended.len() {
            num = 0; // all are equal: none is good
        }
    }
    let mut others = ended.split_off(num);
    others.extend(running);
    [ended, others]
}

/// A density over the units of a parameter, from 0 to 1.
#[derive(Debug)]
enum Density {
    /// How probable each value of a list is.
    List(Vec<f64>),
    /// Normal densities of equal weight.
    Line(Vec<Normal>),
}

impl Density {
    /// From the units where something was observed, and the even density once more.
    fn new(domain: &Domain, units: &[f64]) -> Self {
        if let Domain::Values(values) = domain {
            let mut counts = vec![1.0; values.len()];
            for unit in units {
                counts[index(*unit, values.len())] += 1.0;
            }
            let all: f64 = counts.iter().sum();
            return Self::List(counts.into_iter().map(|count| count / all).collect());
        }
        // The even density stands in the middle, and is as wide as the range.
        let mut means: Vec<(f64, bool)> = units.iter().map(|unit| (*unit, false)).collect();
        means.push((0.5, true));
        means.sort_by(|a, b| a.0.total_cmp(&b.0));
        let narrowest = (1.0 / (1 + means.len()) as f64).max(NARROWEST);
        let gap = |from: Option<usize>, to: usize| {
            let from = from.and_then(|from| means.get(from));
            from.zip(means.get(to)).map_or(0.0, |(from, to)| to.0 - from.0)
        };
        let normal = |at: usize| {
            let (mean, is_even) = means[at];
            let width = gap(at.checked_sub(1), at).max(gap(Some(at), at + 1));
            Normal::new(mean, if is_even { 1.0 } else { width.clamp(narrowest, 1.0) })
        };
        Self::Line((0..means.len()).map(normal).collect())
    }

    /// A unit, from 0 to below 1.
    fn draw(&self, random: &mut ChaCha8Rng) -> f64 {
        match self {
            Self::List(shares) => {
                let mut rest = unit(random);
                let found = shares.iter().position(|share| {
                    rest -= share;
                    rest < 0.0
                });
                middle(found.unwrap_or(shares.len() - 1), shares.len())
            }
            Self::Line(normals) => normals[index(unit(random), normals.len())].draw(random),
        }
    }

    /// How much lies between two units; where they are one, the density there.
    fn within(&self, (from, to): (f64, f64)) -> f64 {
        match self {
            Self::List(shares) => shares[index((from + to) / 2.0, shares.len())],
            Self::Line(normals) => {
                let all: f64 = normals.iter().map(|normal| normal.within(from, to)).sum();
                all / normals.len() as f64
            }
        }
    }
}

/// Which of so many equal parts a unit is in.
fn index(unit: f64, num: usize) -> usize {
    ((unit * num as f64) as usize).min(num - 1)
}

/// The middle of one of so many equal parts.
fn middle(at: usize, num: usize) -> f64 {
    (at as f64 + 0.5) / num as f64
}

/// A normal density, cut off at 0 and 1.
#[derive(Debug)]
struct Normal {
    mean: f64,
    width: f64,
    /// How much of it lies between 0 and 1.
    inside: f64,
}

impl Normal {
    fn new(mean: f64, width: f64) -> Self {
        let mut normal = Self { mean, width, inside: 1.0 };
        normal.inside = normal.below(1.0) - normal.below(0.0);
        normal
    }

    /// How much of the whole one lies below a unit.
    fn below(&self, unit: f64) -> f64 {
        let away = (unit - self.mean) / (self.width * std::f64::consts::SQRT_2);
        0.5 * libm::erfc(-away)
    }

    fn within(&self, from: f64, to: f64) -> f64 {
        if from < to {
            return (self.below(to) - self.below(from)) / self.inside;
        }
        let away = (from - self.mean) / self.width;
        let height = 1.0 / (self.width * std::f64::consts::TAU.sqrt());
        height * (-0.5 * away * away).exp() / self.inside
    }

    /// A unit, from 0 to below 1: drawn again until it is there, of which the chance is a third at least.
    fn draw(&self, random: &mut ChaCha8Rng) -> f64 {
        loop {
            // Box and Muller 1958; the logarithm is of a number above 0.
            let radius = (-2.0 * (1.0 - unit(random)).ln()).sqrt();
            let angle = std::f64::consts::TAU * unit(random);
            let drawn = self.mean + self.width * radius * angle.cos();
            if (0.0..1.0).contains(&drawn) {
                return drawn;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::rand_core::SeedableRng;
    use serde_json::json;

    use super::*;
    use crate::schedule::Standing;

    const FAILED: f64 = f64::INFINITY;

    /// The numbers of the good trials and of the others, of trials with these costs at their rungs.
    fn parts(costs: &[&[f64]]) -> [Vec<usize>; 2] {
        let of = |(at, costs): (usize, &&[f64])| {
            let point = Point::from([("at".to_owned(), json!(at))]);
            let decided = costs.len().max(1);
            Tried { point, standing: Standing { costs: costs.to_vec(), decided } }
        };
        let tried: Vec<Tried> = costs.iter().enumerate().map(of).collect();
        split(&tried).map(|part| {
            part.into_iter().map(|tried| tried.point["at"].as_u64().unwrap() as usize).collect()
        })
    }

    /// 15 % of seven, and so two.
    #[test]
    fn the_good_ones_are_those_of_the_lowest_cost_that_have_come_furthest() {
        let told = parts(&[&[3.0], &[1.0], &[4.0], &[2.0], &[5.0], &[6.0], &[7.0]]);
        assert_eq!(told, [vec![1, 3], vec![0, 2, 4, 5, 6]]);
        let told = parts(&[&[3.0], &[1.0], &[4.0, 9.0], &[2.0], &[5.0, 8.0], &[6.0], &[7.0]]);
        assert_eq!(told[0], [4, 2]);
    }

    #[test]
    fn trials_that_failed_or_are_on_their_way_are_others() {
        // Nine have ended, of which two should be good; one is.
        let mut costs: Vec<&[f64]> = vec![&[FAILED]; 8];
        costs.extend([&[][..], &[7.0]]);
        assert_eq!(parts(&costs), [vec![9], vec![0, 1, 2, 3, 4, 5, 6, 7, 8]]);
        // Failed later, after the best start of all.
        assert_eq!(parts(&[&[0.0, FAILED], &[2.0], &[1.0]]), [vec![2], vec![1, 0]]);
        assert_eq!(parts(&[&[FAILED], &[FAILED]]), [vec![], vec![0, 1]]);
    }

    #[test]
    fn equal_costs_stay_together() {
        let good = |costs: &[f64]| {
            let costs: Vec<&[f64]> = costs.chunks(1).collect();
            let [good, _] = parts(&costs);
            good
        };
        // Two of ten are wanted: three that are equal are nearer than none, one nearer than ten.
        assert_eq!(good(&[1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0]), [0, 1, 2]);
        assert_eq!(good(&[1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0]), [0]);
        // Where all are equal, nothing is known; where the others failed, something is.
        assert!(good(&[1.0; 4]).is_empty());
        assert_eq!(good(&[1.0, FAILED, 1.0]), [0, 2]);
    }

    /// Of three values the first twice and the last once, each begun at one: 3, 1 and 2 of 6.
    #[test]
    fn a_list_has_counts() {
        let list = Domain::Values(vec![json!("a"), json!("b"), json!("c")]);
        let units = ["a", "c", "a"].map(|value| list.unit_of(&json!(value)).unwrap());
        let Density::List(shares) = Density::new(&list, &units) else { panic!("a list") };
        assert_eq!(shares, [3.0 / 6.0, 1.0 / 6.0, 2.0 / 6.0]);
    }

    /// Values at 0.2, 0.3 and 0.9, and the even density at 0.5. The widths are the larger distance to a
    /// neighbor, 0.1, 0.2 and 0.4; the narrowest is 1/5.
    #[test]
    fn numbers_have_normal_densities_as_wide_as_the_distance_to_their_neighbors() {
        let line = |integer| Domain::Range { low: 1.0, high: 9.0, log: true, integer, points: 5 };
        let density = Density::new(&line(false), &[0.9, 0.2, 0.3]);
        let Density::Line(normals) = &density else { panic!("a line") };
        let found: Vec<(f64, f64)> = normals.iter().map(|one| (one.mean, one.width)).collect();
        let expected = [(0.2, 0.2), (0.3, 0.2), (0.5, 1.0), (0.9, 0.4)];
        let same =
            |(a, b): (&(f64, f64), (f64, f64))| (a.0 - b.0).abs() + (a.1 - b.1).abs() < 1e-12;
        assert!(found.iter().zip(expected).all(same), "{found:?}");
        // A half of the one at 0.2 is above it, and of that 0.5 - 0.0000316 (four widths) ends at 1; one
        // width below is where it is cut off: 0.3413.
        assert!((normals[0].inside - (0.34134 + 0.49997)).abs() < 1e-4);
        // All of it is within the range: by its height at many places, and by the parts of whole numbers.
        let heights: f64 = (0..1000)
            .map(|at| (f64::from(at) + 0.5) / 1000.0)
            .map(|at| density.within((at, at)))
            .sum();
        assert!((heights / 1000.0 - 1.0).abs() < 1e-5, "{heights}");
        let whole = line(true);
        let parts = (1..=9).map(|number| whole.part_of(whole.unit_of(&json!(number)).unwrap()));
        let all: f64 = parts.map(|part| density.within(part)).sum();
        assert!((all - 1.0).abs() < 1e-9, "{all}");
    }

    /// What is drawn is distributed as the density says: in each tenth, four standard deviations at most away.
    #[test]
    fn draws_follow_the_density() {
        let line = Domain::Range { low: 0.0, high: 1.0, log: false, integer: false, points: 5 };
        let density = Density::new(&line, &[0.05, 0.1, 0.8]);
        let mut random = ChaCha8Rng::seed_from_u64(3);
        let mut counts = [0.0; 10];
        (0..10_000).for_each(|_| counts[index(density.draw(&mut random), 10)] += 1.0);
        for (tenth, count) in counts.into_iter().enumerate() {
            let from = tenth as f64 / 10.0;
            let share = density.within((from, from + 0.1));
            let away = 4.0 * (10_000.0 * share * (1.0 - share)).sqrt();
            assert!((count - 10_000.0 * share).abs() < away, "{tenth}: {count} {share}");
        }
    }
}
