//! The worker's end of the control connection.
//!
//! A thread of its own serves it, so that a worker stuck in a collective still speaks: it writes messages
//! and a heartbeat a second, and connects anew when the connection breaks. Messages carry a running
//! number and are kept until the launcher has said that it heard them, so a break loses none and repeats
//! none. An end that the launcher makes in good order, or a launcher that stays away for longer than its own
//! patience with silent workers, is its end: a worker that hears it outlives its purpose.

mod dial;
mod link;

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use self::dial::Introduction;
use self::link::{Control, Event};
use crate::{Activity, Message, Secrets, variables};

/// How long the last messages may take to be heard at the end.
const CLOSING: Duration = Duration::from_secs(5);

/// Why the control connection could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The launcher's variables do not name an address.
    #[error("environment variable {name} {problem}")]
    Variable {
        /// Name of the variable.
        name: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The launcher does not answer.
    #[error(
        "cannot reach the launcher at {addresses} within {seconds:.0} s: {source}; name an address that workers \
         reach with `tessera launch --control-address`"
    )]
    Connect {
        /// Addresses from [`variables::CONTROL`].
        addresses: String,
        /// How long it was tried, in seconds.
        seconds: f64,
        /// What the system answered last.
        source: std::io::Error,
    },
    /// The launcher answers and does not take this worker.
    #[error("the launcher at {addresses} refuses this worker: {why}")]
    Refused {
        /// Addresses from [`variables::CONTROL`].
        addresses: String,
        /// The launcher's own words.
        why: String,
    },
}

/// A worker's connection to its launcher; [`Client::close`] is the orderly end of it.
#[derive(Debug)]
pub struct Client {
    events: Sender<Event>,
    /// Ends when the thread does; `None` once closed.
    done: Mutex<Option<Receiver<()>>>,
}

impl Client {
    /// Connects to the launcher named by the environment, or answers `None` without a launcher. Its addresses
    /// are tried in turn for as long as `patience`.
    ///
    /// `take` gets the variables that the launcher sends, before there is a thread of the client. `on_lost` runs on
    /// that thread when the launcher is gone; it must end the process.
    ///
    /// # Errors
    ///
    /// [`ControlError`] if the variables are there but no launcher answers, or it refuses this worker.
    pub fn from_env(
        rank: usize,
        world_size: usize,
        patience: Duration,
        activity: Arc<Activity>,
        take: impl FnOnce(Secrets),
        on_lost: impl FnOnce() + Send + 'static,
    ) -> Result<Option<Self>, ControlError> {
        let Ok(addresses) = std::env::var(variables::CONTROL) else { return Ok(None) };
        let secret = std::env::var(variables::CONTROL_TOKEN).map_err(|error| {
            ControlError::Variable { name: variables::CONTROL_TOKEN, problem: error.to_string() }
        })?;
        let attempt = std::env::var(variables::ATTEMPT).ok();
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let pid = std::process::id();
        let who = Introduction { addresses, secret, attempt, rank, world_size, host, pid };
        Self::connect(who, patience, activity, take, on_lost).map(Some)
    }

    fn connect(
        who: Introduction,
        patience: Duration,
        activity: Arc<Activity>,
        take: impl FnOnce(Secrets),
        on_lost: impl FnOnce() + Send + 'static,
    ) -> Result<Self, ControlError> {
        let mut line = who.until(Instant::now() + patience)?;
        take(std::mem::take(&mut line.environment));
        let addresses = who.addresses.clone();
        let failed = |source| ControlError::Connect { addresses, seconds: 0.0, source };
        let (events, received) = channel();
        let (ends, done) = channel();
        let control = Control::new(who, activity, events.clone(), received);
        let serve = move || {
            control.serve(line, on_lost);
            drop(ends);
        };
        std::thread::Builder::new().name("control".into()).spawn(serve).map_err(failed)?;
        Ok(Self { events, done: Mutex::new(Some(done)) })
    }

    /// Queues a message; never blocks, and a launcher that is gone is not an error here.
    pub fn send(&self, message: Message) {
        let _ = self.events.send(Event::Say(message));
    }

    /// Sends what is queued and ends the connection; returns when the launcher has heard it all, or after a few
    /// seconds.
    pub fn close(&self) {
        self.close_within(CLOSING);
    }

    /// As [`Self::close`], for whoever can wait for so long at most.
    pub fn close_within(&self, limit: Duration) {
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(done) = done
            && self.events.send(Event::Close(Instant::now() + limit)).is_ok()
        {
            let _ = done.recv_timeout(limit); // the thread ends, and drops the other end
        }
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
