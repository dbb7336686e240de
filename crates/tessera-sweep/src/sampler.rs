//! Which point a new trial gets.
//!
//! Every choice is a function of the sweep and of the trials before it, so a sweep that was killed goes on
//! as it would have.

use std::collections::BTreeSet;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::error::SweepError;
use crate::schedule::Standing;
use crate::space::{Point, Space, text_of};
use crate::spec::{Sampler, Search, Strategy};
use crate::tpe::{CANDIDATES, Estimators};

/// Draws without a new point after which a space counts as used up.
const TRIES: usize = 10_000;
/// Trials that are drawn evenly before estimates of the good ones are worth something.
const EVENLY: usize = 10;
/// Points that estimators are asked for before one is drawn evenly, because each was tried or forbidden.
const ROUNDS: u32 = 100;

/// A point that was tried, and how its trial stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Tried {
    /// The point.
    pub point: Point,
    /// How far its trial has come, and at what cost.
    pub standing: Standing,
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
            Sampler::Tpe if num_ended(tried) >= EVENLY => {
                self.estimated(tried, is_new).or_else(|| self.even(draws, is_new))
            }
            Sampler::Grid | Sampler::Random | Sampler::Tpe => self.even(draws, is_new),
        }
    }

    /// The first of the points drawn evenly that is new.
    fn even(
        &self,
        mut draws: impl Iterator<Item = usize>,
        is_new: impl Fn(&Point) -> bool,
    ) -> Option<Point> {
        draws.find_map(|draw| {
            let mut random = ChaCha8Rng::seed_from_u64(self.seed);
            random.set_stream(draw as u64);
            let units: Vec<f64> = self.space.parameters.iter().map(|_| unit(&mut random)).collect();
            self.space.at(&units).filter(&is_new)
        })
    }

    /// A point that is likely to be good, and new.
    fn estimated(&self, tried: &[Tried], is_new: impl Fn(&Point) -> bool) -> Option<Point> {
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        random.set_stream(u64::MAX - tried.len() as u64); // none that points are drawn evenly from
        let estimators = Estimators::new(self.space, tried);
        (0..ROUNDS).find_map(|round| {
            // Where the best point was tried, the choice is less and less strict.
            let candidates = CANDIDATES.checked_shr(round).unwrap_or(0).max(1);
            estimators.point(&mut random, candidates).filter(&is_new)
        })
    }
}

/// Trials that have come to a rung, or have failed.
fn num_ended(tried: &[Tried]) -> usize {
    tried.iter().filter(|tried| !tried.standing.costs.is_empty()).count()
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use super::*;
    use crate::space::{Domain, Parameter};

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

    fn first(
        space: &Space,
        search: &Search,
        num: usize,
        cost: impl Fn(&Point) -> f64,
    ) -> Vec<Point> {
        let points = Points::new(space, search).unwrap();
        let mut tried: Vec<Tried> = Vec::new();
        while let Some(point) = points.next(&tried).filter(|_| tried.len() < num) {
            let costs = vec![cost(&point)];
            tried.push(Tried { point, standing: Standing { costs, decided: 1 } });
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
        // A Sobol sequence over it, and estimators, leave out what has come, too.
        for strategy in [Strategy::Sobol, Strategy::Tpe] {
            let drawn = all(strategy, Sampler::Random, 1);
            assert_eq!((drawn.len(), sorted(&drawn)), (12, sorted(&grid)));
        }
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

    /// In how many of 20 seeds it holds of the points after the first 20 of 40, with TPE and evenly drawn.
    fn seeds(
        space: &Space,
        cost: impl Fn(&Point) -> f64,
        holds: impl Fn(&[Point]) -> bool,
    ) -> [usize; 2] {
        [Strategy::Tpe, Strategy::Random].map(|strategy| {
            let late = |seed| first(space, &search(strategy, Sampler::Random, seed), 40, &cost);
            (0..20).filter(|seed| holds(&late(*seed)[20..])).count()
        })
    }

    /// One value of five is good, whatever it is and wherever it stands; a number beside it makes noise.
    #[test]
    fn estimators_find_the_best_of_five_in_a_list() {
        let noise = |point: &Point| 0.5 * point["p0"].as_f64().unwrap();
        let most = |points: &[Point], best: &Value| {
            points.iter().filter(|point| point["p1"] == *best).count() > points.len() / 2
        };
        let words = ["a", "b", "c", "d", "e"].map(Value::from).to_vec();
        let space_of = |values| space(vec![line(0.0, 1.0), Domain::Values(values)]);
        let found = seeds(
            &space_of(words),
            |point| noise(point) + f64::from(u8::from(point["p1"] != "b")),
            |points| most(points, &json!("b")),
        );
        assert!(found[0] >= 16 && found[1] == 0, "{found:?} of 20");
        let rates = [3e-2, 1e-9, 2e-9, 3e-9, 4e-9].map(Value::from).to_vec();
        let found = seeds(
            &space_of(rates),
            |point| noise(point) - 10.0 * point["p1"].as_f64().unwrap(),
            |points| most(points, &json!(3e-2)),
        );
        assert!(found[0] >= 16 && found[1] == 0, "{found:?} of 20");
    }

    /// The best is 64, of 2 to 4096; half of the draws by ratios are 2.75 doublings or more away from it.
    #[test]
    fn estimators_draw_of_whole_numbers_by_ratios_what_they_have_learned() {
        let away = |point: &Point| (point["p0"].as_f64().unwrap() / 64.0).log2().abs();
        let codes = Domain::Range { low: 2.0, high: 4096.0, log: true, integer: true, points: 5 };
        let found = seeds(&space(vec![codes]), away, |points| {
            points.iter().filter(|point| away(point) < 1.0).count() > points.len() / 2
        });
        assert!(found[0] >= 16 && found[1] <= 2, "{found:?} of 20");
    }

    #[test]
    fn estimators_leave_what_fails() {
        let words = ["a", "b", "c", "d", "e"].map(Value::from).to_vec();
        let cost = |point: &Point| if point["p1"] == "b" { f64::INFINITY } else { 1.0 };
        let found = seeds(&space(vec![line(0.0, 1.0), Domain::Values(words)]), cost, |points| {
            points.iter().filter(|point| point["p1"] == "b").count() == 0
        });
        // Evenly, in one of (5/4)^20 = 87 seeds.
        assert!(found[0] >= 16 && found[1] <= 2, "{found:?} of 20");
    }

    /// What hangs on a kind is drawn where that kind is, and learned from the trials that had it.
    #[test]
    fn estimators_learn_of_a_parameter_that_is_not_always_active() {
        let when = |kind: &str| BTreeMap::from([("kind".to_owned(), vec![json!(kind)])]);
        let named = |key: &str, domain, when| Parameter { key: key.to_owned(), domain, when };
        let kinds = Domain::Values(vec![json!("x"), json!("y")]);
        let parameters = vec![
            named("kind", kinds, BTreeMap::new()),
            named("of_x", line(0.0, 1.0), when("x")),
            named("of_y", line(0.0, 1.0), when("y")),
        ];
        let cost = |point: &Point| match point.get("of_x") {
            Some(of_x) => (of_x.as_f64().unwrap() - 0.7).abs(),
            None => 1.0 + point["of_y"].as_f64().unwrap(),
        };
        let space = Space { parameters, forbidden: vec![] };
        let found = seeds(&space, cost, |points| {
            let near = |point: &&Point| {
                point.get("of_x").is_some_and(|at| (at.as_f64().unwrap() - 0.7).abs() < 0.2)
            };
            assert!(points.iter().all(|point| point.len() == 2), "one of both");
            points.iter().filter(near).count() > points.len() / 2
        });
        assert!(found[0] >= 16 && found[1] <= 2, "{found:?} of 20");
    }

    /// Ten have come, and the next five are asked for before any of them comes: each is told of those before.
    #[test]
    fn trials_that_run_side_by_side_are_not_alike() {
        let space = space(vec![line(0.0, 1.0)]);
        let of = |seed| {
            let search = search(Strategy::Tpe, Sampler::Random, seed);
            let points = Points::new(&space, &search).unwrap();
            let even = first(&space, &search, 10, |_| 0.0);
            let mut tried: Vec<Tried> = even
                .into_iter()
                .map(|point| {
                    let costs = vec![(point["p0"].as_f64().unwrap() - 0.4).abs()];
                    Tried { point, standing: Standing { costs, decided: 1 } }
                })
                .collect();
            for _ in 0..5 {
                let point = points.next(&tried).unwrap();
                tried.push(Tried { point, standing: Standing { costs: vec![], decided: 1 } });
            }
            let mut places: Vec<f64> =
                tried[10..].iter().map(|one| one.point["p0"].as_f64().unwrap()).collect();
            places.sort_by(f64::total_cmp);
            places.windows(2).map(|pair| pair[1] - pair[0]).fold(f64::INFINITY, f64::min)
        };
        // Five at random in the narrowest density there is, 1/4 wide, are nearer than this as often as not.
        let apart = (0..20).filter(|seed| of(*seed) > 0.01).count();
        assert!(apart >= 16, "{apart} of 20");
    }
}
