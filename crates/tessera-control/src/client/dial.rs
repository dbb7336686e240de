//! Finding the launcher: each of its addresses in turn, and who answers there.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use super::ControlError;
use crate::{Message, Reply, Secrets, proof};

/// How long one address may take to answer; others may follow.
const CONNECT: Duration = Duration::from_secs(3);
/// How long the launcher may take for each line of the introduction: it may have thousands to meet.
const ANSWER: Duration = Duration::from_secs(20);
/// Time between two rounds over all addresses.
const PAUSE: Duration = Duration::from_millis(500);
/// A line longer than this is none of a launcher's.
const LONGEST_LINE: u64 = 1 << 20;

/// Who speaks, to whom, and how it shows that it may.
#[derive(Debug, Clone)]
pub(super) struct Introduction {
    /// `HOST:PORT`, several with commas between them.
    pub(super) addresses: String,
    pub(super) secret: String,
    pub(super) attempt: Option<String>,
    pub(super) rank: usize,
    pub(super) world_size: usize,
    pub(super) host: String,
    pub(super) pid: u32,
}

/// A connection whose hello was taken.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) stream: TcpStream,
    /// The same stream, with what was read of it.
    pub(super) lines: BufReader<TcpStream>,
    pub(super) address: SocketAddr,
    /// How long the launcher waits for a word.
    pub(super) silence: Duration,
    /// The highest number of ours that it has heard.
    pub(super) heard: u64,
    /// Variables that it sends.
    pub(super) environment: Secrets,
}

/// What came of trying every address once.
#[derive(Debug)]
pub(super) struct NoAnswer {
    /// What a launcher said that does not take this worker.
    pub(super) refused: Option<String>,
    /// Addresses at whose host nobody listens.
    pub(super) empty: Vec<SocketAddr>,
    /// How many were tried.
    tried: usize,
    /// What the system answered last.
    error: io::Error,
}

impl NoAnswer {
    /// Whether trying again is of no use: no address is one, or the launcher of this very host, which listens
    /// before it starts anybody, is gone.
    fn is_final(&self) -> bool {
        let here = self.empty.iter().filter(|address| address.ip().is_loopback()).count();
        here == self.tried && (self.tried > 0 || self.error.kind() == ErrorKind::InvalidInput)
    }
}

impl Introduction {
    /// Tries every address, again and again until `deadline`.
    pub(super) fn until(&self, deadline: Instant) -> Result<Line, ControlError> {
        let begun = Instant::now();
        let addresses = self.addresses.clone();
        loop {
            let problem = match self.once(None, ANSWER) {
                Ok(line) => return Ok(line),
                Err(NoAnswer { refused: Some(why), .. }) => {
                    return Err(ControlError::Refused { addresses, why });
                }
                Err(problem) => problem,
            };
            if problem.is_final() || Instant::now() + PAUSE > deadline {
                let (seconds, source) = (begun.elapsed().as_secs_f64(), problem.error);
                return Err(ControlError::Connect { addresses, seconds, source });
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Tries every address once, `known` first; each line of the introduction may take so long.
    pub(super) fn once(
        &self,
        known: Option<SocketAddr>,
        answer: Duration,
    ) -> Result<Line, NoAnswer> {
        let error = io::Error::other("it has no address");
        let mut problem = NoAnswer { refused: None, empty: Vec::new(), tried: 0, error };
        let mut tries = |address: SocketAddr| -> Option<Line> {
            problem.tried += 1;
            match self.introduce(address, answer.min(ANSWER)) {
                Ok(Ok(line)) => return Some(line),
                Ok(Err(why)) => problem.refused = Some(why),
                Err(error) => {
                    if error.kind() == ErrorKind::ConnectionRefused {
                        problem.empty.push(address);
                    }
                    problem.error = error;
                }
            }
            None
        };
        if let Some(line) = known.and_then(&mut tries) {
            return Ok(line);
        }
        let mut unknown = None;
        // A name is only asked for when it is its turn: that can take as long as a network that leads nowhere.
        for name in self.addresses.split(',') {
            match name.trim().to_socket_addrs() {
                Ok(addresses) => {
                    let mut others = addresses.filter(|&other| Some(other) != known);
                    if let Some(line) = others.find_map(&mut tries) {
                        return Ok(line);
                    }
                }
                Err(error) => unknown = Some(error),
            }
        }
        if let (0, Some(error)) = (problem.tried, unknown) {
            problem.error = error;
        }
        Err(problem)
    }

    /// Says hello at one address; the inner error is the launcher's refusal.
    fn introduce(&self, address: SocketAddr, answer: Duration) -> io::Result<Result<Line, String>> {
        let mut stream = TcpStream::connect_timeout(&address, CONNECT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(answer))?;
        stream.set_write_timeout(Some(answer))?;
        let mut lines = BufReader::new(stream.try_clone()?);
        let Reply::Challenge { challenge } = next_reply(&mut lines)? else {
            return Err(no_launcher());
        };
        let mut hello = serde_json::to_vec(&self.hello(&challenge)).expect("plain data");
        hello.push(b'\n');
        stream.write_all(&hello)?;
        match next_reply(&mut lines)? {
            Reply::Welcome { silence_seconds, heard, environment } => {
                let silence =
                    Duration::try_from_secs_f64(silence_seconds).map_err(|_| no_launcher())?;
                Ok(Ok(Line { stream, lines, address, silence, heard, environment }))
            }
            Reply::Refused { why } => Ok(Err(why)),
            Reply::Challenge { .. } | Reply::Heard { .. } => Err(no_launcher()),
        }
    }

    fn hello(&self, challenge: &str) -> Message {
        let Self { secret, attempt, rank, world_size, host, .. } = self;
        let of = attempt.as_deref().unwrap_or_default();
        Message::Hello {
            token: String::new(),
            proof: proof(secret, challenge, of, *rank),
            attempt: attempt.clone(),
            rank: *rank,
            world_size: *world_size,
            host: host.clone(),
            pid: self.pid,
        }
    }
}

/// The next line; its end, or one that is none of a launcher's, is an error.
pub(super) fn next_reply(lines: &mut BufReader<TcpStream>) -> io::Result<Reply> {
    let mut line = Vec::new();
    lines.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Err(io::Error::new(ErrorKind::UnexpectedEof, "it hung up"));
    }
    serde_json::from_slice(&line).map_err(|_| no_launcher())
}

fn no_launcher() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "what answers there is no launcher of this version")
}
