//! The run's figures for Prometheus, over HTTP, in its text format
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>).

use std::fmt::Write as _;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tiny_http::{Header, Method, Request, Response, Server};

use crate::LaunchError;
use crate::display::Progress;
use crate::report::WorkerReport;

/// Content type of the text format.
const TEXT: &str = "Content-Type: text/plain; version=0.0.4; charset=utf-8";

/// Answers that may be on their way; whoever asks and does not read keeps one.
const MOST_ANSWERS: usize = 16;

/// What is told.
#[derive(Debug, Default)]
struct Figures {
    progress: Option<Progress>,
    workers: Vec<WorkerReport>,
    restarts: u32,
}

/// Answers `GET /metrics` from a thread of its own, until it is dropped.
pub(crate) struct Exporter {
    figures: Arc<Mutex<Figures>>,
    server: Arc<Server>,
}

impl Exporter {
    /// Listens on `address`, such as `127.0.0.1:9400`.
    ///
    /// # Errors
    ///
    /// [`LaunchError::System`] if that cannot be listened on.
    pub(crate) fn start(address: &str) -> Result<Self, LaunchError> {
        let server = Server::http(address)
            .map_err(|error| io::Error::other(error.to_string()))
            .map_err(LaunchError::system(format!("serve metrics on {address}")))?;
        let (figures, server) = (Arc::<Mutex<Figures>>::default(), Arc::new(server));
        let (read, serving) = (Arc::clone(&figures), Arc::clone(&server));
        let num_answers = Arc::<AtomicUsize>::default();
        let serve = move || {
            for request in serving.incoming_requests() {
                if num_answers.load(Ordering::Acquire) >= MOST_ANSWERS {
                    continue; // dropped, which answers 500
                }
                num_answers.fetch_add(1, Ordering::AcqRel);
                let (figures, num) = (Arc::clone(&read), Arc::clone(&num_answers));
                // On a thread of its own: one that does not read what it has asked for stops no other.
                let answer = move || {
                    answer(request, &figures);
                    num.fetch_sub(1, Ordering::AcqRel);
                };
                let thread = std::thread::Builder::new().name("metrics-answer".into());
                if thread.spawn(answer).is_err() {
                    num_answers.fetch_sub(1, Ordering::AcqRel);
                }
            }
        };
        std::thread::Builder::new()
            .name("metrics".into())
            .spawn(serve)
            .map_err(LaunchError::system("start a thread"))?;
        Ok(Self { figures, server })
    }

    pub(crate) fn set_progress(&self, progress: Progress) {
        self.set(|figures| figures.progress = Some(progress));
    }

    pub(crate) fn set_workers(&self, workers: Vec<WorkerReport>) {
        self.set(|figures| figures.workers = workers);
    }

    pub(crate) fn set_restarts(&self, restarts: u32) {
        self.set(|figures| figures.restarts = restarts);
    }

    fn set(&self, set: impl FnOnce(&mut Figures)) {
        set(&mut self.figures.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.server.unblock();
    }
}

fn answer(request: Request, figures: &Mutex<Figures>) {
    let answered = if *request.method() == Method::Get && request.url() == "/metrics" {
        let text = render(&figures.lock().unwrap_or_else(PoisonError::into_inner));
        let header: Header = TEXT.parse().expect("the header is constant");
        request.respond(Response::from_string(text).with_header(header))
    } else {
        request.respond(Response::from_string("see /metrics\n").with_status_code(404))
    };
    if let Err(error) = answered {
        tracing::debug!(%error, "a request for metrics was not answered");
    }
}

fn render(figures: &Figures) -> String {
    let mut text = String::new();
    let mut one = |name: &str, kind: &str, help: &str, values: &[(String, f64)]| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "# HELP tessera_{name} {help}\n# TYPE tessera_{name} {kind}");
        for (labels, value) in values {
            let _ = writeln!(text, "tessera_{name}{labels} {value}");
        }
    };
    let single = |value: f64| vec![(String::new(), value)];
    if let Some(progress) = &figures.progress {
        let Progress { step, steps, figures, samples_per_second, words: _ } = progress;
        one("step", "gauge", "Optimiser steps done.", &single(*step as f64));
        one("steps", "gauge", "Optimiser steps of the whole run.", &single(*steps as f64));
        for (name, value) in figures {
            one(name, "gauge", "Figure of the last interval.", &single(*value));
        }
        let speed = single(*samples_per_second);
        one("samples_per_second", "gauge", "Samples a second over all workers.", &speed);
    }
    let restarts = single(f64::from(figures.restarts));
    one("restarts_total", "counter", "Times that the workers were started again.", &restarts);
    let of = |value: &dyn Fn(&WorkerReport) -> f64| -> Vec<(String, f64)> {
        let labels = |worker: &WorkerReport| {
            let host = worker.host.replace('\\', "\\\\").replace('"', "\\\"");
            format!("{{rank=\"{}\",host=\"{host}\"}}", worker.rank)
        };
        figures.workers.iter().map(|worker| (labels(worker), value(worker))).collect()
    };
    let connected = of(&|worker| f64::from(u8::from(worker.connected)));
    one("worker_connected", "gauge", "Whether a worker's connection stands.", &connected);
    let step = of(&|worker| worker.step as f64);
    one("worker_step", "gauge", "Optimiser steps that a worker has done.", &step);
    let silent = of(&|worker| worker.silent_seconds);
    one("worker_silent_seconds", "gauge", "Seconds since a worker was heard.", &silent);
    let known = figures.workers.iter().any(|worker| worker.waiting_share.is_some());
    if known {
        let waiting = of(&|worker| worker.waiting_share.unwrap_or(0.0));
        one("worker_waiting_ratio", "gauge", "Share of its time that a worker waits.", &waiting);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use super::*;

    fn get(exporter: &Exporter, path: &str) -> String {
        let address = exporter.server.server_addr().to_ip().unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn figures_are_served_in_the_text_format() {
        let exporter = Exporter::start("127.0.0.1:0").unwrap();
        exporter.set_restarts(2);
        exporter.set_progress(Progress {
            step: 30,
            steps: 60,
            words: String::new(),
            figures: [("loss".to_owned(), 0.25)].into(),
            samples_per_second: 1000.0,
        });
        let worker = WorkerReport {
            rank: 1,
            host: "a\"b".to_owned(),
            step: 29,
            connected: true,
            ..WorkerReport::default()
        };
        exporter.set_workers(vec![worker]);
        let text = get(&exporter, "/metrics");
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
        for line in [
            "# TYPE tessera_loss gauge\ntessera_loss 0.25\n",
            "tessera_step 30\n",
            "tessera_restarts_total 2\n",
            "tessera_worker_step{rank=\"1\",host=\"a\\\"b\"} 29\n",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
        assert!(get(&exporter, "/").starts_with("HTTP/1.1 404"));

        // Who asks without end and reads nothing keeps nobody else from an answer.
        let host = "long ".repeat(20_000);
        let workers = (0..100).map(|rank| WorkerReport {
            rank,
            host: host.clone(),
            ..WorkerReport::default()
        });
        exporter.set_workers(workers.collect()); // more than what a socket takes unread
        let mut deaf = TcpStream::connect(exporter.server.server_addr().to_ip().unwrap()).unwrap();
        write!(deaf, "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut first = [0];
        deaf.read_exact(&mut first).unwrap(); // its answer is on its way
        exporter.set_workers(Vec::new());
        assert!(get(&exporter, "/metrics").starts_with("HTTP/1.1 200"));
        let taken = exporter.server.server_addr().to_string();
        assert!(Exporter::start(&taken).is_err(), "a port that is taken is an error");
    }
}
