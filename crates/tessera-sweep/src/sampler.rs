//! Which point a new trial gets.
//!
//! Every choice is a function of the sweep and of the trials before it, so a sweep that was killed goes on
//! as it would have.

use std::collections::BTreeSet;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use tpe::TpeOptimizer;

use crate::error::SweepError;
use crate::space::{Domain, Point, Space, text_of};
use crate::spec::{Sampler, Search, Strategy};

/// Draws without a new point after which a space counts as used up.
const TRIES: usize = 10_000;
/// Trials that are drawn evenly before estimates of the good ones are worth something.
const EVENLY: usize = 10;
/// Share of the trials that count as good ones (Bergstra et al. 2011 take 0.15).
const GOOD: f64 = 0.15;

/// A point that was tried, and its cost where that is known.
#[derive(Debug, Clone, PartialEq)]
pub struct Tried {
    /// The point.
    pub point: Point,
    /// Small is good.
    pub cost: Option<f64>,
}

/// What new points are taken from.
#[derive(Debug)]
pub struct Points<'a> {
    space: &'a Space,
    sampler: Sampler,
    seed: u64,
    /// Points in order, where there are only so many.
    listed: Option<Vec<Point>>,
}

impl<'a> Points<'a> {
    /// Those of a sweep.
    ///
    /// # Errors
    ///
    /// [`SweepError::Space`] if a grid has too many points, or none.
    pub fn new(space: &'a Space, search: &Search) -> Result<Self, SweepError> {
        let seed = search.seed;
        let sampler = match search.strategy {
            Strategy::Grid => Sampler::Grid,
            Strategy::Random => Sampler::Random,
            Strategy::Sobol => Sampler::Sobol,
            Strategy::Tpe => Sampler::Tpe,
            Strategy::Halving | Strategy::Asha => search.sampler,
        };
        let listed = match sampler {
            Sampler::Grid if search.strategy == Strategy::Grid => Some(space.grid()?),
            Sampler::Grid => Some(shuffled(space.grid()?, seed)),
            Sampler::Random => space.all().map(|points| shuffled(points, seed)),
            Sampler::Sobol | Sampler::Tpe => None,
        };
        Ok(Self { space, sampler, seed, listed })
    }

    /// How many there are, where that is known.
    pub fn num_listed(&self) -> Option<usize> {
        self.listed.as_ref().map(Vec::len)
    }

    /// The next point after those that were tried; `None` where there is no other.
    pub fn next(&self, tried: &[Tried]) -> Option<Point> {
        if let Some(listed) = &self.listed {
            return listed.get(tried.len()).cloned();
        }
        let taken: BTreeSet<String> = tried.iter().map(|tried| text_of(&tried.point)).collect();
        let is_new = |point: &Point| !taken.contains(&text_of(point));
        let num = self.space.parameters.len();
        let draws = 0..TRIES + taken.len();
        match self.sampler {
            Sampler::Sobol => {
                draws.filter_map(|draw| self.space.at(&sobol(draw, num, self.seed))).find(is_new)
            }
            Sampler::Tpe if tried.iter().filter(|tried| tried.cost.is_some()).count() >= EVENLY => {
                let mut random = ChaCha8Rng::seed_from_u64(self.seed);
                random.set_stream(1 + tried.len() as u64);
                let mut estimators = estimators(self.space, tried);
                draws
                    .filter_map(|_| {
                        let mut units = Vec::with_capacity(num);
                        for estimator in &mut estimators {
                            units.push(estimator.ask(&mut random).unwrap_or(0.5));
                        }
                        self.space.at(&units)
                    })
                    .find(is_new)
            }
            Sampler::Grid | Sampler::Random | Sampler::Tpe => draws
                .filter_map(|draw| {
                    let mut random = ChaCha8Rng::seed_from_u64(self.seed);
                    random.set_stream(draw as u64);
                    let units: Vec<f64> = (0..num).map(|_| unit(&mut random)).collect();
                    self.space.at(&units)
                })
                .find(is_new),
        }
    }
}

/// A number from 0 to below 1.
pub(crate) fn unit(random: &mut ChaCha8Rng) -> f64 {
    (random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}

/// The units of a point of the sequence. Dimensions beyond those that the library has come from the
/// same ones under another seed (Burley 2020, section 4: padding).
fn sobol(index: usize, num: usize, seed: u64) -> Vec<f64> {
    let dimensions = sobol_burley::NUM_DIMENSIONS as usize;
    let of = |dimension: usize| {
        let seed = (seed ^ (seed >> 32)) as u32 ^ (dimension / dimensions) as u32;
        f64::from(sobol_burley::sample(index as u32, (dimension % dimensions) as u32, seed))
    };
    (0..num).map(of).collect()
}

fn shuffled(mut points: Vec<Point>, seed: u64) -> Vec<Point> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    for at in (1..points.len()).rev() {
        let other = (unit(&mut random) * (at + 1) as f64) as usize;
        points.swap(at, other);
    }
    points
}

/// One estimator a parameter, over its units, that knows the costs of all trials where it was active.
fn estimators(space: &Space, tried: &[Tried]) -> Vec<TpeOptimizer> {
    let mut estimators = Vec::new();
    for parameter in &space.parameters {
        let (estimator, range) = match &parameter.domain {
            Domain::Values(values) => {
                (tpe::histogram_estimator(), tpe::categorical_range(values.len()))
            }
            Domain::Range { .. } => (tpe::parzen_estimator(), tpe::range(0.0, 1.0)),
        };
        let range = range.expect("a parameter has a value");
        let mut estimator = tpe::TpeOptimizerBuilder::new()
            .gamma(GOOD)
            .build(estimator, range)
            .expect("the options are constant");
        for Tried { point, cost } in tried {
            let unit = point.get(&parameter.key).and_then(|value| parameter.domain.unit_of(value));
            if let (Some(unit), Some(cost)) = (unit, cost) {
                let _ = estimator.tell(unit, *cost); // a cost that is no number says nothing
            }
        }
        estimators.push(estimator);
    }
    estimators
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use crate::space::Parameter;

    fn space(domains: Vec<Domain>) -> Space {
        let named =
            |(at, domain)| Parameter { key: format!("p{at}"), domain, when: BTreeMap::new() };
        Space {
            parameters: domains.into_iter().enumerate().map(named).collect(),
            forbidden: vec![],
        }
    }

    fn line(low: f64, high: f64) -> Domain {
        Domain::Range { low, high, log: false, integer: false, points: 5 }
    }

    fn search(strategy: Strategy, sampler: Sampler, seed: u64) -> Search {
        Search { strategy, sampler, seed, ..Search::default() }
    }

    fn first(space: &Space, search: &Search, num: usize, cost: fn(&Point) -> f64) -> Vec<Point> {
        let points = Points::new(space, search).unwrap();
        let mut tried: Vec<Tried> = Vec::new();
        while let Some(point) = points.next(&tried).filter(|_| tried.len() < num) {
            let cost = Some(cost(&point));
            tried.push(Tried { point, cost });
        }
        tried.into_iter().map(|tried| tried.point).collect()
    }

    #[test]
    fn a_finite_space_is_gone_through_once_in_the_order_of_the_seed() {
        let values = |num: i64| Domain::Values((0..num).map(|value| json!(value)).collect());
        let space = space(vec![values(3), values(4)]);
        let all =
            |strategy, sampler, seed| first(&space, &search(strategy, sampler, seed), 99, |_| 0.0);
        let grid = all(Strategy::Grid, Sampler::Random, 1);
        assert_eq!(grid, space.grid().unwrap());
        let random = all(Strategy::Random, Sampler::Random, 1);
        assert_ne!(random, grid);
        assert_ne!(random, all(Strategy::Random, Sampler::Random, 2));
        assert_eq!(random, all(Strategy::Asha, Sampler::Grid, 1));
        let sorted = |points: &[Point]| points.iter().map(text_of).collect::<BTreeSet<_>>();
        assert_eq!((random.len(), sorted(&random)), (12, sorted(&grid)));
        // A Sobol sequence over it leaves out what has come, too.
        let sobol = all(Strategy::Sobol, Sampler::Random, 1);
        assert_eq!((sobol.len(), sorted(&sobol)), (12, sorted(&grid)));
    }

    #[test]
    fn points_of_a_sobol_sequence_have_one_in_each_part() {
        let space = space(vec![line(0.0, 1.0), line(0.0, 1.0)]);
        let points = first(&space, &search(Strategy::Sobol, Sampler::Random, 7), 64, |_| 0.0);
        // A (0, 6, 2)-net in base 2: each of 64 boxes of 1/8 by 1/8, or 1/4 by 1/16, holds one point.
        for (across, up) in [(8.0, 8.0), (4.0, 16.0)] {
            let boxes: BTreeSet<(i64, i64)> = points
                .iter()
                .map(|point| {
                    let of = |key: &str, num: f64| (point[key].as_f64().unwrap() * num) as i64;
                    (of("p0", across), of("p1", up))
                })
                .collect();
            assert_eq!(boxes.len(), 64);
        }
    }

    #[test]
    fn estimators_find_the_bottom_of_a_bowl_that_drawing_evenly_misses() {
        let space =
            space(vec![line(-4.0, 4.0), Domain::Values(vec![json!("a"), json!("b"), json!("c")])]);
        let cost = |point: &Point| {
            let away = point["p0"].as_f64().unwrap() - 1.0;
            away * away + if point["p1"] == "b" { 0.0 } else { 1.0 }
        };
        let mean_of_last = |strategy| {
            let points = first(&space, &search(strategy, Sampler::Random, 3), 60, cost);
            points[40..].iter().map(cost).sum::<f64>() / 20.0
        };
        let (estimated, even) = (mean_of_last(Strategy::Tpe), mean_of_last(Strategy::Random));
        // Evenly: (8²/12 + 1²) + 2/3 = 7.
        assert!(estimated < 0.3 * even, "{estimated} {even}");
    }
}
