use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rustix::net::sockopt::set_socket_linger;
use tessera_control::{Phase, Reply, Secrets, proof};

use super::*;

const WITHIN: Duration = Duration::from_secs(20);

fn terms() -> Terms {
    let attempt = "9f3a07c2b1d4-0".parse().unwrap();
    let environment = Secrets([("API_TOKEN".to_owned(), "hidden".to_owned())].into());
    Terms { attempt, world_size: 4, silence: Duration::from_secs(60), environment }
}

fn open() -> (Listener, Receiver<Event>) {
    let (sender, events) = channel();
    (Listener::open(&Reach::Here, &terms(), sender).unwrap(), events)
}

fn dial(listener: &Listener) -> TcpStream {
    TcpStream::connect(listener.addresses.parse::<SocketAddr>().unwrap()).unwrap()
}

/// A worker as the programs of earlier versions spoke: hello without a look at the challenge.
fn say(listener: &Listener, token: &str) -> TcpStream {
    let mut stream = dial(listener);
    let hello = format!(
        r#"{{"type":"hello","token":"{token}","rank":1,"world_size":4,"host":"h","pid":3}}"#
    );
    writeln!(stream, "{hello}").unwrap();
    stream
}

struct Worker {
    stream: TcpStream,
    lines: BufReader<TcpStream>,
    challenge: String,
}

impl Worker {
    fn dial(listener: &Listener) -> Self {
        let stream = dial(listener);
        let lines = BufReader::new(stream.try_clone().unwrap());
        let mut worker = Self { stream, lines, challenge: String::new() };
        let Reply::Challenge { challenge } = worker.reply() else { panic!("no challenge") };
        worker.challenge = challenge;
        worker
    }

    fn hello(&mut self, secret: &str, rank: usize, pid: u32) {
        let attempt = "9f3a07c2b1d4-0".to_owned();
        let proof = proof(secret, &self.challenge, &attempt, rank);
        let (token, attempt, host) = (String::new(), Some(attempt), "h".into());
        let hello = Message::Hello { token, proof, attempt, rank, world_size: 4, host, pid };
        writeln!(self.stream, "{}", serde_json::to_string(&hello).unwrap()).unwrap();
    }

    /// A worker that was taken, and how many of its messages were heard before.
    fn meet(listener: &Listener, rank: usize) -> (Self, u64) {
        let mut worker = Self::dial(listener);
        worker.hello(&listener.token, rank, 3);
        let Reply::Welcome { silence_seconds: 60.0, heard, environment } = worker.reply() else {
            panic!("not welcome")
        };
        // One that comes back has them.
        assert_eq!(environment, if heard == 0 { terms().environment } else { Secrets::default() });
        (worker, heard)
    }

    fn say(&mut self, number: u64, text: &str) {
        writeln!(self.stream, r#"{{"number":{number},"type":"notice","text":"{text}"}}"#).unwrap();
    }

    fn reply(&mut self) -> Reply {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("no reply: {line:?}"))
    }

    /// Ends as a network does that forgets the connection.
    fn reset(self) {
        set_socket_linger(&self.stream, Some(Duration::ZERO)).unwrap();
    }
}

/// Reads until the other side hangs up; whatever it has said before.
fn is_hung_up_on(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(WITHIN)).unwrap();
    let mut said = Vec::new();
    stream.read_to_end(&mut said).is_ok()
}

#[test]
fn only_a_worker_with_the_token_is_heard() {
    let (listener, events) = open();
    assert!(is_hung_up_on(&mut say(&listener, "guess")));
    let told = events.recv_timeout(WITHIN).unwrap();
    assert!(matches!(&told, Event::Warning(text) if text.ends_with("were refused: 1")), "{told:?}");

    drop(say(&listener, &listener.token));
    let first = events.recv_timeout(WITHIN).unwrap();
    assert!(matches!(first, Event::Message { rank: 1, message: Message::Hello { .. } }));
    assert!(matches!(events.recv_timeout(WITHIN).unwrap(), Event::Closed { rank: 1, .. }));
}

#[test]
fn what_follows_a_hello_in_one_piece_is_heard_too() {
    let (listener, events) = open();
    let mut stream = dial(&listener);
    let hello = format!(
        r#"{{"type":"hello","token":"{}","rank":1,"world_size":4,"host":"h","pid":3}}"#,
        listener.token
    );
    let beat = r#"{"type":"heartbeat","phase":"data","step":7}"#;
    write!(stream, "{hello}\n{beat}\n{}", &beat[..9]).unwrap();
    events.recv_timeout(WITHIN).unwrap();
    let heard = events.recv_timeout(WITHIN).unwrap();
    let expected = Message::Heartbeat { phase: Phase::Data, step: 7, part: 0, call: None };
    assert!(matches!(heard, Event::Message { rank: 1, message } if message == expected));
    writeln!(stream, "{}", &beat[9..]).unwrap();
    assert!(matches!(events.recv_timeout(WITHIN).unwrap(), Event::Message { rank: 1, .. }));
}

#[test]
fn a_proof_is_taken_and_a_wrong_one_or_a_second_process_is_not() {
    let (listener, events) = open();
    let (_first, heard) = Worker::meet(&listener, 2);
    assert_eq!(heard, 0);
    assert!(matches!(events.recv_timeout(WITHIN).unwrap(), Event::Message { rank: 2, .. }));
    for (secret, pid, words) in
        [("guess", 3, "does not know the secret"), (&*listener.token, 4, "a second process")]
    {
        let mut other = Worker::dial(&listener);
        other.hello(secret, 2, pid);
        let Reply::Refused { why } = other.reply() else { panic!("taken") };
        assert!(why.contains(words), "{why}");
        assert!(is_hung_up_on(&mut other.stream));
        assert!(matches!(events.recv_timeout(WITHIN).unwrap(), Event::Warning(_)));
    }
}

#[test]
fn a_break_is_told_from_an_end_and_what_was_heard_is_known_at_the_return() {
    let (listener, events) = open();
    let (mut worker, _) = Worker::meet(&listener, 2);
    worker.say(1, "one");
    worker.say(2, "two");
    while worker.reply() != (Reply::Heard { number: 2 }) {}
    worker.reset();
    let texts = |event: Event| match event {
        Event::Message { message: Message::Notice { text }, .. } => Some(text),
        _ => None,
    };
    let mut heard = Vec::new();
    loop {
        match events.recv_timeout(WITHIN).unwrap() {
            Event::Closed { rank: 2, end: End::Broken(_) } => break,
            event => heard.extend(texts(event)),
        }
    }
    let (mut worker, before) = Worker::meet(&listener, 2);
    assert_eq!(before, 2);
    worker.say(2, "two again");
    worker.say(3, "three");
    drop(worker);
    loop {
        match events.recv_timeout(WITHIN).unwrap() {
            Event::Closed { rank: 2, end } => break assert_eq!(end, End::InOrder),
            event => heard.extend(texts(event)),
        }
    }
    assert_eq!(heard, ["one", "two", "three"]);
}

#[test]
fn a_worker_hears_the_end_of_its_attempt() {
    let (mut listener, _events) = open();
    let (mut worker, _) = Worker::meet(&listener, 2);
    worker.say(1, "still here");
    listener.close();
    assert!(is_hung_up_on(&mut worker.stream), "an end, and not a break");
}

fn num_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Tests that count what this process has, and those that make it have much, one at a time.
static COUNTED: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    COUNTED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Other tests of this process may have some files open at the same time.
const TOLERANCE: usize = 100;

#[test]
fn nothing_of_a_hundred_attempts_is_left() {
    let _alone = alone();
    let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
    let (files, tasks) = (num_files(), threads());
    for _ in 0..100 {
        let (listener, _events) = open();
        let workers: Vec<Worker> = (0..4).map(|rank| Worker::meet(&listener, rank).0).collect();
        let strangers: Vec<TcpStream> = (0..4).map(|_| dial(&listener)).collect();
        drop(listener);
        drop((workers, strangers));
    }
    assert!(num_files() < files + TOLERANCE, "{files} files before, {} after", num_files());
    assert!(threads() < tasks + TOLERANCE, "{tasks} threads before, {} after", threads());
}

#[test]
fn ten_thousand_strangers_leave_no_trace_and_keep_no_worker_out() {
    let _alone = alone();
    let (listener, events) = open();
    let (mut worker, _) = Worker::meet(&listener, 0);
    let (files, memory) = (num_files(), resident_kib());
    let begun = Instant::now();
    let mut open = Vec::new();
    for number in 0..10_000 {
        let mut stream = dial(&listener);
        // Some say nothing, some what is no hello, some what has no end, and some stay.
        let _ = match number % 4 {
            0 => stream.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            1 => stream.write(&[b'x'; 8 << 10]),
            _ => Ok(0),
        };
        if number % 4 == 3 {
            open.push(stream);
            if open.len() == 100 {
                open.clear();
            }
        }
    }
    println!("10,000 strangers came within {:?}", begun.elapsed());
    let (second, _) = Worker::meet(&listener, 1);
    worker.say(1, "still here");
    while worker.reply() != (Reply::Heard { number: 1 }) {}
    drop(open);
    assert!(num_files() < files + TOLERANCE + 68, "{files} files before, {} after", num_files());
    let now = resident_kib();
    assert!(now < memory + (16 << 10), "{memory} KiB before, {now} after");
    let warnings = events.try_iter().filter(|event| matches!(event, Event::Warning(_))).count();
    assert_eq!(warnings, 1, "not one for each");
    drop(second);
}

#[test]
fn who_does_not_introduce_itself_is_hung_up_on_when_others_come() {
    let _alone = alone();
    let (listener, _events) = open();
    // 4 workers and 64 more may knock at once.
    let mut strangers: Vec<TcpStream> = (0..69).map(|_| dial(&listener)).collect();
    assert!(is_hung_up_on(&mut strangers[0]));
    strangers[68].set_nonblocking(true).unwrap();
    let mut challenge = [0; 4 << 10];
    while let Ok(read) = strangers[68].read(&mut challenge) {
        assert!(read > 0, "the newest stays");
    }
}
