//! The server's figures for Prometheus, in its text format
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>). Labels are routes, statuses and kinds of work: no
//! client can make up new ones.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::inference::Kind;
use crate::process;

/// Content type of the text format.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Upper ends of the buckets of durations, in seconds.
const SECONDS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Upper ends of the buckets of batch sizes, in samples.
const SAMPLES: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// How often values fell below each bound.
#[derive(Debug)]
struct Histogram {
    bounds: &'static [f64],
    counts: Vec<u64>,
    sum: f64,
    count: u64,
}

#[derive(Debug, Default)]
struct Figures {
    requests: BTreeMap<(String, u16), u64>,
    request_seconds: BTreeMap<String, Histogram>,
    queue_seconds: Option<Histogram>,
    batch_sizes: BTreeMap<&'static str, Histogram>,
    batch_seconds: BTreeMap<&'static str, Histogram>,
}

/// What is counted.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    figures: Mutex<Figures>,
    /// Requests that are being answered.
    pub(crate) in_flight: AtomicI64,
    /// Open connections.
    pub(crate) connections: AtomicI64,
    /// Requests whose client left before the answer.
    pub(crate) left: AtomicU64,
}

/// What is known at the moment of asking alone.
pub(crate) struct Now<'a> {
    pub(crate) is_ready: bool,
    pub(crate) queue_samples: usize,
    pub(crate) body_bytes: usize,
    pub(crate) name: &'a str,
    pub(crate) hash: &'a str,
    pub(crate) version: &'a str,
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, counts: vec![0; bounds.len()], sum: 0.0, count: 0 }
    }

    fn add(&mut self, value: f64) {
        if let Some(at) = self.bounds.iter().position(|&bound| value <= bound) {
            self.counts[at] += 1;
        }
        self.sum += value;
        self.count += 1;
    }

    fn write(&self, text: &mut String, name: &str, label: &str) {
        let separator = if label.is_empty() { "" } else { "," };
        let mut below = 0;
        for (bound, count) in self.bounds.iter().zip(&self.counts) {
            below += count;
            line(text, &format!("{name}_bucket{{{label}{separator}le=\"{bound}\"}}"), below as f64);
        }
        line(text, &format!("{name}_bucket{{{label}{separator}le=\"+Inf\"}}"), self.count as f64);
        let labels = if label.is_empty() { String::new() } else { format!("{{{label}}}") };
        line(text, &format!("{name}_sum{labels}"), self.sum);
        line(text, &format!("{name}_count{labels}"), self.count as f64);
    }
}

impl Metrics {
    /// A request of this route was answered.
    pub(crate) fn answered(&self, route: &str, status: u16, took: Duration) {
        self.with(|figures| {
            *figures.requests.entry((route.to_owned(), status)).or_default() += 1;
            let seconds = figures.request_seconds.entry(route.to_owned());
            seconds.or_insert_with(|| Histogram::new(&SECONDS)).add(took.as_secs_f64());
        });
    }

    /// A request waited this long for its first batch.
    pub(crate) fn queued(&self, waited: Duration) {
        self.with(|figures| {
            let seconds = figures.queue_seconds.get_or_insert_with(|| Histogram::new(&SECONDS));
            seconds.add(waited.as_secs_f64());
        });
    }

    /// A batch was computed.
    pub(crate) fn batch(&self, kind: Kind, num_samples: usize, took: Duration) {
        let kind = kind.label();
        self.with(|figures| {
            let sizes = figures.batch_sizes.entry(kind);
            sizes.or_insert_with(|| Histogram::new(&SAMPLES)).add(num_samples as f64);
            let seconds = figures.batch_seconds.entry(kind);
            seconds.or_insert_with(|| Histogram::new(&SECONDS)).add(took.as_secs_f64());
        });
    }

    fn with(&self, change: impl FnOnce(&mut Figures)) {
        change(&mut self.figures.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// All figures as text.
    pub(crate) fn render(&self, now: &Now<'_>) -> String {
        let mut text = String::new();
        self.with(|figures| figures.write(&mut text));
        let (queued, body_bytes) = (now.queue_samples as i64, now.body_bytes as i64);
        let gauges = [
            ("tessera_queue_samples", "Samples that wait or are computed.", queued),
            (
                "tessera_in_flight",
                "Requests being answered.",
                self.in_flight.load(Ordering::Relaxed),
            ),
            ("tessera_connections", "Open connections.", self.connections.load(Ordering::Relaxed)),
            ("tessera_body_bytes", "Bytes of bodies that are held or awaited.", body_bytes),
            ("tessera_ready", "Whether the model answers.", i64::from(now.is_ready)),
        ];
        for (name, help, value) in gauges {
            head(&mut text, name, "gauge", help);
            line(&mut text, name, value as f64);
        }
        let left = "tessera_clients_left_total";
        head(&mut text, left, "counter", "Requests whose client left before the answer.");
        line(&mut text, left, self.left.load(Ordering::Relaxed) as f64);
        head(&mut text, "tessera_model_info", "gauge", "The model that is served.");
        let (name, hash, version) = (escaped(now.name), escaped(now.hash), escaped(now.version));
        let labels = format!("{{name=\"{name}\",hash=\"{hash}\",version=\"{version}\"}}");
        line(&mut text, &format!("tessera_model_info{labels}"), 1.0);
        for figure in process::figures() {
            head(&mut text, figure.name, figure.kind, figure.help);
            line(&mut text, figure.name, figure.value);
        }
        text
    }
}

impl Figures {
    fn write(&self, text: &mut String) {
        let name = "tessera_requests_total";
        head(text, name, "counter", "Requests that were answered.");
        for ((route, code), count) in &self.requests {
            line(text, &format!("{name}{{route=\"{route}\",code=\"{code}\"}}"), *count as f64);
        }
        let name = "tessera_request_duration_seconds";
        head(text, name, "histogram", "Time from a request's headers to its answer's.");
        for (route, histogram) in &self.request_seconds {
            histogram.write(text, name, &format!("route=\"{route}\""));
        }
        let name = "tessera_queue_seconds";
        head(text, name, "histogram", "Time that a request waits for its first batch.");
        if let Some(histogram) = &self.queue_seconds {
            histogram.write(text, name, "");
        }
        let name = "tessera_batch_size";
        head(text, name, "histogram", "Samples of a batch.");
        for (kind, histogram) in &self.batch_sizes {
            histogram.write(text, name, &format!("kind=\"{kind}\""));
        }
        let name = "tessera_batch_seconds";
        head(text, name, "histogram", "Time that the model takes for a batch.");
        for (kind, histogram) in &self.batch_seconds {
            histogram.write(text, name, &format!("kind=\"{kind}\""));
        }
    }
}

// Writing to a string does not fail.
fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn line(text: &mut String, name: &str, value: f64) {
    let _ = writeln!(text, "{name} {value}");
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
