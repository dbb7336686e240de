//! Who comes late: the worker that waits in no collective because the others wait there for it.

use std::time::{Duration, Instant};

use tessera_control::Phase;

use super::{Supervision, Worker};

/// The least share of their time that the others wait for a worker before that is told.
const SHARE: f64 = 0.25;

/// What workers have waited, from the beginning of a window on.
#[derive(Debug)]
pub(super) struct Window {
    begun: Instant,
    /// Of each worker, in milliseconds since its start; `None` before all have begun to train.
    waited_ms: Option<Vec<u64>>,
    /// Of each worker, as a share of the window before.
    pub(super) shares: Vec<f64>,
    /// Who was late in the window before.
    suspect: Option<usize>,
    /// Who was told to be late, and has not been in time since.
    told: Option<usize>,
}

impl Window {
    pub(super) fn new(now: Instant) -> Self {
        Self { begun: now, waited_ms: None, shares: Vec::new(), suspect: None, told: None }
    }

    /// Ends the window where it is over: the worker that was late in this one and in the one before,
    /// and how much of their time the others wait for it, where that was not yet told.
    fn look(
        &mut self,
        waited_ms: Option<Vec<u64>>,
        length: Duration,
        now: Instant,
    ) -> Option<(usize, f64)> {
        let took = now.saturating_duration_since(self.begun);
        if waited_ms.is_some() && self.waited_ms.is_some() && took < length {
            return None;
        }
        self.begun = now;
        let before = std::mem::replace(&mut self.waited_ms, waited_ms)?;
        let after = self.waited_ms.as_ref()?;
        let gained = after.iter().zip(before).map(|(after, before)| after.saturating_sub(before));
        self.shares = gained.map(|ms| (ms as f64 / 1e3 / took.as_secs_f64()).min(1.0)).collect();

        let late = last_of(&self.shares);
        let again = late.filter(|(rank, _)| self.suspect == Some(*rank));
        self.suspect = late.map(|(rank, _)| rank);
        let news = again.filter(|(rank, _)| self.told != Some(*rank));
        if again.is_some() || late.is_none() {
            self.told = again.map(|(rank, _)| rank);
        }
        news
    }
}

/// The worker that waits least, and how much longer each of the others waits, if that is long.
fn last_of(shares: &[f64]) -> Option<(usize, f64)> {
    let (rank, least) = shares.iter().copied().enumerate().min_by(|a, b| a.1.total_cmp(&b.1))?;
    let others = shares.iter().enumerate().filter(|(other, _)| *other != rank);
    let wait = others.map(|(_, share)| share - least).min_by(f64::total_cmp)?;
    (wait > SHARE).then_some((rank, wait))
}

impl Supervision {
    /// Compares what workers wait for one another: a line, where one has begun to be late.
    pub(crate) fn late(&mut self, now: Instant) -> Option<String> {
        let length = self.limits.late.filter(|_| self.workers.len() > 1)?;
        let waited_ms = self.workers.iter().map(|worker| waited(worker.as_ref()?)).collect();
        let (rank, wait) = self.window.look(waited_ms, length, now)?;
        Some(format!(
            "late: the others wait {:.0} % of their time for {}: is its core, disk or network \
             slower, or busy? `train --trace` shows where its time goes",
            100.0 * wait,
            self.describe(rank)
        ))
    }
}

/// What a worker that trains has waited in all, where it tells.
fn waited(worker: &Worker) -> Option<u64> {
    let trains = worker.connected && worker.outcome.is_none();
    let trains =
        trains && worker.phase.is_some_and(|phase| !matches!(phase, Phase::Meet | Phase::Start));
    worker.call.as_ref().filter(|_| trains).map(|call| call.waited_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN: Duration = Duration::from_secs(10);

    /// Windows of ten seconds in which three workers wait so many of them.
    fn told(windows: &[[u64; 3]]) -> Vec<Option<(usize, f64)>> {
        let start = Instant::now();
        let mut window = Window::new(start);
        let mut waited_ms = vec![500, 7000, 0];
        assert_eq!(window.look(None, TEN, start), None);
        assert_eq!(window.look(Some(waited_ms.clone()), TEN, start), None);
        let mut end = |(number, gained): (u32, &[u64; 3])| {
            let end = start + TEN * number;
            for (waited, gained) in waited_ms.iter_mut().zip(gained) {
                *waited += 1000 * gained;
            }
            assert_eq!(window.look(Some(vec![0; 3]), TEN, end - TEN / 2), None, "in the middle");
            window.look(Some(waited_ms.clone()), TEN, end)
        };
        (1..).zip(windows).map(&mut end).collect()
    }

    #[test]
    fn a_worker_that_all_others_wait_for_is_told_once_until_it_was_in_time() {
        let (late, even) = ([4, 1, 6], [4, 4, 4]);
        let news = Some((1, 0.30000000000000004));
        assert_eq!(
            told(&[late, late, late, even, even, late, late]),
            [None, news, None, None, None, None, news]
        );
    }

    #[test]
    fn two_of_three_that_are_late_have_no_culprit_and_another_one_is_news() {
        assert_eq!(told(&[[9, 1, 1], [9, 1, 1]]), [None, None]);
        let (one, two) = ([0, 5, 5], [5, 5, 0]);
        assert_eq!(told(&[one, one, two, two]), [None, Some((0, 0.5)), None, Some((2, 0.5))]);
    }
}
