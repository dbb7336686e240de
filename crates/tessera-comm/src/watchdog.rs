//! A deadline for calls that have none.
//!
//! MPI calls cannot time out. A [`Watchdog`] is a thread that is armed before such a call and
//! disarmed after it; when the time is up it reports the [`Hang`] and ends the process with
//! code 4, without running anything of the stuck main thread.

use std::sync::mpsc::channel;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long last words may take before the process ends without them.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// A wait that went past its deadline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hang {
    /// What was waited for.
    pub op: &'static str,
    /// Running number of the collective on this rank.
    pub sequence: u64,
    /// How long.
    pub waited: Duration,
    /// What the library said, where a lost peer or an error of its own is behind it.
    pub cause: Option<String>,
    /// Whether NCCL carries what was waited for, so that it can be [asked](crate::ask_nccl).
    pub over_nccl: bool,
}

impl Hang {
    /// The exit code of a process that ends for it: 3, a worker is lost, where the library has
    /// said so, and otherwise 4.
    pub fn exit_code(&self) -> i32 {
        if self.cause.is_some() { 3 } else { 4 }
    }
}

#[derive(Debug, Default)]
struct State {
    armed: Option<(Instant, Hang)>,
    closed: bool,
}

/// Ends the process when an armed wait outlasts its deadline.
#[derive(Debug)]
pub struct Watchdog {
    shared: Arc<(Mutex<State>, Condvar)>,
    timeout: Duration,
}

/// Disarms its watchdog when dropped.
#[derive(Debug)]
pub struct Armed<'a>(&'a Watchdog);

impl Watchdog {
    /// Starts the thread. `on_hang` reports; when it has, and after two seconds whatever it does, the
    /// process ends with exit code 4.
    pub fn start(timeout: Duration, on_hang: impl Fn(&Hang) + Send + Sync + 'static) -> Self {
        let on_hang = Arc::new(on_hang);
        Self::with_end(timeout, move |hang| {
            let (on_hang, told) = (Arc::clone(&on_hang), hang.clone());
            let _ = aside(LAST_WORDS, move || on_hang(&told));
            exit_now(hang.exit_code())
        })
    }

    fn with_end(timeout: Duration, end: impl Fn(&Hang) + Send + 'static) -> Self {
        let shared = Arc::new((Mutex::new(State::default()), Condvar::new()));
        let theirs = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("watchdog".into())
            .spawn(move || watch(&theirs, timeout, &end))
            .expect("a thread can be started before training");
        Self { shared, timeout }
    }

    /// Arms the watchdog for `op`, until the answer is dropped.
    pub fn arm(&self, op: &'static str, sequence: u64) -> Armed<'_> {
        let hang = Hang { op, sequence, waited: self.timeout, cause: None, over_nccl: false };
        self.set(Some((Instant::now() + self.timeout, hang)));
        Armed(self)
    }

    fn set(&self, armed: Option<(Instant, Hang)>) {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner).armed = armed;
    }
}

impl Drop for Armed<'_> {
    fn drop(&mut self) {
        self.0.set(None);
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.shared.1.notify_all();
    }
}

/// Looks at the armed deadline a few times within each timeout: arming costs no wake-up.
fn watch(shared: &(Mutex<State>, Condvar), timeout: Duration, end: &impl Fn(&Hang)) {
    let pause = (timeout / 20).clamp(Duration::from_millis(5), Duration::from_secs(1));
    let mut state = shared.0.lock().unwrap_or_else(PoisonError::into_inner);
    while !state.closed {
        match &state.armed {
            Some((deadline, hang)) if Instant::now() >= *deadline => {
                let hang = hang.clone();
                state.armed = None;
                drop(state);
                end(&hang);
                state = shared.0.lock().unwrap_or_else(PoisonError::into_inner);
            }
            _ => {
                let waited = shared.1.wait_timeout(state, pause);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }
}

/// Runs `job` on a thread of its own and waits for it, but no longer than `limit`; whether it was done by then. For what
/// may never return on the way to the end of a process: a log on a disk that stands still.
pub fn aside(limit: Duration, job: impl FnOnce() + Send + 'static) -> bool {
    let (done, is_done) = channel();
    let job = move || {
        job();
        let _ = done.send(()); // nobody may wait any more
    };
    let thread = std::thread::Builder::new().name("last-words".into()).spawn(job);
    thread.is_ok() && is_done.recv_timeout(limit).is_ok()
}

/// Ends the process at once: no destructor, no exit handler, no wait for a peer.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` takes any number and touches no memory of ours; files are either complete
    // or under a temporary name, which every writer in this workspace sees to.
    unsafe { libc::_exit(code) }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{RecvTimeoutError, channel};

    use super::*;

    #[test]
    fn a_wait_past_its_deadline_is_reported_with_its_name() {
        let (told, hears) = channel();
        let dog = Watchdog::with_end(Duration::from_millis(20), move |hang| {
            told.send(hang.clone()).unwrap();
        });
        let armed = dog.arm("all_reduce", 7);
        let hang = hears.recv_timeout(Duration::from_secs(20)).expect("it barks");
        assert_eq!((hang.op, hang.sequence), ("all_reduce", 7));
        drop(armed);
    }

    #[test]
    fn a_job_that_stands_still_is_left_behind() {
        let (never, waits) = channel::<()>();
        assert!(!aside(Duration::from_millis(20), move || {
            let _ = waits.recv();
        }));
        drop(never);
        assert!(aside(Duration::from_secs(20), || ()));
    }

    #[test]
    fn a_wait_that_ended_in_time_is_not_reported() {
        let (told, hears) = channel();
        let dog = Watchdog::with_end(Duration::from_millis(20), move |hang| {
            told.send(hang.clone()).unwrap();
        });
        drop(dog.arm("barrier", 1));
        assert_eq!(hears.recv_timeout(Duration::from_millis(200)), Err(RecvTimeoutError::Timeout));
    }
}
