//! The thread that serves all control connections of an attempt.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use mio::event::Event as Ready;
use mio::{Events, Interest, Poll, Token, Waker};
use tessera_control::{Message, Numbered, Reply, Secrets, draw_secret};

use super::admission::{Admission, Refusal};
use super::connection::{Chunk, Connection, Peer};
use super::{End, Event, Terms};
use crate::files;

/// How long a new connection may take to say who it is.
const INTRODUCTION: Duration = Duration::from_secs(10);
/// Connections without a hello at most, beside one a worker; of more, the oldest is hung up on.
const STRANGERS: usize = 64;
/// Descriptors for everything but control connections.
const OTHER_FILES: usize = 64;
/// Time until connections are taken again after the system had no more descriptors.
const NO_FILES: Duration = Duration::from_millis(100);
/// Time between two warnings of one kind.
const WARN_EVERY: Duration = Duration::from_secs(60);

const WAKE: Token = Token(usize::MAX);

/// A warning that is not repeated for each of ten thousand strangers.
#[derive(Debug, Default)]
struct Rare {
    told: Option<Instant>,
    untold: u64,
}

impl Rare {
    /// How many there were since the last time, where it is time to say so.
    fn another(&mut self, now: Instant) -> Option<u64> {
        self.untold += 1;
        if self.told.is_some_and(|told| now.duration_since(told) < WARN_EVERY) {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}

pub(super) struct Service {
    poll: Poll,
    waker: Arc<Waker>,
    sockets: Vec<mio::net::TcpListener>,
    /// By number; numbers grow from that of the first socket.
    connections: BTreeMap<usize, Connection>,
    strangers: BTreeSet<usize>,
    most_strangers: usize,
    next: usize,
    admission: Admission,
    silence_seconds: f64,
    environment: Secrets,
    events: Sender<Event>,
    ends: Arc<AtomicBool>,
    buffer: Vec<u8>,
    accept_again: Option<Instant>,
    refused: Rare,
    full: Rare,
}

impl Service {
    pub(super) fn new(
        sockets: Vec<TcpListener>,
        admission: Admission,
        terms: &Terms,
        events: Sender<Event>,
        ends: Arc<AtomicBool>,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        let mut registered = Vec::new();
        for (number, socket) in sockets.into_iter().enumerate() {
            socket.set_nonblocking(true)?;
            let mut socket = mio::net::TcpListener::from_std(socket);
            poll.registry().register(&mut socket, Token(number), Interest::READABLE)?;
            registered.push(socket);
        }
        Ok(Self {
            poll,
            waker,
            next: registered.len(),
            sockets: registered,
            connections: BTreeMap::new(),
            strangers: BTreeSet::new(),
            most_strangers: most_strangers(terms.world_size, files::limit()),
            admission,
            silence_seconds: terms.silence.as_secs_f64(),
            environment: terms.environment.clone(),
            events,
            ends,
            buffer: vec![0; 16 << 10],
            accept_again: None,
            refused: Rare::default(),
            full: Rare::default(),
        })
    }

    /// What ends [`Self::serve`], once it is told to end.
    pub(super) fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.waker)
    }

    /// Serves until it is told to end; then every connection is.
    pub(super) fn serve(mut self) {
        let mut ready = Events::with_capacity(1024);
        while !self.ends.load(Ordering::Acquire) {
            let until = [self.accept_again, self.introduction()].into_iter().flatten().min();
            let wait = until.map(|until| until.saturating_duration_since(Instant::now()));
            // A signal to the launcher interrupts it.
            if self.poll.poll(&mut ready, wait).is_err() {
                continue;
            }
            for event in &ready {
                self.take(event);
            }
            let now = Instant::now();
            if self.accept_again.is_some_and(|at| now >= at) {
                self.accept_again = None;
                (0..self.sockets.len()).for_each(|number| self.accept(number));
            }
            while self.introduction().is_some_and(|until| now >= until) {
                self.hang_up_on_oldest();
            }
        }
        while let Some((_, connection)) = self.connections.pop_first() {
            connection.end(&mut self.buffer);
        }
    }

    fn take(&mut self, ready: &Ready) {
        match ready.token() {
            WAKE => {}
            Token(number) if number < self.sockets.len() => self.accept(number),
            Token(number) => {
                if ready.is_writable()
                    && let Some(connection) = self.connections.get_mut(&number)
                {
                    connection.flush();
                }
                self.read(number);
            }
        }
    }

    /// Until when the oldest stranger has to say who it is.
    fn introduction(&self) -> Option<Instant> {
        let oldest = self.connections.get(self.strangers.first()?)?;
        match oldest.peer {
            Peer::Stranger { since, .. } => Some(since + INTRODUCTION),
            Peer::Worker { .. } => None,
        }
    }

    fn hang_up_on_oldest(&mut self) {
        if let Some(number) = self.strangers.pop_first()
            && let Some(connection) = self.connections.remove(&number)
        {
            connection.end(&mut self.buffer);
        }
    }

    /// Takes all connections that wait at a socket.
    fn accept(&mut self, number: usize) {
        loop {
            match self.sockets[number].accept() {
                Ok((stream, address)) => {
                    let ip = address.ip().to_canonical();
                    if let Err(error) = self.begin(stream, ip) {
                        tracing::debug!(%error, "a control connection cannot be served");
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if is_of_the_connection(&error) => {}
                Err(error) => {
                    self.hang_up_on_oldest(); // its descriptor is free now
                    self.accept_again = Some(Instant::now() + NO_FILES);
                    if self.full.another(Instant::now()).is_some() {
                        self.warn(format!("control connections cannot be taken for now: {error}"));
                    }
                    return;
                }
            }
        }
    }

    fn begin(&mut self, mut stream: mio::net::TcpStream, from: IpAddr) -> io::Result<()> {
        while self.strangers.len() >= self.most_strangers {
            self.hang_up_on_oldest();
        }
        let number = self.next;
        self.next += 1;
        let _ = stream.set_nodelay(true);
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut stream, Token(number), interest)?;
        let challenge = draw_secret()?;
        let peer = Peer::Stranger { since: Instant::now(), challenge: challenge.clone() };
        let mut connection = Connection::new(stream, from.is_loopback(), peer);
        connection.tell(&Reply::Challenge { challenge });
        self.connections.insert(number, connection);
        self.strangers.insert(number);
        Ok(())
    }

    /// Reads what a connection has said.
    fn read(&mut self, number: usize) {
        let mut lines = Vec::new();
        loop {
            let Some(connection) = self.connections.get_mut(&number) else { return };
            let chunk = connection.read(&mut self.buffer, &mut lines);
            let all_taken = lines.drain(..).all(|line| self.hear(number, &line));
            let end = match chunk {
                _ if !all_taken => End::InOrder,
                Chunk::Some => continue,
                Chunk::Dry => break,
                Chunk::End => End::InOrder,
                Chunk::Broken(error) => End::Broken(error.to_string()),
            };
            return self.over(number, end);
        }
        if let Some(connection) = self.connections.get_mut(&number)
            && let Peer::Worker { rank } = connection.peer
        {
            let heard = self.admission.heard(rank);
            connection.acknowledge(heard);
        }
    }

    /// Takes a line of a connection; whether it may go on.
    fn hear(&mut self, number: usize, line: &[u8]) -> bool {
        let Some(connection) = self.connections.get(&number) else { return false };
        match connection.peer.clone() {
            Peer::Stranger { challenge, .. } => self.meet(number, &challenge, line),
            Peer::Worker { rank } => match serde_json::from_slice(line) {
                // Who it is was said.
                Ok(Numbered { message: Message::Hello { .. }, .. }) => false,
                Ok(Numbered { number, message }) => {
                    if number.is_none_or(|number| self.admission.is_new(rank, number)) {
                        let _ = self.events.send(Event::Message { rank, message });
                    }
                    true
                }
                Err(error) => {
                    self.warn(format!("a line of rank {rank} is no message: {error}"));
                    false
                }
            },
        }
    }

    /// Takes the first line of a connection.
    fn meet(&mut self, number: usize, challenge: &str, line: &[u8]) -> bool {
        let Some(connection) = self.connections.get_mut(&number) else { return false };
        let hello = serde_json::from_slice::<Message>(line).ok();
        let admitted = match &hello {
            Some(hello) => self.admission.admit(hello, challenge, connection.is_from_here, number),
            None => Err(Refusal::Stranger),
        };
        let (admitted, hello) = match (admitted, hello) {
            (Ok(admitted), Some(Message::Hello { attempt, rank, world_size, host, pid, .. })) => {
                let (token, proof) = (String::new(), String::new());
                let hello = Message::Hello { token, proof, attempt, rank, world_size, host, pid };
                (admitted, hello)
            }
            (Err(Refusal::Misfit(why)), _) => {
                connection.tell(&Reply::Refused { why: why.clone() });
                self.warn(format!("refused on the control connection: {why}"));
                return false;
            }
            _ => {
                let why = "it does not know the secret of this launch".to_owned();
                connection.tell(&Reply::Refused { why });
                if let Some(times) = self.refused.another(Instant::now()) {
                    self.warn(format!(
                        "control connections without the secret of this launch were refused: {times}"
                    ));
                }
                return false;
            }
        };
        let (rank, heard) = (admitted.rank, admitted.heard);
        connection.peer = Peer::Worker { rank };
        connection.acknowledged = heard;
        // One that comes back has them.
        let environment = if heard == 0 { self.environment.clone() } else { Secrets::default() };
        let silence_seconds = self.silence_seconds;
        connection.tell(&Reply::Welcome { silence_seconds, heard, environment });
        self.strangers.remove(&number);
        if let Some(before) = admitted.replaces {
            self.connections.remove(&before);
        }
        let _ = self.events.send(Event::Message { rank, message: hello });
        true
    }

    /// A connection has ended.
    fn over(&mut self, number: usize, end: End) {
        self.strangers.remove(&number);
        let Some(connection) = self.connections.remove(&number) else { return };
        if let Peer::Worker { rank } = connection.peer {
            self.admission.close(rank);
            let _ = self.events.send(Event::Closed { rank, end });
        }
        connection.end(&mut self.buffer);
    }

    fn warn(&self, text: String) {
        let _ = self.events.send(Event::Warning(text));
    }
}

/// How many connections without a hello there may be, with so many descriptors.
fn most_strangers(world_size: usize, open_files: Option<u64>) -> usize {
    let all = open_files.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX));
    let left = all.saturating_sub(world_size).saturating_sub(OTHER_FILES);
    // All workers may knock at once.
    (world_size + STRANGERS).min(left).max(1)
}

/// Whether a connection was gone before it was taken, and the next one may well be there.
fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::Interrupted
    )
}
