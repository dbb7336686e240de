//! Limits and waits of the server.

use std::time::Duration;

use crate::ServeError;

/// Limits and waits of the server. [`Options::default`] suits a small model on one machine.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long the first request of a batch waits for others, unless the batch is full before.
    pub batch_wait: Duration,
    /// Samples that may wait or be computed at a time, over all requests; above, requests are answered with 429.
    pub queue_samples: usize,
    /// Samples of one request; above, it is answered with 413. At most `queue_samples`.
    pub request_samples: usize,
    /// Bytes of one request's body; above, it is answered with 413.
    pub body_bytes: usize,
    /// Bytes of all bodies that are held at a time; above, requests are answered with 429. At least `body_bytes`.
    pub total_body_bytes: usize,
    /// Bytes of a request's line and headers together.
    pub header_bytes: usize,
    /// How long a client may take for its headers, and be idle between two requests.
    pub header_timeout: Duration,
    /// How long a client may take for its body; above, it is answered with 408.
    pub body_timeout: Duration,
    /// How long a request may take in all; above, it is answered with 504.
    pub request_timeout: Duration,
    /// How long a client may leave an answer unread before its connection is cut.
    pub write_timeout: Duration,
    /// Open connections; others wait to be accepted.
    pub connections: usize,
    /// Those of one other machine: further ones are closed, so that no machine takes all.
    pub connections_of_address: usize,
    /// Names that the server is asked by, besides addresses of this machine. A server that listens on this machine alone refuses others, so
    /// that no page of another site reaches it through a name of its own (DNS rebinding); one that listens to all refuses others only
    /// where there are names.
    pub hosts: Vec<String>,
    /// Threads that read and write files.
    pub media_threads: usize,
    /// After a stop: how long clients with open connections may still send requests, each answered with `Connection: close`.
    pub linger: Duration,
    /// After a stop: when what is still unanswered is cut off.
    pub stop_timeout: Duration,
    /// What clients have to send as `Authorization: Bearer TOKEN`; `None`: nothing.
    pub bearer_token: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            batch_wait: Duration::from_millis(4),
            queue_samples: 4096,
            request_samples: 1024,
            body_bytes: 32 << 20,
            total_body_bytes: 256 << 20,
            header_bytes: 32 << 10,
            header_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(60),
            request_timeout: Duration::from_secs(120),
            write_timeout: Duration::from_secs(30),
            connections: 256,
            connections_of_address: 128,
            hosts: Vec::new(),
            media_threads: 2,
            linger: Duration::from_secs(1),
            stop_timeout: Duration::from_secs(30),
            bearer_token: None,
        }
    }
}

/// Least size of the buffer that hyper reads headers into.
const LEAST_HEADER_BYTES: usize = 8192;
/// Most of a semaphore's permits that one request can take at once.
const MOST_PERMITS: usize = u32::MAX as usize;

impl Options {
    /// Rejects values that would only fail later.
    ///
    /// # Errors
    ///
    /// [`ServeError::Option`].
    pub fn validate(&self) -> Result<(), ServeError> {
        let within = |name, value: usize, least: usize, most: usize| {
            let expected = format!("{least} to {most}");
            let wrong = ServeError::Option { name, expected, came: value.to_string() };
            if (least..=most).contains(&value) { Ok(()) } else { Err(wrong) }
        };
        within("queue samples", self.queue_samples, 1, MOST_PERMITS)?;
        within("request samples", self.request_samples, 1, self.queue_samples)?;
        within("total body bytes", self.total_body_bytes, 1, MOST_PERMITS)?;
        within("body bytes", self.body_bytes, 1, self.total_body_bytes)?;
        within("header bytes", self.header_bytes, LEAST_HEADER_BYTES, MOST_PERMITS)?;
        within("connections", self.connections, 1, 1 << 20)?;
        within("connections of an address", self.connections_of_address, 1, 1 << 20)?;
        within("media threads", self.media_threads, 1, 1 << 10)?;
        let is_token =
            |token: &String| !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
        match &self.bearer_token {
            Some(token) if !is_token(token) => Err(ServeError::Option {
                name: "bearer token",
                expected: "one line of printable ASCII without spaces".to_owned(),
                came: format!("{} bytes", token.len()), // a secret is not repeated
            }),
            _ => Ok(()),
        }
    }
}
