//! `tessera serve` with a real model: what comes over HTTP is what the commands give.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{run, tessera, train};

/// A server, and where it listens.
struct Server {
    process: Child,
    address: String,
    stderr: BufReader<std::process::ChildStderr>,
}

impl Server {
    fn start(model: &Path, more: &[&str]) -> Self {
        let mut command = tessera();
        command.args(["serve", "--listen", "127.0.0.1:0", "--name", "small", "--model"]);
        command.arg(model).args(more).stderr(Stdio::piped()).stdout(Stdio::null());
        let mut process = command.spawn().unwrap();
        let mut stderr = BufReader::new(process.stderr.take().unwrap());
        let mut line = String::new();
        let address = loop {
            line.clear();
            assert!(stderr.read_line(&mut line).unwrap() > 0, "it ended before it listened");
            if let Some((_, rest)) = line.split_once("http://") {
                break rest.split('/').next().unwrap().to_owned();
            }
        };
        let server = Self { process, address, stderr };
        // The listener answers while the model's first batch is on its way.
        while server.ask("GET", "/v2/health/ready", &[], b"").0 != 200 {
            std::thread::yield_now();
        }
        server
    }

    /// A request; status, and body.
    fn ask(&self, method: &str, path: &str, headers: &[&str], body: &[u8]) -> (u16, Vec<u8>) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let lines: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n{lines}\r\n",
            self.address,
            body.len()
        )
        .unwrap();
        stream.write_all(body).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let status = std::str::from_utf8(&answer[9..12]).unwrap().parse().unwrap();
        (status, answer.split_off(end + 4))
    }

    /// SIGTERM, and how it ends.
    fn stop(mut self) -> Option<i32> {
        kill_process(Pid::from_child(&self.process), Signal::TERM).unwrap();
        let code = self.process.wait().unwrap().code();
        let mut rest = String::new();
        self.stderr.read_to_string(&mut rest).unwrap();
        println!("{rest}");
        code
    }
}

#[test]
fn what_is_served_is_what_the_commands_give() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    let settings = ["train.steps=20", "checkpoint.every=0", "metrics.images_every=0"];
    let (code, _, stderr) = run(&mut train(1, &path("run"), &settings));
    assert_eq!(code, Some(0), "{stderr}");
    let model = path("run/model");
    // By hand: a picture of 24 x 40 pixels is six tiles of 16 x 16.
    let picture = image::GrayImage::from_fn(40, 24, |x, y| image::Luma([(x * 6 + y) as u8]));
    picture.save(path("picture.png")).unwrap();
    let bytes = fs::read(path("picture.png")).unwrap();
    for words in
        [["reconstruct", "picture.png", "same.png"], ["compress", "picture.png", "picture.tsc"]]
    {
        let mut command = tessera();
        command
            .args([words[0], "--model"])
            .arg(&model)
            .args(words[1..].iter().map(|name| path(name)));
        let (code, _, stderr) = run(&mut command);
        assert_eq!(code, Some(0), "{stderr}");
    }

    let server = Server::start(&model, &[]);
    let png = ["Content-Type: image/png"];
    let (status, same) = server.ask("POST", "/reconstruct", &png, &bytes);
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&same));
    let open = |bytes: &[u8]| image::load_from_memory(bytes).unwrap().into_luma8();
    assert_eq!(open(&same), open(&fs::read(path("same.png")).unwrap()));
    let (status, encoded) = server.ask("POST", "/encode", &png, &bytes);
    let encoded: Value = serde_json::from_slice(&encoded).unwrap();
    assert_eq!((status, encoded["tokens"].as_array().unwrap().len()), (200, 6));
    let as_file = ["Content-Type: image/png", "Accept: application/x-tessera"];
    let (status, file) = server.ask("POST", "/encode", &as_file, &bytes);
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&file));
    assert!(file == fs::read(path("picture.tsc")).unwrap(), "a compressed file is the command's");
    let (status, decoded) =
        server.ask("POST", "/decode", &["Content-Type: application/x-tessera"], &file);
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&decoded));
    assert_eq!(open(&decoded), open(&same));

    let (status, problem) = server.ask("POST", "/reconstruct", &png, b"no picture");
    assert_eq!(status, 400, "{}", String::from_utf8_lossy(&problem));
    let (status, problem) =
        server.ask("POST", "/sample", &["Content-Type: application/json"], b"{}");
    assert!(
        (400..=501).contains(&status),
        "there is no prior: {}",
        String::from_utf8_lossy(&problem)
    );
    let (status, metrics) = server.ask("GET", "/metrics", &[], b"");
    assert_eq!(status, 200);
    assert!(String::from_utf8(metrics).unwrap().contains("tessera_requests_total"));
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn a_token_is_asked_for_and_a_bad_one_is_told() {
    let folder = TempDir::new().unwrap();
    let token = folder.path().join("token");
    let words = |more: &[&str]| {
        let mut command = tessera();
        command.args(["serve", "--model", "nowhere", "--listen", "127.0.0.1:0"]).args(more);
        run(&mut command)
    };
    let (code, _, stderr) = words(&["--token-file", token.to_str().unwrap()]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("cannot be read"), "{stderr}");
    let (code, _, stderr) = words(&[]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("does not exist"), "{stderr}");
    let mut command = tessera();
    command.args(["serve", "--model", "nowhere", "--listen", "256.0.0.1:1"]);
    let (code, _, stderr) = run(&mut command);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("cannot listen at 256.0.0.1:1"), "{stderr}");
}
