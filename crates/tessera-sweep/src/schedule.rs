//! How long trials are trained: which one goes on, and when a new one begins.
//!
//! Successive halving compares trials at rungs, numbers of steps that grow by a factor, and lets the
//! best one in so many go on. Synchronous (Jamieson and Talwalkar 2016, <https://arxiv.org/abs/1502.07943>):
//! a rung is complete before the next begins. Asynchronous, ASHA (Li et al. 2020,
//! <https://arxiv.org/abs/1810.05934>, algorithm 2): a trial goes on as soon as it is among the best of
//! those that have come so far, and a new one begins where there is none. Without halving there is one
//! rung, the end.
//!
//! A trial that fails has arrived at the rung where it failed, as the worst: nobody waits for it, and it
//! counts among those of which the best go on. It leaves the places that it had among the best of the
//! rungs before, so that its failure does not end the climb of the others.

use std::cmp::Ordering;

use crate::spec::{Search, Strategy};

/// What is known of a trial.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Standing {
    /// Cost at each rung that it has reached; infinite where it failed on the way.
    pub costs: Vec<f64>,
    /// Rungs that it was sent to: one more than reached while it is on its way.
    pub decided: usize,
}

impl Standing {
    /// Where it stands among others; `None` where nothing is known yet.
    pub(crate) fn rank(&self) -> Option<Rank> {
        let cost = if self.has_failed() { f64::INFINITY } else { *self.costs.last()? };
        Some(Rank { rungs: self.costs.len(), cost })
    }

    /// Whether it failed, at any rung.
    fn has_failed(&self) -> bool {
        self.costs.contains(&f64::INFINITY)
    }
}

/// How good a trial is: the less the better.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rank {
    /// Rungs that it has come to.
    rungs: usize,
    /// What it cost at the last; infinite where it failed.
    pub(crate) cost: f64,
}

impl Rank {
    /// One that has come further goes first, then one of a lower cost; all that failed are equal, and last.
    pub(crate) fn compare(&self, other: &Self) -> Ordering {
        let failed = self.cost.is_infinite().cmp(&other.cost.is_infinite());
        if self.cost.is_infinite() && other.cost.is_infinite() {
            return Ordering::Equal;
        }
        failed.then(other.rungs.cmp(&self.rungs)).then(self.cost.total_cmp(&other.cost))
    }
}

/// What is to be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Begin a new trial.
    Start,
    /// Let this trial go on, to this rung.
    Promote {
        /// Number of the trial.
        trial: usize,
        /// The rung.
        rung: usize,
    },
    /// Nothing before a trial that is on its way arrives.
    Wait,
    /// All is done.
    Done,
}

/// The rungs of a sweep, and who climbs them.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// Optimiser steps of each rung; the last one is the whole training.
    pub rungs: Vec<u64>,
    factor: usize,
    synchronous: bool,
}

impl Schedule {
    /// That of a sweep whose trainings have so many steps.
    pub fn new(search: &Search, steps: u64) -> Self {
        let mut rungs = Vec::new();
        if search.strategy.has_rungs() {
            // Up from what every trial gets, as the papers have it; the last rung is the whole training.
            let first = Some(search.min_steps.max(1));
            let all = std::iter::successors(first, |rung| rung.checked_mul(search.factor));
            rungs.extend(all.take_while(|rung| *rung < steps));
        }
        rungs.push(steps);
        let factor = usize::try_from(search.factor).unwrap_or(usize::MAX);
        Self { rungs, factor, synchronous: search.strategy != Strategy::Asha }
    }

    /// What comes next, where so many trials may begin at most.
    pub fn next(&self, trials: &[Standing], max_trials: usize) -> Next {
        for rung in (0..self.rungs.len() - 1).rev() {
            if let Some(trial) = self.climber(trials, rung, max_trials) {
                return Next::Promote { trial, rung: rung + 1 };
            }
        }
        if trials.len() < max_trials {
            return Next::Start;
        }
        let all_arrived = trials.iter().all(|trial| trial.costs.len() == trial.decided);
        if all_arrived { Next::Done } else { Next::Wait }
    }

    /// A trial of this rung that should go on and does not yet.
    fn climber(&self, trials: &[Standing], rung: usize, max_trials: usize) -> Option<usize> {
        let mut arrived: Vec<(f64, usize)> = trials
            .iter()
            .enumerate()
            .filter_map(|(number, trial)| {
                let cost = *trial.costs.get(rung)?;
                // One that failed further on leaves its place to the next best.
                Some((if trial.has_failed() { f64::INFINITY } else { cost }, number))
            })
            .collect();
        let num = if self.synchronous {
            if !self.is_complete(trials, rung, max_trials) {
                return None;
            }
            (max_trials / self.factor.pow(rung as u32 + 1)).max(1)
        } else {
            arrived.len() / self.factor
        };
        arrived.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let mut best = arrived.into_iter().take(num).filter(|(cost, _)| cost.is_finite());
        best.find(|(_, number)| trials[*number].decided == rung + 1).map(|(_, number)| number)
    }

    /// Whether all trials that are to come to this rung have arrived.
    fn is_complete(&self, trials: &[Standing], rung: usize, max_trials: usize) -> bool {
        let all_sent = match rung.checked_sub(1) {
            None => trials.len() >= max_trials,
            Some(below) => {
                self.is_complete(trials, below, max_trials)
                    && self.climber(trials, below, max_trials).is_none()
            }
        };
        all_sent && trials.iter().all(|trial| trial.decided <= rung || trial.costs.len() > rung)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(strategy: Strategy, min_steps: u64, steps: u64) -> Schedule {
        Schedule::new(&Search { strategy, min_steps, ..Search::default() }, steps)
    }

    /// Runs all to the end, `parallel` at a time, where trial t costs `cost(t, rung)`; the decisions.
    fn decisions(
        schedule: &Schedule,
        max_trials: usize,
        parallel: usize,
        cost: impl Fn(usize, usize) -> f64,
    ) -> Vec<(usize, usize)> {
        let (mut trials, mut on_the_way, mut made) =
            (Vec::<Standing>::new(), Vec::new(), Vec::new());
        loop {
            let next = schedule.next(&trials, max_trials);
            let decided = match next {
                Next::Start if on_the_way.len() < parallel => {
                    trials.push(Standing::default());
                    Some((trials.len() - 1, 0))
                }
                Next::Promote { trial, rung } if on_the_way.len() < parallel => Some((trial, rung)),
                Next::Done => return made,
                _ => None,
            };
            match decided {
                Some((trial, rung)) => {
                    trials[trial].decided = rung + 1;
                    made.push((trial, rung));
                    on_the_way.push((trial, rung));
                }
                None => {
                    let (trial, rung) = on_the_way.remove(0);
                    trials[trial].costs.push(cost(trial, rung));
                }
            }
        }
    }

    #[test]
    fn rungs_go_up_from_the_smallest_training_to_the_whole_one() {
        assert_eq!(schedule(Strategy::Asha, 10, 270).rungs, [10, 30, 90, 270]);
        assert_eq!(schedule(Strategy::Halving, 11, 270).rungs, [11, 33, 99, 270]);
        assert_eq!(schedule(Strategy::Asha, 270, 270).rungs, [270]);
        assert_eq!(schedule(Strategy::Random, 10, 270).rungs, [270]);
    }

    #[test]
    fn halving_waits_for_a_whole_rung_and_takes_the_best_third() {
        let schedule = schedule(Strategy::Halving, 10, 90);
        for parallel in [1, 4] {
            // Later trials are better.
            let made = decisions(&schedule, 9, parallel, |trial, _| -(trial as f64));
            let mut expected: Vec<(usize, usize)> = (0..9).map(|trial| (trial, 0)).collect();
            expected.extend([(8, 1), (7, 1), (6, 1), (8, 2)]);
            assert_eq!(made, expected, "{parallel} at a time");
        }
    }

    #[test]
    fn asha_promotes_as_soon_as_a_trial_is_in_the_best_third() {
        let schedule = schedule(Strategy::Asha, 10, 90);
        let made = decisions(&schedule, 9, 1, |trial, _| trial as f64);
        // After three, the best goes up; the first three that are up send the best of them to the end.
        let expected = [
            (0, 0),
            (1, 0),
            (2, 0),
            (0, 1),
            (3, 0),
            (4, 0),
            (5, 0),
            (1, 1),
            (6, 0),
            (7, 0),
            (8, 0),
            (2, 1),
            (0, 2),
        ];
        assert_eq!(made, expected);
        // 27 trials of 10, 30 and 90 steps: 27 * 10 + 9 * 20 + 3 * 60 = 630 steps, not 27 * 90 = 2430.
        let made = decisions(&schedule, 27, 1, |trial, _| ((trial * 7) % 27) as f64);
        let steps: u64 = made.iter().map(|&(_, rung)| [10, 20, 60][rung]).sum();
        assert!(steps <= 630 + 3 * 20 + 60, "{steps}");
        let (best, rung) = *made.last().unwrap();
        assert!(made.contains(&(0, 2)), "the best one, {best} {rung}");
    }

    #[test]
    fn trials_that_fail_are_never_promoted() {
        let schedule = schedule(Strategy::Asha, 10, 90);
        let cost =
            |trial: usize, _| if trial.is_multiple_of(2) { f64::INFINITY } else { trial as f64 };
        let made = decisions(&schedule, 9, 2, cost);
        assert!(made.iter().all(|&(trial, rung)| rung == 0 || trial % 2 == 1), "{made:?}");
        assert!(made.iter().any(|&(_, rung)| rung == 1));
        let none = decisions(&schedule, 9, 1, |_, _| f64::INFINITY);
        assert_eq!(none.len(), 9);
        // Of nine, two live: both go on together, and the better one of them to the end.
        let halving = Schedule { synchronous: true, ..schedule };
        let cost = |trial: usize, _| if trial < 7 { f64::INFINITY } else { trial as f64 };
        assert_eq!(decisions(&halving, 9, 2, cost)[9..], [(7, 1), (8, 1), (7, 2)]);
    }

    /// The best three of the first rung diverge on the way to the second, and the next three take their
    /// places. The best one of these comes to the end; with ASHA two do, of six that have come.
    #[test]
    fn a_trial_that_fails_further_on_leaves_its_place_to_the_next_best() {
        let cost = |trial: usize, rung: usize| match (trial, rung) {
            (0..3, 1..) => f64::INFINITY,
            _ => trial as f64,
        };
        for (strategy, last) in [(Strategy::Halving, 3..4), (Strategy::Asha, 3..5)] {
            for parallel in [1, 3] {
                let made = decisions(&schedule(strategy, 10, 90), 9, parallel, cost);
                let up = |rung| {
                    let there = made.iter().filter(|one| one.1 == rung).map(|one| one.0);
                    there.collect::<std::collections::BTreeSet<_>>()
                };
                let told = format!("{strategy:?}, {parallel} at a time: {made:?}");
                assert_eq!(up(1), (0..6).collect(), "{told}");
                assert_eq!(up(2), last.clone().collect(), "{told}");
            }
        }
        // Also where the last rung is where it fails.
        let cost =
            |trial: usize, rung| if (trial, rung) == (0, 2) { f64::INFINITY } else { trial as f64 };
        let made = decisions(&schedule(Strategy::Halving, 10, 90), 9, 1, cost);
        assert_eq!(made[9..], [(0, 1), (1, 1), (2, 1), (0, 2), (3, 1), (1, 2)]);
    }

    #[test]
    fn without_halving_every_trial_is_trained_once_to_the_end() {
        let made = decisions(&schedule(Strategy::Sobol, 0, 90), 5, 3, |_, _| 1.0);
        assert_eq!(made, [(0, 0), (1, 0), (2, 0), (3, 0), (4, 0)]);
    }
}
