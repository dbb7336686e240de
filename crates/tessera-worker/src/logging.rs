//! `logs/rank-R.jsonl`: one JSON object a line, `rank` on each, from every thread.
//!
//! Nobody waits for the file or for stderr: threads write to them, and lines that they do not take are
//! counted.

use std::fmt;
use std::io;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use tessera_control::{Stderr, all_told, is_coloured};
use tessera_train::metrics::{Appended, LineFile};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// Target of what the worker also prints on stderr as its one line of outcome: it goes to the log
/// file alone.
pub(crate) const OUTCOME: &str = "outcome";

/// Libraries whose refusals come back as errors, and need no line of their own.
const QUIET: &str = "symphonia=off";

static LOG: OnceLock<LineFile> = OnceLock::new();

/// What stderr shows: as `RUST_LOG` says, from `level` on without it.
fn terminal_filter(level: &str) -> EnvFilter {
    let outcome = format!("{OUTCOME}=off").parse().expect("a directive of our own");
    EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new(format!("{level},{QUIET}")))
        .add_directive(outcome)
}

/// Sends this process's log to `file`, and to stderr too where `to_stderr`.
///
/// `RUST_LOG` sets the level, `info` without it.
///
/// # Errors
///
/// If there can be no thread.
pub(crate) fn start(file: Appended, rank: usize, to_stderr: bool) -> io::Result<()> {
    let gap = move |missing| {
        let message = format!("{missing} lines of this log could not be written");
        let (level, target) = ("WARN", module_path!());
        let line = json!({ "unix_seconds": unix_seconds(), "rank": rank, "level": level, "target": target,
            "message": message });
        format!("{line}\n").into_bytes()
    };
    let started = LineFile::start(file, gap)?;
    let log = LOG.get_or_init(|| started);
    let all = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt::layer()
        .event_format(JsonLine { rank })
        .with_writer(move || Log(log))
        .log_internal_errors(false)
        .with_filter(all);
    let terminal = to_stderr.then(|| {
        tracing_subscriber::fmt::layer()
            .with_writer(|| Stderr)
            .log_internal_errors(false) // it would panic where nobody reads stderr
            .with_ansi(is_coloured())
            .with_target(false)
            .with_filter(terminal_filter("info"))
    });
    // A second call in one process keeps the first; the worker makes one.
    let _ = tracing_subscriber::registry().with(lines).with(terminal).try_init();
    Ok(())
}

/// Waits until the log and stderr have everything, for so long at most.
pub(crate) fn finish(limit: Duration) {
    let deadline = Instant::now() + limit;
    if let Some(log) = LOG.get() {
        log.wait(limit);
    }
    all_told(deadline.saturating_duration_since(Instant::now()));
}

/// The log file, to which each event comes in one write.
struct Log(&'static LineFile);

impl io::Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.put(line.to_owned());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn unix_seconds() -> f64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}

/// Sends warnings to stderr, for a command that has no run folder of its own to log to.
pub(crate) fn to_stderr() {
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(|| Stderr)
        .log_internal_errors(false)
        .with_ansi(is_coloured())
        .with_target(false)
        .with_filter(terminal_filter("warn"));
    let _ = tracing_subscriber::registry().with(lines).try_init();
}

/// Formats an event as one JSON object.
struct JsonLine {
    rank: usize,
}

impl<S, N> FormatEvent<S, N> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut object = Map::new();
        object.insert("unix_seconds".into(), json!(unix_seconds()));
        object.insert("rank".into(), json!(self.rank));
        object.insert("level".into(), json!(event.metadata().level().as_str()));
        object.insert("target".into(), json!(event.metadata().target()));
        event.record(&mut Fields(&mut object));
        writeln!(writer, "{}", Value::Object(object))
    }
}

/// Copies an event's fields into a JSON object.
struct Fields<'a>(&'a mut Map<String, Value>);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().into(), json!(format!("{value:?}")));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().into(), json!(value));
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.insert(field.name().into(), json!(value));
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().into(), json!(value));
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().into(), json!(value));
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().into(), json!(value));
    }
}
