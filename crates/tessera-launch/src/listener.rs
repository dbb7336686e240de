//! The launcher's end of the control connections, and the one channel that everything goes into.
//!
//! One thread serves all connections of an attempt, one descriptor each; it, the listening sockets and every
//! connection end with the [`Listener`]. What a worker's words mean is the supervision's to say.

mod admission;
mod connection;
mod service;

use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::Duration;

use mio::Waker;
use tessera_control::{Attempt, Message, Secrets, draw_secret};

use self::admission::Admission;
use self::service::Service;
use crate::addresses::{Reach, bind};

/// Which of the child's streams a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Out,
    Err,
}

/// How the connection of a worker ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// Its process has closed it, or has ended.
    InOrder,
    /// The network has, for this reason; the worker may live and come back.
    Broken(String),
}

/// Something the launcher has to react to.
#[derive(Debug)]
pub(crate) enum Event {
    /// A worker that knows the secret said something; its first message is a hello, as is the first after it
    /// came back.
    Message { rank: usize, message: Message },
    /// The connection of a worker ended.
    Closed { rank: usize, end: End },
    /// Something that a person should know of the control connections.
    Warning(String),
    /// `mpirun`, or a worker through it, printed a line.
    Line { stream: Stream, text: String },
    /// No more lines will come from this stream.
    EndOfStream,
    /// The launcher got this signal.
    Signal(i32),
}

/// Whom a listener takes, and what it tells them.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    /// The attempt that workers have to be of.
    pub(crate) attempt: Attempt,
    /// How many of them there are.
    pub(crate) world_size: usize,
    /// How long the launcher waits for a word.
    pub(crate) silence: Duration,
    /// Variables that it sends to them.
    pub(crate) environment: Secrets,
}

/// Listening sockets whose connections feed the channel.
#[derive(Debug)]
pub(crate) struct Listener {
    /// `HOST:PORT` as workers reach it, several with commas between them.
    pub(crate) addresses: String,
    /// The secret that a hello must prove to know.
    pub(crate) token: String,
    ends: Arc<AtomicBool>,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    /// Listens where `reach` says.
    pub(crate) fn open(reach: &Reach, terms: &Terms, events: Sender<Event>) -> io::Result<Self> {
        let (sockets, addresses) = bind(reach)?;
        let token = draw_secret()?;
        let admission = Admission::new(token.clone(), terms.attempt.to_string());
        let ends = Arc::new(AtomicBool::new(false));
        let service = Service::new(sockets, admission, terms, events, Arc::clone(&ends))?;
        let waker = service.waker();
        let serve = move || service.serve();
        let thread = std::thread::Builder::new().name("control".into()).spawn(serve)?;
        Ok(Self { addresses, token, ends, waker, thread: Some(thread) })
    }

    /// Ends every connection: a worker that still lives somewhere hears it and leaves.
    pub(crate) fn close(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        self.ends.store(true, Ordering::Release);
        if self.waker.wake().is_ok() {
            let _ = thread.join();
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.close();
    }
}

/// Reads `source` line by line into the channel, on a thread of its own.
pub(crate) fn forward_lines(
    source: impl Read + Send + 'static,
    stream: Stream,
    events: Sender<Event>,
) -> io::Result<()> {
    let read = move || {
        let mut lines = BufReader::new(source);
        let mut line = Vec::new();
        while let Ok(1..) = lines.read_until(b'\n', &mut line) {
            let text = String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_owned();
            line.clear();
            if events.send(Event::Line { stream, text }).is_err() {
                return;
            }
        }
        let _ = events.send(Event::EndOfStream);
    };
    std::thread::Builder::new().name("mpirun-lines".into()).spawn(read).map(|_| ())
}

#[cfg(test)]
#[path = "listener_tests.rs"]
mod tests;
