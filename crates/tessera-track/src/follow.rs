//! Several runs on their way to their trackers until they have ended, by one thread.
//!
//! A tracker that does not answer is said once, tried again with growing pauses, and said to be back. It delays
//! nothing but its own rows.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::{Ending, TrackError, Tracking};

/// Between two looks whether somebody asks for the end.
const LOOK: Duration = Duration::from_millis(50);

/// How long to wait.
#[derive(Debug, Clone, Copy)]
pub struct Pauses {
    /// Before the next look at a run that has just had something to send, and at most.
    pub looks: [Duration; 2],
    /// Before the next try of a tracker that has just stopped to answer, and at most.
    pub tries: [Duration; 2],
}

impl Default for Pauses {
    fn default() -> Self {
        let seconds = |first, most| [Duration::from_secs(first), Duration::from_secs(most)];
        Self { looks: seconds(1, 10), tries: seconds(1, 60) }
    }
}

/// What has become of one run.
#[derive(Debug)]
pub enum Outcome {
    /// All is sent, and the tracker knows how the run has ended.
    Sent,
    /// It cannot be sent.
    Failed(TrackError),
}

/// Runs that are followed.
#[derive(Debug)]
pub struct Follower {
    followed: Vec<Followed>,
    pauses: Pauses,
    stop: Arc<AtomicBool>,
    last: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Followed {
    tracking: Tracking,
    outcome: Option<Outcome>,
    next: Instant,
    pause: Duration,
    /// Since when the tracker does not answer.
    away_since: Option<Instant>,
}

impl Follower {
    /// Follows these, until `stop` becomes true. Once `last` is true, each gets one more turn: whose run has not ended
    /// by then, or whose tracker does not answer, is left.
    pub fn new(
        all: Vec<Tracking>,
        pauses: Pauses,
        stop: Arc<AtomicBool>,
        last: Arc<AtomicBool>,
    ) -> Self {
        let now = Instant::now();
        let followed = |tracking| Followed {
            tracking,
            outcome: None,
            next: now,
            pause: pauses.looks[0],
            away_since: None,
        };
        Self { followed: all.into_iter().map(followed).collect(), pauses, stop, last }
    }

    /// Sends what there is until every run has ended, which `ending` tells by its folder: the outcomes, in the order
    /// of the runs.
    ///
    /// # Errors
    ///
    /// [`TrackError::Stopped`] when somebody has asked for the end.
    pub fn run(
        mut self,
        mut ending: impl FnMut(&Path) -> Option<Ending>,
    ) -> Result<Vec<(Tracking, Outcome)>, TrackError> {
        while self.followed.iter().any(|followed| followed.outcome.is_none()) {
            let is_last = self.last.load(Ordering::Acquire);
            for followed in &mut self.followed {
                if followed.outcome.is_none() && (is_last || Instant::now() >= followed.next) {
                    followed.turn(self.pauses, &mut ending)?;
                }
                if followed.outcome.is_none() && is_last {
                    return Err(TrackError::Stopped);
                }
            }
            let open = self.followed.iter().filter(|followed| followed.outcome.is_none());
            let next = open.map(|followed| followed.next).min();
            while let Some(next) = next {
                if self.stop.load(Ordering::Acquire) {
                    return Err(TrackError::Stopped);
                }
                let left = next.saturating_duration_since(Instant::now());
                if left.is_zero() || self.last.load(Ordering::Acquire) {
                    break;
                }
                std::thread::sleep(left.min(LOOK));
            }
        }
        let outcome = |followed: Followed| {
            let outcome = followed.outcome.expect("the loop above waits for it");
            (followed.tracking, outcome)
        };
        Ok(self.followed.into_iter().map(outcome).collect())
    }
}

impl Followed {
    fn turn(
        &mut self,
        pauses: Pauses,
        ending: &mut impl FnMut(&Path) -> Option<Ending>,
    ) -> Result<(), TrackError> {
        // Before the rows, so that the last ones are not missed.
        let ended = ending(self.tracking.run_dir());
        let sent = self.tracking.advance().and_then(|num_sent| {
            if ended.is_some() {
                self.tracking.close(ended)?;
            }
            Ok(num_sent)
        });
        match sent {
            Ok(num_sent) => {
                if let Some(since) = self.away_since.take() {
                    let seconds = since.elapsed().as_secs();
                    tracing::info!("the tracker answers again after {seconds} s");
                }
                if ended.is_some() {
                    self.outcome = Some(Outcome::Sent);
                }
                let [first, most] = pauses.looks;
                self.pause = if num_sent > 0 { first } else { (self.pause * 2).clamp(first, most) };
            }
            Err(TrackError::Stopped) => return Err(TrackError::Stopped),
            Err(error) if error.is_passing() => {
                let [first, most] = pauses.tries;
                self.pause = match self.away_since {
                    Some(_) => (self.pause * 2).clamp(first, most),
                    None => first,
                };
                if self.away_since.is_none() {
                    self.away_since = Some(Instant::now());
                    tracing::warn!("{error}; it is tried again, and nothing is lost");
                }
            }
            Err(error) => self.outcome = Some(Outcome::Failed(error)),
        }
        self.next = Instant::now() + self.pause;
        Ok(())
    }
}
