//! A web server that misbehaves in every way, on loopback.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// What the web server does to the next answers about shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Kind,
    /// 500.
    Broken,
    /// Promises the bytes and closes after half of them.
    ClosesEarly,
    /// Accepts and says nothing.
    Stalls,
    /// Gives the whole file, whatever the range.
    NoRanges,
    /// Flips a bit in the middle.
    Lies,
}

/// A web server of one folder.
pub(crate) struct Server {
    port: u16,
    state: Arc<State>,
}

struct State {
    root: PathBuf,
    mood: Mutex<(Mood, u32)>,
    /// Answers with a body.
    answers: AtomicU64,
}

impl Server {
    pub(crate) fn start(root: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State {
            root: root.to_owned(),
            mood: Mutex::new((Mood::Kind, 0)),
            answers: AtomicU64::new(0),
        });
        let shared = Arc::clone(&state);
        // It ends with the process of the test.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = Arc::clone(&shared);
                thread::spawn(move || shared.serve(stream.unwrap()));
            }
        });
        Self { port, state }
    }

    /// Makes the next `answers` about shards and archives bad.
    pub(crate) fn be(&self, mood: Mood, answers: u32) {
        *self.state.mood.lock().unwrap() = (mood, answers);
    }

    pub(crate) fn answers(&self) -> u64 {
        self.state.answers.load(Ordering::Relaxed)
    }

    pub(crate) fn url(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("http://127.0.0.1:{}/{path}", self.port))
    }
}

impl State {
    fn mood_of(&self, path: &str) -> Mood {
        let mut mood = self.mood.lock().unwrap();
        if mood.1 == 0 || !(path.ends_with(".safetensors") || path.ends_with(".tar")) {
            return Mood::Kind;
        }
        mood.1 -= 1;
        mood.0
    }

    fn serve(&self, mut stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        loop {
            let (mut first, mut headers) = (String::new(), HashMap::new());
            if reader.read_line(&mut first).unwrap_or(0) == 0 {
                return;
            }
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                match line.trim().split_once(':') {
                    Some((key, value)) => {
                        headers.insert(key.to_ascii_lowercase(), value.trim().to_owned());
                    }
                    None => break,
                }
            }
            let mut words = first.split_whitespace();
            let (method, path) = (words.next().unwrap(), words.next().unwrap());
            let (path, query) = path.split_once('?').unwrap_or((path, ""));
            let path = path.replace("%20", " ");
            let path = path.as_str();
            let is_signed = method == "GET" && query.contains("X-Amz-Signature=geheim");
            if path.contains("/signed/") && !is_signed {
                // As object stores do: a signature is for one method, and the answer repeats it.
                let body = if method == "GET" { format!("<Given>{query}") } else { String::new() };
                let head = format!("HTTP/1.1 403 No\r\ncontent-length: {}\r\n\r\n", body.len());
                stream.write_all((head + &body).as_bytes()).unwrap();
                continue;
            }
            let Ok(bytes) = fs::read(self.root.join(path.trim_start_matches('/'))) else {
                stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").unwrap();
                continue;
            };
            let modified = "last-modified: Mon, 23 Nov 2026 08:00:00 GMT\r\n";
            if method == "HEAD" {
                let length = bytes.len();
                let head = format!("HTTP/1.1 200 OK\r\n{modified}content-length: {length}\r\n\r\n");
                stream.write_all(head.as_bytes()).unwrap();
                continue;
            }
            self.answers.fetch_add(1, Ordering::Relaxed);
            let mood = self.mood_of(path);
            match mood {
                Mood::Broken => {
                    let head = b"HTTP/1.1 500 Broken\r\ncontent-length: 0\r\n\r\n";
                    stream.write_all(head).unwrap();
                    continue;
                }
                Mood::Stalls => {
                    // Until the client gives up.
                    let _ = reader.read(&mut [0]);
                    return;
                }
                _ => {}
            }
            let range = headers.get("range").filter(|_| mood != Mood::NoRanges);
            let (head, mut body) = match range {
                Some(range) => {
                    let (from, to) = range.trim_start_matches("bytes=").split_once('-').unwrap();
                    let (from, to): (usize, usize) = (from.parse().unwrap(), to.parse().unwrap());
                    let all = bytes.len();
                    let end = (to + 1).min(all);
                    (
                        format!(
                            "206 Partial Content\r\ncontent-range: bytes {from}-{}/{all}",
                            end - 1
                        ),
                        bytes[from..end].to_vec(),
                    )
                }
                None => ("200 OK".to_owned(), bytes),
            };
            let length = body.len();
            let head = format!("HTTP/1.1 {head}\r\n{modified}content-length: {length}\r\n\r\n");
            match mood {
                Mood::ClosesEarly => body.truncate(length / 2),
                Mood::Lies => body[length / 2] ^= 1,
                _ => {}
            }
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(&body).unwrap();
            if mood == Mood::ClosesEarly {
                return;
            }
        }
    }
}
