//! One control connection: bytes in, lines out, and what could not be written yet.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::Instant;

use mio::net::TcpStream;
use tessera_control::Reply;

/// The longest hello.
const LONGEST_HELLO: usize = 4 << 10;
/// A line longer than this is no message.
const LONGEST_LINE: usize = 1 << 20;
/// What waits to be written at most; of more acknowledgements a later one makes up for those left out.
const MOST_WAITING: usize = 4 << 10;

/// Who is at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Peer {
    /// Nobody who has said hello, since then; what its hello has to answer.
    Stranger { since: Instant, challenge: String },
    /// A worker.
    Worker { rank: usize },
}

/// What one read has come to.
#[derive(Debug)]
pub(super) enum Chunk {
    /// There may be more.
    Some,
    /// There is no more for now.
    Dry,
    /// The other side has ended it, or says what is no line.
    End,
    /// It broke.
    Broken(io::Error),
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    pub(super) is_from_here: bool,
    pub(super) peer: Peer,
    /// Up to which number the other side was told that its messages were heard.
    pub(super) acknowledged: u64,
    /// The beginning of a line.
    begun: Vec<u8>,
    waiting: Vec<u8>,
    /// Why it broke, as was told when it was written to: a read is told of an end then.
    broken: Option<io::Error>,
}

impl Connection {
    pub(super) fn new(stream: TcpStream, is_from_here: bool, peer: Peer) -> Self {
        Self {
            stream,
            is_from_here,
            peer,
            acknowledged: 0,
            begun: Vec::new(),
            waiting: Vec::new(),
            broken: None,
        }
    }

    /// Reads once, with `buffer`'s space; whole lines go to `lines`.
    pub(super) fn read(&mut self, buffer: &mut [u8], lines: &mut Vec<Vec<u8>>) -> Chunk {
        let got = match self.stream.read(buffer) {
            Ok(0) => return self.broken.take().map_or(Chunk::End, Chunk::Broken),
            Ok(got) => got,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Chunk::Dry,
            Err(error) if error.kind() == ErrorKind::Interrupted => return Chunk::Some,
            Err(error) => return Chunk::Broken(error),
        };
        let mut pieces = buffer[..got].split(|&byte| byte == b'\n');
        let rest = pieces.next_back().unwrap_or_default();
        for piece in pieces {
            let mut line = std::mem::take(&mut self.begun);
            line.extend_from_slice(piece);
            lines.push(line);
        }
        self.begun.extend_from_slice(rest);
        let longest = match self.peer {
            Peer::Stranger { .. } => LONGEST_HELLO,
            Peer::Worker { .. } => LONGEST_LINE,
        };
        if self.begun.len() > longest { Chunk::End } else { Chunk::Some }
    }

    /// Writes a line, as far as the other side takes it now; the rest goes when it takes more.
    pub(super) fn tell(&mut self, reply: &Reply) {
        serde_json::to_writer(&mut self.waiting, reply).expect("replies are plain data");
        self.waiting.push(b'\n');
        self.flush();
    }

    /// Says up to which number messages were heard, where that is news.
    pub(super) fn acknowledge(&mut self, heard: u64) {
        if heard > self.acknowledged && self.waiting.len() < MOST_WAITING {
            self.acknowledged = heard;
            self.tell(&Reply::Heard { number: heard });
        }
    }

    /// Writes what waits; an error is told by the next read.
    pub(super) fn flush(&mut self) {
        while !self.waiting.is_empty() {
            match self.stream.write(&self.waiting) {
                Ok(written) => drop(self.waiting.drain(..written)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => {
                    self.waiting.clear();
                    // This one says that the other side had ended it before.
                    self.broken = Some(error).filter(|e| e.kind() != ErrorKind::BrokenPipe);
                    return;
                }
            }
        }
    }

    /// Ends it so that the other side hears an end, and not a break: nothing that it has said may be left
    /// unread.
    pub(super) fn end(mut self, buffer: &mut [u8]) {
        let _ = self.stream.shutdown(Shutdown::Write);
        while matches!(self.stream.read(buffer), Ok(1..)) {}
    }
}
