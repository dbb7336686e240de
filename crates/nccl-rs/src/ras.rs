//! Asking NCCL itself what has become of a job: its RAS subsystem.
//!
//! Since 2.24 every process with a communicator has a thread that knows those of the other
//! processes, and one of each host answers questions on a socket ([`DEFAULT_ADDRESS`] unless
//! `NCCL_RAS_ADDR` says otherwise; `NCCL_RAS_ENABLE=0` turns it off). It is asked in lines of text,
//! by any process of the host, and needs neither the library nor a GPU here: [`ask`] is a client for
//! it. Where ranks hang, the answer tells who has launched fewer operations than the others, and
//! which processes do not answer.
//!
//! A question has one deadline for everything, since whoever asks does so on the way to its end.
//! NCCL waits for other processes in whole seconds, so a deadline below two of them may pass
//! before it says which of them are silent; what had come until then is the answer.
//!
//! Several jobs on one host share the port unless each has a `NCCL_RAS_ADDR` of its own, and the
//! kernel picks who answers: compare the process numbers that an answer names.
//!
//! See <https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/troubleshooting/ras.html>. NCCL's
//! JSON (since 2.28) and its events are not read.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// Where NCCL answers on each host.
pub const DEFAULT_ADDRESS: &str = "localhost:28028";

/// The environment variable with another address, which NCCL reads too.
pub const ADDRESS_VARIABLE: &str = "NCCL_RAS_ADDR";

/// The environment variable that turns RAS off unless it is 1.
pub const ENABLE_VARIABLE: &str = "NCCL_RAS_ENABLE";

/// The version of the protocol that all releases so far speak.
const PROTOCOL: u32 = 2;
/// How long one process of the job is waited for before another is greeted as well. All of a host
/// share the port, and the system may pick one that stands still, again and again.
const GREETING: Duration = Duration::from_millis(50);
/// How many are greeted at most: where every second process stands still, one answers all but surely.
const GREETINGS: usize = 32;
/// Longest line of an answer to anything but the question itself.
const LINE_BYTES: u64 = 1024;
/// Longest answer that is read.
const ANSWER_BYTES: u64 = 4 << 20;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nobody listens: NCCL is older than 2.24, has no communicator here, or its RAS is off.
    #[error("NCCL RAS could not be reached at {address}: {reason}")]
    Connect {
        /// Where it was looked for.
        address: String,
        /// What the system said.
        reason: String,
    },
    /// Whoever listens there is not RAS, or does not understand.
    #[error("expected '{expected}' of NCCL RAS, found '{found}'")]
    Protocol {
        /// What should have come.
        expected: &'static str,
        /// What came.
        found: String,
    },
    /// The connection broke.
    #[error("the connection to NCCL RAS broke: {reason}")]
    Broken {
        /// What the system said.
        reason: String,
    },
    /// Nothing of the answer came in time.
    #[error("NCCL RAS has not answered for {waited:?}")]
    Deadline {
        /// The deadline.
        waited: Duration,
    },
}

/// How much to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Detail {
    /// A summary, with the ranks that differ where they are few.
    Status,
    /// All ranks that differ.
    Verbose,
}

/// What NCCL said.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answer {
    /// In NCCL's own words, several lines.
    pub text: String,
    /// Whether it had come to its end when the deadline passed.
    pub is_complete: bool,
}

impl Answer {
    /// The lines under NCCL's headings "Errors" and "Warnings": none if it found nothing wrong.
    pub fn findings(&self) -> impl Iterator<Item = &str> {
        let lines = self.text.lines().map(str::trim);
        let behind = lines.skip_while(|line| *line != "Errors");
        behind.filter(|line| {
            let is_heading = matches!(*line, "Errors" | "Warnings") || line.starts_with("===");
            !line.is_empty() && !is_heading
        })
    }
}

/// Where NCCL's processes on this host answer, from the environment that they share with this one;
/// none if RAS is turned off there.
pub fn address() -> Option<String> {
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let is_on = variable(ENABLE_VARIABLE).is_none_or(|value| value.trim() == "1");
    is_on.then(|| variable(ADDRESS_VARIABLE).unwrap_or_else(|| DEFAULT_ADDRESS.to_owned()))
}

/// Asks the job whose RAS listens at `address` (`host:port`) how it is.
///
/// Returns at the deadline at the latest, with what had come until then, if anything had.
///
/// # Errors
///
/// [`Error::Connect`], [`Error::Protocol`], [`Error::Broken`], [`Error::Deadline`].
pub fn ask(address: &str, detail: Detail, deadline: Duration) -> Result<Answer, Error> {
    let end = Instant::now() + deadline;
    let (told, hears) = channel();
    let to = address.to_owned();
    // A name that is looked up, and a socket, can take longer than they were given.
    std::thread::Builder::new()
        .name("nccl-ras".into())
        .spawn(move || {
            let ended = converse(&to, detail, end, &told);
            let _ = told.send(Event::End(ended)); // the caller may have given up
        })
        .map_err(|error| Error::Connect {
            address: address.to_owned(),
            reason: error.to_string(),
        })?;
    let mut text = Vec::new();
    let ended = loop {
        match hears.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(Event::Text(more)) => text.extend(more),
            Ok(Event::End(ended)) => break ended,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                break Err(Error::Deadline { waited: deadline });
            }
        }
    };
    let answer = |is_complete| {
        let text = String::from_utf8_lossy(&text).into_owned();
        Answer { text, is_complete }
    };
    match ended {
        Ok(()) => Ok(answer(true)),
        Err(_) if !text.is_empty() => Ok(answer(false)),
        Err(Error::Deadline { .. }) => Err(Error::Deadline { waited: deadline }),
        Err(error) => Err(error),
    }
}

enum Event {
    Text(Vec<u8>),
    End(Result<(), Error>),
}

/// One question from the first byte to the last; the answer goes to `told` as it comes.
fn converse(
    address: &str,
    detail: Detail,
    end: Instant,
    told: &Sender<Event>,
) -> Result<(), Error> {
    let mut from = first_to_greet(address, end)?;
    // NCCL takes whole seconds, and none of them for no limit.
    let seconds = end.saturating_duration_since(Instant::now()).as_secs().max(1);
    say(&mut from, &format!("TIMEOUT {seconds}\n"), end)?;
    expect(&mut from, "OK", end)?;
    let question = match detail {
        Detail::Status => "STATUS\n",
        Detail::Verbose => "VERBOSE STATUS\n",
    };
    say(&mut from, question, end)?;
    let mut left = ANSWER_BYTES;
    while left > 0 {
        wait_until(from.get_ref(), end)?;
        let piece = from.fill_buf().map_err(broken)?.to_vec();
        if piece.is_empty() {
            return Ok(());
        }
        from.consume(piece.len());
        left = left.saturating_sub(piece.len() as u64);
        if told.send(Event::Text(piece)).is_err() {
            break; // the caller has given up
        }
    }
    Ok(())
}

/// The first process that greets back, of several that are greeted one after another.
fn first_to_greet(address: &str, end: Instant) -> Result<BufReader<TcpStream>, Error> {
    let (sender, greeted) = channel();
    let mut pending = 0;
    let mut failed = None;
    for _ in 0..GREETINGS {
        let (to, sender) = (address.to_owned(), sender.clone());
        std::thread::Builder::new()
            .name("nccl-ras-greets".into())
            .spawn(move || {
                let _ = sender.send(greet(&to, end)); // another may have been first
            })
            .map_err(broken)?;
        pending += 1;
        let next = end.min(Instant::now() + GREETING);
        if let Some(from) = await_greeting(&greeted, next, &mut pending, &mut failed) {
            return Ok(from);
        }
        if pending == 0 || Instant::now() >= end {
            break;
        }
    }
    let last = await_greeting(&greeted, end, &mut pending, &mut failed);
    last.ok_or_else(|| failed.unwrap_or(Error::Deadline { waited: Duration::ZERO }))
}

/// Waits until one has greeted or none of those that are pending can; keeps why the first failed.
fn await_greeting(
    greeted: &Receiver<Result<BufReader<TcpStream>, Error>>,
    until: Instant,
    pending: &mut usize,
    failed: &mut Option<Error>,
) -> Option<BufReader<TcpStream>> {
    while *pending > 0 {
        let left = until.saturating_duration_since(Instant::now());
        match greeted.recv_timeout(left).ok()? {
            Ok(from) => return Some(from),
            Err(error) => {
                *pending -= 1;
                failed.get_or_insert(error);
            }
        }
    }
    None
}

fn greet(address: &str, end: Instant) -> Result<BufReader<TcpStream>, Error> {
    let mut from = BufReader::new(connect(address, end)?);
    say(&mut from, &format!("CLIENT PROTOCOL {PROTOCOL}\n"), end)?;
    expect(&mut from, "SERVER PROTOCOL ", end)?;
    Ok(from)
}

fn connect(address: &str, end: Instant) -> Result<TcpStream, Error> {
    let failed = |reason: String| Error::Connect { address: address.to_owned(), reason };
    let all = address.to_socket_addrs().map_err(|error| failed(error.to_string()))?;
    let mut last = "the name has no address".to_owned();
    for one in all {
        match connect_to(&one, end) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error.to_string(),
        }
    }
    Err(failed(last))
}

fn connect_to(address: &SocketAddr, end: Instant) -> io::Result<TcpStream> {
    let left = end.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    TcpStream::connect_timeout(address, left)
}

/// Lets the socket's next call wait no longer than until `end`.
fn wait_until(stream: &TcpStream, end: Instant) -> Result<(), Error> {
    // A socket takes zero for no limit.
    let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    let set = stream.set_read_timeout(Some(left));
    set.and_then(|()| stream.set_write_timeout(Some(left))).map_err(broken)
}

fn say(to: &mut BufReader<TcpStream>, line: &str, end: Instant) -> Result<(), Error> {
    wait_until(to.get_ref(), end)?;
    to.get_mut().write_all(line.as_bytes()).map_err(broken)
}

fn expect(from: &mut BufReader<TcpStream>, start: &'static str, end: Instant) -> Result<(), Error> {
    wait_until(from.get_ref(), end)?;
    let mut line = Vec::new();
    from.take(LINE_BYTES).read_until(b'\n', &mut line).map_err(broken)?;
    let found = String::from_utf8_lossy(&line).trim_end().to_owned();
    let begins = found.get(..start.len()).is_some_and(|f| f.eq_ignore_ascii_case(start));
    if begins { Ok(()) } else { Err(Error::Protocol { expected: start.trim_end(), found }) }
}

fn broken(error: io::Error) -> Error {
    use io::ErrorKind::{TimedOut, WouldBlock};
    match error.kind() {
        // A socket's words for its time limit; the caller knows the whole one.
        TimedOut | WouldBlock => Error::Deadline { waited: Duration::ZERO },
        _ => Error::Broken { reason: error.to_string() },
    }
}
