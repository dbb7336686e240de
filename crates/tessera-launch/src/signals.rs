//! Signals to the launcher, turned into events.

use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::{Handle, Signals};
use tessera_control::is_ignored;

use crate::LaunchError;
use crate::listener::Event;

/// Turns signals into events until it is dropped.
#[derive(Debug)]
pub(crate) struct SignalGuard {
    handle: Handle,
    events: Arc<Mutex<Sender<Event>>>,
}

impl SignalGuard {
    /// From now on signals go here; none is lost on the way.
    pub(crate) fn redirect(&self, events: Sender<Event>) {
        *self.events.lock().unwrap_or_else(PoisonError::into_inner) = events;
    }
}

/// The signals that ask a run to stop: SIGINT, SIGTERM, SIGUSR1 and SIGHUP.
///
/// A SIGHUP that is ignored stays so: that is what `nohup` asks for.
pub fn stop_signals() -> Vec<i32> {
    let mut all = vec![SIGINT, SIGTERM, SIGUSR1];
    if !is_ignored(SIGHUP) {
        all.push(SIGHUP);
    }
    all
}

/// Catches [`stop_signals`] from now on.
pub(crate) fn listen(events: Sender<Event>) -> Result<SignalGuard, LaunchError> {
    let mut signals = Signals::new(stop_signals()).map_err(LaunchError::system("catch signals"))?;
    let events = Arc::new(Mutex::new(events));
    let guard = SignalGuard { handle: signals.handle(), events: Arc::clone(&events) };
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            for signal in signals.forever() {
                let events = events.lock().unwrap_or_else(PoisonError::into_inner);
                // Nobody listens any more at the very end alone.
                let _ = events.send(Event::Signal(signal));
            }
        })
        .map_err(LaunchError::system("start a thread for signals"))?;
    Ok(guard)
}

impl Drop for SignalGuard {
    fn drop(&mut self) {
        self.handle.close();
    }
}

/// Name of a signal, for a person.
pub(crate) fn name(signal: i32) -> String {
    signal_hook::low_level::signal_name(signal)
        .map_or_else(|| format!("signal {signal}"), str::to_owned)
}

/// What a person's second and third wish to stop mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The first: checkpoint and leave.
    Checkpoint,
    /// The second SIGINT or SIGTERM: say what a third one does.
    Warn,
    /// The third: end at once.
    Now,
    /// A repetition without a meaning.
    Ignore,
}

/// Counts the signals that ask for a stop.
#[derive(Debug, Default)]
pub(crate) struct StopCounter {
    urgent: u32,
    asked: bool,
}

impl StopCounter {
    /// Whether any has come.
    pub(crate) fn any(&self) -> bool {
        self.asked
    }

    /// What the next signal means. Batch systems repeat SIGUSR1 and SIGHUP, persons SIGINT.
    pub(crate) fn next(&mut self, signal: i32) -> Stop {
        let urgent = matches!(signal, SIGINT | SIGTERM);
        self.urgent += u32::from(urgent);
        if !self.asked {
            self.asked = true;
            return Stop::Checkpoint;
        }
        match (urgent, self.urgent) {
            (false, _) => Stop::Ignore,
            (true, 0..=2) => Stop::Warn,
            (true, _) => Stop::Now,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_third_urgent_signal_ends_the_run() {
        let mut counter = StopCounter::default();
        let stops: Vec<Stop> =
            [SIGINT, SIGUSR1, SIGINT, SIGTERM].map(|signal| counter.next(signal)).into();
        assert_eq!(stops, [Stop::Checkpoint, Stop::Ignore, Stop::Warn, Stop::Now]);
    }

    #[test]
    fn a_batch_system_that_repeats_itself_does_not_kill() {
        let mut counter = StopCounter::default();
        assert_eq!(counter.next(SIGUSR1), Stop::Checkpoint);
        for signal in [SIGUSR1, SIGHUP, SIGUSR1] {
            assert_eq!(counter.next(signal), Stop::Ignore);
        }
    }
}
