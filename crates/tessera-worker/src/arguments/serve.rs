//! The arguments of `tessera serve`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tessera_serve::Options;

use super::apply::{ComputeArguments, ModelArguments};

/// Bytes of a mebibyte.
const MIB: usize = 1 << 20;

#[derive(Debug, Args)]
pub(crate) struct ServeArguments {
    #[command(flatten)]
    pub(crate) model: ModelArguments,
    #[command(flatten)]
    pub(crate) compute: ComputeArguments,
    /// A run folder or a model folder of a prior of the model's codes, for new samples.
    #[arg(long, value_name = "DIR")]
    pub(crate) prior: Option<PathBuf>,
    /// Address and port; port 0: any that is free. Whoever reaches it can use the model: other machines are let in by an
    /// address of this one, such as 0.0.0.0:8080, and should need a token then.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080")]
    pub(crate) listen: String,
    /// File with the token that clients have to send as `Authorization: Bearer TOKEN`.
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Name of the model in answers [default: the last part of its path]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// How long the first request of a batch waits for others, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 4, value_parser = clap::value_parser!(u64).range(0..=10_000))]
    batch_wait_ms: u64,
    /// Samples that may wait or be computed at a time; above, requests are answered with 429.
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..))]
    queue: u32,
    /// Samples of one request, tiles of a large picture, say.
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..))]
    max_samples: u32,
    /// Mebibytes of one request.
    #[arg(long, value_name = "MIB", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=1024))]
    max_body_mib: u32,
    /// Megapixels of a picture, and of all frames of a film.
    #[arg(long, value_name = "MP", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=16_384))]
    pub(crate) max_megapixels: u64,
    /// Longest sound, in seconds.
    #[arg(long, value_name = "S", default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(crate) max_seconds: u32,
    /// Open connections; others wait.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    connections: u32,
    /// Open connections of one other machine; further ones are closed.
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    connections_per_address: u32,
    /// A name that the server is asked by, repeatable. One that listens on this machine alone has the names localhost and
    /// 127.0.0.1 besides, and refuses others.
    #[arg(long = "host", value_name = "NAME")]
    hosts: Vec<String>,
    /// How long a request may take in all, in seconds.
    #[arg(long, value_name = "S", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    request_timeout: u64,
    /// How long a client may take for its headers, and be idle between two requests, in seconds.
    #[arg(long, value_name = "S", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    header_timeout: u64,
    /// After SIGTERM or SIGINT: when what is still unanswered is cut off, in seconds.
    #[arg(long, value_name = "S", default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..=3600))]
    stop_timeout: u64,
}

impl ServeArguments {
    /// Limits and waits, with the token that clients have to send.
    pub(crate) fn limits(&self, bearer_token: Option<String>) -> Options {
        let usual = Options::default();
        let body_bytes = self.max_body_mib as usize * MIB;
        Options {
            batch_wait: Duration::from_millis(self.batch_wait_ms),
            queue_samples: self.queue as usize,
            request_samples: self.max_samples.min(self.queue) as usize,
            body_bytes,
            total_body_bytes: usual.total_body_bytes.max(body_bytes),
            header_timeout: Duration::from_secs(self.header_timeout),
            request_timeout: Duration::from_secs(self.request_timeout),
            connections: self.connections as usize,
            connections_of_address: self.connections_per_address as usize,
            hosts: self.hosts.clone(),
            stop_timeout: Duration::from_secs(self.stop_timeout),
            bearer_token,
            ..usual
        }
    }
}
