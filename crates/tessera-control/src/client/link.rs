//! The thread that serves a worker's control connection, over all the connections that it takes.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use super::dial::{Introduction, Line, next_reply};
use crate::{Activity, Message, Numbered, Reply};

/// Time between two heartbeats.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Time between two tries to connect anew.
const PAUSE: Duration = Duration::from_millis(500);
/// A launcher whose host answers for so long that nobody listens there is gone.
const GONE: Duration = Duration::from_secs(5);
/// The longest that what was written may wait to be taken; less where the launcher has less patience.
const UNTAKEN: Duration = Duration::from_secs(20);
/// The shortest, on a network that loses a packet now and then.
const LEAST_UNTAKEN: Duration = Duration::from_secs(2);

/// Something the thread has to react to; connections are told apart by their number.
#[derive(Debug)]
pub(super) enum Event {
    Say(Message),
    /// The last messages are to be heard until then.
    Close(Instant),
    Told {
        connection: u64,
        reply: Reply,
    },
    /// The launcher has ended the connection, or it broke.
    Over {
        connection: u64,
        end: io::Result<()>,
    },
}

/// A connection that stands.
#[derive(Debug)]
struct Link {
    stream: TcpStream,
    address: SocketAddr,
    /// Nothing more can be written; what reads the stream tells how it ended.
    is_mute: bool,
    /// It broke, as was told when it was written to: who reads the stream may be told of an end.
    is_broken: bool,
}

/// What is known while no connection stands.
#[derive(Debug, Clone, Copy)]
struct Break {
    since: Instant,
    next_try: Instant,
    known: SocketAddr,
    /// Since when nobody has listened at the address known.
    empty_since: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct Control {
    who: Introduction,
    activity: Arc<Activity>,
    own: Sender<Event>,
    events: Receiver<Event>,
    link: Option<Link>,
    broken: Option<Break>,
    connection: u64,
    /// Messages that the launcher may not have heard, in order.
    unheard: VecDeque<Numbered>,
    last_number: u64,
    /// How long the launcher waits for a word, and so how long to look for it.
    patience: Duration,
    next_beat: Instant,
    closing: Option<Instant>,
}

impl Control {
    pub(super) fn new(
        who: Introduction,
        activity: Arc<Activity>,
        own: Sender<Event>,
        events: Receiver<Event>,
    ) -> Self {
        Self {
            who,
            activity,
            own,
            events,
            link: None,
            broken: None,
            connection: 0,
            unheard: VecDeque::new(),
            last_number: 0,
            patience: UNTAKEN,
            next_beat: Instant::now() + HEARTBEAT,
            closing: None,
        }
    }

    /// Serves until the orderly end, or until the launcher is gone.
    pub(super) fn serve(mut self, line: Line, on_lost: impl FnOnce()) {
        self.adopt(line);
        while self.turn().is_some() {}
        if self.closing.is_none() {
            on_lost();
        }
    }

    /// Takes one event in and does what is due; `None` at the end.
    fn turn(&mut self) -> Option<()> {
        let mut until = self.next_beat;
        until = self.broken.map_or(until, |broken| until.min(broken.next_try));
        until = self.closing.map_or(until, |closing| until.min(closing));
        match self.events.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(Event::Say(message)) => self.say(message),
            Ok(Event::Close(until)) => {
                self.closing = Some(until);
                self.finish();
            }
            Ok(Event::Told { connection, reply }) if connection == self.connection => {
                if let Reply::Heard { number } = reply {
                    self.forget(number);
                }
            }
            Ok(Event::Over { connection, end }) if connection == self.connection => {
                self.over(&end)?;
            }
            Ok(_) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
        let now = Instant::now();
        if self.closing.is_some_and(|closing| now >= closing) {
            return None;
        }
        if now >= self.next_beat {
            self.next_beat = now + HEARTBEAT;
            self.beat();
        }
        match self.broken {
            Some(broken) if now >= broken.next_try => self.come_back(broken),
            _ => Some(()),
        }
    }

    fn say(&mut self, message: Message) {
        self.last_number += 1;
        let message = Numbered { number: Some(self.last_number), message };
        self.write(&message);
        self.unheard.push_back(message);
    }

    fn beat(&mut self) {
        if self.closing.is_none() {
            let message = self.activity.heartbeat();
            self.write(&Numbered { number: None, message });
        }
    }

    fn forget(&mut self, heard: u64) {
        while self.unheard.front().is_some_and(|message| message.number <= Some(heard)) {
            self.unheard.pop_front();
        }
    }

    /// Writes a line, where a connection stands. What it cannot take is said again on the next one.
    fn write(&mut self, message: &Numbered) {
        let Some(link) = self.link.as_mut().filter(|link| !link.is_mute) else { return };
        let mut line = serde_json::to_vec(message).expect("messages are plain data");
        line.push(b'\n');
        let Err(error) = link.stream.write_all(&line) else { return };
        link.is_mute = true;
        // The system tells of a break once, either here or where the stream is read. This one error says that
        // the other side had ended it before.
        link.is_broken = error.kind() != ErrorKind::BrokenPipe;
        if link.is_broken {
            let _ = link.stream.shutdown(Shutdown::Both);
        }
    }

    /// Nothing more will be said: the launcher reads to the end and hangs up.
    fn finish(&mut self) {
        if let Some(link) = &mut self.link {
            link.is_mute = true;
            let _ = link.stream.shutdown(Shutdown::Write);
        }
    }

    /// The connection has ended; `None` where that is the end of all.
    fn over(&mut self, end: &io::Result<()>) -> Option<()> {
        let link = self.link.take()?;
        let in_order = end.is_ok() && !link.is_broken;
        if in_order || (self.closing.is_some() && self.unheard.is_empty()) {
            return None;
        }
        let now = Instant::now();
        let known = link.address;
        self.broken = Some(Break { since: now, next_try: now, known, empty_since: None });
        Some(())
    }

    /// Tries to connect anew; `None` once that is of no use.
    fn come_back(&mut self, broken: Break) -> Option<()> {
        let problem = match self.who.once(Some(broken.known), self.patience) {
            Ok(line) => {
                self.adopt(line);
                return Some(());
            }
            Err(problem) => problem,
        };
        let now = Instant::now();
        let is_empty = problem.empty.contains(&broken.known);
        let empty_since = is_empty.then(|| broken.empty_since.unwrap_or(now));
        let is_gone = empty_since.is_some_and(|since| now - since >= GONE);
        if is_gone || problem.refused.is_some() || now - broken.since >= self.patience {
            return None;
        }
        self.broken = Some(Break { next_try: now + PAUSE, empty_since, ..broken });
        Some(())
    }

    /// Goes on over a new connection, with what the launcher has not heard.
    fn adopt(&mut self, line: Line) {
        let Line { stream, mut lines, address, silence, heard, .. } = line;
        self.patience = silence;
        self.broken = None;
        self.connection += 1;
        let untaken = (silence / 2).clamp(LEAST_UNTAKEN, UNTAKEN);
        let _ = stream.set_write_timeout(Some(untaken));
        let _ = stream.set_read_timeout(None);
        // A launcher that is cut off never says good-bye: heartbeats that nobody takes end the
        // connection. Where the system does not know this, the collectives' deadline is left.
        let milliseconds = u32::try_from(untaken.as_millis()).unwrap_or(u32::MAX);
        let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, milliseconds);
        let (own, connection) = (self.own.clone(), self.connection);
        let read = move || {
            let end = loop {
                match next_reply(&mut lines) {
                    Ok(reply) => {
                        if own.send(Event::Told { connection, reply }).is_err() {
                            return;
                        }
                    }
                    Err(error) if error.kind() == ErrorKind::InvalidData => {} // of a later version
                    Err(error) if error.kind() == ErrorKind::UnexpectedEof => break Ok(()),
                    Err(error) => break Err(error),
                }
            };
            let _ = own.send(Event::Over { connection, end });
        };
        if let Err(end) = std::thread::Builder::new().name("control-read".into()).spawn(read) {
            let _ = self.own.send(Event::Over { connection, end: Err(end) });
        }
        self.link = Some(Link { stream, address, is_mute: false, is_broken: false });
        self.forget(heard);
        for message in std::mem::take(&mut self.unheard) {
            self.write(&message);
            self.unheard.push_back(message);
        }
        self.beat();
        if self.closing.is_some() {
            self.finish();
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both); // the thread that reads it ends
    }
}
