//! The worker's end of the control connection.
//!
//! Two threads serve it, so that a worker stuck in a collective still speaks: one writes messages
//! and a heartbeat a second, the other waits for the launcher to go away. The launcher never
//! sends a byte; an end of file is the only thing it has to say, and a worker that hears it
//! outlives its purpose.

use std::io::{BufWriter, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::{Activity, Message, variables};

/// Time between two heartbeats.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// How long connecting and each write may take.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Between two looks whether everything is sent, at the end.
const LOOK: Duration = Duration::from_millis(2);

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
    #[error("cannot reach the launcher at {address}: {source}")]
    Connect {
        /// Address from [`variables::CONTROL`].
        address: String,
        /// What the system answered.
        source: std::io::Error,
    },
}

/// A worker's connection to its launcher; [`Client::close`] is the orderly end of it.
#[derive(Debug)]
pub struct Client {
    /// `None` once closed.
    open: Mutex<Option<(Sender<Message>, JoinHandle<()>)>>,
    closing: Arc<AtomicBool>,
}

impl Client {
    /// Connects to the launcher named by the environment, or answers `None` without a launcher.
    ///
    /// `on_lost` runs on a thread of the client when the launcher is gone; it must end the process.
    ///
    /// # Errors
    ///
    /// [`ControlError`] if the variables are there but no launcher answers.
    pub fn from_env(
        rank: usize,
        world_size: usize,
        activity: Arc<Activity>,
        on_lost: impl FnOnce() + Send + 'static,
    ) -> Result<Option<Self>, ControlError> {
        let Ok(address) = std::env::var(variables::CONTROL) else { return Ok(None) };
        let token = std::env::var(variables::CONTROL_TOKEN).map_err(|error| {
            ControlError::Variable { name: variables::CONTROL_TOKEN, problem: error.to_string() }
        })?;
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let hello = Message::Hello { token, rank, world_size, host, pid: std::process::id() };
        Self::connect(&address, hello, activity, on_lost).map(Some)
    }

    fn connect(
        address: &str,
        hello: Message,
        activity: Arc<Activity>,
        on_lost: impl FnOnce() + Send + 'static,
    ) -> Result<Self, ControlError> {
        let failed = |source| ControlError::Connect { address: address.to_owned(), source };
        let stream = dial(address).map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        stream.set_write_timeout(Some(TIMEOUT)).map_err(failed)?;
        // A launcher that is cut off never says good-bye: heartbeats that nobody takes end the
        // connection. Where the system does not know this, the collectives' deadline is left.
        let limit = u32::try_from(TIMEOUT.as_millis()).unwrap_or(u32::MAX);
        let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, limit);
        let reading = stream.try_clone().map_err(failed)?;

        let closing = Arc::new(AtomicBool::new(false));
        let (sender, receiver) = channel();
        sender.send(hello).expect("the receiver is held right here");
        let writer = std::thread::Builder::new()
            .name("control-write".into())
            .spawn(move || write_messages(stream, &receiver, &activity))
            .map_err(failed)?;
        let closed = Arc::clone(&closing);
        std::thread::Builder::new()
            .name("control-read".into())
            .spawn(move || {
                wait_for_end(reading);
                if !closed.load(Ordering::Acquire) {
                    on_lost();
                }
            })
            .map_err(failed)?;
        Ok(Self { open: Mutex::new(Some((sender, writer))), closing })
    }

    /// Queues a message; never blocks, and a launcher that is gone is not an error here.
    pub fn send(&self, message: Message) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((sender, _)) = &*open {
            let _ = sender.send(message);
        }
    }

    /// Sends what is queued and ends the connection.
    pub fn close(&self) {
        self.close_within(TIMEOUT);
    }

    /// The same, for whoever cannot wait longer for a network that takes nothing.
    pub fn close_within(&self, limit: Duration) {
        self.closing.store(true, Ordering::Release);
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((sender, writer)) = open {
            drop(sender);
            let deadline = Instant::now() + limit;
            while !writer.is_finished() && Instant::now() < deadline {
                std::thread::sleep(LOOK);
            }
        }
    }
}

fn dial(address: &str) -> std::io::Result<TcpStream> {
    let mut refused = std::io::Error::other("the name has no address");
    for address in std::net::ToSocketAddrs::to_socket_addrs(address)? {
        match TcpStream::connect_timeout(&address, TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

/// Writes each message as it comes, and a heartbeat a second whatever else is said, until the sender is
/// dropped.
fn write_messages(stream: TcpStream, receiver: &Receiver<Message>, activity: &Activity) {
    let mut out = BufWriter::new(stream);
    let mut next = Instant::now() + HEARTBEAT;
    loop {
        let left = next.saturating_duration_since(Instant::now());
        let message = match receiver.recv_timeout(left) {
            Ok(message) => message,
            Err(RecvTimeoutError::Timeout) => {
                next = Instant::now() + HEARTBEAT;
                activity.heartbeat()
            }
            Err(RecvTimeoutError::Disconnected) => break,
        };
        let mut line = serde_json::to_vec(&message).expect("messages are plain data");
        line.push(b'\n');
        if out.write_all(&line).and_then(|()| out.flush()).is_err() {
            return; // the reading thread notices the same and ends the process
        }
    }
    if let Ok(stream) = out.into_inner() {
        let _ = stream.shutdown(std::net::Shutdown::Both);
    }
}

/// Returns when the other side has closed the connection, or it broke.
fn wait_for_end(mut stream: TcpStream) {
    let mut byte = [0u8; 1];
    while matches!(stream.read(&mut byte), Ok(1)) {}
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;

    use super::*;

    fn hello() -> Message {
        Message::Hello { token: "t".into(), rank: 1, world_size: 2, host: "h".into(), pid: 3 }
    }

    #[test]
    fn messages_arrive_in_order_and_close_is_no_loss() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let lost = Arc::new(AtomicBool::new(false));
        let noted = Arc::clone(&lost);
        let client = Client::connect(&address, hello(), Arc::default(), move || {
            noted.store(true, Ordering::Release);
        })
        .unwrap();
        client.send(Message::Notice { text: "first".into() });
        client.close();

        let lines: Vec<Message> = BufReader::new(listener.accept().unwrap().0)
            .lines()
            .map(|line| serde_json::from_str(&line.unwrap()).unwrap())
            .collect();
        assert_eq!(lines, [hello(), Message::Notice { text: "first".into() }]);
        assert!(!lost.load(Ordering::Acquire));
    }

    #[test]
    fn a_launcher_that_goes_away_is_noticed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (told, hears) = channel();
        let client =
            Client::connect(&address, hello(), Arc::default(), move || told.send(()).unwrap())
                .unwrap();
        drop(listener.accept().unwrap());
        hears.recv_timeout(Duration::from_secs(20)).expect("the loss is told");
        client.close();
    }
}
