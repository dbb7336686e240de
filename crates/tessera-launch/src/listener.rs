//! The launcher's end of the control connections, and the one channel that everything goes into.

use std::io::{self, BufRead, BufReader, Read};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tessera_control::Message;

/// A line longer than this is no message.
const LONGEST_LINE: u64 = 1 << 20;
/// How long a new connection may take to say who it is.
const INTRODUCTION: Duration = Duration::from_secs(10);

/// Which of the child's streams a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Out,
    Err,
}

/// Something the launcher has to react to.
#[derive(Debug)]
pub(crate) enum Event {
    /// A worker with the right token said something; its first message is a hello.
    Message { rank: usize, message: Message },
    /// The connection of a worker ended.
    Closed { rank: usize },
    /// `mpirun`, or a worker through it, printed a line.
    Line { stream: Stream, text: String },
    /// No more lines will come from this stream.
    EndOfStream,
    /// The launcher got this signal.
    Signal(i32),
}

/// A listening socket whose connections feed the channel.
#[derive(Debug)]
pub(crate) struct Listener {
    /// `HOST:PORT` as workers reach it.
    pub(crate) address: String,
    /// The secret that a hello must repeat.
    pub(crate) token: String,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Listener {
    /// Listens on this host alone, or for `remote` workers on all its interfaces.
    pub(crate) fn open(remote: bool, events: Sender<Event>) -> io::Result<Self> {
        let socket = TcpListener::bind(if remote { "0.0.0.0:0" } else { "127.0.0.1:0" })?;
        let port = socket.local_addr()?.port();
        let host = if remote { host_name() } else { "127.0.0.1".into() };
        let token = random_token()?;
        let streams = Arc::new(Mutex::new(Vec::new()));
        let (secret, kept) = (token.clone(), Arc::clone(&streams));
        std::thread::Builder::new()
            .name("control-accept".into())
            .spawn(move || accept(&socket, &secret, &kept, &events))?;
        Ok(Self { address: format!("{host}:{port}"), token, streams })
    }

    /// Ends every connection: a worker that still lives somewhere hears it and leaves.
    pub(crate) fn close(&self) {
        for stream in self.streams.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// Name of this host.
pub(crate) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
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

/// Serves until the process ends; each connection has a thread, as there is one a GPU.
fn accept(
    socket: &TcpListener,
    token: &str,
    streams: &Mutex<Vec<TcpStream>>,
    events: &Sender<Event>,
) {
    for stream in socket.incoming().flatten() {
        let Ok(kept) = stream.try_clone() else { continue };
        streams.lock().unwrap_or_else(PoisonError::into_inner).push(kept);
        let (token, events) = (token.to_owned(), events.clone());
        let serve = move || serve(stream, &token, &events);
        if let Err(error) = std::thread::Builder::new().name("control".into()).spawn(serve) {
            tracing::warn!(%error, "cannot serve a control connection");
        }
    }
}

fn serve(stream: TcpStream, token: &str, events: &Sender<Event>) {
    let _ = stream.set_read_timeout(Some(INTRODUCTION));
    let Ok(control) = stream.try_clone() else { return };
    let mut lines = BufReader::new(stream);
    let hello = match next_message(&mut lines) {
        Some(Message::Hello { token: told, rank, world_size, host, pid }) if told == token => {
            Message::Hello { token: String::new(), rank, world_size, host, pid }
        }
        _ => {
            tracing::warn!("a control connection without the token was refused");
            let _ = control.shutdown(Shutdown::Both);
            return;
        }
    };
    let Message::Hello { rank, .. } = hello else { return };
    let _ = control.set_read_timeout(None); // Silence is judged by the supervision.
    let _ = events.send(Event::Message { rank, message: hello });
    while let Some(message) = next_message(&mut lines) {
        if events.send(Event::Message { rank, message }).is_err() {
            return;
        }
    }
    let _ = events.send(Event::Closed { rank });
}

/// The next message; `None` at the end of the connection and at a line that is no message.
fn next_message(lines: &mut BufReader<TcpStream>) -> Option<Message> {
    let mut line = Vec::new();
    lines.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line).ok()?;
    if line.is_empty() {
        return None;
    }
    serde_json::from_slice(&line)
        .map_err(|error| tracing::warn!(%error, "a line on the control connection is no message"))
        .ok()
}

/// 128 bits from the kernel, in hexadecimal.
fn random_token() -> io::Result<String> {
    let mut bytes = [0u8; 16];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::mpsc::channel;

    use super::*;

    fn say(address: &str, token: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).unwrap();
        let hello = format!(
            r#"{{"type":"hello","token":"{token}","rank":1,"world_size":2,"host":"h","pid":3}}"#
        );
        writeln!(stream, "{hello}").unwrap();
        stream
    }

    #[test]
    fn only_a_worker_with_the_token_is_heard() {
        let (sender, events) = channel();
        let listener = Listener::open(false, sender).unwrap();
        let mut stranger = say(&listener.address, "guess");
        assert_eq!(stranger.read(&mut [0]).unwrap(), 0, "the stranger is hung up on");

        drop(say(&listener.address, &listener.token));
        let within = Duration::from_secs(20);
        let first = events.recv_timeout(within).unwrap();
        assert!(matches!(first, Event::Message { rank: 1, message: Message::Hello { .. } }));
        assert!(matches!(events.recv_timeout(within).unwrap(), Event::Closed { rank: 1 }));
    }
}
