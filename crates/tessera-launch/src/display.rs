//! What a person sees while workers run: a bar on a terminal, a line now and then elsewhere.
//!
//! Nothing here waits for a terminal or a pipe: threads write, stderr's ([`tell_above`]) and that of the
//! results.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use tessera_control::{
    Writer, draw_newest, is_coloured, painted, tell_above, unread, write_result,
};

use crate::{LaunchError, Show};

/// Time between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// What counts as now.
const RECENT: Duration = Duration::from_secs(60);

/// Rank 0's progress, as it tells it.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    pub(crate) step: u64,
    pub(crate) steps: u64,
    /// Figures of the last interval, for a person.
    pub(crate) words: String,
    /// The same by name.
    pub(crate) figures: BTreeMap<String, f64>,
    pub(crate) samples_per_second: f64,
}

/// Lines of results on their way to stdout. All of them are kept: who reads decides how long that takes.
#[derive(Debug)]
pub(crate) struct Results {
    writer: Writer<(String, Option<ProgressBar>)>,
    /// Why a line could not be written.
    refused: Arc<Mutex<Option<io::Error>>>,
}

impl Results {
    /// Starts the thread that writes them.
    ///
    /// # Errors
    ///
    /// [`LaunchError::System`] if there can be none.
    pub(crate) fn start() -> Result<Self, LaunchError> {
        let refused = Arc::<Mutex<Option<io::Error>>>::default();
        let theirs = Arc::clone(&refused);
        let write = move |(line, bar): (String, Option<ProgressBar>)| {
            let written = above(bar.as_ref(), || write_result(&format!("{line}\n")));
            if let Err(error) = written {
                theirs.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            }
        };
        let writer = Writer::start("results", usize::MAX, |_| (String::new(), None), write)
            .map_err(LaunchError::system("start a thread"))?;
        Ok(Self { writer, refused })
    }

    /// Waits until whoever reads has taken all lines, for so long at most; the number of those that are left.
    pub(crate) fn left_after(&self, limit: Duration) -> usize {
        if self.writer.wait(limit) { 0 } else { self.writer.num_waiting() }
    }

    /// Why a line could not be written; one that nobody reads any more counts as written.
    pub(crate) fn refused(&self) -> Option<io::Error> {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner).take();
        refused.filter(|error| !unread(error))
    }
}

/// Draws on stderr; what workers print on stdout passes through.
#[derive(Debug)]
pub(crate) struct Display<'a> {
    results: &'a Results,
    show: Show,
    bar: Option<ProgressBar>,
    pace: Pace,
    printed: Option<Instant>,
    /// The newest progress line that was not printed yet.
    pending: Option<String>,
}

impl<'a> Display<'a> {
    /// A display for a run of `steps` steps; `None` draws no progress at all.
    pub(crate) fn new(steps: Option<u64>, results: &'a Results, show: Show) -> Self {
        let terminal = std::io::stderr().is_terminal() && show == Show::Person;
        let bar = steps.filter(|_| terminal).map(|steps| {
            let bar = ProgressBar::with_draw_target(Some(steps), ProgressDrawTarget::stderr());
            let columns =
                rustix::termios::tcgetwinsize(io::stderr()).map_or(80, |size| size.ws_col);
            let template = template(columns);
            bar.set_style(
                ProgressStyle::with_template(&template).unwrap_or(ProgressStyle::default_bar()),
            );
            let drawn = bar.clone();
            draw_newest(move || drawn.set_message("starting"));
            bar
        });
        Self { results, show, bar, pace: Pace::default(), printed: None, pending: None }
    }

    /// Shows how far the run is.
    pub(crate) fn progress(&mut self, progress: &Progress, now: Instant) {
        let left = self.pace.left(now, progress.step, progress.steps);
        match self.show {
            Show::Person => {}
            Show::Quiet => return,
            Show::Json => return self.result(&of_progress(progress, left)),
        }
        if let Some(bar) = self.bar.clone() {
            let text = beside_bar(progress, left);
            let Progress { step, steps, .. } = *progress;
            return draw_newest(move || {
                bar.set_length(steps);
                bar.set_position(step);
                bar.set_message(text);
            });
        }
        let text = describe(progress, left);
        let line = format!("step {}/{} {text}", progress.step, progress.steps);
        if self.printed.is_none_or(|at| now - at >= LINE_EVERY) {
            self.printed = Some(now);
            self.pending = None;
            self.say(&line);
        } else {
            self.pending = Some(line);
        }
    }

    /// Tells what is good to know.
    pub(crate) fn notice(&self, text: &str) {
        match self.show {
            Show::Person => self.say(text),
            Show::Quiet => {}
            Show::Json => self.result(&json!({ "event": "notice", "text": text }).to_string()),
        }
    }

    /// Prints a line on stderr, above the bar.
    pub(crate) fn say(&self, line: &str) {
        let (line, bar) = (format!("{}\n", painted(line, is_coloured())), self.bar.clone());
        tell_above(move || {
            above(bar.as_ref(), || {
                let _ = io::stderr().lock().write_all(line.as_bytes());
            });
        });
    }

    /// Prints a line of a worker's result on stdout.
    pub(crate) fn result(&self, line: &str) {
        let is_beside_bar = io::stdout().is_terminal();
        let bar = self.bar.clone().filter(|_| is_beside_bar);
        self.results.writer.put((line.to_owned(), bar));
    }

    /// Leaves the last state of the progress on the screen.
    pub(crate) fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            tell_above(move || bar.abandon()); // leaves the cursor behind the bar
            self.say("");
        }
        if let Some(line) = self.pending.take() {
            self.say(&line);
        }
    }
}

impl Drop for Display<'_> {
    /// A bar that is dropped draws itself once more: not here.
    fn drop(&mut self) {
        if let Some(bar) = self.bar.take() {
            tell_above(move || drop(bar));
        }
    }
}

/// Prints where the bar, if there is one, is not in the way.
fn above<T>(bar: Option<&ProgressBar>, print: impl FnOnce() -> T) -> T {
    match bar {
        Some(bar) => bar.suspend(print),
        None => print(),
    }
}

/// How a bar looks on a terminal of so many columns: the words beside it are worth more than the bar, and their end is left out where there is no
/// room.
fn template(columns: u16) -> String {
    format!(
        "{{bar:{}.cyan/dim}} {{pos}}/{{len}} {{wide_msg}}",
        columns.saturating_sub(68).clamp(6, 40)
    )
}

/// What stands beside a bar, what is missed most first.
fn beside_bar(progress: &Progress, left: Option<Duration>) -> String {
    let Progress { words, samples_per_second, .. } = progress;
    let left = left.map_or_else(|| "?".into(), clock);
    format!("ETA {left} {words} {samples_per_second:.0} samples/s")
}

/// Progress as a line of JSON.
fn of_progress(progress: &Progress, left: Option<Duration>) -> String {
    let Progress { step, steps, figures, samples_per_second, .. } = progress;
    let line = json!({
        "event": "progress",
        "step": step,
        "steps": steps,
        "samples_per_second": samples_per_second,
        "seconds_left": left.map(|left| left.as_secs()),
        "figures": figures,
    });
    line.to_string()
}

/// How fast a run is now: where it was at each word of progress of the last minute.
#[derive(Debug, Default)]
struct Pace {
    recent: VecDeque<(Instant, u64)>,
}

impl Pace {
    /// Time for the remaining steps at the speed of the last minute, or since the last word where that is longer ago. A first step,
    /// which is slow, is forgotten then, and so is an hour of another speed.
    fn left(&mut self, now: Instant, step: u64, steps: u64) -> Option<Duration> {
        while self.recent.get(1).is_some_and(|(at, _)| now - *at >= RECENT) {
            self.recent.pop_front();
        }
        self.recent.push_back((now, step));
        let (then, first) = *self.recent.front()?;
        let done = step.checked_sub(first).filter(|&done| done > 0)?;
        let left = steps.saturating_sub(step);
        #[expect(clippy::cast_precision_loss, reason = "steps are far below 2^52")]
        let ratio = left as f64 / done as f64;
        Duration::try_from_secs_f64((now - then).as_secs_f64() * ratio).ok()
    }
}

fn describe(progress: &Progress, left: Option<Duration>) -> String {
    let Progress { words, samples_per_second, .. } = progress;
    let left = left.map_or_else(|| "?".into(), clock);
    format!("{words} {samples_per_second:.0} samples/s ETA {left}")
}

fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_leaves_room_for_words_and_a_script_gets_numbers() {
        assert!(template(24).starts_with("{bar:6."));
        assert!(template(80).starts_with("{bar:12."));
        assert!(template(400).starts_with("{bar:40."));
        let figures = BTreeMap::from([("loss".to_owned(), 0.5)]);
        let words = "loss 0.5".to_owned();
        let progress = Progress { step: 3, steps: 8, words, figures, samples_per_second: 32.0 };
        let beside = beside_bar(&progress, Some(Duration::from_secs(70)));
        assert_eq!(beside, "ETA 1m10s loss 0.5 32 samples/s");
        let line: serde_json::Value =
            serde_json::from_str(&of_progress(&progress, Some(Duration::from_secs(70)))).unwrap();
        assert_eq!((&line["step"], &line["seconds_left"]), (&3.into(), &70.into()));
        assert_eq!((&line["event"], &line["figures"]["loss"]), (&"progress".into(), &0.5.into()));
    }

    #[test]
    fn time_left_counts_from_where_the_run_was_resumed_and_at_its_speed_of_the_last_minute() {
        let (start, mut pace) = (Instant::now(), Pace::default());
        let mut left = |seconds: u64, step: u64| {
            pace.left(start + Duration::from_secs(seconds), step, 1000).map(|left| left.as_secs())
        };
        assert_eq!(left(0, 500), None);
        // 10 of the steps from 500 took 5 s, 490 are left: 245 s.
        assert_eq!(left(5, 510), Some(245));
        // 30 took the minute before; what was before that does not count.
        assert_eq!(left(65, 540), Some(920));
        // Ten times as fast: 300 steps in the minute from 540 on.
        assert_eq!(left(95, 690), Some(155));
        assert_eq!(left(125, 840), Some(32));
    }

    #[test]
    fn a_line_names_every_figure() {
        let words = "loss 0.50000 perplexity 12.3".to_owned();
        let figures = BTreeMap::new();
        let progress = Progress { step: 1, steps: 2, words, figures, samples_per_second: 987.6 };
        assert_eq!(
            describe(&progress, Some(Duration::from_secs(3725))),
            "loss 0.50000 perplexity 12.3 988 samples/s ETA 1h02m"
        );
    }
}
