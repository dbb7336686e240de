//! The client of NCCL's RAS against a stand-in for it: what is asked, what is understood, and that
//! nothing takes longer than its deadline.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nccl_rs::ras::{self, Answer, Detail, Error};

const LONG: Duration = Duration::from_secs(20);

/// As NCCL 2.24 and later say it of a job of four ranks, one of which is an operation behind.
const BEHIND: &str = "NCCL version 2.28.9 compiled with CUDA 13.0\n\
    CUDA runtime version 13000, driver version 13000\n\n\
    Job summary\n===========\n\n  Nodes  Processes         GPUs  Processes     GPUs\n\
    (total)   per node  per process    (total)  (total)\n\
    \u{20}     1          4            1          4        4\n\n\
    Communicators... (0.00s)\n=============\n\n\
    Group     Comms     Nodes     Ranks     Ranks     Ranks    Status  Errors\n\
    \u{20}   #  in group  per comm  per node  per comm  in group\n\
    \u{20}   0         1         1         4         4         4   RUNNING  MISMATCH\n\n\
    Errors\n======\n\nWarnings\n========\n\n#0-0 (27a079b828ff1a75) MISMATCH\n\
    \u{20} Communicator ranks have different AllReduce operation counts\n\
    \u{20} 3 ranks have launched up to operation 12\n\
    \u{20} Rank 3 has launched up to operation 11 -- GPU 3 managed by process 4711 on node 10.0.0.1\n\n";

/// What one visitor has said, line by line.
type Heard = JoinHandle<Vec<String>>;

/// Listens for one visitor, and answers each of its lines with what `answer` says to it; closes
/// behind an answer that is the last.
fn stand_in(answer: impl Fn(&str) -> (String, Then) + Send + 'static) -> (String, Heard) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let heard = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut to: TcpStream = stream.try_clone().unwrap();
        let mut heard = Vec::new();
        for line in BufReader::new(stream).lines() {
            let Ok(line) = line else { break };
            let (words, then) = answer(&line);
            heard.push(line);
            let _ = to.write_all(words.as_bytes());
            match then {
                Then::GoOn => {}
                Then::Close => break,
            }
        }
        heard
    });
    (address, heard)
}

enum Then {
    GoOn,
    Close,
}

/// The protocol, with this as the answer to the question.
fn speaks(answer: &'static str, then: fn() -> Then) -> impl Fn(&str) -> (String, Then) {
    move |line| match line.split(' ').next() {
        Some("CLIENT") => ("SERVER PROTOCOL 2\n".into(), Then::GoOn),
        Some("TIMEOUT") => ("OK\n".into(), Then::GoOn),
        _ => (answer.into(), then()),
    }
}

fn findings(answer: &Answer) -> Vec<&str> {
    answer.findings().collect()
}

#[test]
fn an_answer_is_read_to_its_end_and_what_is_wrong_is_found_in_it() {
    let (address, heard) = stand_in(speaks(BEHIND, || Then::Close));
    let answer = ras::ask(&address, Detail::Verbose, LONG).unwrap();
    assert_eq!((answer.text.as_str(), answer.is_complete), (BEHIND, true));
    assert_eq!(
        findings(&answer),
        [
            "#0-0 (27a079b828ff1a75) MISMATCH",
            "Communicator ranks have different AllReduce operation counts",
            "3 ranks have launched up to operation 12",
            "Rank 3 has launched up to operation 11 -- GPU 3 managed by process 4711 on node \
             10.0.0.1",
        ]
    );
    let heard = heard.join().unwrap();
    assert_eq!(heard[0], "CLIENT PROTOCOL 2");
    let seconds: u64 = heard[1].strip_prefix("TIMEOUT ").unwrap().parse().unwrap();
    assert!((1..=20).contains(&seconds), "{seconds}");
    assert_eq!(heard[2..], ["VERBOSE STATUS"]);
}

#[test]
fn a_short_deadline_is_never_no_limit_for_nccl() {
    let (address, heard) = stand_in(speaks("NCCL version 2.28.9\n", || Then::Close));
    let answer = ras::ask(&address, Detail::Status, Duration::from_millis(900)).unwrap();
    assert_eq!(findings(&answer), [""; 0]);
    assert_eq!(heard.join().unwrap()[1..], ["TIMEOUT 1", "STATUS"]);
}

#[test]
fn what_had_come_at_the_deadline_is_the_answer() {
    let (address, _) = stand_in(speaks("NCCL version 2.28.9\n", || Then::GoOn));
    let start = Instant::now();
    let answer = ras::ask(&address, Detail::Status, Duration::from_millis(300)).unwrap();
    assert_eq!((answer.text.as_str(), answer.is_complete), ("NCCL version 2.28.9\n", false));
    assert!(start.elapsed() < LONG);
}

#[test]
fn whoever_says_nothing_is_a_deadline() {
    let (address, _) = stand_in(|_| (String::new(), Then::GoOn));
    let deadline = Duration::from_millis(200);
    let answer = ras::ask(&address, Detail::Status, deadline);
    assert_eq!(answer, Err(Error::Deadline { waited: deadline }));
}

/// All processes of a host listen on one port, and the system picks: also one that was stopped, and
/// more than once.
#[test]
fn processes_that_do_not_greet_are_passed_over() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let _stopped: Vec<_> = (0..20).map(|_| listener.accept().unwrap()).collect();
        let (stream, _) = listener.accept().unwrap();
        let mut to = stream.try_clone().unwrap();
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let (words, then) = speaks(BEHIND, || Then::Close)(&line);
            to.write_all(words.as_bytes()).unwrap();
            if matches!(then, Then::Close) {
                return;
            }
        }
    });
    let answer = ras::ask(&address, Detail::Status, Duration::from_secs(5)).unwrap();
    assert_eq!((answer.text.as_str(), answer.is_complete), (BEHIND, true));
}

#[test]
fn somebody_else_on_the_port_is_told_from_nccl() {
    let (address, _) = stand_in(|_| ("HTTP/1.1 400 Bad Request\r\n".into(), Then::Close));
    let error = ras::ask(&address, Detail::Status, LONG).unwrap_err();
    assert_eq!(
        error.to_string(),
        "expected 'SERVER PROTOCOL' of NCCL RAS, found 'HTTP/1.1 400 Bad Request'"
    );
}

#[test]
fn nobody_on_the_port_is_an_error_with_the_address() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let error = ras::ask(&address, Detail::Status, LONG).unwrap_err();
    assert!(matches!(&error, Error::Connect { address: at, .. } if *at == address), "{error}");
}
