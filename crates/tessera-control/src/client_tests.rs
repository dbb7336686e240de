use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};

use rustix::net::sockopt::set_socket_linger;

use super::*;
use crate::{Numbered, Reply, is_proof};

/// Far above what anything here takes.
const WITHIN: Duration = Duration::from_secs(20);

/// A launcher played by the test.
struct Launcher {
    listener: TcpListener,
}

/// One of its connections.
struct Heard {
    stream: TcpStream,
    lines: BufReader<TcpStream>,
}

impl Launcher {
    fn open() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").unwrap() }
    }

    fn address(&self) -> String {
        self.listener.local_addr().unwrap().to_string()
    }

    /// Takes the next connection and its hello.
    fn accept(&self) -> Heard {
        let (stream, _) = self.listener.accept().unwrap();
        let mut heard = Heard { lines: BufReader::new(stream.try_clone().unwrap()), stream };
        heard.tell(&Reply::Challenge { challenge: "c0ffee".into() });
        let Message::Hello { token, proof, attempt, rank: 1, .. } = heard.next().message else {
            panic!("no hello of rank 1");
        };
        assert_eq!((token.as_str(), attempt.as_deref()), ("", Some("9f3a07c2b1d4-0")));
        assert!(is_proof(&proof, "secret", "c0ffee", "9f3a07c2b1d4-0", 1));
        heard
    }
}

impl Heard {
    fn tell(&mut self, reply: &Reply) {
        writeln!(self.stream, "{}", serde_json::to_string(reply).unwrap()).unwrap();
    }

    fn welcome(mut self, silence_seconds: f64, heard: u64) -> Self {
        let environment = Secrets([("API_TOKEN".to_owned(), "hidden".to_owned())].into());
        self.tell(&Reply::Welcome { silence_seconds, heard, environment });
        self
    }

    fn next(&mut self) -> Numbered {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    /// The notices of the rest of the connection, with their numbers.
    fn notices(mut self) -> Vec<(u64, String)> {
        let mut notices = Vec::new();
        let mut line = String::new();
        while self.lines.read_line(&mut line).unwrap() > 0 {
            if let Numbered { number: Some(number), message: Message::Notice { text } } =
                serde_json::from_str(&line).unwrap()
            {
                notices.push((number, text));
            }
            line.clear();
        }
        notices
    }

    /// Ends as a network does that forgets the connection.
    fn reset(self) {
        set_socket_linger(&self.stream, Some(Duration::ZERO)).unwrap();
    }
}

fn introduction(addresses: String) -> Introduction {
    let (secret, attempt) = ("secret".into(), Some("9f3a07c2b1d4-0".into()));
    let host = "h".into();
    Introduction { addresses, secret, attempt, rank: 1, world_size: 2, host, pid: 3 }
}

fn notice(text: &str) -> Message {
    Message::Notice { text: text.into() }
}

/// Plays the launcher beside a client; both results.
fn beside<T: Send>(
    addresses: String,
    play: impl FnOnce() -> T + Send,
    speak: impl FnOnce(Client, &Receiver<()>),
) -> T {
    std::thread::scope(|scope| {
        let launcher = scope.spawn(play);
        let (told, lost) = channel();
        let on_lost = move || told.send(()).unwrap();
        let who = introduction(addresses);
        let mut sent = Secrets::default();
        let take = |secrets| sent = secrets;
        let client = Client::connect(who, WITHIN, Arc::default(), take, on_lost).unwrap();
        assert_eq!(sent.0["API_TOKEN"], "hidden");
        speak(client, &lost);
        launcher.join().unwrap()
    })
}

#[test]
fn messages_arrive_in_order_and_close_is_no_loss() {
    let launcher = Launcher::open();
    let play = || launcher.accept().welcome(60.0, 0).notices();
    let notices = beside(launcher.address(), play, |client, lost| {
        client.send(notice("first"));
        client.send(notice("second"));
        client.close();
        assert!(lost.try_recv().is_err());
    });
    assert_eq!(notices, [(1, "first".into()), (2, "second".into())]);
}

#[test]
fn a_launcher_that_goes_away_in_good_order_is_lost_at_once() {
    let launcher = Launcher::open();
    let play = || drop(launcher.accept().welcome(3600.0, 0));
    beside(launcher.address(), play, |client, lost| {
        lost.recv_timeout(WITHIN).expect("the loss is told");
        client.close();
    });
}

#[test]
fn what_was_not_heard_at_a_break_is_said_again_and_nothing_twice() {
    let launcher = Launcher::open();
    let play = || {
        let mut first = launcher.accept().welcome(60.0, 0);
        while first.next().number != Some(2) {}
        first.reset();
        // The first message had arrived, the second had not.
        launcher.accept().welcome(60.0, 1).notices()
    };
    let notices = beside(launcher.address(), play, |client, lost| {
        client.send(notice("first"));
        client.send(notice("second"));
        client.send(notice("third"));
        client.close();
        assert!(lost.try_recv().is_err());
    });
    assert_eq!(notices, [(2, "second".into()), (3, "third".into())]);
}

#[test]
fn what_was_heard_is_not_kept() {
    let launcher = Launcher::open();
    let address = launcher.address();
    let (tells, is_reset) = channel();
    let play = move || {
        let mut first = launcher.accept().welcome(60.0, 0);
        while first.next().number != Some(2) {}
        first.tell(&Reply::Heard { number: 2 });
        // A heartbeat may be on its way already; the second one follows what was told.
        for _ in 0..2 {
            while first.next().number.is_some() {}
        }
        first.reset();
        tells.send(()).unwrap();
        launcher.accept().welcome(60.0, 0).notices()
    };
    let notices = beside(address, play, |client, _| {
        client.send(notice("first"));
        client.send(notice("second"));
        is_reset.recv_timeout(WITHIN).unwrap();
        client.send(notice("third"));
        client.close();
    });
    assert_eq!(notices, [(3, "third".into())]);
}

#[test]
fn a_worker_looks_for_its_launcher_as_long_as_that_one_waits_for_it() {
    let launcher = Launcher::open();
    let begun = Instant::now();
    let address = launcher.address();
    let play = move || {
        let mut first = launcher.accept().welcome(1.0, 0);
        first.next();
        first.reset(); // and nobody listens any more
    };
    beside(address, play, |client, lost| {
        lost.recv_timeout(WITHIN).expect("the loss is told");
        client.close();
    });
    assert!(begun.elapsed() >= Duration::from_secs(1));
}

#[test]
fn the_addresses_are_tried_in_turn() {
    let launcher = Launcher::open();
    // Nobody listens at the first, and the second is no name.
    let empty = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let addresses = format!("{empty},no.such.host.invalid:1,{}", launcher.address());
    let play = || launcher.accept().welcome(60.0, 0).notices();
    let notices = beside(addresses, play, |client, _| {
        client.send(notice("here"));
        client.close();
    });
    assert_eq!(notices, [(1, "here".into())]);
}

#[test]
fn a_worker_that_nobody_takes_says_why() {
    let launcher = Launcher::open();
    std::thread::scope(|scope| {
        let why = "rank 1 is another one".to_owned();
        scope.spawn(|| launcher.accept().tell(&Reply::Refused { why }));
        let who = introduction(launcher.address());
        let refused =
            Client::connect(who, WITHIN, Arc::default(), drop, || ()).unwrap_err().to_string();
        assert!(refused.ends_with("refuses this worker: rank 1 is another one"), "{refused}");
    });
    let address = launcher.address();
    drop(launcher);
    // The launcher of this host listens before it starts anybody, so there is nothing to wait for.
    let who = introduction(address.clone());
    let gone = Client::connect(who, WITHIN, Arc::default(), drop, || ()).unwrap_err().to_string();
    let words = format!("cannot reach the launcher at {address} within 0 s: ");
    assert!(gone.starts_with(&words) && gone.contains("--control-address"), "{gone}");
}
